"""Benjamini-Hochberg adjustment of millions of p-values on several threads.

P-values are assigned to buckets by their leading bits (exponent and part of the mantissa: a
monotone map that spreads uniform p-values as well as tiny ones). Each bucket is sorted on its own,
and the running minima of the buckets are joined from the top down.
"""

from __future__ import annotations

import itertools
import math

import numpy as np

from ...utils.parallel import Map
from .jit import jit
from .sort import BINS, insertion64, sort_spanning64
from .work_split import exclusive_sum, split_evenly

_MANTISSA_BITS = 52
_SMALLEST_EXPONENT = 1023 - 64  # smaller p-values share the first bucket
_A_BUCKET = 14  # log2 of the p-values per bucket, roughly
_A_PART = 1 << 16
_INSERTION = 64


def benjamini_hochberg(
    p_value: np.ndarray,
    parallel_map: Map,
    *,
    n_tests: int | None = None,
    n_smaller: int = 0,
    ceiling: float = 1.0,
) -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.benjamini_hochberg`."""
    flat = np.ascontiguousarray(p_value).ravel()
    n = len(flat)
    fdr = np.full(n, np.nan)
    if n == 0:
        return fdr.reshape(p_value.shape)
    if n_tests is None:
        n_tests = n
    mantissa = min(10, max(0, int(math.log2(n)) - _A_BUCKET))
    shift = _MANTISSA_BITS - mantissa
    lowest = _SMALLEST_EXPONENT << mantissa
    n_buckets = ((1023 - _SMALLEST_EXPONENT) << mantissa) + 1  # the last is p = 1

    parts = split_evenly(n, _A_PART)
    bits = flat.view(np.uint64)
    counts = np.zeros((len(parts), n_buckets), np.int64)
    for _ in parallel_map(
        lambda p: _count(bits, *parts[p], shift, lowest, counts[p]), range(len(parts))
    ):
        pass
    starts = exclusive_sum(counts.sum(axis=0))
    cursors = starts[:-1] + exclusive_sum(counts)[:-1]
    keys = np.empty(n, np.uint64)  # filled below: every p-value has its place in a bucket
    places = np.empty(n, np.uint32 if n <= 0xFFFFFFFF else np.uint64)
    for _ in parallel_map(
        lambda p: _deal(bits, *parts[p], shift, lowest, cursors[p], keys, places),
        range(len(parts)),
    ):
        pass

    smallest = np.full(n_buckets, np.inf)
    ranges = _even_ranges(starts, len(parts))
    for _ in parallel_map(
        lambda r: _adjust(keys, places, starts, *r, n_tests, n_smaller, smallest), ranges
    ):
        pass
    above = np.minimum.accumulate(np.append(smallest[1:], ceiling)[::-1])[::-1]
    for _ in parallel_map(lambda r: _gather(keys, places, starts, *r, above, fdr), ranges):
        pass
    return fdr.reshape(p_value.shape)


def _even_ranges(starts: np.ndarray, n_parts: int) -> list[tuple[int, int]]:
    """Return ranges of buckets that hold about equally many p-values."""
    targets = np.linspace(0, starts[-1], n_parts + 1)[1:-1]
    cuts = np.unique(np.concatenate([[0], np.searchsorted(starts, targets), [len(starts) - 1]]))
    return [(int(a), int(b)) for a, b in itertools.pairwise(cuts)]


@jit
def _bucket(bits, shift, lowest, n_buckets):
    return min(max(np.int64(bits >> np.uint64(shift)) - lowest, 0), n_buckets - 1)


@jit
def _count(bits, first, last, shift, lowest, counts):
    for i in range(first, last):
        counts[_bucket(bits[i], shift, lowest, counts.size)] += 1


@jit
def _deal(bits, first, last, shift, lowest, cursor, keys, places):
    for i in range(first, last):
        bucket = _bucket(bits[i], shift, lowest, cursor.size)
        at = cursor[bucket]
        cursor[bucket] = at + 1
        keys[at] = bits[i]
        places[at] = i


@jit
def _adjust(keys, places, starts, first, last, n_tests, n_smaller, smallest):
    """Sort each bucket; keys become the running minimum of ``p n / rank`` from the top down."""
    longest = 0
    for b in range(first, last):
        longest = max(longest, starts[b + 1] - starts[b])
    spare_keys = np.empty(longest, np.uint64)
    spare_places = np.empty(longest, places.dtype)
    counts = np.empty(BINS, np.uint32)
    values = keys.view(np.float64)
    for b in range(first, last):
        n = starts[b + 1] - starts[b]
        if n == 0:
            continue
        bucket_keys = keys[starts[b] : starts[b + 1]]
        bucket_places = places[starts[b] : starts[b + 1]]
        low = bucket_keys.min()
        span = bucket_keys.max() - low
        if span > 0 and not (n <= _INSERTION and insertion64(bucket_keys, bucket_places, n)):
            for i in range(n):
                bucket_keys[i] -= low
            sort_spanning64(bucket_keys, bucket_places, spare_keys, spare_places, n, span, counts)
            for i in range(n):
                bucket_keys[i] += low
        running = np.inf
        for i in range(starts[b + 1] - 1, starts[b] - 1, -1):
            running = min(running, values[i] * (n_tests / (n_smaller + i + 1)))
            values[i] = running
        smallest[b] = running


@jit
def _gather(keys, places, starts, first, last, above, fdr):
    values = keys.view(np.float64)
    for b in range(first, last):
        for i in range(starts[b], starts[b + 1]):
            fdr[places[i]] = min(values[i], above[b])
