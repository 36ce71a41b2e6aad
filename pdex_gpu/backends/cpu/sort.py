"""Sorting the entries of one gene by value, together with their group codes.

Values become unsigned keys in the same order. A radix sort on the 22 most significant bits that
vary within the gene, in two passes of 11 bits, leaves few pairs out of order. An insertion pass
fixes those; where keys cluster, it gives up and a full radix sort follows. The result is packed as
``key << 32 | code``, ascending. 64-bit keys are replaced by their dense rank.

The sorts exist twice on purpose. A key and its code are one word if both fit in 64 bits, as 32-bit
keys always do, and 64-bit keys do unless the values of a gene span many orders of magnitude; every
pass moves this word at once. Other 64-bit keys fill a word by themselves, so their codes move in a
second array.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from .jit import jit

UNSIGNED, SIGNED, FLOAT = 0, 1, 2  # how bits become keys

DIGIT = 11
_DIGIT = np.uint64(DIGIT)
BINS = 1 << DIGIT
_MASK = np.uint64(BINS - 1)
CODE_BITS = np.uint64(32)
CODE = np.uint64(0xFFFFFFFF)
NOTHING = np.uint64(0xFFFFFFFFFFFFFFFF)  # no entry: no group has its code


def key_bits(values: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the bits of packed values as uint16, uint32 or uint64, and how they become keys."""
    if values.dtype == np.uint16:
        return values, UNSIGNED
    if values.dtype.kind == "f":
        return values.view(f"u{values.dtype.itemsize}"), FLOAT
    return values.view(np.uint64), SIGNED if values.dtype.kind == "i" else UNSIGNED


@jit
def _key32(u, mode):
    u = np.uint32(u)
    if mode == FLOAT:
        return u ^ (np.uint32(np.int32(u) >> np.int32(31)) | np.uint32(0x80000000))
    return u


@jit
def _key64(u, mode):
    if mode == FLOAT:
        return u ^ (np.uint64(np.int64(u) >> np.int64(63)) | np.uint64(0x8000000000000000))
    if mode == SIGNED:
        return u ^ np.uint64(0x8000000000000000)
    return u


def sort_gene(bits, mode, bounds, packed, scratch, histogram):
    """Sort the entries of a gene.

    Parameters
    ----------
    bits : uint16, uint32 or uint64, shape (n,)
        Entries in group order.
    mode : int
        UNSIGNED, SIGNED or FLOAT.
    bounds : int64, shape (K + 1,)
        Entries of group g are ``bits[bounds[g]:bounds[g + 1]]``.
    packed : uint64, shape (>= n,)
        Receives ``key << 32 | code``, ascending.
    scratch : uint64, shape (>= n,)
    histogram : uint32, shape (2 * 2048,)

    Returns
    -------
    int
        Number of negative entries.
    """
    raise NotImplementedError


@overload(sort_gene, jit_options={"nogil": True})
def _sort_gene(bits, mode, bounds, packed, scratch, histogram):
    implementation = _sort64 if bits.dtype.bitwidth == 64 else _sort32

    def call(bits, mode, bounds, packed, scratch, histogram):
        return implementation(bits, mode, bounds, packed, scratch, histogram)

    return call


@jit
def _bit_length(n):
    width = 0
    while width < 64 and (n >> np.uint64(width)) != 0:
        width += 1
    return width


@jit
def _exclusive(histogram):
    total = np.uint32(0)
    for i in range(histogram.size):
        n = histogram[i]
        histogram[i] = total
        total += n


