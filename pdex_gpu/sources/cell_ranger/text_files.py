"""Text files, compressed with gzip or not: bytes, lines and tables."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from ...errors import FileFormatError, PdexGpuError, UnreadableFileError, listing, shown
from ...utils.atomic_files import is_folder, is_there
from ..sizes import BYTES_PER_TEXT, claim
from ..text import decode_texts

_GZIP = b"\x1f\x8b"
_BOM = b"\xef\xbb\xbf"
_AT_ONCE = 1 << 20


@contextmanager
def text_stream(path: Path, what: str) -> Iterator[BinaryIO]:
    """Open a file, and decompress it if it begins like gzip, whatever its suffix.

    Errors of reading become one of this package within the block.

    Parameters
    ----------
    path : pathlib.Path
    what : str
        What the file is, for messages: ``"The feature file"``.

    Raises
    ------
    MissingFileError, UnreadableFileError
        There is no such file, or permission to read it is missing.
    FileFormatError
        It is no file, or is truncated or damaged.
    """
    if is_folder(is_there(path, what)):
        raise FileFormatError(f"{what} {shown(str(path))} is a folder, but a file is needed.")
    try:
        with path.open("rb") as file:
            compressed = file.read(len(_GZIP)) == _GZIP
            file.seek(0)
            # A member of a gzip file that is cut raises EOFError, so no end passes unnoticed.
            yield cast(BinaryIO, gzip.GzipFile(fileobj=file)) if compressed else file
    except PdexGpuError:
        raise
    except PermissionError as error:
        raise UnreadableFileError(
            f"{what} {shown(str(path))} cannot be read: permission denied."
        ) from error
    except (EOFError, OSError, zlib.error) as error:
        raise FileFormatError(
            f"{what} {shown(str(path))} is truncated or damaged: {error}. Copy or download it "
            "again."
        ) from error


def read_whole(path: Path, what: str) -> bytes:
    """Return all bytes of a text file, without a byte order mark.

    Raises
    ------
    MemoryBudgetError
        They do not fit in ``memory=``. Other errors are those of :func:`text_stream`.
    """
    parts = []
    with text_stream(path, what) as stream:
        while part := stream.read(_AT_ONCE):
            claim(len(part), f"{what} {str(path)!r}")
            parts.append(part)
    return b"".join(parts).removeprefix(_BOM)


def read_lines(path: Path, what: str) -> list[bytes]:
    """Return the lines of a text file without their ends; empty ones at the end are left out."""
    found = read_whole(path, what)
    claim(BYTES_PER_TEXT * (found.count(b"\n") + 1), f"the lines of {what} {str(path)!r}")
    lines = found.replace(b"\r\n", b"\n").split(b"\n")
    while lines and not lines[-1].strip():
        lines.pop()
    return lines


def read_columns(path: Path, what: str) -> list[np.ndarray]:
    """Return the columns of a table that is separated by tabs and has no header.

    Returns
    -------
    list of numpy.ndarray, shape (n_lines,), object
        As many as the first line has.

    Raises
    ------
    FileFormatError
        A line has fewer columns than the first. Other errors are those of :func:`read_whole`.
    """
    rows = [line.split(b"\t") for line in read_lines(path, what)]
    n = len(rows[0]) if rows else 0
    short = next((i for i, row in enumerate(rows, 1) if len(row) < n), None)
    if short is not None:
        raise FileFormatError(
            f"{what} {shown(str(path))} is malformed: line {short} has {len(rows[short - 1])} "
            f"columns, but line 1 has {n}. Copy or download it again."
        )
    claim(BYTES_PER_TEXT * n * len(rows), f"the columns of {what} {str(path)!r}")
    return [decode_texts([row[j].strip() for row in rows], str(path)) for j in range(n)]


def read_table(
    path: Path, what: str, needed: Sequence[str]
) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield the rows of a table with a header, by the names of their columns, with line numbers.

    Parameters
    ----------
    path : pathlib.Path
        Separated by tabs if its name ends in ``.tsv`` or ``.tsv.gz``, otherwise by commas.
    what : str
        What the file is, for messages.
    needed : sequence of str
        Columns that it must have; their names are compared in lower case.

    Raises
    ------
    FileFormatError
        A column is missing, a row is too short, or the file is no table.
    """
    content = read_whole(path, what)
    claim(2 * len(content) + BYTES_PER_TEXT * content.count(b"\n"), f"the table {str(path)!r}")
    texts = decode_texts(content.splitlines(keepends=True), str(path))
    separator = "\t" if path.name.lower().removesuffix(".gz").endswith(".tsv") else ","
    lines = csv.reader(texts, delimiter=separator)
    header: list[str] | None = None
    try:
        for row in lines:
            if not any(cell.strip() for cell in row):
                continue
            if header is None:
                header = [name.strip().lower() for name in row]
                _check_header(path, what, header, needed)
            elif len(row) < len(header) and any(header.index(name) >= len(row) for name in needed):
                raise FileFormatError(
                    f"{what} {shown(str(path))} is malformed: line {lines.line_num} has {len(row)} "
                    f"columns, but the header has {len(header)}. Copy or download it again."
                )
            else:
                cells = [cell.strip() for cell in row]
                yield lines.line_num, dict(zip(header, cells, strict=False))
    except csv.Error as error:
        raise FileFormatError(
            f"{what} {shown(str(path))} is not a table, line {lines.line_num}: {error}."
        ) from error
    if header is None:
        raise FileFormatError(
            f"{what} {shown(str(path))} is empty. It needs the columns {listing(needed)}."
        )


def _check_header(path: Path, what: str, header: Sequence[str], needed: Sequence[str]) -> None:
    missing = [name for name in needed if name not in header]
    if missing:
        raise FileFormatError(
            f"{what} {shown(str(path))} has no column {listing(missing)}; its first line has "
            f"{listing(header)}. Pass the file as Cell Ranger writes it."
        )
