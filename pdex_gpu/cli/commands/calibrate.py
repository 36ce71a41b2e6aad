"""``pdex-gpu calibrate``: how far the p-values of a screen can be trusted."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from ...utils.formats import PROGRAM, number_text
from .. import options as o
from .. import parsers
from ..arguments import need_groups, takes_options
from ..console import on_terminal
from ..figures import SUFFIXES, draw_on_files, save_figure
from ..files import check_new_file
from ..json_output import write_json
from ..progress_bar import progress_bar
from ..tables import Cell, printable, show_table

if TYPE_CHECKING:
    from ...calibration.result import Calibration

EXAMPLES = f"""\
examples:
  {PROGRAM} calibrate screen.h5ad --groupby gene --reference NT \\
      -o calibration.json
  {PROGRAM} calibrate screen.h5ad --groupby gene --reference NT --units guide \\
      --repeats 5 --plot calibration.png -o calibration.json
  {PROGRAM} report results.parquet --calibration calibration.json -o report.html

Control cells are split into mock perturbations, so every hit is false.
"""

_MOCK = "Mock perturbations"

Units = Annotated[
    str | None,
    o.option("--units", "COL", "obs column of cells kept together, such as guide", _MOCK),
]
Repeats = Annotated[
    int, o.option("--repeats", "N", "number of random splits", _MOCK, parser=parsers.at_least_one)
]
Seed = Annotated[
    int, o.option("--seed", "N", "seed of the random splits", _MOCK, parser=parsers.at_least_zero)
]
Alpha = Annotated[
    float,
    o.option("--alpha", "X", "FDR threshold for false positives", _MOCK, parser=parsers.fraction),
]
Output = Annotated[
    Path | None,
    o.option("--output -o", "FILE", ".json, for `report` and Calibration.from_json", o.OUTPUT),
]
Plot = Annotated[Path | None, o.option("--plot", "FILE", "QQ plot: .png, .svg or .pdf", o.OUTPUT)]

# Entries of the summary, and their names on the command line.
_SHOWN = {
    "metric": "test",
    "reference": "control group",
    "n_control_cells": "control cells",
    "n_groups": "mock perturbations",
    "n_repeats": "random splits",
    "n_tests": "tests",
    "lambda": "lambda (ideal: 1)",
    "lambda_low_expression": "  genes of low expression",
    "lambda_middle_expression": "  genes of middle expression",
    "lambda_high_expression": "  genes of high expression",
    "rate_0.05": "p <= 0.05",
    "rate_0.01": "p <= 0.01",
    "rate_0.001": "p <= 0.001",
    "n_false_positives": "false positives",
    "share_of_groups_with_false_positives": "mock perturbations with false positives",
}


@takes_options(
    but=(
        "comparison", "pairs", "guides", "multiplicity", "on_target", "columns", "confidence",
        "pseudocount",
        "clip_value", "p_values", "out", "restart", "spreadsheet_safe", "progress",
    ),
)  # fmt: skip
def command(
    files: o.Screen,
    options: dict[str, Any],
    units: Units = None,
    repeats: Repeats = 1,
    seed: Seed = 0,
    alpha: Alpha = 0.05,
    output: Output = None,
    plot: Plot = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Calibrate the p-values of a screen on its control cells."""
    started = time.perf_counter()
    need_groups(options, guides=False)
    force = options.pop("force", False)
    if output is not None:
        check_new_file(output, (".json",), force=force)
    if plot is not None:
        check_new_file(plot, SUFFIXES, force=force)
        draw_on_files()

    from ... import calibrate

    with progress_bar("calibrating", shown=on_terminal(sys.stderr) and not quiet) as progress:
        found = calibrate(
            o.of_files(files),
            units=units,
            n_repeats=repeats,
            seed=seed,
            alpha=alpha,
            progress=progress,
            **options,
        )
    if output is not None:
        found.to_json(output)
    if plot is not None:
        save_figure(_plots(found), plot)
    summary = found.summary()
    if json:
        seconds = time.perf_counter() - started
        write_json({"output": output, "plot": plot, "seconds": seconds, "summary": summary})
    elif not quiet:
        rows = [[title, _value(name, summary[name])] for name, title in _SHOWN.items()]
        show_table(["calibration", ""], rows, right="lr")


def _plots(found: Calibration) -> Any:
    """Draw the QQ plot and the histogram next to each other; return the axes of one."""
    import matplotlib.pyplot as plt

    from ... import pl

    _, (left, right) = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
    pl.calibration_histogram(found, right)
    return pl.calibration(found, left)


def _value(name: str, value: Any) -> str | Cell:
    """Format a number of the summary, coloured if it shows that p-values are off."""
    if isinstance(value, str):
        return printable(value)
    if isinstance(value, int):
        return f"{value:,}"
    if name.startswith("lambda"):
        return Cell(number_text(value, ".3f"), "yellow" if not 0.9 <= value <= 1.1 else "green")
    return number_text(value, ".4%" if name.startswith("rate") else ".1%")
