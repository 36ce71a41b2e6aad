"""Percent change and fold changes, by the formulas of pdex 0.1.28 and others, in float64."""

from __future__ import annotations

import numpy as np

_FAR = 1020.0  # beyond this log2, a ratio may have overflowed or lost digits


def expm1_in_place(mean: np.ndarray) -> None:
    """Turn means of log1p values into means in count space."""
    with np.errstate(over="ignore"):  # infinite if counts are mistaken for logarithms
        np.expm1(mean, out=mean)


def percent_change(
    target: np.ndarray, reference: np.ndarray, out: np.ndarray | None = None
) -> np.ndarray:
    """Return ``(target - reference) / reference``; NaN where the reference mean is 0.

    Parameters
    ----------
    target : numpy.ndarray, shape (n_targets, n_genes)
    reference : numpy.ndarray, shape (n_genes,), (1, n_genes) or (n_targets, n_genes)
    out : numpy.ndarray, optional
        Receives the result.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        change = np.subtract(target, reference, out=out)
        change /= reference
        far = np.isinf(change)
        if far.any():  # perhaps only the difference overflowed
            np.copyto(change, target / reference - 1.0, where=far)
    np.copyto(change, np.nan, where=reference == 0)
    return change


def fold_change(
    target: np.ndarray,
    reference: np.ndarray,
    clip_value: float | None = 20.0,
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Return ``target / reference``, with defaults where a mean is 0.

    The result is 1 where both are 0, `clip_value` where only the reference is 0, and
    ``1 / clip_value`` where only the target is 0. With ``clip_value=None`` these are NaN, NaN
    and 0.

    Parameters
    ----------
    target : numpy.ndarray, shape (n_targets, n_genes)
    reference : numpy.ndarray, shape (n_genes,), (1, n_genes) or (n_targets, n_genes)
    clip_value : float, optional
    out : numpy.ndarray, optional
        Receives the result.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        ratio = np.divide(target, reference, out=out)
    no_target = target == 0
    no_reference = reference == 0
    np.copyto(ratio, 0.0 if clip_value is None else 1.0 / clip_value, where=no_target)
    np.copyto(ratio, np.nan if clip_value is None else clip_value, where=no_reference)
    if clip_value is not None:
        np.copyto(ratio, 1.0, where=no_target & no_reference)
    return ratio


def log2_ratio(target: np.ndarray, reference: np.ndarray, pseudocount: float) -> np.ndarray:
    """Return ``log2((target + pseudocount) / (reference + pseudocount))``; 0 for 0 / 0."""
    with np.errstate(over="ignore"):
        target, reference = target + pseudocount, reference + pseudocount
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        change = log2_of(target / reference, target, reference)
    change[(target == 0.0) & (reference == 0.0)] = 0.0
    return change


def log2_of(ratio: np.ndarray, target: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return ``log2(ratio)``, also where the ratio of the two means overflows or underflows."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change: np.ndarray = np.log2(ratio)
        far = ~(np.abs(change) < _FAR)  # includes NaN, which infinite means give
        if far.any():
            far &= (target > 0.0) & (reference > 0.0)
            np.copyto(change, np.log2(target) - np.log2(reference), where=far)
    return change
