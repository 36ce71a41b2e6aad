"""Means, percent change and fold change, by pdex 0.1.28's formulas, in float64."""

from __future__ import annotations

import numpy as np


def group_means(
    mean: np.ndarray, mean_expm1: np.ndarray | None, *, is_log1p: bool, exp_post_agg: bool
) -> np.ndarray:
    """Means in count space.

    Parameters
    ----------
    mean, mean_expm1 : numpy.ndarray, shape (n_groups, n_genes), float64
        Means of x and of ``expm1(x)``.
    is_log1p : bool
        Whether x is ``log1p`` of counts; if not, the means are those of x.
    exp_post_agg : bool
        ``expm1`` of the mean instead of the mean of ``expm1``.
    """
    if not is_log1p:
        return mean
    if exp_post_agg:
        return np.expm1(mean)
    assert mean_expm1 is not None
    return mean_expm1


def percent_change(target: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """``(target - reference) / reference``; NaN where the reference mean is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        change = (target - reference) / reference
    change[np.broadcast_to(reference == 0, change.shape)] = np.nan
    return change


def fold_change(
    target: np.ndarray, reference: np.ndarray, clip_value: float | None = 20.0
) -> np.ndarray:
    """``target / reference``, with defaults where a mean is 0.

    Both 0: 1. Reference 0: `clip_value`. Target 0: ``1 / clip_value``. With ``clip_value=None``:
    NaN, NaN and 0.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = target / reference
    no_reference = np.broadcast_to(reference == 0, ratio.shape)
    no_target = target == 0
    if clip_value is None:
        ratio[no_target] = 0.0
        ratio[no_reference] = np.nan
    else:
        ratio[no_target] = 1.0 / clip_value
        ratio[no_reference] = clip_value
        ratio[no_target & no_reference] = 1.0
    return ratio
