"""Parts of the numba kernels that have a truth of their own: arithmetic, and which entries."""

from __future__ import annotations

import math
from fractions import Fraction

import mpmath
import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from screens import as_chunk, make_case

from pdex_gpu.backends.cpu import int128, int192, kernel_set
from pdex_gpu.backends.cpu.anderson_darling_continuous import _harmonic_numbers
from pdex_gpu.backends.cpu.contrast_entries import reference_cells, select
from pdex_gpu.backends.cpu.transforms import expm1_of, log1p_of, log1p_of_counts, look_up

INT64 = st.integers(-(2**63), 2**63 - 1)
INT128 = st.integers(-(2**127), 2**127 - 1)


@numba.njit
def add_multiple(high, low, a, of_high, of_low):
    return int128.add_multiple(high, low, a, of_high, of_low)


@numba.njit
def add_product(high, low, a, b):
    return int128.add_product(high, low, a, b)


def halves(number: int) -> tuple[np.int64, np.uint64]:
    """The two parts of a whole number, what is beyond 128 bits lost."""
    number = (number + 2**127) % 2**128 - 2**127
    return np.int64(number >> 64), np.uint64(number & (2**64 - 1))


# --- arithmetic ------------------------------------------------------------------------------


@given(start=INT128, a=INT64, b=INT64, of=INT128)
def test_sums_of_products_are_exact(start: int, a: int, b: int, of: int) -> None:
    assert add_product(*halves(start), np.int64(a), np.int64(b)) == halves(start + a * b)
    assert add_multiple(*halves(start), np.int64(a), *halves(of)) == halves(start + a * of)


@numba.njit
def sum_difference_multiple(x, y, factor):
    return int192.plus(x, y), int192.minus(x, y), int192.multiple(x, factor)


def thirds(number: int) -> tuple[np.uint64, np.uint64, np.uint64]:
    """The three parts of a whole number, what is beyond 192 bits lost."""
    high, middle, low = (np.uint64((number >> shift) & (2**64 - 1)) for shift in (128, 64, 0))
    return high, middle, low


INT192 = st.integers(-(2**191), 2**191 - 1)


@given(x=INT192, y=INT192, factor=st.integers(0, 2**64 - 1))
def test_192_bits(x: int, y: int, factor: int) -> None:
    found = sum_difference_multiple(thirds(x), thirds(y), np.uint64(factor))
    assert found == (thirds(x + y), thirds(x - y), thirds(x * factor))
    exact = mpmath.mpf(max(x, 0))
    assert abs(int192.as_float(thirds(x)) - exact) <= 2.0**-51 * exact


@given(number=st.integers(0, 2**127 - 1))
def test_widened(number: int) -> None:
    assert int192.widened(*halves(number)) == thirds(number)


@given(x=st.floats(0, 1), scale=st.integers(0, 118))
def test_whole_numbers_of_a_scale(x: float, scale: int) -> None:
    found = int128.whole(x, 2.0 ** (scale - int128.HALF_BITS))
    assert found == halves(math.floor(Fraction(x) * 2**scale))


@pytest.mark.parametrize("scale", [118, 95])
def test_harmonic_numbers(scale: int) -> None:
    n = 2000
    high, low = _harmonic_numbers(n, scale)
    exact = Fraction(0)
    for k in range(n + 1):
        exact += Fraction(1, k) if k else 0
        found = Fraction((int(high[k]) << 64) + int(low[k]), 2**scale)
        # Each reciprocal is off by 2**-105 of it, and two of its parts are rounded down.
        assert abs(found - exact) <= k * Fraction(2, 2**scale) + Fraction(exact, 2**105)


@given(number=st.integers(0, 2**127 - 1))
def test_wide_numbers_as_floats(number: int) -> None:
    for fits in (number, number >> 31, number >> 60, (number >> 85 << 54) + (1 << 53)):
        assert int128.as_float(*halves(fits & (2**96 - 1))) == float(fits & (2**96 - 1))
    high, low = int128.as_double(*halves(number))
    with mpmath.workprec(200):
        exact = mpmath.mpf(number)
        # Worst seen: 2**-106 of it.
        assert abs(mpmath.mpf(high) + mpmath.mpf(low) - exact) <= 2.0**-104 * exact
    assert high + low == high


