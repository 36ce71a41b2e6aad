"""Compiled ``expm1`` and ``log1p`` of a float64.

They consist only of additions, multiplications and divisions, which vectorise and round the same
everywhere. A value's result has the same bits wherever it stands, and those of ``transforms.cuh``.
"""

from __future__ import annotations

import numpy as np

from .float_bits import BIAS, EXPONENT, bits_of_float, float_of_bits
from .jit import jit

# x = k ln 2 + r. The high part of ln 2 ends in enough zeros for its product with k to be exact
# (fdlibm, e_exp.c).
PER_LN2 = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_TO_INTEGER = 1.5 * 2.0**52  # adding it rounds to an integer, held in the lowest bits
LARGEST = 710.0  # where expm1 is infinite
_SMALLEST = -50.0  # where expm1 rounds to -1


@jit
def expm1(x):
    """Return ``exp(x) - 1`` of a float64; infinite from 709.79 on.

    The error is at most 2.4e-16 of the result, or 5e-324. With ``x = k ln 2 + r`` and
    ``|r| <= ln(2) / 2``, the result is ``2**k expm1(r) + (2**k - 1)``. expm1(r) is its Taylor
    series up to r^13; the remainder is below 2e-17 of r.
    """
    x = LARGEST if x > LARGEST else (_SMALLEST if x < _SMALLEST else x)
    rounded = x * PER_LN2 + _TO_INTEGER
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
    # 2**(k - 1), as float64 has no 2**1024.
    exponent = bits_of_float(rounded) - bits_of_float(_TO_INTEGER) + (BIAS - 1)
    half = float_of_bits(exponent << EXPONENT)
    return 2.0 * (p * half + (half - 0.5))


# log(1 + f) by s = f / (2 + f): a polynomial in s**2 (fdlibm, e_log.c).
_LG1, _LG2, _LG3, _LG4 = (
    6.666666666666735130e-01, 3.999999999940941908e-01, 2.857142874366239149e-01,
    2.222219843214978396e-01,
)  # fmt: skip
_LG5, _LG6, _LG7 = 1.818357216161805012e-01, 1.531383769920937332e-01, 1.479819860511658591e-01
# Added to the bits of a number, this raises the exponent if the significand is at least sqrt(2).
_FROM_SQRT2 = np.int64(0x0009_5F62_0000_0000)


@jit
def log1p(x):
    """Return ``log(1 + x)`` of a float64; -inf at -1, NaN below.

    The error is at most 1.5e-16 of the result. ``1 + x = u (1 + c)``, where u is rounded and c
    corrects for that. ``u = 2**k (1 + f)``, with 1 + f between sqrt(1 / 2) and sqrt(2).
    """
    u = 1.0 + x
    if not u > 0.0:
        return -np.inf if u == 0.0 else np.nan
    part = u - 1.0
    c = ((1.0 - (u - part)) + (x - part)) / u
    bits = bits_of_float(u)
    k = ((bits + _FROM_SQRT2) >> EXPONENT) - BIAS
    f = float_of_bits(bits - (k << EXPONENT)) - 1.0
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    half_square = 0.5 * f * f
    odd = z * (_LG1 + w * (_LG3 + w * (_LG5 + w * _LG7)))
    even = w * (_LG2 + w * (_LG4 + w * _LG6))
    n = np.float64(k)
    return s * (half_square + (odd + even)) + (n * _LN2_LOW + c) - half_square + f + n * _LN2_HIGH
