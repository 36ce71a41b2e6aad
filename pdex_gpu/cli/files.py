"""Files that commands write: what stands in the way is said before any work."""

from __future__ import annotations

from pathlib import Path

from ..checks import check_path
from ..disk import check_place, mode_of
from ..errors import OptionError, shown


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
    check_path("--output", path)
    if path.suffix.lower() not in suffixes:
        raise OptionError(
            f"Unknown output format {shown(path.suffix)} in {shown(str(path))}. Use "
            f"{' or '.join(suffixes)}."
        )
    check_place(path)
    if mode_of(path) is not None and not force:
        raise OptionError(
            f"The output {str(path)!r} exists already. Add --force to replace it, or name another "
            "file."
        )
