"""The CUDA backend on emulated devices, through the package's own doors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from pdex_gpu.backends.base import Device, Probed
from pdex_gpu.backends.cuda import kernel_set, probe
from pdex_gpu.backends.cuda.launch_config import Shapes

from .device import EmulatedDevice


@dataclass
class EmulatedCuda:
    """What `backend="cuda"` finds while this is installed.

    Attributes
    ----------
    memory : int or dict of int to int
        Bytes of every device, or by its number.
    n_devices : int
        How many the driver sees.
    shapes : Shapes
    opened : list of EmulatedDevice
        Devices that were opened, the latest last.
    prepare : callable
        Called with each device once it is opened, to plant faults.
    """

    memory: int | dict[int, int] = 1 << 30
    n_devices: int = 1
    shapes: Shapes = field(default_factory=Shapes)
    opened: list[EmulatedDevice] = field(default_factory=list)
    prepare: Any = lambda device: None

    def open_device(self, index: int | None = None, memory: int | None = None) -> EmulatedDevice:
        index = index or 0
        there = self.memory if isinstance(self.memory, int) else self.memory[index]
        device = EmulatedDevice(memory=memory or there, index=index)
        self.prepare(device)
        self.opened.append(device)
        return device

    def probe(self, index: int | None = None) -> Probed:
        """As of :func:`pdex_gpu.backends.cuda.probe.probe`; of one device, any number will do."""
        if self.n_devices == 1:
            return Probed(True, "emulated", (Device(None, "emulated device"),))
        if index is not None and index >= self.n_devices:
            return Probed(False, f"there is no device {index}; available: {self.n_devices}.")
        return Probed(True, "emulated", (Device(index or 0, "emulated device"),))

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the emulated device in the place of the one that CuPy drives."""
        module = ModuleType("pdex_gpu.backends.cuda.cupy_device")
        module.open_device = self.open_device  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr("pdex_gpu.backends.cuda.cupy_device", module, raising=False)
        monkeypatch.setattr(probe, "probe", self.probe)
        monkeypatch.setattr(probe, "device_numbers", lambda: tuple(range(self.n_devices)))
        monkeypatch.setattr(probe, "usable_device", lambda index=None: index or 0)
        monkeypatch.setattr(kernel_set, "Shapes", lambda: self.shapes)
