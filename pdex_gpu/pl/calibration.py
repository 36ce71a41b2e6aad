"""Plots of a calibration: observed and expected p-values."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..utils.checks import kind as kind_of
from ..utils.formats import number_text
from ..utils.keywords import known_keywords
from .arguments import check_axes
from .axes import axes_or_new, despine, explain_empty, palette

if TYPE_CHECKING:
    from ..calibration.parts import Part
    from ..calibration.result import Calibration

# Of further kinds of p-values; "bluish green" and "reddish purple" of Okabe and Ito.
_MORE_COLORS = ("#009E73", "#CC79A7")
_MARKERS = ("o", "s", "D", "^")
_SMALLEST_RATIO = 0.05
_GAP = 0.6  # between rows of different parts, in rows


@known_keywords
def calibration(calibration: Calibration, ax: Any = None) -> Any:
    """Draw observed over expected numbers of small p-values between control cells.

    Each row has the tests of one part: all, genes of one class of expression, or mock perturbations
    of one class of size; with a row for each kind of p-values. A point is the ratio at one level,
    hollow if fewer than 10 p-values are expected, so that the ratio is uncertain, and left out if
    then none is found. On the right are the mean numbers of false positives of a mock perturbation.

    Parameters
    ----------
    calibration : Calibration
        The return value of :func:`pdex_gpu.calibrate` or ``Calibration.from_json``.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Ratios on a logarithmic scale from 0.05 to at least 3; an arrow stands for a ratio beyond
        its ends, such as 0.

    Raises
    ------
    OptionError
        If `calibration` is not a calibration, or `ax` is not axes.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    _check(calibration, ax)
    parts = calibration.parts()
    n_kinds = len(calibration.kinds)
    ax = axes_or_new(ax, (8.0, 2.0 + 0.19 * len(parts) + 0.1 * len(parts) / n_kinds))
    despine(ax)
    ax.set_title(f"{calibration.metric}, control against control")
    if not calibration.of().total.n_tests:
        explain_empty(ax, "All tests are undefined.")
        return ax
    largest = max(3.0, *(r for part in parts for r in part.excess if np.isfinite(r)))
    ends = _SMALLEST_RATIO, min(1.3 * largest, 1e4)
    ax.set_xscale("log")
    ax.set_xlim(*ends)
    ax.axvline(1.0, color=palette(ax).line, linewidth=1.0)
    rows = np.arange(len(parts)) + _GAP * (np.arange(len(parts)) // n_kinds)
    for row, part in zip(rows, parts, strict=True):
        _draw(ax, row, part, _color(ax, calibration, part.kind), ends)
    ax.set_ylim(rows[-1] + 0.8, -0.8)
    middle = rows.reshape(-1, n_kinds).mean(axis=1)
    ax.set_yticks(middle, [part.title for part in parts[::n_kinds]])
    ax.tick_params(axis="y", length=0)
    ax.set_xlabel("observed / expected p-values (1: right; above: too many small ones)")
    ax.xaxis.set_major_formatter(lambda ratio, _: f"{ratio:g}")
    right = {"xycoords": ("axes fraction", "data"), "va": "center", "ha": "left"}
    ax.annotate(
        f"false positives\nper group\n(FDR ≤ {calibration.alpha:g})",
        (1.02, -0.6), fontsize="small", **{**right, "va": "bottom"},
    )  # fmt: skip
    for row, part in zip(rows, parts, strict=True):
        text = number_text(part.false_positives_per_group, ".3g")
        color = _color(ax, calibration, part.kind) if n_kinds > 1 else None
        ax.annotate(text, (1.02, row), fontsize="small", color=color, **right)
    _legend_below(ax, calibration)
    return ax


def _draw(ax: Any, row: float, part: Part, color: str, ends: tuple[float, float]) -> None:
    """Draw the ratios of a part at all levels."""
    for ratio, few, marker in zip(part.excess, part.few, _MARKERS, strict=True):
        if np.isnan(ratio) or (few and ratio == 0.0):
            continue
        shown, beyond = min(max(ratio, ends[0] * 1.08), ends[1] / 1.08), marker
        if ratio < ends[0]:
            beyond = "<"
        elif ratio > ends[1]:
            beyond = ">"
        face = "none" if few else color
        ax.plot(shown, row, beyond, color=color, markerfacecolor=face, markersize=6, clip_on=False)


def _color(ax: Any, calibration: Calibration, kind: str) -> str:
    names = [judged.kind for judged in calibration.kinds]
    colors = (palette(ax).down, palette(ax).up, *_MORE_COLORS)
    return colors[names.index(kind) % len(colors)]


def _legend_below(ax: Any, calibration: Calibration) -> None:
    """Explain markers in one row, and colours in a second one if there are several."""
    from matplotlib.lines import Line2D
    from matplotlib.transforms import ScaledTranslation

    handles = list(_levels(ax))
    if len(calibration.kinds) > 1:
        blanks = [Line2D([], [], linestyle="", label=" ") for _ in handles]
        kinds = [*_kinds(ax, calibration), *blanks][: len(handles)]
        handles = [one for pair in zip(handles, kinds, strict=True) for one in pair]  # by column
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.4, 0.0),
        bbox_transform=ax.transAxes + ScaledTranslation(0.0, -0.5, ax.figure.dpi_scale_trans),
        ncols=len(_MARKERS) + 1,
        frameon=False,
        fontsize="small",
        columnspacing=1.2,
        handletextpad=0.3,
        borderpad=0.0,
    )


