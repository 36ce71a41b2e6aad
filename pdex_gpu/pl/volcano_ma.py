"""Plots of all genes of one comparison as points: volcano plot and MA plot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..results.base import Result
from ..results.effect import Effect, direction, effect_of
from ..results.plot_values import LARGEST, axis_text, count, minus_log10_p, p_columns, strongest
from ..utils.checks import check_count
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import (
    DOWN,
    LINE,
    NEUTRAL,
    TITLE_LENGTH,
    UP,
    axes_or_new,
    despine,
    explain_empty,
    extent_in_points,
    legend_above,
    shown,
    title,
)
from .border import Border, find_border
from .labels import label_points

# In axes narrower than this many points, lines of the legend are broken.
_NARROW = 260.0


@known_keywords
def volcano(
    result: Any,
    target: object,
    *,
    reference: object = None,
    within: object = None,
    fdr: float = 0.05,
    n_labels: int = 10,
    ax: Any = None,
) -> Any:
    """Draw the effect and the p-value of every gene of one comparison (volcano plot).

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its Parquet file. If p-values were adjusted over all rows, a file is read in
        blocks, to find the dashed line.
    target, reference, within : object
        The comparison, as in :meth:`.results.base.Result.find`.
    fdr : float
        Genes with at most this adjusted p-value are coloured.
    n_labels : int
        The number of coloured genes to name, those with the smallest p-values; fewer are named
        where there is no room.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        x is the log2 of `fold_change`, or ``target_mean - reference_mean`` if there are negative
        values, which have no ratios. y is -log10 of the p-value, from `log10_p` if the result has
        it; without it, p-values of 0 are triangles at the upper edge. A dashed line marks the
        largest p-value whose adjusted p-value is at most `fdr`, among all rows that were adjusted
        together: hits are on it or above. If each gene was adjusted on its own, no line separates
        the hits of a comparison, and none is drawn. Genes without an effect are left out; the
        label of the x axis gives their number.

    Raises
    ------
    LabelError
        If `target` was not compared, or was compared more than once.
    OptionError
        If `result` is not a result, or an option is invalid.
    MissingDependencyError
        If matplotlib or textalloc (extra ``plot``) is not installed.
    """
    found = as_result(result)
    points = _read(found, target, reference, within, fdr, n_labels, ax)
    border = find_border(found, points.t, points.fdr)
    ax = axes_or_new(ax)
    x, y = points.change, points.score
    drawn = np.isfinite(x) & ~np.isnan(y)
    zero = np.isposinf(y)
    height = float(np.max(y[drawn & ~zero], initial=0.0))
    if (drawn & zero).any():
        height = 1.03 * max(height, LARGEST)
        y = np.where(zero, height, y)
    if border is not None:
        height = max(height, border.height)
    _draw(ax, points, x, y, drawn, beyond=zero, border=border)
    side = 1.08 * float(np.max(np.abs(x[drawn]), initial=0.0)) or 1.0
    ax.set_xlim(-side, side)
    ax.set_ylim(-0.02 * height, 1.06 * height or 1.0)
    ax.axvline(0.0, color=LINE, linewidth=0.8, zorder=0)
    ax.set_xlabel(
        _with_notes(axis_text(points.effect), "without a value, not drawn", points, drawn)
    )
    ax.set_ylabel("$-\\log_{10}(p)$")
    _name(ax, points, x, y, drawn)
    return ax


@known_keywords
def ma(
    result: Any,
    target: object,
    *,
    reference: object = None,
    within: object = None,
    fdr: float = 0.05,
    n_labels: int = 10,
    ax: Any = None,
) -> Any:
    """Draw the effect on every gene of one comparison against its mean expression (MA plot).

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its Parquet file.
    target, reference, within : object
        The comparison, as in :meth:`.results.base.Result.find`.
    fdr : float
        Genes with at most this adjusted p-value are coloured.
    n_labels : int
        The number of coloured genes to name, those with the smallest p-values; fewer are named
        where there is no room.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        x is the mean of `target_mean` and `reference_mean`, on a logarithmic scale; y is the log2
        of `fold_change`. If there are negative values, which have no ratios, y is
        ``target_mean - reference_mean``, and the scale of x is linear. Genes that lack either
        coordinate (not expressed on either side) are left out; the label of the x axis gives their
        number.

    Raises
    ------
    LabelError
        If `target` was not compared, or was compared more than once.
    OptionError
        If `result` is not a result, or an option is invalid.
    MissingDependencyError
        If matplotlib or textalloc (extra ``plot``) is not installed.
    """
    points = _read(result, target, reference, within, fdr, n_labels, ax)
    ax = axes_or_new(ax)
    x, y = points.mean, points.change
    drawn = np.isfinite(y) & np.isfinite(x)
    why = "without a value, not drawn"
    if points.effect.is_ratio:
        drawn &= x > 0.0
        why = "not expressed, not drawn"
        ax.set_xscale("log")
    _draw(ax, points, x, y, drawn)
    if drawn.any() and points.effect.is_ratio:
        low, high = float(x[drawn].min()), float(x[drawn].max())
        margin = max(high / low, 10.0) ** 0.04
        ax.set_xlim(low / margin, high * margin)
    side = 1.08 * float(np.max(np.abs(y[drawn]), initial=0.0)) or 1.0
    ax.set_ylim(-side, side)
    ax.axhline(0.0, color=LINE, linewidth=0.8, zorder=0)
    ax.set_xlabel(_with_notes("mean of both sides", why, points, drawn))
    ax.set_ylabel(axis_text(points.effect))
    _name(ax, points, x, y, drawn)
    return ax


@dataclass(frozen=True)
class _Points:
    """The genes of a comparison.

    Attributes
    ----------
    t : int
        Position of the comparison.
    text : str
        The comparison in words.
    effect : Effect
    names : numpy.ndarray, shape (n_genes,), object
    present : numpy.ndarray, shape (n_genes,), bool
        Whether the result has a row.
    change, score, mean : numpy.ndarray, shape (n_genes,), float64
        Size of the effect; -log10 p (infinite if p is 0 and its logarithm unknown); mean of means.
    direction : numpy.ndarray, shape (n_genes,), int8
        1 is up, -1 down.
    one_sided, significant : numpy.ndarray, shape (n_genes,), bool
        Whether exactly one mean is 0, so that the ratio is the comparison's `clip_value`; whether
        the adjusted p-value is at most `fdr`.
    fdr : float
    n_labels : int
    """

    t: int
    text: str
    effect: Effect
    names: np.ndarray
    present: np.ndarray
    change: np.ndarray
    score: np.ndarray
    mean: np.ndarray
    direction: np.ndarray
    one_sided: np.ndarray
    significant: np.ndarray
    fdr: float
    n_labels: int


def _read(
    result: Any, target: object, reference: object, within: object, fdr: Any, n_labels: Any, ax: Any
) -> _Points:
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_count("n_labels", n_labels, least=0, may_be_none=False)
    check_axes(ax)
    t = found.find(target, reference=reference, within=within)
    effect = effect_of(found)
    names = ["fold_change", "fdr", "target_mean", "reference_mean", *p_columns(found)]
    values = found.row(t, names)
    n = len(found.features)
    present = np.full(n, True) if found.kept is None else found.kept[t]
    with np.errstate(invalid="ignore"):
        significant = present & (values["fdr"] <= fdr)
    one_sided = (values["target_mean"] == 0.0) != (values["reference_mean"] == 0.0)
    return _Points(
        t,
        comparison(found, t),
        effect,
        found.features,
        present,
        effect.sizes(values),
        minus_log10_p(values),
        0.5 * (values["target_mean"] + values["reference_mean"]),
        direction(values),
        one_sided & effect.is_ratio,
        significant,
        fdr,
        n_labels,
    )


def comparison(result: Result, t: int) -> str:
    """Return a title that says what was compared with what."""
    text = shown(result.name(t), TITLE_LENGTH)
    if result.reference is not None:
        text += f" vs {shown(result.reference, TITLE_LENGTH)}"
    return text


def _draw(
    ax: Any,
    points: _Points,
    x: np.ndarray,
    y: np.ndarray,
    drawn: np.ndarray,
    beyond: np.ndarray | None = None,
    border: Border | None = None,
) -> None:
    """Draw points by significance and direction; a legend counts them and names the border."""
    despine(ax)
    if not drawn.any():
        title(ax, points.text)
        explain_empty(ax, _why(points))
        return
    beyond = np.full(len(x), False) if beyond is None else beyond
    size = float(np.clip(16_000.0 / np.count_nonzero(drawn), 6.0, 22.0))
    up = points.significant & (points.direction > 0)
    down = points.significant & (points.direction < 0)
    cut = f"FDR ≤ {points.fdr:g}"
    for which, colour, label, order in (
        (drawn & down, DOWN, f"down, {cut}", 3),
        (drawn & ~up & ~down, NEUTRAL, "other", 2),
        (drawn & up, UP, f"up, {cut}", 3),
    ):
        n = np.count_nonzero(which)
        for places, marker in ((which & ~beyond, "o"), (which & beyond, "^")):
            if marker == "^" and not places.any():
                continue
            ax.scatter(
                x[places],
                y[places],
                s=size if marker == "o" else 3.0 * size,
                marker=marker,
                color=colour,
                alpha=0.8 if order == 3 else 0.55,
                linewidths=0.0,
                label=f"{label}: {n:,}" if marker == "o" else None,
                rasterized=True,
                zorder=order,
            )
    n_zero = np.count_nonzero(drawn & beyond)
    if n_zero:
        ax.plot([], [], "^", color=LINE, markersize=5, label=f"p = 0 (below 1e-323): {n_zero:,}")
    if border is not None:
        text = border.text
        if extent_in_points(ax)[0] < _NARROW:
            text = text.replace(" (", "\n(")
        ax.axhline(border.height, color=LINE, linewidth=0.8, linestyle="--", zorder=0, label=text)
    legend_above(ax, points.text)


def _why(points: _Points) -> str:
    """Return the reason why there is no point."""
    if not len(points.names):
        return "The result has no genes."
    if not points.present.any():
        return "The result has no rows for this comparison: the filters removed all of them."
    n = int(np.count_nonzero(points.present))
    return f"There are no values to draw for {count(n, 'gene')}."


def _with_notes(label: str, why: str, points: _Points, drawn: np.ndarray) -> str:
    """Return the label of the x axis, plus lines on what is not drawn or is drawn at a limit."""
    notes = []
    without = int(np.count_nonzero(points.present & ~drawn))
    if without:
        hidden = np.count_nonzero(points.significant & ~drawn)
        also = f", {hidden:,} of them with FDR ≤ {points.fdr:g}" if hidden else ""
        notes.append(f"{count(without, 'gene')} {why}{also}")
    clipped = drawn & points.one_sided
    if clipped.any():
        at = np.unique(np.round(np.abs(points.change[clipped]), 2))
        where = f" at ±{at[0]:g}" if len(at) == 1 else ""
        n = int(np.count_nonzero(clipped))
        notes.append(f"{count(n, 'gene')} with one mean of 0 drawn{where}")
    return "\n".join([label, *(f"({note})" for note in notes)])


def _name(ax: Any, points: _Points, x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> None:
    """Name the strongest genes, away from other coloured points."""
    if not points.n_labels:
        return
    order = strongest(points.score, points.change, points.significant & drawn, len(x))
    named = order[: points.n_labels]
    label_points(
        ax,
        x[named],
        y[named],
        [points.names[g] for g in named],
        np.column_stack([x[order], y[order]]),
    )
