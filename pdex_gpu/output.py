"""Results to a file: the format from its suffix, and every obstacle found before work starts."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import OptionError

if TYPE_CHECKING:
    from .result import DEResult

WRITERS: dict[str, Callable[[DEResult, Path], object]] = {
    ".parquet": lambda result, path: result.to_parquet(path),
    ".csv": lambda result, path: result.to_csv(path),
    ".tsv": lambda result, path: result.to_csv(path, sep="\t"),
}


def check_output(path: Path, *, source: Path | None = None, overwrite: bool = False) -> None:
    """Refuse, before any work, an output that could not be written at the end.

    Parameters
    ----------
    path : Path
        The file to write.
    source : Path, optional
        The file that is read; the output may not replace it.
    overwrite : bool
        Whether an existing file may be replaced.

    Raises
    ------
    OptionError
        If the suffix is unknown, the folder is missing or not writable, or `path` exists.
    """
    if path.suffix.lower() not in WRITERS:
        raise OptionError(
            f"Unknown output format {path.suffix!r} in {str(path)!r}. "
            f"The suffix chooses the format: use one of {', '.join(WRITERS)}."
        )
    folder = path.parent
    if not folder.is_dir():
        raise OptionError(f"The output folder {str(folder)!r} does not exist. Create it first.")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(f"The output folder {str(folder)!r} is not writable. Choose another.")
    if path.is_dir():
        raise OptionError(f"The output {str(path)!r} is a folder. Name a file.")
    if not path.exists():
        return
    if source is not None and source.exists() and path.samefile(source):
        raise OptionError(f"The output {str(path)!r} is the input file. Name another file.")
    if not overwrite:
        raise OptionError(
            f"The output {str(path)!r} exists already. "
            "Add --force to replace it, or name another file."
        )


def write_result(result: DEResult, path: Path) -> None:
    """Write `result` to `path` in the format of its suffix, whole or not at all."""
    WRITERS[path.suffix.lower()](result, path)
