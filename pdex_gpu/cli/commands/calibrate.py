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
from ..tables import Cell, printable, show_line, show_table

if TYPE_CHECKING:
    from ...calibration.parts import Part
    from ...calibration.result import Calibration

EXAMPLES = f"""\
examples:
  {PROGRAM} calibrate screen.h5ad --groupby gene --reference NT \\
      -o calibration.json
  {PROGRAM} calibrate screen.h5ad --groupby gene --reference NT --units guide \\
      --repeats 5 --plot calibration.png -o calibration.json
  {PROGRAM} calibrate screen.h5ad --groupby gene --reference NT \\
      --p-values conditional,asymptotic
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
PValues = Annotated[
    list[str] | None,
    o.option("--p-values", "KINDS", "kind of p-values, or several to compare", o.TEST),
]
Output = Annotated[
    Path | None,
    o.option("--output -o", "FILE", ".json, for `report` and Calibration.from_json", o.OUTPUT),
]
Plot = Annotated[
    Path | None, o.option("--plot", "FILE", "ratios and QQ plot: .png, .svg or .pdf", o.OUTPUT)
]

# Entries of the summary, and their names on the command line.
_SHOWN = {
    "metric": "test",
    "reference": "control group",
    "n_control_cells": "control cells",
    "n_groups": "mock perturbations",
    "n_repeats": "random splits",
    "units": "units",
    "n_uninformative": "uninformative tests, left out",
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
    p_values: PValues = None,
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
    kinds_of_p = parsers.names(p_values)
    if kinds_of_p:
        options["p_values"] = kinds_of_p[0] if len(kinds_of_p) == 1 else kinds_of_p
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
    if json:
        seconds = time.perf_counter() - started
        kinds = [found.summary(judged.kind) for judged in found.kinds]
        excess = found.excess_table().to_dict("records")
        write_json(
            {
                "output": output,
                "plot": plot,
                "seconds": seconds,
                "summary": kinds[0],
                "kinds": kinds,
                "excess": excess,
            }
        )
    elif not quiet:
        _show(found)


def _show(found: Calibration) -> None:
    """Print observed over expected p-values, then what was done, and what was not checked."""
    from ...calibration.distributions import LEVELS

    several = len(found.kinds) > 1
    header = [
        "observed / expected p-values",
        *(["p-values"] if several else []),
        "tests",
        *(f"p <= {level:g}" for level in LEVELS),
        "false positives per group",
    ]
    rows = [_row(part, several) for part in found.parts()]
    show_table(header, rows, right="ll" + "r" * 6 if several else "l" + "r" * 6)
    show_line("1: as it should be. (In parentheses: fewer than 10 expected, uncertain.)")
    summary = found.summary()
    shown = {name: title for name, title in _SHOWN.items() if summary[name] != ""}
    facts = [[title, _value(summary[name])] for name, title in shown.items()]
    for judged in found.kinds:
        title = f"lambda of {judged.kind} p-values (ideal: 1)"
        facts.append([title, number_text(judged.total.inflation, ".3f")])
    show_table(["calibration", ""], facts, right="lr")
    show_line(printable(found.checked.replace("units=", "--units")))


def _row(part: Part, several: bool) -> list[str | Cell]:
    ratios = [
        Cell(f"({text})" if few and part.n_tests else text, "yellow" if off else "")
        for text, few, off in zip(
            (number_text(ratio, ".2f") for ratio in part.excess),
            part.few,
            part.too_many,
            strict=True,
        )
    ]
    kinds = [part.kind] if several else []
    false_positives = number_text(part.false_positives_per_group, ".3g")
    return [part.title, *kinds, f"{part.n_tests:,}", *ratios, false_positives]


def _plots(found: Calibration) -> Any:
    """Draw ratios and the QQ plot next to each other; return the axes of one."""
    import matplotlib.pyplot as plt

    from ... import pl

    height = 2.2 + 0.3 * len(found.parts())
    _, (left, right) = plt.subplots(
        1, 2, figsize=(13.0, height), layout="constrained", width_ratios=(3, 2)
    )
    pl.calibration_qq(found, right)
    return pl.calibration(found, left)


def _value(value: int | str) -> str:
    """Format an entry of the summary."""
    if isinstance(value, str):
        return printable(value)
    return f"{value:,}"
