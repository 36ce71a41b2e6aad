"""Files that commands write: what stands in the way is said before any work."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import OptionError


def check_new_file(path: Path, suffixes: tuple[str, ...], *, force: bool) -> None:
    """Refuse an output that could not be written at the end.

    Parameters
    ----------
    path : pathlib.Path
    suffixes : tuple of str
        Those that `path` may have.
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OptionError
        If the suffix is another, the folder is missing or not writable, or `path` exists.
    """
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            f"Unknown output format {path.suffix!r} in {str(path)!r}. Use {' or '.join(suffixes)}."
        )
    folder = path.parent
    if not folder.is_dir():
        raise OptionError(f"The output folder {str(folder)!r} does not exist. Create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"The output folder {str(folder)!r} is not writable. Choose another.")
    if path.is_dir():
        raise OptionError(f"The output {str(path)!r} is a folder. Name a file.")
    if path.exists() and not force:
        raise OptionError(
            f"The output {str(path)!r} exists already. Add --force to replace it, or name another "
            "file."
        )
