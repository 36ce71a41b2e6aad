"""Dask clusters for tests, and screens in every form that their workers can open."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import anndata as ad
import dask
import dask.array as da
import distributed
import h5py
import numpy as np
from scipy import sparse
from stored_screens import MEMORY, screen

_LIMITS = ("target", "spill", "pause", "terminate")


@contextmanager
def cluster(n_workers: int, *, processes: bool = False, **options: Any) -> Iterator[Any]:
    """A client of a cluster on this machine; workers in this process unless asked otherwise."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50} | options
    # Workers in this process count all that the tests take as theirs, and would be paused for it.
    limits = dict.fromkeys((f"distributed.worker.memory.{name}" for name in _LIMITS), False)
    with (
        dask.config.set({} if processes else limits),
        distributed.LocalCluster(n_workers=n_workers, processes=processes, **options) as made,
        distributed.Client(made, set_as_default=False) as client,
    ):
        if n_workers:
            client.wait_for_workers(n_workers)
        yield client


def _h5ad(matrix: Any, path: Path, **options: Any) -> Path:
    screen(matrix).write_h5ad(path, **options)
    return path


def _dense_rows(values: np.ndarray, path: Path) -> Path:
    """Chunks that have all genes, so that no range of genes can be read on its own."""
    screen(values).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        attributes = dict(file["X"].attrs)
        del file["X"]
        stored = file.create_dataset("X", data=values, chunks=(7, values.shape[1]))
        stored.attrs.update(attributes)
    return path


def _zarr(matrix: Any, path: Path, **options: Any) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, on the format
        screen(matrix).write_zarr(path, **options)
    return path


def _dask(values: np.ndarray, chunks: tuple[int, int], kind: Any) -> ad.AnnData:
    array = da.from_array(values, chunks=chunks)
    return screen(array if kind is np.asarray else array.map_blocks(kind))


def _backed(how: str) -> Callable[[np.ndarray, Path], Any]:
    return lambda values, folder: ad.read_h5ad(
        _h5ad(MEMORY[how](values), folder / f"backed-{how}.h5ad"), backed="r"
    )


#: From values and a folder to data that a call takes.
STORAGE: dict[str, Callable[[np.ndarray, Path], Any]] = {
    "h5ad csr": lambda x, at: _h5ad(sparse.csr_matrix(x), at / "csr.h5ad", compression="gzip"),
    "h5ad csc": lambda x, at: _h5ad(sparse.csc_matrix(x), at / "csc.h5ad", compression="lzf"),
    "h5ad dense": lambda x, at: _h5ad(x, at / "dense.h5ad"),
    "h5ad dense rows": lambda x, at: _dense_rows(x, at / "rows.h5ad"),
    "zarr csr": lambda x, at: _zarr(sparse.csr_matrix(x), at / "csr.zarr"),
    "zarr csc": lambda x, at: _zarr(sparse.csc_matrix(x), at / "csc.zarr"),
    "zarr dense": lambda x, at: _zarr(x, at / "dense.zarr", chunks=(len(x), 2)),
    "memory csr": lambda x, at: screen(sparse.csr_matrix(x)),
    "memory csc": lambda x, at: screen(sparse.csc_matrix(x)),
    "memory dense": lambda x, at: screen(x),
    "backed csr": _backed("csr"),
    "backed csc": _backed("csc"),
    "backed dense": _backed("C"),
    "dask rows csr": lambda x, at: _dask(x, (10, x.shape[1]), sparse.csr_matrix),
    "dask rows csc": lambda x, at: _dask(x, (10, x.shape[1]), sparse.csc_matrix),
    "dask rows dense": lambda x, at: _dask(x, (10, x.shape[1]), np.asarray),
    "dask columns csr": lambda x, at: _dask(x, (len(x), 2), sparse.csr_matrix),
    "dask columns dense": lambda x, at: _dask(x, (len(x), 2), np.asarray),
    "dask grid": lambda x, at: _dask(x, (9, 4), sparse.csr_matrix),
}
