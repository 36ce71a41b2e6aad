"""The two-sample Anderson-Darling test, and its combination over strata."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ...errors import OptionError
from ...utils.keywords import known_keywords_of_init
from ...utils.lazy_modules import LazyModule
from .base import Caveat, StatisticalTest, Stratum, SufficientStatistics, TestResult, make_result
from .options import nan_policy_option, option, p_values_option

if TYPE_CHECKING:
    import numpy as np

    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast
    from ..samples import SamplePair
else:
    np = LazyModule("numpy")

#: Variance of A2 under the null in the large-sample limit: sum of 2 / (j (j + 1))^2.
_LIMIT_VARIANCE = 2.0 * (math.pi**2 - 9.0) / 3.0


@known_keywords_of_init
@dataclass(frozen=True)
class AndersonDarling(StatisticalTest):
    """The test of ``scipy.stats.anderson_ksamp([target, reference])``, normalised as in scipy.

    The p-value is conditional on the pooled values, see
    ``stats/conditional/anderson_darling.py``. Alternatively it comes from the limiting distribution
    of the statistic (Scholz and Stephens 1987, section 5); or it is scipy's, interpolated in their
    table and so in [0.001, 0.25]. Over strata, the statistic is the normalised sum of A2 (Scholz
    and Zhu 2019, R package kSamples). Conditional p-values then allocate cells within strata
    (``stats/conditional/anderson_darling_strata.py``); others come from the limiting distribution
    of that sum.
    """

    variant: str = option(
        "midrank",
        "anderson: midrank, right or continuous",
        "The empirical distribution function at ties: midrank or right-continuous, or the form "
        "for continuous values.",
        choices=("midrank", "right", "continuous"),
        scipy_name="midrank",
        scipy_values={True: "midrank", False: "right"},
        asymptotic_only=True,
    )
    p_values: str = p_values_option(
        "interpolated",
        doc=" ``interpolated`` (Anderson-Darling) is scipy's table, from 0.001 to 0.25.",
    )
    nan_policy: str = nan_policy_option()

    metric = "anderson"
    title = "Anderson-Darling test"
    statistic_name = "the normalised A2"
    statistic_meaning = "the normalised k-sample A² statistic"
    stratified_form = "the sum of A2"
    scipy_name = "anderson_ksamp"
    scipy_takes_list = True
    caveats = (
        Caveat(
            "Anderson-Darling p-values are interpolated in a table from 0.001 to 0.25: smaller and "
            "larger ones are set to these limits. Other p_values= have no such limits.",
            "warning",
            {"p_values": "interpolated"},
        ),
        Caveat(
            "The Anderson-Darling test assumes continuous values: if most are tied, as for genes "
            "detected in few cells, p-values are too small. Those of p_values='conditional' are "
            "not.",
            "note",
            {"p_values": "asymptotic"},
        ),
    )

    def check_calibration(self) -> None:
        """Raise OptionError if p-values are capped."""
        if self.p_values == "interpolated":
            raise OptionError(
                "p_values='interpolated' caps p-values to [0.001, 0.25], so their distribution "
                "cannot be calibrated. Leave it out, or pass p_values='asymptotic'."
            )

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        a2 = kernels.anderson_darling(block, genes, contrast, variant=self.variant)
        if self.p_values != "conditional":
            return (a2,)
        from .gene_samples import gene_samples

        return a2, gene_samples(kernels, block, genes, contrast, refuses_nan=self.refuses_nan)

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        a2, *samples = measured
        result = self.finish(a2, sides.target.n, sides.reference.n, log10_p=log10_p)
        admitted = self.admits(sides)
        if admitted is None:
            return result
        from ..conditional.anderson_darling import LEAST, log_p_values

        by_gene = np.ascontiguousarray(a2.T)
        log_p = np.full(by_gene.shape, np.nan)
        for c in np.flatnonzero((a2 >= LEAST).any(axis=0) & admitted).tolist():
            its = samples[0][0, c]
            log_p[c] = log_p_values(
                its.values, its.starts, its.stops, its.n_cells, by_gene[c],
                pooled=its.pooled, rest=its.rest,
            )  # fmt: skip
        return self._replaced(result, np.ascontiguousarray(log_p.T))

    def _replaced(self, result: TestResult, log_p: np.ndarray) -> TestResult:
        """Replace p-values where log p is not NaN, in place."""
        judged = ~np.isnan(log_p)
        result.p_value[judged] = np.exp(log_p[judged])
        if result.log10_p is not None:
            result.log10_p[judged] = log_p[judged] / math.log(10.0)
        return result

    def finish(
        self,
        a2: np.ndarray,
        n_target: np.ndarray,
        n_reference: np.ndarray,
        *,
        log10_p: bool = False,
    ) -> TestResult:
        """Return the normalised statistic and the p-value.

        Parameters
        ----------
        a2 : numpy.ndarray, shape (n_targets, n_genes)
            A2, NaN where undefined.
        n_target, n_reference : numpy.ndarray, shape (n_targets or 1, 1), float64
            Number of cells.
        """
        statistic = (a2 - 1.0) / _sigmas(n_target, n_reference)
        if self.p_values == "interpolated":
            p_value = _interpolated(statistic)
            return make_result(statistic, p_value, None, np.log10(p_value) if log10_p else None)
        return self._in_the_limit(statistic, 1, log10_p)

    def _in_the_limit(
        self, statistic: np.ndarray, n_strata: int | np.ndarray, log10_p: bool
    ) -> TestResult:
        from ..distributions.anderson_darling import log_survival

        spread = np.sqrt(_LIMIT_VARIANCE * n_strata)
        logarithm = log_survival(n_strata + spread * statistic, n_strata)
        p_value = np.exp(logarithm)
        logarithm *= 1.0 / math.log(10.0)
        return make_result(statistic, p_value, None, logarithm if log10_p else None)

    def evaluate_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Return the normalised sum of A2 over the strata that define it, and its p-value."""
        if self.p_values == "interpolated":
            raise OptionError(
                "p_values='interpolated' uses scipy's table, which has no stratified form. With "
                "strata=, use p_values='asymptotic'."
            )
        total, variance = np.zeros((n_rows, n_genes)), np.zeros((n_rows, n_genes))
        n_strata = np.zeros((n_rows, n_genes), np.int64)
        parts = []
        for stratum in strata:
            n, m = stratum.sides.target.n, stratum.sides.reference.n
            sigma = _sigmas(n, m)
            a2 = np.where(np.isnan(sigma), np.nan, stratum.measured[0])
            there = ~np.isnan(a2)
            used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
            total[rows] += np.where(there, a2 - 1.0, 0.0)[used]
            variance[rows] += np.where(there, sigma * sigma, 0.0)[used]
            n_strata[rows] += there[used]
            if self.p_values == "conditional":
                parts.append((a2, stratum.measured[1][0], n, m, stratum.rows))
        with np.errstate(divide="ignore", invalid="ignore"):
            statistic = total / np.sqrt(variance)
        result = self._in_the_limit(statistic, np.maximum(n_strata, 1), log10_p)
        admitted = self.admits(strata[0].sides) if strata else None
        if admitted is None or not admitted.any():
            return result
        from ..conditional.anderson_darling_strata import judge_strata

        return self._replaced(result, judge_strata((n_rows, n_genes), parts, admitted))


