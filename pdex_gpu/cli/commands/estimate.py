"""``pdex-gpu estimate``: what a run would need, and what would run out, before it starts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...utils.exit_codes import Exit
from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..arguments import need_groups, takes_options
from ..json_output import write_json
from ..tables import Cell, printable, show_line, show_table

if TYPE_CHECKING:
    from ...estimation.estimate import Estimate

EXAMPLES = f"""\
examples:
  {PROGRAM} estimate screen.h5ad --groupby gene --reference NT -o results.parquet
  {PROGRAM} estimate screen.h5ad --groupby gene --memory 8GB --scratch /local
  {PROGRAM} estimate screen.h5ad --groupby gene --dask-workers 16 --json

The exit code is 5 if memory would run out, 6 if a disk would, and 0 otherwise.
"""

Output = Annotated[
    Path | None,
    o.option("--output -o", "FILE", "planned results file: .parquet, .csv or .tsv", o.OUTPUT),
]
DaskWorkers = Annotated[
    int | None,
    o.option("--dask-workers", "N", "number of workers in the Dask cluster", o.RUN,
             parser=parsers.at_least_one),
]  # fmt: skip
Density = Annotated[
    float | None,
    o.option("--density", "X", "fraction of nonzeros in a dense matrix [0.2]", o.RUN,
             parser=parsers.number),
]  # fmt: skip
NoTiming = Annotated[bool, o.flag("--no-timing", "skip the speed test; no time estimate", o.RUN)]

Verbose = Annotated[bool, o.flag("--verbose -v", "show the model; log each step to stderr", o.SHOW)]

# What may run out, in words.
_ROOM = {"memory": "memory", "scratch": "room for scratch files", "output": "room for the output"}

_PHASES = {
    "start": "opening",
    "reading": "reading, decoding",
    "splitting": "splitting by genes",
    "testing": "sorting, ranking, p-values",
    "finishing": "false discovery rates",
    "writing": "writing",
}


@takes_options(but=("out", "force", "restart", "progress", "client"))
def command(
    files: o.Screen,
    options: dict[str, Any],
    dask_workers: DaskWorkers = None,
    density: Density = None,
    no_timing: NoTiming = False,
    output: Output = None,
    quiet: o.Quiet = False,
    verbose: Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Estimate what a run would take."""
    need_groups(options)

    from ... import estimate

    found = estimate(
        o.of_files(files),
        out=output,
        workers=dask_workers,
        density=density,
        timing=not no_timing,
        **options,
    )
    if json:
        write_json(_document(found))
    elif not quiet:
        _show(found, verbose=verbose)
    if found.problems:
        raise typer.Exit(Exit.MEMORY if "memory" in found.lacks else Exit.DISK)


def _document(found: Estimate) -> dict[str, Any]:
    """Return all fields of an estimate, with the seconds in total and by phase."""
    document = asdict(found)
    phases = document.pop("phases")
    document["seconds"] = None if found.seconds is None else {"total": found.seconds, **phases}
    return document


def _show(found: Estimate, *, verbose: bool) -> None:
    show_table(["estimate", ""], list(_rows(found)), right="lr")
    if verbose:
        show_table(["of the model", ""], list(_model_rows(found)), right="lr")
        for text in found.assumptions:
            show_line(Cell("assumed  ", "yellow"), printable(text))
    for text in found.problems:
        show_line(Cell("problem  ", "bold red"), printable(text))


def _rows(found: Estimate) -> Iterator[list[str | Cell]]:
    """Yield what a biologist asks: how large, how long, how much memory, and whether it fits."""
    from ...estimation.estimate import size_text as size

    yield ["cells", f"{found.n_cells:,}"]
    yield ["genes", f"{found.n_genes:,}"]
    yield ["perturbations", f"{found.n_targets:,}"]
    if found.n_comparisons != found.n_targets:
        yield ["comparisons", f"{found.n_comparisons:,}"]
    yield ["p-values", f"{found.n_rows:,}"]
    time = "not estimated" if found.seconds is None else f"about {_duration(found.seconds)}"
    yield ["time", Cell(time, "bold")]
    each = "" if found.workers is None else " per worker"
    needed = found.memory_used or found.memory_needed
    yield [f"memory{each}", f"about {size(needed)} of {size(found.memory_allowed)} allowed"]
    disk = found.scratch_bytes[1] + found.output_bytes + found.checkpoint_bytes
    yield ["disk", f"up to {size(disk)}" if disk else "none"]
    if found.lacks:
        yield ["fits", Cell(f"no: too little {' and '.join(map(_ROOM.__getitem__, found.lacks))}",
                            "bold red")]  # fmt: skip
    else:
        yield ["fits", Cell("yes", "green")]


def _model_rows(found: Estimate) -> Iterator[list[str | Cell]]:
    """Yield the terms of the model that the estimate is made of."""
    from ...estimation.estimate import size_text as size

    n_nonzero = found.density * found.n_cells * found.n_genes
    yield ["matrix", printable(found.matrix)]
    yield ["nonzeros", f"{n_nonzero:,.0f} ({found.density:.1%})"]
    yield ["groups", f"{found.n_groups:,}"]
    yield ["read", found.way]
    yield ["ranges of genes", f"{found.n_ranges:,}"]
    if found.file_bytes:
        yield ["to read", f"{size(found.file_bytes)}, decoded {size(found.decoded_bytes)}"]
    least, most = found.scratch_bytes
    yield ["scratch", f"{size(least)} to {size(most)}" if most else "none"]
    yield ["result in memory", size(found.result_bytes)]
    if found.output_bytes:
        file = f"{size(found.output_bytes)}, plus {size(found.checkpoint_bytes)} during the run"
        yield ["result file", file]
    yield ["least memory", size(found.memory_needed)]
    who = f"{found.n_threads} threads" if found.n_threads > 1 else "1 thread"
    if found.workers is not None:
        who = f"{found.workers:,} workers with {who}"
    yield ["run by", f"{found.backend}, {found.engine}, {who}"]
    for phase, seconds in found.phases.items():
        if seconds:
            yield [_PHASES[phase], _duration(seconds)]


def _duration(seconds: float) -> str:
    """Format a duration as ``0.35 s``, ``12 s``, ``3 min 5 s`` or ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.2g} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    if whole < 7200:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60} min"
