"""Lists of names in text files."""

from __future__ import annotations

import os

from ..errors import FileFormatError, UnreadableFileError, shown

_MOST_BYTES = 1 << 26  # far more than all names of any matrix


def names_in_file(path: str) -> list[str]:
    """Read the names in a text file, one a line; blank lines and spaces around names are ignored.

    Raises
    ------
    FileFormatError
        It is not a regular file, not UTF-8 text, too large for a list of names, or holds none.
    UnreadableFileError
        It cannot be read.
    """
    if not os.path.isfile(path):  # a pipe would block
        raise _no_names(path, "is a folder" if os.path.isdir(path) else "is not a regular file")
    try:
        with open(path, "rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(f"The file {shown(path)} cannot be read: {error}.") from error
    if len(content) > _MOST_BYTES:
        raise _no_names(path, f"is too large for a list of names (over {_MOST_BYTES:,} bytes)")
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _no_names(
            path, f"is not UTF-8 text ({error.reason} at byte {error.start})"
        ) from error
    found = [line.strip() for line in text.splitlines()]
    names = [name for name in found if name]
    if not names:
        raise _no_names(path, "holds no names")
    return names


def _no_names(path: str, why: str) -> FileFormatError:
    return FileFormatError(f"{shown(path)} {why}. Pass a text file with one name per line.")
