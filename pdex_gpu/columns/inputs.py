"""The input of columns that are made gene by gene: comparisons of samples, or strata of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeVar

import numpy as np

from ..stats.samples import SamplePair
from ..stats.two_sample.base import (
    StatisticalTest,
    Stratum,
    SufficientStatistics,
    TestResult,
)

_T = TypeVar("_T")


@dataclass(frozen=True)
class KernelOutput:
    """The kernel output of a contrast, apart from moments; shape (n_targets, n_genes) each.

    Attributes
    ----------
    own : tuple of numpy.ndarray
        What the test itself measured.
    u2 : numpy.ndarray or None
        Twice the statistic U, if it is known.
    placements : tuple of numpy.ndarray, optional
        Sums of squared placements of target and reference, and the term of ties, if they are
        needed.
    """

    own: SufficientStatistics
    u2: np.ndarray | None = None
    placements: tuple[np.ndarray, np.ndarray, np.ndarray] | None = None

    def of(self, genes: slice | np.ndarray) -> KernelOutput:
        """Select genes."""
        placements = None
        if self.placements is not None:
            target, reference, ties = self.placements
            placements = target[:, genes], reference[:, genes], ties[:, genes]
        return KernelOutput(
            tuple(array[:, genes] for array in self.own),
            None if self.u2 is None else self.u2[:, genes],
            placements,
        )


class Values:
    """The values that columns are made from, for some genes of all comparisons of a contrast.

    Attributes
    ----------
    test_result : TestResult
    shown : SamplePair
        The samples; over strata, all cells of the strata that have both sides. Squared deviations
        may be missing, see `PairValues.sides`.
    means : tuple of numpy.ndarray
        The means of `shown`, in the unit of scaled samples: see `in_units`.
    n_strata : numpy.ndarray
        Number of strata with both sides; of a single pair of samples, whether both have cells.
    level : float
        Level of confidence intervals.
    """

    def __init__(
        self,
        test_result: TestResult,
        shown: SamplePair,
        means: tuple[np.ndarray, np.ndarray],
        n_strata: np.ndarray,
        exponent: np.ndarray | None,
        level: float,
    ) -> None:
        self.test_result = test_result
        self.shown = shown
        self.means = means
        self.n_strata = n_strata
        self.level = level
        self._exponent = exponent
        self._known: dict[Any, Any] = {}

    def once(self, formula: Callable[[Self], _T]) -> _T:
        """Return ``formula(self)``, computed once for all columns that share it."""
        if formula not in self._known:
            self._known[formula] = formula(self)
        found: _T = self._known[formula]
        return found

    def in_units(self, values: np.ndarray) -> np.ndarray:
        """Rescale what was made from scaled samples to the unit of the matrix."""
        if self._exponent is None:
            return values
        with np.errstate(over="ignore", under="ignore"):
            found: np.ndarray = np.ldexp(values, self._exponent)
        return found


class PairValues(Values):
    """The values that columns are made from where two samples are compared.

    Attributes
    ----------
    sides : SamplePair
        The samples, with squared deviations if these are needed. Values that are very large or
        small, or vary very little, are scaled, and differ from the original ones by a constant:
        see `in_units`. Numbers of cells are safe to divide by.
    difference : numpy.ndarray or None
        The difference of means, where it is known without rounding.
    """

    def __init__(
        self,
        test_result: TestResult,
        shown: SamplePair,
        sides: SamplePair,
        kernels: KernelOutput,
        *,
        means: tuple[np.ndarray, np.ndarray],
        exponent: np.ndarray | None,
        difference: np.ndarray | None,
        level: float,
    ) -> None:
        there = (shown.target.n > 0.0) & (shown.reference.n > 0.0)
        super().__init__(test_result, shown, means, there, exponent, level)
        self.sides = sides
        self.difference = difference
        self._kernels = kernels

    def judged_by(self, test: StatisticalTest) -> TestResult:
        """Return what another test makes of the same measurements."""
        return test.evaluate(self._kernels.own, self.sides)

    @property
    def u2(self) -> np.ndarray:
        """Return twice the statistic U; the column needs ``Needs.U``."""
        assert self._kernels.u2 is not None
        return self._kernels.u2

    @property
    def placements(self) -> tuple[np.ndarray, np.ndarray]:
        """Return sums of squared placements; the column needs ``Needs.PLACEMENTS``."""
        assert self._kernels.placements is not None
        return self._kernels.placements[:2]

    @property
    def ties(self) -> np.ndarray:
        """Return the sum of ``t^3 - t`` over values; the column needs ``Needs.PLACEMENTS``."""
        assert self._kernels.placements is not None
        return self._kernels.placements[2]


class StrataValues(Values):
    """The values that columns are made from where rows combine several strata.

    Attributes
    ----------
    strata : sequence of Stratum
        As `PairValues.sides`; only rows whose both sides have cells have a row of the result.
    shape : tuple of int
        Number of rows and genes.
    """

    def __init__(
        self,
        test_result: TestResult,
        shown: SamplePair,
        strata: Sequence[Stratum],
        kernels: Sequence[KernelOutput],
        shape: tuple[int, int],
        *,
        means: tuple[np.ndarray, np.ndarray],
        exponent: np.ndarray | None,
        level: float,
    ) -> None:
        n_strata = np.zeros((shape[0], 1))
        for stratum in strata:
            n_strata[stratum.rows[stratum.rows >= 0]] += 1.0
        super().__init__(test_result, shown, means, n_strata, exponent, level)
        self.strata = strata
        self.shape = shape
        self._kernels = kernels

    def judged_by(self, test: StatisticalTest) -> TestResult:
        """Return what another test makes of the same measurements."""
        return test.evaluate_strata(self.strata, *self.shape)

    @property
    def u2(self) -> list[np.ndarray]:
        """Return twice the statistic U of each stratum; the column needs ``Needs.U``."""
        found = []
        for its in self._kernels:
            assert its.u2 is not None
            found.append(its.u2)
        return found
