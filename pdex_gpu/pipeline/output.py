"""Writing a result file: the suffix sets its format; obstacles are found before work starts."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import OptionError, OutputError, shown
from ..results.table import Table, write_parquet, write_text
from ..sinks.checkpoint import Checkpoint, is_own_output
from ..sources.formats import files_of
from ..utils.atomic_files import (
    CHECKPOINT,
    check_place,
    check_replaceable,
    create,
    mode_of,
    usual_mode,
    write_whole,
)
from ..utils.checks import check_path

if TYPE_CHECKING:
    import pyarrow

WRITERS: dict[str, Callable[[Path, Table, Iterable[pyarrow.Table]], None]] = {
    ".parquet": write_parquet,
    ".csv": lambda path, table, parts: write_text(path, table, parts, ","),
    ".tsv": lambda path, table, parts: write_text(path, table, parts, "\t"),
}

# Fewest bytes per row: its FDR while the file is written, and its part of the file.
_BYTES_PER_ROW = 8 + 8


def check_output(
    path: Path,
    *,
    sources: Sequence[Path] = (),
    overwrite: bool = False,
    spreadsheet_safe: bool = False,
) -> None:
    """Refuse, before any work is done, an output that could not be written at the end.

    Parameters
    ----------
    path : Path
        The file to write.
    sources : sequence of Path
        The input file; the output may not replace it.
    overwrite : bool
        Whether an existing file may be replaced.
    spreadsheet_safe : bool
        Whether names must not be read as formulas; for text files only.

    Raises
    ------
    OptionError
        If the suffix is unknown or does not go with `spreadsheet_safe`, the folder is missing or
        not writable, or `path` exists. A file left by a run that was stopped during its cleanup
        does not count as existing.
    """
    if path.suffix.lower() not in WRITERS:
        raise OptionError(
            f"Unknown output format {shown(path.suffix)} in {shown(str(path))}. "
            f"The suffix chooses the format: use one of {', '.join(WRITERS)}."
        )
    if spreadsheet_safe and path.suffix.lower() == ".parquet":
        raise OptionError(
            "spreadsheet_safe=True (--spreadsheet-safe) is only valid with .csv and .tsv files, "
            f"but the output {path.name!r} is neither. Leave it out, or choose such a file."
        )
    check_place(path, room=f".{CHECKPOINT}")
    if mode_of(path) is None:
        return
    if any(mode_of(source) is not None and path.samefile(source) for source in sources):
        raise OptionError(f"The output {str(path)!r} is the input file. Choose another file.")
    if not overwrite and not is_own_output(path):
        check_replaceable(path, force=False)


def input_files(data: Any) -> list[Path]:
    """Return the files that `data` is or is backed by; none if it is only in memory."""
    if isinstance(data, str | os.PathLike):
        check_path("data", data)
    return files_of(data)


def check_space(path: Path, checkpoint: Checkpoint) -> None:
    """Raise OutputError if the output `path` and its checkpoint cannot fit on its disk."""
    rows = checkpoint.fields["p_value"] * checkpoint.n_genes
    done = sum(found.genes.stop - found.genes.start for found in checkpoint.ranges)
    missing = (checkpoint.n_genes - done) * checkpoint.n_values
    needed = 8 * missing + _BYTES_PER_ROW * rows
    free = shutil.disk_usage(path.parent).free
    if free < needed:
        raise OutputError(
            f"The folder {str(path.parent)!r} has {free:,} bytes free, but the output "
            f"{path.name!r} of {rows:,} rows and its checkpoint need at least {needed:,} while it "
            "is written. Free up space there, or use another folder."
        )


def write_output(
    path: Path,
    checkpoint: Checkpoint,
    table: Table,
    parts: Iterable[pyarrow.Table],
    *,
    facts: Callable[[], Mapping[str, Any]],
) -> None:
    """Write the parts to `path` in the format of its suffix, completely or not at all.

    `facts` is called once all parts are written; :meth:`.Checkpoint.finished` later returns what
    it gave.
    """

    def write(through: Path) -> None:
        create(through).close()  # while it is written, as private as the checkpoint
        WRITERS[path.suffix.lower()](through, table, parts)
        through.chmod(usual_mode(path))
        checkpoint.mark_finished(through, facts())

    write_whole(path, write, through=checkpoint.output_file(path.suffix))
