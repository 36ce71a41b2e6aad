"""A check that the CUDA backend can run here; if not, every cause found, and what to do.

Checks that need no CuPy come first, and CuPy is imported only where a driver answers, so the answer
takes no time on a machine without a device.
"""

from __future__ import annotations

import importlib.util
import threading
from types import ModuleType

import numpy as np

from ...errors import BackendError
from ...utils.formats import dotted
from ..base import AskedDevices, Device, Probed
from . import driver as nvidia
from .driver import Driver, DriverDevice

MINIMUM_CUDA = (12, 0)
MINIMUM_CAPABILITY = (7, 0)
MINIMUM_FREE = 256 * 2**20

# CUDA 13 compiles for no device below this.
_CUDA_13_CAPABILITY = (7, 5)

_N_PROBED = 1000

_usable: dict[int | None, Probed] = {}
_probing = threading.Lock()


def probe(index: int | None = None) -> Probed:
    """Return whether a device can be used.

    Parameters
    ----------
    index : int, optional
        Which device; by default the first that can be used.

    Notes
    -----
    Only a usable device is remembered, because the cause of a failure may pass.
    """
    with _probing:
        if index not in _usable:
            found = _look(index)
            if not found.usable:
                return found
            _usable[index] = found
        return _usable[index]


def usable_device(index: int | None = None) -> int:
    """Return the number of the device that :func:`probe` found.

    Raises
    ------
    pdex_gpu.errors.BackendError
        If there is none.
    """
    found = probe(index)
    if not found.usable:
        raise BackendError(f"The CUDA backend cannot run here: {found.reason}")
    return found.devices[0].number or 0


def device_numbers() -> tuple[int, ...]:
    """Return the numbers of the devices that the driver sees, usable or not."""
    return tuple(device.index for device in nvidia.ask().devices)


def probe_asked(asked: AskedDevices) -> Probed:
    """Find out which of the devices asked for can be used; see :func:`probe`.

    Several can be used if each of them can; of all devices, one that can is enough. The `reason`
    for several says why the others cannot be used; it is empty if there are no others.
    """
    if asked is None or isinstance(asked, int):
        return probe(asked)
    indices = device_numbers() if asked == "all" else asked
    if not indices:
        return Probed(False, probe().reason)
    found = [probe(index) for index in indices]
    fit = tuple(device for one in found if one.usable for device in one.devices)
    # A cause that several devices share is stated once.
    why = dict.fromkeys(one.reason.rstrip(".") for one in found if not one.usable)
    causes = "; ".join(why)
    if not (fit if asked == "all" else not why):
        return Probed(False, f"{causes}.")
    return Probed(True, f"left out: {causes}" if causes else "", fit)


def install_command(driver: Driver | None = None) -> str:
    """Return the command that installs the right CuPy, as far as the driver tells."""
    commands = {cuda: nvidia.INSTALL.format(cuda) for cuda in (12, 13)}
    if driver is None or driver.version is None or driver.version < MINIMUM_CUDA:
        return f"{commands[13]} (for a driver with CUDA 13) or {commands[12]} (CUDA 12)"
    if driver.version[0] == 12:
        return commands[12]
    old = any(d.capability < _CUDA_13_CAPABILITY for d in driver.devices)
    return commands[12 if old else 13]


def _look(index: int | None) -> Probed:
    driver = nvidia.ask()
    causes = [driver.problem] if driver.problem else []
    if driver.version is not None and driver.version < MINIMUM_CUDA:
        causes.append(
            f"the driver is too old: it supports CUDA up to {dotted(driver.version)}, but "
            f"{dotted(MINIMUM_CUDA)} or later is needed: update it"
        )
    if importlib.util.find_spec("cupy") is None:
        causes.append(f"CuPy is not installed: run {install_command(driver)}")
    candidates, unfit = _candidates(driver, index)
    if candidates and not causes:
        found = _try(driver, candidates)
        if isinstance(found, Probed):
            return found
        causes = found
    return Probed(False, "; ".join(causes + unfit) + ".")


