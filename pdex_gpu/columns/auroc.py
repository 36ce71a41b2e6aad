"""The area under the ROC curve, its confidence interval, and the rank-biserial correlation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Column, GeneByGene, Needs

if TYPE_CHECKING:
    import numpy as np

    from .inputs import PairValues, StrataValues


def _auroc(values: PairValues) -> np.ndarray:
    from ..stats import effects

    return effects.auroc(values.u2, values.sides.target.n, values.sides.reference.n)


def _auroc_over_strata(values: StrataValues) -> np.ndarray:
    from ..stats import effects

    return effects.auroc_over_strata(values.u2, values.strata, values.shape)


def _pair(values: PairValues) -> np.ndarray:
    return values.once(_auroc)


def _strata(values: StrataValues) -> np.ndarray:
    return values.once(_auroc_over_strata)


def _interval(values: PairValues) -> tuple[np.ndarray, np.ndarray]:
    from ..stats import intervals

    return intervals.auroc_interval(
        values.u2, values.placements, values.ties, values.sides, values.level
    )


def _low(values: PairValues) -> np.ndarray:
    return values.once(_interval)[0]


def _high(values: PairValues) -> np.ndarray:
    return values.once(_interval)[1]


def _rank_biserial(values: PairValues) -> np.ndarray:
    return 2.0 * values.once(_auroc) - 1.0


def _rank_biserial_over_strata(values: StrataValues) -> np.ndarray:
    return 2.0 * values.once(_auroc_over_strata) - 1.0


_FEW_CELLS = "if a side has fewer than two cells"
_NO_STRATA = "it is for a single pair of samples"

COLUMNS = (
    Column(
        "auroc",
        "float64",
        "P(target > reference) + P(equal) / 2, which is U / (n m)",
        needs=Needs.U,
        centre=0.5,
        make=GeneByGene(_pair, _strata),
        formula="A = U / (n m)",
        source="Mann and Whitney 1947; Bamber 1975",
    ),
    Column(
        "auroc_low",
        "float64",
        "lower limit of its confidence interval",
        _FEW_CELLS,
        needs=Needs.PLACEMENTS | Needs.SIGNS,
        centre=0.5,
        make=GeneByGene(_low, why_no_strata=_NO_STRATA),
        formula=r"A - \sqrt{l_t^2 + u_r^2}",
        source="Zou and Donner 2008; reaches $l$ and $u$ of each side: the larger of DeLong's "
        "(DeLong, DeLong and Clarke-Pearson 1988) and a score interval's (Wilson 1927)",
    ),
    Column(
        "auroc_high",
        "float64",
        "upper limit of that interval",
        _FEW_CELLS,
        needs=Needs.PLACEMENTS | Needs.SIGNS,
        centre=0.5,
        make=GeneByGene(_high, why_no_strata=_NO_STRATA),
        formula=r"A + \sqrt{u_t^2 + l_r^2}",
        source="as above; both are clipped to [0, 1]",
    ),
    Column(
        "rank_biserial",
        "float64",
        "rank-biserial correlation, 2 auroc - 1",
        needs=Needs.U,
        centre=0.0,
        make=GeneByGene(_rank_biserial, _rank_biserial_over_strata),
        formula="2 A - 1",
        source="Cureton 1956; Kerby 2014",
    ),
)