@given(a=st.floats(-1e30, 1e30), b=st.floats(-1e30, 1e30), factor=st.floats(-1e9, 1e9).map(np.rint))
def test_double_double_arithmetic(a: float, b: float, factor: float) -> None:
    one = int128.two_sum(a, a * 2.0**-60)
    two = int128.two_sum(b, -b * 2.0**-55)
    with mpmath.workprec(400):
        exact = [mpmath.mpf(x) + mpmath.mpf(y) for x, y in (one, two)]
        added = sum(map(mpmath.mpf, int128.add(*one, *two)))
        larger = max(abs(exact[0]), abs(exact[1]))
        assert abs(added - (exact[0] + exact[1])) <= 2.0**-103 * larger
        scaled = sum(map(mpmath.mpf, int128.times(*one, factor)))
        assert abs(scaled - exact[0] * factor) <= 2.0**-103 * abs(exact[0] * factor) + 1e-300


def transformed(function: object, x: np.ndarray) -> np.ndarray:
    out = np.full(len(x), np.nan)
    function(x, out)  # type: ignore[operator]
    return out


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("low", "high"),
    [(-1e-6, 1e-6), (-0.36, -0.33), (0.33, 0.36), (-2, 2), (-50, 0), (0, 12), (0, 709.78)],
)
def test_expm1(low: float, high: float) -> None:
    x = np.random.default_rng(0).uniform(low, high, 3000)
    found = transformed(expm1_of, x)
    with mpmath.workprec(200):
        for value, at in zip(found.tolist(), x.tolist(), strict=True):
            exact = mpmath.expm1(at)
            # Worst seen: 2.4e-16.
            assert abs(value - exact) <= 4e-16 * abs(exact)


def test_expm1_at_its_ends() -> None:
    x = np.array([0.0, 1e-17, -1e-300, -38.0, -51.0, -np.inf, 709.8, 710, 1e300, np.inf, np.nan])
    expected = [0.0, 1e-17, -1e-300, -1.0, -1.0, -1.0, np.inf, np.inf, np.inf, np.inf, np.nan]
    np.testing.assert_array_equal(transformed(expm1_of, x), expected)
    largest = 709.7827128933840
    np.testing.assert_allclose(
        transformed(expm1_of, np.array([largest])), np.expm1(largest), rtol=4e-16
    )


@given(n=st.integers(1, 40), seed=st.integers(0, 2**32 - 1))
def test_expm1_is_the_same_bits_in_any_place(n: int, seed: int) -> None:
    x = np.random.default_rng(seed).normal(0, 3, n).astype(np.float32)
    together = transformed(expm1_of, x)
    alone = np.concatenate([transformed(expm1_of, x[i : i + 1]) for i in range(n)])
    assert together.tobytes() == alone.tobytes()


def test_log1p_of_counts_and_of_any_value() -> None:
    counts = np.array([0, 1, 2, 777, 65535], np.uint16)
    out = np.full(5, np.nan)
    look_up(counts, log1p_of_counts(), out)
    np.testing.assert_allclose(out, np.log1p(counts.astype(float)), rtol=4e-16)
    x = np.array([-1.0, -1.5, -0.5, 1e-9, 1e308])
    with np.errstate(divide="ignore", invalid="ignore"):
        # Worst seen: 1.9e-16.
        np.testing.assert_allclose(transformed(log1p_of, x), np.log1p(x), rtol=4e-16)


# --- entries of a contrast -------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["uint16", "float32"])
@pytest.mark.parametrize("genes", [slice(0, 3), slice(1, 2), slice(2, 3)])
def test_entries_of_a_contrast(dtype: str, genes: slice) -> None:
    case = make_case([9, 5, 1, 12], ["counts", "zeros", "binary"], dtype, 1, 3, "everything")
    block = kernel_set.pack(as_chunk(case.values, "C"), case.design, map)
    for contrast in case.design.contrasts:
        entries = select(block, genes, contrast)
        assert (entries.values.base is block.values) == (contrast.span is not None)
        for c, gene in enumerate(range(genes.start, genes.stop)):
            samples = case.samples(gene)
            for k, g in enumerate(contrast.groups):
                found = entries.values[entries.bounds[c, k] : entries.bounds[c, k + 1]]
                np.testing.assert_array_equal(found, samples[g][samples[g] != 0])
        others = reference_cells(contrast)
        np.testing.assert_array_equal(
            others[len(others) - contrast.n_targets :], contrast.n_reference
        )
        assert contrast.one_vs_rest or others[0] == 0
