"""What compressed bytes say they decode to, asked before a codec that has no limit decodes them."""

from __future__ import annotations

import os
import stat

#: Bytes of the start of a file that tell enough.
HEAD = 32
_ZSTD = b"\x28\xb5\x2f\xfd"


def decoded_size(codec: str, head: bytes, tail: bytes) -> int | None:
    """Bytes that compressed ones say they decode to; None if they say nothing.

    Parameters
    ----------
    codec : str
        ``"blosc"``, ``"gzip"``, ``"lz4"`` or ``"zstd"``; others say nothing.
    head, tail : bytes
        The first ones, and the last four.
    """
    if codec == "zstd":
        return _of_zstd(head)
    places = {"blosc": head[4:8], "gzip": tail, "lz4": head[:4]}
    found = places.get(codec, b"")
    return int.from_bytes(found, "little") if len(found) == 4 else None


def encoded_size(codec: str, head: bytes) -> int | None:
    """Bytes that compressed ones say they are; None if they say nothing.

    Blosc alone does, and reads on behind the end of what was cut short.
    """
    return int.from_bytes(head[12:16], "little") if codec == "blosc" and len(head) >= 16 else None


def _of_zstd(head: bytes) -> int | None:
    """The content size of a frame, as RFC 8878 has it."""
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
    """The size of a file, its first bytes, and its last four.

    Raises
    ------
    OSError
        It cannot be read, or is no file: a pipe would be waited for.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(f"{path} is no file")
    with open(path, "rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        head = file.read(HEAD)
        file.seek(max(0, size - 4))
        return size, head, file.read(4)
