"""How likely the cells of a sample run ahead, somewhere, of their share of the cells of a pair.

Of N cells, n belong to the sample. They are counted from the smallest value up, and equal values
are counted together: an *end* is a number of cells B up to and including some value. c of these B
cells belong to the sample, a hypergeometric number. The sample *crosses* at an end where

    N c - n B >= d,  which is  c >= ceil((n B + d) / N)

This is exact given the pooled values, with ties (Schröer and Trenkler 1995 sum the same paths).
Between two ends with the same ceiling c only grows, so only the later one has to be looked at: at
most n ends matter. With u(B, c), the probability that no earlier end was crossed given c of the B
cells, the probability of a first crossing at B is the sum of h(B, c) u(B, c) over the c that cross,
and u follows cell by cell, because each of the B cells is equally likely the last of them:

    u(B, c) = (1 - c / B) u(B - 1, c) + c / B u(B - 1, c - 1),  0 where an end is crossed

All u are probabilities and all terms are positive. So nothing cancels, and only h is a logarithm.
u is 1 far below the ceiling, and ends where h is negligible are left out: errors of 1e-5 of p.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit

_NEGLIGIBLE = 10.0  # of log h, below its largest
_SURE = 1.0 - 1e-4  # of u
_TERM = 1e-5  # of a sum
_PAD = 8  # columns are updated in groups of so many


@jit
def make_room(n, n_ends):
    """Return working memory for samples of up to n cells, and up to n_ends ends."""
    columns = n + 2 * _PAD + 2
    return (
        np.empty(min(n, n_ends) + 1, np.int64), np.empty(min(n, n_ends) + 1, np.int64),
        np.empty(min(n, n_ends) + 1), np.empty(columns), np.empty(columns),
    )  # fmt: skip


@jit
def log_crossing(ends, n, total, d, log_factorial, room):
    """Return the logarithm of the probability that the sample crosses at any of the ends.

    Parameters
    ----------
    ends : int64 array
        Ascending; `total` itself may be left out, because nothing crosses there.
    n, total, d : int
        As above; d is positive.
    log_factorial : float64 array
        Up to `total`.
    room : tuple of arrays
        From `make_room`.
    """
    at, ceiling, log_h, u, counts = room
    n_checks = _checks(ends, n, total, d, at, ceiling)
    top = -np.inf
    for k in range(n_checks):
        log_h[k] = _log_h(at[k], ceiling[k], n, total, log_factorial)
        top = max(top, log_h[k])
    if n_checks == 0:
        return -np.inf
    constant = (
        log_factorial[n] + log_factorial[total - n] - log_factorial[total]
    )  # the same for all checks
    first, last = 0, n_checks - 1
    while log_h[first] < top - _NEGLIGIBLE:
        first += 1
    while log_h[last] < top - _NEGLIGIBLE:
        last -= 1
    for i in range(n + 2 * _PAD + 2):  # column i has c = n - i, and u = 1 below the ceiling
        counts[i] = n - i
        u[i] = 1.0
    b, low, high = at[first], ceiling[first], min(n, at[first])
    found = 0.0
    for k in range(first, last + 1):
        edge = ceiling[k]
        if k > first:
            low, high = _advance(b, at[k], low, ceiling[k - 1] - 1, edge, n, u, counts)
            b = at[k]
        term, part = 1.0, 0.0
        for c in range(edge, high + 1):
            more = term * u[n - c]
            part += more
            if more < _TERM * part:
                break
            term *= float(b - c) * (n - c) / ((c + 1.0) * (total - b - n + c + 1.0))
        found += math.exp(log_h[k] - top) * part
        while low < edge and u[n - low] > _SURE:
            low += 1
    return min(0.0, top + constant + math.log(found))


@jit
def _checks(ends, n, total, d, at, ceiling):
    """List the ends to look at and the fewest cells that cross there; return how many."""
    n_checks, c = 0, np.int64(1)
    for k in range(ends.size):
        need = n * ends[k] + d
        while total * c < need:
            c += 1
        if c > n:
            break
        if c > ends[k]:
            continue
        n_checks += n_checks == 0 or ceiling[n_checks - 1] != c
        at[n_checks - 1], ceiling[n_checks - 1] = ends[k], c
    return n_checks


@jit
def _log_h(b, c, n, total, log_factorial):
    """Return the log probability of c, but for the terms of n and total alone."""
    return (
        log_factorial[b] - log_factorial[c] - log_factorial[b - c]
        + log_factorial[total - b] - log_factorial[n - c] - log_factorial[total - b - n + c]
    )  # fmt: skip


@jit
def _advance(b, to, low, high, edge, n, u, counts):
    """Move u from b to `to` cells; c above `high` crossed at b, c below `low` surely did not.

    Returns
    -------
    low, high : int
        The same of the new u, where `high` is the largest c that matters.
    """
    expected = (to - b) * edge / to
    reach = edge + np.int64(expected + 3.5 * math.sqrt(expected) + 3.0)
    reach = min(high + to - b, min(n, reach))
    for c in range(high + 1, reach + 1):
        u[n - c] = 0.0
    for more in range(b + 1, to + 1):
        inverse = 1.0 / more
        start = n - min(reach, more)
        width = (n - low - start) // _PAD * _PAD + _PAD
        _step(u[start : start + width + 1], counts[start : start + width], inverse)
    return low, min(reach, to)


@jit
def _step(u, counts, inverse):
    for i in range(counts.size):
        u[i] += counts[i] * inverse * (u[i + 1] - u[i])
