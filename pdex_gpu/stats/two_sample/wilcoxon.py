"""The Wilcoxon rank-sum (Mann-Whitney U) test, and van Elteren's test over strata."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from ...backends.contract import KernelSet
from ...design.contrasts import Contrast
from ...errors import OptionError
from ...utils.checks import check_choice
from ..distributions.exact_u import log10_survival, survival
from ..distributions.log_tails import log10_normal, log10_of
from ..samples import Sides
from .base import ALTERNATIVES, Judged, Measured, StatisticalTest, Stratum, judged, nan_policy_of

#: Up to this many cells on one side, ``method="auto"`` is exact where no values are tied (scipy).
AUTO_EXACT = 8

# Largest number of additions allowed for an exact distribution.
_EXACT_REACH = 500_000_000

_LOG10_2 = np.log10(2.0)


@dataclass(frozen=True)
class Wilcoxon(StatisticalTest):
    """The test of ``scipy.stats.mannwhitneyu(target, reference, ...)``, from U and the tie term.

    It uses the normal approximation with tie-corrected variance, or the exact distribution of U.
    Over strata it is van Elteren's test (1960): the standardised sum of U / (N + 1) over strata
    of N cells.
    """

    continuity: bool = True
    tie_correction: bool = True
    alternative: str = "two-sided"
    method: str = "auto"
    nan_policy: str = "raise"
    options: dict[str, Any] = field(default_factory=dict)

    metric = "wilcoxon"
    has_z = True

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Wilcoxon | None:
        """Return the test, or None if scipy itself must run it."""
        known: dict[str, Any] = {
            "continuity": True,
            "tie_correction": True,
            "alternative": "two-sided",
            "method": "auto",
        }
        scipys = {"use_continuity", "nan_policy"}
        if not set(options) <= known.keys() | scipys or not isinstance(
            options.get("method", ""), str
        ):
            return None
        given = known | {name: v for name, v in options.items() if name not in scipys}
        if "use_continuity" in options:  # scipy's name
            check_choice("value for use_continuity:", options["use_continuity"], (True, False))
            if "continuity" in options:
                raise OptionError(
                    "continuity= and use_continuity= are the same option; pass only one."
                )
            given["continuity"] = options["use_continuity"]
        check_choice("value for continuity:", given["continuity"], (True, False))
        check_choice("value for tie_correction:", given["tie_correction"], (True, False))
        check_choice("value for alternative:", given["alternative"], ALTERNATIVES)
        check_choice("value for method:", given["method"], ("auto", "asymptotic", "exact"))
        return cls(**given, nan_policy=nan_policy_of(options), options=options)

    def measure(self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast) -> Measured:
        sums = kernels.rank_sums(block, genes, contrast)
        return sums.u2, sums.ties

    def judge(
        self, measured: Measured, sides: Sides, *, z: bool = False, log10_p: bool = False
    ) -> Judged:
        u2, ties = measured
        return self.finish(u2, ties, sides.target.n, sides.reference.n, z=z, log10_p=log10_p)

    def finish(
        self,
        u2: np.ndarray,
        ties: np.ndarray,
        n_target: np.ndarray,
        n_reference: np.ndarray,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> Judged:
        """Return U of the target sample and its p-value.

        Parameters
        ----------
        u2, ties : numpy.ndarray, shape (n_targets, n_genes)
            See :class:`pdex_gpu.backends.contract.RankSums`.
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
        return judged(u, p_value, signed, logarithm)

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
                self._check_reach(n, m)
                sf = survival(min(n, m), max(n, m))
                p_value[t, untied] = sf[tested[t, untied].astype(np.int64)]
                found[t] = untied
        return found

    def judge_strata(
        self,
        strata: Sequence[Stratum],
        n_rows: int,
        n_genes: int,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> Judged:
        """Return van Elteren's weighted sum of U, and its p-value by the normal approximation.

        A stratum has m target and n reference cells, N = m + n. The statistic is the sum of
        ``U / (N + 1)`` over strata, its expectation the sum of ``m n / 2 / (N + 1)``, and its
        variance the sum of ``m n / 12 (N + 1 - ties / (N (N - 1))) / (N + 1)^2`` (van Elteren 1960;
        Lehmann 1975).
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
            u2, ties = stratum.measured
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
        return judged(total, p_value, signed, logarithm)
