"""How likely the cells of a sample run ahead, somewhere, of their share of the cells of a pair.

Of N cells, n belong to the sample. They are counted from the smallest value up, and equal values
are counted together: an *end* is a number of cells B up to and including some value. c of these B
cells belong to the sample, a hypergeometric number. The sample *crosses* at an end where

    N c - n B >= d,  which is  c >= ceil((n B + d) / N)

This is exact given the pooled values, with ties (Schröer and Trenkler 1995 sum the same paths).
Between two ends with the same ceiling c only grows, so only the later one has to be looked at: at
most n ends matter. With g(B, c) the binomial probability of c of B cells at some rate, and v(B, c)
that of having crossed before as well, the probability of a first crossing at B is

    sum over the c that cross of h(B, c) (1 - v(B, c) / g(B, c)),  h hypergeometric

because given c of the first B cells all their orders are equally likely, at any rate. v follows
from end to end by a convolution with the binomial distribution of the cells between, after v is
set to g where the sample crosses. The rate is that of the likeliest crossing, so nothing that
matters is small, and no probability is found by subtraction but 1 - v / g, which is not small.
v is 0 far below the ceiling. Terms that are left out amount to less than 1 % of p.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit

_NEGLIGIBLE = 6.0  # of log h, below its largest
_SURE = 1e-3  # of v / g
_TERM = 1e-3  # of a sum
_STEP = 1e-5  # of the binomial distribution, relative to its largest


@jit
def make_room(n, n_ends):
    """Return working memory for samples of up to n cells, and up to n_ends ends."""
    checks = min(n, n_ends) + 1
    return (
        np.empty(checks, np.int64), np.empty(checks, np.int64), np.empty(checks),
        np.empty(n + 2), np.empty(n + 2), np.empty(n + 2), np.empty(n + 2),
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
    at, ceiling, log_h, v, new, g, step = room
    n_checks = _checks(ends, n, total, d, at, ceiling)
    if n_checks == 0:
        return -np.inf
    constant = log_factorial[n] + log_factorial[total - n] - log_factorial[total]
    top, likeliest = -np.inf, 0
    for k in range(n_checks):
        b, c = at[k], ceiling[k]
        log_h[k] = constant + _log_choose(b, c, log_factorial)
        log_h[k] += _log_choose(total - b, n - c, log_factorial)
        if log_h[k] > top:
            top, likeliest = log_h[k], k
    first, last = 0, n_checks - 1
    while log_h[first] < top - _NEGLIGIBLE:
        first += 1
    while log_h[last] < top - _NEGLIGIBLE:
        last -= 1
    # Bounded away from 1, where all cells that may cross belong to the sample.
    rate = min(ceiling[likeliest] / at[likeliest], 1.0 - 1.0 / total)
    log_rate, log_rest, odds = math.log(rate), math.log1p(-rate), rate / (1.0 - rate)
    low = ceiling[first]  # v is 0 below
    found, width, step_low, step_high = 0.0, -1, 0, 0
    for k in range(first, last + 1):
        b, edge = at[k], ceiling[k]
        reach = min(n, b)
        if k > first:
            before, previous = at[k - 1], ceiling[k - 1]
            if width != b - before:
                width = b - before
                step_low, step_high = _binomial(
                    width, log_rate, log_rest, odds, step, log_factorial
                )
            # The largest c that matters: where h has fallen, and which can be reached.
            fall = _ratio(b, edge, n, total)
            reach = min(reach, previous - 1 + step_high)
            if fall < 0.9999:
                reach = min(reach, edge + np.int64(math.log(_TERM) / math.log(fall)))
            reach = max(reach, edge - 1)
            # v is g where it crossed at the end before.
            upto = max(previous - 1, min(reach - step_low, min(n, before)))
            for c in range(previous, upto + 1):
                v[c] = g[c - previous] if c - previous < 1 else v[c - 1] * _odds(c, before, odds)
            start = min(low + step_low, reach + 1)
            new[start : reach + 1] = 0.0
            for j in range(step_low, step_high + 1):
                c = max(start, low + j)
                until = min(reach, upto + j)
                if c <= until:
                    _add(new[c : until + 1], v[c - j : until - j + 1], step[j - step_low])
            low = start
            v, new = new, v
        share = math.exp(
            _log_choose(b, edge, log_factorial) + edge * log_rate + (b - edge) * log_rest
        )
        g[0] = share
        term, part = 1.0, 0.0
        for c in range(edge, reach + 1):
            more = term
            if k > first:
                more = term * max(0.0, 1.0 - v[c] / share)
            part += more
            if more < _TERM * part:
                break
            term *= _ratio(b, c, n, total)
            share *= _odds(c + 1, b, odds)
        found += math.exp(log_h[k] - top) * part
        while low < edge and v[low] < _SURE * g[0]:
            low += 1
    return min(0.0, top + math.log(found))


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
def _log_choose(n, k, log_factorial):
    return log_factorial[n] - log_factorial[k] - log_factorial[n - k]


@jit
def _ratio(b, c, n, total):
    """Return ``h(b, c + 1) / h(b, c)``."""
    return float(b - c) * (n - c) / ((c + 1.0) * (total - b - n + c + 1.0))


@jit
def _odds(c, b, odds):
    """Return ``g(b, c) / g(b, c - 1)``."""
    return odds * (b - c + 1.0) / c


@jit
def _binomial(n, log_rate, log_rest, odds, out, log_factorial):
    """Write the binomial probabilities that matter to `out`; return the first and the last."""
    likely = min(n, out.size - 1, np.int64((n + 1) * math.exp(log_rate)))
    largest = math.exp(
        _log_choose(n, likely, log_factorial) + likely * log_rate + (n - likely) * log_rest
    )
    low, term = likely, largest
    while low > 0 and term > _STEP * largest:
        term /= _odds(low, n, odds)
        low -= 1
    last = min(n, out.size - 1 + low)
    high = low
    out[0] = term
    while high < last and (high < likely or term > _STEP * largest):
        high += 1
        term *= _odds(high, n, odds)
        out[high - low] = term
    return low, high


@jit
def _add(to, values, factor):
    for i in range(to.size):
        to[i] += factor * values[i]
