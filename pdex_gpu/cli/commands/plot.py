"""``pdex-gpu plot``: a figure of results."""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from ...errors import OptionError, unknown
from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..figures import SUFFIXES, draw_on_files, save_figure
from ..files import check_new_file
from ..json_output import write_json


class Targets(Enum):
    """The perturbations that a kind of figure shows."""

    ALL = "all of them"
    ANY = "those asked for"
    AT_MOST_ONE = "one or all"
    ONE = "one"


@dataclass(frozen=True)
class Kind:
    """A kind of figure.

    Attributes
    ----------
    function : str
        Its function in `pdex_gpu.pl`.
    options : tuple of str
        The options of the command that it has.
    target : Targets
    n : str
        The keyword that ``-n`` sets.
    """

    function: str
    options: tuple[str, ...]
    target: Targets = Targets.ALL
    n: str = "n"

    @property
    def needs_target(self) -> bool:
        """Return whether the figure is of a single perturbation."""
        return self.target is Targets.ONE


_COMPARISON = ("reference", "within")
_POINTS = (*_COMPARISON, "fdr", "min_log2_fold_change", "feature", "labels", "color")
_GENES = ("fdr", "feature", "n", "best_per")
KINDS = {
    "volcano": Kind("volcano", _POINTS, target=Targets.ONE),
    "ma": Kind("ma", _POINTS, target=Targets.ONE),
    "p-values": Kind("p_values", _COMPARISON, target=Targets.AT_MOST_ONE),
    "hits": Kind("hits", ("fdr", "n")),
    "heatmap": Kind("heatmap", _GENES, target=Targets.ANY, n="n_features"),
    "dotplot": Kind("dotplot", _GENES, target=Targets.ANY, n="n_features"),
    "overlap": Kind("overlap", ("fdr", "n"), target=Targets.ANY, n="n_targets"),
    "on-target": Kind("on_target", ("fdr",)),
}

# Options that functions name differently.
_KEYWORDS = {"labels": "n_labels", "feature": "features", "color": "colors"}

EXAMPLES = f"""\
examples:
  {PROGRAM} plot volcano results.parquet --target STAT1 -o stat1.png
  {PROGRAM} plot volcano results.parquet --target STAT1 \\
      --min-log2-fold-change 1 --feature IRF1,GBP2 -o stat1.pdf
  {PROGRAM} plot hits results.parquet --fdr 0.01 -o hits.pdf
  {PROGRAM} plot heatmap results.parquet --feature IRF1,GBP2 -o heat.svg
"""

_WHAT = "What to draw"


def _complete_kind(incomplete: str) -> list[str]:
    return [name for name in KINDS if name.startswith(incomplete)]


KindName = Annotated[
    str,
    typer.Argument(metavar="KIND", help=", ".join(KINDS), autocompletion=_complete_kind),
]
Target = Annotated[
    list[str] | None,
    o.option("--target", "NAMES", "perturbation; tables and overlap: one or several", _WHAT),
]
Feature = Annotated[
    list[str] | None,
    o.option("--feature", "NAMES", "genes to show or to label", _WHAT),
]
Reference = Annotated[
    str | None, o.option("--reference", "NAME", "reference, if there are several", _WHAT)
]
Within = Annotated[
    str | None,
    o.option("--within", "LEVEL", "level of the comparison, if there are several", _WHAT),
]
Fdr = Annotated[
    float | None,
    o.option("--fdr", "X", "FDR threshold for hits [0.05]", _WHAT, parser=parsers.fraction),
]
MinLog2FoldChange = Annotated[
    float | None,
    o.option(
        "--min-log2-fold-change",
        "X",
        "volcano, ma: least size of a hit [0]",
        _WHAT,
        parser=parsers.number_at_least_zero,
    ),
]
Labels = Annotated[
    int | None,
    o.option(
        "--labels",
        "N",
        "volcano, ma: hits to label [10; 0 with --feature]",
        _WHAT,
        parser=parsers.at_least_zero,
    ),
]
Color = Annotated[
    list[str] | None,
    o.option("--color", "PART=COLOR", "volcano, ma: color of up, down or other", _WHAT),
]
Number = Annotated[
    int | None,
    o.option(
        "-n",
        "N",
        "perturbations (hits, overlap) or genes to show",
        _WHAT,
        parser=parsers.at_least_one,
    ),
]
BestPer = Annotated[
    int | None,
    o.option(
        "--best-per",
        "N",
        "heatmap, dotplot: best hits of each perturbation",
        _WHAT,
        parser=parsers.at_least_one,
    ),
]
Output = Annotated[
    Path, o.option("--output -o", "FILE", "figure file: .png, .svg or .pdf", o.OUTPUT)
]
Dpi = Annotated[
    int, o.option("--dpi", "N", "dots per inch of a .png", o.OUTPUT, parser=parsers.at_least_one)
]


