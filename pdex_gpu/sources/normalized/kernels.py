"""Compiled functions that add up and scale the counts of cells.

Those that scale work on float64 in place. All return where they met a value that is not a count: a
whole number from 0 to 2^53. Sums up to 2^53 are exact, whatever the order of the entries.
"""

from __future__ import annotations

import numpy as np

from ...utils.elementary import log1p
from ...utils.jit import jit

#: Returned if all values are counts, and if an index is out of range.
FINE, OUT_OF_RANGE = -1, -2

#: Larger whole numbers are not all float64.
LARGEST_COUNT = 2.0**53

_BEYOND_INT32 = 2.0**31

#: Counts below this are looked up: a cell has few distinct ones.
TABLE = 256

# What is made of a ratio: the ratio itself, target * ratio, or log1p(target * ratio).
RATIO, SCALED, LOG1P = 0, 1, 2


@jit
def is_count(x):
    """Return whether a float64 is a whole number from 0 to 2^53; NaN is not."""
    return (x >= 0.0) & (x <= LARGEST_COUNT) & (x == np.floor(x))


@jit
def scaled(count, divisor, target, form):
    """Return ``count / divisor``, times `target`, and log1p of that, as `form` says.

    The division is rounded once, so that equal ratios give equal results.
    """
    if count == 0.0:
        return 0.0
    ratio = count / divisor
    if form == RATIO:
        return ratio
    if form == SCALED:
        return target * ratio
    return log1p(target * ratio)


@jit
def add_rows(values, starts, stops, totals):
    """Fill `totals` with the sum of each row ``values[starts[i]:stops[i]]``, of any dtype."""
    for i in range(starts.size):
        row = values[starts[i] : stops[i]]
        # Whole numbers are added in any order: this loop compiles to vector instructions.
        other = np.int64(0)
        sum_of_small = np.int64(0)
        for e in range(row.size):
            x = np.float64(row[e])
            count = np.int32(x if (x >= 0.0) & (x < _BEYOND_INT32) else -1.0)
            other |= (np.float64(count) != x) | (count < 0)
            sum_of_small += count
        if not other:
            totals[i] = sum_of_small
            continue
        total = 0.0
        for e in range(row.size):
            x = np.float64(row[e])
            if not is_count(x):
                return starts[i] + e
            total += x
        totals[i] = total
    return FINE


@jit
def add_entries(values, indices, totals):
    """Add each value to the total of its cell, ``totals[indices[e]]``."""
    for e in range(values.size):
        if not is_count(values[e]):
            return e
        cell = np.int64(indices[e])
        if cell < 0 or cell >= totals.size:
            return OUT_OF_RANGE
        totals[cell] += values[e]
    return FINE


@jit
def scale_rows(values, starts, stops, divisors, target, form):
    """Scale each row ``values[starts[i]:stops[i]]``; see :func:`scaled`.

    Returns where a value is not a count, or is above 0 although its divisor is 0.
    """
    table = np.empty(TABLE, np.float64)
    row_of = np.full(TABLE, -1, np.int64)  # the row that an entry of the table belongs to
    for i in range(starts.size):
        divisor = divisors[i]
        for e in range(starts[i], stops[i]):
            x = values[e]
            if not is_count(x) or (divisor == 0.0 and x > 0.0):
                return e
            if x < TABLE:
                count = np.int64(x)
                if row_of[count] != i:
                    row_of[count] = i
                    table[count] = scaled(x, divisor, target, form)
                values[e] = table[count]
            else:
                values[e] = scaled(x, divisor, target, form)
    return FINE


@jit
def scale_entries(values, indices, divisors, target, form):
    """Scale each value by the divisor of its cell, ``divisors[indices[e]]``; see :func:`scaled`."""
    for e in range(values.size):
        x = values[e]
        cell = np.int64(indices[e])
        if cell < 0 or cell >= divisors.size:
            return OUT_OF_RANGE
        divisor = divisors[cell]
        if not is_count(x) or (divisor == 0.0 and x > 0.0):
            return e
        values[e] = scaled(x, divisor, target, form)
    return FINE


@jit
def finish_ratios(values, target, form):
    """Make ``target * ratio``, or log1p of that, of ratios, in place."""
    for e in range(values.size):
        x = target * values[e]
        values[e] = log1p(x) if form == LOG1P else x


@jit
def copy_rows(data, indices, starts, stops, at, out_data, out_indices):
    """Copy each row ``[starts[i], stops[i])`` to ``at[i]``; the values become float64."""
    for i in range(starts.size):
        shift = at[i] - starts[i]
        for e in range(starts[i], stops[i]):
            out_data[e + shift] = data[e]
            out_indices[e + shift] = indices[e]
