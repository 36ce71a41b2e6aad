"""``pdex-gpu demo``: a simulated screen, analysed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from ... import errors
from ...backends.registry import AUTO, names
from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..console import on_terminal
from ..files import check_folder
from ..json_output import write_json
from ..progress_bar import progress_bar
from ..tables import show_line, show_table

EXAMPLES = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --cells 50000 --genes 5000 --perturbations 200 -o big-demo
"""

_SCREEN = "Screen"

Folder = Annotated[
    Path, o.option("--output -o", "DIR", "folder for the screen and the results", o.OUTPUT)
]
Cells = Annotated[
    int, o.option("--cells", "N", "number of cells", _SCREEN, parser=parsers.at_least_one)
]
Genes = Annotated[
    int, o.option("--genes", "N", "number of genes", _SCREEN, parser=parsers.at_least_one)
]
Perturbations = Annotated[
    int,
    o.option(
        "--perturbations", "N", "number of perturbations", _SCREEN, parser=parsers.at_least_one
    ),
]
Seed = Annotated[
    int, o.option("--seed", "N", "seed of the simulation", _SCREEN, parser=parsers.at_least_zero)
]

Backend = Annotated[
    str,
    o.choice("--backend", lambda: (AUTO, *names()), f'see "{PROGRAM} backends"', _SCREEN),
]


def command(
    cells: Cells = 10_000,
    genes: Genes = 2_000,
    perturbations: Perturbations = 50,
    seed: Seed = 0,
    backend: Backend = "auto",
    output: Folder = Path("pdex-gpu-demo"),
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Simulate, analyse, show."""
    if perturbations > genes:
        raise errors.OptionError(
            f"--perturbations {perturbations} needs at least as many genes, but --genes is "
            f"{genes}. Pass more genes or fewer perturbations."
        )
    if cells < 2 * (perturbations + 1):
        raise errors.OptionError(
            f"--cells {cells} is too few for {perturbations} perturbations and a "
            f"reference. Pass at least {2 * (perturbations + 1)}."
        )
    check_folder(output)
    from ..demo import (
        FDR,
        REPORT,
        RESULTS,
        SCREEN,
        TARGET_SUM,
        count_hits,
        on_target,
        run_demo,
        strongest_rows,
    )

    started = time.perf_counter()
    silent = quiet or json

    with progress_bar("wilcoxon", shown=on_terminal(sys.stderr) and not quiet) as progress:
        result = run_demo(
            output,
            n_cells=cells,
            n_genes=genes,
            n_perturbations=perturbations,
            seed=seed,
            backend=backend,
            progress=progress,
            say=(lambda text: None) if silent else show_line,
            show=(lambda *table, **how: None) if silent else show_table,
        )
    if json:
        found, possible = on_target(result)
        write_json(
            {
                "screen": output / SCREEN,
                "results": output / RESULTS,
                "report": output / REPORT,
                "n_rows": result.n_rows,
                "on_target": {"fdr": FDR, "found": found, "possible": possible},
                "top": strongest_rows(result),
                "seconds": time.perf_counter() - started,
                "provenance": result.provenance,
            }
        )
    elif not quiet:
        from ...simulate import GROUPBY
        from ..ending import next_steps, run_command, top_command

        options = ("--groupby", GROUPBY, "--normalize", str(TARGET_SUM))
        run = run_command(output / SCREEN, *options)
        top = top_command(result, output / RESULTS, count_hits(result))
        for line in next_steps(top, run):
            show_line(line)
