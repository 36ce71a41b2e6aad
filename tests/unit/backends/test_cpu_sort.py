"""The radix sort of the numba kernels: the order of the values, codes carried along."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.backends.cpu import sort

SPECIAL = {
    "float32": [0.5, -0.5, 1.0, 3e38, -3e38, 1e-45, -1e-45, 1.0000001, 7.0],
    "float64": [0.5, -0.5, 1.0, 1e308, -1e308, 5e-324, -5e-324, 1 + 2**-52, 7.0],
    "int64": [-(2**63), 2**63 - 1, -1, 1, 2**62, 2**62 + 1, 7],
    "uint64": [1, 2**64 - 1, 2**64 - 2, 2**63, 2**63 - 1, 7],
    "uint16": [1, 65535, 7, 300],
}


def run_sort(values: np.ndarray, bounds: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Keys and codes as sorted, and how many values are negative."""
    bits, mode = sort.key_bits(values)
    n = len(values)
    guard = np.uint64(0x5AFE)
    packed, scratch = np.full(n + 1, guard), np.empty(n, np.uint64)
    histogram = np.empty(2 << sort.DIGIT, np.uint32)
    function = sort._sort64 if bits.itemsize == 8 else sort._sort32
    n_negative = function(bits, mode, bounds, packed, scratch, histogram)
    assert packed[n] == guard  # nothing is written beyond the entries
    return packed[:n] >> np.uint64(32), packed[:n] & np.uint64(0xFFFFFFFF), n_negative


def check(values: np.ndarray, bounds: np.ndarray) -> None:
    keys, codes, n_negative = run_sort(values, bounds)
    groups = np.repeat(np.arange(len(bounds) - 1), np.diff(bounds))
    order = np.lexsort((groups, values))
    np.testing.assert_array_equal(codes, groups[order])
    ranked = values[order]
    np.testing.assert_array_equal(keys[1:] > keys[:-1], ranked[1:] > ranked[:-1])
    np.testing.assert_array_equal(keys[1:] == keys[:-1], ranked[1:] == ranked[:-1])
    assert n_negative == np.count_nonzero(values < 0)


@pytest.mark.parametrize("dtype", SPECIAL)
@given(data=st.data())
def test_any_values(dtype: str, data: st.DataObject) -> None:
    sizes = data.draw(st.lists(st.integers(0, 12), min_size=1, max_size=6))
    n = sum(sizes)
    values = data.draw(st.lists(st.sampled_from(SPECIAL[dtype]), min_size=n, max_size=n))
    check(np.array(values, dtype), np.cumsum([0, *sizes]))


@pytest.mark.parametrize("dtype", SPECIAL)
@pytest.mark.parametrize("span", [3, 2000, 2**16 - 2, 2**22, 2**31 - 1])
def test_keys_of_every_width(dtype: str, span: int) -> None:
    """A digit, two digits, and more than two: each is sorted in a way of its own."""
    rng = np.random.default_rng(span)
    offsets = rng.integers(0, span + 1, 5000)
    if dtype.startswith("float"):
        bits = f"i{np.dtype(dtype).itemsize}"
        start = np.array(1e-3, dtype).view(bits)
        most = np.array(np.finfo(dtype).max, dtype).view(bits) - start
        values = (start + np.minimum(offsets, most)).astype(bits).view(dtype)
    else:
        values = (1 + np.minimum(offsets, 65_534 if dtype == "uint16" else span)).astype(dtype)
    for signed in (values, -values) if dtype in ("float32", "float64", "int64") else (values,):
        check(signed, np.array([0, 100, 100, 2300, 5000]))


def inversions(keys: np.ndarray) -> int:
    """Pairs out of order: the moves of an insertion sort."""
    return sum(int(np.count_nonzero(keys[:i] > keys[i])) for i in range(len(keys)))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "uint64"])
def test_clustered_keys_are_sorted_in_full(dtype: str) -> None:
    """With so many pairs left out of order by the leading bits, insertion gives up."""
    rng = np.random.default_rng(3)
    n = 2000
    if dtype.startswith("float"):
        values = (1.0 + rng.integers(0, 400, n) * np.finfo(dtype).eps).astype(dtype)
        values[10] = -np.finfo(dtype).max
    else:
        values = rng.integers(10**6, 10**6 + 400, n).astype(dtype)
        values[10] = np.iinfo(dtype).max
    bits, mode = sort.key_bits(values)
    key = sort._key32 if bits.dtype == np.uint32 else sort._key64
    keys = np.array([int(key(b, mode)) for b in bits], dtype=object)
    span = int(max(keys) - min(keys))
    leading = np.array([(int(k) - min(keys)) >> (span.bit_length() - 22) for k in keys])
    left = keys[np.argsort(leading, kind="stable")]
    assert inversions(left) > 8 * n, "the case must exceed the budget of insertion"
    check(values, np.array([0, 300, 1200, n]))


@pytest.mark.parametrize("n_groups", [1, 2, 5, 257])
@pytest.mark.parametrize("width", [40, 55, 56, 61, 62, 63, 64])
def test_wide_keys_with_codes(width: int, n_groups: int) -> None:
    """A key and its code share a word if they fit in 64 bits; otherwise the code moves apart."""
    rng = np.random.default_rng(width)
    values = rng.integers(0, 2**width, 3000, np.uint64, endpoint=width < 64)
    values[:3] = 0, 2**width - 1, 2**width - 1
    values[1000:1400] = 2 ** (width - 1) + rng.integers(0, 40, 400, np.uint64)  # clustered
    bounds = np.linspace(0, len(values), n_groups + 1).astype(np.int64)
    check(values, bounds)
