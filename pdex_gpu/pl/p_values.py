"""A histogram of p-values, with the heights expected without any effect."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..results.base import Result
from ..results.effect import effect_of
from ..results.plot_values import count
from ..utils.checks import check_count
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes
from .axes import axes_or_new, despine, explain_empty, legend_above, palette, thousands, title
from .volcano_ma import comparison

_COLUMNS = ("p_value", "statistic", "target_mean", "reference_mean")

# Storey's lambda: p-values above it are assumed to come from genes without an effect.
_LAMBDA = 0.5

_MOST_BINS = 10_000


@known_keywords
def p_values(
    result: Any,
    target: object = None,
    *,
    reference: object = None,
    within: object = None,
    n_bins: int = 20,
    ax: Any = None,
) -> Any:
    """Draw a histogram of p-values: flat where nothing differs, with a peak at 0 for effects.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks.
    target : object, optional
        The comparison, as in :meth:`.results.base.Result.find`; by default all together.
    reference, within : object
        Further parts of the comparison, used with `target`.
    n_bins : int
        Number of bins between 0 and 1.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        Uninformative tests, whose p-value is 1 by definition, are left out: both means are 0 and no
        value is negative, or there is no statistic. The label of the x axis gives their number. The
        solid line is the height of all bars if p-values were uniform. The dotted line is the height
        due to genes without an effect. Their proportion is estimated as
        ``pi0 = #{p > 0.5} / (n 0.5)``, at most 1 (Storey 2002, "A direct approach to false
        discovery rates", J. R. Stat. Soc. B 64, 479-498, with lambda 0.5).

    Raises
    ------
    LabelError
        If `target` was not compared, or was compared more than once.
    OptionError
        If `result` is not a result, or an option is invalid.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    check_count("n_bins", n_bins, most=_MOST_BINS, may_be_none=False)
    check_axes(ax)
    if target is None:
        text = f"all {count(len(found.targets), 'comparison')}"
    else:
        text = comparison(found, found.find(target, reference=reference, within=within))
    counts = np.zeros(n_bins, np.int64)
    n_above = n_uninformative = 0
    for p, uninformative in _blocks(found, target, reference, within):
        counts += np.histogram(p[~uninformative], n_bins, (0.0, 1.0))[0]
        n_above += int(np.count_nonzero(p[~uninformative] > _LAMBDA))
        n_uninformative += int(np.count_nonzero(uninformative))
    n = int(counts.sum())

    from matplotlib import rcParams

    ax = axes_or_new(ax)
    despine(ax)
    ax.set_xlim(0.0, 1.0)
    note = f"\n({count(n_uninformative, 'test')} left out: gene not expressed, or test undefined)"
    ax.set_xlabel("p-value" + (note if n_uninformative else ""))
    ax.set_ylabel("tests")
    if not n:
        title(ax, text)
        explain_empty(ax, "There are no p-values to draw.")
        return ax
    edges = np.linspace(0.0, 1.0, n_bins + 1)
    ax.stairs(counts, edges, fill=True, color=palette(ax).down, alpha=0.75, label=count(n, "test"))
    pi0 = min(1.0, n_above / ((1.0 - _LAMBDA) * n))
    ax.axhline(
        n / n_bins,
        color=palette(ax).line,
        label=f"uniform: {thousands(round(n / n_bins, 1))} per bin",
    )
    ax.axhline(
        pi0 * n / n_bins,
        color=rcParams["text.color"],
        linestyle=":",
        label=f"without effect (Storey): $\\pi_0$ = {pi0:.3f}",
    )
    ax.yaxis.set_major_formatter(thousands)
    ax.set_ylim(0.0, 1.05 * max(int(counts.max()), n / n_bins))
    legend_above(ax, text)
    return ax


def _blocks(
    result: Result, target: object, reference: object, within: object
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield the p-values of existing rows, and a mask of those that are uninformative."""
    if target is None:
        blocks: Iterator[dict[str, np.ndarray]] = (values for _, values in result.blocks(_COLUMNS))
    else:
        blocks = iter(
            [result.row(result.find(target, reference=reference, within=within), _COLUMNS)]
        )
    effect = effect_of(result)
    for values in blocks:
        present = ~np.isnan(values["p_value"])
        uninformative = effect.unexpressed(values) | np.isnan(values["statistic"])
        yield values["p_value"][present], uninformative[present]
