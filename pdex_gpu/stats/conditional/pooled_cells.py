"""The cells of a pair of samples at each of their distinct values."""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit


@jit
def _place(distinct, value):
    """Return the number of distinct values below `value`."""
    low, high = 0, distinct.size
    while low < high:
        middle = (low + high) // 2
        if distinct[middle] < value:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def _sort(values):
    """Sort in place, by Shell's method (numba's own takes seconds to compile)."""
    gap = values.size // 2
    while gap > 0:
        for i in range(gap, values.size):
            value = values[i]
            k = i
            while k >= gap and values[k - gap] > value:
                values[k] = values[k - gap]
                k -= gap
            values[k] = value
        gap = 1 if gap == 2 else gap * 5 // 11
    return values


@jit
def merge(distinct, counts, target, merged, own):
    """Pool the values of a target with those of the reference; return how many are distinct.

    Parameters
    ----------
    merged, own : int64
        To be filled with the pooled cells and the target cells at each distinct value.
    """
    apart = np.empty(target.size)  # values that the reference does not have
    n_apart = 0
    own[: distinct.size] = 0
    for i in range(target.size):
        at = _place(distinct, target[i])
        if at < distinct.size and distinct[at] == target[i]:
            own[at] += 1
        else:
            apart[n_apart] = target[i]
            n_apart += 1
    if n_apart == 0:
        merged[: distinct.size] = counts + own[: distinct.size]
        return distinct.size
    rest = apart[:n_apart]
    _sort(rest)
    n_new = 1
    for i in range(1, n_apart):
        n_new += rest[i] != rest[i - 1]
    # From the largest down, so that `own` can be moved in place.
    size = distinct.size + n_new
    write, i, k = size - 1, n_apart - 1, distinct.size - 1
    while i >= 0:
        if k >= 0 and distinct[k] > rest[i]:
            own[write] = own[k]
            merged[write] = counts[k] + own[k]
            k -= 1
        else:
            equal = 1
            while i - equal >= 0 and rest[i - equal] == rest[i]:
                equal += 1
            own[write] = merged[write] = equal
            i -= equal
        write -= 1
    while k >= 0:
        merged[k] = counts[k] + own[k]
        k -= 1
    return size


@jit
def locate(distinct, counts, target, merged, own):
    """Count the cells of a target at each distinct value of a pool that includes them."""
    own[: distinct.size] = 0
    for i in range(target.size):
        own[_place(distinct, target[i])] += 1
    merged[: distinct.size] = counts
    return distinct.size
