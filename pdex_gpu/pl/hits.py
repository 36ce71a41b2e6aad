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
    DOWN,
    LINE,
    LITERAL,
    UP,
    axes_or_new,
    despine,
    explain_empty,
    extent_in_points,
    fitting_size,
    legend_above,
    shown,
    thousands,
    title,
)

# The most names listed next to the curve of many perturbations, if there is room.
_MOST_NAMED = 10


@known_keywords
def hits(result: Any, *, fdr: float = 0.05, n: int | None = None, ax: Any = None) -> Any:
    """Draw the numbers of genes up and down in each comparison, those with the most hits first.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its Parquet file; a file is read in blocks.
    fdr : float
        Hits are the genes with at most this adjusted p-value.
    n : int, optional
        The number of comparisons to show, those with the most hits; all by default.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        While names can be read, there is one bar per comparison, down to the left and up to the
        right; otherwise counts by rank, up above and down below, with the strongest listed. Up and
        down are defined by the means. Hits whose means are equal (nearly all of them in cells that
        do not express the gene) count as neither; the axis gives their number.

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
    ax = axes_or_new(ax)
    despine(ax)
    note = f"\n({count(level, 'hit')} with equal means, not drawn)" if level else ""
    what = f"genes with FDR ≤ {fdr:g}" + note
    if not len(total):
        title(ax, "hits per perturbation")
        explain_empty(ax, "The result has no comparisons.")
        return ax
    text = f"{np.count_nonzero(total):,} of {count(len(total), 'perturbation')} with hits"
    if len(order) < len(total):
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
    rows = np.arange(len(order))
    for counts, colour, label in ((-down[order], DOWN, "down"), (up[order], UP, "up")):
        bars = ax.barh(rows, counts, 0.8, color=colour, label=label)
        ax.bar_label(
            bars, [f"{abs(c):,}" if c else "" for c in counts], fontsize=0.85 * size, padding=2
        )
    ax.axvline(0.0, color=LINE, linewidth=0.8)
    names = [shown(result.name(t)) for t in order]
    ax.set_yticks(rows, labels=names, fontsize=size, **LITERAL)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(order) - 0.4, -0.6)
    ax.margins(x=0.09)
    if not (up[order] + down[order]).any():
        ax.set_xlim(-1.0, 1.0)
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
    edges = np.arange(len(order) + 1) + 0.5
    total = up[order] + down[order]
    ax.stairs(up[order], edges, fill=True, color=UP, label="up")
    ax.stairs(-down[order], edges, fill=True, color=DOWN, label="down")
    ax.stairs(total, edges, color=LINE, linewidth=1.0, baseline=None, label="both")
    ax.axhline(0.0, color=LINE, linewidth=0.8)
    ax.set_xlim(0.5, len(order) + 0.5)
    # The list of the strongest is in the upper right, so the curve must stay below it there.
    right_half = float(np.max(total[len(total) // 2 :], initial=0))
    low = float(-1.05 * np.max(down, initial=0)) or -1.0
    high = max(1.05 * float(np.max(total, initial=0)), 2.0 * right_half, 1.0)
    ax.set_ylim(low, high)
    ax.yaxis.set_major_locator(_whole_numbers())
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_formatter(thousands)
    ax.set_xlabel("perturbations, by number of hits")
    ax.set_ylabel(what)
    room = int(0.5 * extent_in_points(ax)[1] * high / (high - low) / 13.0) - 1
    n = min(_MOST_NAMED, max(0, room))
    _list(ax, result, up, down, [t for t in order[:n] if up[t] + down[t]])
    legend_above(ax, text)


def _list(ax: Any, result: Result, up: np.ndarray, down: np.ndarray, named: list[int]) -> None:
    """Draw a small table of the strongest comparisons."""
    from matplotlib import rcParams
    from matplotlib.offsetbox import AnchoredOffsetbox, HPacker, TextArea

    if not named:
        return
    columns = (
        (["strongest", *(shown(result.name(t)) for t in named)], "left", rcParams["text.color"]),
        (["up", *(f"{up[t]:,}" for t in named)], "right", UP),
        (["down", *(f"{down[t]:,}" for t in named)], "right", DOWN),
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
