"""What ``benchmarks/gpu.py`` asks of CuPy itself, for the emulated device."""

from __future__ import annotations

import time
from typing import Any

import numpy as np


class DeviceArray:
    """Memory of the host, described as cupy.ndarray describes its own."""

    def __init__(self, host: np.ndarray) -> None:
        self._host = host
        self.shape, self.dtype, self.size = host.shape, host.dtype, host.size

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "strides": None,
            "data": (self._host.ctypes.data, False),
            "version": 3,
        }

    def __getitem__(self, part: slice) -> DeviceArray:
        return DeviceArray(self._host[part])

    def get(self) -> np.ndarray:
        return self._host.copy()


class DeviceCsr:
    """As cupyx.scipy.sparse.csr_matrix."""

    format = "csr"

    def __init__(self, matrix: Any) -> None:
        self.shape = matrix.shape
        self.data, self.indices = DeviceArray(matrix.data), DeviceArray(matrix.indices)
        self.indptr = DeviceArray(matrix.indptr.astype(np.int32))


class EmulatedMeter:
    """Stands in for CuPy; see ``benchmarks/gpu_meter.py``."""

    emulated = True

    def facts(self) -> dict[str, Any]:
        return {"name": "emulated device", "compute_capability": "0.0"}

    def free_bytes(self) -> int:
        return 1 << 22

    def copy_seconds(self, n_bytes: int, repeats: int) -> list[float]:
        source, target, times = np.ones(n_bytes, np.uint8), np.empty(n_bytes, np.uint8), []
        for _ in range(repeats):
            start = time.perf_counter()
            target[:] = source
            times.append(time.perf_counter() - start)
        return times

    def on_device(self, matrix: Any) -> Any:
        return DeviceCsr(matrix)
