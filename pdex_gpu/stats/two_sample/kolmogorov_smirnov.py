"""The two-sample Kolmogorov-Smirnov test of the target sample against the reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ...utils.keywords import known_keywords_of_init
from ...utils.lazy_modules import LazyModule
from .base import Caveat, StatisticalTest, SufficientStatistics, TestResult, make_result
from .options import alternative_option, nan_policy_option

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
    (``"less"``). Two-sided p-values come from the Kolmogorov distribution at
    ``D sqrt(n m / (n + m))`` (Smirnov 1948), one-sided ones from Hodges' (1957) expansion, as in
    scipy. Tied values make them too large. Other methods run through scipy, pair by pair.
    """

    alternative: str = alternative_option()
    nan_policy: str = nan_policy_option()

    metric = "ks"
    title = "Kolmogorov-Smirnov test"
    statistic_name = "D"
    statistic_meaning = "D, the largest distance between the distribution functions"
    scipy_name = "ks_2samp"
    caveats = (
        Caveat(
            "Kolmogorov-Smirnov p-values are asymptotic; ties, as in sparse counts, make them too "
            "large."
        ),
    )

    def measure(
        self, kernels: KernelSet, block: Any, genes: slice, contrast: Contrast
    ) -> SufficientStatistics:
        found = kernels.kolmogorov_smirnov(block, genes, contrast)
        return found.above, found.below

    def evaluate(
        self,
        measured: SufficientStatistics,
        sides: SamplePair,
        *,
        z: bool = False,
        log10_p: bool = False,
    ) -> TestResult:
        above, below = measured
        n, m = sides.target.n, sides.reference.n
        if self.alternative == "two-sided":
            d = np.maximum(above, below) / (n * m)
            x = np.sqrt(n * m / (n + m)) * d
            p_value = special.kolmogorov(x)
            logarithm = None
            if log10_p:
                from ..distributions.log_tails import log10_kolmogorov, log10_of

                logarithm = log10_of(p_value, lambda far: log10_kolmogorov(x.ravel()[far]))
            return make_result(d, p_value, None, logarithm)
        d = (above if self.alternative == "greater" else below) / (n * m)
        large, small = np.maximum(n, m), np.minimum(n, m)
        x = np.sqrt(n * m / (n + m)) * d
        exponent = -2.0 * x * x - 2.0 * x * (large + 2.0 * small) / np.sqrt(n * m * (n + m)) / 3.0
        p_value = np.clip(np.exp(exponent), 0.0, 1.0)
        return make_result(d, p_value, None, exponent / np.log(10.0) if log10_p else None)
