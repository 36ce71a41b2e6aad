"""The two-sample t-test of the target sample against the reference, and its stratified form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...errors import OptionError
from ...utils.keywords import known_keywords_of_init
from ...utils.lazy_modules import LazyModule
from .base import StatisticalTest, Stratum, SufficientStatistics, TestResult, make_result
from .options import alternative_option, nan_policy_option, option, p_values_option

if TYPE_CHECKING:
    import numpy as np

    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast
    from ..samples import Sample, SamplePair
else:
    np = LazyModule("numpy")

_LOG10_2 = math.log10(2.0)
_LOG10_E = math.log10(math.e)
_SMALL = 1e-140  # below this, squared variances lose digits


@known_keywords_of_init
@dataclass(frozen=True)
class TTest(StatisticalTest):
    """The test of ``scipy.stats.ttest_ind(target, reference)``, from means and squared deviations.

    It is Student's test with pooled variance, Welch's test, or scanpy's ``t-test_overestim_var``,
    which is Welch's test with the reference taken to have as many cells as the target. Over strata,
    it tests the coefficient of the target in a linear model with a fixed effect for each stratum.

    Conditional p-values are those of the permutation test of Student's t: all allocations of the
    cells to the samples, within strata, are equally likely. They are fitted to four moments (see
    `stats/conditional/t_test.py`), or computed from the pooled values where they are small and
    moments are not enough (see `stats/conditional/t_test_values.py`). Values so large, so small or
    so nearly constant that they need exact sums have Student's p-value, which is the fit without
    skewness.
    """

    variance: str = option(
        "pooled",
        "t-test: pooled, welch or overestimated",
        "Student's test, Welch's, or scanpy's ``t-test_overestim_var``.",
        choices=("pooled", "welch", "overestimated"),
        scipy_name="equal_var",
        scipy_values={True: "pooled", False: "welch"},
        shorthands=("welch",),
        asymptotic_only=True,
    )
    p_values: str = p_values_option(
        doc=" Only the test with pooled variance has conditional ones, those of the permutation "
        "test."
    )
    alternative: str = alternative_option()
    nan_policy: str = nan_policy_option()

    metric = "t-test"
    title = "t-test"
    statistic_name = "t"
    statistic_meaning = "Student's t"
    stratified_form = "a fixed effect per stratum"
    scipy_name = "ttest_ind"
    uses_ranks = False
    needs_m2 = True

    @property
    def needs_higher(self) -> bool:
        """See the base class."""
        return self.p_values == "conditional"

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        if self.p_values != "conditional":
            return ()
        from .gene_samples import gene_samples

        return (gene_samples(kernels, block, genes, contrast, refuses_nan=self.refuses_nan),)

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        t, df = self.statistic(sides)
        admitted = self.admits(sides)
        if admitted is None or sides.target.m3 is None:
            return self._result(t, df, log10_p)
        log_p = self._log_p(measured, sides, admitted)
        return self._conditional(t, df, log_p, admitted, log10_p)

    def _log_p(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        genes: np.ndarray,
        targets: np.ndarray | None = None,
    ) -> np.ndarray:
        """Return logarithms of conditional p-values, small ones of `genes` from their values.

        Those of targets other than `targets`, a mask, may be left out.
        """
        from ..conditional.t_test import log_p_values
        from ..conditional.t_test_values import refine

        both = _of(sides.target), _of(sides.reference)
        log_p = log_p_values(*both, self.alternative)
        if targets is not None:
            log_p[~targets] = np.nan
        refine(log_p, genes, measured[0][0], *both, self.alternative)
        return log_p

    def statistic(self, sides: SamplePair) -> tuple[np.ndarray, np.ndarray]:
        """Return t and its degrees of freedom, which broadcast to (n_targets, n_genes)."""
        error, df = standard_error(sides, self.variance)
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return (sides.target.mean - sides.reference.mean) / error, df

    def _result(self, t: np.ndarray, df: np.ndarray, log10_p: bool) -> TestResult:
        from ..distributions.log_tails import log10_of, log10_student_t
        from ..distributions.student_t import survival

        if self.alternative == "less":
            tested = -t
        else:
            tested = t.copy() if self.alternative == "greater" else np.abs(t)
        p_value = survival(df, tested)
        doubled = self.alternative == "two-sided"
        if doubled:
            p_value *= 2.0
        logarithm = None
        if log10_p:
            freedom = np.broadcast_to(df, t.shape)

            def far(mask: np.ndarray) -> np.ndarray:
                found = log10_student_t(freedom.ravel()[mask], tested.ravel()[mask])
                return found + (_LOG10_2 if doubled else 0.0)

            logarithm = log10_of(p_value, far)
        return make_result(t, p_value, None, logarithm)

    def _conditional(
        self, t: np.ndarray, df: np.ndarray, log_p: np.ndarray, admitted: np.ndarray, log10_p: bool
    ) -> TestResult:
        """Return the result with conditional p-values where they are defined."""
        log_p[np.isnan(t)] = np.nan
        if not admitted.all():
            found = self._result(t, df, log10_p)
            found.p_value[:, admitted] = np.exp(log_p[:, admitted])
            if found.log10_p is not None:
                found.log10_p[:, admitted] = log_p[:, admitted] * _LOG10_E
            return make_result(t, found.p_value, None, found.log10_p)
        return make_result(t, np.exp(log_p), None, log_p * _LOG10_E if log10_p else None)

    def evaluate_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Test the target's coefficient in ``x ~ stratum + target``, by ordinary least squares."""
        if self.variance != "pooled":
            raise OptionError(
                f"variance={self.variance!r} has no stratified form: the linear model with one "
                "effect per stratum has a single variance. Pass variance='pooled', or no strata=."
            )
        effect, error, df = fixed_effect(strata, n_rows, n_genes)
        with np.errstate(divide="ignore", invalid="ignore"):
            t = effect / error
        admitted = self.admits(strata[0].sides) if strata else None
        if admitted is None or any(stratum.sides.target.m3 is None for stratum in strata):
            return self._result(t, df, log10_p)
        from ..conditional.t_test_strata import log_p_over_strata
        from ..conditional.t_test_strata_values import refine_over_strata

        # Rows of one stratum have the p-values of the test without strata.
        alone = np.bincount(np.concatenate([s.rows[s.rows >= 0] for s in strata])) == 1
        alone = np.append(alone, np.zeros(n_rows + 1 - len(alone), bool))  # the last is row -1
        log_p = np.full((n_rows, n_genes), np.nan)
        if alone.sum() < n_rows:
            parts = [
                (_of(s.sides.target), _of(s.sides.reference), np.where(alone[s.rows], -1, s.rows))
                for s in strata
            ]
            log_p = log_p_over_strata(parts, n_rows, n_genes, self.alternative)
            values = [s.measured[0][0] for s in strata]
            refine_over_strata(log_p, admitted, parts, values, self.alternative)
        for s in strata:
            its = alone[s.rows]
            if its.any():
                log_p[s.rows[its]] = self._log_p(s.measured, s.sides, admitted, its)[its]
        return self._conditional(t, df, log_p, admitted, log10_p)


