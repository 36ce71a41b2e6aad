"""Copying stored values into the packed dtype, looking at each on the way."""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from ..contract import LOG1P_EPSILON

# What was seen: bits of the return value.
UNFIT = 1  # a value that the packed dtype cannot hold, or NaN or infinity
ZERO = 2  # an explicit zero
FRACTIONAL = 4  # a fractional part above LOG1P_EPSILON

_EPSILON = LOG1P_EPSILON


def convert(source: np.ndarray, out: np.ndarray) -> int:
    """Copy `source` into the packed dtype of `out`; returns flags. Chosen by dtype below."""
    raise NotImplementedError


@overload(convert, jit_options={"nogil": True})
def _convert(source, out):
    is_float = source.dtype.name.startswith("float")
    if out.dtype.name == "uint16":

        def to_counts(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            for i in range(source.size):
                v = source[i]
                fits = (v >= 0) & (v <= 65535)  # false for NaN
                count = np.uint16(np.int32(v) if fits else np.int32(0))
                out[i] = count
                unfit |= np.uint32(count != v)
                zero |= np.uint32(v == 0)
            return np.int64(unfit) * UNFIT | np.int64(zero) * ZERO

        return to_counts

    if is_float:
        # In the precision of the values, as pdex and the reference compare them.
        epsilon = np.dtype(source.dtype.name).type(_EPSILON)

        def to_float(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            fractional = np.uint32(0)
            for i in range(source.size):
                v = source[i]
                out[i] = v
                unfit |= np.uint32(v - v != 0)  # NaN or infinity
                zero |= np.uint32(v == 0)
                fractional |= np.uint32(v - np.trunc(v) > epsilon)
            return (
                np.int64(unfit) * UNFIT | np.int64(zero) * ZERO | np.int64(fractional) * FRACTIONAL
            )

        return to_float

    def to_integer(source, out):
        zero = np.uint32(0)
        for i in range(source.size):
            out[i] = source[i]
            zero |= np.uint32(source[i] == 0)
        return np.int64(zero) * ZERO

    return to_integer
