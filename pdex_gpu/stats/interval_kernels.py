"""Compiled limits of confidence intervals, pair by pair; :mod:`.intervals` explains them."""

from __future__ import annotations

import math
from typing import Any

from ..utils.jit import jit

# Arrays are contiguous float64: (T, C) of pairs, (T,) of targets, (C,) of genes.


@jit
def welch_df(variance: Any, n: Any, df: Any, found: Any) -> None:
    """Fill in Welch's degrees of freedom, from shares, because squares underflow.

    The first axis of `variance` (2, T, C), `n` and `df` (2, T) is target and reference.
    """
    for i in range(found.shape[0]):
        for j in range(found.shape[1]):
            target, reference = variance[0, i, j] / n[0, i], variance[1, i, j] / n[1, i]
            both = target + reference
            a, b = target / both, reference / both
            found[i, j] = 1.0 / (a * a / df[0, i] + b * b / df[1, i])


@jit
def chebyshev(df: Any, coefficients: Any, least: float, found: Any) -> None:
    """Fill in a Chebyshev series in ``1 / df`` on ``[0, 1 / least]``; smaller df count as `least`.

    `coefficients` has at least three; `df` and `found` have one axis.
    """
    for i in range(len(df)):
        x = 2.0 * least / max(df[i], least) - 1.0
        # Clenshaw's recurrence.
        one, two = 0.0, 0.0
        for k in range(len(coefficients) - 1, 0, -1):
            one, two = coefficients[k] + 2.0 * x * one - two, one
        found[i] = coefficients[0] + x * one - two


@jit
def mean_limits(
    difference: Any,
    variance: Any,
    mean: Any,
    pooled: Any,
    t: Any,
    score: Any,
    n: Any,
    cells: Any,
    signed: Any,
    low: Any,
    high: Any,
) -> None:
    """Fill in the limits of differences of means.

    The first axis of `variance` and `mean` (2, T, C), `n` and `cells` (2, T) is target and
    reference; `score` (T,) are squared quantiles, `signed` (C,) bool genes with negative values.
    """
    for i in range(difference.shape[0]):
        total = cells[0, i] + cells[1, i]
        for j in range(difference.shape[1]):
            low[i, j] = high[i, j] = math.nan
            if not (pooled[i, j] > 0.0 and cells[0, i] > 1.0 and cells[1, i] > 1.0):
                continue
            overall = cells[0, i] / total * mean[0, i, j] + cells[1, i] / total * mean[1, i, j]
            # A mean that is infinite in the unit of the deviations is constant next to them.
            by_mean = overall > 0.0 and not math.isinf(overall) and not signed[j]
            below, above = 0.0, 0.0
            for side in range(2):
                of_mean = score[i] * pooled[i, j] / n[side, i]
                shift, share = 0.0, 1.0
                if by_mean:
                    shift = 0.5 * of_mean / overall
                    share = mean[side, i, j] / overall
                root = math.sqrt(shift * shift + of_mean * share)
                classic = t[i, j] * math.sqrt(variance[side, i, j] / n[side, i])
                down, up = root - shift, root + shift
                if classic > down:
                    down = classic
                if classic > up:
                    up = classic
                if side == 1:
                    down, up = up, down
                below += down * down
                above += up * up
            low[i, j] = difference[i, j] - math.sqrt(below)
            high[i, j] = difference[i, j] + math.sqrt(above)


@jit
def auroc_limits(
    u2: Any, squares: Any, ties: Any, expressed: Any, n: Any, signed: Any, z: float,
    low: Any, high: Any,
) -> None:  # fmt: skip
    """Fill in the limits of AUROCs.

    The first axis of `squares` and `expressed` (2, T, C) and of `n` (2, T) is target and reference;
    `signed` (C,) bool are genes with negative values.
    """
    for i in range(u2.shape[0]):
        cells = n[0, i] + n[1, i]
        pairs = n[0, i] * n[1, i]
        # If no cell differs from the others, one might have.
        most = (cells - 1.0) * ((cells - 1.0) * (cells - 1.0) - 1.0)
        for j in range(u2.shape[1]):
            low[i, j] = high[i, j] = math.nan
            if not (n[0, i] > 1.0 and n[1, i] > 1.0):
                continue
            area = u2[i, j] * 0.5 / pairs
            null = (cells + 1.0 - min(ties[i, j], most) / (cells * (cells - 1.0))) / (12.0 * cells)
            k = 4.0 * null
            if not signed[j]:
                k *= cells / max(expressed[0, i, j] + expressed[1, i, j], 1.0)
            below, above = 0.0, 0.0
            for side in range(2):
                own, other = n[side, i], n[1 - side, i]
                mean = area if side == 0 else 1.0 - area
                # Placements of both sides have the AUROC as their mean.
                variance = squares[side, i, j] / (4.0 * other * other) - own * area * area
                classic = z * math.sqrt(max(variance, 0.0) / ((own - 1.0) * own))
                least = 0.0 if signed[j] else 0.5 * (1.0 - expressed[1 - side, i, j] / other)
                # Wilson's interval for the share of the way from the least AUROC to 1.
                share = min(max((mean - least) / (1.0 - least), 0.0), 1.0)
                c = z * z * k / own
                root = math.sqrt(c * share * (1.0 - share) + 0.25 * c * c)
                scale, shift = (1.0 - least) / (1.0 + c), c * (0.5 - share)
                down = max(classic, scale * (root - shift))
                up = max(classic, scale * (root + shift))
                if side == 1:
                    down, up = up, down
                below += down * down
                above += up * up
            low[i, j] = max(area - math.sqrt(below), 0.0)
            high[i, j] = min(area + math.sqrt(above), 1.0)
