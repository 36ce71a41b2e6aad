"""Backends by name: what each needs, whether it can run here, and why not.

Kernel sets and engines are named as strings and imported only when used, so that looking at the
list costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import operator
import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import BackendError, OptionError, unknown

ENVIRONMENT = "PDEX_GPU_BACKEND"


@dataclass(frozen=True)
class BackendInfo:
    """A backend as it stands on this machine.

    Attributes
    ----------
    name : str
    usable : bool
    reason : str
        What makes it usable, or every cause why it is not and what to do.
    device : str
        What it computes on; empty if it is not usable.
    engines : tuple of str
        Names of the engines it can run on, the default first.
    """

    name: str
    usable: bool
    reason: str
    device: str
    engines: tuple[str, ...]


@dataclass(frozen=True)
class _Backend:
    name: str
    kernels: str
    engines: tuple[str, ...]
    # From the device asked for (None: any) to usable, reason, device.
    probe: Callable[[int | None], tuple[bool, str, str]]


def _processor() -> str:
    return f"CPU ({platform.machine() or 'unknown architecture'})"


def _probe_cuda(device: int | None) -> tuple[bool, str, str]:
    from .cuda.probe import probe

    return probe(device)


def _probe_cpu(_: int | None) -> tuple[bool, str, str]:
    if importlib.util.find_spec("numba") is None:
        return False, "numba is not installed. Run: pip install numba", ""
    return True, "compiled with numba", _processor()


def _probe_reference(_: int | None) -> tuple[bool, str, str]:
    return True, "numpy and scipy, always there; slow", _processor()


_CPU_ENGINES = ("threads", "shared_memory", "serial")
_CUDA_ENGINES = ("streams",)

# In the order in which "auto" tries them.
_BACKENDS = {
    b.name: b
    for b in (
        _Backend("cuda", "pdex_gpu.backends.cuda.kernels", _CUDA_ENGINES, _probe_cuda),
        _Backend("cpu", "pdex_gpu.backends.cpu.kernels", _CPU_ENGINES, _probe_cpu),
        _Backend("reference", "pdex_gpu.backends.reference", _CPU_ENGINES, _probe_reference),
    )
}
ENGINES = {name: f"pdex_gpu.engines.{name}" for name in (*_CPU_ENGINES, *_CUDA_ENGINES)}


def backends() -> list[BackendInfo]:
    """Every backend and whether it can run on this machine, in the order ``auto`` tries them.

    Returns
    -------
    list of BackendInfo
        Each with `name`, `usable`, `reason` (why, or why not), `device` and `engines`.
    """
    return [_info(b) for b in _BACKENDS.values()]


def _info(backend: _Backend, device: int | None = None) -> BackendInfo:
    usable, reason, description = backend.probe(device)
    return BackendInfo(backend.name, usable, reason, description, backend.engines)


def choose_backend(name: str = "auto", device: int | None = None) -> BackendInfo:
    """The backend to use; its `reason` says why.

    ``"auto"`` takes what the environment variable ``PDEX_GPU_BACKEND`` names, else the first that
    can run. Where a device is asked for, that is CUDA or none.

    Parameters
    ----------
    name : str
    device : int, optional
        Index of a CUDA device; by default the first that can be used.

    Raises
    ------
    OptionError
        If there is no backend of that name, or it has no devices to choose from.
    BackendError
        If the backend or device asked for cannot run here.
    """
    device = _check_device(device)
    asked = f"backend={name!r}"
    if name == "auto" and os.environ.get(ENVIRONMENT):
        name = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={name}"
    if name == "auto" and device is not None:
        name, asked = "cuda", f"device={device}"
    if name == "auto":
        skipped: list[str] = []
        for info in backends():
            if info.usable:
                reason = f"auto: {info.reason}"
                if skipped:
                    reason += "; " + "; ".join(skipped)
                return BackendInfo(info.name, True, reason, info.device, info.engines)
            skipped.append(f"{info.name} not usable: {info.reason.rstrip('.')}")
    if name not in _BACKENDS:
        raise OptionError(unknown("backend", name, ["auto", *_BACKENDS]))
    if name != "cuda" and device is not None:
        raise OptionError(
            f"device={device} chooses one of several CUDA devices, but {asked} was asked for, "
            "which has none. Leave device out, or give backend='cuda'."
        )
    info = _info(_BACKENDS[name], device)
    if not info.usable:
        raise BackendError(f"{asked} was asked for, but it cannot run here: {info.reason}")
    return BackendInfo(name, True, f"{asked} was asked for", info.device, info.engines)


def _check_device(device: Any) -> int | None:
    if device is None:
        return None
    try:
        index = operator.index(device)
    except TypeError:
        index = -1
    if index < 0 or isinstance(device, bool):
        raise OptionError(
            f"device={device!r} must be the number of a CUDA device (nvidia-smi lists them, the "
            "first is 0), or None."
        )
    return index


def load_kernels(
    name: str, device: int | None = None, device_memory: str | int | float | None = None
) -> Any:
    """The kernel set of a backend.

    Parameters
    ----------
    name : str
    device : int, optional
        CUDA device; by default the first that can be used. Others have none.
    device_memory : str, int or float, optional
        Most memory to use there.
    """
    module = importlib.import_module(_BACKENDS[name].kernels)
    if name != "cuda":
        return module
    from .cuda.probe import usable_device

    return module.open_kernels(usable_device(device), device_memory)


def compile_kernels(
    device: int | None = None, architectures: Sequence[str] = ()
) -> list[tuple[str, str, bool]]:
    """Compile the CUDA kernels ahead of time.

    Parameters
    ----------
    device : int, optional
        For this device; by default the first that can be used.
    architectures : sequence of str
        For these instead, ``"sm_90"`` for compute capability 9.0: needs CuPy, but no device.

    Returns
    -------
    list of tuple
        Source, architecture, and whether it was compiled now or had been before.

    Raises
    ------
    BackendError
        If there is no such device, or what compiles is missing.
    """
    from .cuda import probe

    if not architectures:
        index = probe.usable_device(_check_device(device))
    elif importlib.util.find_spec("cupy") is None:
        raise BackendError(f"CuPy is not installed: run {probe.install_command()}")
    try:
        from .cuda import device as cuda
    except ImportError as error:
        raise BackendError(f"CuPy is installed but cannot be imported: {error}") from error
    if not architectures:
        return cuda.compile_all(cuda.open_device(index))
    return [done for architecture in architectures for done in cuda.compile_for(architecture)]


def load_engine(name: str) -> Any:
    """Import an engine."""
    return importlib.import_module(ENGINES[name])
