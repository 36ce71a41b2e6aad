"""The picture of a calibration: QQ plot and histogram, with matplotlib."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import MissingDependencyError, OptionError

if TYPE_CHECKING:
    from .calibration_result import Calibration


def plot_calibration(calibration: Calibration, ax: Any = None) -> tuple[Any, ...]:
    """Draw on `ax`, or on a new figure; see :meth:`.calibration_result.Calibration.plot`."""
    try:
        import matplotlib.pyplot as plt
        from matplotlib.axes import Axes
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is not installed. Run: pip install 'pdex_gpu[plot]'"
        ) from error
    if ax is None:
        _, axes = plt.subplots(1, 2, figsize=(9.0, 4.0), layout="constrained")
    else:
        axes = np.atleast_1d(np.array(ax, object))
    if len(axes) > 2 or not all(isinstance(one, Axes) for one in axes):
        raise OptionError(f"ax={ax!r} must be matplotlib axes, or a pair of them.")
    _draw_quantiles(calibration, axes[0])
    if len(axes) == 2:
        _draw_histogram(calibration, axes[1])
    return tuple(axes)


def _draw_quantiles(calibration: Calibration, ax: Any) -> None:
    found, total = calibration.quantiles, calibration.total
    if found.n_tests:
        low, high = found.band()
        ax.fill_between(found.expected, low, high, color="0.85", label="95 % of uniforms")
        ends = [0.0, float(found.expected[0])]
        ax.plot(ends, ends, color="0.4", linewidth=1.0)
        ax.plot(found.expected, found.observed, ".", color="C0", label=f"{found.n_tests:,} tests")
        ax.legend(loc="upper left", frameon=False)
    ax.set_xlabel("expected $-\\log_{10}(p)$")
    ax.set_ylabel("observed $-\\log_{10}(p)$")
    ax.set_title(
        f"{calibration.metric}, control against control: $\\lambda$ = {total.inflation:.3g}"
    )


def _draw_histogram(calibration: Calibration, ax: Any) -> None:
    counts = calibration.total.histogram
    edges = np.linspace(0.0, 1.0, len(counts) + 1)
    ax.stairs(counts, edges, fill=True, color="C0", alpha=0.7)
    ax.axhline(counts.sum() / len(counts), color="0.4", linewidth=1.0)
    ax.set_xlim(0.0, 1.0)
    ax.set_xlabel("p-value")
    ax.set_ylabel("tests")
    n = int(calibration.n_false_positives.sum())
    ax.set_title(f"{n:,} false positives at fdr <= {calibration.alpha:g}")
