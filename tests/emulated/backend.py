"""The CUDA backend on emulated devices, through the package's own doors."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import pytest

from pdex_gpu.backends.cuda import kernels, probe
from pdex_gpu.backends.cuda.shapes import Shapes

from .device import EmulatedDevice


@dataclass
class EmulatedCuda:
    """What `backend="cuda"` finds while this is installed.

    Attributes
    ----------
    memory : int
        Bytes of every device.
    shapes : Shapes
    opened : list of EmulatedDevice
        Devices that were opened, the latest last.
    prepare : callable
        Called with each device once it is opened, to plant faults.
    """

    memory: int = 1 << 30
    shapes: Shapes = field(default_factory=Shapes)
    opened: list[EmulatedDevice] = field(default_factory=list)
    prepare: Any = lambda device: None

    def open_device(self, index: int | None = None, memory: int | None = None) -> EmulatedDevice:
        device = EmulatedDevice(memory=memory or self.memory, index=index or 0)
        self.prepare(device)
        self.opened.append(device)
        return device

    def install(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Put the emulated device in the place of the one that CuPy drives."""
        module = ModuleType("pdex_gpu.backends.cuda.device")
        module.open_device = self.open_device  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr("pdex_gpu.backends.cuda.device", module, raising=False)
        monkeypatch.setattr(
            probe, "probe", lambda index=None: (True, "emulated", "emulated device")
        )
        monkeypatch.setattr(probe, "usable_device", lambda index=None: index or 0)
        monkeypatch.setattr(kernels, "Shapes", lambda: self.shapes)
