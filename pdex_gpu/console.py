"""What the command line shows: tables, durations, log lines and warnings."""

from __future__ import annotations

import logging
import math
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TextIO

PROGRAM = "pdex-gpu"


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, right: str = "") -> str:
    """Rows of text as aligned columns.

    Parameters
    ----------
    header : sequence of str
        Column titles.
    rows : sequence of sequences of str
        The cells.
    right : str
        One letter a column: ``"r"`` aligns it to the right, anything else to the left.
    """
    from rich.cells import cell_len  # signs of Chinese and emoji are two columns wide

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


def number_text(value: float, form: str) -> str:
    """A number for a table, in a format as ``".3f"``; a dash where there is none."""
    return "-" if math.isnan(value) else format(value, form)


def describe_backend(provenance: Mapping[str, object]) -> str:
    """Two lines: which backend and engine ran, on what; and why that backend."""
    backend, engine = (provenance.get(name) or "unknown" for name in ("backend", "engine"))
    text = f"{backend} backend, {engine} engine"
    if provenance.get("device"):
        text += f", on {provenance['device']}"
    if provenance.get("backend_reason"):
        text += f"\n  why: {provenance['backend_reason']}"
    return text


def describe_values(provenance: Mapping[str, object]) -> str:
    """A line on raw counts, whose library sizes are not removed; nothing of other values."""
    if not provenance.get("raw_counts"):
        return ""
    return "values: raw counts (library size not removed)\n"


def on_terminal(stream: TextIO | None) -> bool:
    """Whether someone is looking at `stream`."""
    return stream is not None and stream.isatty()


class _StderrHandler(logging.Handler):
    """Log records as lines on whatever ``sys.stderr`` is at the time."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{PROGRAM}: {self.format(record)}\n")


def _is_notice(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING or getattr(record, "notice", False)


@contextmanager
def messages(*, verbose: bool, notices: bool = False, quiet: bool = False) -> Iterator[None]:
    """Within the block, log records and warnings are single lines on stderr.

    Parameters
    ----------
    verbose : bool
        Show each step.
    notices : bool
        Show the steps that are marked as such: what a person should know.
    quiet : bool
        Show none of these, nor warnings.
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
