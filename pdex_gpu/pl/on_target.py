"""The plot of the effect of each perturbation on its own gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..design.own_genes import own_genes_of
from ..results.base import Result
from ..results.effect import effect_of, mean_difference
from ..results.plot_values import count
from ..utils.keywords import known_keywords
from .arguments import as_result, check_axes, check_fdr
from .axes import (
    LITERAL,
    Palette,
    axes_or_new,
    despine,
    explain_empty,
    extent_in_points,
    fitting_size,
    legend_above,
    palette,
    shown,
    title,
)


@known_keywords
def on_target(result: Any, *, fdr: float = 0.05, ax: Any = None) -> Any:
    """Draw the remaining expression of the own gene of each perturbation.

    Parameters
    ----------
    result : DEResult, ResultFile, str or path-like
        A result, or its file; a Parquet file is read in blocks. In a result of ``on_target=``, a
        target's own gene is the one at which it was tested; otherwise it is the gene of its name.
    fdr : float
        Changes with at most this adjusted p-value are filled and coloured.
    ax : matplotlib.axes.Axes, optional
        By default the axes of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        ``100 target_mean / reference_mean`` on a logarithmic scale. While names can be read, there
        is one line per perturbation, smallest value first; otherwise one point per perturbation,
        against the mean of the gene in the reference. Values of 0 % are triangles. If there are
        negative values, which have no ratios, ``target_mean - reference_mean`` is drawn on a
        linear scale instead. The title counts perturbations without a point: their gene is not in
        the matrix or was filtered out, or the reference does not express it.

    Raises
    ------
    OptionError
        If `result` is not a result, or an option is invalid.
    MissingDependencyError
        If matplotlib (extra ``plot``) is not installed.
    """
    found = as_result(result)
    fdr = check_fdr(fdr)
    check_axes(ax)
    own = own_genes_of(found)
    remaining = _read(found, own, fdr, effect_of(found).is_ratio)
    ax = axes_or_new(ax)
    despine(ax)
    text = _title(own, remaining)
    if not len(remaining.comparison):
        title(ax, text)
        explain_empty(ax, "No perturbation has an own gene to draw.")
        return ax
    size = fitting_size(extent_in_points(ax)[1], len(remaining.values))
    _Drawing(ax, remaining, _edge(remaining), fdr, size, palette(ax)).draw(found)
    legend_above(ax, text)
    return ax


@dataclass(frozen=True)
class _Remaining:
    """The remaining expression of own genes in ascending order, for those that have a number.

    Attributes
    ----------
    comparison : numpy.ndarray, shape (n,), int64
        Position of the comparison.
    values, mean : numpy.ndarray, shape (n,), float64
        Percentage of the reference's mean, or the difference from it; and that mean.
    is_ratio : bool
        Whether values are percentages.
    significant : numpy.ndarray, shape (n,), bool
    n_unexpressed : int
        Comparisons whose reference does not express the gene.
    """

    comparison: np.ndarray
    values: np.ndarray
    mean: np.ndarray
    is_ratio: bool
    significant: np.ndarray
    n_unexpressed: int

    @property
    def unchanged(self) -> float:
        """Return the value of a gene that did not change."""
        return 100.0 if self.is_ratio else 0.0


def _read(result: Result, own: np.ndarray, fdr: float, is_ratio: bool) -> _Remaining:
    """Read the values at own genes."""
    names = ["target_mean", "reference_mean", "fdr"]
    values = {name: np.full(len(own), np.nan) for name in names}
    if (own >= 0).any():
        for part, found in result.blocks(names):
            rows = np.flatnonzero(own[part] >= 0)
            for name in names:
                values[name][part][rows] = found[name][rows, own[part][rows]]
    if is_ratio:
        with np.errstate(divide="ignore", invalid="ignore"):
            remaining = 100.0 * values["target_mean"] / values["reference_mean"]
    else:
        remaining = mean_difference(values)
    drawn = np.flatnonzero(np.isfinite(remaining))
    drawn = drawn[np.argsort(remaining[drawn], kind="stable")]
    return _Remaining(
        drawn,
        remaining[drawn],
        values["reference_mean"][drawn],
        is_ratio,
        values["fdr"][drawn] <= fdr,
        int(np.count_nonzero(own >= 0)) - len(drawn),
    )


def _title(own: np.ndarray, remaining: _Remaining) -> str:
    without = (
        (np.count_nonzero(own < 0), "without it in the result"),
        (remaining.n_unexpressed, "not expressed"),
    )
    also = "; ".join(f"{n:,} {why}" for n, why in without if n)
    text = f"own gene of {count(len(remaining.comparison), 'perturbation')}"
    return f"{text} ({also})" if also else text


def _edge(remaining: _Remaining) -> float | None:
    """Return the place at which 0 % is drawn, or None if no perturbation has it."""
    if not remaining.is_ratio or remaining.values[0] > 0.0:
        return None
    return float(np.min(remaining.values[remaining.values > 0.0], initial=50.0)) / 2.0


def _percent(value: float) -> str:
    """Return a percentage with three digits, or all of a larger one, never with an exponent."""
    return f"{value:,.0f} %" if value >= 1000.0 else f"{value:.3g} %"


@dataclass(frozen=True)
class _Drawing:
    """Lines with names in font size `size`, or points if `size` is None."""

    ax: Any
    remaining: _Remaining
    edge: float | None
    fdr: float
    size: float | None
    colours: Palette

    def draw(self, result: Result) -> None:
        ax, n, unchanged = self.ax, len(self.remaining.values), self.remaining.unchanged
        if self.remaining.is_ratio:
            self._scale()
        self._axis.set_label_text(self._label())
        if self.size is None:
            ax.axhline(unchanged, color=self.colours.line, linewidth=1.0, zorder=1)
            if self.remaining.is_ratio:
                ax.set_xscale("log")
            ax.set_xlabel("mean of the gene in the reference")
            self._points(self.remaining.mean, self._places, "v", 14.0)
            return
        rank = np.arange(n)
        ax.hlines(rank, self._places, unchanged, color=self.colours.line, linewidth=0.8, zorder=1)
        ax.axvline(unchanged, color=self.colours.line, linewidth=1.0, zorder=1)
        names = [shown(result.name(t)) for t in self.remaining.comparison]
        ax.set_yticks(rank, labels=names, fontsize=self.size, **LITERAL)
        ax.tick_params(axis="y", length=0)
        ax.set_ylim(n - 0.4, -0.6)
        self._points(self._places, rank, "<", 30.0)

    @property
    def _places(self) -> np.ndarray:
        """Return the coordinates of the values on their axis."""
        values = self.remaining.values
        return values if self.edge is None else np.maximum(values, self.edge)

    @property
    def _axis(self) -> Any:
        """Return the axis of the values."""
        return self.ax.yaxis if self.size is None else self.ax.xaxis

    def _label(self) -> str:
        median = float(np.median(self.remaining.values))
        if self.remaining.is_ratio:
            return f"remaining expression in the target (median {_percent(median)})"
        return f"mean difference (median {median:.3g})"

    def _points(self, x: np.ndarray, y: np.ndarray, zero_marker: str, size: float) -> None:
        values, hit = self.remaining.values, self.remaining.significant
        zero = (values == 0.0) & self.remaining.is_ratio
        less, more = (
            hit & (values < self.remaining.unchanged),
            hit & (values > self.remaining.unchanged),
        )
        cut = f"FDR ≤ {self.fdr:g}"
        for which, face, line, label, order in (
            (less, self.colours.down, self.colours.down, f"less, {cut}", 3),
            (~less & ~more, "none", "0.5", "other", 2),
            (more, self.colours.up, self.colours.up, f"more, {cut}", 3),
        ):
            for places, marker in ((which & ~zero, "o"), (which & zero, zero_marker)):
                if marker != "o" and not places.any():
                    continue
                self.ax.scatter(
                    x[places],
                    y[places],
                    size,
                    marker=marker,
                    facecolors=face,
                    edgecolors=line,
                    linewidths=0.8,
                    label=f"{label}: {np.count_nonzero(which):,}" if marker == "o" else None,
                    zorder=order,
                    rasterized=self.size is None,
                )

    def _scale(self) -> None:
        from matplotlib.ticker import FixedLocator, NullLocator

        by_line, percent = self.size is not None, self.remaining.values
        (self.ax.set_xscale if by_line else self.ax.set_yscale)("log", base=2)
        low = 0.8 * float(percent[0]) if self.edge is None else self.edge / 1.3
        high = 1.25 * max(float(percent[-1]), 100.0)
        (self.ax.set_xlim if by_line else self.ax.set_ylim)(min(low, 80.0), high)
        step = int(np.ceil(np.log2(high / min(low, 80.0)) / 10.0))
        ticks = 100.0 * 2.0 ** np.arange(-20 * step, 20 * step, step)  # 100 % is one of them
        ticks = ticks[(ticks >= (low if self.edge is None else 1.3 * self.edge)) & (ticks <= high)]
        zero = [] if self.edge is None else [self.edge]
        axis = self._axis
        axis.set_major_locator(FixedLocator([*zero, *ticks]))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(lambda x, _at: _percent(0.0 if x == self.edge else x))
