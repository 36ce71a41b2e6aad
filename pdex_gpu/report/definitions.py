"""Short definitions of the numbers in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..results.effect import Effect
from .payload import FEWEST_ROWS, MOST_ROWS
from .provenance_table import worded

TESTS = {
    "wilcoxon": "Wilcoxon rank-sum test",
    "anderson": "Anderson-Darling test",
    "t-test": "t-test",
    "ks": "Kolmogorov-Smirnov test",
}

_STATISTICS = {
    "wilcoxon": "U of the perturbation (Mann-Whitney)",
    "anderson": "the normalised k-sample A² statistic",
    "t-test": "Student's t",
    "ks": "D, the largest distance between the distribution functions",
}


def test_name(provenance: Mapping[str, Any]) -> str:
    """Return the name of the test in words."""
    metric = str(provenance.get("metric", "unknown test"))
    name = TESTS.get(metric, metric)
    return f"{name}, stratified" if provenance.get("strata") is not None else name


def definitions(provenance: Mapping[str, Any], fdr: float, effect: Effect) -> list[tuple[str, str]]:
    """Return terms and their definitions, in the order of the page."""
    scopes = {"all": "all rows", "target": "each comparison on its own", "gene": "each gene"}
    scope = scopes.get(str(provenance.get("fdr_scope")), "all rows")
    method = str(provenance.get("fdr_method") or "benjamini-hochberg")
    metric = str(provenance.get("metric"))
    statistic = _STATISTICS.get(metric, "of the test")
    if provenance.get("strata") is not None:
        statistic = "combined over strata"
    own = "the gene that a perturbation is named after, if the matrix has it."
    if provenance.get("on_target") is not None:
        own = f"the gene that column {provenance.get('on_target')!r} names for a perturbation."
    clip = provenance.get("clip_value")
    clipped = "it has no value" if clip is None else f"it is clipped to 1/{clip:g} or {clip:g}"
    scale = "values as they are"
    if provenance.get("is_log1p"):
        after = provenance.get("exp_post_agg", True)
        scale = "log1p data: " + ("expm1 of the mean" if after else "the mean of expm1")
    if effect.is_ratio:
        change = (
            "log2 fold change",
            "log2 of the mean of the perturbation over that of the reference; where a mean is 0, "
            f"{clipped}.",
        )
        mean = f"of the cells' values, on the scale of counts ({scale})."
    else:
        change = (
            "Mean difference",
            "the mean of the perturbation less that of the reference. Values are negative here, "
            "so that ratios of means say nothing.",
        )
        mean = "of the cells' values, as they are."
    return [
        ("Hit", f"a pair of perturbation and gene with an FDR of {fdr:g} or less."),
        ("FDR", f"p-value adjusted after {method} over {scope} ({worded(fdr)} is the limit here)."),
        ("Mean", mean),
        change,
        ("Up, down", "the mean of the perturbation is the larger, or the smaller."),
        ("p-value", f"of the {test_name(provenance)}. 1 where the test is undefined."),
        ("Statistic", f"{statistic}."),
        (
            "Own gene",
            f"{own} It tells whether a knock-down worked.",
        ),
        (
            "What this page carries",
            f"every hit (at most {MOST_ROWS:,}, the strongest of each perturbation), at least the "
            f"{FEWEST_ROWS} strongest rows of each perturbation, and all others as counts in bins: "
            "the grey of the volcanoes. The results file has every row.",
        ),
        (
            "Precision",
            "numbers are carried in single precision (24 bits, about 7 digits), p-values and FDR "
            "as their log10, so that they may be smaller than 1e-308.",
        ),
        (
            "CSV files",
            "the rows that this page carries, no others, with all digits carried; p_value and fdr "
            "with those that their logarithms give, down to far below 1e-308. A cell is empty "
            "where there is no number. A label that a spreadsheet would take for a formula has an "
            "apostrophe before it.",
        ),
    ]
