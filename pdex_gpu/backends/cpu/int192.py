"""Whole numbers of 192 bits, as three of 64: exact products of the 128-bit numbers of `wide`.

A number is (high, middle, low), all uint64, in two's complement. Overflowing bits are lost, so a
sum is exact whenever its final value fits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.types.containers import UniTuple
from numba.extending import intrinsic

from .jit import jit

_I64, _I128, _I192 = ir.IntType(64), ir.IntType(128), ir.IntType(192)
_TRIPLE = UniTuple(types.uint64, 3)


def _join(builder: Any, triple: Any) -> Any:
    number = builder.zext(builder.extract_value(triple, 2), _I192)
    for place, shift in ((1, 64), (0, 128)):
        part = builder.zext(builder.extract_value(triple, place), _I192)
        number = builder.or_(number, builder.shl(part, ir.Constant(_I192, shift)))
    return number


def _split(context: Any, builder: Any, number: Any) -> Any:
    parts = [
        builder.trunc(builder.lshr(number, ir.Constant(_I192, shift)), _I64)
        for shift in (128, 64, 0)
    ]
    return context.make_tuple(builder, _TRIPLE, parts)


@intrinsic
def plus(typing_context: Any, x: Any, y: Any) -> Any:
    """Return ``x + y``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _split(context, builder, builder.add(*(_join(builder, arg) for arg in args)))

    return _TRIPLE(_TRIPLE, _TRIPLE), codegen


@intrinsic
def minus(typing_context: Any, x: Any, y: Any) -> Any:
    """Return ``x - y``."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _split(context, builder, builder.sub(*(_join(builder, arg) for arg in args)))

    return _TRIPLE(_TRIPLE, _TRIPLE), codegen


@intrinsic
def multiple(typing_context: Any, x: Any, factor: Any) -> Any:
    """Return ``x * factor`` for a `factor` that is not negative."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        x, factor = args
        wide = builder.zext(factor, _I128)
        half = ir.Constant(_I128, 64)
        parts, carry = [], ir.Constant(_I128, 0)
        for place in (2, 1, 0):
            part = builder.zext(builder.extract_value(x, place), _I128)
            product = builder.add(builder.mul(part, wide), carry)
            parts.append(builder.trunc(product, _I64))
            carry = builder.lshr(product, half)
        return context.make_tuple(builder, _TRIPLE, parts[::-1])

    return _TRIPLE(_TRIPLE, types.uint64), codegen


ZERO = (np.uint64(0), np.uint64(0), np.uint64(0))


@jit
def widened(high, low):
    """Widen a 128-bit number that is not negative."""
    return np.uint64(0), np.uint64(high), low


@jit
def as_float(x):
    """Return the number as float64, within three roundings; 0 if it is negative."""
    if x[0] >> np.uint64(63):
        return 0.0
    return np.float64(x[0]) * 2.0**128 + np.float64(x[1]) * 2.0**64 + np.float64(x[2])
