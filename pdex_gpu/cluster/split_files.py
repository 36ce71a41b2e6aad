"""Rows split by ranges of genes, a file a block of rows, in a folder that all workers see.

A file is written under another name and renamed, so one that has its name is whole; two workers
that write the same write the same bytes.
"""

from __future__ import annotations

import hashlib
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

from ..errors import ScratchError
from ..pools import Map
from ..sources.base import CsrChunk
from ..sources.raw_file import read_into
from ..sources.row_split import Ranges, SplitBlock, join_range

_MAGIC = b"pdexrows"
_NAME = re.compile(r"rows-(\d+)-(\d+)\.split")
_NOTE, _ROWS = "split.json", "rows.json"
_TEMPORARY = ".part"
_PREFIX = struct.Struct("<8sq")


@dataclass(frozen=True)
class _Array:
    """An array in a split file."""

    path: str
    offset: int
    dtype: np.dtype
    length: int


@dataclass(frozen=True)
class SplitFiles:
    """The folder, and how what is in it is cut; travels with every task.

    Attributes
    ----------
    folder : pathlib.Path
    ranges : Ranges
    n_cells : int
    dtype, index_dtype : numpy.dtype
        Of values and genes of the chunks.
    """

    folder: Path
    ranges: Ranges
    n_cells: int
    dtype: np.dtype
    index_dtype: np.dtype

    def path(self, rows: slice) -> Path:
        """The file of a block of rows."""
        return self.folder / f"rows-{rows.start:012d}-{rows.stop:012d}.split"

    def write(self, block: SplitBlock, seen: np.ndarray) -> None:
        """Keep a block, and the entries of each gene in it.

        Raises
        ------
        ScratchError
            The folder is full, not writable, or gone.
        """
        path = self.path(block.rows)
        through = path.with_name(f"{path.name}.{uuid.uuid4().hex}{_TEMPORARY}")
        arrays = [block.bounds, seen, *block.arrays]
        try:
            try:
                with through.open("wb") as file:
                    file.write(_header(block, arrays))
                    for array in arrays:
                        file.write(np.ascontiguousarray(array).data)
                through.replace(path)
            except BaseException:
                with suppress(OSError):
                    through.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(self.folder)!r} could not be written to: "
                f"{error.strerror}. Name a folder that all workers can write to, with enough "
                "room, with scratch=."
            ) from error

    def entries(self, rows: slice) -> np.ndarray | None:
        """Entries of a block in each range, shape (n_ranges,); None if it was not written yet."""
        path = self.path(rows)
        if not path.exists():
            return None
        return np.diff(_read_block(path).bounds)

    def n_bytes(self) -> int:
        """Bytes of all files."""
        return sum(path.stat().st_size for path in self._paths())

    def seen(self, n_genes: int) -> np.ndarray:
        """Entries of each gene in all blocks, shape (n_genes,), int64."""
        total = np.zeros(n_genes, np.int64)
        for path in self._paths():
            total += _get_once(_open_header(path)[1][1])
        return total

    def blocks(self) -> list[SplitBlock]:
        """All blocks, in the order of cells.

        Raises
        ------
        ScratchError
            Some are missing.
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
                "removed while they were needed? Call again."
            )
        return blocks

    def join(self, k: int, blocks: Sequence[SplitBlock], run: Map) -> CsrChunk:
        """The chunk of range `k`."""
        dtypes = self.dtype, self.index_dtype
        return join_range(self.ranges, k, blocks, dtypes, _Opened().get, run)

    def _paths(self) -> list[Path]:
        try:
            names = sorted(name for name in os.listdir(self.folder) if _NAME.fullmatch(name))
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(self.folder)!r} cannot be read: {error.strerror}. Was it "
                "removed while it was needed? Call again."
            ) from error
        return [self.folder / name for name in names]


def _header(block: SplitBlock, arrays: list[np.ndarray]) -> bytes:
    facts = {
        "rows": [block.rows.start, block.rows.stop],
        "arrays": [[array.dtype.str, int(array.size)] for array in arrays],
    }
    text = json.dumps(facts).encode()
    text += b" " * (-(_PREFIX.size + len(text)) % 64)
    return _PREFIX.pack(_MAGIC, len(text)) + text


def _open_header(path: Path) -> tuple[slice, list[_Array]]:
    try:
        with path.open("rb") as file:
            magic, length = _PREFIX.unpack(file.read(_PREFIX.size))
            facts = json.loads(file.read(length)) if magic == _MAGIC else {}
            size = os.fstat(file.fileno()).st_size
        arrays, at = [], _PREFIX.size + length
        for dtype, n in facts["arrays"]:
            arrays.append(_Array(str(path), at, np.dtype(dtype), n))
            at += n * np.dtype(dtype).itemsize
        if at != size:
            raise ValueError(f"it has {size} bytes, not {at}")
        return slice(*facts["rows"]), arrays
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise _damaged(path, error) from error


def _read_block(path: Path) -> SplitBlock:
    rows, (bounds, _, *arrays) = _open_header(path)
    counts, values, indices, table, table_bounds = arrays
    return SplitBlock(
        rows, _get_once(bounds), table.length, counts, values, indices, table, table_bounds
    )


def _get_once(array: _Array) -> np.ndarray:
    return _Opened().get(array, 0, array.length)


class _Handle:
    """An open file that is closed with the last reference to it."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.fd = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "fd"):
            os.close(self.fd)


