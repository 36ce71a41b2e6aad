"""Writing files: all or nothing, on the disk before they get their name, with readable errors."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from ..errors import (
    FileFormatError,
    MissingFileError,
    OptionError,
    OutputError,
    PdexGpuError,
    UnreadableFileError,
    shown,
)
from .checks import check_path
from .leftovers import temporary_file

_FULL = (errno.ENOSPC, errno.EDQUOT)
_DENIED = (errno.EACCES, errno.EPERM)
_NO_FILES = {  # opening one may wait for a writer, or read something that is not a file
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}
_LONGEST = 255  # bytes in a name, if the file system does not say

#: The checkpoint of NAME is the folder .NAME.checkpoint next to it.
CHECKPOINT = ".checkpoint"

#: Environment variable: the umask, in octal digits, of the folders for a run's own files. By
#: default only their owner has access; ``007`` lets the group in.
UMASK = "PDEX_GPU_UMASK"
_OWNER_ONLY = 0o077
_OWNER = 0o700

# Where these flags exist, no link is followed and nothing waits for the other end of a pipe.
_AS_IT_IS = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)


def mode_of(path: Path) -> int | None:
    """Return a path's mode, for :mod:`stat`; None if nothing is there, or nothing can be."""
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # also for a path below a file, or with too long a name
        return None


def is_folder(path: Path) -> bool:
    """Return whether a folder is at a path; False also if the path is not a valid one."""
    mode = mode_of(path)
    return mode is not None and stat.S_ISDIR(mode)


def is_there(path: Path, what: str, advice: str = "Check the path.") -> Path:
    """Check that a path is a file or folder that can be read, and return it.

    Raises
    ------
    MissingFileError
        Nothing is there.
    FileFormatError
        It is a pipe, a socket or a device.
    UnreadableFileError
        Permission to read it is missing.
    """
    mode = mode_of(path)
    if mode is None:
        raise MissingFileError(f"{what} {shown(str(path))} does not exist. {advice}")
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise FileFormatError(
            f"{what} {shown(str(path))} is {_NO_FILES.get(stat.S_IFMT(mode), 'not a file')}, but a "
            "file or folder is needed. Write its contents to a file first."
        )
    if not os.access(path, os.R_OK):
        raise UnreadableFileError(
            f"{what} {shown(str(path))} cannot be read: permission denied. Grant read permission, "
            "or use a copy."
        )
    return path


def why_not_writable(folder: Path) -> str | None:
    """Return why no file can be made in a folder, by trying a nameless one; None if one can."""
    if not os.access(folder, os.W_OK | os.X_OK):
        return os.strerror(errno.EACCES)
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:  # permissions that `access` does not see, /proc, a full disk
        return error.strerror or str(error)


