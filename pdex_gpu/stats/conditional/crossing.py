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
set to g where the sample crosses. The rate is that of a likely crossing, so nothing that
matters is small, and no probability is found by subtraction but 1 - v / g, which is not small.
v is 0 far below the ceiling. Terms that are left out amount to less than 1 % of p.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_choose

_NEGLIGIBLE = 6.5  # of log h, below its largest
_SURE = 5e-3  # of v / g
_TERM = 3e-3  # of a sum
_TOGETHER = 4  # steps


@jit
def most_steps(n):
    """Return how many numbers each row of `paths` has for samples of up to n cells."""
    return 2 * n + 3 * _TOGETHER


@jit
def log_crossing(
    ends, n_ends, n, total, d, log_factorial, at, ceiling, log_h, paths, inverse
):  # fmt: skip
    """Return the logarithm of the probability that the sample crosses at any of the ends.

    Parameters
    ----------
    ends : int64 array
        The first `n_ends` of them, ascending; `total` itself may be left out, because nothing
        crosses there.
    n, total, d : int
        As above; d is positive.
    log_factorial : float64 array
        Up to `total`.
    at, ceiling : int64 arrays
    log_h : float64 array
        Working memory for n or `n_ends` numbers, whichever is less.
    paths : float64 array, shape (3, at least ``most_steps(n)``)
        Working memory.
    inverse : float64 array
        ``1 / c`` for c from 1 to ``n + 1``.
    """
    v, new, step = paths[0], paths[1], paths[2]
    n_checks = _checks(ends, n_ends, n, total, d, at, ceiling)
    if n_checks == 0:
        return -np.inf
    top = -np.inf
    for k in range(n_checks):
        b, c = at[k], ceiling[k]
        log_h[k] = log_choose(b, c, log_factorial)
        log_h[k] += log_choose(total - b, n - c, log_factorial)
        top = max(top, log_h[k])
    first, last = 0, n_checks - 1
    while log_h[first] < top - _NEGLIGIBLE:
        first += 1
    while log_h[last] < top - _NEGLIGIBLE:
        last -= 1
    # Bounded away from 1, where all cells up to the last end belong to the sample.
    rate = min(ceiling[last] / at[last], 1.0 - 1.0 / total)
    log_rate, log_rest, odds = math.log(rate), math.log1p(-rate), rate / (1.0 - rate)
    # v and new have c at index zero + c. v is 0 below low.
    zero = n + 2 * _TOGETHER
    low, previous, before, g = ceiling[first], ceiling[first], 0, 0.0
    found, step_low, n_steps = 0.0, 0, 0
    for k in range(first, last + 1):
        b, edge = at[k], ceiling[k]
        reach = min(n, b)
        if k > first:
            step_low, n_steps = _steps(
                b - before, edge, b, log_rate, log_rest, odds, inverse, log_factorial, step
            )
            # The largest c that matters: where h has fallen, and which can be reached.
            fall = _ratio(b, edge, n, total)
            reach = min(reach, previous - 1 + step_low + n_steps - 1)
            if fall < 0.99:
                reach = min(reach, edge + np.int64(math.log(_TERM) / math.log(fall)))
            reach = max(reach, edge - 1)
            # v is g where it crossed at the end before.
            upto = max(previous - 1, min(reach - step_low, min(n, before)))
            for c in range(previous, upto + 1):
                v[zero + c] = g
                g *= odds * (before - c) * inverse[c + 1]
            start = min(low + step_low, reach + 1)
            size = reach - start + 1
            # Steps are taken several at a time, and may begin where v is not defined.
            shift = zero + start - step_low
            for i in range(shift - n_steps - _TOGETHER, zero + low):
                v[i] = 0.0
            for i in range(zero + upto + 1, shift + size):
                v[i] = 0.0
            out = new[zero + start : zero + reach + 1]
            out[:] = 0.0
            for j in range(0, n_steps, _TOGETHER):
                _add(
                    out, v[shift - j - _TOGETHER + 1 : shift - j + size], step[j], step[j + 1],
                    step[j + 2], step[j + 3],
                )  # fmt: skip
            low = start
            v, new = new, v
        log_g = log_choose(b, edge, log_factorial) + edge * log_rate + (b - edge) * log_rest
        g = math.exp(log_g)
        share = 1.0 / g
        term, part = 1.0, 0.0
        for c in range(edge, reach + 1):
            more = term
            if k > first:
                more = term * max(0.0, 1.0 - v[zero + c] * share)
            part += more
            if more < _TERM * part:
                break
            term *= _ratio(b, c, n, total)
            share *= (c + 1.0) / (odds * (b - c))
        found += math.exp(log_h[k] - top) * part
        while low < edge and v[zero + low] < _SURE * g:
            low += 1
        before, previous = b, edge
    constant = log_factorial[n] + log_factorial[total - n] - log_factorial[total]
    return min(0.0, top + constant + math.log(found))


@jit
def _checks(ends, n_ends, n, total, d, at, ceiling):
    """List the ends to look at and the fewest cells that cross there; return how many."""
    n_checks, c = 0, np.int64(1)
    for k in range(n_ends):
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
def _ratio(b, c, n, total):
    """Return ``h(b, c + 1) / h(b, c)``."""
    return float(b - c) * (n - c) / ((c + 1.0) * (total - b - n + c + 1.0))


@jit
def _steps(n, c, b, log_rate, log_rest, odds, inverse, log_factorial, out):
    """Write the binomial probabilities of n cells; return the first and how many they are.

    Those are left out that do not matter to c of b cells, of which these n are the last. As many
    zeros follow as fill the last `_TOGETHER`.
    """
    mean = float(n) * c / b
    spread = 3.5 * math.sqrt(mean * (1.0 - c / b))
    low = np.int64(max(0.0, mean - spread - 1.0))
    high = min(min(n, inverse.size - 2), np.int64(mean + spread + 4.0))
    low = min(low, high)
    term = math.exp(log_choose(n, low, log_factorial) + low * log_rate + (n - low) * log_rest)
    out[0] = term
    for j in range(low, high):
        term *= odds * (n - j) * inverse[j + 1]
        out[j + 1 - low] = term
    size = high - low + 1
    for i in range(size, (size + _TOGETHER - 1) // _TOGETHER * _TOGETHER):
        out[i] = 0.0
    return low, size


@jit
def _add(to, values, a, b, c, d):
    """Add the values of four steps, a the shortest; `values` begins with three more."""
    for i in range(to.size):
        to[i] += a * values[i + 3] + b * values[i + 2] + c * values[i + 1] + d * values[i]
