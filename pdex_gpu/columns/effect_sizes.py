"""Differences of means, their confidence intervals, and standardised differences."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import Column, GeneByGene, Needs

if TYPE_CHECKING:
    import numpy as np

    from .inputs import PairValues, StrataValues

_Triple = tuple["np.ndarray", "np.ndarray", "np.ndarray"]


def _difference(values: PairValues) -> np.ndarray:
    if values.difference is not None:
        return values.difference
    return values.sides.target.mean - values.sides.reference.mean


def _difference_over_strata(values: StrataValues) -> np.ndarray:
    from ..stats.two_sample.t_test import difference_over_strata

    return values.in_units(difference_over_strata(values.strata, *values.shape)[0])


def _interval(values: PairValues) -> tuple[np.ndarray, np.ndarray]:
    from ..stats import intervals

    low, high = intervals.mean_interval(values.sides, values.means, values.level)
    return values.in_units(low), values.in_units(high)


def _interval_over_strata(values: StrataValues) -> tuple[np.ndarray, np.ndarray]:
    from ..stats import intervals

    low, high = intervals.mean_interval_over_strata(
        values.once(_fixed_effect),
        values.strata,
        (values.shown.target.n, values.shown.reference.n),
        values.means,
        values.level,
    )
    return values.in_units(low), values.in_units(high)


def _fixed_effect(values: StrataValues) -> _Triple:
    from ..stats.two_sample.t_test import fixed_effect

    return fixed_effect(values.strata, *values.shape)


def _low(values: PairValues) -> np.ndarray:
    return values.once(_interval)[0]


def _low_over_strata(values: StrataValues) -> np.ndarray:
    return values.once(_interval_over_strata)[0]


def _high(values: PairValues) -> np.ndarray:
    return values.once(_interval)[1]


def _high_over_strata(values: StrataValues) -> np.ndarray:
    return values.once(_interval_over_strata)[1]


def _cohens_d(values: PairValues) -> np.ndarray:
    from ..stats import effects

    return effects.cohens_d(values.sides)


def _d(values: PairValues) -> np.ndarray:
    return values.once(_cohens_d)


def _cohens_d_over_strata(values: StrataValues) -> np.ndarray:
    from ..stats import effects

    effect, error, _ = values.once(_fixed_effect)
    return effects.cohens_d_over_strata(effect, error, values.strata)


def _d_over_strata(values: StrataValues) -> np.ndarray:
    return values.once(_cohens_d_over_strata)


def _g(values: PairValues) -> np.ndarray:
    from ..stats import effects

    n, m = values.sides.target.n, values.sides.reference.n
    return values.once(_cohens_d) * effects.hedges_correction(n + m - 2.0)


def _g_over_strata(values: StrataValues) -> np.ndarray:
    from ..stats import effects

    df = values.once(_fixed_effect)[2]
    return values.once(_cohens_d_over_strata) * effects.hedges_correction(df)


_FEW_CELLS = "if a side has fewer than two cells"
_NO_VARIANCE = f"{_FEW_CELLS}, or if neither side has variance"
_NO_SPREAD = "if neither side has variance, or with fewer than three cells in total"

COLUMNS = (
    Column(
        "mean_difference",
        "float64",
        "mean of x in the target minus that in the reference",
        centre=0.0,
        make=GeneByGene(_difference, _difference_over_strata),
        formula=r"d = \bar x_t - \bar x_r",
    ),
    Column(
        "mean_difference_low",
        "float64",
        "lower limit of its confidence interval",
        _NO_VARIANCE,
        needs=Needs.SECOND_MOMENTS | Needs.SIGNS,
        centre=0.0,
        make=GeneByGene(_low, _low_over_strata),
        formula=r"d - \sqrt{l_t^2 + u_r^2}",
        source="Zou and Donner 2008; reaches $l$ and $u$ of each side: the larger of Welch's "
        "(Welch 1947) and a score interval's (Wilson 1927)",
    ),
    Column(
        "mean_difference_high",
        "float64",
        "upper limit of that interval",
        _NO_VARIANCE,
        needs=Needs.SECOND_MOMENTS | Needs.SIGNS,
        centre=0.0,
        make=GeneByGene(_high, _high_over_strata),
        formula=r"d + \sqrt{u_t^2 + l_r^2}",
        source="as above",
    ),
    Column(
        "cohens_d",
        "float64",
        "mean_difference / pooled standard deviation of x",
        _NO_SPREAD,
        needs=Needs.SECOND_MOMENTS,
        centre=0.0,
        make=GeneByGene(_d, _d_over_strata),
        formula=r"\frac{d}{s}, \; s^2 = \frac{(n - 1) s_t^2 + (m - 1) s_r^2}{n + m - 2}",
        source="Cohen 1988",
    ),
    Column(
        "hedges_g",
        "float64",
        "cohens_d corrected for its bias in small samples",
        "if neither side has variance, or with fewer than four cells in total",
        needs=Needs.SECOND_MOMENTS,
        centre=0.0,
        make=GeneByGene(_g, _g_over_strata),
        formula=r"\frac{\Gamma(\nu / 2)}{\sqrt{\nu / 2}\ \Gamma((\nu - 1) / 2)} \cdot \frac{d}{s}",
        source=r"Hedges 1981; $\nu = n + m - 2$",
    ),
)