def check_place(path: Path, *, room: str = "") -> None:
    """Refuse, before any work starts, a path that could not be written at the end.

    Parameters
    ----------
    path : pathlib.Path
        The file to write.
    room : str
        Extra characters in the name of something written next to it.

    Raises
    ------
    OptionError
        Its folder is missing, a file or not writable; or the path itself is a folder, pipe, socket
        or device, or has too long a name.
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
    mode = mode_of(path)
    if mode is not None and not stat.S_ISREG(mode):  # renaming the output would destroy it
        found = "a folder" if stat.S_ISDIR(mode) else _NO_FILES.get(stat.S_IFMT(mode), "not a file")
        raise OptionError(f"The output {shown(str(path))} is {found}. Choose a file name.")
    most = _longest_name(folder) - len(room)
    size = len(os.fsencode(path.name))
    if size > most:
        raise OptionError(
            f"The output {shown(str(path))} has a name of {size} bytes, but at most {most} are "
            "possible. Choose a shorter one."
        )


def check_replaceable(path: Path, *, force: bool) -> None:
    """Raise OptionError if something is at the path of an output and `force` is false."""
    if mode_of(path) is not None and not force:
        raise OptionError(
            f"The output {str(path)!r} already exists. Add --force (in Python: force=True) to "
            "replace it, or choose another file."
        )


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (AttributeError, OSError, ValueError):  # Windows, some network file systems
        return _LONGEST


def private_umask() -> int:
    """Return the umask for the files that a run keeps next to its output.

    Raises
    ------
    OptionError
        The environment variable does not hold a umask.
    """
    text = os.environ.get(UMASK)
    if not text:
        return _OWNER_ONLY
    try:
        mask = int(text, 8)
    except ValueError:
        mask = -1
    if not 0 <= mask <= 0o777:
        raise OptionError(
            f"The environment variable {UMASK} is {shown(text)}, which is not a umask. Set it to "
            "octal digits, such as 007 to give the group access, or unset it."
        )
    return mask


def make_private(folder: Path) -> None:
    """Make a folder for a run's own files, open only to its owner, whatever the umask is.

    :data:`UMASK` overrides this.

    Raises
    ------
    FileExistsError
        Something is already there.
    """
    mode = 0o777 & ~private_umask() | _OWNER
    folder.mkdir(_OWNER)
    folder.chmod(mode)


def create(path: Path) -> BinaryIO:
    """Create a file and open it for writing, with its folder's read and write permissions.

    Raises
    ------
    FileExistsError
        Something is already there, even if only a dangling link.
    """
    mode = path.parent.stat().st_mode & 0o666
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _AS_IT_IS, 0o600)
    file = open(fd, "wb")  # noqa: SIM115
    if hasattr(os, "fchmod"):
        os.fchmod(fd, mode)
    return file


def open_plain(path: Path) -> int:
    """Open a regular file for reading and return its descriptor.

    Raises
    ------
    OSError
        It cannot be opened, or is a link, a pipe or anything else but a regular file.
    """
    fd = os.open(path, os.O_RDONLY | _AS_IT_IS)
    if stat.S_ISREG(os.fstat(fd).st_mode):
        return fd
    os.close(fd)
    raise OSError(errno.EINVAL, "it is not a file")


def open_or_create(path: Path) -> int:
    """Open a file to read and write, made by :func:`create` if missing; return its descriptor.

    Raises
    ------
    OSError
        As for :func:`create`, or it is a link.
    """
    with suppress(FileExistsError):
        create(path).close()
    return os.open(path, os.O_RDWR | _AS_IT_IS)


def kind_of(path: Path) -> str | None:
    """Return what a path itself is: "a file", "a folder", "a link", ...; None if nothing."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return None
    kinds = {
        stat.S_IFREG: "a file",
        stat.S_IFDIR: "a folder",
        stat.S_IFLNK: "a link",
        stat.S_IFIFO: "a pipe",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


def is_strangers(folder: Path) -> bool:
    """Return whether a folder is another user's, in a place open to all such as /tmp."""
    if not hasattr(os, "geteuid"):
        return False
    anybodys = folder.parent.stat().st_mode & stat.S_ISVTX
    return bool(anybodys) and folder.lstat().st_uid != os.geteuid()


def remove(path: Path) -> None:
    """Remove anything at a path, folders with all their contents; links are not followed."""
    if kind_of(path) == "a folder":
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def usual_mode(path: Path) -> int:
    """Return the permissions for a new file: those of the one it replaces, or the umask's."""
    mode = mode_of(path)
    if mode is not None and stat.S_ISREG(mode):
        return mode & 0o777
    mask = os.umask(_OWNER_ONLY)  # there is no other way to read it
    os.umask(mask)
    return 0o666 & ~mask


@contextmanager
def writing(what: str, path: Path) -> Iterator[None]:
    """Turn a disk error inside the block into an OutputError.

    Parameters
    ----------
    what : str
        What is written, for the message: ``"The output"``.
    path : pathlib.Path
        The file as the caller named it, even if other files are written on the way.
    """
    try:
        yield
    except PdexGpuError:
        raise
    except OSError as error:
        if error.errno is None:  # not a disk error
            raise
        folder = str(path.absolute().parent)
        if error.errno in _FULL:
            why = f"the disk of the folder {folder!r} is full. Free up space there, or use another"
        elif error.errno in _DENIED:
            why = f"permission denied in the folder {folder!r}. Make it writable, or use another"
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

    The contents are on the disk before the file gets its name, even if the power fails. Errors
    name `named`, by default `path`.
    """
    try:
        with writing(what, path if named is None else named):
            write(through)
            sync(through)
            through.replace(path)
            sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):  # its folder may be the cause
            through.unlink(missing_ok=True)
        raise


def write_atomically(path: str | os.PathLike[str], write: Callable[[Path], None]) -> None:
    """Let `write` fill a temporary file next to `path`, then rename it: all or nothing.

    Raises
    ------
    MissingFileError
        The folder does not exist.
    OptionError
        `path` is not a path.
    OutputError
        The file cannot be written, or not at that place.
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

    def write_usual(temporary: Path) -> None:
        write(temporary)
        temporary.chmod(usual_mode(path))  # mkstemp makes the file private

    with writing("The output", path), temporary_file(path.parent) as temporary:
        write_whole(path, write_usual, through=temporary)


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
        if error.errno != errno.EINVAL:  # a file system that does not support it
            raise
    finally:
        os.close(handle)
