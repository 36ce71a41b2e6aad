"""The border of hits in a volcano plot: the largest p-value of the hits adjusted together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..results.base import Result
from ..results.plot_values import minus_log10_p, p_columns


@dataclass(frozen=True)
class Border:
    """The line between hits and other genes.

    Attributes
    ----------
    height : float
        -log10 of the largest p-value that is a hit.
    text : str
        Description of the line, for the legend.
    """

    height: float
    text: str


def find_border(result: Result, t: int, fdr: float) -> Border | None:
    """Return the border of hits in the volcano plot of one comparison.

    Among p-values that were adjusted together (over all rows, or within each comparison), adjusted
    p-values grow with p-values, so the largest p-value of a hit separates hits from other genes.

    Parameters
    ----------
    result : Result
        Read in blocks if its p-values were adjusted over all rows.
    t : int
        Position of the comparison.
    fdr : float
        Rows with at most this adjusted p-value are hits.

    Returns
    -------
    Border or None
        None if there is no hit, if each gene was adjusted on its own, or if the values of the
        comparison show that its p-values were adjusted in another way, as in tables of other
        tools.
    """
    scope = result.provenance.get("fdr_scope", "all")
    if scope not in ("all", "target"):
        return None
    names = ["fdr", *p_columns(result)]
    here = result.row(t, names)
    if scope == "target":
        blocks: Iterator[dict[str, np.ndarray]] = iter([here])
    else:
        blocks = (values for _, values in result.blocks(names))
    height = np.inf
    for values in blocks:
        hit = values["fdr"] <= fdr
        height = min(height, float(np.min(minus_log10_p(values), where=hit, initial=np.inf)))
    score = minus_log10_p(here)
    above = score[~(here["fdr"] <= fdr)] >= height
    if np.isinf(height) or above.any():
        return None
    text = f"FDR ≤ {fdr:g} up to p = {_p_text(height)}"
    if len(result.targets) > 1:
        text += " (this comparison)" if scope == "target" else " (over all comparisons)"
    return Border(height, text)


def _p_text(score: float) -> str:
    """Format a p-value with two digits, given its -log10."""
    if score <= 4.0:
        return f"{10.0**-score:.2g}"
    exponent = int(np.floor(-score))
    return f"{10.0 ** (-score - exponent):.1f}e{exponent}"
