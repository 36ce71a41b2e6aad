"""The plot of how many genes each perturbation changes."""

from __future__ import annotations

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
    despine,
    explain_empty,
    extent_in_points,
    fitting_size,
    legend_above,
    palette,
    shown,
    thousands,
    title,
)
from .no_hits import why_no_hits

# The most names listed next to the curve of many perturbations, if there is room.
_MOST_NAMED = 12
_FEWEST_NAMED = 5

# The size of a list: of a line, of a letter, and of the width that has no names.
_LINE_POINTS = 13.0
_LETTER_POINTS = 6.5
_LIST_POINTS = 75.0

# Up to this many bars, a new figure is as high as they need.
_MOST_BARS = 60
_INCHES_PER_BAR = 0.2

_TICKS = (0, *(m * 10**k for k in range(8) for m in (1, 2, 5)))


@known_keywords
def hits(result: Any, *, fdr: float = 0.05, n: int | None = None, ax: Any = None) -> Any:
    """Draw the numbers of genes up and down in each comparison, those with the most hits first.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks.
    fdr : float
        Hits are the genes with at most this adjusted p-value.
    n : int, optional
        The number of comparisons to show, those with the most hits; all by default.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Comparisons without hits are not drawn; the title gives their number. While names can be
        read, there is one bar per comparison, down to the left and up to the right, and a new
        figure is as high as they need (up to 60). Otherwise counts by rank, up above and down
        below, on a scale of ``log(1 + hits)``, with the strongest listed. If there are no hits, the
        axes say why. Up and down are defined by the means. Hits whose means are equal (nearly all
        of them in cells that do not express the gene) count as neither; the axis gives their
        number.

    Raises
    ------
    OptionError
        If `result` is not a result, or an option is invalid.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_count("n", n)
    check_axes(ax)
    up, down, level = count_hits(found, fdr)
    total = up + down
    order = np.lexsort((np.arange(len(total)), -total))[:n]
    order = order[total[order] > 0]
    small = 0 < len(order) <= _MOST_BARS
    ax = axes_or_new(ax, (6.4, max(2.4, 1.4 + _INCHES_PER_BAR * len(order))) if small else None)
    despine(ax)
    if not len(total):
        title(ax, "hits per perturbation")
        explain_empty(ax, "The result has no comparisons.")
        return ax
    note = f"\n({count(level, 'hit')} with equal means, not drawn)" if level else ""
    what = f"genes with FDR ≤ {fdr:g}" + note
    text = f"{np.count_nonzero(total):,} of {count(len(total), 'perturbation')} with hits"
    if not len(order):
        title(ax, text)
        ax.set_xlabel(what)
        explain_empty(
            ax,
            f"{count(level, 'hit')} with equal means: neither up nor down."
            if level
            else why_no_hits((values["fdr"] for _, values in found.blocks(["fdr"])), fdr),
        )
        return ax
    if len(order) < np.count_nonzero(total):
        text += f"; top {len(order):,} shown"
    size = fitting_size(extent_in_points(ax)[1], len(order))
    if size is None:
        _curve(ax, found, up, down, order, what, text)
    else:
        _bars(ax, found, up, down, order, what, text, size)
    return ax


def count_hits(result: Result, fdr: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Count the genes with an adjusted p-value of at most `fdr` in each comparison.

    Returns
    -------
    up, down : numpy.ndarray, shape (n_comparisons,), int64
        By the sign of ``target_mean - reference_mean``.
    level : int
        Hits whose means are equal, over all comparisons.
    """
    up, down = (np.zeros(len(result.targets), np.int64) for _ in range(2))
    level = 0
    for part, values in result.blocks(["fdr", "target_mean", "reference_mean"]):
        hit, sign = values["fdr"] <= fdr, direction(values)
        up[part] = np.count_nonzero(hit & (sign > 0), axis=1)
        down[part] = np.count_nonzero(hit & (sign < 0), axis=1)
        level += int(np.count_nonzero(hit & (sign == 0)))
    return up, down, level


