"""Percent change and fold changes, as pdex, scanpy and Seurat define them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .base import NEGATIVE, AtEnd, Column, Needs
from .means import geometric

if TYPE_CHECKING:
    import numpy as np

    from .at_end import EndValues


def _changes(values: EndValues) -> tuple[np.ndarray, np.ndarray]:
    """Return percent change and fold change, from one pass over the means."""
    from ..stats.fold_change import fold_change, percent_change
    from ..utils.arrays import nan_filled

    target, reference = values.means
    percent, fold = (nan_filled(target.shape, values.parallel_map) for _ in range(2))
    shared = len(reference) == 1

    def change(rows: slice) -> None:
        some, other = target[rows], reference if shared else reference[rows]
        percent_change(some, other, out=percent[rows])
        fold_change(some, other, values.scale.clip_value, out=fold[rows])

    values.by_rows(change)
    return percent, fold


def _percent(values: EndValues) -> np.ndarray:
    return values.once(_changes)[0]


def _fold(values: EndValues) -> np.ndarray:
    return values.once(_changes)[1]


def _log2(values: EndValues) -> np.ndarray:
    from ..stats.fold_change import log2_of

    return log2_of(values["fold_change"], *values.means)


def _scanpy(values: EndValues) -> np.ndarray:
    from ..stats.fold_change import log2_ratio

    target, reference = values.once(geometric)
    return log2_ratio(target, reference, 1e-9)


def _seurat(values: EndValues) -> np.ndarray:
    import numpy as np

    from ..stats.fold_change import log2_ratio

    # Seurat 5 adds its pseudocount to the sum over the cells of a side, not to their mean.
    with np.errstate(divide="ignore"):  # a side without a value has no mean either
        target, reference = (
            mean + 1.0 / values[f"{side}_n_cells"]
            for side, mean in zip(("target", "reference"), values.count_means, strict=True)
        )
    return log2_ratio(target, reference, 0.0)


def _geometric(values: EndValues) -> np.ndarray:
    from ..stats.fold_change import log2_ratio

    target, reference = values.once(geometric)
    return log2_ratio(target, reference, values.scale.pseudocount)


COLUMNS = (
    Column(
        "percent_change",
        "float64",
        "(target_mean - reference_mean) / reference_mean",
        f"where reference_mean is 0; {NEGATIVE}",
        centre=0.0,
        make=AtEnd(_percent, counts_only=True),
        formula=r"(\bar x_t - \bar x_r) / \bar x_r",
        source="pdex 0.1.28",
        always=True,
    ),
    Column(
        "fold_change",
        "float64",
        "target_mean / reference_mean, clipped where a mean is 0",
        f"where reference_mean is 0 and clip_value is None; {NEGATIVE}",
        make=AtEnd(_fold, counts_only=True),
        formula=r"\bar x_t / \bar x_r",
        source="pdex 0.1.28",
        always=True,
    ),
    Column(
        "log2_fold_change",
        "float64",
        "log2(fold_change), the ratio of pdex 0.1.28",
        "where fold_change is",
        centre=0.0,
        make=AtEnd(_log2, ("fold_change",), counts_only=True),
        formula=r"\log_2(\bar x_t / \bar x_r)",
        source="pdex 0.1.28's ratio",
        default=True,
    ),
    Column(
        "log2_fold_change_scanpy",
        "float64",
        "log2 of (expm1(target_log_mean) + 1e-9) / (expm1(reference_log_mean) + 1e-9), as in "
        "scanpy",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        centre=0.0,
        make=AtEnd(_scanpy, counts_only=True),
        formula=r"\log_2 \frac{e^{\bar l_t} - 1 + 10^{-9}}{e^{\bar l_r} - 1 + 10^{-9}}",
        source="scanpy 1.12.4",
    ),
    Column(
        "log2_fold_change_seurat",
        "float64",
        "log2 of (target_count_mean + 1 / target_n_cells) / (reference_count_mean + "
        "1 / reference_n_cells), as in FindMarkers of Seurat 5",
        NEGATIVE,
        needs=Needs.COUNT_MEANS,
        centre=0.0,
        make=AtEnd(_seurat, ("target_n_cells", "reference_n_cells"), counts_only=True),
        formula=r"\log_2 \frac{\bar c_t + 1 / n}{\bar c_r + 1 / m}",
        source=r"Seurat 5, FindMarkers; $\bar c$ is the mean in count space",
    ),
    Column(
        "log2_fold_change_geometric",
        "float64",
        "log2 of (target_geometric_mean + pseudocount) / (reference_geometric_mean + "
        "pseudocount), 0 where both are 0, as in pdex 0.3",
        NEGATIVE,
        needs=Needs.LOG_MEANS,
        centre=0.0,
        make=AtEnd(_geometric, counts_only=True),
        formula=r"\log_2 \frac{g_t + \varepsilon}{g_r + \varepsilon}",
        source="pdex 0.3.0; $g$ is the geometric mean",
    ),
)
