"""Whole numbers of 128 bits, as two of 64: exact sums of products.

A number is (high, low): ``high * 2**64 + low``, high an int64 and low a uint64. Overflowing bits
are lost, as with numba's own integers, so a sum is exact whenever its final value fits.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.types.containers import Tuple
from numba.extending import intrinsic

from .jit import jit

_I64, _I128 = ir.IntType(64), ir.IntType(128)
_PAIR = Tuple((types.int64, types.uint64))
_64 = ir.Constant(_I128, 64)


def _join(builder: Any, high: Any, low: Any) -> Any:
    return builder.or_(builder.shl(builder.sext(high, _I128), _64), builder.zext(low, _I128))


def _split(context: Any, builder: Any, number: Any) -> Any:
    high = builder.trunc(builder.lshr(number, _64), _I64)
    return context.make_tuple(builder, _PAIR, [high, builder.trunc(number, _I64)])


@intrinsic
def add_product(typing_context: Any, high: Any, low: Any, a: Any, b: Any) -> Any:
    """Return ``(high, low) + a * b`` for int64 `a` and `b`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high, low, a, b = args
        product = builder.mul(builder.sext(a, _I128), builder.sext(b, _I128))
        return _split(context, builder, builder.add(_join(builder, high, low), product))

    return _PAIR(types.int64, types.uint64, types.int64, types.int64), codegen


@intrinsic
def add_multiple(
    typing_context: Any, high: Any, low: Any, a: Any, of_high: Any, of_low: Any
) -> Any:
    """Return ``(high, low) + a * (of_high, of_low)`` for an int64 `a`."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        high, low, a, of_high, of_low = args
        product = builder.mul(builder.sext(a, _I128), _join(builder, of_high, of_low))
        return _split(context, builder, builder.add(_join(builder, high, low), product))

    pair = types.int64, types.uint64
    return _PAIR(*pair, types.int64, *pair), codegen


HALF_BITS = 60  # of the lower of a number's two parts
_LOWER_HALF = 2.0**HALF_BITS
_UPPER_HALF = np.uint64(1 << HALF_BITS)


@jit
def whole(x, factor):
    """Return ``floor(x * factor * 2**60)`` for float64 `x >= 0`; `factor` is a power of two."""
    upper = x * factor
    high = math.floor(upper)
    return add_multiple(0, np.uint64((upper - high) * _LOWER_HALF), np.int64(high), 0, _UPPER_HALF)


_LOW_HALF = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_LAST_BITS = np.uint64(2047)  # those of 64 bits that float64 may have no room for


@jit
def as_float(high, low):
    """Return the float64 nearest to the number, which is not negative and below 2**96."""
    top = np.uint64(high) << _HALF | low >> _HALF
    rest = np.float64(top & _LAST_BITS) * 2.0**32 + np.float64(low & _LOW_HALF)
    return np.float64(top & ~_LAST_BITS) * 2.0**32 + rest  # both exact: one rounding


@jit
def as_double(high, low):
    """Return the number, which is not negative, as the sum of two float64."""
    top = np.uint64(high)
    s, e = two_sum(np.float64(top >> _HALF) * 2.0**96, np.float64(top & _LOW_HALF) * 2.0**64)
    s, e = add(s, e, np.float64(low >> _HALF) * 2.0**32, 0.0)
    return add(s, e, np.float64(low & _LOW_HALF), 0.0)


# --- sums of two float64 that do not overlap (Dekker 1971, Knuth 1969) ---------------------------


@jit
def two_sum(a, b):
    """Return ``a + b`` and its rounding error."""
    s = a + b
    t = s - a
    return s, (a - (s - t)) + (b - t)


_SPLITTER = 134217729.0  # 2**27 + 1


@jit
def two_product(a, b):
    """Return ``a * b`` and its rounding error, for magnitudes below 1e300."""
    p = a * b
    c = _SPLITTER * a
    a_high = c - (c - a)
    c = _SPLITTER * b
    b_high = c - (c - b)
    a_low, b_low = a - a_high, b - b_high
    return p, ((a_high * b_high - p) + a_high * b_low + a_low * b_high) + a_low * b_low


@jit
def add(a_high, a_low, b_high, b_low):
    """Return the sum of two such pairs, off by a few 2**-106 of the larger one."""
    s, e = two_sum(a_high, b_high)
    return two_sum(s, e + (a_low + b_low))


@jit
def times(high, low, factor):
    """Return such a pair times a float64."""
    p, e = two_product(high, factor)
    return two_sum(p, e + low * factor)
