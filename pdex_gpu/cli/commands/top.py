"""``pdex-gpu top``: the strongest genes of a perturbation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ...utils.formats import PROGRAM, number_text
from .. import options as o
from .. import parsers
from ..json_output import write_json
from ..tables import Cell, printable, show_line, show_table

if TYPE_CHECKING:
    from ...results.effect import Effect

EXAMPLES = f"""\
examples:
  {PROGRAM} top results.parquet STAT1
  {PROGRAM} top results.parquet STAT1 -n 25 --within "T cell"
  {PROGRAM} top results.parquet STAT1 --json | jq ".rows[].feature"
"""

_WHICH = "Which"
_SIZES = ("target_n_cells", "reference_n_cells")

Target = Annotated[str, typer.Argument(metavar="TARGET", help="perturbation to show")]
Number = Annotated[int, o.option("-n", "N", "number of rows", _WHICH, parser=parsers.at_least_one)]
Reference = Annotated[
    str | None, o.option("--reference", "NAME", "reference, if there are several", _WHICH)
]
Within = Annotated[
    str | None,
    o.option("--within", "LEVEL", "level of the comparison, if there are several", _WHICH),
]
Fdr = Annotated[
    float,
    o.option("--fdr", "X", "colour rows with an FDR up to this", _WHICH, parser=parsers.fraction),
]


def command(
    results: o.Results,
    target: Target,
    n: Number = 10,
    reference: Reference = None,
    within: Within = None,
    fdr: Fdr = 0.05,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Show the smallest p-values of a comparison."""
    from ... import open_result
    from ...design.naming import level_text
    from ...results.effect import effect_of
    from ...results.strongest import strongest

    result = open_result(results)
    effect = effect_of(result)
    t = result.find(target, reference=reference, within=within)
    columns = {name: column.tolist() for name, column in strongest(result, t, n).items()}
    rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    level = None if result.within is None else level_text(result.within[1][t])
    if json:
        write_json(
            {
                "target": str(result.targets[t]),
                "reference": str(result.references[t]),
                "within": level,
                "metric": result.provenance.get("metric"),
                "effect": effect.scaled_column,
                "rows": rows,
            }
        )
        return
    if quiet:
        return
    where = "" if level is None else f" in {printable(level)}"
    cells = [f" ({columns[name][0]:,} cells)" if columns.get(name) else "" for name in _SIZES]
    metric = result.provenance.get("metric")  # results from text have none
    show_line(
        Cell(printable(result.targets[t]), "bold"),
        f"{cells[0]} against {printable(result.references[t])}{cells[1]}{where}"
        f"{f', {metric}' if metric else ''}",
    )
    if not rows:
        show_line("No genes are left: the filters removed all of them.")
        return
    header = [
        "symbol" if "symbol" in columns else "feature",
        effect.text,
        "p",
        "FDR",
        "target mean",
        "reference mean",
    ]
    names = dict(zip(result.features.tolist(), result.gene_names.tolist(), strict=True))
    cells_of = [_cells(names[row["feature"]], row, effect, fdr) for row in rows]
    show_table(header, cells_of, right="lrrrrr")


def _cells(name: object, row: Mapping[str, Any], effect: Effect, fdr: float) -> list[str | Cell]:
    from ...results.effect import direction

    hit = row["fdr"] <= fdr
    colour = {1: "red", -1: "blue"}.get(int(direction(row)), "") if hit else ""
    return [
        Cell(printable(name), "bold" if hit else ""),
        Cell(number_text(row[effect.scaled_column], ".2f"), colour),
        p_value_text(row["p_value"], row.get("log10_p")),
        number_text(row["fdr"], ".2e"),
        number_text(row["target_mean"], ".3f"),
        number_text(row["reference_mean"], ".3f"),
    ]


def p_value_text(p_value: float, log10_p: float | None = None) -> str:
    """Format a p-value with three digits; one that underflows to 0 comes from its logarithm."""
    if p_value > 0.0 or log10_p is None or not math.isfinite(log10_p):
        return number_text(p_value, ".2e")
    exponent = math.floor(log10_p)
    return f"{10 ** (log10_p - exponent):.2f}e{exponent}"
