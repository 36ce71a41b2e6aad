"""The cells of a pair of samples at each of their distinct values."""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit


@jit
def count_runs(ordered, distinct, counts):
    """Count the cells at each distinct value of a sorted array; return how many values there are.

    `distinct` and `counts` are as long as the array, which is not empty.
    """
    found = np.int64(0)
    for i in range(ordered.size):  # without branches, which cannot be foreseen
        found += i > 0 and ordered[i] != ordered[i - 1]
        distinct[found] = ordered[i]
        counts[found] = i + 1
    for k in range(found, 0, -1):
        counts[k] -= counts[k - 1]
    return found + 1


@jit
def count_small(values, most, distinct, counts):
    """Count the cells at each distinct value of small whole numbers, as :func:`count_runs`.

    None is above `most`. Neighbours, which are often equal, are counted apart: this is faster.
    """
    cells = np.zeros((most + 1, 4), np.int32)
    for i in range(values.size):
        cells[values[i], i & 3] += 1
    found = 0
    for value in range(most + 1):
        its = cells[value, 0] + cells[value, 1] + cells[value, 2] + cells[value, 3]
        if its > 0:
            distinct[found], counts[found] = value, its
            found += 1
    return found


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
def _sort(values, n):
    """Sort the first `n` in place, by Shell's method (numba's own takes seconds to compile)."""
    gap = n // 2
    while gap > 0:
        for i in range(gap, n):
            value = values[i]
            k = i
            while k >= gap and values[k - gap] > value:
                values[k] = values[k - gap]
                k -= gap
            values[k] = value
        gap = 1 if gap == 2 else gap * 5 // 11


@jit
def merge(distinct, counts, values, start, stop, included, merged, own):
    """Count the pooled cells at each distinct value; return how many distinct values there are.

    Parameters
    ----------
    distinct, counts : float64 and int64, shape (n_distinct,)
        Distinct values of the reference, or of the pool, ascending, and its cells at each.
    values, start, stop : float64, int, int
        Those of the target are ``values[start:stop]``, in any order.
    included : bool
        Whether `counts` include the cells of the target.
    merged, own : int64
        To be filled with the pooled cells and the target cells at each distinct value.
    """
    apart = np.empty(stop - start)  # values that the reference does not have
    n_apart = np.int64(0)  # as of now, so that `_sort` is compiled for one type
    for k in range(distinct.size):
        own[k] = 0
    for i in range(start, stop):
        value = values[i]
        at = _place(distinct, value)
        if at < distinct.size and distinct[at] == value:
            own[at] += 1
        else:
            apart[n_apart] = value
            n_apart += 1
    _sort(apart, n_apart)
    size = distinct.size
    for i in range(n_apart):
        if i == 0 or apart[i] != apart[i - 1]:
            size += 1
    # From the largest down, so that `own` can be moved in place.
    i, k = n_apart - 1, distinct.size - 1
    for write in range(size - 1, -1, -1):
        if i < 0 or (k >= 0 and distinct[k] > apart[i]):
            own[write] = own[k]
            merged[write] = counts[k] if included else counts[k] + own[k]
            k -= 1
            continue
        own[write] = 0
        value = apart[i]
        while i >= 0 and apart[i] == value:
            own[write] += 1
            i -= 1
        merged[write] = own[write]
    return size
