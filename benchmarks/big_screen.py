"""The screens of `gpu_screen` as compressed h5ad files, never whole in memory.

The file is what anndata writes with ``compression="gzip"``: CSR, float32 values, int32 indices,
chunks of the length that h5py chooses, deflated by zlib at h5py's level.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import time
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from data import CACHE, HERE
from gpu_files import start_h5ad
from gpu_screen import FULL, QUICK, Drawing, Sizes

from pdex_gpu.utils.resources import cpu_count

BIG, BIG_QUICK = FULL, QUICK
TRIPLE, TRIPLE_QUICK = (Sizes(3 * s.cells, s.genes, s.perturbations) for s in (BIG, BIG_QUICK))

_LEVEL = 4  # h5py's own for "gzip"
_AHEAD = 8  # blocks, and chunks, a thread that may wait: bounds the memory
_MOST_POSITIONS = np.iinfo(np.int32).max
_BYTES_PER_NONZERO = 2.4  # on disk: 2.12 were measured


class DiskFullError(RuntimeError):
    """There is too little room for the file."""


@dataclass(frozen=True)
class BigScreen:
    """A screen on disk.

    Attributes
    ----------
    path : pathlib.Path
    nnz : int
    chunk : dict[str, int]
        Entries a chunk of ``data`` and ``indices``.
    file_bytes : int
    seconds : float
        That it took to make.
    """

    path: Path
    nnz: int
    chunk: dict[str, int]
    file_bytes: int
    seconds: float


def name_of(sizes: Sizes) -> str:
    return f"big-{sizes.cells}x{sizes.genes}x{sizes.perturbations}-s{sizes.seed}"


def ensure(sizes: Sizes) -> BigScreen:
    """Make the file, or take it from the cache, which is keyed by the code that makes it."""
    text = b"".join((HERE / name).read_bytes() for name in ("gpu_screen.py", "gpu_files.py"))
    key = {**asdict(sizes), "level": _LEVEL, "code": hashlib.sha256(text).hexdigest()}
    folder = CACHE / name_of(sizes)
    meta_file = folder / "meta.json"
    if meta_file.exists():
        meta = json.loads(meta_file.read_text())
        if meta.pop("key") == key:
            return BigScreen(folder / "screen.h5ad", **meta)

    print(f"simulating {name_of(sizes)} (once)", file=sys.stderr)
    shutil.rmtree(folder, ignore_errors=True)
    scratch = CACHE / f".{name_of(sizes)}.{os.getpid()}"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        meta = asdict(write(sizes, scratch / "screen.h5ad"))
        del meta["path"]
        (scratch / "meta.json").write_text(json.dumps({"key": key, **meta}))
        scratch.rename(folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return BigScreen(folder / "screen.h5ad", **meta)


def remove(sizes: Sizes) -> None:
    """Take a screen out of the cache."""
    shutil.rmtree(CACHE / name_of(sizes), ignore_errors=True)


def write(sizes: Sizes, path: Path, n_threads: int | None = None) -> BigScreen:
    """Draw a screen and write it as it is drawn.

    It is drawn twice: the length of the arrays, from which h5py chooses that of the chunks, is
    known only after the first time, and drawing is a tenth of the work. What the file holds
    does not depend on the number of threads.

    Parameters
    ----------
    sizes : Sizes
    path : pathlib.Path
    n_threads : int, optional
        All processors by default.

    Raises
    ------
    DiskFullError
        If the disk has too little room, before anything is written.
    """
    started = time.perf_counter()
    n_threads = n_threads or cpu_count()
    ahead = _AHEAD * n_threads
    drawing = Drawing(sizes)
    blocks = range(len(drawing.rows))
    with ThreadPoolExecutor(n_threads) as pool:
        indptr = np.zeros(sizes.cells + 1, np.int64)
        row_entries = _in_order(
            pool, lambda k: np.count_nonzero(drawing.counts(k), axis=1), blocks, ahead
        )
        np.cumsum(np.concatenate(list(row_entries)), out=indptr[1:])
        nnz = int(indptr[-1])
        _check_room(path.parent, nnz)

        def draw(k: int) -> tuple[np.ndarray, np.ndarray]:
            piece, _ = drawing.piece(k)
            return piece.log1p(), piece.genes.astype(np.int32)

        with h5py.File(path, "w") as file:
            shape = (sizes.cells, sizes.genes)
            x = start_h5ad(file, shape, drawing.codes, drawing.names, drawing.genes)
            like: dict[str, Any] = {"maxshape": (None,), "compression": "gzip"}
            # As anndata leaves it: 64 bits only where positions need them.
            small = nnz <= _MOST_POSITIONS
            x.create_dataset("indptr", data=indptr.astype(np.int32) if small else indptr, **like)
            arrays = [
                _Deflated(x.create_dataset(name, (nnz,), dtype, **like), pool, ahead)
                for name, dtype in (("data", np.float32), ("indices", np.int32))
            ]
            for pieces in _in_order(pool, draw, blocks, ahead):
                for array, piece in zip(arrays, pieces, strict=True):
                    array.append(piece)
            for array in arrays:
                array.close()
            chunk = {name: x[name].chunks[0] for name in ("data", "indices")}
    seconds = time.perf_counter() - started
    return BigScreen(path, nnz, chunk, path.stat().st_size, round(seconds, 1))


def _check_room(folder: Path, nnz: int) -> None:
    needed, free = int(nnz * _BYTES_PER_NONZERO), shutil.disk_usage(folder).free
    if free < needed:
        raise DiskFullError(
            f"{nnz:,} nonzeros take about {needed / 1e9:.1f} GB, and {folder} has "
            f"{free / 1e9:.1f} GB left"
        )


def _in_order(
    pool: Executor, call: Callable[[int], Any], blocks: Iterable[int], ahead: int
) -> Iterator[Any]:
    """Yield what `call` returns for each block, with at most `ahead` of them in progress."""
    waiting: deque[Future[Any]] = deque()
    for k in blocks:
        waiting.append(pool.submit(call, k))
        if len(waiting) > ahead:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


class _Deflated:
    """Fills a compressed dataset from front to back; a pool compresses its chunks."""

    def __init__(self, dataset: h5py.Dataset, pool: Executor, ahead: int) -> None:
        self._dataset, self._pool, self._ahead = dataset, pool, ahead
        self._buffer = self._empty()
        self._filled = 0
        self._written = 0
        self._waiting: deque[Future[bytes]] = deque()

    def _empty(self) -> np.ndarray:
        return np.zeros(self._dataset.chunks[0], self._dataset.dtype)

    def append(self, values: np.ndarray) -> None:
        while len(values):
            room = len(self._buffer) - self._filled
            part, values = values[:room], values[room:]
            self._buffer[self._filled : self._filled + len(part)] = part
            self._filled += len(part)
            if self._filled == len(self._buffer):
                self._flush()

    def _flush(self) -> None:
        # zlib lets other threads run meanwhile; the buffer now belongs to it.
        self._waiting.append(self._pool.submit(zlib.compress, self._buffer, _LEVEL))
        self._buffer, self._filled = self._empty(), 0
        if len(self._waiting) > self._ahead:
            self._write()

    def _write(self) -> None:
        chunk = self._waiting.popleft().result()
        self._dataset.id.write_direct_chunk((self._written,), chunk)
        self._written += len(self._buffer)

    def close(self) -> None:
        if self._filled:
            self._flush()  # HDF5 stores whole chunks: the rest is zeros
        while self._waiting:
            self._write()
