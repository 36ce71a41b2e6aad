"""Means: those that the result shows, and those in count and log space."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import NEGATIVE, AtEnd, Column, Needs

if TYPE_CHECKING:
    import numpy as np

    from .at_end import EndValues


def _target(values: EndValues) -> np.ndarray:
    return values.means[0]


def _reference(values: EndValues) -> np.ndarray:
    return values.means[1]


def _target_count(values: EndValues) -> np.ndarray:
    return values.count_means[0]


def _reference_count(values: EndValues) -> np.ndarray:
    return values.count_means[1]


def _target_log(values: EndValues) -> np.ndarray:
    return values.log_means[0]


def _reference_log(values: EndValues) -> np.ndarray:
    return values.log_means[1]


def geometric(values: EndValues) -> list[np.ndarray]:
    """Return the geometric means; columns that need these need ``Needs.LOG_MEANS``."""
    import numpy as np

    with np.errstate(over="ignore"):
        return [np.expm1(means) for means in values.log_means]


def _target_geometric(values: EndValues) -> np.ndarray:
    return values.once(geometric)[0]


def _reference_geometric(values: EndValues) -> np.ndarray:
    return values.once(geometric)[1]


COLUMNS = (
    Column(
        "target_mean",
        "float64",
        "mean of the target's cells, in count space if is_log1p",
        make=AtEnd(_target),
        formula=r"\bar x_t",
        source="pdex 0.1.28",
        always=True,
    ),
    Column(
        "reference_mean",
        "float64",
        "the same for the reference",
        make=AtEnd(_reference),
        formula=r"\bar x_r",
        source="pdex 0.1.28",
        always=True,
    ),
    Column(
        "target_count_mean",
        "float64",
        "mean in count space: of expm1(x) if is_log1p, else of x",
        NEGATIVE,
        needs=Needs.COUNT_MEANS,
        make=AtEnd(_target_count, counts_only=True),
        formula=r"\frac{1}{n} \sum (e^{x_t} - 1)",
    ),
    Column(
        "reference_count_mean",
        "float64",
        "the same for the reference",
        NEGATIVE,
        needs=Needs.COUNT_MEANS,
        make=AtEnd(_reference_count, counts_only=True),
        formula=r"\frac{1}{m} \sum (e^{x_r} - 1)",
    ),
    Column(
        "target_log_mean",
        "float64",
        "mean in log space: of x if is_log1p, else of log1p(x)",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        make=AtEnd(_target_log, counts_only=True),
        formula=r"\frac{1}{n} \sum \log(1 + x_t)",
    ),
    Column(
        "reference_log_mean",
        "float64",
        "the same for the reference",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        make=AtEnd(_reference_log, counts_only=True),
        formula=r"\frac{1}{m} \sum \log(1 + x_r)",
    ),
    Column(
        "target_geometric_mean",
        "float64",
        "expm1(target_log_mean), as in pdex 0.3",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        make=AtEnd(_target_geometric, counts_only=True),
        formula=r"e^{\bar l_t} - 1",
        source=r"pdex 0.3.0; $\bar l$ is the mean in log space",
    ),
    Column(
        "reference_geometric_mean",
        "float64",
        "expm1(reference_log_mean), as in pdex 0.3",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        make=AtEnd(_reference_geometric, counts_only=True),
        formula=r"e^{\bar l_r} - 1",
        source="pdex 0.3.0",
    ),
)
