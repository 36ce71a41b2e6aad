"""Exact tails of A2 where target cells can have few allocations to the distinct values.

With few distinct values, or few cells, A2 has few values, some of them likely. No continuous
distribution replaces that of A2 there, but all allocations can be listed.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .hypergeometric import log_choose
from .just_below import just_below
from .pooled_cells import merge

_MOST = 16_384.0  # allocations that are listed
_NOTHING = -50.0  # logarithm of what disappears next to 1, as often as that


@jit
def terms(cells, n_values, zeros, n, weight, expected):
    """Fill in what A2 is made of, for n target cells; return the weight of 0.

    A2 is the sum of ``weight[k] * (M_k - expected[k])**2``, where M_k counts the target cells up
    to the midrank of value k, and of the weight of 0 times ``(x - n E / N)**2``, because half of
    the target cells at 0 deviate by half as much as x.

    Parameters
    ----------
    cells : int64, at least (n_values,)
        Pooled cells at each distinct value other than 0, ascending.
    zeros : int
        Pooled cells with 0.
    """
    expressed = 0
    for k in range(n_values):
        expressed += cells[k]
    total = expressed + zeros
    factor = (total - 1.0) * total / (n * np.float64(total - n))
    before = np.float64(zeros)
    for k in range(n_values):
        b = before + 0.5 * cells[k]
        spread = b * (total - b) - 0.25 * total * cells[k]
        weight[k] = factor * cells[k] / spread if spread > 0.0 else 0.0
        expected[k] = n * b / total
        before += cells[k]
    return factor / expressed if zeros > 0 else 0.0


@jit
def _are_few(cells, n_values, zeros, n):
    """Return whether there are at most `_MOST` allocations."""
    bound, free = 1.0, 0 if zeros >= n else -1  # values with room for all target cells
    for k in range(n_values):
        if cells[k] >= n:
            free += 1
            if free > 0:
                bound *= (n + free) / free
        if bound > _MOST:
            return False
    # Allocations of s cells to the values so far: sums over a window of those without this value.
    ways, upto = np.empty(n + 1), np.empty(n + 2)
    for s in range(n + 1):
        ways[s] = 1.0 if s <= zeros else 0.0
    for k in range(n_values):
        upto[0] = 0.0
        for s in range(n + 1):
            upto[s + 1] = upto[s] + ways[s]
        for s in range(n + 1):
            ways[s] = upto[s + 1] - upto[max(0, s - cells[k])]
        if ways[n] > _MOST:
            return False
    return True


@jit
def start_of_allocations(cells, n_values, zeros):
    """Return what :func:`next_allocation` keeps.

    At value k: target cells there; sums over it and larger values of target cells, of terms of A2
    and of logarithms of ways; and pooled cells at smaller values.
    """
    own, used = np.full(n_values + 1, -1), np.zeros(n_values + 1, np.int64)
    a2, log_ways = np.zeros(n_values + 1), np.zeros(n_values + 1)
    room = np.empty(n_values + 1, np.int64)
    room[0] = zeros
    for k in range(n_values):
        room[k + 1] = room[k] + cells[k]
    return own, used, a2, log_ways, room


@jit
def next_allocation(
    k, cells, n_values, n, weight, expected, own, used, a2, log_ways, room, log_factorial, least
):
    """Go on to the next allocation of n cells, listed from the largest value down.

    Start at ``k = n_values - 1``, and go on with what was returned: 0, or `n_values` at the end.
    Allocations of which the logarithm of the number of ways is below `least` may be left out.
    """
    while k < n_values:
        own[k] += 1
        t, left = own[k], n - used[k + 1]
        if t > min(cells[k], left):
            own[k] = -1
            k += 1
            continue
        if left - t > room[k]:
            continue
        used[k] = used[k + 1] + t
        log_ways[k] = log_ways[k + 1] + log_choose(cells[k], t, log_factorial)
        # With all allocations of the other cells, which are log-concave in t.
        if log_ways[k] + log_choose(room[k], left - t, log_factorial) < least:
            if t * room[k + 1] > left * cells[k]:  # the mean
                own[k] = -1
                k += 1
            continue
        deviation = left - 0.5 * t - expected[k]
        a2[k] = a2[k + 1] + weight[k] * deviation * deviation
        if k == 0:
            return 0
        k -= 1
    return n_values


@jit
def _log_exact(a, cells, n_values, zeros, n, seen, log_factorial):
    """Return log P(A2 >= a) from all allocations, which are listed from the largest value down.

    `seen` is the log probability of one of those with ``A2 >= a``. Others that disappear next to it
    are left out.
    """
    weight, expected = np.empty(n_values), np.empty(n_values)
    zero_weight = terms(cells, n_values, zeros, n, weight, expected)
    own, used, a2, log_ways, room = start_of_allocations(cells, n_values, zeros)
    total = room[n_values]
    all_ways = log_choose(total, n, log_factorial)
    mean = np.float64(n) * (total - zeros) / total
    sum_of_parts, highest = 0.0, -math.inf
    k = n_values - 1
    while True:
        k = next_allocation(
            k, cells, n_values, n, weight, expected, own, used, a2, log_ways, room, log_factorial,
            seen + all_ways + _NOTHING,
        )  # fmt: skip
        if k == n_values:
            break
        if a2[0] + zero_weight * (used[0] - mean) ** 2 >= a:
            part = log_ways[0] + log_choose(zeros, n - used[0], log_factorial)
            if part > highest:
                sum_of_parts = sum_of_parts * math.exp(highest - part) + 1.0
                highest = part
            else:
                sum_of_parts += math.exp(part - highest)
    if sum_of_parts == 0.0:
        return -math.inf
    return highest + math.log(sum_of_parts) - all_ways


@jit
def _log_allocation(cells, own, n_values, zeros, n, log_factorial):
    """Return the log probability of the allocation seen: the least that a p-value can be.

    Parameters
    ----------
    cells, own : int64, at least (n_values,)
        Pooled cells and target cells at each distinct value other than 0.
    """
    found = 0.0
    total, x = zeros, 0
    for k in range(n_values):
        found += log_choose(cells[k], own[k], log_factorial)
        total += cells[k]
        x += own[k]
    found += log_choose(zeros, n - x, log_factorial)
    return found - log_choose(total, n, log_factorial)


@jit
def judge_by_allocations(
    chosen, a2, distinct, counts, values, starts, stops, n_target, total, expressed, included,
    log_factorial, log_p, least,
):  # fmt: skip
    """Judge pairs with few allocations exactly; p of others is at least that of the one seen.

    Parameters
    ----------
    chosen : int64
        Pairs among those that other arguments describe.
    a2 : float64, shape (n_pairs,)
    distinct, counts, values, included
        See :func:`.pooled_cells.merge`.
    starts, stops, n_target, total, expressed : int64, shape (n_pairs,)
        Where the values of the target are, its cells, pooled cells, and those that express the
        gene.
    log_p : float64, shape (n_pairs,)
        Is replaced for the chosen pairs.
    least : float64, shape (n_pairs,)
        To be filled with the log probability of the allocation seen; NaN if p is exact.
    """
    most = 0
    for i in chosen:
        most = max(most, stops[i] - starts[i])
    most += distinct.size
    merged, own = np.empty(most, np.int64), np.empty(most, np.int64)
    for i in chosen:
        n_values = merge(distinct, counts, values, starts[i], stops[i], included, merged, own)
        zeros, n = total[i] - expressed[i], min(n_target[i], total[i] - n_target[i])
        seen = _log_allocation(merged, own, n_values, zeros, n_target[i], log_factorial)
        least[i] = seen
        log_p[i] = max(log_p[i], seen)
        if _are_few(merged, n_values, zeros, n):
            a = just_below(a2[i])
            exact = _log_exact(a, merged, n_values, zeros, n, seen, log_factorial)
            log_p[i] = min(max(exact, seen), 0.0)
            least[i] = math.nan
