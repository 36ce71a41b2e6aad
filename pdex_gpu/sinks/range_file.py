"""The file of a range of genes: results, with checksums that show whether they are as written.

A numpy header and the array are followed by one CRC-32 per block of lines, so that even a few lines
are checked whenever they are read. The file ends with a SHA-256 over the run, the range, the
summary of values and these CRCs. Each CRC starts from a number derived from the same facts: a block
from another file or position never passes as this one's.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.lib import format as npy

from ..utils.atomic_files import create, open_plain
from ..utils.checksums import crc32
from ..utils.raw_file import read_at, read_into
from ..utils.value_summary import ValueSummary

# Genes, then the summary of their values: renaming a file sets both at once.
_NAME = re.compile(
    r"genes-(?P<start>\d{1,18})-(?P<stop>\d{1,18})-(?P<kind>fractional|whole)"
    r"_(?P<minimum>[-+.e\d]{1,40})_(?P<maximum>[-+.e\d]{1,40})\.npy"
)
_SUM = np.dtype("<u4")
# Bytes. Short, because blocks are read whole; long enough that calls cost nothing.
_BLOCK = 1 << 15
_PIECE = 1 << 20  # bytes read at a time when a whole file is checked


class DamagedRangeError(ValueError):
    """The file is not as it was written; the message says in what way."""


@dataclass(frozen=True)
class RangeFile:
    """The results of a range of genes: an array (values, genes of the range), float64.

    The checkpoint says how many values per gene each field has; fields follow one another.

    Attributes
    ----------
    path : pathlib.Path
    genes : slice
    summary : ValueSummary
        Summary of the matrix values in these genes.
    n_values : int
        Lines of the array.
    run : str
        Identifier of the run that the results belong to.
    """

    path: Path
    genes: slice
    summary: ValueSummary
    n_values: int
    run: str

    @classmethod
    def of(
        cls, folder: Path, genes: slice, summary: ValueSummary, n_values: int, run: str
    ) -> RangeFile:
        """Return the file of a range, with the name that it has in a folder."""
        kind = "fractional" if summary.fractional else "whole"
        name = (
            f"genes-{genes.start:09d}-{genes.stop:09d}-{kind}"
            f"_{summary.minimum!r}_{summary.maximum!r}.npy"
        )
        return cls(folder / name, genes, summary, n_values, run)

    @classmethod
    def named(cls, path: Path, n_values: int, run: str) -> RangeFile | None:
        """Return the range file that a path names; None if the name is not that of a range."""
        name = _NAME.fullmatch(path.name)
        if name is None:
            return None
        try:
            minimum, maximum = float(name["minimum"]), float(name["maximum"])
        except ValueError:
            return None
        summary = ValueSummary(name["kind"] == "fractional", minimum, maximum)
        genes = slice(int(name["start"]), int(name["stop"]))
        return cls(path, genes, summary, n_values, run)

    @property
    def width(self) -> int:
        """Return the number of genes in the range."""
        return self.genes.stop - self.genes.start

    @cached_property
    def _layout(self) -> _Layout:
        facts = f"{self.run} {self.path.name} {self.n_values}"
        return _Layout(self.n_values, self.width, hashlib.sha256(facts.encode()).digest())

    def write(self, through: Path, values: np.ndarray) -> None:
        """Write a new file, to be renamed; `values` is C-contiguous, of shape (values, genes)."""
        layout = self._layout
        sums = layout.sums(values, 0)
        with create(through) as file:
            file.write(layout.header)
            file.write(values.data)
            file.write(sums)
            file.write(layout.digest(sums))

    def read(self, rows: slice, out: np.ndarray) -> None:
        """Copy some lines into `out`, shape (lines, genes), float64.

        Raises
        ------
        DamagedRangeError
            The lines are not as they were written.
        OSError
            The file cannot be read.
        """
        layout = self._layout
        first, last = rows.start // layout.lines, -(-rows.stop // layout.lines)
        start, stop = first * layout.lines, min(last * layout.lines, self.n_values)
        # Read straight into `out` if only whole blocks are wanted.
        direct = (start, stop) == (rows.start, rows.stop) and out.flags.c_contiguous
        lines = out if direct else np.empty((stop - start, self.width))  # filled below, or an error
        with _opened(self.path, layout.size) as fd:
            read_into(fd, layout.offset + layout.line_bytes * start, lines)
            at, size = layout.sums_offset + _SUM.itemsize * first, _SUM.itemsize * (last - first)
            sums = read_at(fd, at, size)
        if layout.sums(lines, first) != sums:
            raise DamagedRangeError("its contents have changed")
        if not direct:
            out[:] = lines[rows.start - start : rows.stop - start]

    def check(self) -> None:
        """Raise DamagedRangeError unless the whole file is as it was written."""
        layout = self._layout
        step = layout.lines * max(1, _PIECE // (layout.lines * layout.line_bytes))
        with _opened(self.path, layout.size) as fd:
            if read_at(fd, 0, layout.offset) != layout.header:
                raise DamagedRangeError("it does not start as such files do")
            tail = read_at(fd, layout.sums_offset, layout.size - layout.sums_offset)
            sums = tail[: layout.n_blocks * _SUM.itemsize]
            if layout.digest(sums) != tail[len(sums) :]:
                raise DamagedRangeError("it belongs to a different run or range, or was changed")
            found = []
            for start in range(0, self.n_values, step):
                lines = np.empty((min(step, self.n_values - start), self.width))  # filled below
                read_into(fd, layout.offset + layout.line_bytes * start, lines)
                found.append(layout.sums(lines, start // layout.lines))
        if b"".join(found) != sums:
            raise DamagedRangeError("its contents have changed")


class _Layout:
    """The positions of the parts of a file, and its checksums.

    Parameters
    ----------
    n_values, width : int
        Shape of the array.
    key : bytes
        Digest of the facts that identify the file.
    """

    def __init__(self, n_values: int, width: int, key: bytes) -> None:
        self._key = key
        self._first = int.from_bytes(key[: _SUM.itemsize], "little")
        self.header = _header(n_values, width)
        self.offset = len(self.header)
        self.line_bytes = 8 * width
        self.lines = max(1, _BLOCK // self.line_bytes)  # per block
        self.n_blocks = -(-n_values // self.lines)
        self.sums_offset = self.offset + self.line_bytes * n_values
        self.size = self.sums_offset + _SUM.itemsize * self.n_blocks + hashlib.sha256().digest_size

    def sums(self, lines: np.ndarray, block: int) -> bytes:
        """Return the checksums of consecutive blocks, the first of which is number `block`."""
        data, size = lines.data.cast("B"), self.lines * self.line_bytes
        sums = [
            crc32(data[at : at + size], self._first ^ (block + i))
            for i, at in enumerate(range(0, len(data), size))
        ]
        return np.array(sums, _SUM).tobytes()

    def digest(self, sums: bytes) -> bytes:
        """Return the digest that ends the file."""
        return hashlib.sha256(self._key + sums).digest()


def _header(n_values: int, width: int) -> bytes:
    file = io.BytesIO()
    descr = npy.dtype_to_descr(np.dtype(np.float64))
    facts = {"descr": descr, "fortran_order": False, "shape": (n_values, width)}
    npy.write_array_header_1_0(file, facts)
    return file.getvalue()


@contextmanager
def _opened(path: Path, size: int) -> Iterator[int]:
    fd = open_plain(path)
    try:
        found = os.fstat(fd).st_size
        if found != size:
            raise DamagedRangeError(f"it has {found:,} bytes, not {size:,}")
        yield fd
    finally:
        os.close(fd)
