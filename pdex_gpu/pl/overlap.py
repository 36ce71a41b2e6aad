"""How many hits perturbations share: bars above a table of their combinations (UpSet plot)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results.base import Result
from ..results.effect import direction
from ..results.plot_values import count
from ..utils.checks import check_count
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import (
    LITERAL,
    axes_or_new,
    explain_empty,
    extent_in_points,
    fitting_size,
    lay_out,
    legend_above,
    palette,
    shown,
    title,
)
from .choice import comparisons_of
from .no_hits import why_no_hits

# Comparisons that are shown if none are chosen, and combinations.
_USUAL_TARGETS = 10
_USUAL_COMBINATIONS = 25

_GAP = 0.9  # between bars and table, in rows


@known_keywords
def overlap(
    result: Any,
    *,
    targets: Iterable[object] | None = None,
    n_targets: int | None = None,
    n_combinations: int | None = None,
    fdr: float = 0.05,
    ax: Any = None,
) -> Any:
    """Draw how many hits perturbations share, for each combination of them (UpSet plot).

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks.
    targets : iterable of object, or str, optional
        Targets to show, with all their comparisons; by default the `n_targets` comparisons with the
        most hits.
    n_targets : int, optional
        The most comparisons to show without `targets`: 10 by default. Those without hits are left
        out.
    n_combinations : int, optional
        The most combinations to show, those with the most genes: 25 by default. The axis gives the
        number of others.
    fdr : float
        Hits are the genes with at most this adjusted p-value.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Each column is a combination, marked by dots in the rows of its perturbations, and each gene
        counts in one column: that of exactly the perturbations shown in which it is a hit. Bars
        tell genes that are up in all of them, down in all, and mixed ones, by the means. Numbers
        next to names count all hits of a perturbation. If there are no hits, the axes say why. See
        Lex et al. 2014, "UpSet: visualization of intersecting sets", IEEE TVCG 20, 1983-1992.

    Raises
    ------
    LabelError
        If a target was not compared.
    OptionError
        If `result` is not a result, an option is invalid, or two choose the same thing.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_count("n_targets", n_targets)
    check_count("n_combinations", n_combinations)
    check_axes(ax)
    rows = comparisons_of(found, targets, n_targets, fdr, _USUAL_TARGETS)
    combined = _combinations(found, rows, fdr)
    most = _USUAL_COMBINATIONS if n_combinations is None else n_combinations
    shown_ones = combined.first(most)
    n_rows, n_columns = shown_ones.members.shape
    if not n_columns:
        ax = axes_or_new(ax)
        title(ax, "hits that perturbations share")
        why = "The result has no comparisons."
        if len(rows):
            chosen = np.isin(np.arange(len(found.targets)), rows)
            adjusted = (values["fdr"][chosen[part]] for part, values in found.blocks(["fdr"]))
            why = why_no_hits(adjusted, fdr)
        explain_empty(ax, why)
        return ax
    width = float(np.clip(2.6 + 0.3 * n_columns, 6.4, 14.0))
    ax = axes_or_new(ax, (width, float(np.clip(2.9 + 0.22 * n_rows, 3.6, 14.0))))
    _draw(ax, shown_ones, [found.name(t) for t in shown_ones.rows])
    hidden = combined.members.shape[1] - n_columns
    if hidden:
        n = int(combined.genes.sum() - shown_ones.genes.sum())
        ax.set_xlabel(f"({count(hidden, 'further combination')} of {count(n, 'gene')} not drawn)")
    legend_above(ax, f"genes with FDR ≤ {fdr:g}, by the perturbations that share them")
    return ax


@dataclass(frozen=True)
class _Combinations:
    """Combinations of comparisons, those with the most genes first.

    Attributes
    ----------
    rows : numpy.ndarray, shape (n_rows,), int64
        Positions of the comparisons that have hits, those with the most hits first.
    sizes : numpy.ndarray, shape (n_rows,), int64
        Hits of each.
    members : numpy.ndarray, shape (n_rows, n_combinations), bool
    by_sign : numpy.ndarray, shape (3, n_combinations), int64
        Genes that are up in all members, mixed, and down in all.
    """

    rows: np.ndarray
    sizes: np.ndarray
    members: np.ndarray
    by_sign: np.ndarray

    @property
    def genes(self) -> np.ndarray:
        """Return the number of genes of each combination."""
        total: np.ndarray = self.by_sign.sum(axis=0)
        return total

    def first(self, n: int) -> _Combinations:
        """Return the first `n` of them."""
        return _Combinations(self.rows, self.sizes, self.members[:, :n], self.by_sign[:, :n])


