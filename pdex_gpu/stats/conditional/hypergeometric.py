"""The number of expressing cells in the target, given the pooled cells: hypergeometric.

N = n + m cells of a pair, E of which express the gene; x of the n target cells do with probability

    h(x) = C(E, x) C(N - E, n - x) / C(N, n)
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit

_table = np.zeros(2)


def log_factorials(n: int) -> np.ndarray:
    """Return ``log(k!)`` for k = 0 ... at least `n`, float64, read-only.

    The table is kept and grows as needed. Its entries do not depend on its length.
    """
    global _table
    found = _table  # another thread may replace it meanwhile
    if len(found) <= n:
        from scipy.special import gammaln

        found = gammaln(np.arange(1.0, max(n, 2 * len(found), 4095) + 2.0))
        found.setflags(write=False)
        _table = found
    return found


@jit
def log_choose(n, k, log_factorial):
    """Return ``log C(n, k)``; both are whole numbers, 0 <= k <= n."""
    return log_factorial[n] - log_factorial[k] - log_factorial[n - k]


@jit
def log_weight(x, n, expressed, total, log_factorial):
    """Return ``log h(x)``; all are whole numbers, x within its support."""
    silent = total - expressed
    return (
        log_factorial[expressed] + log_factorial[silent]
        + log_factorial[n] + log_factorial[total - n] - log_factorial[total]
        - log_factorial[x] - log_factorial[expressed - x]
        - log_factorial[n - x] - log_factorial[silent - n + x]
    )  # fmt: skip


@jit
def mode(n, expressed, total):
    """Return the most likely x."""
    likely = math.floor((n + 1.0) * (expressed + 1.0) / (total + 2.0))
    return min(min(n, expressed), max(0, n - (total - expressed), likely))


@jit
def relative_tail(b, c, n, total):
    """Return the probability that c or more of b cells are of n, relative to that of c."""
    term, found = 1.0, 0.0
    while c <= min(n, b) and term > 1e-4 * found:
        found += term
        term *= float(b - c) * (n - c) / ((c + 1.0) * (total - b - n + c + 1.0))
        c += 1
    return found
