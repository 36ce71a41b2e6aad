"""Named temporary files and folders: the next process removes the leftovers of killed ones.

Each is locked while its process lives, and the system releases the lock however the process ends.
Their names tell the host. Those of another host stay, as its locks may not be visible here.
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
    """Make an empty file to write and rename within the block; remove it if it is still there.

    Leftovers of killed processes of this host and user in the folder are removed.

    Raises
    ------
    OSError
        The file cannot be made.
    """
    begins = f"{_FILE}{_host()}-"
    for left in folder.glob(f"{begins}*{_PART}"):
        _remove_left(left, left)
    while True:
        handle, name = tempfile.mkstemp(prefix=begins, suffix=_PART, dir=folder)
        if _lock(handle, Path(name)):
            break
        os.close(handle)
    if os.name == "nt":  # open files cannot be renamed there
        os.close(handle)
    try:
        yield Path(name)
    finally:
        with suppress(OSError):  # its folder may be the cause
            Path(name).unlink(missing_ok=True)
        if os.name != "nt":
            os.close(handle)


@contextmanager
def temporary_folder(parent: Path | None, prefix: str) -> Iterator[Path]:
    """Make a folder that is removed after the block, with all its contents.

    Leftovers of killed processes of this host and user in `parent` are removed.

    Parameters
    ----------
    parent : pathlib.Path, optional
        By default the system's temporary folder.
    prefix : str
        Start of its name, shared by all folders of the same kind.

    Raises
    ------
    OSError
        The folder cannot be made.
    """
    parent = Path(tempfile.gettempdir()) if parent is None else parent
    begins = f"{prefix}{_host()}-"
    for left in parent.glob(f"{begins}*"):
        _remove_left(left, left / _LOCK)
    while True:
        path = Path(tempfile.mkdtemp(prefix=begins, dir=parent))
        try:
            handle = os.open(path / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except FileNotFoundError:  # another process took it for a leftover
            continue
        if _lock(handle, path / _LOCK):
            break
        os.close(handle)
    try:
        yield path
    finally:
        if os.name == "nt":  # open files cannot be removed there
            os.close(handle)
        shutil.rmtree(path, ignore_errors=True)
        if os.name != "nt":
            os.close(handle)


@cache
def _host() -> str:
    return hashlib.sha256(platform.node().encode()).hexdigest()[:8]


def _lock(handle: int, path: Path) -> bool:
    """Lock a file just made; return False if another process took it for a leftover."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # a file system without locks, where nothing counts as a leftover
        return True
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False


def _remove_left(path: Path, lock: Path) -> None:
    """Remove a file or folder if its process is certainly dead."""
    try:
        import fcntl
    except ImportError:  # Windows, where it is unknown which processes are dead
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