def _bars(
    ax: Any,
    result: Result,
    up: np.ndarray,
    down: np.ndarray,
    order: np.ndarray,
    what: str,
    text: str,
    size: float,
) -> None:
    rows, colours = np.arange(len(order)), palette(ax)
    for counts, colour, label in (
        (-down[order], colours.down, "down"),
        (up[order], colours.up, "up"),
    ):
        bars = ax.barh(rows, counts, 0.8, color=colour, label=label)
        ax.bar_label(
            bars, [f"{abs(c):,}" if c else "" for c in counts], fontsize=0.85 * size, padding=2
        )
    ax.axvline(0.0, color=colours.line, linewidth=0.8)
    names = [shown(result.name(t)) for t in order]
    ax.set_yticks(rows, labels=names, fontsize=size, **LITERAL)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.margins(x=0.09)
    ax.xaxis.set_major_locator(_whole_numbers())
    ax.xaxis.set_major_formatter(thousands)
    ax.set_xlabel(what)
    legend_above(ax, text)


def _curve(
    ax: Any,
    result: Result,
    up: np.ndarray,
    down: np.ndarray,
    order: np.ndarray,
    what: str,
    text: str,
) -> None:
    from matplotlib.ticker import FixedLocator, NullLocator

    edges, colours = np.arange(len(order) + 1) + 0.5, palette(ax)
    total = up[order] + down[order]
    ax.set_yscale("function", functions=(_compressed, _expanded))
    ax.stairs(up[order], edges, fill=True, color=colours.up, label="up")
    ax.stairs(-down[order], edges, fill=True, color=colours.down, label="down")
    ax.stairs(total, edges, color=colours.line, linewidth=1.0, baseline=None, label="both")
    ax.axhline(0.0, color=colours.line, linewidth=0.8)
    ax.set_xlim(0.5, len(order) + 0.5)
    low = -1.04 * float(_compressed(np.max(down[order], initial=1)))
    high = 1.04 * float(_compressed(total[0]))
    # The list of the strongest is in the upper right: the curve must stay below it there.
    width, height = extent_in_points(ax)
    longest = max(len(shown(result.name(t))) for t in order[:_MOST_NAMED])
    share = min((_LIST_POINTS + _LETTER_POINTS * longest) / width, 1.0)
    beside = float(_compressed(total[int((1.0 - share) * len(total))])) + 0.02 * (high - low)
    n = min(_MOST_NAMED, int((high - beside) / (high - low) * height / _LINE_POINTS) - 1)
    if n < _FEWEST_NAMED:
        n = min(_FEWEST_NAMED, int(0.5 * height / _LINE_POINTS) - 1)
        needed = (n + 1.5) * _LINE_POINTS / height
        high = max(high, (beside - needed * low) / (1.0 - needed))
    ax.set_ylim(float(_expanded(low)), float(_expanded(high)))
    ticks = np.array(_TICKS)[np.array(_TICKS) <= max(total[0], 1)]
    if float(_compressed(2) - _compressed(1)) / (high - low) * height < _LINE_POINTS:
        ticks = ticks[ticks != 2]  # its label would lie on that of 1
    ticks = ticks[:: max(1, round(len(ticks) / 8))] if len(ticks) > 10 else ticks
    ax.yaxis.set_major_locator(FixedLocator([*-ticks[:0:-1], *ticks]))
    ax.yaxis.set_minor_locator(NullLocator())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(thousands)
    ax.set_xlabel("perturbations with hits, by their number")
    ax.set_ylabel(what)
    _list(ax, result, up, down, order[: max(n, 0)].tolist())
    legend_above(ax, text)


def _compressed(hits: Any) -> Any:
    """Return ``log(1 + hits)``, with the sign of `hits`."""
    return np.sign(hits) * np.log1p(np.abs(hits))


def _expanded(places: Any) -> Any:
    """Return the numbers of hits that :func:`_compressed` gives places to."""
    return np.sign(places) * np.expm1(np.abs(places))


def _list(ax: Any, result: Result, up: np.ndarray, down: np.ndarray, named: list[int]) -> None:
    """Draw a small table of the strongest comparisons."""
    from matplotlib import rcParams
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    if not named:
        return
    columns = (
        (["strongest", *(shown(result.name(t)) for t in named)], "left", rcParams["text.color"]),
        (["up", *(f"{up[t]:,}" for t in named)], "right", palette(ax).up),
        (["down", *(f"{down[t]:,}" for t in named)], "right", palette(ax).down),
    )
    parts: list[Any] = [
        TextArea(
            "\n".join(lines),
            textprops={"fontsize": "small", "color": colour, "multialignment": side, **LITERAL},
        )
        for lines, side, colour in columns
    ]
    box = AnchoredOffsetbox(
        "upper right", child=HPacker(children=parts, pad=0, sep=10), frameon=False, borderpad=0.2
    )
    box.set_in_layout(False)
    ax.add_artist(box)


def _whole_numbers() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(integer=True)
