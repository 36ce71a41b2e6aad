"""CUDA kernels, compiled by NVRTC and launched through CuPy.

:mod:`.kernel_set` has the methods of :class:`..contract.StreamedKernelSet`. Devices are reached
through :mod:`.device_api` only, and CuPy is imported by :mod:`.cupy_device` only. May import what
:mod:`pdex_gpu.backends` may, but no other kernel set. To add a kernel, add a source to the folder
``kernels`` and a module here that launches it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import AskedDevices, AskedMemory, Backend, Compiled, Probed


def _probe(devices: AskedDevices) -> Probed:
    from .probe import probe_asked

    return probe_asked(devices)


def _open(devices: AskedDevices, memory: AskedMemory) -> Any:
    from .open import open_asked

    return open_asked(devices, memory)


def _compile(device: int | None, architectures: Sequence[str]) -> list[Compiled]:
    from .open import compile_kernels

    return compile_kernels(device, architectures)


BACKEND = Backend(
    name="cuda",
    summary="CUDA kernels through CuPy; compute capability 7.0 or later",
    engines=("streams",),
    probe=_probe,
    open=_open,
    compilers=("cupy",),
    has_devices=True,
    reads_device_memory=True,
    compile=_compile,
    caveat="The CUDA backend has been tested on an emulated device, and little or not at all on a "
    "GPU. Compare with backend='cpu' before you rely on it.",
)
