"""Datasets and groups of HDF5 files, as h5py gives them.

This module is imported for every matrix, so it imports what reads files only when needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..allowed import Allowed
from .base import StoredArray
from .layout import Storage, StoredLike

_LONGEST_CHUNK = 1 << 23  # most items in a chunk written for measuring
_GZIP_LEVEL = 4


class Hdf5Nodes:
    """The nodes of HDF5 files; see :class:`.formats.Nodes`."""

    def is_node(self, node: Any) -> bool:
        """See :meth:`.formats.Nodes.is_node`."""
        h5py = sys.modules["h5py"]
        return isinstance(node, (h5py.Dataset, h5py.Group))

    def checked(self, node: Any, what: str, allow: Allowed) -> Any:
        """See :meth:`.formats.Nodes.checked`."""
        from .hdf5_group import stored_node

        return stored_node(node, f"{what} of {node.file.filename}", allow)

    def texts(self, node: Any, what: str) -> np.ndarray | None:
        """See :meth:`.formats.Nodes.texts`."""
        from .hdf5 import read_texts

        return read_texts(node, what)

    def open_array(self, node: Any, what: str, *, sparse_data: bool = False) -> StoredArray:
        """See :meth:`.formats.Nodes.open_array`; what was not written is refused by `checked`."""
        from .hdf5 import open_hdf5_array

        return open_hdf5_array(node, what)

    def layout(self, node: Any) -> StoredLike:
        """See :meth:`.formats.Nodes.layout`."""
        return StoredLike(np.dtype(node.dtype), node.chunks, node.id.get_create_plist())

    @contextmanager
    def written(
        self,
        storage: Storage,
        folder: Path,
        arrays: dict[str, np.ndarray],
        indptr: np.ndarray | None,
        shape: tuple[int, int],
    ) -> Iterator[Any]:
        """See :meth:`.formats.Nodes.written`."""
        import h5py

        path = folder / "like.h5"
        with h5py.File(path, "w") as file:
            _fill(file, storage, arrays, indptr, shape)
        with h5py.File(path, "r") as file:
            yield file["X"]


def _fill(
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
        dataset = h5py.Dataset(
            h5py.h5d.create(group.id, called.encode(), kind, space, dcpl=created)
        )
        dataset[...] = values
