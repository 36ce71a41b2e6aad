"""A heat map of perturbations and genes, with similar ones next to each other."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..results.effect import effect_of
from ..results.plot_values import axis_text
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import axes_or_new, explain_empty, extent_in_points, lay_out, name_both, title
from .cells import (
    EFFECTS,
    FOLD_CHANGE,
    SIGNED,
    color_bar,
    colours_around_zero,
    columns_of,
    limits_of,
    middle_of,
    read_cells,
)
from .choice import by_similarity, comparisons_of, genes_of

_LABELS = {
    **{name: axis_text(effect) for name, effect in EFFECTS.items()},
    SIGNED: "signed $-\\log_{10}(p)$",
}

# Genes that are shown if none are chosen.
_USUAL_GENES = 50

_INCHES_PER_CELL = 0.135

# Up to this many rows, each is sure to get a line of pixels.
_MOST_PIXELS = 200
_NO_VALUE = "0.75"


@known_keywords
def heatmap(
    result: Any,
    *,
    value: str | None = None,
    targets: Iterable[object] | None = None,
    features: Iterable[object] | None = None,
    n_features: int | None = None,
    best_per: int | None = None,
    fdr: float = 0.05,
    ax: Any = None,
) -> Any:
    """Draw values of many comparisons and genes as colours, in the order of a clustering.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks.
    value : str, optional
        A column of the result, ``"log2_fold_change"`` (of `fold_change`), ``"mean_difference"``
        (``target_mean - reference_mean`` if the result has no such column), or
        ``"signed_log10_p"`` (-log10 of the p-value with the sign of the change of the mean). By
        default log2 fold changes, or mean differences if there are negative values, which have no
        ratios.
    targets : iterable of object, or str, optional
        Targets to show, with all their comparisons; all by default.
    features : iterable of object, or str, optional
        Genes to show, each once, as in :meth:`.results.base.Result.find_feature`; by default the
        `n_features` genes that are hits most often in the comparisons shown. Smaller p-values break
        ties, and decide if there is no hit at all.
    n_features : int, optional
        The most genes to show without `features` and `best_per`: 50 by default.
    best_per : int, optional
        Show the hits with the smallest p-values of each comparison shown, up to this number of
        each, instead of those that are hits most often.
    fdr : float
        Hits are the pairs with at most this adjusted p-value. If cells are large enough, hits are
        marked by triangles: up where the value is no less than that of no change (0, or 0.5 for
        `auroc`), else down. If no value means no change, as for means, they are marked by circles.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure, as large as its names need.

    Returns
    -------
    matplotlib.axes.Axes
        Rows and columns are in the order of average-linkage clustering of Euclidean distances. If
        there are at most 500 leaves, they are in optimal order (Bar-Joseph 2001). Pairs without a
        value are grey; they are clustered as if unchanged, or as the smallest value if none means
        no change. For fold changes, pairs with a mean of 0 that are not hits are grey too: their
        ratio only shows how it was clipped. Colours run to the 99th percentile of the sizes of
        changes, the same for up and down, or from the 1st to the 99th percentile of the values if
        none means no change. Names too small to read are left out; the axis then says so. If
        nothing can be drawn, the axes are empty but for the reason.

    Raises
    ------
    LabelError
        If a target or gene is not in the result.
    OptionError
        If `result` is not a result, there is no such column, or an option is invalid.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_axes(ax)
    value = effect_of(found).scaled_column if value is None else value
    columns = columns_of(found, value)
    rows = comparisons_of(found, targets)
    genes, text = genes_of(found, rows, features, n_features, best_per, fdr, _USUAL_GENES)
    if not len(rows) or not len(genes):
        ax = axes_or_new(ax)
        title(ax, "perturbations and genes")
        lacking = "comparisons" if not len(rows) else "genes with a p-value"
        explain_empty(ax, f"The result has no {lacking} to draw.")
        return ax
    cells, hit = read_cells(found, rows, genes, value, columns, fdr)
    if np.isnan(cells).all():
        ax = axes_or_new(ax)
        title(ax, "perturbations and genes")
        explain_empty(ax, f"None of these pairs has a value of {value}.")
        return ax
    low, high = limits_of(cells, value)
    # Cluster what the eye sees: differences beyond the colour range do not count.
    middle = middle_of(value)
    unchanged = low if middle is None else middle
    known = np.nan_to_num(np.clip(cells, low, high), nan=unchanged)
    by_row, by_gene = by_similarity(known), by_similarity(known.T)
    cells, hit = cells[np.ix_(by_row, by_gene)], hit[np.ix_(by_row, by_gene)]
    rows, genes = rows[by_row], genes[by_gene]
    if ax is None:
        ax = axes_or_new(None, _size(len(rows), len(genes)))
    _paint(ax, cells, value, (low, high))
    lay_out(ax)
    if _marks(ax, hit, cells, value):
        text += " (marked)" if "FDR" in text else f"; marked: FDR ≤ {fdr:g}"
    title(ax, text)
    name_both(ax, [found.name(t) for t in rows], [found.gene_names[g] for g in genes])
    return ax


def _size(n_rows: int, n_genes: int) -> tuple[float, float]:
    """Return the size of a new figure in inches: room for names, up to a page."""
    return (
        float(np.clip(2.4 + _INCHES_PER_CELL * n_genes, 6.4, 14.0)),
        float(np.clip(1.6 + _INCHES_PER_CELL * n_rows, 4.8, 10.0)),
    )


def _paint(ax: Any, cells: np.ndarray, value: str, limits: tuple[float, float]) -> None:
    from matplotlib import colormaps
    from matplotlib.colors import Normalize

    # Both are distinguishable with any kind of colour vision.
    signed = middle_of(value) is not None
    colours = colours_around_zero(ax) if signed else colormaps["cividis"]
    colours = colours.with_extremes(bad=_NO_VALUE)
    wide = cells
    if cells.shape[0] > _MOST_PIXELS:  # thinning out rows must not blur columns
        wide = np.repeat(cells, max(1, round(cells.shape[0] / cells.shape[1])), axis=1)
    edges = (-0.5, cells.shape[1] - 0.5, cells.shape[0] - 0.5, -0.5)
    image = ax.imshow(wide, colours, Normalize(*limits), aspect="auto", extent=edges)
    label = _LABELS.get(value, value)
    why = "a mean is 0" if value == FOLD_CHANGE else "no value"
    label = f"{label} (grey: {why})" if np.isnan(cells).any() else label
    color_bar(image, cells, limits, label)


def _marks(ax: Any, hit: np.ndarray, cells: np.ndarray, value: str) -> bool:
    """Mark every hit, by direction, if cells are large enough; return whether marks were drawn."""
    width, height = extent_in_points(ax)
    side = min(width / hit.shape[1], height / hit.shape[0])
    if side < 5.0 or not hit.any():
        return False
    size = min(0.4 * side, 5.0) ** 2
    middle = middle_of(value)
    kinds = [(np.full(cells.shape, True), "o")]
    if middle is not None:
        kinds = [(cells >= middle, "^"), (cells < middle, "v")]
    for which, marker in kinds:
        row, column = np.nonzero(hit & which)
        ax.scatter(column, row, size, "black", marker=marker, edgecolors="white", linewidths=0.4)
    return True
