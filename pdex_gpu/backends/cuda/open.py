"""The kernel sets of the devices asked for, and compiling for them ahead of time."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Any

from ...errors import BackendError
from ..base import AskedDevices, AskedMemory, Compiled
from . import probe


def open_asked(devices: AskedDevices, device_memory: AskedMemory = None) -> Any:
    """Open the kernel set of a device, or of several devices.

    Raises
    ------
    pdex_gpu.errors.BackendError
        If a device asked for cannot be used, or if none can.
    """
    from .kernel_set import open_kernels

    if devices is None or isinstance(devices, int):
        return open_kernels(probe.usable_device(devices), device_memory)
    found = probe.probe_asked(devices)
    if not found.usable:
        raise BackendError(f"The CUDA backend cannot run here: {found.reason}")
    numbers = [device.number or 0 for device in found.devices]
    if len(numbers) == 1:
        return open_kernels(numbers[0], device_memory)
    from .multi_device import open_several

    return open_several(numbers, device_memory)


def compile_kernels(device: int | None = None, architectures: Sequence[str] = ()) -> list[Compiled]:
    """Compile for a device or for architectures; see :func:`..registry.compile_kernels`."""
    if not architectures:
        index = probe.usable_device(device)
    elif importlib.util.find_spec("cupy") is None:
        raise BackendError(f"CuPy is not installed: run {probe.install_command()}")
    try:
        from . import cupy_device as cuda
    except ImportError as error:
        raise BackendError(f"CuPy is installed but cannot be imported: {error}") from error
    if not architectures:
        return cuda.compile_all(cuda.open_device(index))
    return [done for architecture in architectures for done in cuda.compile_for(architecture)]
