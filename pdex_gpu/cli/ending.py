"""The messages at the end of a run: what was found, what ran, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..design.naming import level_text
from ..errors import LabelError
from ..utils.formats import PROGRAM
from .console import command_line, describe_backend, describe_hits, describe_values
from .tables import printable

if TYPE_CHECKING:
    import numpy as np

    from ..results.base import Result
    from ..results.file import ResultFile


def end_of_run(result: ResultFile, seconds: float, backend: str = "auto") -> Iterator[str]:
    """Yield lines about a run that has written its file; `backend` was asked for."""
    n = len(result.targets)
    yield (
        f"{n:,} group{'' if n == 1 else 's'} x {len(result.features):,} genes in {seconds:.2f} s: "
        f"{printable(result.path)}"
    )
    if result.n_hits is not None:
        yield describe_hits(result.n_hits)
    yield from describe_values(result.provenance)
    yield from describe_backend(result.provenance, backend)
    if result.path.suffix.lower() != ".parquet":
        yield f"To use {PROGRAM} top, plot or report, write the results as .parquet."
        return
    top = top_command(result, result.path, result.n_hits)
    yield from next_steps(top, report_command(result.path))


def next_steps(*commands: str | None) -> Iterator[str]:
    """Yield lines with the commands to type next; None is left out."""
    yield "\nNext:"
    yield from (f"  {command}" for command in commands if command is not None)


def top_command(result: Result, path: Path, n_hits: np.ndarray | None) -> str | None:
    """Return the command that shows the comparison with the most hits, or None if there is none.

    Parameters
    ----------
    result : Result
        The result in the Parquet file `path`.
    path : pathlib.Path
    n_hits : numpy.ndarray, shape (n_comparisons,), optional
        Number of hits of each comparison.
    """
    if n_hits is None or not n_hits.any():
        return None
    named = _named(result, int(n_hits.argmax()))
    return None if named is None else command_line("top", _as_argument(path), *named)


def report_command(path: Path) -> str:
    """Return the command that writes a report of the results in `path` to a new file."""
    return command_line("report", _as_argument(path), "-o", _free(path.with_suffix(".html")))


def run_command(screen: Path, *options: str) -> str:
    """Return the command that tests a screen and writes the results to a new file."""
    return command_line("run", _as_argument(screen), *options, "-o", _free(Path("de.parquet")))


def _named(result: Result, t: int) -> list[str] | None:
    """Return the arguments of ``top`` that identify a comparison, or None if none do."""
    target, reference = str(result.targets[t]), str(result.references[t])
    level = None if result.within is None else level_text(result.within[1][t])
    further = {"reference": reference} | ({} if level is None else {"within": level})
    for names in ((), ("within",), ("reference",), ("reference", "within")):
        options = {name: further[name] for name in names if name in further}
        try:
            if result.find(target, **options) != t:
                return None
        except LabelError:  # another comparison has this name too
            continue
        words = [word for name, value in options.items() for word in _option(name, value)]
        words += ["--", target] if target.startswith("-") else [target]
        return words if all(printable(word) == word for word in words) else None
    return None


def _option(name: str, value: str) -> list[str]:
    return [f"--{name}={value}"] if value.startswith("-") else [f"--{name}", value]


def _as_argument(path: Path) -> str:
    """Return a path as text that no command mistakes for an option."""
    return f"./{path}" if str(path).startswith("-") else str(path)


def _free(path: Path) -> str:
    """Return the path, or a numbered variant, at which there is no file yet."""
    number, free = 2, path
    while free.exists():
        free = path.with_stem(f"{path.stem}-{number}")
        number += 1
    return _as_argument(free)
