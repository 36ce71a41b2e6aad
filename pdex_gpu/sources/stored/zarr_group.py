"""Zarr groups that check arrays for missing chunks, and local stores confined to their folder.

zarr reads a missing chunk as fill values, because writers leave out chunks of zeros. In a dense
matrix that is common. In labels, names and sparse matrices, a missing chunk was lost.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from ...errors import FileFormatError
from ...utils.atomic_files import is_there
from ..allowed import Allowed, external, unwritten
from ..sizes import check_room

_NAMED = 100  # bytes of a chunk's name, and of the record whether it exists
METADATA = (".zarray", ".zgroup", ".zattrs", ".zmetadata", "zarr.json")


class StoredZarrGroup:
    """A group of a zarr store; its members are checked when they are accessed.

    Parameters
    ----------
    group : zarr.Group
    allow : frozenset of str
        See :mod:`.allowed`.
    """

    def __init__(self, group: Any, allow: Allowed = frozenset()) -> None:
        self._group, self._allow = group, allow
        self.attrs = group.attrs

    def __iter__(self) -> Iterator[str]:
        return iter(self._group)

    def __contains__(self, name: str) -> bool:
        return name in self._group

    def __getitem__(self, name: Any) -> Any:
        found = self.get(name)
        if found is None:
            raise FileFormatError(
                f"{self._group.path}/{name} of {place_of(self._group.store)} is missing. The store "
                "is incomplete, or not laid out as anndata writes it: copy it again."
            )
        return found

    def get(self, name: Any, default: Any = None) -> Any:
        """Return the member `name`, checked: a StoredZarrGroup or a zarr.Array.

        Raises
        ------
        FileFormatError
            It lacks chunks that must hold more than zeros.
        """
        if not isinstance(name, str):
            raise FileFormatError(
                f"{self._group.path} of {place_of(self._group.store)} refers to a name that is not "
                "text. The store is damaged."
            )
        node = self._group.get(name)
        if node is None:
            return default
        if not hasattr(node, "dtype"):
            return StoredZarrGroup(node, self._allow)
        if "unwritten" not in self._allow and not self._may_lack_chunks(node, name):
            _check_written(node)
        return node

    def _may_lack_chunks(self, array: Any, name: str) -> bool:
        """Return whether chunks of zeros, which writers leave out, are likely."""
        if len(array.shape) != 1 or array.size == 0:
            return True
        if name == "mask" or (name == "data" and "indptr" in self._group):
            return True  # a mask of no cell; or entries, which are checked when read
        if name == "indices":
            return self._only_index_is_zero()
        other = {"codes": "categories", "indptr": "data"}.get(name)
        beside = None if other is None else self._group.get(other)
        shape = getattr(beside, "shape", None) or (2,)
        return bool(shape[0] <= (name == "codes"))  # only one category; or no entries

    def _only_index_is_zero(self) -> bool:
        """Return whether this is a CSR matrix of one gene, or a CSC matrix of one cell."""
        shape, kind = self.attrs.get("shape"), self.attrs.get("encoding-type")
        at = {"csr_matrix": 1, "csc_matrix": 0}.get(kind) if isinstance(kind, str) else None
        return isinstance(shape, list) and at is not None and len(shape) == 2 and shape[at] == 1


def _check_written(array: Any) -> None:
    """Raise FileFormatError if a chunk of a vector is missing."""
    (length,), (unit,) = array.shape, getattr(array, "shards", None) or array.chunks
    n_chunks = -(-length // unit)
    what = f"{array.path} of {place_of(array.store)}"
    check_room(_NAMED * n_chunks, f"the names of the {n_chunks:,} chunks of {what}")
    there = _chunks_there(array, n_chunks)
    if not all(there):
        raise unwritten(
            f"{what}: {n_chunks - sum(there):,} of {n_chunks:,} chunks are missing, the first of "
            f"them {chunk_key(array, there.index(False))!r}"
        )


def _chunks_there(array: Any, n_chunks: int) -> list[bool]:
    root = local_root(array.store)
    keys = [chunk_key(array, i) for i in range(n_chunks)]
    if root is not None and os.path.isdir(root):
        return [os.path.exists(os.path.join(root, array.path, key)) for key in keys]
    keys = [f"{array.path}/{key}" for key in keys]
    if not hasattr(array.store, "list_prefix"):  # zarr 2
        return [key in array.store for key in keys]
    from zarr.core.sync import sync

    async def listed() -> set[str]:
        return {key async for key in array.store.list_prefix(f"{array.path}/")}

    found = sync(listed())
    return [key in found for key in keys]


def chunk_key(array: Any, i: int) -> str:
    """Return the file name of chunk `i`, or shard `i`, of a vector within its folder."""
    metadata = getattr(array, "metadata", None)  # zarr 3
    return str(metadata.encode_chunk_key((i,)) if metadata is not None else i)


def local_root(store: Any) -> str | None:
    """Return the folder or file of a store on this machine; None for other stores."""
    path = getattr(store, "root", None) or getattr(store, "path", None)  # zarr 3; zip and zarr 2
    if isinstance(path, str | Path) and os.path.exists(path):
        return os.path.abspath(path)
    return None


def place_of(store: Any) -> str:
    """Return the name of a store for messages."""
    root = local_root(store)
    if root is not None:
        return root
    path, fs = getattr(store, "path", None), getattr(store, "fs", None)
    if not isinstance(path, str) or fs is None:
        return str(store)
    protocol = fs.protocol if isinstance(fs.protocol, str) else fs.protocol[0]
    return path if "://" in path else f"{protocol}://{path}"


def local_store(path: str, allow: Allowed) -> Any:
    """Return a zarr store of a folder that refuses everything but files of that folder."""
    store = _store_class()(path)
    store.guard = _Guard(path, allow)
    return store


class _Guard:
    """Decides which files of a folder may be read."""

    def __init__(self, root: str, allow: Allowed) -> None:
        self._root, self._allow = os.path.abspath(root), allow
        self._homes: dict[str, bool] = {}  # whether a folder really is inside the root

    def check(self, key: str) -> None:
        """Raise FileFormatError if a key leads out of the store or is not a file."""
        path = os.path.join(self._root, key)
        try:
            mode = os.lstat(path).st_mode
        except FileNotFoundError:
            return
        except NotADirectoryError:
            if os.path.basename(key) in METADATA:  # zarr looks for it next to any file
                return
            raise
        folder = os.path.dirname(path)
        if folder not in self._homes:
            self._homes[folder] = self._is_home(folder)
        linked = stat.S_ISLNK(mode) or not self._homes[folder]
        if linked and "external" not in self._allow and not self._is_home(path):
            raise external(
                f"{key} of {self._root} is a link that points outside the store, to "
                f"{os.path.realpath(path)!r}"
            )
        if not stat.S_ISREG(mode) and is_there(Path(path), "Of the store,").is_dir():
            raise FileFormatError(
                f"{path} is a folder instead of a file. The store is damaged: copy it again."
            )

    def _is_home(self, path: str) -> bool:
        root = os.path.realpath(self._root)
        return f"{os.path.realpath(path)}{os.sep}".startswith(os.path.join(root, ""))


@cache
def _store_class() -> Any:
    """Return a subclass of zarr's folder store that asks a guard before it opens a file."""
    import zarr

    if not hasattr(zarr.storage, "LocalStore"):  # zarr 2

        class OldGuardedStore(zarr.storage.DirectoryStore):  # type: ignore[misc]
            guard: _Guard

            def __getitem__(self, key: str) -> Any:
                self.guard.check(key)
                return super().__getitem__(key)

        return OldGuardedStore

    class GuardedStore(zarr.storage.LocalStore):  # type: ignore[misc]
        guard: _Guard

        def __init__(self, root: Any, *, read_only: bool = True) -> None:
            super().__init__(root, read_only=read_only)

        def get_sync(self, key: str, **options: Any) -> Any:
            self.guard.check(key)
            return super().get_sync(key, **options)

        async def get(self, key: str, *arguments: Any, **options: Any) -> Any:
            self.guard.check(key)
            return await super().get(key, *arguments, **options)

        async def get_partial_values(self, prototype: Any, key_ranges: Any) -> Any:
            wanted = list(key_ranges)
            for key, _ in wanted:
                self.guard.check(key)
            return await super().get_partial_values(prototype, wanted)

    return GuardedStore
