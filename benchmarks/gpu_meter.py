"""The uses of CuPy by the GPU benchmark itself; all else goes through pdex_gpu.

The test suite puts an emulated one in its place.
"""

from __future__ import annotations

import subprocess
from typing import Any, Protocol

import numpy as np

_TILE = 64 << 20  # of random bytes: copies of zeros may be faster than copies of data


class Meter(Protocol):
    """Facts about a device, and how fast it copies.

    Attributes
    ----------
    emulated : bool
    """

    emulated: bool

    def facts(self) -> dict[str, Any]:
        """The device, its driver and what drives it."""
        ...

    def free_bytes(self) -> int:
        """Device memory that no program holds."""
        ...

    def copy_seconds(self, n_bytes: int, repeats: int) -> list[float]:
        """Times of copies of so many bytes on the device, each read once and written once."""
        ...

    def on_device(self, matrix: Any) -> Any:
        """A scipy CSR matrix as one of cupyx.scipy.sparse."""
        ...


def open_meter(index: int) -> Meter:
    """The meter of a device."""
    return CupyMeter(index)


class CupyMeter:
    """See :class:`Meter`."""

    emulated = False

    def __init__(self, index: int) -> None:
        import cupy

        self._cupy = cupy
        self._index = index

    def facts(self) -> dict[str, Any]:
        runtime = self._cupy.cuda.runtime
        properties = runtime.getDeviceProperties(self._index)
        return {
            "name": properties["name"].decode(errors="replace"),
            "index": self._index,
            "compute_capability": f"{properties['major']}.{properties['minor']}",
            "multiprocessors": int(properties["multiProcessorCount"]),
            "memory_bytes": int(properties["totalGlobalMem"]),
            "l2_bytes": int(properties["l2CacheSize"]),
            "driver": _driver_version(),
            "driver_cuda": _dotted(runtime.driverGetVersion()),
            "cuda_runtime": _dotted(runtime.runtimeGetVersion()),
            "cupy": str(self._cupy.__version__),
        }

    def free_bytes(self) -> int:
        with self._cupy.cuda.Device(self._index):
            return int(self._cupy.cuda.runtime.memGetInfo()[0])

    def copy_seconds(self, n_bytes: int, repeats: int) -> list[float]:
        cupy = self._cupy
        with cupy.cuda.Device(self._index):
            pool = cupy.cuda.MemoryPool()
            source, target = pool.malloc(n_bytes), pool.malloc(n_bytes)
            tile = np.random.default_rng(0).integers(0, 256, min(_TILE, n_bytes), np.uint8)
            for start in range(0, n_bytes, tile.size):
                size = min(tile.size, n_bytes - start)
                (source + start).copy_from_host(tile.ctypes.data, size)
            cupy.cuda.Device(self._index).synchronize()
            stream = cupy.cuda.Stream(non_blocking=True)
            times = []
            for number in range(repeats + 2):  # two to warm up
                start, stop = cupy.cuda.Event(), cupy.cuda.Event()
                start.record(stream)
                target.copy_from_device_async(source, n_bytes, stream)
                stop.record(stream)
                stop.synchronize()
                if number >= 2:
                    times.append(cupy.cuda.get_elapsed_time(start, stop) / 1e3)
            return times

    def on_device(self, matrix: Any) -> Any:
        import cupyx.scipy.sparse

        cupy = self._cupy
        if matrix.nnz > np.iinfo(np.int32).max:
            raise ValueError(f"cupyx.scipy.sparse holds no {matrix.nnz:,} entries")
        with cupy.cuda.Device(self._index):
            parts = (matrix.data, matrix.indices, matrix.indptr.astype(np.int32))
            return cupyx.scipy.sparse.csr_matrix(
                tuple(cupy.asarray(part) for part in parts), shape=matrix.shape
            )


def _driver_version() -> str | None:
    """As nvidia-smi says it; None without nvidia-smi."""
    try:
        done = subprocess.run(
            ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"],
            capture_output=True, text=True, check=True, timeout=60,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return (done.stdout.split() or [None])[0]


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"
