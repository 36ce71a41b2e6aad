"""The effect that tables, pictures and reports show: a ratio of means, or their difference.

Ratios mean nothing where values are negative (scaled, centred, residuals, CLR) and are NaN there;
the difference of the means then stands in for them, wherever an effect is shown or sorted by.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .result_base import Result

_MEANS = ("target_mean", "reference_mean")


@dataclass(frozen=True)
class Effect:
    """How the change of a gene is shown.

    Attributes
    ----------
    column : str
        Its name in rows and tables: ``"fold_change"`` or ``"mean_difference"``.
    scaled_column : str
        The name of its size: ``"log2_fold_change"`` or ``"mean_difference"``.
    text : str
        What readers are told that `size` is.
    reads : tuple of str
        Columns of a result that it is made of.
    """

    column: str
    scaled_column: str
    text: str
    reads: tuple[str, ...]

    @property
    def is_ratio(self) -> bool:
        """Whether it is the ratio of the means."""
        return self.column == "fold_change"

    def values(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The effect as tables have it, float64: the ratio, or the difference."""
        return columns["fold_change"] if self.is_ratio else mean_difference(columns)

    def sizes(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """The effect around 0, float64: the ratio's log2 (-infinity at 0), or the difference.

        NaN where there is none.
        """
        if not self.is_ratio:
            return mean_difference(columns)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log2(columns["fold_change"])

    def unexpressed(self, columns: Mapping[str, np.ndarray]) -> np.ndarray:
        """Genes that neither side expresses, bool: both means are 0.

        Where values are negative, a mean of 0 says no such thing, and there are none.
        """
        absent = (columns["target_mean"] == 0.0) & (columns["reference_mean"] == 0.0)
        return absent & self.is_ratio


RATIO = Effect("fold_change", "log2_fold_change", "log2 fold change", ("fold_change",))
DIFFERENCE = Effect("mean_difference", "mean_difference", "mean difference", _MEANS)


def effect_of(result: Result) -> Effect:
    """The effect that is shown of a result.

    The difference of the means where `provenance` says that values are negative. Where it does not
    say, as in files of earlier versions: if no row has a ratio, but some have means.
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
    """``target_mean - reference_mean``, float64; NaN where a mean is."""
    with np.errstate(invalid="ignore"):
        difference: np.ndarray = columns["target_mean"] - columns["reference_mean"]
    return difference


def direction(columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """1 (up) where the target's mean is the larger, -1 (down) where the smaller, 0 else: int8."""
    return np.nan_to_num(np.sign(mean_difference(columns)), nan=0.0).astype(np.int8)


def strongest_first(p_keys: tuple[np.ndarray, ...], sizes: np.ndarray) -> np.ndarray:
    """The order of genes by p-value, then by the larger effect, then as they come.

    Parameters
    ----------
    p_keys : tuple of numpy.ndarray, shape (n_genes,), float64
        What is small for a strong gene, the most important first; NaN is last.
    sizes : numpy.ndarray, shape (n_genes,), float64
        :meth:`Effect.sizes`; NaN counts as no effect.

    Returns
    -------
    numpy.ndarray, shape (n_genes,), int64
    """
    return np.lexsort((-np.nan_to_num(np.abs(sizes), nan=0.0), *reversed(p_keys)))
