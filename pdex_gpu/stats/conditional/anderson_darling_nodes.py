"""The law of A2 in a stratum as a mixture, before and after tilting: see :mod:`.tilted_mixtures`.

A2 above the sum that is observed counts as that sum; then it reaches it all the same.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .anderson_darling_exact import next_allocation, start_of_allocations
from .anderson_darling_mixture import _bridge, _cumulants, scaled_constants
from .anderson_darling_tilted import _recursion
from .hypergeometric import log_choose, log_weight
from .tie_pattern import C_TOP
from .tilted_mixtures import K1, K2, K3, LEAST_VARIANCE, LOG_H, TOP

NODES = 1024  # of a stratum at most
_FINEST = 32.0  # steps of x in its standard deviation


@jit
def list_nodes(a, n, total, expressed, its, log_factorial, nodes):
    """List x with log h(x) and the cumulants of A2 given x; return how many, and the largest tilt.

    Steps of x are short relative to its standard deviation, and to that of A2 given x.
    """
    gamma, c0, c1, c2, c3, d1, d2 = scaled_constants(n, total, expressed, its)
    size, silent = np.float64(total), total - expressed
    mean = np.float64(n) * expressed / total
    low, high = max(0, n - silent), min(n, expressed)
    step = 1
    if high > low:
        deviation = math.sqrt(mean * (silent / size) * ((size - n) / (size - 1.0)))
        reach = math.sqrt(a / c0) + 6.0 * deviation + 2.0  # beyond, A2 is above a
        low = max(low, np.int64(math.floor(mean - reach)))
        high = min(high, np.int64(math.ceil(mean + reach)))
        spread = _bridge(mean, expressed) * math.sqrt(2.0 * c2)
        width = 0.5 * min(deviation, 0.5 * spread / math.sqrt(a * c0))
        step = max(1, np.int64(max(width, deviation / _FINEST)))
        step = max(step, (high - low) // NODES + 1)
    n_nodes, steepest = 0, 0.0
    for j in range((high - low) // step + 1):
        x = low + j * step
        k1, k2, k3 = _cumulants(np.float64(x), mean, expressed, c0, c1, c2, c3, d1, d2)
        if k1 > a + 6.0 * math.sqrt(k2):
            k1, k2, k3 = a, 0.0, 0.0
        top = _bridge(np.float64(x), expressed) * gamma * its[C_TOP]
        rest2, rest3 = k2 - 2.0 * top * top, k3 - 8.0 * top * top * top
        if k2 > 0.0 and 1e-6 * k2 < rest2 and 1e-6 * k3 < rest3 <= 4.0 * top * rest2:
            k1, k2, k3 = k1 - top, rest2, rest3
        else:
            top = 0.0
        if k2 > LEAST_VARIANCE * k1 * k1:
            steepest = max(steepest, 2.0 * top, 0.5 * k3 / k2)
        its_own = nodes[n_nodes]
        its_own[LOG_H] = log_weight(x, n, expressed, total, log_factorial) + math.log(step)
        its_own[K1], its_own[K2], its_own[K3], its_own[TOP] = k1, k2, k3, top
        n_nodes += 1
    return n_nodes, 0.98 / steepest if steepest > 0.0 else math.inf


@jit
def list_allocations(
    cells, n_values, zeros, n, a, weight, expected, zero_weight, log_factorial, nodes
):
    """List all allocations, with log probability and A2, as nodes; return how many, or 0.

    0 where they are too many. The arguments are those of :func:`.anderson_darling_exact.terms`.
    """
    own, used, a2, log_ways, room = start_of_allocations(cells, n_values, zeros)
    total = room[n_values]
    all_ways = log_choose(total, n, log_factorial)
    mean = np.float64(n) * (total - zeros) / total
    found, k = 0, n_values - 1
    while True:
        k = next_allocation(
            k, cells, n_values, n, weight, expected, own, used, a2, log_ways, room, log_factorial,
            -math.inf,
        )  # fmt: skip
        if k == n_values:
            break
        if found == NODES:
            return 0
        nodes[found, LOG_H] = log_ways[0] + log_choose(zeros, n - used[0], log_factorial) - all_ways
        nodes[found, K1] = min(a, a2[0] + zero_weight * (used[0] - mean) ** 2)
        nodes[found, K2], nodes[found, K3], nodes[found, TOP] = 0.0, 0.0, 0.0
        found += 1
    return found


@jit
def has_mirror(cells, own, n_values, zeros, n):
    """Return whether the mirror image of the allocation is another one with the same A2."""
    x = 0
    for k in range(n_values):
        x += own[k]
    first = 0 if zeros == 0 else -1  # number -1 is the value 0
    other = False
    for k in range(first, n_values):
        j = n_values - 1 - (k - first)
        here, there = zeros if k < 0 else cells[k], zeros if j < 0 else cells[j]
        if here != there:
            return False
        if (n - x if k < 0 else own[k]) != (n - x if j < 0 else own[j]):
            other = True
    return other


@jit
def tilt_cells(
    theta, a, cells, n_values, zeros, n, weight, expected, zero_weight, log_factorial, moments,
    work, part,
):  # fmt: skip
    """Fill `part` as :func:`tilt_nodes` does, by the recursion; return how many x there are."""
    scale = _recursion(theta, cells, n_values, weight, expected, n, log_factorial, moments, work)
    expressed = 0
    for k in range(n_values):
        expressed += cells[k]
    total = expressed + zeros
    mean = np.float64(n) * expressed / total
    all_ways = log_choose(total, n, log_factorial)
    found = 0
    for x in range(max(0, n - zeros), min(n, expressed) + 1):
        if not moments[x, 0] > 0.0:
            continue
        q = zero_weight * (x - mean) ** 2
        if q >= a:
            part[0, found] = theta * a + log_weight(x, n, expressed, total, log_factorial)
            part[1, found], part[2, found], part[3, found] = a, 0.0, 0.0
            found += 1
            continue
        m1, m2 = moments[x, 1] / moments[x, 0], moments[x, 2] / moments[x, 0]
        m3 = moments[x, 3] / moments[x, 0]
        part[0, found] = scale + theta * q + math.log(moments[x, 0])
        part[0, found] += log_choose(zeros, n - x, log_factorial) - all_ways
        part[1, found] = m1 + q
        k2 = m2 - m1 * m1
        part[2, found] = k2 if k2 > LEAST_VARIANCE * (m1 + q) ** 2 else 0.0
        part[3, found] = m3 - 3.0 * m1 * m2 + 2.0 * m1 * m1 * m1 if part[2, found] > 0.0 else 0.0
        found += 1
    return found
