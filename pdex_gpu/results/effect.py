"""The effect that tables, figures and reports show: a ratio of means, or their difference.

Ratios are meaningless where values are negative (scaled, centred, residuals, CLR) and are NaN
there; the difference of the means then replaces them wherever an effect is shown or sorted by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .base import Result

_MEANS = ("target_mean", "reference_mean")


@dataclass(frozen=True)
class Effect:
    """The way in which the change of a gene is shown.

    Attributes
    ----------
    column : str
        Its name in rows and tables: ``"fold_change"`` or ``"mean_difference"``.
    scaled_column : str
        Name of its size: ``"log2_fold_change"`` or ``"mean_difference"``.
    text : str
        Name of its size in words, for readers.
    reads : tuple of str
        Columns of a result that it is computed from.
    """

    column: str
    scaled_column: str
    text: str
    reads: tuple[str, ...]

    @property
    def is_ratio(self) -> bool:
        """Return whether the effect is the ratio of the means."""
        return self.column == "fold_change"

    def values(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the effect as tables show it, float64: the ratio, or the difference."""
        return columns["fold_change"] if self.is_ratio else mean_difference(columns)

    def sizes(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return the effect centred on 0, float64: log2 of the ratio, or the difference.

        The log2 of 0 is -infinity. NaN where there is no effect.
        """
        if not self.is_ratio:
            return mean_difference(columns)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log2(columns["fold_change"])

    def unexpressed(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return which genes neither side expresses, bool: both means are 0.

        Where values are negative, a mean of 0 does not imply that, and all are False.
        """
        absent = (columns["target_mean"] == 0.0) & (columns["reference_mean"] == 0.0)
        return absent & self.is_ratio


RATIO = Effect("fold_change", "log2_fold_change", "log2 fold change", ("fold_change",))
DIFFERENCE = Effect("mean_difference", "mean_difference", "mean difference", _MEANS)


def effect_of(result: Result) -> Effect:
    """Return the effect to show for a result.

    It is the difference of the means if `provenance` says that values are negative. If it says
    nothing, as in files of earlier versions: if no row has a ratio but some have means.
    """
    negative = result.provenance.get("negative_values")
    if negative is None:
        negative = _without_ratios(result)
    return DIFFERENCE if negative else RATIO


def _without_ratios(result: Result) -> bool:
    known = False
    for _, columns in result.blocks(("fold_change", *_MEANS)):
        if not np.isnan(columns["fold_change"]).all():
            return False
        known = known or not np.isnan(mean_difference(columns)).all()
    return known


def mean_difference(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return ``target_mean - reference_mean``, float64; NaN where a mean is NaN."""
    with np.errstate(invalid="ignore"):
        difference: np.ndarray = columns["target_mean"] - columns["reference_mean"]
    return difference


def direction(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return 1 (up) where the target's mean is larger, -1 (down) where smaller, else 0, int8."""
    return np.nan_to_num(np.sign(mean_difference(columns)), nan=0.0).astype(np.int8)


def strongest_first(p_keys: tuple[np.ndarray, ...], sizes: np.ndarray) -> np.ndarray:
    """Return the order of genes by p-value, then by larger effect, then by position.

    Parameters
    ----------
    p_keys : tuple of numpy.ndarray, shape (n_genes,), float64
        Keys that are small for a strong gene, the most important first; NaN sorts last.
    sizes : numpy.ndarray, shape (n_genes,), float64
        :meth:`Effect.sizes`; NaN counts as no effect.

    Returns
    -------
    numpy.ndarray, shape (n_genes,), int64
    """
    return np.lexsort((-np.nan_to_num(np.abs(sizes), nan=0.0), *reversed(p_keys)))