def _interpolated(statistic: np.ndarray) -> np.ndarray:
    """Return p-values interpolated as scipy does."""
    # Critical values for two samples (Scholz and Stephens 1987, table 2): b0 + b1 + b2.
    critical = (
        np.array([0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085])
        + np.array([-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615])
        + np.array([-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154])
    )
    level = np.array([0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001])
    fit = np.polyfit(critical, np.log(level), 2)
    inside = np.clip(statistic, critical[0], critical[-1])
    p_value: np.ndarray = np.exp(np.polyval(fit, inside))
    p_value[statistic < critical[0]] = level[0]
    p_value[statistic > critical[-1]] = level[-1]
    return p_value


def _sigmas(n_target: np.ndarray, n_reference: np.ndarray) -> np.ndarray:
    """Return :func:`_sigma` of each pair of sizes, shape (n_targets, 1)."""
    n, m = (sizes.ravel().tolist() for sizes in np.broadcast_arrays(n_target, n_reference))
    return np.array([_sigma(int(b), int(a)) for a, b in zip(n, m, strict=True)])[:, None]


@lru_cache(maxsize=65536)
def _sigma(n_ref: int, n_target: int) -> float:
    """Return the standard deviation of A2 under the null (eq. 4, k = 2); NaN below four cells."""
    n = n_ref + n_target
    if n < 4:
        return math.nan
    inverse = 1.0 / n_ref + 1.0 / n_target
    sums, g = _harmonic(n)
    h = sums + 1.0
    a = (4 * g - 6) + (10 - 6 * g) * inverse
    b = (2 * g - 4) * 4 + 16 * h + (2 * g - 14 * h - 4) * inverse - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * 4 + (4 * h - 4 * g + 6) * 2 + (2 * h - 6) * inverse + 4 * h
    d = (2 * h + 6) * 4 - 8 * h
    variance = (a * n**3 + b * n**2 + c * n + d) / ((n - 1.0) * (n - 2.0) * (n - 3.0))
    return math.sqrt(variance)


@lru_cache(maxsize=65536)
def _harmonic(n: int) -> tuple[float, float]:
    """Return ``sum 1/i`` for i = 2 ... n - 1, and the double sum g of eq. 4."""
    sums = (1.0 / np.arange(n - 1, 1, -1)).cumsum()
    return float(sums[-1]), float((sums / np.arange(2, n)).sum())
