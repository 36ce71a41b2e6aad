"""Backends by name: what each needs, whether it can run here, and why not.

Kernel sets and engines are named as strings and imported only when used, so that looking at the
list costs nothing.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

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
    probe: Callable[[], tuple[bool, str, str]]  # usable, reason, device


def _processor() -> str:
    return f"CPU ({platform.machine() or 'unknown architecture'})"


def _probe_cuda() -> tuple[bool, str, str]:
    causes = ["this version of pdex_gpu has no CUDA kernels yet"]
    if importlib.util.find_spec("cupy") is None:
        causes.append("CuPy is not installed")
    return False, "; ".join(causes) + ". Use backend='cpu'.", ""


def _probe_cpu() -> tuple[bool, str, str]:
    if importlib.util.find_spec("numba") is None:
        return False, "numba is not installed. Run: pip install numba", ""
    return True, "compiled with numba", _processor()


def _probe_reference() -> tuple[bool, str, str]:
    return True, "numpy and scipy, always there; slow", _processor()


_CPU_ENGINES = ("threads", "shared_memory", "serial")

# In the order in which "auto" tries them.
_BACKENDS = {
    b.name: b
    for b in (
        _Backend("cuda", "pdex_gpu.backends.cuda.kernels", (), _probe_cuda),
        _Backend("cpu", "pdex_gpu.backends.cpu.kernels", _CPU_ENGINES, _probe_cpu),
        _Backend("reference", "pdex_gpu.backends.reference", _CPU_ENGINES, _probe_reference),
    )
}
ENGINES = {name: f"pdex_gpu.engines.{name}" for name in _CPU_ENGINES}


def backends() -> list[BackendInfo]:
    """Every backend and whether it can run on this machine, in the order ``auto`` tries them."""
    return [_info(b) for b in _BACKENDS.values()]


def _info(backend: _Backend) -> BackendInfo:
    usable, reason, device = backend.probe()
    return BackendInfo(backend.name, usable, reason, device, backend.engines)


def choose_backend(name: str = "auto") -> BackendInfo:
    """The backend to use; its `reason` says why.

    ``"auto"`` takes what the environment variable ``PDEX_GPU_BACKEND`` names, else the first that
    can run.

    Raises
    ------
    OptionError
        If there is no backend of that name.
    BackendError
        If the backend asked for by name cannot run here.
    """
    asked = f"backend={name!r}"
    if name == "auto" and os.environ.get(ENVIRONMENT):
        name = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={name}"
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
    info = _info(_BACKENDS[name])
    if not info.usable:
        raise BackendError(f"{asked} was asked for, but it cannot run here: {info.reason}")
    return BackendInfo(name, True, f"{asked} was asked for", info.device, info.engines)


def load_kernels(name: str) -> ModuleType:
    """Import the kernel set of a backend."""
    return importlib.import_module(_BACKENDS[name].kernels)


def load_engine(name: str) -> ModuleType:
    """Import an engine."""
    return importlib.import_module(ENGINES[name])