def _levels(ax: Any) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    from ..calibration.distributions import LEVELS

    line = palette(ax).line
    for marker, level in zip(_MARKERS, LEVELS, strict=True):
        yield Line2D([], [], marker=marker, linestyle="", color=line, label=f"p ≤ {level:g}")
    yield Line2D([], [], marker="o", linestyle="", color=line, markerfacecolor="none",
                 label="< 10 expected")  # fmt: skip


def _kinds(ax: Any, calibration: Calibration) -> Iterator[Any]:
    from matplotlib.lines import Line2D

    for judged in calibration.kinds:
        color = _color(ax, calibration, judged.kind)
        yield Line2D([], [], marker="s", linestyle="", color=color, label=judged.kind)


@known_keywords
def calibration_qq(calibration: Calibration, ax: Any = None) -> Any:
    """Draw a QQ plot of p-values between control cells, with a 95 % band and lambda.

    Parameters
    ----------
    calibration : Calibration
        The return value of :func:`pdex_gpu.calibrate` or ``Calibration.from_json``.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        If as many p-values were independent and uniform, each would lie in the band with
        probability 95 %. The p-values of a screen depend on each other (genes are correlated, and
        mock perturbations share their control), so they leave the band more often than 1 time in
        20.

    Raises
    ------
    OptionError
        If `calibration` is not a calibration, or `ax` is not axes.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    _check(calibration, ax)
    ax = axes_or_new(ax)
    despine(ax)
    first = calibration.kinds[0]
    ax.set_xlabel("expected $-\\log_{10}(p)$")
    ax.set_ylabel("observed $-\\log_{10}(p)$")
    title = f"{calibration.metric}, control against control"
    if not first.quantiles.n_tests:
        ax.set_title(title)
        explain_empty(ax, "All tests are undefined.")
        return ax
    low, high = first.quantiles.band()
    expected = first.quantiles.expected
    band = "95 % band of uniform p-values"
    ax.fill_between(expected, low, high, color="0.5", alpha=0.3, linewidth=0.0, label=band)
    ends = [0.0, float(expected[0])]
    ax.plot(ends, ends, color=palette(ax).line, linewidth=1.0)
    inflations = []
    for judged in calibration.kinds:
        found, inflation = judged.quantiles, number_text(judged.total.inflation, ".3g")
        inflations.append(f"$\\lambda$ = {inflation}")
        label = f"{judged.kind}, {inflations[-1]}"
        if len(calibration.kinds) == 1:
            label = f"{found.n_tests:,} tests"
        color = _color(ax, calibration, judged.kind)
        ax.plot(found.expected, found.observed, ".", color=color, markersize=5, label=label)
    ax.set_title(f"{title}: {inflations[0]}" if len(inflations) == 1 else title)
    ax.legend(loc="upper left", frameon=False)
    return ax


@known_keywords
def calibration_histogram(calibration: Calibration, ax: Any = None) -> Any:
    """Draw a histogram of p-values between control cells, with the height of uniform ones.

    Parameters
    ----------
    calibration : Calibration
        The return value of :func:`pdex_gpu.calibrate` or ``Calibration.from_json``.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    OptionError
        If `calibration` is not a calibration, or `ax` is not axes.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    _check(calibration, ax)
    ax = axes_or_new(ax)
    despine(ax)
    several = len(calibration.kinds) > 1
    for judged in calibration.kinds:
        counts = judged.total.histogram
        ax.stairs(
            counts,
            np.linspace(0.0, 1.0, len(counts) + 1),
            fill=not several,
            color=_color(ax, calibration, judged.kind),
            alpha=None if several else 0.75,
            linewidth=2.0,
            label=judged.kind,
        )
    ax.axhline(counts.sum() / len(counts), color=palette(ax).line, linewidth=1.0)
    ax.set_xlim(0.0, 1.0)
    ax.set_ylim(bottom=0.0)
    ax.set_xlabel("p-value")
    ax.set_ylabel("tests")
    numbers = [f"{judged.n_false_positives.sum():,}" for judged in calibration.kinds]
    words = f"{' and '.join(numbers)} false positives at FDR ≤ {calibration.alpha:g}"
    ax.set_title(words)
    if several:
        ax.legend(frameon=False)
    return ax


def _check(calibration: Any, ax: Any) -> None:
    from ..calibration.result import Calibration

    if not isinstance(calibration, Calibration):
        raise OptionError(
            f"The calibration plot takes a Calibration, not a {kind_of(calibration)}. Pass the "
            "return value of calibrate() or Calibration.from_json()."
        )
    check_axes(ax)
