"""Matrix Market files of features x cells, read once from front to back, in pieces of text.

The text cannot be read by ranges, so the entries end up in memory, by cells.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from ...errors import DataError, FileFormatError, UnsupportedDataError, shown
from ..sizes import claim
from .text_files import text_stream

WHAT = "The matrix"
_MARK = b"%%matrixmarket"
_LONGEST_LINE = 1 << 16
_AT_ONCE, _BUFFER = 1 << 24, 1 << 20  # bytes of text: parsed and read at a time
_SHORTEST = 4  # bytes of an entry, such as "1 1\n"
_MOST_PACKED = 1100  # bytes that gzip makes of one, at most about 1030


@dataclass(frozen=True)
class Header:
    """What a Matrix Market file says about itself.

    Attributes
    ----------
    field : str
        ``"integer"``, ``"real"`` or ``"pattern"``.
    n_features, n_cells, n_entries : int
    """

    field: str
    n_features: int
    n_cells: int
    n_entries: int

    @property
    def dtype(self) -> np.dtype:
        """Return the dtype of the values; a whole number beyond it leads to int64."""
        return np.dtype(np.float64 if self.field == "real" else np.int32)


@dataclass(frozen=True)
class Entries:
    """The entries of a matrix by cells, in the order of the file within each cell.

    Attributes
    ----------
    data : numpy.ndarray, shape (n,)
    features : numpy.ndarray, shape (n,), int32
    indptr : numpy.ndarray, shape (n_cells + 1,), int64
    """

    data: np.ndarray
    features: np.ndarray
    indptr: np.ndarray


def read_header(path: Path) -> Header:
    """Return the header of a Matrix Market file.

    Raises
    ------
    FileFormatError
        It is no such file, is empty or damaged.
    UnsupportedDataError
        It holds something other than a sparse matrix of real numbers.
    """
    with text_stream(path, WHAT) as stream:
        return _header(stream, path)


def read_entries(path: Path) -> Entries:
    """Read all entries of a Matrix Market file.

    Raises
    ------
    FileFormatError
        It holds fewer or more entries than its header declares, or is damaged.
    MemoryBudgetError
        They do not fit in ``memory=``.
    """
    n_read, header = 0, None
    try:
        with text_stream(path, WHAT) as stream:
            header = _header(stream, path)
            _check_size(header, path)
            place = _Entries(header)
            for text in _pieces(stream):
                rows, columns, values = _parse(text, header, path, n_read)
                n_read += len(values)
                place.add(rows, columns, values)
    except FileFormatError as error:
        if header is not None and isinstance(error.__cause__, EOFError):
            raise _miscounted(path, header, f"{n_read:,}, and ends there") from error
        raise
    if n_read < header.n_entries:
        raise _miscounted(path, header, f"{n_read:,}")
    return place.by_cells()


def _header(stream: BinaryIO, path: Path) -> Header:
    words = stream.readline(_LONGEST_LINE).lower().removeprefix(b"\xef\xbb\xbf").split()
    if not words or words[0] != _MARK:
        raise FileFormatError(
            f"{WHAT} {shown(str(path))} is not a Matrix Market file: it does not begin with "
            "%%MatrixMarket. Copy or download it again."
        )
    form, field, symmetry = (
        (*(word.decode("latin-1") for word in words[2:5]), "", "", "")[i] for i in range(3)
    )
    if (form, symmetry) != ("coordinate", "general") or field not in (
        "integer", "real", "double", "pattern",
    ):  # fmt: skip
        raise UnsupportedDataError(
            f"{WHAT} {shown(str(path))} is of the kind {shown(f'{form} {field} {symmetry}')}. "
            "Supported: coordinate, with integer, real or pattern, general, as Cell Ranger "
            "writes it."
        )
    line = b"%"
    while line.startswith(b"%") or (line and not line.strip()):
        line = stream.readline(_LONGEST_LINE)
    try:
        n_features, n_cells, n_entries = map(int, line.split())
    except ValueError as error:
        raise FileFormatError(
            f"{WHAT} {shown(str(path))} is malformed: the line with its size is "
            f"{shown(line.decode('latin-1').strip())} instead of three whole numbers."
        ) from error
    if min(n_features, n_cells, n_entries) < 0 or max(n_features, n_cells) >= 1 << 31:
        raise FileFormatError(
            f"{WHAT} {shown(str(path))} is malformed: its size is {n_features} x {n_cells} with "
            f"{n_entries} entries."
        )
    return Header("real" if field == "double" else field, n_features, n_cells, n_entries)


def _check_size(header: Header, path: Path) -> None:
    """Raise FileFormatError if the file is too short for its entries, however packed they are."""
    n_bytes = path.stat().st_size
    if header.n_entries * _SHORTEST > (n_bytes + 1) * _MOST_PACKED:
        raise FileFormatError(
            f"{WHAT} {shown(str(path))} is malformed: its header declares {header.n_entries:,} "
            f"entries, but the file has {n_bytes:,} bytes. Copy or download it again."
        )


def _pieces(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the text in pieces of whole lines.

    Where a compressed file is cut, the lines before are yielded, then EOFError is raised.
    """
    text = bytearray()
    try:
        while part := stream.read1(_BUFFER):  # type: ignore[attr-defined]
            text += part
            if len(text) >= _AT_ONCE:
                lines, text = _whole_lines(text)
                yield lines
    except EOFError:
        yield _whole_lines(text)[0]
        raise
    if text.strip():
        yield bytes(text) if text.endswith(b"\n") else bytes(text + b"\n")


