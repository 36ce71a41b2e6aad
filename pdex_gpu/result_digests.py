"""Digests of a result file: of what it says of itself, and of its values, block by block.

A block is so many comparisons in order; its digest is the CRC-32 of its values in the order of
rows, as little-endian numbers of 64 bits. So a part of a file is verified by itself, and row
groups, compression and encodings do not matter.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .checksums import crc32

if TYPE_CHECKING:
    import pyarrow

#: How values are digested; the layout of a file names it.
ALGORITHM = "crc32"

_DIGITS = 8  # of a digest
_HEX = re.compile("[0-9a-f]*")


@dataclass(frozen=True)
class Digests:
    """Digests of the columns of values.

    Attributes
    ----------
    comparisons : int
        How many make a block; the last may have fewer.
    columns : dict of str to str
        By column, the digests of its blocks, 8 hexadecimal digits each.
    """

    comparisons: int
    columns: Mapping[str, str]

    def of_block(self, name: str, block: int) -> str:
        """The digest of a block of a column, as it was written."""
        return self.columns[name][block * _DIGITS : (block + 1) * _DIGITS]

    def as_json(self, described: Iterable[bytes]) -> bytes:
        """For the metadata of a file; `described` is the rest of what it says of itself."""
        content = {
            "comparisons": self.comparisons,
            "columns": dict(self.columns),
            "metadata": metadata_digest(described),
        }
        return json.dumps(content).encode()


def metadata_digest(described: Iterable[bytes]) -> str:
    """SHA-256 of what a file says of itself."""
    found = hashlib.sha256()
    for text in described:
        found.update(len(text).to_bytes(8, "little") + text)
    return found.hexdigest()


def parse_digests(found: object, n_comparisons: int) -> Digests | None:
    """Digests from the JSON of a file; None if it holds no such thing."""
    if not isinstance(found, dict):
        return None
    size, columns = found.get("comparisons"), found.get("columns")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        return None
    n_digits = -(-n_comparisons // size) * _DIGITS
    if not isinstance(columns, dict) or not all(
        isinstance(text, str) and len(text) == n_digits and _HEX.fullmatch(text)
        for text in columns.values()
    ):
        return None
    return Digests(size, columns)


def digest(pieces: Iterable[np.ndarray]) -> str:
    """The digest of values that lie in one or several arrays."""
    found = 0
    for values in pieces:
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        found = crc32(little.data.cast("B"), found)
    return f"{found:0{_DIGITS}x}"


def chunk_values(column: pyarrow.ChunkedArray) -> Iterator[np.ndarray]:
    """The numbers of a column without nulls, chunk by chunk, as they lie in memory.

    Not by ``to_numpy()``, which imports pandas.
    """
    dtype = np.dtype(column.type.to_pandas_dtype())
    for chunk in column.chunks:
        if len(chunk):
            at = chunk.offset * dtype.itemsize
            yield np.frombuffer(chunk.buffers()[1], dtype, len(chunk), at)


def digest_columns(table: pyarrow.Table, names: Iterable[str]) -> dict[str, str]:
    """The digests of a block, column by column."""
    return {name: digest(chunk_values(table[name])) for name in names}
