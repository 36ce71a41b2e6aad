"""The description of a backend: what it is called, what it needs, and how it is probed and opened.

A backend package exports one :class:`Backend` as ``BACKEND``. Everything outside that package asks
the description, so that a new backend needs its package and a line in :mod:`.registry`.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

#: The devices asked for: any, one, several, or all that can be used.
AskedDevices = int | tuple[int, ...] | Literal["all"] | None

#: The device memory that may be used: bytes, a fraction, or text such as ``"8GiB"``.
AskedMemory = str | int | float | None


@dataclass(frozen=True)
class Device:
    """A device that a backend computes on.

    Attributes
    ----------
    number : int or None
        Its number among the devices of the machine; None if it has none, as processors.
    model : str
    memory : int or None
        Bytes of its memory in all, free or not; None if unknown.
    """

    number: int | None
    model: str
    memory: int | None = None

    def __str__(self) -> str:
        return self.model if self.number is None else f"{self.model}, device {self.number}"


@dataclass(frozen=True)
class Probed:
    """The answer of a probe.

    Attributes
    ----------
    usable : bool
    reason : str
        Why it is usable, or all the causes why it is not and what to do about them.
    devices : tuple of Device
        The devices that can be used.
    """

    usable: bool
    reason: str
    devices: tuple[Device, ...] = ()


#: Source, architecture, and whether it was compiled now or had been before.
Compiled = tuple[str, str, bool]


@dataclass(frozen=True)
class Backend:
    """The description of a backend.

    Attributes
    ----------
    name : str
        The value of ``backend=`` that asks for it.
    summary : str
        One line that says what it is, for documentation.
    engines : tuple of str
        Names of the engines that can run it, the default first.
    probe : callable
        Takes the devices asked for; returns a `Probed`.
    open : callable
        Takes the devices asked for and their memory; returns a kernel set, as
        ``pdex_gpu/backends/contract.py`` defines it. If there are several devices, returns a
        `DeviceKernels` that also has the methods that serve all of them: `packed_bytes` and
        `benjamini_hochberg`.
    compilers : tuple of str
        Modules that compile its kernels, whose versions results may depend on.
    has_devices : bool
        Whether it has devices to choose from with ``device=``.
    reads_device_memory : bool
        Whether it uses a matrix on a CUDA device where it is.
    runs_pairs : bool
        Whether its kernel set has `each_pair`, which runs the test options that other kernels lack.
    is_timed : bool
        Whether :func:`pdex_gpu.estimate` has a model of its speed.
    compile : callable, optional
        Compiles kernels ahead of time. Takes the number of a device, or None, and names of
        architectures; returns what was compiled.
    caveat : str
        What a reader should know before trusting its results, for reports.
    """

    name: str
    summary: str
    engines: tuple[str, ...]
    probe: Callable[[AskedDevices], Probed]
    open: Callable[[AskedDevices, AskedMemory], Any]
    compilers: tuple[str, ...] = ()
    has_devices: bool = False
    reads_device_memory: bool = False
    runs_pairs: bool = False
    is_timed: bool = False
    compile: Callable[[int | None, Sequence[str]], list[Compiled]] | None = None
    caveat: str = ""


#: Engines of backends that compute on the processors of this machine.
CPU_ENGINES = ("threads", "shared_memory", "serial")


def processors() -> Device:
    """Return the processors of this machine as one device."""
    return Device(None, f"CPU ({platform.machine() or 'unknown architecture'})")
