"""Plots of all genes of one comparison as points: volcano plot and MA plot."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import OptionError
from ..results.base import Result
from ..results.effect import Effect, direction, effect_of
from ..results.plot_values import LARGEST, axis_text, count, minus_log10_p, p_columns, strongest
from ..utils.checks import check_count, check_number
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_colours, check_fdr
from .axes import (
    TITLE_LENGTH,
    axes_or_new,
    despine,
    explain_empty,
    extent_in_points,
    legend_above,
    palette,
    shown,
    title,
)
from .border import Border, find_border
from .labels import label_points
from .no_hits import why_no_hits

# In axes narrower than this many points, lines of the legend are broken.
_NARROW = 260.0

_USUAL_LABELS = 10

# The most names in a remark below the axes.
_MOST_LISTED = 5


@known_keywords
def volcano(
    result: Any,
    target: object,
    *,
    reference: object = None,
    within: object = None,
    fdr: float = 0.05,
    min_log2_fold_change: float = 0.0,
    genes: Iterable[object] | None = None,
    n_labels: int | None = None,
    colors: Mapping[str, Any] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the effect and the p-value of every gene of one comparison (volcano plot).

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file. If p-values were adjusted over all rows, a Parquet file is read in
        blocks, to find the dashed line.
    target, reference, within : object
        The comparison, as in :meth:`.results.base.Result.find`.
    fdr : float
        Hits have at most this adjusted p-value; they are coloured.
    min_log2_fold_change : float
        Hits also have at least this size of the log2 fold change; dotted lines mark it.
    genes : iterable of object, or str, optional
        Genes to ring and to name, hits or not, as in :meth:`.results.base.Result.find_feature`.
        Each is named, even where its name covers something.
    n_labels : int, optional
        The number of hits to name, those with the smallest p-values; fewer are named where there is
        no room. By default 10, or none if `genes` are chosen.
    colors : mapping of str to color, optional
        Colours in place of the usual ones: of ``"up"``, ``"down"`` and ``"other"``.
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
        label of the x axis gives their number. If there is no hit, the axes say why.

    Raises
    ------
    LabelError
        If `target` was not compared, or was compared more than once, or some of `genes` are not in
        the result.
    OptionError
        If `result` is not a result, or an option is invalid, such as a least fold change of values
        that have no ratios.
    MissingDependencyError
        If matplotlib or textalloc (extra ``plot``) is not installed.
    """
    found = as_result(result)
    hits = _Hits(fdr, min_log2_fold_change, genes, n_labels, colors)
    points = _read(found, target, reference, within, hits, ax)
    border = find_border(found, points.t, points.hits.fdr)
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
    _draw(ax, points, x, y, drawn, cut=ax.axvline, beyond=zero, border=border)
    side = 1.08 * float(np.max(np.abs(x[drawn]), initial=0.0)) or 1.0
    ax.set_xlim(-side, side)
    ax.set_ylim(-0.02 * height, 1.06 * height or 1.0)
    ax.axvline(0.0, color=palette(ax).line, linewidth=0.8, zorder=0)
    ax.set_xlabel(
        _with_notes(axis_text(points.effect), "without a value, not drawn", points, drawn)
    )
    ax.set_ylabel("$-\\log_{10}(p)$")
    _say_no_hits(ax, points, drawn)
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
    min_log2_fold_change: float = 0.0,
    genes: Iterable[object] | None = None,
    n_labels: int | None = None,
    colors: Mapping[str, Any] | None = None,
    ax: Any = None,
) -> Any:
    """Draw the effect on every gene of one comparison against its mean expression (MA plot).

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file.
    target, reference, within : object
        The comparison, as in :meth:`.results.base.Result.find`.
    fdr : float
        Hits have at most this adjusted p-value; they are coloured.
    min_log2_fold_change : float
        Hits also have at least this size of the log2 fold change; dotted lines mark it.
    genes : iterable of object, or str, optional
        Genes to ring and to name, hits or not, as in :meth:`.results.base.Result.find_feature`.
        Each is named, even where its name covers something.
    n_labels : int, optional
        The number of hits to name, those with the smallest p-values; fewer are named where there is
        no room. By default 10, or none if `genes` are chosen.
    colors : mapping of str to color, optional
        Colours in place of the usual ones: of ``"up"``, ``"down"`` and ``"other"``.
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
        If `target` was not compared, or was compared more than once, or some of `genes` are not in
        the result.
    OptionError
        If `result` is not a result, or an option is invalid, such as a least fold change of values
        that have no ratios.
    MissingDependencyError
        If matplotlib or textalloc (extra ``plot``) is not installed.
    """
    hits = _Hits(fdr, min_log2_fold_change, genes, n_labels, colors)
    points = _read(as_result(result), target, reference, within, hits, ax)
    ax = axes_or_new(ax)
    x, y = points.mean, points.change
    drawn = np.isfinite(y) & np.isfinite(x)
    why = "without a value, not drawn"
    if points.effect.is_ratio:
        drawn &= x > 0.0
        why = "not expressed, not drawn"
        ax.set_xscale("log")
    _draw(ax, points, x, y, drawn, cut=ax.axhline)
    if drawn.any() and points.effect.is_ratio:
        low, high = float(x[drawn].min()), float(x[drawn].max())
        margin = max(high / low, 10.0) ** 0.04
        ax.set_xlim(low / margin, high * margin)
    side = 1.08 * float(np.max(np.abs(y[drawn]), initial=0.0)) or 1.0
    ax.set_ylim(-side, side)
    ax.axhline(0.0, color=palette(ax).line, linewidth=0.8, zorder=0)
    ax.set_xlabel(_with_notes("mean of both sides", why, points, drawn))
    ax.set_ylabel(axis_text(points.effect))
    _say_no_hits(ax, points, drawn)
    _name(ax, points, x, y, drawn)
    return ax


