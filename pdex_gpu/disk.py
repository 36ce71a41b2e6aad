"""Writing files: whole or not at all, on the disk before they are named, errors in words."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .checks import check_path
from .errors import (
    MissingFileError,
    OptionError,
    OutputError,
    PdexGpuError,
    UnreadableFileError,
    shown,
)

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_LONGEST = 255  # bytes of a name, where the file system does not say

#: Beside NAME, the folder of its checkpoint is .NAME.checkpoint.
CHECKPOINT = ".checkpoint"


def mode_of(path: Path) -> int | None:
    """What is at a path, as :mod:`stat` reads it; None if nothing is, or none can be."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # also below a file, or with too long a name
        return None


def is_folder(path: Path) -> bool:
    """Whether there is a folder; False also for what cannot be a path."""
    mode = mode_of(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_regular(path: Path) -> bool:
    """Whether there is a file with content: no folder, pipe, socket or device, which may hang."""
    mode = mode_of(path)
    return mode is not None and stat.S_ISREG(mode)


def is_there(path: Path, what: str, advice: str = "Check the path.") -> Path:
    """The path of something that can be read.

    Raises
    ------
    MissingFileError
        Nothing is there.
    UnreadableFileError
        Permission to read it is missing.
    """
    if mode_of(path) is None:
        raise MissingFileError(f"{what} {shown(str(path))} does not exist. {advice}")
    if not os.access(path, os.R_OK):
        raise UnreadableFileError(
            f"{what} {shown(str(path))} cannot be read: permission is missing. Grant it, or use a "
            "copy."
        )
    return path


def why_not_writable(folder: Path) -> str | None:
    """Why no file can be made in a folder, found by making one without a name; None if it can."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return os.strerror(errno.EACCES)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:  # permissions that `access` does not know, /proc, a full disk
        return error.strerror or str(error)


def check_place(path: Path, *, room: str = "") -> None:
    """Refuse, before any work, a place where no file could be written at the end.

    Parameters
    ----------
    path : pathlib.Path
        The file to write.
    room : str
        What the name of something beside it has more.

    Raises
    ------
    OptionError
        Its folder is missing, a file or not writable, or it is a folder, or has too long a name.
    """
    folder = path.parent
    named = shown(str(folder))
    if not is_folder(folder):
        above = next((p for p in folder.parents if mode_of(p) is not None), None)
        if mode_of(folder) is not None or (above is not None and not is_folder(above)):
            file = folder if mode_of(folder) is not None else above
            raise OptionError(
                f"The output folder {named} does not exist: {str(file)!r} is a file. Choose "
                "another."
            )
        raise OptionError(f"The output folder {named} does not exist. Create it first.")
    why = why_not_writable(folder)
    if why is not None:
        raise OptionError(f"The output folder {named} is not writable ({why}). Choose another.")
    if is_folder(path):
        raise OptionError(f"The output {shown(str(path))} is a folder. Name a file.")
    most = _longest_name(folder) - len(room)
    size = len(os.fsencode(path.name))
    if size > most:
        raise OptionError(
            f"The output {shown(str(path))} has a name of {size} bytes, where at most {most} are "
            "possible. Choose a shorter one."
        )


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, some network file systems
        return _LONGEST


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn an error of the disk within the block into an OutputError.

    Parameters
    ----------
    what : str
        What is written, for the message: ``"The output"``.
    path : pathlib.Path
        The file as the caller named it, whatever else is written on the way.
    """
    try:
        yield
    except PdexGpuError:
        raise
    except OSError as error:
        if error.errno is None:  # not the disk's
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
    path: Path,
    write: Callable[[Path], None],
    what: str = "The output",
    *,
    through: Path,
    named: Path | None = None,
) -> None:
    """Let `write` fill the file `through`, then rename it to `path`: all or nothing.

    What was written is on the disk before it has its name, also if the power fails. An error names
    `named`, by default `path`.
    """
    try:
        with writing(what, path if named is None else named):
            write(through)
            sync(through)
            through.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # its folder may be what is wrong
            through.unlink(missing_ok=True)
        raise


def write_beside(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it: all or nothing.

    Raises
    ------
    MissingFileError
        The folder does not exist.
    OptionError
        `path` is none.
    OutputError
        The file cannot be written, or not there.
    """
    path = check_path("path", path)
    if mode_of(path.parent) is None:
        raise MissingFileError(
            f"The folder {shown(str(path.parent))} of {shown(path.name)} does not exist. Create it "
            "first."
        )
    try:
        check_place(path)
    except OptionError as error:
        raise OutputError(str(error)) from error
    with writing("The output", path):
        handle, name = tempfile.mkstemp(prefix=".pdex_gpu.", dir=path.parent)
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
