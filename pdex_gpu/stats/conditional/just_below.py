"""The bound that an observed statistic is compared with, so that rounding decides nothing."""

from __future__ import annotations

import math

from ...utils.jit import jit

_BELOW = 1.0 - 1e-9  # more than sums differ by, depending on the order of their terms
_BITS = 30


@jit
def just_below(statistic):
    """Return a bound a little below `statistic`: equal ones count as at least as large.

    It has 30 bits: grids that start at the bound do not follow the rounding of the statistic,
    which differs between kernel sets.
    """
    mantissa, exponent = math.frexp(statistic * _BELOW)
    return math.ldexp(math.floor(math.ldexp(mantissa, _BITS)), exponent - _BITS)
