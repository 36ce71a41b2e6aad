"""Checks of the files that commands write; obstacles are reported before any work."""

from __future__ import annotations

from pathlib import Path

from ..errors import OptionError, shown
from ..utils.atomic_files import check_place, check_replaceable, is_folder, mode_of
from ..utils.checks import check_path


def check_folder(path: Path) -> None:
    """Refuse an output folder that could not be created or written to.

    Raises
    ------
    OptionError
        If it is a file or below one, is not writable, or has too long a name.
    """
    check_path("--output", path)
    if mode_of(path) is not None and not is_folder(path):
        raise OptionError(f"The output {str(path)!r} is a file. Pass a folder.")
    there = path.absolute()
    while mode_of(there) is None and there != there.parent:
        there = there.parent
    check_place(there / "screen.h5ad")


def check_new_file(path: Path, suffixes: tuple[str, ...], *, force: bool) -> None:
    """Refuse an output that could not be written at the end.

    Parameters
    ----------
    path : pathlib.Path
    suffixes : tuple of str
        The suffixes that `path` may have.
    force : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OptionError
        If the suffix is not allowed, the folder is missing or not writable, or `path` exists and
        `force` is false.
    """
    check_path("--output", path)
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            f"Unknown output format {shown(path.suffix)} in {shown(str(path))}. Use "
            f"{' or '.join(suffixes)}."
        )
    check_place(path)
    check_replaceable(path, force=force)