@dataclass(frozen=True)
class _Hits:
    """The options of what is a hit, what is named, and in which colours, as given."""

    fdr: Any
    least: Any
    genes: Any
    n_labels: Any
    colours: Any

    def checked(self) -> _Hits:
        """Return them with defaults filled in; raise OptionError if one is invalid."""
        least = check_number("min_log2_fold_change", self.least, "a number of at least 0")
        if least < 0.0:
            raise OptionError(f"min_log2_fold_change={self.least!r} must be at least 0.")
        n_labels = self.n_labels
        check_count("n_labels", n_labels, least=0)
        if n_labels is None:
            n_labels = _USUAL_LABELS if self.genes is None else 0
        return _Hits(check_fdr(self.fdr), least, self.genes, n_labels, check_colours(self.colours))


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
    adjusted : numpy.ndarray, shape (n_genes,), float64
        The adjusted p-value.
    one_sided, significant : numpy.ndarray, shape (n_genes,), bool
        Whether exactly one mean is 0, so that the ratio is the comparison's `clip_value`; whether
        the gene is a hit.
    chosen : numpy.ndarray, shape (n_chosen,), int64
        Positions of the genes to name in any case.
    hits : _Hits
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
    adjusted: np.ndarray
    one_sided: np.ndarray
    significant: np.ndarray
    chosen: np.ndarray
    hits: _Hits

    @property
    def cuts(self) -> str:
        """Return what makes a hit, in words."""
        text = f"FDR ≤ {self.hits.fdr:g}"
        return f"{text}, {_size_cut(self.hits.least)}" if self.hits.least else text

    def label(self, way: str) -> str:
        """Return what hits up or down are called; with two cut-offs, their line names these."""
        return way if self.hits.least else f"{way}, {self.cuts}"


def _read(
    found: Result, target: object, reference: object, within: object, hits: _Hits, ax: Any
) -> _Points:
    hits = hits.checked()
    check_axes(ax)
    t = found.find(target, reference=reference, within=within)
    effect = effect_of(found)
    if hits.least and not effect.is_ratio:
        raise OptionError(
            f"min_log2_fold_change={hits.least:g} does not go with this result: it has negative "
            "values, so there are no fold changes. Leave it out."
        )
    chosen = found.find_features([] if hits.genes is None else hits.genes)
    names = ["fold_change", "fdr", "target_mean", "reference_mean", *p_columns(found)]
    values = found.row(t, names)
    n = len(found.features)
    present = np.full(n, True) if found.kept is None else found.kept[t]
    change = effect.sizes(values)
    with np.errstate(invalid="ignore"):
        significant = present & (values["fdr"] <= hits.fdr)
        if hits.least:
            significant &= np.abs(change) >= hits.least
    one_sided = (values["target_mean"] == 0.0) != (values["reference_mean"] == 0.0)
    return _Points(
        t,
        comparison(found, t),
        effect,
        found.gene_names,
        present,
        change,
        minus_log10_p(values),
        0.5 * (values["target_mean"] + values["reference_mean"]),
        direction(values),
        values["fdr"],
        one_sided & effect.is_ratio,
        significant,
        chosen,
        hits,
    )


