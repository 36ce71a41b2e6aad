"""Wilcoxon rank-sum (Mann-Whitney U) test of the target sample against the reference."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy import special

from ..backends.contract import KernelSet, Moments
from ..design import Design
from ..errors import OptionError
from .base import ALTERNATIVES, Measured, StatisticalTest, check_choice, judged
from .exact_u import survival

#: Up to this many cells on one side, ``method="auto"`` is exact where no values are tied (scipy).
AUTO_EXACT = 8

# Additions that the exact distribution may take.
_EXACT_REACH = 500_000_000


@dataclass(frozen=True)
class Wilcoxon(StatisticalTest):
    """``scipy.stats.mannwhitneyu(target, reference, ...)`` from U and the tie term.

    The normal approximation with tie-corrected variance, or the exact distribution of U.
    """

    use_continuity: bool = True
    alternative: str = "two-sided"
    method: str = "auto"
    options: dict[str, Any] = field(default_factory=dict)

    metric = "wilcoxon"

    @classmethod
    def from_options(cls, options: dict[str, Any]) -> Wilcoxon | None:
        """The test, or None if scipy itself has to run it."""
        known = {"use_continuity": True, "alternative": "two-sided", "method": "auto"}
        if not set(options) <= set(known) or not isinstance(options.get("method", ""), str):
            return None
        given = {**known, **options}
        check_choice("use_continuity", given["use_continuity"], (True, False))
        check_choice("alternative", given["alternative"], ALTERNATIVES)
        check_choice("method", given["method"], ("auto", "asymptotic", "exact"))
        return cls(**given, options=options)

    def measure(self, kernels: KernelSet, block: Any, genes: slice, design: Design) -> Measured:
        sums = kernels.rank_sums(block, genes, design)
        return sums.u2, sums.ties

    def judge(
        self, measured: Measured, moments: Moments, design: Design
    ) -> tuple[np.ndarray, np.ndarray]:
        u2, ties = measured
        return self.finish(u2, ties, design.n_cells)

    def finish(
        self, u2: np.ndarray, ties: np.ndarray, n_cells: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """U of the target sample and its p-value, shape (n_targets, n_genes) each.

        Parameters
        ----------
        u2, ties : numpy.ndarray, shape (n_targets, n_genes)
            See :class:`pdex_gpu.backends.contract.RankSums`.
        n_cells : numpy.ndarray, shape (n_targets + 1,)
            Cells a group, the reference first.
        """
        n_ref = float(n_cells[0])
        n_target = n_cells[1:, None].astype(np.float64)
        n = n_target + n_ref
        u = u2 * 0.5
        if self.alternative == "greater":
            tested = u
        else:
            tested = n_target * n_ref - u
            if self.alternative == "two-sided":
                np.maximum(u, tested, out=tested)
        # Operations in scipy's order, to agree to the last bits; in place, as arrays are large.
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = ties / (n * (n - 1))
            np.subtract(n + 1, spread, out=spread)
            spread *= n_target * n_ref / 12
            np.sqrt(spread, out=spread)
            z = tested - n_target * n_ref / 2
            if self.use_continuity:
                z -= 0.5
            z /= spread
        np.negative(z, out=z)
        p_value = special.ndtr(z, out=z)
        if self.method != "asymptotic":
            self._exact(p_value, tested, ties, n_cells)
        if self.alternative == "two-sided":
            p_value *= 2.0
        np.clip(p_value, 0.0, 1.0, out=p_value)
        return judged(u, p_value)

    def _check_reach(self, m: int, n: int) -> None:
        if self.method == "exact" and min(m, n) * m * n > _EXACT_REACH:
            raise OptionError(
                f"method='exact' is out of reach for groups of {n} and {m} cells: it would take "
                "too long. Use method='auto', which is exact where a group has at most "
                f"{AUTO_EXACT} cells and no values are tied, or 'asymptotic'."
            )

    def _exact(
        self, p_value: np.ndarray, tested: np.ndarray, ties: np.ndarray, n_cells: np.ndarray
    ) -> None:
        n_ref = int(n_cells[0])
        exact = (n_cells[1:] <= AUTO_EXACT) | (self.method == "exact" or n_ref <= AUTO_EXACT)
        for t in np.flatnonzero(exact).tolist():
            n_target = int(n_cells[t + 1])
            untied = ties[t] == 0 if self.method == "auto" else np.ones(ties.shape[1], bool)
            if untied.any():
                self._check_reach(n_ref, n_target)
                sf = survival(min(n_ref, n_target), max(n_ref, n_target))
                p_value[t, untied] = sf[tested[t, untied].astype(np.int64)]
