"""The list of backends by name, whether each can run here and if not why, and the choice of one.

Descriptions, kernel sets and engines are named by strings and imported only when used, so that
listing them costs nothing. To add a backend, write a package that exports a
:class:`~.base.Backend`, and add a line to :data:`BACKENDS`, or, from another distribution, an entry
point of the group ``pdex_gpu.backends`` that names it.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Literal

from ..errors import BackendError, OptionError, shown, unknown
from ..utils.checks import is_whole
from ..utils.resolve import resolve
from .base import CPU_ENGINES, AskedDevices, AskedMemory, Backend, Compiled, Device, Probed
from .options import BackendOptions, unpacked

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

ENVIRONMENT = "PDEX_GPU_BACKEND"
AUTO: Final = "auto"
ALL: Final = "all"

#: The backends of this package, in the order that "auto" tries them, and their descriptions.
BACKENDS = {
    "cuda": "pdex_gpu.backends.cuda:BACKEND",
    "cpu": "pdex_gpu.backends.cpu:BACKEND",
    "numpy": "pdex_gpu.backends.numpy:BACKEND",
}

#: These names, for type checkers.
BackendName = Literal["auto", "cuda", "cpu", "numpy"]

#: The entry points through which other distributions add backends. "auto" does not try these.
GROUP = "pdex_gpu.backends"

# Dask runs any backend that its workers have.
ENGINES = {
    **{name: f"pdex_gpu.engines.{name}" for name in (*CPU_ENGINES, "streams")},
    "dask": "pdex_gpu.engines.dask.engine",
}

#: These names, for type checkers.
EngineName = Literal["auto", "threads", "shared_memory", "serial", "streams", "dask"]


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
    devices : tuple of Device
        What it computes on, one by one; empty if it is not usable.
    """

    name: str
    usable: bool
    reason: str
    device: str
    engines: tuple[str, ...]
    devices: tuple[Device, ...] = ()

    @property
    def models(self) -> str:
        """Return the distinct device models, without device numbers."""
        return "; ".join(sorted({device.model for device in self.devices}))


def names() -> list[str]:
    """Return the names of all backends: this package's, then those of other distributions."""
    return [*BACKENDS, *_entry_points()]


def _entry_points() -> dict[str, EntryPoint]:
    from importlib.metadata import entry_points

    found = sorted(entry_points(group=GROUP), key=lambda entry: entry.name)
    return {entry.name: entry for entry in found if entry.name not in (AUTO, *BACKENDS)}


def describe(name: str) -> Backend:
    """Return the description of a backend.

    Raises
    ------
    OptionError
        If there is no backend of that name.
    BackendError
        If another distribution's entry point of that name cannot be loaded or is no backend.
    """
    if name in BACKENDS:
        return resolve(BACKENDS[name])
    entries = _entry_points()
    if name not in entries:
        raise OptionError(unknown("backend", name, [AUTO, *BACKENDS, *entries]))
    return _load(entries[name])


def _load(entry: EntryPoint) -> Backend:
    offered = "" if entry.dist is None else f" of {entry.dist.name} {entry.dist.version}"
    where = f"The entry point {entry.name} = {entry.value!r}{offered}"
    try:
        found = entry.load()
    except Exception as error:  # another distribution's code may raise anything
        raise BackendError(
            f"{where} cannot be loaded ({type(error).__name__}: {error}). Reinstall or remove that "
            "distribution."
        ) from error
    what = ""
    if not isinstance(found, Backend):
        what = f"is {shown(found)}, not a pdex_gpu.backends.base.Backend"
    elif found.name != entry.name:
        what = f"describes a backend of another name, {found.name!r}"
    elif not found.engines or not set(found.engines) <= set(ENGINES):
        what = f"names engines {shown(found.engines)}; there are {', '.join(ENGINES)}"
    if what:
        raise BackendError(f"{where} {what}. Correct that distribution, or remove it.")
    return found


def find(name: object) -> Backend | None:
    """Return the description of a backend, or None if there is none here that can be loaded."""
    try:
        return describe(str(name))
    except (BackendError, OptionError):
        return None


def _described() -> Iterator[Backend]:
    """Yield the description of every backend that can be loaded."""
    return (found for name in names() if (found := find(name)) is not None)


def backends() -> list[BackendInfo]:
    """List every backend and whether it can run here, in the order that ``auto`` tries them.

    Returns
    -------
    list of BackendInfo
        Each has `name`, `usable`, `reason` (why, or why not), `device`, `engines` and `devices`.
    """
    return [info(name) for name in names()]


