"""numpy and scipy, one pair of samples at a time: the specification of every other kernel set.

May import what :mod:`pdex_gpu.backends` may, but no other kernel set. A kernel is written here
first, as plainly as possible; ``tests/contract`` holds the others to it.
"""

from __future__ import annotations

from typing import Any

from ..base import CPU_ENGINES, AskedDevices, AskedMemory, Backend, Probed, processors


def _probe(devices: AskedDevices) -> Probed:
    return Probed(True, "numpy and scipy, always there; slow", (processors(),))


def _open(devices: AskedDevices, memory: AskedMemory) -> Any:
    from . import kernel_set

    return kernel_set


BACKEND = Backend(
    name="numpy",
    summary="numpy and scipy, one comparison and gene at a time",
    engines=CPU_ENGINES,
    probe=_probe,
    open=_open,
    runs_pairs=True,
)