def _combinations(result: Result, rows: np.ndarray, fdr: float) -> _Combinations:
    hit = np.full((len(rows), len(result.features)), False)
    sign = np.zeros(hit.shape, np.int8)
    place = np.full(len(result.targets), -1)
    place[rows] = np.arange(len(rows))
    for part, values in result.blocks(["fdr", "target_mean", "reference_mean"]):
        which = place[part] >= 0
        hit[place[part][which]] = values["fdr"][which] <= fdr
        few = {name: found[which] for name, found in values.items()}
        sign[place[part][which]] = direction(few)
    sizes = np.count_nonzero(hit, axis=1)
    order = np.argsort(-sizes, kind="stable")
    order = order[sizes[order] > 0]
    rows, sizes, hit, sign = rows[order], sizes[order], hit[order], sign[order]
    genes = np.flatnonzero(hit.any(axis=0))
    if not len(genes):
        return _Combinations(rows, sizes, np.full((0, 0), False), np.zeros((3, 0), np.int64))
    members, of_gene = np.unique(hit[:, genes], axis=1, return_inverse=True)
    sign = sign[:, genes]
    up = np.all((sign > 0) | ~hit[:, genes], axis=0)
    down = np.all((sign < 0) | ~hit[:, genes], axis=0)
    n = members.shape[1]
    by_sign = np.array([np.bincount(of_gene.ravel()[which], minlength=n)
                        for which in (up, ~up & ~down, down)])  # fmt: skip
    # Of equal size, those of few perturbations first, then those of the first rows.
    first = [-members[k].astype(np.int8) for k in range(len(rows) - 1, -1, -1)]
    order = np.lexsort((*first, members.sum(axis=0), -by_sign.sum(axis=0)))
    return _Combinations(rows, sizes, members[:, order], by_sign[:, order])


def _draw(ax: Any, found: _Combinations, names: list[str]) -> None:
    from matplotlib import rcParams

    n_rows, n = found.members.shape
    colours, ink = palette(ax), rcParams["text.color"]
    # Rows are at 0, 1, ... downwards; bars stand above them, in units of rows.
    room = max(8.0, 1.1 * n_rows)
    scale = room / found.genes.max()
    ax.spines[:].set_visible(False)
    bottom = np.full(n, -_GAP)
    for genes, colour, label in zip(
        found.by_sign,
        (colours.up, colours.neutral, colours.down),
        ("up in all", "mixed", "down in all"),
        strict=True,
    ):
        ax.bar(range(n), -scale * genes, 0.7, bottom, color=colour, label=label)
        bottom = bottom - scale * genes
    for stripe in range(0, n_rows, 2):
        ax.axhspan(stripe - 0.5, stripe + 0.5, color=colours.neutral, alpha=0.15, linewidth=0.0)
    ax.set_xlim(-0.6, n - 0.4)
    ax.set_ylim(n_rows - 0.5, -_GAP - 1.12 * room)
    ax.set_xticks([])
    ax.tick_params(axis="y", length=0)
    labels = [f"{shown(name)}  {size:,}" for name, size in zip(names, found.sizes, strict=True)]
    size = fitting_size(extent_in_points(ax)[1] * n_rows / (n_rows + 1.12 * room), n_rows)
    if size is None:
        ax.set_yticks([])
        ax.set_ylabel(f"{count(n_rows, 'perturbation')} (too many to label)")
    else:
        ax.set_yticks(range(n_rows), labels=labels, fontsize=size, **LITERAL)
    lay_out(ax)
    width, height = extent_in_points(ax)
    side = min(width / (n + 0.2), height / (n_rows + 1.12 * room))
    row, column = np.nonzero(~found.members)
    dot = (0.55 * min(side, 18.0)) ** 2
    ax.scatter(column, row, dot, colours.neutral, alpha=0.35, linewidths=0.0)
    row, column = np.nonzero(found.members)
    ax.scatter(column, row, dot, ink, linewidths=0.0, zorder=3)
    first, last = found.members.argmax(axis=0), n_rows - 1 - found.members[::-1].argmax(axis=0)
    ax.vlines(range(n), first, last, color=ink, linewidth=0.12 * min(side, 18.0), zorder=2)
    wide = width / (n + 0.2) > 7.0 * len(f"{found.genes.max():,}")
    for k, (genes, top) in enumerate(zip(found.genes, bottom, strict=True)):
        ax.annotate(
            f"{genes:,}", (k, top), (0, 2), textcoords="offset points", ha="center", va="bottom",
            fontsize="small", rotation=0 if wide else 90,
        )  # fmt: skip
