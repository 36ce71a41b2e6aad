"""Sums of float64 that do not depend on the order of their terms.

Each term is rounded to a multiple of a unit that is large enough for sums of multiples to be exact.
The remainder is rounded to a multiple of a second unit, 2**52 / n times smaller (Demmel and Nguyen
2015, with two folds). For n terms of at most `bound`, what is left out adds up to less than
``bound * n**3 * 2**-102``: for a million terms, 2e-13 of the largest. ``exact_sums.cuh`` gives the
same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic, overload

from ...utils.float_bits import BIAS, EXPONENT, bits_of_float, float_of_bits
from .jit import jit

_MANTISSA = 52
_LOWEST = -1022
_HIGHEST = 1023
_HALF_MORE = np.int64(1) << np.int64(51)  # the mantissa of 1.5


@intrinsic
def add_exactly(typing_context: Any, total: Any, term: Any) -> Any:
    """Return ``total + term``, which may be added in any order, so that a loop is vectorised."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args, flags=("reassoc", "nsz"))

    return types.float64(types.float64, types.float64), codegen


@jit
def folds(bound, n):
    """Return the numbers that, added and subtracted again, round a term to the two units.

    Parameters
    ----------
    bound : float64
        The magnitudes of the terms add up to at most ``n * bound``.
    n : int or float64
        Upper bound on the number of terms.

    Returns
    -------
    first, second : float64
        Zero if the terms or their sum are too large for this, or not finite. The order of terms
        then matters.
    """
    n_bits = exponent_of(np.float64(n)) + 1
    exponent = exponent_of(bound) + n_bits + 2
    if exponent > _HIGHEST:
        return 0.0, 0.0
    first = _fold(exponent)
    return first, _fold(max(exponent, _LOWEST) - _MANTISSA + n_bits)


@jit
def exponent_of(x):
    """Return the exponent of a nonnegative number; 1024 if it is not finite."""
    return (bits_of_float(x) >> EXPONENT) - BIAS


@jit
def _fold(exponent):
    """Return 1.5 times a power of two."""
    return float_of_bits(((max(exponent, _LOWEST) + BIAS) << EXPONENT) + _HALF_MORE)


@jit
def sum_of(x, first, second):
    """Sum the values with `folds` of a bound on them; return two float64 that add up to the sum."""
    return _sum_of(x, first, second)


def _sum_of(x, first, second):
    """Sum the values; implemented by dtype below."""
    raise NotImplementedError


@overload(_sum_of, jit_options={"nogil": True})
def _sum_of_overload(x, first, second):
    if x.dtype.name == "uint16":  # exact in any order, and integers add faster

        def of_counts(x, first, second):
            total = 0
            for i in range(x.size):
                total += np.int64(x[i])
            return np.float64(total), 0.0

        return of_counts

    def of_any(x, first, second):
        if first == 0.0:
            total = 0.0
            for i in range(x.size):
                total += np.float64(x[i])
            return total, 0.0
        high = 0.0
        low = 0.0
        for i in range(x.size):
            term = np.float64(x[i])
            rounded = (term + first) - first
            high = add_exactly(high, rounded)
            low = add_exactly(low, ((term - rounded) + second) - second)
        return high, low

    return of_any


@jit
def extremes(x):
    """Return the smallest and the largest of at least one value, as float64."""
    return _extremes(x)


def _extremes(x):
    """Find the extremes; implemented by dtype below."""
    raise NotImplementedError


@overload(_extremes, jit_options={"nogil": True})
def _extremes_overload(x):
    if isinstance(x.dtype, types.Integer):

        def of_integers(x):
            smallest = x[0]
            largest = x[0]
            for i in range(1, x.size):
                smallest = min(smallest, x[i])
                largest = max(largest, x[i])
            return np.float64(smallest), np.float64(largest)

        return of_integers

    # Compared as integers, without branches: they sort as the floats do once all bits of negative
    # ones, except the sign, are inverted.
    integer = np.int32 if x.dtype.bitwidth == 32 else np.int64
    sign = x.dtype.bitwidth - 1
    others = integer(np.iinfo(integer).max)

    def of_floats(x):
        bits = bits_of_float(x[0])
        smallest = integer(bits ^ ((bits >> sign) & others))
        largest = smallest
        for i in range(1, x.size):
            bits = bits_of_float(x[i])
            key = integer(bits ^ ((bits >> sign) & others))
            smallest = min(smallest, key)
            largest = max(largest, key)
        smallest = integer(smallest ^ ((smallest >> sign) & others))
        largest = integer(largest ^ ((largest >> sign) & others))
        return np.float64(float_of_bits(smallest)), np.float64(float_of_bits(largest))

    return of_floats