@jit
def _sort32(bits, mode, bounds, packed, scratch, histogram):
    n = bits.size
    if n == 0:
        return 0
    smallest = np.uint32(0xFFFFFFFF)
    largest = np.uint32(0)
    for i in range(n):
        key = _key32(bits[i], mode)
        smallest = min(smallest, key)
        largest = max(largest, key)
    span = np.uint64(largest - smallest)
    width = _bit_length(span)
    low = np.uint64(max(0, width - 2 * DIGIT))
    histogram[:] = 0
    first, second = histogram[:BINS], histogram[BINS:]
    for i in range(n):
        digits = np.uint64(np.uint32(_key32(bits[i], mode) - smallest)) >> low
        first[digits & _MASK] += np.uint32(1)
        second[digits >> _DIGIT] += np.uint32(1)
    _exclusive(first)
    _exclusive(second)
    two_passes = width > DIGIT
    target = scratch if two_passes else packed
    n_negative = 0
    for g in range(bounds.size - 1):
        for i in range(bounds[g], bounds[g + 1]):
            key = _key32(bits[i], mode)
            n_negative += mode == FLOAT and key < np.uint32(0x80000000)
            key = np.uint32(key - smallest)
            digit = (np.uint64(key) >> low) & _MASK
            at = first[digit]
            first[digit] = at + np.uint32(1)
            target[at] = (np.uint64(key) << CODE_BITS) | np.uint64(g)
    _finish(packed, scratch, n, two_passes, low, CODE_BITS, width, first, second)
    return n_negative


@jit
def _finish(packed, scratch, n, two_passes, low, code_bits, width, first, second):
    """Make the second pass, of words in `scratch`, and sort by the bits below both digits."""
    if two_passes:
        shift = low + _DIGIT + code_bits
        for i in range(n):
            entry = scratch[i]
            digit = entry >> shift
            at = second[digit]
            second[digit] = at + np.uint32(1)
            packed[at] = entry
    if low > 0 and not _insertion(packed, n):
        _radix(packed, scratch, n, code_bits, width, first)


@jit
def _insertion(entries, n):
    """Sort a nearly sorted array; return False, leaving a permutation, if that takes too long."""
    budget = 8 * n
    for i in range(1, n):
        entry = entries[i]
        if entries[i - 1] > entry:
            k = i - 1
            while k >= 0 and entries[k] > entry:
                entries[k + 1] = entries[k]
                k -= 1
            entries[k + 1] = entry
            budget -= i - k
            if budget < 0:
                return False
    return True


@jit
def _radix(entries, scratch, n, code_bits, width, histogram):
    """Sort `entries` by the `width` bits of keys above codes, with a stable radix sort."""
    shift = code_bits
    while shift < code_bits + np.uint64(width):
        histogram[:] = 0
        for i in range(n):
            histogram[(entries[i] >> shift) & _MASK] += np.uint32(1)
        _exclusive(histogram)
        for i in range(n):
            digit = (entries[i] >> shift) & _MASK
            at = histogram[digit]
            histogram[digit] = at + np.uint32(1)
            scratch[at] = entries[i]
        entries[:n] = scratch[:n]
        shift += _DIGIT


@jit
def _sort64(bits, mode, bounds, packed, scratch, histogram):
    n = bits.size
    if n == 0:
        return 0
    smallest = np.uint64(0xFFFFFFFFFFFFFFFF)
    largest = np.uint64(0)
    for i in range(n):
        key = _key64(bits[i], mode)
        smallest = min(smallest, key)
        largest = max(largest, key)
    width = _bit_length(largest - smallest)
    code_bits = _bit_length(np.uint64(bounds.size - 2))
    if width + code_bits <= 64:
        n_negative = _sort_words(
            bits, mode, bounds, smallest, width, np.uint64(code_bits), packed, scratch, histogram
        )
        _rank_words(packed, n, np.uint64(code_bits))
        return n_negative
    keys = np.empty(n, np.uint64)
    codes = np.empty(n, np.uint32)
    spare_keys = scratch[:n]
    spare_codes = np.empty(n, np.uint32)
    n_negative = 0
    for g in range(bounds.size - 1):
        for i in range(bounds[g], bounds[g + 1]):
            key = _key64(bits[i], mode)
            n_negative += mode != UNSIGNED and key < np.uint64(0x8000000000000000)
            keys[i] = key - smallest
            codes[i] = g
    span = largest - smallest
    sort_spanning64(keys, codes, spare_keys, spare_codes, n, span, histogram[:BINS])
    rank = np.uint64(0)
    for i in range(n):
        if i > 0 and keys[i] != keys[i - 1]:
            rank += np.uint64(1)
        packed[i] = (rank << CODE_BITS) | np.uint64(codes[i])
    return n_negative


