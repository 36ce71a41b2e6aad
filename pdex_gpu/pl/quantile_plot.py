"""Plots of a calibration: observed and expected p-values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..checks import kind
from ..console import number_text
from ..errors import OptionError, shown
from .canvas import DOWN, LINE, canvas, nothing, pyplot, spineless
from .given import check_axes

if TYPE_CHECKING:
    from ..calibration_result import Calibration


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
    from ..calibration_result import Calibration

    if not isinstance(calibration, Calibration):
        raise OptionError(
            f"The calibration plot takes a Calibration, not a {kind(calibration)}. Pass the return "
            "value of calibrate() or Calibration.from_json()."
        )
    check_axes(ax)
    ax = canvas(ax)
    spineless(ax)
    found, total = calibration.quantiles, calibration.total
    ax.set_xlabel("expected $-\\log_{10}(p)$")
    ax.set_ylabel("observed $-\\log_{10}(p)$")
    inflation = number_text(total.inflation, ".3g")
    ax.set_title(f"{calibration.metric}, control against control: $\\lambda$ = {inflation}")
    if not found.n_tests:
        nothing(ax, "All tests are undefined.")
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


def calibration_pair(calibration: Calibration, ax: Any = None) -> tuple[Any, ...]:
    """Draw the QQ plot and the histogram; see :meth:`.calibration_result.Calibration.plot`."""
    from .. import pl

    plt = pyplot()
    from matplotlib.axes import Axes

    if ax is None:
        _, axes = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
    else:
        several = isinstance(ax, list | tuple | np.ndarray)
        axes = np.array(ax if several else [ax], object).ravel()
    if len(axes) not in (1, 2) or not all(isinstance(one, Axes) for one in axes):
        raise OptionError(f"ax={shown(ax)} must be matplotlib axes, or a pair of them.")
    pl.calibration(calibration, axes[0])
    if len(axes) == 2:
        _histogram(calibration, axes[1])
    return tuple(axes)


def _histogram(calibration: Calibration, ax: Any) -> None:
    counts = calibration.total.histogram
    spineless(ax)
    ax.stairs(counts, np.linspace(0.0, 1.0, len(counts) + 1), fill=True, color=DOWN, alpha=0.75)
    ax.axhline(counts.sum() / len(counts), color=LINE, linewidth=1.0)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("p-value")
    ax.set_ylabel("tests")
    n = int(calibration.n_false_positives.sum())
    ax.set_title(f"{n:,} false positives at FDR ≤ {calibration.alpha:g}")
