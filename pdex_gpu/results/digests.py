"""Digests of a result file: of its metadata, and of its values block by block.

A block is a fixed number of consecutive comparisons. Its digest is the CRC-32 of its values in row
order, as little-endian 64-bit numbers. So part of a file can be verified without the rest, and row
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

from ..utils.checksums import crc32

if TYPE_CHECKING:
    import pyarrow

#: How values are digested; recorded in the layout of a file.
ALGORITHM = "crc32"

_DIGITS = 8  # hexadecimal digits of a digest
_HEX = re.compile("[0-9a-f]*")


@dataclass(frozen=True)
class Digests:
    """Digests of the columns of values.

    Attributes
    ----------
    comparisons : int
        Comparisons per block; the last block may have fewer.
    columns : dict of str to str
        By column, the digests of its blocks, of 8 hexadecimal digits each.
    """

    comparisons: int
    columns: Mapping[str, str]

    def of_block(self, name: str, block: int) -> str:
        """Return the recorded digest of a block of a column."""
        return self.columns[name][block * _DIGITS : (block + 1) * _DIGITS]

    def as_json(self, described: Iterable[bytes]) -> bytes:
        """Return JSON for the metadata of a file; `described` is the rest of that metadata."""
        content = {
            "comparisons": self.comparisons,
            "columns": dict(self.columns),
            "metadata": metadata_digest(described),
        }
        return json.dumps(content).encode()


def metadata_digest(described: Iterable[bytes]) -> str:
    """Return the SHA-256 of the metadata of a file."""
    found = hashlib.sha256()
    for text in described:
        found.update(len(text).to_bytes(8, "little") + text)
    return found.hexdigest()


def parse_digests(found: object, n_comparisons: int) -> Digests | None:
    """Return the digests in the JSON of a file; None if it holds none."""
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
    """Return the digest of the values in one or several arrays."""
    found = 0
    for values in pieces:
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<"))
        found = crc32(little.data.cast("B"), found)
    return f"{found:0{_DIGITS}x}"


def chunk_values(column: pyarrow.ChunkedArray) -> Iterator[np.ndarray]:
    """Yield the numbers of a column without nulls, chunk by chunk, as views of its buffers.

    ``to_numpy()`` is avoided because it imports pandas.
    """
    dtype = np.dtype(column.type.to_pandas_dtype())
    for chunk in column.chunks:
        if len(chunk):
            at = chunk.offset * dtype.itemsize
            yield np.frombuffer(chunk.buffers()[1], dtype, len(chunk), at)


def digest_columns(table: pyarrow.Table, names: Iterable[str]) -> dict[str, str]:
    """Return the digests of a block, column by column."""
    return {name: digest(chunk_values(table[name])) for name in names}
