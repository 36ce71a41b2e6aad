"""Output of the command line: tables, durations, log lines and warnings."""

from __future__ import annotations

import logging
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..results.schema import HIT_FDR
from ..utils.formats import PROGRAM

if TYPE_CHECKING:
    import numpy as np


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Format rows of text as aligned columns.

    Parameters
    ----------
    header : sequence of str
        Column titles.
    rows : sequence of sequences of str
        The cells.
    right : str
        One letter per column: ``"r"`` aligns it to the right, anything else to the left.
    """
    from rich.cells import cell_len  # Chinese characters and emoji are two columns wide

    lines = [list(header), *(list(row) for row in rows)]
    widths = [max(cell_len(line[i]) for line in lines) for i in range(len(header))]
    lines.insert(1, ["-" * width for width in widths])
    ends = [right[i : i + 1] == "r" for i in range(len(header))]
    return "\n".join(
        "  ".join(
            " " * (width - cell_len(cell)) + cell if end else cell + " " * (width - cell_len(cell))
            for cell, width, end in zip(line, widths, ends, strict=True)
        ).rstrip()
        for line in lines
    )


def describe_backend(provenance: Mapping[str, object], asked: str = "auto") -> list[str]:
    """Describe the backend, engine and device used, and where to read why no better one was.

    `asked` is the backend that was asked for.
    """
    from ..backends.registry import passed_over, was_auto

    backend, engine = (provenance.get(name) or "unknown" for name in ("backend", "engine"))
    text = f"{backend} backend, {engine} engine"
    if provenance.get("device"):
        text += f", on {provenance['device']}"
    chosen_here = was_auto(asked) and engine != "dask"
    skipped = " and ".join(map(str.upper, passed_over(str(backend)) if chosen_here else ()))
    why = f"{skipped} cannot be used here. To see why, run: {command_line('doctor')}"
    return [text, why] if skipped else [text]


def describe_hits(n_hits: np.ndarray) -> str:
    """Return one line on the number of hits over all comparisons.

    Parameters
    ----------
    n_hits : numpy.ndarray, shape (n_comparisons,)
    """
    total, found = int(n_hits.sum()), int((n_hits > 0).sum())
    hits = f"{total:,} hit{'' if total == 1 else 's'} at an FDR of {HIT_FDR * 100:g} %"
    return f"{hits}, in {found:,} of {len(n_hits):,} comparisons" if total else f"No {hits[2:]}"


def command_line(*arguments: object) -> str:
    """Return a shell command of this program, invoked in the way this process was."""
    words = [*_called_as(), *map(str, arguments)]
    return subprocess.list2cmdline(words) if os.name == "nt" else shlex.join(words)


def _called_as() -> list[str]:
    """Return the words that start this program in the shell that started this process."""
    started = Path(sys.argv[0] if sys.argv else "")
    if started.name == "__main__.py" and started.parent.name == "pdex_gpu":
        found = shutil.which("python")
        same = found is not None and _same(found, sys.executable)
        return ["python" if same else sys.executable, "-m", "pdex_gpu"]
    if started.stem != PROGRAM:
        return [PROGRAM]  # called from Python
    found = shutil.which(PROGRAM)
    return [PROGRAM if found is not None and _same(found, started) else str(started)]


def _same(one: str | Path, other: str | Path) -> bool:
    """Return whether both paths are equal; links, as in an environment, are not followed."""
    return os.path.abspath(one) == os.path.abspath(other)


def describe_values(provenance: Mapping[str, object]) -> list[str]:
    """Return a line if values are raw counts with library sizes not removed, otherwise none."""
    raw = bool(provenance.get("raw_counts"))
    return ["values: raw counts (library size not removed)"] if raw else []


def on_terminal(stream: TextIO | None) -> bool:
    """Return whether `stream` is a terminal."""
    return stream is not None and stream.isatty()


class _StderrHandler(logging.Handler):
    """A handler that writes log records as lines to the current ``sys.stderr``."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{PROGRAM}: {self.format(record)}\n")


def _is_notice(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or getattr(record, "notice", False)


@contextmanager
def messages(*, verbose: bool, notices: bool = False, quiet: bool = False) -> Iterator[None]:
    """Show log records and warnings as single lines on stderr while the block runs.

    Parameters
    ----------
    verbose : bool
        Show each step.
    notices : bool
        Show the steps that are marked as notices, which a person should know about.
    quiet : bool
        Show none of these, and no warnings.
    """
    logger = logging.getLogger("pdex_gpu")
    handler = _StderrHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    shown = logging.INFO if verbose or notices else logging.WARNING
    logger.setLevel(logging.CRITICAL if quiet else shown)
    if not verbose:
        handler.addFilter(_is_notice)
    logger.propagate = False

    def show(message: Warning | str, *_: object, **__: object) -> None:
        sys.stderr.write(f"{PROGRAM}: warning: {message}\n")

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore" if quiet else "default", UserWarning)
            warnings.showwarning = show
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate
