"""The list of backends by name: what each needs, whether it can run here, and if not, why.

Kernel sets and engines are named by strings and imported only when used, so that listing them costs
nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

from ..errors import BackendError, OptionError, shown, unknown
from ..utils.checks import is_whole

ENVIRONMENT = "PDEX_GPU_BACKEND"

#: Environment variable that turns off compiling by numba.
NO_COMPILING = "NUMBA_DISABLE_JIT"
ALL: Final = "all"

#: Which CUDA devices to use: any, one, several, or all that can be used.
Devices = int | tuple[int, ...] | Literal["all"] | None

_NUMBERED = re.compile(r", device \d+$")
_BETWEEN = "; "  # separates descriptions of devices
_AUTO = "auto: "
_NOT_USABLE = " not usable: "


@dataclass(frozen=True)
class BackendInfo:
    """A backend and its state on this machine.

    Attributes
    ----------
    name : str
    usable : bool
    reason : str
        Why it is usable, or all the causes why it is not and what to do about them.
    device : str
        What it computes on, several separated by "; "; empty if it is not usable.
    engines : tuple of str
        Names of the engines that can run it, the default first.
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
    # Takes the devices asked for (None: any); returns usable, reason and device.
    probe: Callable[[Devices], tuple[bool, str, str]]


def _processor() -> str:
    return f"CPU ({platform.machine() or 'unknown architecture'})"


def _probe_cuda(device: Devices) -> tuple[bool, str, str]:
    from .cuda import probe

    if device is None or isinstance(device, int):
        return probe.probe(device)
    found = probe.probe_several(None if device == ALL else device)
    if not found.usable:
        return False, found.causes, ""
    left_out = f"left out: {found.causes.rstrip('.')}" if found.causes else ""
    return True, left_out, _BETWEEN.join(found.devices)


def compiling_is_off(environment: Mapping[str, str]) -> bool:
    """Return whether numba is told not to compile."""
    return environment.get(NO_COMPILING, "0") not in ("", "0")


def _probe_cpu(_: Devices) -> tuple[bool, str, str]:
    if importlib.util.find_spec("numba") is None:
        return False, "numba is not installed. Run: pip install numba", ""
    if compiling_is_off(os.environ):
        return (
            False,
            f"{NO_COMPILING} is set, so numba does not compile. Unset it, or pass "
            "backend='reference', which needs no compiling",
            "",
        )
    return True, "compiled with numba", _processor()


def _probe_reference(_: Devices) -> tuple[bool, str, str]:
    return True, "numpy and scipy, always available; slow", _processor()


_CPU_ENGINES = ("threads", "shared_memory", "serial")
_CUDA_ENGINES = ("streams",)

# In the order that "auto" tries them.
_BACKENDS = {
    b.name: b
    for b in (
        _Backend("cuda", "pdex_gpu.backends.cuda.kernel_set", _CUDA_ENGINES, _probe_cuda),
        _Backend("cpu", "pdex_gpu.backends.cpu.kernel_set", _CPU_ENGINES, _probe_cpu),
        _Backend("reference", "pdex_gpu.backends.numpy.kernel_set", _CPU_ENGINES, _probe_reference),
    )
}
# Dask runs any backend that its workers have.
ENGINES = {
    **{name: f"pdex_gpu.engines.{name}" for name in (*_CPU_ENGINES, *_CUDA_ENGINES)},
    "dask": "pdex_gpu.engines.dask.engine",
}


def backends() -> list[BackendInfo]:
    """List every backend and whether it can run here, in the order that ``auto`` tries them.

    Returns
    -------
    list of BackendInfo
        Each has `name`, `usable`, `reason` (why, or why not), `device` and `engines`.
    """
    return [_info(b) for b in _BACKENDS.values()]


def _info(backend: _Backend, device: Devices = None) -> BackendInfo:
    usable, reason, description = backend.probe(device)
    return BackendInfo(backend.name, usable, reason, description, backend.engines)


def models(device: str) -> str:
    """Return the distinct device models of a `BackendInfo.device`, without device numbers."""
    return _BETWEEN.join(sorted({_NUMBERED.sub("", one) for one in device.split(_BETWEEN)}))


def n_devices(info: BackendInfo) -> int:
    """Return the number of devices that a backend computes on."""
    return len(info.device.split(_BETWEEN)) if info.device else 0


def choose_backend(name: str = "auto", device: Any = None) -> BackendInfo:
    """Choose the backend to use; its `reason` says why.

    ``"auto"`` takes the backend that the environment variable ``PDEX_GPU_BACKEND`` names, or else
    the first that can run. If a device is asked for, it takes CUDA or fails.

    Parameters
    ----------
    name : str
    device : int, list or tuple of int, or "all", optional
        Index of a CUDA device, indices of several, or all that can be used; by default the first
        that can be used.

    Raises
    ------
    OptionError
        If there is no backend of that name, if it has no devices to choose from, or if `device` is
        invalid.
    BackendError
        If the backend or a device asked for cannot run here.
    """
    given, device = device, check_device(device)
    asked = f"backend={name!r}"
    if name == "auto" and os.environ.get(ENVIRONMENT):
        name = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={name}"
    if name == "auto" and device is not None:
        name, asked = "cuda", f"device={shown(given)}"
    if name == "auto":
        skipped: list[str] = []
        for info in backends():
            if info.usable:
                reason = f"{_AUTO}{info.reason}"
                if skipped:
                    reason += "; " + "; ".join(skipped)
                return BackendInfo(info.name, True, reason, info.device, info.engines)
            skipped.append(f"{info.name}{_NOT_USABLE}{info.reason.rstrip('.')}")
    if name not in _BACKENDS:
        raise OptionError(unknown("backend", name, ["auto", *_BACKENDS]))
    if name != "cuda" and device is not None:
        raise OptionError(
            f"device={shown(given)} selects a CUDA device, but {asked} was requested, which has "
            "none. Leave device= out, or pass backend='cuda'."
        )
    info = _info(_BACKENDS[name], device)
    if not info.usable:
        raise BackendError(f"{asked} was requested, but it cannot run here: {info.reason}")
    reason = f"{asked} was requested"
    if device == ALL and info.reason:
        reason += f"; {info.reason}"
    return BackendInfo(name, True, reason, info.device, info.engines)


