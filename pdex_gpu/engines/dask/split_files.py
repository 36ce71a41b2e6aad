"""Rows split by ranges of genes, one file per block of rows, in a folder that all workers see.

A file is written under a temporary name and then renamed, so a file with its final name is
complete. Two workers that write the same file write the same bytes. The header and each piece that
is read at once have a checksum (CRC-32), which is verified on every read.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import shutil
import struct
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ...errors import ScratchError
from ...sources.base import CsrChunk
from ...sources.rechunk.ranges import Ranges, RechunkedBlock, join_range
from ...utils.atomic_files import create, is_strangers, kind_of, make_private, open_plain, remove
from ...utils.checksums import crc32
from ...utils.parallel import Map
from ...utils.raw_file import read_at, read_into

_MAGIC = b"pdexrow2"
_NAME = re.compile(r"rows-(\d+)-(\d+)\.split")
_NOTE, _ROWS = "split.json", "rows.json"
_TEMPORARY = ".part"
_PREFIX = struct.Struct("<8sqI")
_SUM = np.dtype("<u4")
# Positions among the arrays of a file: bounds, entries of each gene, and those of RechunkedBlock.
# Each range has one piece of these arrays; the others are read whole.
_COUNTS, _OF_RANGES = 2, (3, 4)
_MOST_NOTE = 1 << 26  # bytes


@dataclass(frozen=True)
class _Array:
    """An array in a split file.

    Attributes
    ----------
    path : str
    offset : int
    dtype : numpy.dtype
    length : int
    edges : numpy.ndarray, shape (n_pieces + 1,), int64
        Bounds of its pieces; each is read as a whole.
    sums : numpy.ndarray, shape (n_pieces,), uint32
        Checksums of the pieces.
    first_sum : int
        Initial value of the checksums.
    """

    path: str
    offset: int
    dtype: np.dtype
    length: int
    edges: np.ndarray
    sums: np.ndarray
    first_sum: int


@dataclass(frozen=True)
class SplitFiles:
    """The folder of split files and how the rows are split; sent with every task.

    Attributes
    ----------
    folder : pathlib.Path
    ranges : Ranges
    n_cells : int
    dtype, index_dtype : numpy.dtype
        Dtypes of the values and gene indices of chunks.
    """

    folder: Path
    ranges: Ranges
    n_cells: int
    dtype: np.dtype
    index_dtype: np.dtype

    @staticmethod
    def name(rows: slice) -> str:
        """Return the file name for a block of rows."""
        return f"rows-{rows.start:012d}-{rows.stop:012d}.split"

    def path(self, rows: slice) -> Path:
        """Return the path of the file for a block of rows."""
        return self.folder / self.name(rows)

    def write(self, block: RechunkedBlock, seen: np.ndarray) -> None:
        """Write a block, and the number of entries of each gene in it.

        Raises
        ------
        ScratchError
            If the folder is full, not writable, or gone.
        """
        path = self.path(block.rows)
        through = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        try:
            try:
                with create(through) as file:
                    for part in _parts(path, block, seen):
                        file.write(part)
                through.replace(path)
            except BaseException:
                with suppress(OSError):
                    through.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(self.folder)!r} could not be written to: "
                f"{error.strerror}. With scratch=, choose a folder with enough space that all "
                "workers can write to."
            ) from error

    def entries(self, rows: slice) -> np.ndarray | None:
        """Count the entries of a block in each range, shape (n_ranges,); None if not written yet.

        Raises
        ------
        ScratchError
            If the file has changed since it was written.
        """
        path = self.path(rows)
        if kind_of(path) is None:
            return None
        for array in _open_header(path)[1]:
            opened = _Opened()
            for first, last in itertools.pairwise(array.edges.tolist()):
                opened.get(array, first, last)
        return np.diff(_read_block(path).bounds)

    def n_bytes(self) -> int:
        """Return the total size of all files in bytes."""
        return sum(path.stat().st_size for path in self._paths())

    def seen(self, n_genes: int) -> np.ndarray:
        """Count the entries of each gene in all blocks, shape (n_genes,), int64."""
        total = np.zeros(n_genes, np.int64)
        for path in self._paths():
            total += _get_once(_open_header(path)[1][1])
        return total

    def blocks(self) -> list[RechunkedBlock]:
        """Return all blocks, in the order of cells.

        Raises
        ------
        ScratchError
            If some are missing.
        """
        blocks = [_read_block(path) for path in self._paths()]
        at = 0
        for block in blocks:
            if block.rows.start != at:
                break
            at = block.rows.stop
        if at != self.n_cells:
            raise ScratchError(
                f"The shared folder {str(self.folder)!r} lacks the rows from {at}: were files "
                "removed during the run? Call again."
            )
        return blocks

    def join(self, k: int, blocks: Sequence[RechunkedBlock], parallel_map: Map) -> CsrChunk:
        """Return the chunk of range `k`."""
        dtypes = self.dtype, self.index_dtype
        return join_range(self.ranges, k, blocks, dtypes, _Opened().get, parallel_map)

    def _paths(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(self.folder)!r} cannot be read: {error.strerror}. Was it "
                "removed during the run? Call again."
            ) from error
        return [self.folder / name for name in names]


def _parts(path: Path, block: RechunkedBlock, seen: np.ndarray) -> list[Any]:
    """Return the parts of a file, in order."""
    arrays = [np.ascontiguousarray(a) for a in (block.bounds, seen, *block.arrays)]
    first = _first_sum(path)
    sums = np.array(
        [
            crc32(array[a:b].data, first ^ i) if b > a else 0
            for i, array in enumerate(arrays)
            for a, b in itertools.pairwise(_edges(i, len(array), block.bounds))
        ],
        _SUM,
    )
    facts = {
        "rows": [block.rows.start, block.rows.stop],
        "arrays": [[array.dtype.str, int(array.size)] for array in arrays],
    }
    text = json.dumps(facts).encode()
    text += b" " * (-(_PREFIX.size + len(text) + sums.nbytes + arrays[0].nbytes) % 64)
    head = text + sums.tobytes() + arrays[0].tobytes()
    return [_PREFIX.pack(_MAGIC, len(text), crc32(head, first)), head, *arrays[1:]]


def _first_sum(path: Path) -> int:
    """Return the initial checksum of a file, so that pieces of other files are not accepted."""
    return crc32(f"{path.parent.name}/{path.name}".encode())


def _edges(i: int, length: int, bounds: np.ndarray) -> np.ndarray:
    """Return the bounds of the pieces of the `i`-th array of a file."""
    n_ranges = len(bounds) - 1
    if i == _COUNTS:
        return np.arange(n_ranges + 1) * (length // n_ranges)
    return bounds if i in _OF_RANGES else np.array([0, length])


def _open_header(path: Path) -> tuple[slice, list[_Array]]:
    """Return the rows of a file, and its arrays; the first array is the bounds."""
    try:
        fd = open_plain(path)
        try:
            size = os.fstat(fd).st_size
            magic, length, wanted = _PREFIX.unpack(read_at(fd, 0, _PREFIX.size))
            if magic != _MAGIC or not 0 <= length <= size:
                raise ValueError("it does not start as such files do")
            text = read_at(fd, _PREFIX.size, length)
            facts = json.loads(text)
            dtypes = [np.dtype(dtype) for dtype, _ in facts["arrays"]]
            lengths = [int(n) for _, n in facts["arrays"]]
            n_ranges = lengths[0] - 1
            n_sums = len(lengths) + (n_ranges - 1) * (1 + len(_OF_RANGES))
            n_bytes = _SUM.itemsize * n_sums + dtypes[0].itemsize * lengths[0]
            if n_ranges < 1 or n_bytes > size:
                raise ValueError("its contents have changed")
            head = read_at(fd, _PREFIX.size + length, n_bytes)
        finally:
            os.close(fd)
        if crc32(text + head, _first_sum(path)) != wanted:
            raise ValueError("its contents have changed")
        sums = np.frombuffer(head, _SUM, n_sums)
        at = _PREFIX.size + length + sums.nbytes
        bounds = np.frombuffer(head, dtypes[0], offset=sums.nbytes)
        arrays = []
        for i, (dtype, n) in enumerate(zip(dtypes, lengths, strict=True)):
            edges = _edges(i, n, bounds)
            n_pieces = len(edges) - 1
            first = _first_sum(path) ^ i
            arrays.append(_Array(str(path), at, dtype, n, edges, sums[:n_pieces], first))
            sums, at = sums[n_pieces:], at + n * dtype.itemsize
        if at != size:
            raise ValueError(f"it has {size} bytes, not {at}")
        return slice(*facts["rows"]), arrays
    except (OSError, ValueError, KeyError, TypeError, IndexError, struct.error) as error:
        raise _damaged(path, error) from error


def _read_block(path: Path) -> RechunkedBlock:
    rows, (bounds, _, *arrays) = _open_header(path)
    counts, values, indices, table, table_bounds = arrays
    return RechunkedBlock(
        rows, _get_once(bounds), table.length, counts, values, indices, table, table_bounds
    )


def _get_once(array: _Array) -> np.ndarray:
    return _Opened().get(array, 0, array.length)


class _Handle:
    """An open file that is closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = open_plain(Path(path))

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class _Opened(threading.local):
    """The one file that a thread has open: there may be too many to keep them all open."""

    handle: _Handle | None = None

    def get(self, array: _Array, first: int, last: int) -> np.ndarray:
        """Read the items ``[first, last)`` of an array, which must be one of its pieces."""
        out = np.empty(last - first, array.dtype)  # filled by read_into
        if not out.size:
            return out
        try:
            if self.handle is None or self.handle.path != array.path:
                self.handle = _Handle(array.path)
            n = read_into(self.handle.fd, array.offset + first * array.dtype.itemsize, out)
            if n != out.nbytes:
                raise OSError("it ends early")
            piece = int(np.searchsorted(array.edges, first, side="right")) - 1
            if crc32(out.data, array.first_sum) != array.sums[piece]:
                raise OSError("its contents have changed")
        except OSError as error:
            raise _damaged(Path(array.path), error) from error
        return out


