"""Mixtures of sums of gamma variables, exponentially tilted, and their combination.

A mixture is an array of four rows: weights, or their logarithms, and the three cumulants of each
component. A component without variance is an atom.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .anderson_darling_tilted import _log_part

# Columns of nodes: log weight, cumulants, and the weight of a chi2_1 that is added.
LOG_H, K1, K2, K3, TOP = range(5)

LEAST_VARIANCE = 1e-12  # relative to the square of the mean
_NEGLIGIBLE = 1e-12  # weights of components, relative to the largest


@jit
def tilt_nodes(theta, nodes, n_nodes, part):
    """Fill `part` with log weights and cumulants of A2 given x under the tilted law."""
    for j in range(n_nodes):
        its = nodes[j]
        log_w, k1, k2, k3, top = its[LOG_H], its[K1], its[K2], its[K3], its[TOP]
        if k2 <= LEAST_VARIANCE * k1 * k1:
            log_w += theta * k1
        elif k3 > 1e-3 * k2 * math.sqrt(k2):
            scale = 0.5 * k3 / k2
            shape = k2 / (scale * scale)
            start, left = k1 - shape * scale, 1.0 - theta * scale
            log_w += theta * start - shape * math.log(left)
            scale /= left
            k1 = start + shape * scale
            k2 = shape * scale * scale
            k3 = 2.0 * k2 * scale
        else:
            log_w += theta * (k1 + 0.5 * theta * k2)
            k1 += theta * k2
        if top > 0.0:
            left = 1.0 - 2.0 * theta * top
            log_w -= 0.5 * math.log(left)
            scale = top / left
            k1 += scale
            k2 += 2.0 * scale * scale
            k3 += 8.0 * scale * scale * scale
        part[0, j], part[1, j], part[2, j], part[3, j] = log_w, k1, k2, k3


@jit
def weigh(part, n):
    """Replace log weights by weights that add up to 1.

    Returns the logarithm of their sum, and the mean and the variance of the mixture.
    """
    highest = -math.inf
    for j in range(n):
        highest = max(highest, part[0, j])
    s0, s1 = 0.0, 0.0
    for j in range(n):
        part[0, j] = math.exp(part[0, j] - highest)
        s0 += part[0, j]
        s1 += part[0, j] * part[1, j]
    mean, variance = s1 / s0, 0.0
    for j in range(n):
        part[0, j] /= s0
        variance += part[0, j] * (part[2, j] + (part[1, j] - mean) ** 2)
    return highest + math.log(s0), mean, variance


@jit
def merge_close(part, n, most, a, theta, last):
    """Leave at most `most` components and one more, in place: those with close means become one.

    Means are put on a grid. A component that replaces several has their first three moments. Those
    that surely reach `a` are gathered at `a`, so that none of them is merged with one below. If
    these are the `last` ones, those that surely do not reach it are left out.
    """
    least, beyond = 0.0, 0.0
    for j in range(n):
        if part[2, j] == 0.0 and part[1, j] >= a:
            beyond += part[0, j] * math.exp(theta * (a - part[1, j]))
            part[0, j] = 0.0
        elif last and part[2, j] == 0.0:
            part[0, j] = 0.0
        least = max(least, part[0, j])
    least *= _NEGLIGIBLE
    kept = 0
    low, high = math.inf, -math.inf
    for j in range(n):
        if part[0, j] > least:
            for k in range(4):
                part[k, kept] = part[k, j]
            low, high = min(low, part[1, j]), max(high, part[1, j])
            kept += 1
    if kept > most and high > low:
        kept = _on_grid(part, kept, most, low, high)
    if beyond > 0.0:
        part[0, kept], part[1, kept], part[2, kept], part[3, kept] = beyond, a, 0.0, 0.0
        kept += 1
    return kept


@jit
def _on_grid(part, n, most, low, high):
    """Merge the components of each cell of a grid, in place; return how many remain."""
    bins = np.empty((4, most))
    for k in range(4):
        for j in range(most):
            bins[k, j] = 0.0
    width = (high - low) / most
    for j in range(n):
        at = min(np.int64((part[1, j] - low) / width), most - 1)
        w, k2 = part[0, j], part[2, j]
        d = part[1, j] - (low + at * width)
        bins[0, at] += w
        bins[1, at] += w * d
        bins[2, at] += w * (k2 + d * d)
        bins[3, at] += w * (part[3, j] + d * (3.0 * k2 + d * d))
    kept = 0
    for at in range(most):
        w = bins[0, at]
        if w > 0.0:
            m1, m2, m3 = bins[1, at] / w, bins[2, at] / w, bins[3, at] / w
            part[0, kept], part[1, kept] = w, low + at * width + m1
            part[2, kept] = max(m2 - m1 * m1, 0.0)
            part[3, kept] = m3 - m1 * (3.0 * m2 - 2.0 * m1 * m1)
            kept += 1
    return kept


@jit
def log_sum_of_tails(a, theta, log_scale, mixture, n, log_own):
    """Return log P(S >= a) from the tilted mixture; it is at least `log_own`.

    Where S is replaced by a continuous variable, half of the probability of `a` itself is lost. The
    allocation seen makes up for it, as far as it goes.
    """
    sum_of_parts, highest = 0.0, -math.inf
    continuous = True
    for j in range(n):
        k1, k2 = mixture[1, j], mixture[2, j]
        part = math.log(mixture[0, j]) + _log_part(a, theta, k1, k2, mixture[3, j])
        if part > highest:
            sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
            highest = part
            continuous = k2 > LEAST_VARIANCE * k1 * k1
        elif part > -math.inf:
            sum_of_parts += math.exp(part - highest)
    if sum_of_parts == 0.0:
        return log_own
    log_p = log_scale + highest + math.log(sum_of_parts)
    if continuous:
        log_p += math.log1p(0.5 * math.exp(min(log_own - log_p, 100.0)))
    return min(max(log_p, log_own), 0.0)
