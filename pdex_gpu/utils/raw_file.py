"""Reading and writing at given offsets of a file, safe from several threads at once."""

from __future__ import annotations

import os
import threading
from typing import Any

from ..errors import FileFormatError

_HAS_POSITIONS = hasattr(os, "preadv")
_lock = threading.Lock()


def read_at(fd: int, offset: int, size: int) -> bytes:
    """Read up to `size` bytes at `offset` of an open file; fewer only if the file ends there."""
    parts = [_read_some(fd, offset, size)]
    done = len(parts[0])
    while parts[-1] and done < size:  # Linux reads at most 2 GiB per call
        parts.append(_read_some(fd, offset + done, size - done))
        done += len(parts[-1])
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _read_some(fd: int, offset: int, size: int) -> bytes:
    if _HAS_POSITIONS:
        return os.pread(fd, size, offset)
    with _lock:
        os.lseek(fd, offset, os.SEEK_SET)
        return os.read(fd, size)


def read_into(fd: int, offset: int, buffer: Any) -> int:
    """Fill `buffer` (a contiguous array) from `offset`; return the number of bytes read."""
    view = memoryview(buffer).cast("B") if memoryview(buffer).nbytes else memoryview(b"")
    done = 0
    while done < len(view):  # Linux reads at most 2 GiB per call
        if _HAS_POSITIONS:
            n = os.preadv(fd, [view[done:]], offset + done)
        else:
            some = read_at(fd, offset + done, len(view) - done)
            n = len(some)
            view[done : done + n] = some
        if n == 0:
            break
        done += n
    return done


def write_at(fd: int, offset: int, buffer: Any) -> None:
    """Write `buffer` (a contiguous array) at `offset`."""
    view = memoryview(buffer)
    if not view.nbytes:
        return
    view = view.cast("B")
    done = 0
    while done < len(view):
        if _HAS_POSITIONS:
            done += os.pwrite(fd, view[done:], offset + done)
        else:
            with _lock:
                os.lseek(fd, offset + done, os.SEEK_SET)
                done += os.write(fd, view[done:])


class RawFile:
    """An open file that must not change while it is read.

    Parameters
    ----------
    fd : int
        The open file; not closed here.
    path : str
    """

    def __init__(self, fd: int, path: str) -> None:
        self.fd, self.path = fd, path
        self._before = os.fstat(fd)

    @property
    def size(self) -> int:
        """Return the size of the file in bytes when it was opened."""
        return self._before.st_size

    def identity(self) -> dict[str, int]:
        """Return the size and modification time, which distinguish this version of the file."""
        return {"file size": self._before.st_size, "file modified": self._before.st_mtime_ns}

    def check_unchanged(self) -> None:
        """Raise FileFormatError if the file was modified, replaced or removed since."""
        before, now = self._before, os.fstat(self.fd)
        if (before.st_size, before.st_mtime_ns) != (now.st_size, now.st_mtime_ns):
            raise FileFormatError(
                f"{self.path} was changed while it was being read: it had {before.st_size} bytes "
                f"and now has {now.st_size}. Run again once nothing is writing to it."
            )
        try:
            there = os.stat(self.path)
        except OSError as error:
            raise FileFormatError(
                f"{self.path} was removed while it was being read. Put it back and run again."
            ) from error
        if not os.path.samestat(there, now):
            raise FileFormatError(
                f"{self.path} was replaced by another file while it was being read. Run again."
            )