def _candidates(driver: Driver, index: int | None) -> tuple[list[DriverDevice], list[str]]:
    """Return the devices that may be usable, and why the others are not."""
    if not driver.devices:
        return [], []
    if index is None:
        asked = list(driver.devices)
    elif 0 <= index < len(driver.devices):
        asked = [driver.devices[index]]
    else:
        listed = ", ".join(f"{d.index} ({d.name})" for d in driver.devices)
        return [], [f"there is no device {index}; available: {listed}"]
    fit = [d for d in asked if d.capability >= MINIMUM_CAPABILITY]
    return fit, [
        f"{d} has compute capability {dotted(d.capability)}, but {dotted(MINIMUM_CAPABILITY)} or "
        "later is needed"
        for d in asked
        if d not in fit
    ]


def _try(driver: Driver, candidates: list[DriverDevice]) -> Probed | list[str]:
    """Return the first candidate that runs a kernel, or why none does."""
    try:
        from . import cupy_device as module
    except Exception as error:
        return [
            f"CuPy is installed but cannot be imported ({_root(error)}): run "
            f"{install_command(driver)}"
        ]
    runs = driver.version or (0, 0)
    built_for = module.runtime_version()
    if built_for[0] > runs[0]:
        return [
            f"CuPy {module.cupy_version()} is for CUDA {built_for[0]}, but the driver supports "
            f"CUDA up to {dotted(runs)}: run pip uninstall cupy-cuda{built_for[0]}x, then "
            f"{install_command(driver)}, or update the driver"
        ]
    causes: list[str] = []
    for candidate in candidates:
        cause, free, total = _run(module, candidate)
        if cause is None:
            return Probed(
                True,
                f"compute capability {dotted(candidate.capability)}, {free / 2**30:.1f} of "
                f"{total / 2**30:.1f} GiB free, driver with CUDA {dotted(runs)}, CuPy "
                f"{module.cupy_version()}",
                (Device(candidate.index, candidate.name, total),),
            )
        causes.append(cause if len(driver.devices) == 1 else f"{candidate}: {cause}")
    return causes


def _run(module: ModuleType, candidate: DriverDevice) -> tuple[str | None, int, int]:
    """Return why a kernel does not run on a device, or None; and its free and total memory."""
    free = total = 0
    try:
        opened = module.open_device(candidate.index)
        free, total = opened.memory()
        if free < MINIMUM_FREE:
            return (
                (
                    f"no memory is free: {free / 2**20:,.0f} MiB of {total / 2**20:,.0f} MiB, but "
                    f"{MINIMUM_FREE / 2**20:.0f} MiB are needed (nvidia-smi lists what is using it)"
                ),
                free,
                total,
            )
        stream = opened.stream()
        out = stream.empty(_N_PROBED, np.uint32)
        n_threads = 128
        n_blocks = -(-_N_PROBED // n_threads)
        stream.launch("probe", "probe", n_blocks, n_threads, out, np.uint32(_N_PROBED))
        found = np.zeros(_N_PROBED, np.uint32)
        stream.download(out, found)
        stream.synchronize()
    except Exception as error:
        return f"the probe kernel failed: {_short(error)}", free, total
    wanted = np.arange(_N_PROBED, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(1)
    n_wrong = int((found != wanted).sum())
    if n_wrong:
        return (
            (
                f"the probe kernel gave wrong results ({n_wrong} of {_N_PROBED}): the device, its "
                "driver or CuPy is broken"
            ),
            free,
            total,
        )
    return None, free, total


def _root(error: BaseException) -> str:
    """Return the text of the original error, which CuPy wraps in a page of advice."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return f"{type(error).__name__}: {_short(error)}"


def _short(error: BaseException) -> str:
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
