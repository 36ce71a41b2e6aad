"""Arrays and groups of zarr stores, as zarr gives them.

This module is imported for every matrix, so it imports what reads stores only when needed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..allowed import Allowed
from ..sizes import claim_texts
from ..text import decode_texts
from .base import StoredArray
from .layout import Storage, StoredLike


class ZarrNodes:
    """The nodes of zarr stores; see :class:`.formats.Nodes`."""

    def is_node(self, node: Any) -> bool:
        """See :meth:`.formats.Nodes.is_node`."""
        zarr = sys.modules["zarr"]
        return isinstance(node, (zarr.Array, zarr.Group))

    def checked(self, node: Any, what: str, allow: Allowed) -> Any:
        """See :meth:`.formats.Nodes.checked`."""
        from .zarr_group import StoredZarrGroup

        return node if hasattr(node, "dtype") else StoredZarrGroup(node, allow)

    def texts(self, node: Any, what: str) -> np.ndarray | None:
        """See :meth:`.formats.Nodes.texts`."""
        if node.dtype.kind not in "TOUS":
            return None
        n = int(node.shape[0])
        claim_texts(n, n * node.dtype.itemsize, what)
        return decode_texts(node[:].astype(object), f"{what} of {node.store}")

    def open_array(self, node: Any, what: str, *, sparse_data: bool = False) -> StoredArray:
        """See :meth:`.formats.Nodes.open_array`."""
        from .zarr import ZarrArray

        return ZarrArray(node, what, sparse_data)

    def layout(self, node: Any) -> StoredLike:
        """See :meth:`.formats.Nodes.layout`."""
        how = {
            "compressors": node.compressors,
            "filters": node.filters,
            "zarr_format": node.metadata.zarr_format,
        }
        return StoredLike(np.dtype(node.dtype), tuple(node.chunks), how)

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
        import zarr

        root = zarr.open_group(str(folder / "like.zarr"), mode="w")
        yield _fill(root, storage, arrays, indptr, shape)


def _fill(
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
        array = group.create_array(
            "X" if indptr is None else name,
            shape=values.shape,
            chunks=like.chunks,
            dtype=like.dtype,
            **(more if root.metadata.zarr_format == like.how["zarr_format"] else {}),
        )
        array[...] = values
    return root["X"]
