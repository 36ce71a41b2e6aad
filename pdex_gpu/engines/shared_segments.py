"""Memory shared by processes: it has no name, and is freed with the last process that holds it."""

from __future__ import annotations

import mmap
import os
import secrets
import tempfile
from collections.abc import Callable
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from typing import Any, Protocol

#: Where Linux keeps shared memory.
MOUNT = Path("/dev/shm")


class Segment(Protocol):
    """Shared memory, passed to a process as an argument when the process is started."""

    size: int

    @property
    def buffer(self) -> Any:
        """Return the memory, attached in this process on first use."""

    def close(self) -> None:
        """Release the memory in this process; nothing may refer to :attr:`buffer` any more."""


def make_segment(size: int) -> Segment:
    """Return shared memory of `size` bytes, reserved so that they can be written.

    Raises
    ------
    OSError
        If there is no room for them.
    """
    if os.name == "nt":
        return NamedSegment(SharedMemory(create=True, size=size))
    handle = _open_unnamed()
    try:
        os.ftruncate(handle, size)
        if hasattr(os, "posix_fallocate"):
            # Reserve the pages now: writing to a full tmpfs would kill the process.
            os.posix_fallocate(handle, 0, size)
    except BaseException:
        os.close(handle)
        raise
    return UnnamedSegment(handle, size)


class UnnamedSegment:
    """A file in memory that is in no folder.

    Parameters
    ----------
    handle : int
    size : int
    """

    def __init__(self, handle: int, size: int) -> None:
        self.handle, self.size = handle, size
        self._map: mmap.mmap | None = None

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        from multiprocessing.reduction import DupFd  # not on Windows

        return _received, (DupFd(self.handle), self.size)

    @property
    def buffer(self) -> mmap.mmap:
        """See :class:`Segment`."""
        if self._map is None:
            self._map = mmap.mmap(self.handle, self.size)
        return self._map

    def close(self) -> None:
        """See :meth:`Segment.close`."""
        if self._map is not None:
            self._map.close()
        os.close(self.handle)


def _received(sent: Any, size: int) -> UnnamedSegment:
    return UnnamedSegment(sent.detach(), size)


def _open_unnamed() -> int:
    if MOUNT.is_dir():
        with tempfile.TemporaryFile(dir=MOUNT, buffering=0) as file:
            return os.dup(file.fileno())
    import _posixshmem  # type: ignore[import-not-found]

    name = f"/pdex_gpu-{secrets.token_hex(8)}"  # macOS: 31 characters at most
    handle: int = _posixshmem.shm_open(name, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode=0o600)
    _posixshmem.shm_unlink(name)
    return handle


class NamedSegment:
    """Memory that processes open by name, on Windows, which frees it with the last of them.

    Parameters
    ----------
    memory : multiprocessing.shared_memory.SharedMemory or str
        The memory, or its name; with a name, the memory is opened on first use.
    """

    def __init__(self, memory: SharedMemory | str) -> None:
        self._memory = memory
        self.size = 0 if isinstance(memory, str) else memory.size

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return NamedSegment, (self._memory if isinstance(self._memory, str) else self._memory.name,)

    @property
    def buffer(self) -> memoryview:
        """See :class:`Segment`."""
        if isinstance(self._memory, str):
            self._memory = SharedMemory(name=self._memory)
            self.size = self._memory.size
        buffer = self._memory.buf
        assert buffer is not None
        return buffer

    def close(self) -> None:
        """See :meth:`Segment.close`."""
        if not isinstance(self._memory, str):
            self._memory.close()
