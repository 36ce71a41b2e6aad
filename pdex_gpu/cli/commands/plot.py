"""``pdex-gpu plot``: a figure of results."""

from __future__ import annotations

import time
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Kind:
    """A kind of figure: its function in `pdex_gpu.pl`, and the options that it has."""

    function: str
    options: tuple[str, ...]
    needs_target: bool = False


_COMPARISON = ("reference", "within")
KINDS = {
    "volcano": Kind("volcano", (*_COMPARISON, "fdr", "labels"), needs_target=True),
    "ma": Kind("ma", (*_COMPARISON, "fdr", "labels"), needs_target=True),
    "p-values": Kind("p_values", _COMPARISON),
    "hits": Kind("hits", ("fdr", "n")),
    "heatmap": Kind("heatmap", ("fdr", "feature", "n")),
    "on-target": Kind("on_target", ("fdr",)),
}

EXAMPLES = f"""\
examples:
  {PROGRAM} plot volcano results.parquet --target STAT1 -o stat1.png
  {PROGRAM} plot hits results.parquet --fdr 0.01 -o hits.pdf
  {PROGRAM} plot heatmap results.parquet --feature IRF1 --feature GBP2 \\
      -o heat.svg
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
    o.option("--target", "NAME", "perturbation; heatmap: repeat for more", _WHAT),
]
Feature = Annotated[
    list[str] | None,
    o.option("--feature", "NAME", "heatmap: gene to show; repeat for more", _WHAT),
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
Labels = Annotated[
    int | None,
    o.option(
        "--labels", "N", "volcano, ma: genes to label [10]", _WHAT, parser=parsers.at_least_zero
    ),
]
Number = Annotated[
    int | None,
    o.option("-n", "N", "hits: perturbations to show; heatmap: genes [50]", _WHAT,
             parser=parsers.at_least_one),
]  # fmt: skip
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
    labels: Labels = None,
    n: Number = None,
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
        "feature": list(feature or []) or None,
        "reference": reference,
        "within": within,
        "fdr": fdr,
        "labels": labels,
        "n": n,
    }
    given = {name: value for name, value in given.items() if value is not None}
    positional, keywords = _arguments(kind, list(target or []), given)
    check_new_file(output, SUFFIXES, force=force)
    draw_on_files()

    from ... import open_result, pl

    axes = getattr(pl, KINDS[kind].function)(open_result(results), *positional, **keywords)
    save_figure(axes, output, dpi=dpi)
    if json:
        write_json({"output": output, "kind": kind, "seconds": time.perf_counter() - started})


def _arguments(
    kind: str, targets: list[str], given: dict[str, Any]
) -> tuple[list[str], dict[str, Any]]:
    """Return the positional and keyword arguments of the plot function."""
    what = KINDS[kind]
    for name in given:
        if name not in what.options:
            option = f"-{name}" if len(name) == 1 else f"--{name}"
            has = ", ".join(k for k, v in KINDS.items() if name in v.options)
            raise OptionError(f"{option} is not valid for {kind}. Remove it; it is only for {has}.")
    keywords = {
        {"labels": "n_labels", "feature": "features"}.get(name, name): value
        for name, value in given.items()
    }
    if kind == "heatmap":
        if "n" in keywords:
            keywords["n_features"] = keywords.pop("n")
        if targets:
            keywords["targets"] = targets
        return [], keywords
    if what.needs_target and not targets:
        raise OptionError(f"{kind} shows one perturbation. Pass it with --target NAME.")
    if kind == "p-values" or what.needs_target:
        if len(targets) > 1:
            raise OptionError(
                f"{kind} shows one perturbation, but --target was passed several times. "
                "Pass it once."
            )
        return targets, keywords
    if targets:
        raise OptionError(
            f"--target is not valid for {kind}, which shows all perturbations. Remove it."
        )
    return [], keywords
