"""Short definitions of the numbers in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..results.effect import Effect
from ..stats.options import EMPIRICAL
from ..stats.registry import METRICS
from .nouns import noun_of
from .payload import FEWEST_ROWS, MOST_ROWS
from .provenance_table import worded


def test_name(provenance: Mapping[str, Any]) -> str | None:
    """Return the name of the test in words, or None if it is not recorded."""
    if provenance.get("metric") is None:
        return None
    metric = str(provenance["metric"])
    name = METRICS[metric].title if metric in METRICS else metric
    return f"{name}, stratified" if provenance.get("strata") is not None else name


def definitions(provenance: Mapping[str, Any], fdr: float, effect: Effect) -> list[tuple[str, str]]:
    """Return terms and their definitions, in the order of the page.

    They do not assume the default of a setting that is not recorded, as in results from text.
    """
    scopes = {
        "all": "all rows",
        "target": "each comparison separately",
        "gene": "each gene separately",
    }
    scope = scopes.get(str(provenance.get("fdr_scope")), "all rows")
    method = str(provenance.get("fdr_method") or "benjamini-hochberg")
    adjusted = f"p-value adjusted by {method}"
    if method == EMPIRICAL:
        adjusted = (
            "share of p-values of mock groups of controls that are at most as large as the "
            "p-value, adjusted by benjamini-hochberg"
        )
    corrected = f"{adjusted} over {scope} (threshold here: {worded(fdr)})."
    if "fdr_method" not in provenance:
        corrected = f"adjusted p-value (threshold here: {worded(fdr)})."
    metric = str(provenance.get("metric"))
    statistic = "the statistic of the test"
    if metric in METRICS:
        statistic = METRICS[metric].statistic_meaning
    if provenance.get("strata") is not None:
        statistic = "combined over strata"
    noun = noun_of(provenance)
    own = f"the gene that a {noun.one} is named after, if the matrix has it."
    if provenance.get("on_target") is not None:
        own = f"the gene that column {provenance.get('on_target')!r} gives for a {noun.one}."
    clipped = ""
    if "clip_value" in provenance:
        clip = provenance["clip_value"]
        clipped = "; where a mean is 0, " + (
            "there is no value"
            if clip is None
            else f"the ratio is clipped to 1/{clip:g} or {clip:g}"
        )
    scale = ""
    if provenance.get("is_log1p"):
        after = provenance.get("exp_post_agg", True)
        scale = f" (log1p data: {'expm1 of the mean' if after else 'the mean of expm1'})"
    elif "is_log1p" in provenance:
        scale = " (values as stored)"
    if effect.is_ratio:
        change = (
            "log2 fold change",
            f"log2 of the mean of the {noun.one} over that of the reference{clipped}.",
        )
        mean = f"the mean of the cells' values, on the count scale{scale}."
    else:
        change = (
            "Mean difference",
            f"the mean of the {noun.one} minus that of the reference. Some values are negative "
            "here, so ratios of means are meaningless.",
        )
        mean = "the mean of the cells' values, as stored."
    return [
        (
            "Hit",
            f"a pair of {noun.one} and gene with an FDR of {fdr:g} or less, unless the cut-offs on "
            "the page say otherwise.",
        ),
        ("FDR", corrected),
        ("Mean", mean),
        change,
        (
            "Up, down",
            f"the mean of the {noun.one} is larger or smaller than that of the reference.",
        ),
        (
            "p-value",
            f"of the {test_name(provenance) or 'test'}. It is 1 where the test is undefined.",
        ),
        ("Statistic", f"{statistic}."),
        (
            "Own gene",
            f"{own} It shows whether a knockdown worked.",
        ),
        (
            "Contents of this page",
            f"every row with an FDR of {fdr:g} or less (at most {MOST_ROWS:,}, the strongest of "
            f"each {noun.one}), at least the {FEWEST_ROWS} strongest rows of each {noun.one}, and "
            "all other rows as counts in bins, drawn in grey in volcano plots. The results file "
            "has every row.",
        ),
        (
            "Precision",
            "numbers are stored in single precision (24 bits, about 7 digits), and p-values and "
            "FDR as their log10, so they can be smaller than 1e-308.",
        ),
        (
            "CSV files",
            "only the rows on this page, with all stored digits. Other rows, their p-values and "
            "FDR are in the results file. p_value and fdr have the digits "
            "that their logarithms give, down to far below 1e-308. A cell without a number is "
            "empty. A label that a spreadsheet would read as a formula starts with an apostrophe.",
        ),
    ]
