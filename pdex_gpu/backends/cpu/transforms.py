"""``expm1`` and ``log1p`` of the entries of a gene.

The exponential is evaluated without branches or calls, so that it is vectorised; each value is
the same bits wherever it stands.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from .jit import jit

# x = k ln 2 + r. The high part of ln 2 has zeros enough behind it for k times it to be exact
# (fdlibm, e_exp.c).
_PER_LN2 = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_TO_INTEGER = 1.5 * 2.0**52  # added, it rounds to an integer, which the lowest bits then are
_LARGEST = 710.0  # infinite
_SMALLEST = -50.0  # -1, rounded

_EXPONENT = np.int64(52)
_BIAS = np.int64(1023)


@intrinsic
def _float_bits(typing_context: Any, x: Any) -> Any:
    """The bits of a float64 as an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _float_of_bits(typing_context: Any, bits: Any) -> Any:
    """The float64 that has the bits of an int64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@jit
def expm1(x):
    """``exp(x) - 1`` of a float64, off by 2.4e-16 of it at worst, or by 5e-324; infinite from
    709.79 on.

    With ``x = k ln 2 + r``, ``|r| <= ln(2) / 2``: ``2**k expm1(r) + (2**k - 1)``, expm1(r) by its
    Taylor series up to r^13, what is left out being below 2e-17 of r.
    """
    x = _LARGEST if x > _LARGEST else (_SMALLEST if x < _SMALLEST else x)
    rounded = x * _PER_LN2 + _TO_INTEGER
    k = rounded - _TO_INTEGER
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1 / 6227020800
    p = p * r + 1 / 479001600
    p = p * r + 1 / 39916800
    p = p * r + 1 / 3628800
    p = p * r + 1 / 362880
    p = p * r + 1 / 40320
    p = p * r + 1 / 5040
    p = p * r + 1 / 720
    p = p * r + 1 / 120
    p = p * r + 1 / 24
    p = p * r + 1 / 6
    p = p * r + 0.5
    p = p * (r * r) + r
    # 2**(k - 1), as 2**1024 does not exist.
    exponent = _float_bits(rounded) - _float_bits(_TO_INTEGER) + (_BIAS - 1)
    half = _float_of_bits(exponent << _EXPONENT)
    return 2.0 * (p * half + (half - 0.5))


@jit
def expm1_of(x, out):
    """``expm1`` of each value, as float64, into ``out[:x.size]``."""
    for i in range(x.size):
        out[i] = expm1(np.float64(x[i]))


@jit
def log1p_of(x, out):
    """``log1p`` likewise: NaN below -1, -inf at -1."""
    for i in range(x.size):
        out[i] = math.log1p(np.float64(x[i]))


@jit
def look_up(counts, table, out):
    """``table[count]`` of each count, into ``out[:counts.size]``."""
    for i in range(counts.size):
        out[i] = table[counts[i]]


@lru_cache(maxsize=1)
def log1p_of_counts() -> np.ndarray:
    """``log1p`` of every uint16, float64."""
    return np.log1p(np.arange(65536.0))
