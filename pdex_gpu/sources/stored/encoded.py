"""Declared sizes of compressed data, read before a codec without a size limit decodes them."""

from __future__ import annotations

import os
import stat

#: Bytes needed from the start of a file.
HEAD = 32
_ZSTD = b"\x28\xb5\x2f\xfd"


def decoded_size(codec: str, head: bytes, tail: bytes) -> int | None:
    """Return the decoded size that compressed bytes declare; None if they declare none.

    Parameters
    ----------
    codec : str
        ``"blosc"``, ``"gzip"``, ``"lz4"`` or ``"zstd"``; others declare none.
    head, tail : bytes
        The first bytes, and the last four.
    """
    if codec == "zstd":
        return _of_zstd(head)
    places = {"blosc": head[4:8], "gzip": tail, "lz4": head[:4]}
    found = places.get(codec, b"")
    return int.from_bytes(found, "little") if len(found) == 4 else None


def encoded_size(codec: str, head: bytes) -> int | None:
    """Return the encoded size that compressed bytes declare; None if they declare none.

    Only blosc declares it, and its decoder reads past the end of truncated data.
    """
    return int.from_bytes(head[12:16], "little") if codec == "blosc" and len(head) >= 16 else None


def _of_zstd(head: bytes) -> int | None:
    """Return the content size of a frame, as defined in RFC 8878."""
    if head[:4] != _ZSTD or len(head) < 5:
        return None
    flag, single, dictionary = head[4] >> 6, head[4] >> 5 & 1, head[4] & 3
    start = 5 + (not single) + (0, 1, 2, 4)[dictionary]
    length = (1 if single else 0, 2, 4, 8)[flag]
    found = head[start : start + length]
    if not length or len(found) < length:
        return None
    return int.from_bytes(found, "little") + (256 if length == 2 else 0)


def ends_of(path: str) -> tuple[int, bytes, bytes]:
    """Return the size of a file, its first bytes, and its last four.

    Raises
    ------
    OSError
        It cannot be read, or is not a regular file: reading a pipe would block.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is not a file")
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        file.seek(max(0, size - 4))
        return size, head, file.read(4)
