"""How a matrix is stored, and made-up entries stored the same way, to measure reading costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.allowed import Allowed
from ..sources.anndata_files.nodes import encoding_of, from_node, is_array
from ..sources.base import Source

_LONGEST_CHUNK = 1 << 23  # most items in a chunk written for measuring
_GZIP_LEVEL = 4


@dataclass(frozen=True)
class StoredLike:
    """How one array is stored.

    Attributes
    ----------
    dtype : numpy.dtype
    chunks : tuple of int or None
        None where the array is not chunked.
    how : object
        A property list for HDF5, keywords of ``create_array`` for zarr; None for gzip in HDF5.
    """

    dtype: np.dtype
    chunks: tuple[int, ...] | None
    how: Any = None

    @property
    def n_items(self) -> int:
        """Return the number of items in a chunk; 0 without chunks."""
        return int(np.prod(self.chunks)) if self.chunks else 0


@dataclass(frozen=True)
class Storage:
    """How a matrix is stored.

    Attributes
    ----------
    form : {"csr_matrix", "csc_matrix", "array"}
    kind : {"hdf5", "zarr"}
    arrays : dict of str to StoredLike
        ``data`` and ``indices`` of a sparse matrix, ``values`` of a dense one.
    """

    form: str
    kind: str
    arrays: dict[str, StoredLike]


def storage_of(path: Path | None, layer: str | None, allow: Allowed) -> Storage | None:
    """Return how X or a layer of a file is stored, or None without a path."""
    if path is None:
        return None
    from ..sources.anndata_files.zarr import is_zarr_path, open_zarr_root

    in_zarr = is_zarr_path(str(path))
    opened: AbstractContextManager[Any]
    if in_zarr:
        opened = open_zarr_root(str(path), allow)
    else:
        from ..sources.anndata_files.h5ad import open_h5ad_root

        opened = open_h5ad_root(str(path), allow)
    with opened as root:
        node = root["X"] if layer is None else root["layers"][layer]
        return _describe(node, "zarr" if in_zarr else "hdf5")


def gzip_storage(dtype: np.dtype, index_dtype: np.dtype) -> Storage:
    """Return the storage of a CSR matrix in HDF5 that is compressed with gzip."""
    arrays = {"data": dtype, "indices": index_dtype}
    return Storage(
        "csr_matrix", "hdf5", {name: StoredLike(np.dtype(d), None) for name, d in arrays.items()}
    )


def _describe(node: Any, kind: str) -> Storage:
    if is_array(node):
        return Storage("array", kind, {"values": _array(node, kind)})
    names = ("data", "indices")
    return Storage(encoding_of(node), kind, {name: _array(node[name], kind) for name in names})


def _array(node: Any, kind: str) -> StoredLike:
    if kind == "hdf5":
        return StoredLike(np.dtype(node.dtype), node.chunks, node.id.get_create_plist())
    how = {
        "compressors": node.compressors,
        "filters": node.filters,
        "zarr_format": node.metadata.zarr_format,
    }
    return StoredLike(np.dtype(node.dtype), tuple(node.chunks), how)


@contextmanager
def stored_like(
    storage: Storage,
    folder: Path,
    arrays: dict[str, np.ndarray],
    indptr: np.ndarray | None,
    shape: tuple[int, int],
) -> Iterator[Source]:
    """Write arrays to `folder` as `storage` says, and yield a source over them.

    Parameters
    ----------
    storage : Storage
    folder : pathlib.Path
        Must be empty; is not cleared here.
    arrays : dict of str to numpy.ndarray
        Named as in :attr:`Storage.arrays`.
    indptr : numpy.ndarray, optional
        Row or column pointers of a sparse matrix.
    shape : (int, int)
        Cells and genes.

    Raises
    ------
    Exception
        Any error of h5py, zarr or this package, if a filter is missing here.
    """
    if storage.kind == "zarr":
        import zarr

        root = zarr.open_group(str(folder / "like.zarr"), mode="w")
        node = _fill_zarr(root, storage, arrays, indptr, shape)
        yield from_node(node, what="X")
        return
    import h5py

    path = folder / "like.h5"
    with h5py.File(path, "w") as file:
        _fill_hdf5(file, storage, arrays, indptr, shape)
    with h5py.File(path, "r") as file:
        yield from_node(file["X"], what="X")


def _fill_zarr(
    root: Any,
    storage: Storage,
    arrays: dict[str, np.ndarray],
    indptr: np.ndarray | None,
    shape: tuple[int, int],
) -> Any:
    group = root
    if indptr is not None:
        group = root.create_group("X")
        group.attrs.update({"encoding-type": storage.form, "shape": list(shape)})
        group.create_array("indptr", data=indptr)
    for name, values in arrays.items():
        like = storage.arrays[name]
        more = {k: v for k, v in like.how.items() if k != "zarr_format"}
        made = group.create_array(
            "X" if indptr is None else name,
            shape=values.shape,
            chunks=like.chunks,
            dtype=like.dtype,
            **(more if root.metadata.zarr_format == like.how["zarr_format"] else {}),
        )
        made[...] = values
    return root["X"]


def _fill_hdf5(
    file: Any,
    storage: Storage,
    arrays: dict[str, np.ndarray],
    indptr: np.ndarray | None,
    shape: tuple[int, int],
) -> None:
    import h5py

    group = file
    if indptr is not None:
        group = file.create_group("X")
        group.attrs["encoding-type"] = storage.form
        group.attrs["shape"] = np.array(shape, np.int64)
        group.create_dataset("indptr", data=indptr)
    for name, values in arrays.items():
        like = storage.arrays[name]
        called = "X" if indptr is None else name
        if like.how is None:
            group.create_dataset(
                called, data=values, dtype=like.dtype, compression="gzip",
                compression_opts=_GZIP_LEVEL,
            )  # fmt: skip
            continue
        created = like.how.copy()
        limits = values.shape
        if like.chunks is not None:
            limits = (h5py.h5s.UNLIMITED,) * values.ndim
            if like.n_items > _LONGEST_CHUNK:
                first = max(1, _LONGEST_CHUNK * like.chunks[0] // like.n_items)
                created.set_chunk((first, *like.chunks[1:]))
        kind = h5py.h5t.py_create(like.dtype, logical=True)
        space = h5py.h5s.create_simple(values.shape, limits)
        made = h5py.Dataset(h5py.h5d.create(group.id, called.encode(), kind, space, dcpl=created))
        made[...] = values
