"""Plots of a calibration: observed and expected p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import OptionError
from ..utils.checks import kind
from ..utils.formats import number_text
from ..utils.keywords import known_keywords
from .arguments import check_axes
from .axes import DOWN, LINE, axes_or_new, despine, explain_empty

if TYPE_CHECKING:
    from ..calibration.result import Calibration


@known_keywords
def calibration(calibration: Calibration, ax: Any = None) -> Any:
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
    ax = _axes_for(calibration, ax)
    found, total = calibration.quantiles, calibration.total
    ax.set_xlabel("expected $-\\log_{10}(p)$")
    ax.set_ylabel("observed $-\\log_{10}(p)$")
    inflation = number_text(total.inflation, ".3g")
    ax.set_title(f"{calibration.metric}, control against control: $\\lambda$ = {inflation}")
    if not found.n_tests:
        explain_empty(ax, "All tests are undefined.")
        return ax
    low, high = found.band()
    ax.fill_between(
        found.expected,
        low,
        high,
        color="0.85",
        linewidth=0.0,
        label="95 % band of uniform p-values",
    )
    ends = [0.0, float(found.expected[0])]
    ax.plot(ends, ends, color=LINE, linewidth=1.0)
    tests = f"{found.n_tests:,} tests"
    ax.plot(found.expected, found.observed, ".", color=DOWN, markersize=5, label=tests)
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
    ax = _axes_for(calibration, ax)
    counts = calibration.total.histogram
    ax.stairs(counts, np.linspace(0.0, 1.0, len(counts) + 1), fill=True, color=DOWN, alpha=0.75)
    ax.axhline(counts.sum() / len(counts), color=LINE, linewidth=1.0)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("p-value")
    ax.set_ylabel("tests")
    n = int(calibration.n_false_positives.sum())
    ax.set_title(f"{n:,} false positives at FDR ≤ {calibration.alpha:g}")
    return ax


def _axes_for(calibration: Calibration, ax: Any) -> Any:
    """Check both arguments; return `ax` or the axes of a new figure."""
    from ..calibration.result import Calibration

    if not isinstance(calibration, Calibration):
        raise OptionError(
            f"The calibration plot takes a Calibration, not a {kind(calibration)}. Pass the return "
            "value of calibrate() or Calibration.from_json()."
        )
    check_axes(ax)
    ax = axes_or_new(ax)
    despine(ax)
    return ax