class _Opened(threading.local):
    """The file that a thread reads from: one at a time, as many files wait to be read."""

    handle: _Handle | None = None

    def get(self, array: _Array, first: int, last: int) -> np.ndarray:
        """Items ``[first, last)`` of an array."""
        out = np.empty(last - first, array.dtype)  # filled by read_into
        if not out.size:
            return out
        try:
            if self.handle is None or self.handle.path != array.path:
                self.handle = _Handle(array.path)
            n = read_into(self.handle.fd, array.offset + first * array.dtype.itemsize, out)
            if n != out.nbytes:
                raise OSError("it ends early")
        except OSError as error:
            raise _damaged(Path(array.path), error) from error
        return out


def _damaged(path: Path, error: Exception) -> ScratchError:
    return ScratchError(
        f"{str(path)!r} cannot be read back: {error}. Was it removed or cut while it was needed? "
        "Call again."
    )


class SplitFolder:
    """Folders of split files on the side of the call: kept for one that carries on, else removed.

    A folder's name is made of the run and the ranges, so what a worker still writes for a call
    that was given up is never taken for another's.

    Parameters
    ----------
    parent : pathlib.Path
        Made here, with nothing else in it.
    identity : mapping
        What tells the run from others.
    """

    def __init__(self, parent: Path, identity: Mapping[str, Any]) -> None:
        self.parent = parent
        self._identity = json.loads(json.dumps(identity))

    def edges(self) -> tuple[int, ...] | None:
        """The ranges of genes that an earlier call of the same run split by, if there was one."""
        for note in self.parent.glob(f"*/{_NOTE}"):
            try:
                found = json.loads(note.read_text(encoding="utf-8"))
                if found["run"] == self._identity:
                    return tuple(found["edges"])
            except (OSError, ValueError, KeyError, TypeError):
                continue
        return None

    def begin(self, edges: Sequence[int]) -> Path:
        """The folder for a run and its ranges; others of this parent are removed."""
        facts = {"run": self._identity, "edges": [int(edge) for edge in edges]}
        text = json.dumps(facts)
        folder = self.parent / hashlib.sha256(text.encode()).hexdigest()[:16]
        if not (folder / _NOTE).exists():
            self.remove()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / _NOTE).write_text(text, encoding="utf-8")
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(folder)!r} cannot be made: {error.strerror}. Name one "
                "that this process and all workers can write to with scratch=."
            ) from error
        return folder

    def rows(self, folder: Path, most: int, cut: Callable[[], list[slice]]) -> list[slice]:
        """Blocks of rows as the folder has them, or else as `cut` gives them.

        Parameters
        ----------
        folder : pathlib.Path
            From :meth:`begin`.
        most : int
            Entries that a block may have: larger ones of an earlier call are given up.
        cut : callable
            Gives the blocks.
        """
        note = folder / _ROWS
        try:
            found = json.loads(note.read_text(encoding="utf-8"))
            if found["most"] <= most:
                return [slice(a, b) for a, b in found["rows"]]
        except (OSError, ValueError, KeyError, TypeError):
            pass  # none yet, or cut short when it was written
        for file in folder.glob("*.split"):
            file.unlink(missing_ok=True)
        parts = cut()
        text = json.dumps({"most": most, "rows": [[part.start, part.stop] for part in parts]})
        note.write_text(text, encoding="utf-8")
        return parts

    def remove(self) -> None:
        """Remove all folders; what never was is no matter."""
        shutil.rmtree(self.parent, ignore_errors=True)
