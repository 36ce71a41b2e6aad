"""Zarr arrays, decoded by zarr: formats 2 and 3, also sharded."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from math import prod
from typing import Any

import numpy as np

from ...errors import FileFormatError, MissingDependencyError
from ...utils import foreign_errors
from ..checks import native_dtype
from ..sizes import check_decoded, check_encoded, check_room
from .base import Where, position
from .encoded import decoded_size, encoded_size, ends_of
from .zarr_group import METADATA, chunk_key, local_root, place_of

_PIECE = 1 << 22  # approximate bytes decoded at a time: a call costs about as much as 100 KB


_FEW = 1 << 12  # maximum number of files whose sizes are looked up


def reading(what: str) -> AbstractContextManager[None]:
    """Turn errors of zarr and its codecs into a FileFormatError that names what was read."""
    return foreign_errors.reading(
        what,
        "zarr",
        "the store is incomplete or damaged, was written with a codec that is not installed, or "
        "its storage failed repeatedly",
    )


def is_url(path: str) -> bool:
    """Return whether a path is a URL, for object storage or another place that fsspec reads."""
    return "://" in path


@contextmanager
def _needing_fsspec(path: str) -> Iterator[None]:
    """Say what to install if fsspec, or the file system of a URL, is missing."""
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"{path} is read through fsspec, which needs a package that is not installed: {error}. "
            "Install it (s3fs for s3://, gcsfs for gs://, adlfs for az://, aiohttp for http://)."
        ) from error


class ZarrArray:
    """An array of a zarr store; see :class:`.stored.base.StoredArray`.

    By zarr's rules, chunks that were never written are zeros; in the data of a sparse matrix they
    are treated as lost.

    Parameters
    ----------
    array : zarr.Array
        Numeric, of one or two dimensions.
    what : str
        Name for messages: ``"X/data"``.
    sparse_data : bool
        Whether it holds the entries of a sparse matrix.
    """

    def __init__(self, array: Any, what: str, sparse_data: bool) -> None:
        root = local_root(array.store)
        self._array, self._sparse_data = array, sparse_data
        self._folder = None if root is None else os.path.join(root, array.path)
        self.name = f"{what} of {place_of(array.store)}"
        self.shape = tuple(int(n) for n in array.shape)
        self.dtype = native_dtype(array.dtype, self.name)
        self.chunks = tuple(max(1, int(n)) for n in array.chunks)  # in a shard: its inner chunks
        self._units = tuple(int(n) for n in getattr(array, "shards", None) or self.chunks)
        check_room(self.dtype.itemsize * prod(self.chunks), f"a chunk of {self.name}")
        self._codec = _codec_of(array)
        self.n_bytes = self._stored_bytes()
        # Watch the matrix, not one of its arrays: they change together.
        parent = array.path if len(self.shape) == 2 else os.path.dirname(array.path)
        self.file = None if root is None else _StoreFiles(root, parent)

    def _stored_bytes(self) -> int:
        n_files = prod(-(-n // u) for n, u in zip(self.shape, self._units, strict=True))
        if self._folder is None or n_files > _FEW or not os.path.isdir(self._folder):
            return prod(self.shape) * self.dtype.itemsize
        return sum(os.stat(file).st_size for file in _files(self._folder))

    def read(self, where: Where, out: np.ndarray) -> int:
        """See :meth:`.stored.base.StoredArray.read`."""
        for piece in self._pieces(where):
            target = tuple(
                slice(p.start - w.start, p.stop - w.start)
                for p, w in zip(piece, where, strict=True)
            )
            try:
                with reading(f"{self.name}, {position(piece)}"):
                    self._check_decoded(piece)
                    values = self._array[piece]
                    if self._sparse_data:
                        self._check_written(piece[0], values)
            except FileFormatError:
                if self.file is not None:
                    self.file.check_unchanged()
                raise
            out[target] = values
        size = prod(w.stop - w.start for w in where)
        return int(self.n_bytes * size / max(1, prod(self.shape)))

    def _pieces(self, where: Where) -> Iterator[Where]:
        """Yield pieces of whole chunks, clipped to `where`, so that buffers stay bounded."""
        fit = max(1, _PIECE // (self.dtype.itemsize * prod(self.chunks)))  # chunks
        steps: list[int] = []
        for chunk, w in zip(reversed(self.chunks), reversed(where), strict=True):
            n = max(1, min(fit, -(-(w.stop - w.start) // chunk)))
            steps.insert(0, n * chunk)
            fit //= n
        cuts = [
            [w.start, *range((w.start // step + 1) * step, w.stop, step), w.stop]
            for step, w in zip(steps, where, strict=True)
        ]
        for ends in itertools.product(*(itertools.pairwise(c) for c in cuts)):
            if all(a < b for a, b in ends):
                yield tuple(slice(a, b) for a, b in ends)

    def _check_written(self, where: slice, values: np.ndarray) -> None:
        """Raise FileFormatError if entries are zeros because their file is missing."""
        (unit,) = self._units
        fill = self._array.fill_value or 0
        for i in range(where.start // unit, -(-where.stop // unit)):
            first, last = max(where.start, i * unit), min(where.stop, (i + 1) * unit)
            some = values[first - where.start : last - where.start]
            if some[0] != fill or (some != fill).any():
                continue
            key = chunk_key(self._array, i)
            file = f"{self._array.path}/{key}".lstrip("/")
            in_folder = self._folder is not None and os.path.isdir(self._folder)
            if in_folder:
                file = os.path.join(self._folder or "", key)
            if not (os.path.exists(file) if in_folder else self._has(file)):
                raise FileFormatError(
                    f"{self.name}: chunk {i} ({position((slice(first, last),))}) is missing: there "
                    f"is no file {file}. The store is incomplete: copy it again. If these entries "
                    "really are zero, call X.eliminate_zeros() and write the store again, or pass "
                    "allow='unwritten' (--allow unwritten)."
                )

    def _check_decoded(self, where: Where) -> None:
        """Raise FileFormatError if a chunk decodes to far more bytes than expected.

        Codecs have no limit, so the check uses the sizes that the chunk itself declares. For
        shards, zip files and remote stores they are unknown.
        """
        if self._codec is None or self._folder is None or self._units != self.chunks:
            return
        belong = self.dtype.itemsize * prod(self.chunks)
        steps = [
            range(w.start // c, -(-w.stop // c)) for w, c in zip(where, self.chunks, strict=True)
        ]
        for index in itertools.product(*steps):
            key = self._array.metadata.encode_chunk_key(index)
            try:
                size, head, tail = ends_of(os.path.join(self._folder, key))
            except OSError:  # not there, or in a zip file
                continue
            told, belongs = decoded_size(self._codec, head, tail), encoded_size(self._codec, head)
            what = f"{self.name}, chunk {key}"
            if belongs is not None and belongs != size:
                raise FileFormatError(
                    f"{what} has {size:,} bytes but declares {belongs:,}. It is damaged: copy the "
                    "store again."
                )
            check_encoded(size, belong, what)
            check_decoded(told, belong, what)

    def _has(self, key: str) -> bool:
        """Return whether a store that is not a folder on this machine has a key."""
        if not hasattr(self._array.store, "exists"):  # zarr 2
            return key in self._array.store
        from zarr.core.sync import sync

        return bool(sync(self._array.store.exists(key)))


def _codec_of(array: Any) -> str | None:
    """Return the codec of an array that has only one: "zstd" for ZstdCodec or Zstd."""
    codecs: Any = getattr(array, "compressors", None) or ()
    if len(codecs) != 1 or getattr(array, "filters", None) or not hasattr(array, "metadata"):
        return None
    name = getattr(codecs[0], "codec_id", None) or type(codecs[0]).__name__
    return str(name).removesuffix("Codec").lower()


class _StoreFiles:
    """The files of a matrix in a local store; see :class:`.stored.base.Origin`."""

    def __init__(self, root: str, path: str) -> None:
        self._root = root
        self._folder = root if os.path.isfile(root) else os.path.join(root, path)
        self._before = self._now()

    def _now(self) -> dict[str, tuple[int, int]]:
        """Return sizes and times of the metadata, which is rewritten whenever the matrix is."""
        folders = [os.path.join(self._folder, name) for name in ("", "data", "indices", "indptr")]
        files = [os.path.join(folder, name) for folder in folders for name in METADATA]
        files = [self._root] if os.path.isfile(self._root) else files
        found = {}
        for file in files:
            try:
                stat = os.stat(file)
            except OSError:
                continue
            found[file] = (stat.st_size, stat.st_mtime_ns)
        return found

    def identity(self) -> dict[str, int | str]:
        """See :meth:`.stored.base.Origin.identity`: names, sizes and times of all files."""
        found = hashlib.sha256()
        folder = os.path.dirname(self._root) if os.path.isfile(self._root) else self._folder
        files = [self._root] if os.path.isfile(self._root) else sorted(_files(self._folder))
        for file in files:
            stat = os.stat(file)
            name = os.path.relpath(file, folder)
            found.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\n".encode())
        return {"files of the store": found.hexdigest()}

    def check_unchanged(self) -> None:
        """See :meth:`.stored.base.Origin.check_unchanged`."""
        now = self._now()
        if self._before and not now:
            raise FileFormatError(
                f"{self._root} was removed while it was being read. Put it back and run again."
            )
        if now != self._before:
            raise FileFormatError(
                f"{self._root} was changed while it was being read. Run again once nothing is "
                "writing to it."
            )


def _files(folder: str) -> Iterator[str]:
    for path, _, names in os.walk(folder):
        yield from (os.path.join(path, name) for name in names)