def _whole_lines(text: bytearray) -> tuple[bytes, bytearray]:
    """Return the whole lines of a text, and the rest."""
    end = text.rfind(b"\n") + 1
    if len(text) - end > _LONGEST_LINE:
        end = len(text)  # not a line of numbers; the parser says so
    return bytes(text[:end]), text[end:]


def _parse(
    text: bytes, header: Header, path: Path, n_before: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return features, cells and values of the entries in a piece of text."""
    from . import kernels

    raw = np.frombuffer(text, np.uint8)
    n = min(text.count(b"\n") + text.count(b"\r"), header.n_entries - n_before)
    rows, columns = np.empty(n, np.int32), np.empty(n, np.int32)  # filled by parse
    values, ends = np.empty(n, np.int64), np.empty(n if header.field == "real" else 0, np.int64)
    form = {"pattern": kernels.NOTHING, "integer": kernels.WHOLE_NUMBER}
    n, fault = kernels.parse(
        raw, form.get(header.field, kernels.ANY_NUMBER), header.n_features, header.n_cells, rows,
        columns, values, ends,
    )  # fmt: skip
    if fault == kernels.MORE:
        raise _miscounted(path, header, "more")
    if fault == kernels.FRACTION:
        raise DataError(
            f"{WHAT} {shown(str(path))} declares whole numbers, but entry {n_before + n + 1:,} has "
            "a fraction or an exponent. Write it again with the field real."
        )
    if fault == kernels.OUT_OF_RANGE:
        what = f"is outside its {header.n_features:,} features x {header.n_cells:,} cells"
        raise _malformed(path, n_before + n, what)
    if fault == kernels.TOO_LARGE:
        raise _malformed(path, n_before + n, "has a number beyond 64 bits")
    if fault != kernels.FINE:
        raise _malformed(path, n_before + n, _no_entry(header))
    rows, columns, values = rows[:n], columns[:n], values[:n]
    if header.field != "real":
        return rows, columns, values
    numbers = np.empty(n)  # filled here
    for i, (a, b) in enumerate(zip(values.tolist(), ends[:n].tolist(), strict=True)):
        try:
            numbers[i] = float(text[a:b])
        except ValueError as error:
            raise _malformed(path, n_before + i, _no_entry(header)) from error
    return rows, columns, numbers


def _no_entry(header: Header) -> str:
    return "does not hold a feature, a cell" + ("" if header.field == "pattern" else ", a number")


def _malformed(path: Path, n_before: int, what: str) -> FileFormatError:
    return FileFormatError(
        f"{WHAT} {shown(str(path))} is malformed: entry {n_before + 1:,} {what}. Copy or download "
        "it again."
    )


def _miscounted(path: Path, header: Header, found: str) -> FileFormatError:
    return FileFormatError(
        f"{WHAT} {shown(str(path))} is truncated or damaged: its header declares "
        f"{header.n_entries:,} entries, but it holds {found}. Copy or download it again."
    )


class _Entries:
    """Entries in the order of the file, put in order of cells at the end if they are not."""

    def __init__(self, header: Header) -> None:
        n, dtype = header.n_entries, header.dtype
        claim(n * (dtype.itemsize + 8), f"the {n:,} entries of the matrix, which is text,")
        self._data = np.empty(n, dtype)  # filled by add
        self._features, self._cells = np.empty(n, np.int32), np.empty(n, np.int32)
        self._n_cells, self._n, self._last, self._ordered = header.n_cells, 0, 0, True

    def add(self, features: np.ndarray, cells: np.ndarray, values: np.ndarray) -> None:
        """Append entries."""
        if not len(values):
            return
        if self._data.dtype == np.int32 and (
            values.max() > np.iinfo(np.int32).max or values.min() < np.iinfo(np.int32).min
        ):
            claim(4 * len(self._data), "entries of the matrix beyond 32 bits")
            self._data = self._data.astype(np.int64)
        here = slice(self._n, self._n + len(values))
        self._data[here], self._features[here], self._cells[here] = values, features, cells
        self._ordered &= bool(cells[0] >= self._last and np.all(cells[1:] >= cells[:-1]))
        self._n, self._last = here.stop, int(cells[-1])

    def by_cells(self) -> Entries:
        """Return all entries by cells."""
        counts = np.bincount(self._cells, minlength=self._n_cells)
        indptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        if not self._ordered:
            claim(16 * self._n, f"the order of the {self._n:,} entries of the matrix")
            order = np.argsort(self._cells, kind="stable")
            self._data, self._features = self._data[order], self._features[order]
        return Entries(self._data, self._features, indptr)
