"""The two-sample Kolmogorov-Smirnov test of the target sample against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...utils.keywords import known_keywords_of_init
from ...utils.lazy_modules import LazyModule
from .base import Caveat, StatisticalTest, SufficientStatistics, TestResult, make_result
from .options import alternative_option, nan_policy_option, p_values_option

if TYPE_CHECKING:
    import numpy as np
    from scipy import special

    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast
    from ..samples import SamplePair
else:
    np, special = LazyModule("numpy"), LazyModule("scipy.special")


@known_keywords_of_init
@dataclass(frozen=True)
class KolmogorovSmirnov(StatisticalTest):
    """The test of ``scipy.stats.ks_2samp(target, reference)``, from integer distances.

    The statistic is D, D+ (``"greater"``: the target's distribution function lies above) or D-
    (``"less"``). Conditional p-values are exact given the pooled values, ties included, where they
    may be below 0.06 (``stats/conditional/kolmogorov_smirnov.py``). Asymptotic two-sided ones come
    from the Kolmogorov distribution at ``D sqrt(n m / (n + m))`` (Smirnov 1948), one-sided ones
    from Hodges' (1957) expansion, as in scipy; tied values make them too large. Other methods run
    through scipy, pair by pair.
    """

    alternative: str = alternative_option()
    nan_policy: str = nan_policy_option()
    p_values: str = p_values_option()

    metric = "ks"
    title = "Kolmogorov-Smirnov test"
    statistic_name = "D"
    statistic_meaning = "D, the largest distance between the distribution functions"
    scipy_name = "ks_2samp"
    caveats = (
        Caveat(
            "Kolmogorov-Smirnov p-values are asymptotic; ties, as in sparse counts, make them too "
            "large.",
            given={"p_values": "asymptotic"},
        ),
        Caveat(
            "Kolmogorov-Smirnov p-values are exact given ties below 0.06; larger ones are "
            "approximate and tend to be too large.",
            given={"p_values": "conditional"},
        ),
    )

    @property
    def bytes_per_entry(self) -> int:
        """Return the most bytes of distinct values for each nonzero value of a cell."""
        from ...backends.outputs import GeneValues

        return GeneValues.BYTES_PER_ENTRY if self.p_values == "conditional" else 0

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        wanted = self.p_values == "conditional"
        found = kernels.kolmogorov_smirnov(block, genes, contrast, values=wanted)
        if found.values is None:
            return found.above, found.below
        return found.above, found.below, found.values

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        above, below = measured[:2]
        if self.alternative == "two-sided":
            extreme = np.maximum(above, below)
        else:
            extreme = above if self.alternative == "greater" else below
        d = extreme / (sides.target.n * sides.reference.n)
        p_value = np.full(d.shape, np.nan)
        logarithm = np.full(d.shape, np.nan) if log10_p else None
        admitted = self.admits(sides)
        others = np.ones(d.shape[1], bool) if admitted is None else ~admitted
        if others.any():
            p_value[:, others], its = self._asymptotic(d[:, others], sides, log10_p)
            if logarithm is not None:
                logarithm[:, others] = its
        if admitted is not None:
            log_p = self._conditional(measured, sides, admitted)
            p_value[:, admitted] = np.exp(log_p)
            if logarithm is not None:
                logarithm[:, admitted] = log_p / np.log(10.0)
        return make_result(d, p_value, None, logarithm)

    def _asymptotic(
        self, d: np.ndarray, sides: SamplePair, log10_p: bool
    ) -> tuple[np.ndarray, np.ndarray | None]:
        """Return the p-values of statistics of some genes and, if asked for, their log10."""
        n, m = sides.target.n, sides.reference.n
        x = np.sqrt(n * m / (n + m)) * d
        if self.alternative == "two-sided":
            p_value = special.kolmogorov(x)
            if not log10_p:
                return p_value, None
            from ..distributions.log_tails import log10_kolmogorov, log10_of

            return p_value, log10_of(p_value, lambda far: log10_kolmogorov(x.ravel()[far]))
        large, small = np.maximum(n, m), np.minimum(n, m)
        exponent = -2.0 * x * x - 2.0 * x * (large + 2.0 * small) / np.sqrt(n * m * (n + m)) / 3.0
        p_value = np.clip(np.exp(exponent), 0.0, 1.0)
        return p_value, exponent / np.log(10.0) if log10_p else None

    def _conditional(
        self, measured: SufficientStatistics, sides: SamplePair, admitted: np.ndarray
    ) -> np.ndarray:
        """Return natural logarithms of the p-values of some genes, (n_targets, n_genes)."""
        from ..conditional import kolmogorov_smirnov as conditional

        above, below, values = measured
        sizes = np.broadcast_arrays(sides.target.n[:, 0], sides.reference.n[:, 0], above[:, 0])
        n, m = (np.ascontiguousarray(size, np.int64) for size in sizes[:2])
        side = {"two-sided": conditional.BOTH, "greater": conditional.ABOVE}
        genes = np.flatnonzero(admitted)
        d = np.ascontiguousarray(above[:, genes].T), np.ascontiguousarray(below[:, genes].T)
        found = np.empty((len(genes), len(n)))
        for k, its in enumerate(values[0, genes]):
            found[k] = conditional.log_p_values(
                d[0][k], d[1][k], n, m, its.cells, its.target, its.place, its.count,
                pooled=its.pooled, side=side.get(self.alternative, conditional.BELOW),
            )  # fmt: skip
        return found.T
