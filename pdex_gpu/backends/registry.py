"""Backends by name: what each needs, whether it can run here, and why not.

Kernel sets and engines are named as strings and imported only when used, so that looking at the
list costs nothing.
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

from ..checks import is_whole
from ..errors import BackendError, OptionError, shown, unknown

ENVIRONMENT = "PDEX_GPU_BACKEND"

#: The variable that turns numba's compiling off.
NO_COMPILING = "NUMBA_DISABLE_JIT"
ALL: Final = "all"

#: Which CUDA devices: any, one, several or all that can be used.
Devices = int | tuple[int, ...] | Literal["all"] | None

_NUMBERED = re.compile(r", device \d+$")
_BETWEEN = "; "  # descriptions of devices
_AUTO = "auto: "
_NOT_USABLE = " not usable: "


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
        What it computes on, several with "; " between; empty if it is not usable.
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
    # From the devices asked for (None: any) to usable, reason, device.
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
    """Whether numba is told not to compile."""
    return environment.get(NO_COMPILING, "0") not in ("", "0")


def _probe_cpu(_: Devices) -> tuple[bool, str, str]:
    if importlib.util.find_spec("numba") is None:
        return False, "numba is not installed. Run: pip install numba", ""
    if compiling_is_off(os.environ):
        return (
            False,
            f"{NO_COMPILING} is set, so that numba compiles nothing. Unset it, or give "
            "backend='reference', which needs no compiling",
            "",
        )
    return True, "compiled with numba", _processor()


def _probe_reference(_: Devices) -> tuple[bool, str, str]:
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
# Dask runs whatever backend its workers have.
ENGINES = {name: f"pdex_gpu.engines.{name}" for name in (*_CPU_ENGINES, *_CUDA_ENGINES, "dask")}


def backends() -> list[BackendInfo]:
    """Every backend and whether it can run on this machine, in the order ``auto`` tries them.

    Returns
    -------
    list of BackendInfo
        Each with `name`, `usable`, `reason` (why, or why not), `device` and `engines`.
    """
    return [_info(b) for b in _BACKENDS.values()]


def _info(backend: _Backend, device: Devices = None) -> BackendInfo:
    usable, reason, description = backend.probe(device)
    return BackendInfo(backend.name, usable, reason, description, backend.engines)


def models(device: str) -> str:
    """A device or several, as in `BackendInfo`, without how many of a kind there are, and which."""
    return _BETWEEN.join(sorted({_NUMBERED.sub("", one) for one in device.split(_BETWEEN)}))


def n_devices(info: BackendInfo) -> int:
    """How many devices a backend computes on."""
    return len(info.device.split(_BETWEEN)) if info.device else 0


def choose_backend(name: str = "auto", device: Any = None) -> BackendInfo:
    """The backend to use; its `reason` says why.

    ``"auto"`` takes what the environment variable ``PDEX_GPU_BACKEND`` names, else the first that
    can run. Where a device is asked for, that is CUDA or none.

    Parameters
    ----------
    name : str
    device : int, list or tuple of int, or "all", optional
        Index of a CUDA device, or of several, or all that can be used; by default the first that
        can be used.

    Raises
    ------
    OptionError
        If there is no backend of that name, it has no devices to choose from, or `device` makes
        no sense.
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
            f"device={shown(given)} chooses among CUDA devices, but {asked} was asked for, which "
            "has none. Leave device out, or give backend='cuda'."
        )
    info = _info(_BACKENDS[name], device)
    if not info.usable:
        raise BackendError(f"{asked} was asked for, but it cannot run here: {info.reason}")
    reason = f"{asked} was asked for"
    if device == ALL and info.reason:
        reason += f"; {info.reason}"
    return BackendInfo(name, True, reason, info.device, info.engines)


def passed_over(reason: str) -> list[str]:
    """The backends that ``auto`` could not use, from the reason it gave for the one it chose."""
    if not reason.startswith(_AUTO):
        return []
    return [name for name in _BACKENDS if f"; {name}{_NOT_USABLE}" in reason]


def check_device(device: Any) -> Devices:
    """The CUDA devices that are asked for: a list of one is one.

    Raises
    ------
    OptionError
        If that makes no sense.
    """
    if device is None:
        return None
    if isinstance(device, str) and device == ALL:
        return ALL
    if isinstance(device, list | tuple):
        indices = [_index(one) for one in device]
        if not indices:
            raise OptionError(
                f"device={shown(device)} names no CUDA device. Give their numbers, 'all', or None "
                "for the first that can be used."
            )
        if None not in indices:
            found = tuple(index for index in indices if index is not None)
            twice = sorted({index for index in found if found.count(index) > 1})
            if twice:
                raise OptionError(
                    f"device={shown(device)} names device {twice[0]} more than once. Name each "
                    "once."
                )
            return found[0] if len(found) == 1 else found
    elif (index := _index(device)) is not None:
        return index
    raise OptionError(
        f"device={shown(device)} must be the number of a CUDA device (nvidia-smi lists them, the "
        "first is 0), a list of such numbers, 'all', or None."
    )


def _index(device: Any) -> int | None:
    """The number of a device; None if this cannot be one."""
    return int(device) if is_whole(device) and device >= 0 else None


def load_kernels(
    name: str, device: Any = None, device_memory: str | int | float | None = None
) -> Any:
    """The kernel set of a backend.

    Parameters
    ----------
    name : str
    device : int, list or tuple of int, or "all", optional
        CUDA devices; by default the first that can be used. Other backends have none.
    device_memory : str, int or float, optional
        Most memory to use on each.

    Returns
    -------
    KernelSet
        On a CUDA device a `StreamedKernelSet`. Of several, `DeviceKernels`, with what is asked of
        them together: `packed_bytes` and `benjamini_hochberg`.

    Raises
    ------
    OptionError
        If `device` makes no sense.
    BackendError
        If a device cannot be used.
    """
    try:
        module = importlib.import_module(_BACKENDS[name].kernels)
    except ImportError as error:  # numba for another numpy, say, or half removed
        raise BackendError(
            f"The backend {name!r} cannot run here: a package that it needs cannot be imported "
            f"({error}). Reinstall that package, or give backend='reference'."
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
    from .cuda.several import open_several

    return open_several(found.indices, device_memory)


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
        index = probe.usable_device(_one(device))
    elif importlib.util.find_spec("cupy") is None:
        raise BackendError(f"CuPy is not installed: run {probe.install_command()}")
    try:
        from .cuda import device as cuda
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
        f"device={shown(device)} is not one device, and kernels are compiled for one at a time. "
        "Give its number."
    )


def load_engine(name: str) -> Any:
    """Import an engine."""
    return importlib.import_module(ENGINES[name])