def _of(sample: Sample) -> tuple[np.ndarray, ...]:
    """Return what conditional p-values need of a sample."""
    assert sample.m2 is not None
    assert sample.m3 is not None
    assert sample.m4 is not None
    return sample.n, sample.n_expressed, sample.mean, sample.m2, sample.m3, sample.m4


def standard_error(sides: SamplePair, variance: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the standard error of the difference of means and its degrees of freedom.

    Both are as in `scipy.stats.ttest_ind`.
    """
    target, reference = sides.target, sides.reference
    assert target.m2 is not None
    assert reference.m2 is not None
    n, m = target.n, reference.n
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        if variance == "pooled":
            df = n + m - 2.0
            pooled = (target.m2 + reference.m2) / df
            return np.sqrt(pooled * (1.0 / n + 1.0 / m)), df
        of_target = target.m2 / (n - 1.0) / n
        of_reference = reference.m2 / (m - 1.0)
        taken = m if variance == "welch" else n
        of_reference = of_reference / taken
        df = (of_target + of_reference) ** 2 / (
            of_target**2 / (n - 1.0) + of_reference**2 / (taken - 1.0)
        )
        # Squares of small variances underflow; squares of their shares do not.
        both = of_target + of_reference
        small = (both > 0.0) & (both < _SMALL)
        if small.any():
            shares = of_target / both, of_reference / both
            exact = 1.0 / (shares[0] ** 2 / (n - 1.0) + shares[1] ** 2 / (taken - 1.0))
            df = np.where(small, exact, df)
        df = np.where(np.isnan(df), 1.0, df)  # both variances zero: any df will do
        return np.sqrt(of_target + of_reference), df


def fixed_effect(
    strata: Sequence[Stratum], n_rows: int, n_genes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the target's effect in ``x ~ stratum + target``, its standard error and its df.

    The residual sum of squares is the sum within the samples plus ``w (d - effect)^2`` for each
    stratum, with the weights and differences of :func:`difference_over_strata`.
    """
    effect, weights = difference_over_strata(strata, n_rows, n_genes)
    inside = np.zeros((n_rows, n_genes))
    df = np.full((n_rows, 1), -1.0)
    for stratum in strata:
        target, reference = stratum.sides.target, stratum.sides.reference
        assert target.m2 is not None
        assert reference.m2 is not None
        used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
        w = (target.n * reference.n / (target.n + reference.n))[used]
        inside[rows] += (target.m2 + reference.m2)[used]
        inside[rows] += w * ((target.mean - reference.mean)[used] - effect[rows]) ** 2
        df[rows] += (target.n + reference.n)[used] - 1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        return effect, np.sqrt(inside / df / weights), df


def difference_over_strata(
    strata: Sequence[Stratum], n_rows: int, n_genes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the target's effect in ``x ~ stratum + target``, and the sum of the strata's weights.

    With m target and n reference cells in a stratum and the difference d of their means, the
    effect is the mean of d over strata, weighted by ``w = m n / (m + n)``.
    """
    shape = n_rows, n_genes
    weights, weighted = np.zeros(shape), np.zeros(shape)
    low, high = np.full(shape, np.inf), np.full(shape, -np.inf)
    for stratum in strata:
        target, reference = stratum.sides.target, stratum.sides.reference
        used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
        w = target.n * reference.n / (target.n + reference.n)
        weights[rows] += w[used]
        difference = (target.mean - reference.mean)[used]
        weighted[rows] += w[used] * difference
        low[rows] = np.minimum(low[rows], difference)
        high[rows] = np.maximum(high[rows], difference)
    # Rounding must not change a difference that all strata share.
    with np.errstate(invalid="ignore"):  # perhaps no stratum has both sides
        return np.clip(weighted / weights, low, high), weights
