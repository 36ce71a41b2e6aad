"""Perturbations and genes as a table of dots: effects as colours, cells that express as sizes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..results.base import Result
from ..results.effect import effect_of
from ..results.plot_values import axis_text, count
from ..utils.checks import check_count
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import (
    axes_or_new,
    explain_empty,
    extent_in_points,
    lay_out,
    legend_above,
    name_both,
    title,
)
from .cells import color_bar, colours_around_zero, columns_of, limits_of, read_cells
from .choice import by_similarity, comparisons_of, genes_of

_FRACTION = "target_fraction"

# Comparisons and genes that are shown if none are chosen.
_USUAL_TARGETS = 30
_USUAL_GENES = 30

_INCHES_PER_DOT = 0.2
_FILLED = 0.85  # of the side of a cell, by the largest dot

# The largest size that is told apart, where dots show -log10 of the FDR.
_MOST_LOG10 = 10.0


@known_keywords
def dotplot(
    result: Any,
    *,
    targets: Iterable[object] | None = None,
    n_targets: int | None = None,
    features: Iterable[object] | None = None,
    n_features: int | None = None,
    best_per: int | None = None,
    fdr: float = 0.05,
    ax: Any = None,
) -> Any:
    """Draw a dot for each perturbation and gene: its colour is the effect, its size the fraction.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks.
    targets : iterable of object, or str, optional
        Targets to show, with all their comparisons; by default the `n_targets` comparisons with the
        most hits, then the smallest p-value.
    n_targets : int, optional
        The most comparisons to show without `targets`: 30 by default.
    features, n_features, best_per
        The genes, as in :func:`heatmap`; the 30 that are hits most often by default.
    fdr : float
        Dots of pairs with at most this adjusted p-value are ringed.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure, as large as its names need.

    Returns
    -------
    matplotlib.axes.Axes
        The area of a dot is proportional to the fraction of the target's cells that express the
        gene, if the result has the column `target_fraction`
        (``columns=["target_fraction"]``); otherwise to -log10 of the adjusted p-value, up to 10.
        Colours are log2 fold changes, or mean differences if there are negative values; their
        range, pairs without an effect and the order of rows and columns are as in :func:`heatmap`.
        If nothing can be drawn, the axes are empty but for the reason.

    Raises
    ------
    LabelError
        If a target or some of the genes are not in the result.
    OptionError
        If `result` is not a result, an option is invalid, or two choose the same thing.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_count("n_targets", n_targets)
    check_axes(ax)
    rows = comparisons_of(found, targets, n_targets, fdr, _USUAL_TARGETS)
    genes, text = genes_of(found, rows, features, n_features, best_per, fdr, _USUAL_GENES)
    text += f"; {count(len(rows), 'perturbation')}"
    if len(rows) < len(found.targets):
        text += f" of {len(found.targets):,}"
    if not len(rows) or not len(genes):
        ax = axes_or_new(ax)
        title(ax, "perturbations and genes")
        lacking = "comparisons" if not len(rows) else "genes with a p-value"
        explain_empty(ax, f"The result has no {lacking} to draw.")
        return ax
    effect = effect_of(found)
    value = effect.scaled_column
    cells, hit = read_cells(found, rows, genes, value, columns_of(found, value), fdr)
    limits = limits_of(cells, value) if not np.isnan(cells).all() else (-1.0, 1.0)
    known = np.nan_to_num(np.clip(cells, *limits), nan=0.0)
    by_row, by_gene = by_similarity(known), by_similarity(known.T)
    rows, genes = rows[by_row], genes[by_gene]
    cells, hit = cells[np.ix_(by_row, by_gene)], hit[np.ix_(by_row, by_gene)]
    if ax is None:
        ax = axes_or_new(None, _size(len(rows), len(genes)))
    sizes, most = _sizes(found, rows, genes)
    _paint(ax, cells, hit, sizes / most, limits, axis_text(effect))
    name_both(ax, [found.name(t) for t in rows], [found.gene_names[g] for g in genes])
    lay_out(ax)
    _resize(ax, sizes / most, text, _FRACTION in found.columns, most, fdr)
    return ax


def _size(n_rows: int, n_genes: int) -> tuple[float, float]:
    """Return the size of a new figure in inches: room for names, up to a page."""
    return (
        float(np.clip(2.6 + _INCHES_PER_DOT * n_genes, 6.4, 14.0)),
        float(np.clip(2.2 + _INCHES_PER_DOT * n_rows, 3.2, 12.0)),
    )


def _sizes(result: Result, rows: np.ndarray, genes: np.ndarray) -> tuple[np.ndarray, float]:
    """Return what areas show, shape (n_rows, n_genes), and the value of the largest dot."""
    name = _FRACTION if _FRACTION in result.columns else "fdr"
    found = np.full((len(result.targets), len(genes)), np.nan)
    for part, values in result.blocks([name]):
        found[part] = values[name][:, genes]
    found = found[rows]
    if name == "fdr":
        with np.errstate(divide="ignore"):
            found = np.clip(-np.log10(found), 0.0, _MOST_LOG10)
        return np.nan_to_num(found), _MOST_LOG10
    found = np.nan_to_num(found)
    largest = float(found.max())
    return found, next((step for step in (0.05, 0.1, 0.2, 0.5) if largest <= step), 1.0)


def _paint(
    ax: Any,
    cells: np.ndarray,
    hit: np.ndarray,
    areas: np.ndarray,
    limits: tuple[float, float],
    label: str,
) -> None:
    """Draw the dots, in order of rows; their sizes follow in :func:`_resize`."""
    from matplotlib import rcParams
    from matplotlib.colors import Normalize

    n_rows, n_genes = cells.shape
    row, column = (at.ravel() for at in np.indices(cells.shape))
    colours = colours_around_zero(ax).with_extremes(bad="0.75")
    dots = ax.scatter(
        column, row, areas.ravel(), cells.ravel(), cmap=colours,
        norm=Normalize(*limits), plotnonfinite=True, linewidths=np.where(hit.ravel(), 0.9, 0.25),
        edgecolors=np.where(hit.ravel(), rcParams["text.color"], "0.5"), clip_on=False,
    )  # fmt: skip
    ax.set_xlim(-0.6, n_genes - 0.4)
    ax.set_ylim(n_rows - 0.4, -0.6)
    color_bar(dots, cells, limits, label)


def _resize(
    ax: Any, areas: np.ndarray, text: str, is_fraction: bool, most: float, fdr: float
) -> None:
    """Give the dots the size that the cells have room for, and explain it in a legend."""
    from matplotlib.lines import Line2D

    width, height = extent_in_points(ax)
    side = min(width / areas.shape[1], height / areas.shape[0], 18.0) * _FILLED
    ax.collections[0].set_sizes(areas.ravel() * side**2)
    shares = (0.2, 0.6, 1.0)
    if is_fraction:
        what = f"fraction of cells that express the gene; ringed: FDR ≤ {fdr:g}"
        labels = [f"{100.0 * share * most:g} %" for share in shares]
    else:
        what = f"FDR; ringed: FDR ≤ {fdr:g}"
        labels = [f"$10^{{-{share * most:g}}}$" for share in shares]
        labels[-1] += " or less"
    handles = [
        Line2D([], [], linestyle="", marker="o", color="0.6", label=label,
               markersize=side * share**0.5, markeredgewidth=0.0)
        for share, label in zip(shares, labels, strict=True)
    ]  # fmt: skip
    legend_above(ax, text, handles, what)
