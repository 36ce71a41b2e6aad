"""Writing files: whole or not at all, on the disk before they are named, errors in words."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import OutputError

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_FAILED = (
    errno.EROFS, errno.EIO, errno.EFBIG, errno.ENAMETOOLONG, errno.EISDIR, errno.ENOTDIR,
    errno.ENOENT, errno.EEXIST, errno.ESTALE,
)  # fmt: skip


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn an error of the disk within the block into an OutputError.

    Parameters
    ----------
    what : str
        What is written, for the message: ``"The output"``.
    path : pathlib.Path
        The file.
    """
    try:
        yield
    except OutputError:
        raise
    except OSError as error:
        if error.errno not in (*_FULL, *_DENIED, *_FAILED):  # not the disk's
            raise
        folder = str(path.absolute().parent)
        if error.errno in _FULL:
            why = f"the disk of the folder {folder!r} is full. Make room there, or use another"
        elif error.errno in _DENIED:
            why = f"permission is missing in the folder {folder!r}. Grant it, or use another"
        else:
            why = f"{os.strerror(error.errno)} (folder {folder!r}). Check it, or use another"
        told = OutputError(f"{what} {str(path)!r} could not be written: {why}.")
        told.errno = error.errno
        raise told from error


def write_whole(
    path: Path, write: Callable[[Path], None], what: str = "The output", *, through: Path
) -> None:
    """Let `write` fill the file `through`, then rename it to `path`: all or nothing.

    What was written is on the disk before it has its name, also if the power fails.
    """
    try:
        with writing(what, path):
            write(through)
            sync(through)
            through.replace(path)
            sync_folder(path.parent)
    except BaseException:
        through.unlink(missing_ok=True)
        raise


def write_beside(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: all or nothing."""
    path = Path(path)
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {str(path.parent)!r} of {path.name!r} does not exist. Create it first."
        )
    with writing("The output", path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        os.close(handle)

    def write_usual(temporary: Path) -> None:
        write(temporary)
        mask = os.umask(0)  # mkstemp makes the file private; give it the usual permissions
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)

    write_whole(path, write_usual, through=Path(name))


def sync(path: Path) -> None:
    """Wait until a file is on the disk."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(folder: Path) -> None:
    """Wait until the names in a folder are on the disk."""
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system that does not offer it
            raise
    finally:
        os.close(handle)