def passed_over(reason: str) -> list[str]:
    """Return the backends that ``auto`` could not use, read from the `reason` of its choice."""
    if not reason.startswith(_AUTO):
        return []
    return [name for name in _BACKENDS if f"; {name}{_NOT_USABLE}" in reason]


def check_device(device: Any) -> Devices:
    """Return the CUDA devices asked for; a list of one becomes that one.

    Raises
    ------
    OptionError
        If `device` is invalid.
    """
    if device is None:
        return None
    if isinstance(device, str) and device == ALL:
        return ALL
    if isinstance(device, list | tuple):
        indices = [_index(one) for one in device]
        if not indices:
            raise OptionError(
                f"device={shown(device)} names no CUDA device. Pass device numbers, 'all', or None "
                "for the first usable device."
            )
        if None not in indices:
            found = tuple(index for index in indices if index is not None)
            twice = sorted({index for index in found if found.count(index) > 1})
            if twice:
                raise OptionError(
                    f"device={shown(device)} names device {twice[0]} more than once. List each "
                    "device once."
                )
            return found[0] if len(found) == 1 else found
    elif (index := _index(device)) is not None:
        return index
    raise OptionError(
        f"device={shown(device)} must be the number of a CUDA device (nvidia-smi lists them, the "
        "first is 0), a list of such numbers, 'all', or None."
    )


def _index(device: Any) -> int | None:
    """Return `device` as a device number, or None if it cannot be one."""
    return int(device) if is_whole(device) and device >= 0 else None


def load_kernels(
    name: str, device: Any = None, device_memory: str | int | float | None = None
) -> Any:
    """Load the kernel set of a backend.

    Parameters
    ----------
    name : str
    device : int, list or tuple of int, or "all", optional
        CUDA devices; by default the first that can be used. Other backends have none.
    device_memory : str, int or float, optional
        Most memory to use on each device.

    Returns
    -------
    KernelSet
        For one CUDA device, a `StreamedKernelSet`. For several, a `DeviceKernels` that also has
        the methods that serve all of them: `packed_bytes` and `benjamini_hochberg`.

    Raises
    ------
    OptionError
        If `device` is invalid.
    BackendError
        If a device cannot be used.
    """
    try:
        module = importlib.import_module(_BACKENDS[name].kernels)
    except ImportError as error:  # for example a numba for another numpy, or half removed
        raise BackendError(
            f"The backend {name!r} cannot run here: a package that it needs cannot be imported "
            f"({error}). Reinstall that package, or pass backend='reference'."
        ) from error
    if name != "cuda":
        return module
    from .cuda import probe

    asked = check_device(device)
    if asked is None or isinstance(asked, int):
        return module.open_kernels(probe.usable_device(asked), device_memory)
    found = probe.probe_several(None if asked == ALL else asked)
    if not found.usable:
        raise BackendError(f"The CUDA backend cannot run here: {found.causes}")
    if len(found.indices) == 1:
        return module.open_kernels(found.indices[0], device_memory)
    from .cuda.multi_device import open_several

    return open_several(found.indices, device_memory)


def compile_kernels(
    device: int | None = None, architectures: Sequence[str] = ()
) -> list[tuple[str, str, bool]]:
    """Compile the CUDA kernels ahead of time.

    Parameters
    ----------
    device : int, optional
        Device to compile for; by default the first that can be used.
    architectures : sequence of str
        Architectures to compile for instead, such as ``"sm_90"`` for compute capability 9.0. This
        needs CuPy, but no device.

    Returns
    -------
    list of tuple
        Source, architecture, and whether it was compiled now or had been before.

    Raises
    ------
    BackendError
        If there is no such device, or if CuPy or its compiler is missing.
    """
    from .cuda import probe

    if not architectures:
        index = probe.usable_device(_one(device))
    elif importlib.util.find_spec("cupy") is None:
        raise BackendError(f"CuPy is not installed: run {probe.install_command()}")
    try:
        from .cuda import cupy_device as cuda
    except ImportError as error:
        raise BackendError(f"CuPy is installed but cannot be imported: {error}") from error
    if not architectures:
        return cuda.compile_all(cuda.open_device(index))
    return [done for architecture in architectures for done in cuda.compile_for(architecture)]


def _one(device: Any) -> int | None:
    asked = check_device(device)
    if asked is None or isinstance(asked, int):
        return asked
    raise OptionError(
        f"device={shown(device)} is not a single device, but kernels are compiled for one device "
        "at a time. Pass its number."
    )


def load_engine(name: str) -> Any:
    """Import an engine."""
    return importlib.import_module(ENGINES[name])