@jit
def _sort_words(bits, mode, bounds, smallest, width, code_bits, packed, scratch, histogram):
    """Sort entries as words ``key << code_bits | code``; return the number of negative ones."""
    n = bits.size
    low = np.uint64(max(0, width - 2 * DIGIT))
    histogram[:] = 0
    first, second = histogram[:BINS], histogram[BINS:]
    for i in range(n):
        digits = (_key64(bits[i], mode) - smallest) >> low
        first[digits & _MASK] += np.uint32(1)
        second[digits >> _DIGIT] += np.uint32(1)
    _exclusive(first)
    _exclusive(second)
    two_passes = width > DIGIT
    target = scratch if two_passes else packed
    n_negative = 0
    for g in range(bounds.size - 1):
        for i in range(bounds[g], bounds[g + 1]):
            key = _key64(bits[i], mode)
            n_negative += mode != UNSIGNED and key < np.uint64(0x8000000000000000)
            key -= smallest
            digit = (key >> low) & _MASK
            at = first[digit]
            first[digit] = at + np.uint32(1)
            target[at] = (key << code_bits) | np.uint64(g)
    _finish(packed, scratch, n, two_passes, low, code_bits, width, first, second)
    return n_negative


@jit
def _rank_words(packed, n, code_bits):
    """Make ``rank << 32 | code`` of sorted words, with the dense rank of each key."""
    codes = (np.uint64(1) << code_bits) - np.uint64(1)
    rank = np.uint64(0)
    before = packed[0] >> code_bits
    for i in range(n):
        key = packed[i] >> code_bits
        rank += np.uint64(key != before)
        before = key
        packed[i] = (rank << CODE_BITS) | (packed[i] & codes)


@jit
def sort_spanning64(keys, codes, spare_keys, spare_codes, n, span, counts):
    """Sort keys in ``[0, span]`` and move `codes` with them; equal keys keep their order."""
    width = _bit_length(span)
    low = max(0, width - 2 * DIGIT)
    _radix64(keys, codes, spare_keys, spare_codes, n, low, width, counts)
    if low > 0 and not insertion64(keys, codes, n):
        _radix64(keys, codes, spare_keys, spare_codes, n, 0, width, counts)


@jit
def _radix64(keys, codes, spare_keys, spare_codes, n, low, width, counts):
    """Sort `keys` by their bits ``[low, width)``, stably, and move `codes` with them."""
    shift = np.uint64(low)
    home = True
    while shift < np.uint64(width):
        if home:
            _pass64(keys, codes, spare_keys, spare_codes, n, shift, counts)
        else:
            _pass64(spare_keys, spare_codes, keys, codes, n, shift, counts)
        home = not home
        shift += _DIGIT
    if not home:
        keys[:n] = spare_keys[:n]
        codes[:n] = spare_codes[:n]


@jit
def _pass64(keys, codes, out_keys, out_codes, n, shift, counts):
    counts[:] = 0
    for i in range(n):
        counts[(keys[i] >> shift) & _MASK] += np.uint32(1)
    _exclusive(counts)
    for i in range(n):
        digit = (keys[i] >> shift) & _MASK
        at = counts[digit]
        counts[digit] = at + np.uint32(1)
        out_keys[at] = keys[i]
        out_codes[at] = codes[i]


@jit
def insertion64(keys, codes, n):
    # Equal keys keep their order, so codes stay ascending within a run, as the scans need.
    budget = 8 * n
    for i in range(1, n):
        key = keys[i]
        if keys[i - 1] > key:
            code = codes[i]
            k = i - 1
            while k >= 0 and keys[k] > key:
                keys[k + 1] = keys[k]
                codes[k + 1] = codes[k]
                k -= 1
            keys[k + 1] = key
            codes[k + 1] = code
            budget -= i - k
            if budget < 0:
                return False
    return True
