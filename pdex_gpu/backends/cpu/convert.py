"""Copying stored values into the packed dtype and inspecting each on the way."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numba.extending import overload

from ...utils.float_bits import bits_of_float, float_of_bits
from ...utils.value_summary import ValueSummary
from ..contract import LOG1P_EPSILON
from .jit import jit

# Flags for what was seen, as bits of the return value.
UNFIT = 1  # a value that the packed dtype cannot hold, or NaN or infinity
ZERO = 2  # an explicit zero
FRACTIONAL = 4  # a fractional part above LOG1P_EPSILON

_EPSILON = LOG1P_EPSILON


class Seen(NamedTuple):
    """A summary of values, made while copying them.

    Attributes
    ----------
    flags : int
    minimum, maximum : float
        As in :class:`ValueSummary`; they hold for values that fit the packed dtype.
    """

    flags: int
    minimum: float
    maximum: float

    @property
    def summary(self) -> ValueSummary:
        return ValueSummary(bool(self.flags & FRACTIONAL), self.minimum, self.maximum)


def merged(parts: Iterable[tuple[int, float, float]]) -> Seen:
    """Merge what was seen of all parts."""
    flags, minimum, maximum = 0, 0.0, 0.0
    for some, low, high in parts:
        flags, minimum, maximum = flags | some, min(minimum, low), max(maximum, high)
    return Seen(flags, minimum, maximum)


@jit
def flags_of(value):
    """Return the flags of a float64."""
    flags = UNFIT if value - value != 0 else 0
    if value == 0:
        flags |= ZERO
    if value - np.trunc(value) > _EPSILON:
        flags |= FRACTIONAL
    return flags


def convert(source: np.ndarray, out: np.ndarray) -> tuple[int, float, float]:
    """Copy `source` to `out` in the dtype of `out`; return the fields of :class:`Seen`."""
    raise NotImplementedError  # chosen by dtype below


@overload(convert, jit_options={"nogil": True})
def _convert(source, out):
    is_float = source.dtype.name.startswith("float")
    if out.dtype.name == "uint16":

        def to_counts(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            largest = np.uint16(0)
            for i in range(source.size):
                v = source[i]
                fits = (v >= 0) & (v <= 65535)  # false for NaN
                count = np.uint16(np.int32(v) if fits else np.int32(0))
                out[i] = count
                unfit |= np.uint32(count != v)
                zero |= np.uint32(v == 0)
                largest = max(largest, count)
            return np.int64(unfit) * UNFIT | np.int64(zero) * ZERO, 0.0, np.float64(largest)

        return to_counts

    if is_float:
        # Compared in the precision of the values, as in pdex and the numpy kernels.
        epsilon = np.dtype(source.dtype.name).type(_EPSILON)
        # As signed integers, the bits of positive floats rise with the value; as unsigned
        # integers, those of negative floats fall with it. Comparing these vectorises.
        signed = np.int32 if source.dtype.name == "float32" else np.int64
        unsigned = np.uint32 if source.dtype.name == "float32" else np.uint64

        def to_float(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            fractional = np.uint32(0)
            largest = signed(0)
            smallest = unsigned(0)
            for i in range(source.size):
                v = source[i]
                out[i] = v
                unfit |= np.uint32(v - v != 0)  # NaN or infinity
                zero |= np.uint32(v == 0)
                fractional |= np.uint32(v - np.trunc(v) > epsilon)
                bits = bits_of_float(v)
                largest = max(largest, bits)
                smallest = max(smallest, unsigned(bits))
            flags = (
                np.int64(unfit) * UNFIT | np.int64(zero) * ZERO | np.int64(fractional) * FRACTIONAL
            )
            low = min(np.float64(float_of_bits(signed(smallest))), 0.0)
            return flags, low, np.float64(float_of_bits(largest))

        return to_float

    packed = np.dtype(out.dtype.name).type

    def to_integer(source, out):
        zero = np.uint32(0)
        smallest = packed(0)
        largest = packed(0)
        for i in range(source.size):
            v = packed(source[i])
            out[i] = v
            zero |= np.uint32(v == 0)
            smallest = min(smallest, v)
            largest = max(largest, v)
        return np.int64(zero) * ZERO, np.float64(smallest), np.float64(largest)

    return to_integer
