"""Columns of a result as plot coordinates: logarithms, and values that have no place in a plot."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from .base import Result
from .effect import Effect, strongest_first

#: -log10 of the smallest p-value above 0; only log10_p distinguishes p-values that are 0.
LARGEST = float(-np.log10(np.nextafter(0.0, 1.0)))


def axis_text(effect: Effect) -> str:
    """Return the axis label of an effect, in matplotlib's notation."""
    return effect.text.replace("log2", "$\\log_2$")


def p_columns(result: Result) -> list[str]:
    """Return the columns to read for :func:`minus_log10_p`."""
    return ["p_value", "log10_p"] if "log10_p" in result.columns else ["p_value"]


def minus_log10_p(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return ``-log10(p)``, float64; infinity for a p-value of 0 whose logarithm is unknown."""
    if "log10_p" in values:
        return -values["log10_p"] + 0.0  # no -0.0
    with np.errstate(divide="ignore"):
        return -np.log10(values["p_value"]) + 0.0


def strongest(score: np.ndarray, change: np.ndarray, among: np.ndarray, n: int) -> np.ndarray:
    """Return the positions of the `n` largest scores; ties go to the larger change, then the first.

    Parameters
    ----------
    score, change : numpy.ndarray, shape (n_genes,), float64
    among : numpy.ndarray, shape (n_genes,), bool
    n : int

    Returns
    -------
    numpy.ndarray, shape (at most n,), int64
    """
    places = np.flatnonzero(among)
    return places[strongest_first((-score[places],), change[places])][:n]


def count(n: int, one: str, many: str | None = None) -> str:
    """Return a number with its noun, such as ``"1 gene"`` or ``"2,000 genes"``."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"
