"""Kernels that numba compiles for the processors of this machine.

:mod:`.kernel_set` has the functions of :class:`..contract.KernelSet`. May import what
:mod:`pdex_gpu.backends` may, and numba, but no other kernel set. To add a kernel, describe it in
:mod:`..contract`, write it for :mod:`..numpy`, and compile it here with :func:`.jit.jit`.
"""

from __future__ import annotations

from typing import Any

from ..base import CPU_ENGINES, AskedDevices, AskedMemory, Backend, Probed


def _probe(devices: AskedDevices) -> Probed:
    from .probe import probe

    return probe(devices)


def _open(devices: AskedDevices, memory: AskedMemory) -> Any:
    from . import kernel_set

    return kernel_set


BACKEND = Backend(
    name="cpu",
    summary="numba kernels on all processors",
    engines=CPU_ENGINES,
    probe=_probe,
    open=_open,
    compilers=("numba",),
    is_timed=True,
)