def command(
    kind: KindName,
    results: o.Results,
    output: Output,
    target: Target = None,
    feature: Feature = None,
    reference: Reference = None,
    within: Within = None,
    fdr: Fdr = None,
    min_log2_fold_change: MinLog2FoldChange = None,
    labels: Labels = None,
    color: Color = None,
    n: Number = None,
    best_per: BestPer = None,
    dpi: Dpi = 200,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Results in, a figure out."""
    started = time.perf_counter()
    if kind not in KINDS:
        raise OptionError(unknown("kind of figure", kind, list(KINDS)))
    given = {
        "feature": parsers.names(feature) or None,
        "reference": reference,
        "within": within,
        "fdr": fdr,
        "min_log2_fold_change": min_log2_fold_change,
        "labels": labels,
        "color": _colors(list(color or [])) or None,
        "n": n,
        "best_per": best_per,
    }
    given = {name: value for name, value in given.items() if value is not None}
    positional, keywords = _arguments(kind, parsers.names(target), given)
    check_new_file(output, SUFFIXES, force=force)
    draw_on_files()

    from ... import open_result, pl

    axes = getattr(pl, KINDS[kind].function)(open_result(results), *positional, **keywords)
    save_figure(axes, output, dpi=dpi)
    if json:
        write_json({"output": output, "kind": kind, "seconds": time.perf_counter() - started})


def _colors(given: list[str]) -> dict[str, str]:
    """Return the colours of parts of a figure."""
    pairs = [text.partition("=") for text in given]
    for (_, equals, _), text in zip(pairs, given, strict=True):
        if not equals:
            raise OptionError(f"--color {text}: pass PART=COLOR, such as up=red.")
    return {part: color for part, _, color in pairs}


def _arguments(
    kind: str, targets: list[str], given: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the positional and keyword arguments of the plot function."""
    what = KINDS[kind]
    for name in given:
        if name not in what.options:
            option = f"-{name}" if len(name) == 1 else f"--{name.replace('_', '-')}"
            has = ", ".join(k for k, v in KINDS.items() if name in v.options)
            raise OptionError(f"{option} is not valid for {kind}. Remove it; it is only for {has}.")
    names = _KEYWORDS | {"n": what.n} | ({"feature": "genes"} if what.needs_target else {})
    keywords = {names.get(name, name): value for name, value in given.items()}
    if what.target is Targets.ANY:
        return [], keywords | ({"targets": targets} if targets else {})
    if what.needs_target and not targets:
        raise OptionError(f"{kind} shows one perturbation. Pass it with --target NAME.")
    if what.target is Targets.ALL and targets:
        raise OptionError(
            f"--target is not valid for {kind}, which shows all perturbations. Remove it."
        )
    if len(targets) > 1:
        raise OptionError(
            f"{kind} shows one perturbation, but --target names several. Pass one. If it is one "
            "name that contains commas, put it in double quotes inside single ones: "
            "--target '\"A,B\"'."
        )
    return targets, keywords
