"""The Wilcoxon rank-sum (Mann-Whitney U) test, and van Elteren's test over strata."""

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
    from scipy import special

    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast
    from ..samples import SamplePair
else:
    np, special = LazyModule("numpy"), LazyModule("scipy.special")

#: Up to this many cells on one side, ``method="auto"`` is exact where no values are tied (scipy).
AUTO_EXACT = 8

# Largest number of additions allowed for an exact distribution.
_EXACT_REACH = 500_000_000

_LOG10_2 = math.log10(2.0)
_LN10 = math.log(10.0)


@known_keywords_of_init
@dataclass(frozen=True)
class Wilcoxon(StatisticalTest):
    """The test of ``scipy.stats.mannwhitneyu(target, reference, ...)``, from U and the tie term.

    P-values are conditional on the number of expressing cells and on the ties
    (``stats/conditional/wilcoxon.py``); or scipy's, from the normal approximation with
    tie-corrected variance or the exact distribution of U. Over strata it is van Elteren's test
    (1960): the standardised sum of U / (N + 1) over strata of N cells. Conditional p-values then
    allocate cells within strata (``stats/conditional/wilcoxon_strata.py``).
    """

    continuity: bool = option(
        True,
        "Wilcoxon: no continuity correction",
        "Continuity correction of the normal approximation.",
        scipy_name="use_continuity",
        asymptotic_only=True,
    )
    tie_correction: bool = option(
        True,
        "Wilcoxon: no tie correction",
        "Correction of the variance for ties.",
        asymptotic_only=True,
    )
    alternative: str = alternative_option()
    method: str = option(
        "auto",
        "Wilcoxon: auto, asymptotic or exact",
        f"``auto`` is exact if a side has at most {AUTO_EXACT} cells and no values are tied, as in "
        "scipy. ``exact`` is refused where it would take too long.",
        choices=("auto", "asymptotic", "exact"),
        objects_run_in_scipy=True,
        asymptotic_only=True,
    )
    p_values: str = p_values_option(
        doc=f" Both are exact without ties and with at most {AUTO_EXACT} cells on a side."
    )
    nan_policy: str = nan_policy_option()

    metric = "wilcoxon"
    title = "Wilcoxon rank-sum test"
    statistic_name = "U of the target"
    statistic_meaning = "Mann-Whitney U of the perturbation"
    stratified_form = "van Elteren's test"
    scipy_name = "mannwhitneyu"
    has_z = True
    gives_u2 = True

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        sums = kernels.rank_sums(block, genes, contrast, lowest=self.needs_lowest)
        if sums.lowest is None:
            return sums.u2, sums.ties
        return sums.u2, sums.ties, sums.lowest

    @property
    def needs_lowest(self) -> bool:
        """Return whether numbers of cells at the lowest values are needed."""
        return self.p_values == "conditional"

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        u2, ties, *lowest = measured
        found = self.finish(u2, ties, sides.target.n, sides.reference.n, z=z, log10_p=log10_p)
        admitted = self.admits(sides)
        if admitted is not None and admitted.any():
            self._condition(found, u2, ties, lowest[0], sides, admitted)
        return found

    def _condition(
        self,
        found: TestResult,
        u2: np.ndarray,
        ties: np.ndarray,
        lowest: np.ndarray,
        sides: SamplePair,
        admitted: np.ndarray,
    ) -> None:
        """Replace the p-values of admitted genes by conditional ones, in place."""
        from ..conditional.wilcoxon import judge

        n, m = sides.target.n, sides.reference.n
        exact = ((n <= AUTO_EXACT) | (m <= AUTO_EXACT)) & (ties == 0)
        log_p = None
        if found.log10_p is not None or found.z is not None:
            log_p = np.full(found.p_value.shape, np.nan)
        judge(
            found.p_value,
            u2,
            ties,
            lowest,
            n,
            m,
            sides.target.n_expressed,
            sides.reference.n_expressed,
            admitted & ~exact,
            self.alternative,
            log_p,
        )
        if log_p is None:
            return
        exact &= admitted
        with np.errstate(divide="ignore"):  # never 0 with so few cells
            np.copyto(log_p, np.log(found.p_value), where=exact)
        self._follow(found, log_p, u2 - n * m)

    def _follow(self, found: TestResult, log_p: np.ndarray, shift: np.ndarray) -> None:
        """Let log10 p and z follow from log p where that is not NaN; `shift` has the signs."""
        replaced = ~np.isnan(log_p)
        if found.log10_p is not None:
            found.log10_p[replaced] = log_p[replaced] / _LN10
        if found.z is not None:
            found.z[replaced] = self._deviate(log_p[replaced], np.sign(shift[replaced]))

    def _deviate(self, log_p: np.ndarray, shift: np.ndarray) -> np.ndarray:
        """Return the normal deviates with these p-values; `shift` has the signs of the shifts."""
        if self.alternative == "two-sided":
            return shift * -special.ndtri_exp(log_p - math.log(2.0))
        deviate = special.ndtri_exp(log_p)
        return deviate if self.alternative == "less" else -deviate

    def finish(
        self,
        u2: np.ndarray,
        ties: np.ndarray,
        n_target: np.ndarray,
        n_reference: np.ndarray,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Return U of the target sample and its p-value.

        Parameters
        ----------
        u2, ties : numpy.ndarray, shape (n_targets, n_genes)
            As in ``pdex_gpu.backends.outputs.RankSums``.
        n_target, n_reference : numpy.ndarray, shape (n_targets or 1, 1), float64
            Number of cells.
        """
        n = n_target + n_reference
        pairs = n_target * n_reference
        u = u2 * 0.5
        if self.alternative == "greater":
            tested = u
        else:
            tested = pairs - u
            if self.alternative == "two-sided":
                np.maximum(u, tested, out=tested)
        # In scipy's order of operations, to agree to the last bits; in place, as arrays are large.
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.tie_correction:
                spread = ties / (n * (n - 1))
                np.subtract(n + 1, spread, out=spread)
                spread *= pairs / 12
            else:
                spread = np.broadcast_to((n + 1) * (pairs / 12), u.shape).copy()
            np.sqrt(spread, out=spread)
            deviate = tested - pairs / 2
            if self.continuity:
                deviate -= 0.5
            deviate /= spread
            signed = self._signed(u - pairs / 2, spread) if z else None
        np.negative(deviate, out=deviate)
        kept = deviate.copy() if log10_p else None
        p_value = special.ndtr(deviate, out=deviate)
        exact = self._exact(p_value, tested, ties, n_target, n_reference)
        if self.alternative == "two-sided":
            p_value *= 2.0
        np.clip(p_value, 0.0, 1.0, out=p_value)
        logarithm = None
        if kept is not None:
            logarithm = self._log10(p_value, kept)
            for t, genes in exact.items():
                self._log10_exact(logarithm[t], p_value[t], tested[t], genes,
                                  int(np.broadcast_to(n_target, u.shape)[t, 0]),
                                  int(np.broadcast_to(n_reference, u.shape)[t, 0]))  # fmt: skip
        return make_result(u, p_value, signed, logarithm)

    def _signed(self, excess: np.ndarray, spread: np.ndarray) -> np.ndarray:
        """Return the deviate with the sign of the shift; 0 where there is no spread."""
        if self.continuity and self.alternative == "two-sided":
            excess = np.sign(excess) * np.maximum(np.abs(excess) - 0.5, 0.0)
        elif self.continuity:
            excess = excess + (0.5 if self.alternative == "less" else -0.5)
        found = excess / spread
        found[spread == 0.0] = 0.0
        return found

    def _log10(self, p_value: np.ndarray, negative: np.ndarray) -> np.ndarray:
        """Return log10 of p-values, given the negated deviates that they were computed from."""
        from ..distributions.log_tails import log10_normal, log10_of

        doubled = _LOG10_2 if self.alternative == "two-sided" else 0.0
        return log10_of(p_value, lambda far: log10_normal(-negative.ravel()[far]) + doubled)

    def _log10_exact(
        self,
        logarithm: np.ndarray,
        p_value: np.ndarray,
        tested: np.ndarray,
        genes: np.ndarray,
        n_target: int,
        n_reference: int,
    ) -> None:
        """Correct the logarithms of exact p-values that underflow."""
        from ..distributions.exact_u import log10_survival

        doubled = _LOG10_2 if self.alternative == "two-sided" else 0.0
        m, n = min(n_target, n_reference), max(n_target, n_reference)
        for j in np.flatnonzero(genes & (p_value < 1e-290)).tolist():
            u = int(tested[j])
            logarithm[j] = log10_survival(m, n, u) + doubled

    def _check_reach(self, m: int, n: int) -> None:
        if self.method == "exact" and min(m, n) * m * n > _EXACT_REACH:
            raise OptionError(
                f"method='exact' would take too long for groups of {n} and {m} cells: the product "
                f"of both sizes and the smaller one is {min(m, n) * m * n:,}, above the limit of "
                f"{_EXACT_REACH:,}. Use method='auto', which is exact if a group has at most "
                f"{AUTO_EXACT} cells and no values are tied, or 'asymptotic'."
            )

    def _exact(
        self,
        p_value: np.ndarray,
        tested: np.ndarray,
        ties: np.ndarray,
        n_target: np.ndarray,
        n_reference: np.ndarray,
    ) -> dict[int, np.ndarray]:
        """Fill in exact p-values, and return where: a mask of genes per target."""
        found: dict[int, np.ndarray] = {}
        if self.method == "asymptotic":
            return found
        shape = p_value.shape
        sizes = np.broadcast_to(n_target, shape)[:, :1], np.broadcast_to(n_reference, shape)[:, :1]
        small = (sizes[0] <= AUTO_EXACT) | (sizes[1] <= AUTO_EXACT) | (self.method == "exact")
        for t in np.flatnonzero(small).tolist():
            m, n = (int(size[t, 0]) for size in sizes)
            untied = ties[t] == 0 if self.method == "auto" else np.ones(shape[1], bool)
            if untied.any():
                from ..distributions.exact_u import survival

                self._check_reach(n, m)
                sf = survival(min(n, m), max(n, m))
                p_value[t, untied] = sf[tested[t, untied].astype(np.int64)]
                found[t] = untied
        return found

    def evaluate_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        """Return van Elteren's weighted sum of U, and its p-value.

        A stratum has m target and n reference cells, N = m + n. The statistic is the sum of
        ``U / (N + 1)`` over strata, its expectation the sum of ``m n / 2 / (N + 1)``, and its
        variance the sum of ``m n / 12 (N + 1 - ties / (N (N - 1))) / (N + 1)^2`` (van Elteren 1960;
        Lehmann 1975). The p-value is that of the normal approximation, or conditional.
        """
        if self.method == "exact":
            raise OptionError(
                "method='exact' does not exist for van Elteren's test over strata. "
                "Use method='asymptotic'."
            )
        if self.options.get("continuity") or self.options.get("use_continuity"):
            raise OptionError(
                "continuity=True does not exist for van Elteren's test over strata. Leave it out."
            )
        total, excess, variance = (np.zeros((n_rows, n_genes)) for _ in range(3))
        for stratum in strata:
            u2, ties = stratum.measured[:2]
            m, k = stratum.sides.target.n, stratum.sides.reference.n
            n = m + k
            used, rows = stratum.rows >= 0, stratum.rows[stratum.rows >= 0]
            with np.errstate(divide="ignore", invalid="ignore"):
                part = n + 1 - (ties / (n * (n - 1)) if self.tie_correction else 0.0 * ties)
            part = np.where(n > 1, part, 0.0) * (m * k / 12.0) / (n + 1) ** 2
            total[rows] += (u2 * 0.5 / (n + 1))[used]
            excess[rows] += ((u2 - m * k) * 0.5 / (n + 1))[used]
            variance[rows] += part[used]
        with np.errstate(divide="ignore", invalid="ignore"):
            deviate = excess / np.sqrt(variance)
        if self.alternative == "two-sided":
            tested = -np.abs(deviate)
        else:
            tested = deviate if self.alternative == "less" else -deviate
        p_value = special.ndtr(tested)
        if self.alternative == "two-sided":
            p_value *= 2.0
        np.clip(p_value, 0.0, 1.0, out=p_value)
        logarithm = self._log10(p_value, tested) if log10_p else None
        signed = np.where(variance > 0.0, deviate, 0.0) if z else None
        found = make_result(total, p_value, signed, logarithm)
        admitted = self.admits(strata[0].sides) if strata else None
        if admitted is not None and admitted.any():
            from ..conditional.wilcoxon_strata import judge_strata

            parts = [
                (
                    *stratum.measured, stratum.sides.target.n, stratum.sides.reference.n,
                    stratum.sides.target.n_expressed, stratum.sides.reference.n_expressed,
                    stratum.rows,
                )
                for stratum in strata
            ]  # fmt: skip
            log_p = judge_strata(found.p_value, parts, admitted, self.alternative)
            self._follow(found, log_p, excess)
        return found
