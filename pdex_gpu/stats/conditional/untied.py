"""How likely a sample runs ahead of or lags behind its share of cells whose values are distinct.

As in `crossing`, but counted from the largest value down, where no values are equal but the
smallest (zeros, mostly): of N cells, n of them the sample's, the first E are looked at one by one.
Given that c of B cells are the sample's, all their orders are equally likely. So ballot theorems
hold (Takács 1967): a path that rises by n with each other cell and falls by N - n with each of the
sample's reaches a height for the first time at its end, after B cells, with the probability

    height / (n B)

exactly if N - n is a multiple of n, and else but for steps of a cell.

- The sample lags behind: n B - N c >= d. The first B where it does so with c cells is
  ``B(c) = ceil((N c + d) / n)``, and p the sum over c of h(B(c), c) (n B(c) - N c) / (n B(c)) where
  B(c) <= E: the formula of Birnbaum and Tingey (1951) for N - n cells in place of a known
  distribution.
- It runs ahead: N c - n B >= d. It does so at E, or else last at ``B(c) = floor((N c - d) / n)``
  with c cells: counted back from E, where it has X cells, the path reaches d there for the first
  time. p is the probability at E, and the sum over c of h(B(c), c) times the expectation of
  ``(N c - n B(c) - N X + n E) / (n (E - B(c)))`` over the X for which it is not ahead at E. X - c
  is hypergeometric; the expectation is a sum where that has few terms, and else that of a normal
  X.

Where c has more values than `_LEVELS`, the terms between are taken to be those of the nearest one,
which may change p by 10 %.
"""

from __future__ import annotations

import math

from ...utils.jit import jit
from .hypergeometric import log_weight, relative_tail

_NEGLIGIBLE = 6.5  # of log h, below its largest
_LEVELS = 32  # numbers of cells that are summed over; others are between these
MOST_LEVELS = _LEVELS + 2  # that working memory has to hold
_TERMS = 6  # of an expectation


@jit
def log_lag(looked_at, n, total, d, log_factorial, at, log_h):
    """Return the log probability that the sample lags behind by d; `at` and `log_h` are memory."""
    most = (n * min(looked_at, total - 1) - d) // total
    if most < 0:
        return -math.inf
    stride = 1 + most // _LEVELS
    top = -math.inf
    for k in range(most // stride + 1):
        c = min(most, k * stride + stride // 2)
        at[k] = -((-total * c - d) // n)
        log_h[k] = _log_h(at[k], c, n, total, log_factorial)
        top = max(top, log_h[k])
    found = 0.0
    for k in range(most // stride + 1):
        if log_h[k] > top - _NEGLIGIBLE:
            c = min(most, k * stride + stride // 2)
            first = 1.0 - float(total) * c / (float(n) * at[k])
            found += _share(k, most, stride) * first * math.exp(log_h[k] - top)
    return min(0.0, top + math.log(found))


@jit
def log_ahead(looked_at, n, total, d, log_factorial, at, log_h):
    """Return the log probability that the sample is ahead by d; `at` and `log_h` are memory."""
    least = -((-d) // (total - n))
    edge = -((-n * looked_at - d) // total)  # ahead at the end of what is looked at
    most = min(edge - 1, n)
    top = -math.inf
    at_end = -math.inf
    if edge <= min(n, looked_at):
        at_end = _log_h(looked_at, edge, n, total, log_factorial)
        top = at_end
    stride = 1 + max(0, most - least) // _LEVELS
    n_levels = 0 if most < least else (most - least) // stride + 1
    for k in range(n_levels):
        c = min(most, least + k * stride + stride // 2)
        at[k] = (total * c - d) // n
        log_h[k] = _log_h(at[k], c, n, total, log_factorial)
        top = max(top, log_h[k])
    if top == -math.inf:
        return top
    found = 0.0
    if at_end > -math.inf:
        found = math.exp(at_end - top) * relative_tail(looked_at, edge, n, total)
    for k in range(n_levels):
        if log_h[k] > top - _NEGLIGIBLE:
            c = min(most, least + k * stride + stride // 2)
            last = _expected(at[k], c, looked_at, edge, n, total, log_factorial)
            found += _share(k, most - least, stride) * last * math.exp(log_h[k] - top)
    return min(0.0, top + math.log(found))


@jit
def _share(k, most, stride):
    """Return how many numbers of cells level k stands for."""
    return min(stride, most - k * stride + 1)


@jit
def _log_h(b, c, n, total, log_factorial):
    if c < 0 or c > b or c > n or b - c > total - n:
        return -math.inf
    return log_weight(c, n, b, total, log_factorial)


@jit
def _expected(b, c, looked_at, edge, n, total, log_factorial):
    """Return the expectation of the share of paths that are not ahead after b with c cells."""
    cells, left, hits = looked_at - b, total - b, n - c
    height = float(total) * c - float(n) * b + float(n) * looked_at
    scale = float(n) * cells
    mean = float(hits) * cells / left
    most = min(edge - 1 - c, min(cells, hits))
    least = max(0, hits - (left - cells))
    if most - least < _TERMS:
        if least > most:
            return 0.0
        weight = math.exp(_log_h(cells, least, hits, left, log_factorial))
        found = 0.0
        for x in range(least, most + 1):
            found += weight * (height - float(total) * (c + x))
            weight *= float(cells - x) * (hits - x) / ((x + 1.0) * (left - cells - hits + x + 1.0))
        return found / scale
    variance = mean * (left - hits) / left * (left - cells) / max(1, left - 1)
    within = height - float(total) * (c + mean)
    if variance < 1e-9:
        return max(0.0, within) / scale
    deviation = math.sqrt(variance)
    z = (most + 0.5 - mean) / deviation
    below = 0.5 * math.erfc(-z * math.sqrt(0.5))
    density = math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)
    return max(0.0, within * below + total * deviation * density) / scale
