"""The kernel sets of several devices; see :class:`pdex_gpu.backends.contract.DeviceKernels`."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence

import numpy as np

from ...errors import DeviceLostError
from ...sources.base import Source
from ...utils.parallel import Map
from ..contract import StreamedKernelSet
from .kernel_set import open_kernels

logger = logging.getLogger("pdex_gpu")


def open_several(
    devices: Sequence[int], device_memory: str | float | int | None = None
) -> SeveralDevices:
    """Open the kernel sets of some devices, leaving out those that are lost while being opened.

    Parameters
    ----------
    devices : sequence of int
        Numbers of the devices, at least one.
    device_memory : str, int or float, optional
        Memory of each device; see :func:`.cuda.kernel_set.open_kernels`.

    Raises
    ------
    pdex_gpu.errors.DeviceLostError
        If all are lost.
    """
    opened: list[StreamedKernelSet] = []
    lost: list[DeviceLostError] = []
    for index in devices:
        try:
            opened.append(open_kernels(index, device_memory))
        except DeviceLostError as error:
            lost.append(error)
    if not opened:
        raise lost[-1]
    for cause in lost:
        _warn(f"a device ({_why(cause)})", opened)
    return SeveralDevices(opened)


class SeveralDevices:
    """Several devices, used by a run as one; safe to call from several threads.

    Parameters
    ----------
    kernels : sequence of StreamedKernelSet
        One per device, at least one.
    """

    name = "cuda"
    scales_rows = False

    def __init__(self, kernels: Sequence[StreamedKernelSet]) -> None:
        self._left = tuple(kernels)
        self._lock = threading.Lock()

    @property
    def devices(self) -> tuple[StreamedKernelSet, ...]:
        """See the contract."""
        return self._left

    def give_up(self, kernels: StreamedKernelSet, error: Exception) -> bool:
        """Give up a device, with a warning the first time; see the contract."""
        with self._lock:
            left = tuple(k for k in self._left if k is not kernels)
            is_new = 0 < len(left) < len(self._left)
            if left:
                self._left = left
        if is_new:
            _warn(f"{kernels.description} ({_why(error)})", left)
        return bool(left)

    def packed_bytes(self, n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        """Return 0 bytes of host memory: packed genes lie on the devices."""
        return 0.0

    def most_genes(self, source: Source, n_ranges: int) -> int:
        """Return what fits on the smallest device, as any may get any range; see the contract."""
        found: list[int] = []
        for kernels in self.devices:
            try:
                found.append(kernels.most_genes(source, n_ranges))
            except DeviceLostError as error:
                if not self.give_up(kernels, error):
                    raise
        return min(found)

    def benjamini_hochberg(
        self,
        p_value: np.ndarray,
        parallel_map: Map,
        *,
        n_tests: int | None = None,
        n_smaller: int = 0,
        ceiling: float = 1.0,
    ) -> np.ndarray:
        """Adjust p-values on the first device that is not lost; see the contract."""
        while True:
            kernels = self.devices[0]
            try:
                return kernels.benjamini_hochberg(
                    p_value, parallel_map, n_tests=n_tests, n_smaller=n_smaller, ceiling=ceiling
                )
            except DeviceLostError as error:
                if not self.give_up(kernels, error):
                    raise


def _why(error: Exception) -> str:
    # The package's own errors advise on a run that ended, but this run goes on: show the cause.
    return str(error.__cause__ or error).rstrip(".")


def _warn(lost: str, left: Sequence[StreamedKernelSet]) -> None:
    rest = "; ".join(kernels.description for kernels in left)
    logger.warning("lost %s; the run continues with %s", lost, rest)
