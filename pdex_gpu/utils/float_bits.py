"""The bits of floating-point numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba.core import types
from numba.extending import intrinsic

EXPONENT = np.int64(52)  # position of its lowest bit in a float64
BIAS = np.int64(1023)

_INTEGERS: dict[Any, Any] = {types.float32: types.int32, types.float64: types.int64}
_FLOATS = {integer: floating for floating, integer in _INTEGERS.items()}


@intrinsic
def bits_of_float(typing_context: Any, x: Any) -> Any:
    """Return the bits of a float64 as an int64, or of a float32 as an int32."""
    return _INTEGERS[x](x), _bitcast


@intrinsic
def float_of_bits(typing_context: Any, bits: Any) -> Any:
    """Return the float64 with the bits of an int64, or the float32 with those of an int32."""
    return _FLOATS[bits](bits), _bitcast


def _bitcast(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.bitcast(args[0], context.get_value_type(signature.return_type))
