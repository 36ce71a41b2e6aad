"""Results of a calibration: distributions of p-values, inflation, false positives."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from ..utils.formats import number_text

if TYPE_CHECKING:
    import pandas

#: Nominal levels at which false positives are counted.
LEVELS = (0.05, 0.01, 0.001)

N_BINS = 20

_MEDIAN_CHI2 = special.chdtri(1.0, 0.5)  # 0.4549
_N_QUANTILES = 400
_BYTES_A_PASS = 1 << 26


@dataclass(frozen=True, eq=False)
class Distribution:
    """The distribution of the p-values of informative tests, uniform for a perfect test.

    Attributes
    ----------
    n_tests : int
    inflation : float
        Genomic control's lambda (Devlin and Roeder 1999): the median of the chi-square(1)
        quantiles of the p-values, over the median of that distribution, 0.4549. Above 1 the middle
        p-values are too small, below 1 too large; for small p-values see `rates`. NaN without
        tests.
    ks_distance : float
        Largest distance of the distribution function from the diagonal, 0 to 1; NaN without tests.
    rates : numpy.ndarray, shape (3,), float64
        Share of p-values at or below each of `LEVELS`; NaN without tests.
    histogram : numpy.ndarray, shape (20,), int64
        Number of p-values in bins of width 0.05.
    """

    n_tests: int
    inflation: float
    ks_distance: float
    rates: np.ndarray
    histogram: np.ndarray


def distribution(p_values: np.ndarray) -> Distribution:
    """Describe p-values, shape (n,), float64, ascending."""
    n = len(p_values)
    histogram = np.histogram(p_values, N_BINS, (0.0, 1.0))[0].astype(np.int64)
    if n == 0:
        return Distribution(0, np.nan, np.nan, np.full(len(LEVELS), np.nan), histogram)
    middle = special.chdtri(1.0, p_values[[(n - 1) // 2, n // 2]])
    rates = np.searchsorted(p_values, LEVELS, side="right") / n
    return Distribution(
        n, float(middle.mean() / _MEDIAN_CHI2), _ks_distance(p_values), rates, histogram
    )


def _ks_distance(p_values: np.ndarray) -> float:
    n, found = len(p_values), 0.0
    step = _BYTES_A_PASS // 8
    for start in range(0, n, step):
        p = p_values[start : start + step]
        below = np.arange(start, start + len(p)) / n
        found = max(found, float(np.max(p - below)), float(np.max(below + 1.0 / n - p)))
    return found


@dataclass(frozen=True, eq=False)
class Quantiles:
    """Order statistics of p-values, thinned, for a QQ plot.

    Attributes
    ----------
    ranks : numpy.ndarray, shape (n,), int64
        Ascending from 1 (the smallest p-value), about evenly spaced on a logarithmic scale.
    expected : numpy.ndarray, shape (n,), float64
        ``-log10((rank - 0.5) / n_tests)``.
    observed : numpy.ndarray, shape (n,), float64
        ``-log10`` of the p-values; for p-values that underflow, of the smallest number above 0.
    n_tests : int
    """

    ranks: np.ndarray
    expected: np.ndarray
    observed: np.ndarray
    n_tests: int

    def band(self, level: float = 0.95) -> tuple[np.ndarray, np.ndarray]:
        """Return the band that each order statistic lies in with this probability, in -log10.

        For n independent uniform variables, the k-th smallest has the distribution
        Beta(k, n + 1 - k).

        Returns
        -------
        tuple of numpy.ndarray, shape (n,), float64
            Lower and upper end.
        """
        tail = (1.0 - level) / 2.0
        after = self.n_tests + 1.0 - self.ranks
        high = -np.log10(special.betaincinv(self.ranks, after, tail))
        low = -np.log10(special.betaincinv(self.ranks, after, 1.0 - tail))
        return low, high


def quantiles(p_values: np.ndarray) -> Quantiles:
    """Thin the order statistics of p-values, shape (n,), float64, ascending."""
    n = len(p_values)
    ranks = np.arange(1, n + 1, dtype=np.int64)
    if n > _N_QUANTILES:
        ranks = np.unique(np.rint(np.geomspace(1, n, _N_QUANTILES)).astype(np.int64))
    observed = -np.log10(np.maximum(p_values[ranks - 1], np.nextafter(0.0, 1.0)))
    return Quantiles(ranks, -np.log10((ranks - 0.5) / max(n, 1)), observed + 0.0, n)


@dataclass(frozen=True, eq=False, repr=False)
class Calibration:
    """The calibration of a screen's p-values: tests in which both sides are control cells.

    A test is informative if it can be judged and the gene is not constant over both samples. Other
    tests have p-value 1 and are left out of everything except the correction for multiple testing.
    Tests with p-value 1 for other reasons, such as ties, are part of the distribution: for sparse
    genes, few different p-values are possible, so that lambda differs from 1 even for a perfect
    test. `by_expression` shows sparse genes separately.

    Attributes
    ----------
    groups : numpy.ndarray, shape (n_groups,), object
        Names of the mock perturbations, from ``"mock 1"``.
    repeats : numpy.ndarray, shape (n_groups,), int64
        Random split that each belongs to, from 0. Splits share cells.
    targets : numpy.ndarray, shape (n_groups,), object
        Real target that each takes its size from.
    n_target_cells, n_cells : numpy.ndarray, shape (n_groups,), int64
        Number of cells of that target that have controls to compare with, and of the mock
        perturbation: fewer if the reference has too few.
    n_reference_cells : numpy.ndarray, shape (n_groups,), int64
        Number of cells of the mock control.
    n_uninformative : numpy.ndarray, shape (n_groups,), int64
        Number of tests that are left out, as above.
    n_false_positives : numpy.ndarray, shape (n_groups,), int64
        Number of rows with ``fdr <= alpha``.
    by_group : tuple of Distribution, n_groups
    total : Distribution
        All tests of all splits.
    by_expression : tuple of Distribution
        Thirds of the genes that have an informative test: low, middle and high mean.
    quantiles : Quantiles
        All tests.
    n_targets : int
        Number of real targets, each the model of at most one mock perturbation per split.
    control_cells : numpy.ndarray, shape (n_control,), int64
        Rows of the control cells in the data.
    assignment : numpy.ndarray, shape (n_repeats, n_control), int64
        Mock perturbation of each control cell, as a position in `groups`; -1 for the mock control,
        -2 for the other cells of a unit that a mock perturbation took only some cells from.
    alpha : float
    metric : str
    reference : str
    provenance : dict
        Provenance of the first split's comparison.
    """

    groups: np.ndarray
    repeats: np.ndarray
    targets: np.ndarray
    n_target_cells: np.ndarray
    n_cells: np.ndarray
    n_reference_cells: np.ndarray
    n_uninformative: np.ndarray
    n_false_positives: np.ndarray
    by_group: tuple[Distribution, ...]
    total: Distribution
    by_expression: tuple[Distribution, Distribution, Distribution]
    quantiles: Quantiles
    n_targets: int
    control_cells: np.ndarray
    assignment: np.ndarray
    alpha: float
    metric: str
    reference: str
    provenance: dict[str, Any]

    @property
    def n_repeats(self) -> int:
        """Return the number of random splits."""
        return len(self.assignment)

    @property
    def inflation(self) -> np.ndarray:
        """Return lambda of each mock perturbation, shape (n_groups,), float64."""
        return np.array([d.inflation for d in self.by_group])

    @property
    def rates(self) -> np.ndarray:
        """Return the share of p-values at or below `LEVELS`, shape (n_groups, 3), float64."""
        return np.array([d.rates for d in self.by_group])

    @property
    def histograms(self) -> np.ndarray:
        """Count p-values in bins of width 0.05, shape (n_groups, 20), int64."""
        return np.array([d.histogram for d in self.by_group])

    def table(self) -> pandas.DataFrame:
        """Return a pandas frame with one row per mock perturbation."""
        import pandas as pd

        columns: dict[str, Any] = {
            "group": self.groups,
            "repeat": self.repeats,
            "target": self.targets,
            "n_target_cells": self.n_target_cells,
            "n_cells": self.n_cells,
            "n_reference_cells": self.n_reference_cells,
            "n_tests": np.array([d.n_tests for d in self.by_group], np.int64),
            "n_uninformative": self.n_uninformative,
            "lambda": self.inflation,
            "ks_distance": np.array([d.ks_distance for d in self.by_group]),
        }
        columns |= {f"rate_{level}": self.rates[:, k] for k, level in enumerate(LEVELS)}
        columns["n_false_positives"] = self.n_false_positives
        return pd.DataFrame(columns)

    def summary(self) -> dict[str, Any]:
        """Return overall results, as plain numbers and text."""
        total = self.total
        found: dict[str, Any] = {
            "metric": self.metric,
            "reference": self.reference,
            "n_control_cells": len(self.control_cells),
            "n_targets": self.n_targets,
            "n_groups": len(self.groups),
            "n_repeats": self.n_repeats,
            "n_tests": total.n_tests,
            "n_uninformative": int(self.n_uninformative.sum()),
            "lambda": total.inflation,
        }
        for name, part in zip(("low", "middle", "high"), self.by_expression, strict=True):
            found[f"lambda_{name}_expression"] = part.inflation
        found["ks_distance"] = total.ks_distance
        found |= {f"rate_{level}": float(total.rates[k]) for k, level in enumerate(LEVELS)}
        return found | {
            "alpha": self.alpha,
            "n_false_positives": int(self.n_false_positives.sum()),
            "share_of_groups_with_false_positives": float(np.mean(self.n_false_positives > 0)),
        }

    def plot(self, ax: Any = None) -> Sequence[Any]:
        """Draw a QQ plot with a 95 % band of independent uniforms, and a histogram of p-values.

        P-values of a screen are not independent (genes are correlated, and mock perturbations
        share their control), so they leave the band more often than one time in 20.

        Parameters
        ----------
        ax : matplotlib.axes.Axes or pair of them, optional
            Axes of the QQ plot, or of both plots; by default those of a new figure.

        Returns
        -------
        tuple of matplotlib.axes.Axes
            Axes of the QQ plot, and of the histogram if it is drawn.

        Raises
        ------
        MissingDependencyError
            Without matplotlib (extra ``plot``).
        OptionError
            If `ax` is neither axes nor a pair.
        """
        from ..pl.calibration import calibration_pair

        return calibration_pair(self, ax)

    def to_json(self, path: str | os.PathLike[str]) -> None:
        """Write everything to a file, completely or not at all; an existing file is replaced.

        Parameters
        ----------
        path : str or path-like
            JSON in UTF-8: an object with the attributes of this class, and ``format``, ``version``
            (of the layout) and ``pdex_gpu``. NaN is null, infinity is text.

        Raises
        ------
        MissingFileError
            The folder does not exist.
        OutputError
            The disk is full or failed, or permission is missing.
        """
        from .serialize import write_json

        write_json(self, path)

    @classmethod
    def from_json(cls, path: str | os.PathLike[str]) -> Calibration:
        """Read a file that :meth:`to_json` wrote; all numbers are the same to the bit.

        Labels that are neither text nor numbers were written as text. In `provenance`, tuples
        have become lists.

        Raises
        ------
        MissingFileError
            The file does not exist.
        OptionError
            It is a folder.
        FileFormatError
            It is damaged, not a calibration of this package, or written by a newer version of it.
        """
        from .serialize import read_json

        return read_json(path)

    def __repr__(self) -> str:
        total, n_false = self.total, self.n_false_positives
        inflation, rate = number_text(total.inflation, ".3g"), number_text(total.rates[0], ".2%")
        splits = "" if self.n_repeats == 1 else f" in {self.n_repeats} random splits"
        return (
            f"Calibration: {self.metric}, {len(self.groups):,} mock perturbations of "
            f"{_range(self.n_cells)} control cells against {_range(self.n_reference_cells)} "
            f"others{splits}, modelled on {self.n_targets:,} targets\n"
            f"lambda {inflation} (1 if p-values are right); p <= 0.05 in "
            f"{rate} of {total.n_tests:,} tests; fdr <= {self.alpha:g}, all of them "
            f"false, in {n_false.sum():,} tests of {np.count_nonzero(n_false):,} mock perturbations"
        )


def _range(values: np.ndarray) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low:,}" if low == high else f"{low:,}-{high:,}"
