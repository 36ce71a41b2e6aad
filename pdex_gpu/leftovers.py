"""Temporary files and folders that have a name: what a killed process left, the next one removes.

Each is locked while its process lives, and the system gives the lock up however that ends. What
another host made is left alone, as its locks may not be seen here: the name tells the host.
"""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

_FILE = ".pdex_gpu."
_PART = ".part"
_LOCK = ".lock"


@contextmanager
def temporary_file(folder: Path) -> Iterator[Path]:
    """An empty file in a folder, to be written and renamed within the block, or else removed.

    What killed processes of this host and user left in the folder is removed.

    Raises
    ------
    OSError
        It cannot be made.
    """
    begins = f"{_FILE}{_host()}-"
    for left in folder.glob(f"{begins}*{_PART}"):
        _remove_left(left, left)
    while True:
        handle, name = tempfile.mkstemp(prefix=begins, suffix=_PART, dir=folder)
        if _lock(handle, Path(name)):
            break
        os.close(handle)
    if os.name == "nt":  # where open files cannot be renamed
        os.close(handle)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):  # its folder may be what is wrong
            Path(name).unlink(missing_ok=True)
        if os.name != "nt":
            os.close(handle)


@contextmanager
def temporary_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """A folder that is removed after the block, with all that is in it.

    What killed processes of this host and user left there is removed.

    Parameters
    ----------
    parent : pathlib.Path, optional
        The system's temporary folder by default.
    prefix : str
        How its name begins, and those of folders of the same kind.

    Raises
    ------
    OSError
        It cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    begins = f"{prefix}{_host()}-"
    for left in parent.glob(f"{begins}*"):
        _remove_left(left, left / _LOCK)
    while True:
        path = Path(tempfile.mkdtemp(prefix=begins, dir=parent))
        try:
            handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # taken for one that was left
            continue
        if _lock(handle, path / _LOCK):
            break
        os.close(handle)
    try:
        yield path
    finally:
        if os.name == "nt":  # where open files cannot be removed
            os.close(handle)
        shutil.rmtree(path, ignore_errors=True)
        if os.name != "nt":
            os.close(handle)


@cache
def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _lock(handle: int, path: Path) -> bool:
    """Lock what was just made; False if another process took it for something that was left."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing is ever taken for left
        return True
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove_left(path: Path, lock: Path) -> None:
    """Remove a file or folder if its process is surely dead."""
    try:
        import fcntl
    except ImportError:  # Windows: who is dead is not known
        return
    with suppress(OSError):  # in use, another user's, or being removed by another process
        if path.lstat().st_uid != os.geteuid() or path.is_symlink():
            return
        if path.is_dir() and not lock.exists():
            path.rmdir()
            return
        handle = os.open(lock, os.O_RDWR | os.O_NOFOLLOW)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()
        finally:
            os.close(handle)