def info(name: str, device: AskedDevices = None) -> BackendInfo:
    """Return whether a backend can run here on the devices asked for; see :func:`backends`."""
    try:
        backend = describe(name)
    except BackendError as error:  # of another distribution, which stops no other backend
        return BackendInfo(name, False, str(error), "", ())
    try:
        found = backend.probe(device)
    except Exception as error:
        if name in BACKENDS:
            raise
        found = Probed(False, f"its probe failed ({type(error).__name__}: {error})")
    text = "; ".join(map(str, found.devices))
    return BackendInfo(name, found.usable, found.reason, text, backend.engines, found.devices)


def choose_backend(backend: str | BackendOptions = AUTO, device: Any = None) -> BackendInfo:
    """Choose the backend to use; its `reason` says why.

    ``"auto"`` takes the backend that the environment variable ``PDEX_GPU_BACKEND`` names, or else
    the first of this package's that can run. If a device is asked for, it takes CUDA or fails.

    Parameters
    ----------
    backend : str or BackendOptions
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
    name, device, _ = unpacked(backend, device)
    given, device = device, check_device(device)
    asked = f"backend={name!r}"
    if name == AUTO and os.environ.get(ENVIRONMENT):
        name = os.environ[ENVIRONMENT]
        asked = f"{ENVIRONMENT}={name}"
    if name == AUTO and device is not None:
        name, asked = _with_devices(), f"device={shown(given)}"
    if name == AUTO:
        return _first_usable()
    described = find(name)
    if described is not None and not described.has_devices and device is not None:
        raise OptionError(
            f"device={shown(given)} selects a CUDA device, but {asked} was requested, which "
            f"has none. Leave device= out, or pass backend={_with_devices()!r}."
        )
    found = info(name, device)
    if not found.usable:
        raise BackendError(f"{asked} was requested, but it cannot run here: {found.reason}")
    reason = f"{asked} was requested"
    if device == ALL and found.reason:
        reason += f"; {found.reason}"
    return replace(found, reason=reason)


def _first_usable() -> BackendInfo:
    reason = ""
    for name in BACKENDS:
        found = info(name)
        if found.usable:
            return replace(found, reason=f"{AUTO}: {found.reason}{reason}")
        reason += f"; {name} not usable: {found.reason.rstrip('.')}"
    raise BackendError(f"No backend can run here{reason}.")


def _with_devices() -> str:
    """Return the name of the backend that ``device=`` asks for."""
    return next(name for name in BACKENDS if describe(name).has_devices)


def was_auto(name: str) -> bool:
    """Return whether asking for this backend leaves the choice to this package."""
    return name == AUTO and os.environ.get(ENVIRONMENT) in (None, "", AUTO)


def passed_over(name: str) -> list[str]:
    """Return the backends that cannot be used here, for which ``auto`` took this one.

    None, if ``auto`` would have taken another.
    """
    tried = list(BACKENDS)
    before = tried[: tried.index(name)] if name in BACKENDS else []
    return [] if any(info(one).usable for one in before) else before


def on_host() -> BackendInfo:
    """Return the first backend that runs on the processors of this machine, for what any can do."""
    found = (info(name) for name in BACKENDS if not describe(name).has_devices)
    return next(one for one in found if one.usable)


def runs_pairs() -> str:
    """Return the name of the backend that runs the test options that others lack."""
    return next(name for name in BACKENDS if describe(name).runs_pairs)


def compilers(name: str) -> dict[str, str]:
    """Return names and versions of the modules that compile a backend's kernels, if imported."""
    backend = find(name)
    modules = [sys.modules.get(one) for one in (() if backend is None else backend.compilers)]
    return {module.__name__: module.__version__ for module in modules if module is not None}


def check_device(device: Any) -> AskedDevices:
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
    backend: str | BackendOptions, device: Any = None, device_memory: AskedMemory = None
) -> Any:
    """Load the kernel set of a backend.

    Parameters
    ----------
    backend : str or BackendOptions
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
    name, device, device_memory = unpacked(backend, device, device_memory)
    described = describe(name)
    try:
        return described.open(check_device(device), device_memory)
    except ImportError as error:  # for example a numba for another numpy, or half removed
        raise BackendError(
            f"The backend {name!r} cannot run here: a package that it needs cannot be imported "
            f"({error}). Reinstall that package, or pass backend={runs_pairs()!r}."
        ) from error


def compile_kernels(device: int | None = None, architectures: Sequence[str] = ()) -> list[Compiled]:
    """Compile the kernels ahead of time, of every backend that can.

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
    one = _one(device)
    return [
        done
        for backend in _described()
        if backend.compile is not None
        for done in backend.compile(one, architectures)
    ]


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