def _damaged(path: Path, error: Exception) -> ScratchError:
    return ScratchError(
        f"{str(path)!r} cannot be read back: {error}. Was it removed, truncated or changed during "
        "the run? Call again."
    )


class SplitFolder:
    """The folders of split files, as the client manages them.

    They are kept for a call that resumes the run, and otherwise removed. A folder's name is made
    from the run and its ranges, so files that a worker still writes for an abandoned call are never
    taken for another call's.

    Parameters
    ----------
    parent : pathlib.Path
        Made here, and used for nothing else.
    identity : mapping
        Facts that distinguish the run from others.
    """

    def __init__(self, parent: Path, identity: Mapping[str, Any]) -> None:
        self.parent = parent
        self._identity = json.loads(json.dumps(identity))

    def edges(self) -> tuple[int, ...] | None:
        """Return the ranges of genes of an earlier call of the same run, or None."""
        if kind_of(self.parent) != "a folder":
            return None
        for folder in sorted(self.parent.iterdir()):
            text = _read_note(folder / _NOTE)
            if text is None or _name_of(text) != folder.name:
                continue
            found = json.loads(text)
            if found["run"] == self._identity:
                return tuple(found["edges"])
        return None

    def begin(self, edges: Sequence[int]) -> Path:
        """Make the folder for a run and its ranges, removing other folders of this parent.

        Raises
        ------
        ScratchError
            If the folder cannot be made, or something else is in its place.
        """
        facts = {"run": self._identity, "edges": [int(edge) for edge in edges]}
        text = json.dumps(facts)
        folder = self.parent / _name_of(text)
        try:
            found = kind_of(self.parent)
            if found not in ("a folder", None) or (found and is_strangers(self.parent)):
                raise ScratchError(
                    f"The shared folder {str(self.parent)!r} is {found} that this run did not "
                    "create. Remove it, or choose another folder with scratch=."
                )
            if kind_of(folder) != "a folder" or _read_note(folder / _NOTE) != text:
                self.remove()
                for missing in (self.parent, folder):
                    if kind_of(missing) is None:
                        make_private(missing)
                _write_note(folder / _NOTE, text)
        except OSError as error:
            if isinstance(error, ScratchError):
                raise
            raise ScratchError(
                f"The shared folder {str(folder)!r} cannot be created: {error.strerror}. With "
                "scratch=, choose a folder that this process and all workers can write to."
            ) from error
        return folder

    def rows(self, folder: Path, most: int, cut: Callable[[], list[slice]]) -> list[slice]:
        """Return the blocks of rows noted in the folder, or else those that `cut` returns.

        Parameters
        ----------
        folder : pathlib.Path
            From :meth:`begin`.
        most : int
            Largest number of entries in a block; larger blocks of an earlier call are discarded.
        cut : callable
            Returns the blocks.
        """
        note = folder / _ROWS
        parts = _rows_of(_read_note(note), folder, most)
        wanted = {SplitFiles.name(part) for part in parts or []}
        for file in folder.glob("*.split"):
            if file.name not in wanted:
                remove(file)
        if parts is None:
            parts = cut()
            rows = [[part.start, part.stop] for part in parts]
            digest = _digest_of(folder, most, rows)
            text = json.dumps({"most": most, "rows": rows, "digest": digest})
            _write_note(note, text)
        return parts

    def remove(self) -> None:
        """Remove all folders, if there are any."""
        shutil.rmtree(self.parent, ignore_errors=True)


def _name_of(text: str) -> str:
    """Return the name of the folder that a note belongs to."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _read_note(path: Path) -> str | None:
    """Return the text of a note, or None if it is missing or unreadable."""
    try:
        fd = open_plain(path)
        try:
            return read_at(fd, 0, min(os.fstat(fd).st_size, _MOST_NOTE)).decode()
        finally:
            os.close(fd)
    except (OSError, UnicodeError):
        return None


def _write_note(path: Path, text: str) -> None:
    through = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
    with create(through) as file:
        file.write(text.encode())
    through.replace(path)


def _rows_of(text: str | None, folder: Path, most: int) -> list[slice] | None:
    """Return the blocks listed in a note, or None if it is damaged or the blocks are too large."""
    try:
        found = json.loads(text or "")
        cut, rows = found["most"], found["rows"]
        if found["digest"] != _digest_of(folder, cut, rows) or cut > most:
            return None
        return [slice(a, b) for a, b in rows]
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _digest_of(folder: Path, most: int, rows: list[list[int]]) -> str:
    return hashlib.sha256(json.dumps([folder.name, most, rows]).encode()).hexdigest()
