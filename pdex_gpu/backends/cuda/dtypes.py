"""Types of stored values and indices on a device, and the keys made from values."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# In the order of the enums in common.cuh.
VALUE_TYPES = ("u1", "i1", "u2", "i2", "u4", "i4", "f4", "u8", "i8", "f8")
INDEX_TYPES = ("u2", "i4", "i8")
_SIGNED, _UNSIGNED, FLOATING = range(3)


@dataclass(frozen=True)
class ValueType:
    """The type of values stored on the device, and of their keys.

    Attributes
    ----------
    code : int
        Position in `VALUE_TYPES`.
    kind : int
        What a key is made from; ``Kind`` in common.cuh.
    bits : int
        Bits per key, 32 or 64.
    """

    code: int
    kind: int
    bits: int

    @property
    def key(self) -> np.dtype:
        return np.dtype(f"u{self.bits // 8}")

    @property
    def zero_key(self) -> int:
        """Return the key of 0."""
        return 0 if self.kind == _UNSIGNED else 1 << (self.bits - 1)

    def value_of(self, key: int) -> float:
        """Return the value that a key was made from; ``value_of`` in common.cuh."""
        top, mask = 1 << (self.bits - 1), (1 << self.bits) - 1
        if self.kind == _UNSIGNED:
            return float(key)
        if self.kind == _SIGNED:
            return float(key - top)
        bits = key ^ top if key & top else ~key & mask
        return float(np.array(bits, self.key).view(f"f{self.bits // 8}"))


def values_of(keys: np.ndarray, kind: int) -> np.ndarray:
    """Return the values that keys were made from, as float64, int64 or uint64."""
    bits = 8 * keys.itemsize
    if kind == _UNSIGNED:
        return keys.astype(np.uint64)
    top = keys.dtype.type(1 << (bits - 1))
    if kind == _SIGNED:
        return (keys ^ top).view(f"i{keys.itemsize}").astype(np.int64)
    found = np.where(keys & top, keys ^ top, ~keys)
    return found.view(f"f{keys.itemsize}").astype(np.float64)


def value_type(dtype: np.dtype) -> ValueType:
    """Return the type of values of `dtype`, one of `VALUE_TYPES`."""
    if dtype.kind == "b":
        dtype = np.dtype(np.uint8)
    bits = 64 if dtype.itemsize == 8 else 32
    if dtype.kind == "f":
        kind = FLOATING
    elif dtype.kind == "u" and dtype.itemsize >= 4:  # shorter ones fit in a signed key
        kind = _UNSIGNED
    else:
        kind = _SIGNED
    return ValueType(VALUE_TYPES.index(dtype.str[1:]), kind, bits)


def index_type(dtype: np.dtype) -> int:
    """Return the position of `dtype` in `INDEX_TYPES`."""
    return INDEX_TYPES.index(dtype.str[1:])
