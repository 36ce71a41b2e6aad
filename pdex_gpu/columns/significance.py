"""The statistic and the p-value of the test, and what goes with them."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from .base import Column, GeneByGene, Needs

if TYPE_CHECKING:
    import numpy as np

    from ..stats.two_sample.base import StatisticalTest
    from .inputs import PairValues, StrataValues, Values


def _statistic(values: Values) -> np.ndarray:
    return values.test_result.statistic


def _p_value(values: Values) -> np.ndarray:
    return values.test_result.p_value


def _z(values: Values) -> np.ndarray:
    assert values.test_result.z is not None
    return values.test_result.z


def _log10_p(values: Values) -> np.ndarray:
    assert values.test_result.log10_p is not None
    return values.test_result.log10_p


def _p_value_of(test: StatisticalTest, values: PairValues | StrataValues) -> np.ndarray:
    return values.judged_by(test).p_value


def p_value_of(test: StatisticalTest, name: str) -> Column:
    """Return a column with the p-values of another test that measures the same."""
    make = partial(_p_value_of, test)
    return Column(name, "float64", "p-value", make=GeneByGene(make, make, undefined=1.0))


def _meaning_of_statistic() -> str:
    from ..stats.registry import statistics

    return f"test statistic: {statistics()}"


COLUMNS = (
    Column(
        "p_value",
        "float64",
        "p-value of the test; 1 where the test is undefined",
        make=GeneByGene(_p_value, _p_value, undefined=1.0),
        source="[the test](formulas.md#tests)",
        always=True,
    ),
    Column(
        "statistic",
        "float64",
        _meaning_of_statistic,
        "where the test is undefined",
        make=GeneByGene(_statistic, _statistic),
        source="[the test](formulas.md#tests)",
        always=True,
    ),
    Column(
        "fdr",
        "float64",
        "adjusted p-value; by default Benjamini-Hochberg over all rows",
        source="[correction](formulas.md#correction)",
        always=True,
    ),
    Column(
        "z",
        "float64",
        "signed standard normal deviate of U, or of its conditional p-value (Wilcoxon)",
        needs=Needs.Z,
        centre=0.0,
        make=GeneByGene(_z, _z),
        formula=r"\frac{U - n m / 2 \mp c}{\sigma}",
        source="Mann and Whitney 1947; $c$ is ½ with continuity correction. Conditional: the "
        "deviate that has the p-value",
    ),
    Column(
        "log10_p",
        "float64",
        "log10 of the p-value, exact where p_value underflows to 0",
        needs=Needs.LOG10_P,
        make=GeneByGene(_log10_p, _log10_p, undefined=0.0),
        formula=r"\log_{10} p",
        source="continued fractions and asymptotic series below 1e-290",
    ),
)