def _size_cut(least: float) -> str:
    return f"|$\\log_2$ FC| ≥ {least:g}"


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
    cut: Callable[..., Any],
    beyond: np.ndarray | None = None,
    border: Border | None = None,
) -> None:
    """Draw points by significance and direction; a legend counts them and names the border.

    `cut` draws a line at a size of the effect.
    """
    from matplotlib import rcParams

    despine(ax)
    if not drawn.any():
        title(ax, points.text)
        explain_empty(ax, _why(points))
        return
    beyond = np.full(len(x), False) if beyond is None else beyond
    size = float(np.clip(16_000.0 / np.count_nonzero(drawn), 6.0, 22.0))
    up = points.significant & (points.direction > 0)
    down = points.significant & (points.direction < 0)
    usual = palette(ax)
    colours = {"up": usual.up, "down": usual.down, "other": usual.neutral} | points.hits.colours
    for which, colour, label, order in (
        (drawn & down, colours["down"], points.label("down"), 3),
        (drawn & ~up & ~down, colours["other"], "other", 2),
        (drawn & up, colours["up"], points.label("up"), 3),
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
    ringed = points.chosen[drawn[points.chosen]]
    if len(ringed):
        ax.scatter(
            x[ringed], y[ringed], s=size + 22.0, facecolors="none", linewidths=0.9, zorder=4,
            edgecolors=rcParams["text.color"], rasterized=True, gid="chosen",
        )  # fmt: skip
    n_zero = np.count_nonzero(drawn & beyond)
    if n_zero:
        ax.plot(
            [], [], "^", color=usual.line, markersize=5, label=f"p = 0 (below 1e-323): {n_zero:,}"
        )
    if border is not None:
        text = border.text
        if extent_in_points(ax)[0] < _NARROW:
            text = text.replace(" (", "\n(")
        ax.axhline(
            border.height, color=usual.line, linewidth=0.8, linestyle="--", zorder=0, label=text
        )
    if points.hits.least:
        for side in (-points.hits.least, points.hits.least):
            line = cut(side, color=usual.line, linewidth=0.8, linestyle=":", zorder=0)
        line.set_label(f"hits: {points.cuts}")
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
        also = f", {hidden:,} of them with {points.cuts}" if hidden else ""
        notes.append(f"{count(without, 'gene')} {why}{also}")
    pointless = points.chosen[~drawn[points.chosen]]
    if len(pointless):
        names = ", ".join(shown(points.names[g]) for g in pointless[:_MOST_LISTED])
        names = names.replace("$", "\\$")  # the label has formulas
        rest = len(pointless) - _MOST_LISTED
        notes.append(f"chosen, not drawn: {names}{f' and {rest} more' if rest > 0 else ''}")
    clipped = drawn & points.one_sided
    if clipped.any():
        at = np.unique(np.round(np.abs(points.change[clipped]), 2))
        where = f" at ±{at[0]:g}" if len(at) == 1 else ""
        n = int(np.count_nonzero(clipped))
        notes.append(f"{count(n, 'gene')} with one mean of 0 drawn{where}")
    return "\n".join([label, *(f"({note})" for note in notes)])


def _say_no_hits(ax: Any, points: _Points, drawn: np.ndarray) -> None:
    """State above the points why there is no hit among the genes that have a row."""
    if not drawn.any() or (points.significant & points.present).any():
        return
    hit = points.present & (points.adjusted <= points.hits.fdr)
    if hit.any():
        n = int(np.count_nonzero(hit))
        why = (
            f"No hits: {count(n, 'gene has', 'genes have')} FDR ≤ {points.hits.fdr:g}, but none "
            f"{_size_cut(points.hits.least)}."
        )
    else:
        why = why_no_hits([points.adjusted[points.present]], points.hits.fdr)
    low, high = ax.get_ylim()
    ax.set_ylim(low, high + 0.12 * (high - low))
    ax.text(
        0.5, 0.99, why, transform=ax.transAxes, ha="center", va="top", fontsize="small",
        color=palette(ax).line,
    )  # fmt: skip


def _name(ax: Any, points: _Points, x: np.ndarray, y: np.ndarray, drawn: np.ndarray) -> None:
    """Name the chosen genes, then the strongest hits, away from all points."""
    chosen = points.chosen[drawn[points.chosen]]
    order = strongest(points.score, points.change, points.significant & drawn, len(x))
    best = [g for g in order[: points.hits.n_labels] if g not in set(chosen.tolist())]
    named = np.array([*chosen, *best], np.int64)
    places = np.flatnonzero(drawn)
    label_points(
        ax,
        x[named],
        y[named],
        [points.names[g] for g in named],
        np.column_stack([x[places], y[places]]),
        n_always=len(chosen),
    )
