"""Sums whose bits do not depend on the order of their terms, and what they are made with."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.backends.cpu.exact_sums import extremes, folds, sum_of
from pdex_gpu.backends.cpu.transforms import bound_of_expm1, bound_of_log1p
from pdex_gpu.utils.elementary import expm1, log1p

MAGNITUDES = [5e-324, 1e-310, 1e-300, 1e-20, 1.0, 1e20, 1e280]


def total(x: np.ndarray) -> float:
    return float(sum(sum_of(x, *folds(float(np.abs(x).max()), len(x)))))


@given(
    n=st.integers(1, 300),
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from(MAGNITUDES),
    spread=st.sampled_from([0.0, 1.0, 8.0]),
)
def test_any_order_gives_the_same_bits(n: int, seed: int, size: float, spread: float) -> None:
    rng = np.random.default_rng(seed)
    with np.errstate(under="ignore"):
        x = size * rng.normal(size=n) * 10.0 ** (-spread * rng.random(n))
    found = total(x)
    for order in (x[::-1].copy(), np.sort(x), rng.permutation(x)):
        assert total(order) == found
    exact = math.fsum(x)
    left_out = 2.0**-102 * n**3 * float(np.abs(x).max())
    assert abs(found - exact) <= 2.0**-52 * abs(exact) + left_out + 5e-324


def test_a_plain_sum_of_them_would_depend_on_it() -> None:
    x = np.array([1.0, 1e-16, 1e-16, -1.0])
    assert np.cumsum(x)[-1] != np.cumsum(np.sort(x))[-1]
    assert total(x) == total(np.sort(x))
    np.testing.assert_allclose(total(x), 2e-16, rtol=1e-12)


def test_many_terms_beside_one_that_is_larger() -> None:
    """Of equal terms, what is left out of each does not cancel."""
    n = 1_000_000
    x = np.full(n, 1 / 3)
    x[n // 2] = 1e9
    # Worst seen: 3.9e-14, where adding one after another is off by 2e-11.
    np.testing.assert_allclose(total(x), math.fsum(x), rtol=2.0**-102 * n**3)


@pytest.mark.parametrize("dtype", ["uint16", "int64", "uint64", "float32", "float64"])
def test_whole_numbers_are_added_exactly(dtype: str) -> None:
    x = np.random.default_rng(0).integers(1, 60_000, 5_001).astype(dtype)
    assert total(x.astype(np.float64)) == sum(sum_of(x, *folds(60_000.0, len(x)))) == x.sum()


def test_beyond_the_range_of_float64() -> None:
    huge = np.array([1e308, 1e308, -1e308])
    assert folds(1e308, 3) == (0.0, 0.0)
    assert total(huge) == np.inf  # a plain sum
    assert total(np.array([1e308, -1e308, 1.0])) == 1.0
    for bound in (np.inf, np.nan):
        assert folds(bound, 1) == (0.0, 0.0)
    assert total(np.array([2.0, np.inf])) == np.inf


@given(
    dtype=st.sampled_from(["uint16", "int64", "uint64", "float32", "float64"]),
    n=st.integers(1, 70),
    seed=st.integers(0, 2**32 - 1),
)
def test_extremes(dtype: str, n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    if dtype.startswith("float"):
        x = (rng.normal(size=n) * 10.0 ** rng.integers(-30, 30, n)).astype(dtype)
    else:
        info = np.iinfo(dtype)
        x = rng.integers(info.min, info.max, n, dtype=dtype, endpoint=True)
    assert extremes(x) == (float(x.min()), float(x.max()))


ENDS = st.floats(-60, 720) | st.floats(-1.5, 1.5) | st.floats(-1e-30, 1e-30)


@given(ends=st.tuples(ENDS, ENDS).map(sorted), where=st.floats(0, 1))
def test_bounds_of_transforms(ends: list[float], where: float) -> None:
    x = min(max(ends[0] + where * (ends[1] - ends[0]), ends[0]), ends[1])
    at_ends = [abs(expm1(end)) for end in ends]
    bound = bound_of_expm1(*ends)
    if ends[1] < 709.0:  # beyond, sums are plain
        assert abs(expm1(x)) <= bound * (1 + 2.0**-52)
        assert bound <= 4 * max(at_ends)
    bound = bound_of_log1p(*ends)
    if ends[0] > -1.0:
        assert abs(log1p(x)) <= bound
        assert bound <= 1500 * max(abs(log1p(end)) for end in ends)
    else:
        assert bound == np.inf


@given(
    target=st.lists(st.integers(0, 60), min_size=2, max_size=12),
    reference=st.lists(st.integers(0, 60), min_size=2, max_size=12),
)
def test_bounds_of_anderson_darling(target: list[int], reference: list[int]) -> None:
    """Cells of each value: terms add up to 2 n n_target n_reference, weights to 16."""
    size = min(len(target), len(reference))
    m, r = np.array(target[:size], float), np.array(reference[:size], float)
    held = m + r > 0
    m, r = m[held], r[held]
    ties, n_target, n_reference = m + r, m.sum(), r.sum()
    n = n_target + n_reference
    if len(ties) < 2 or n_target == 0 or n_reference == 0:
        return
    below, own = np.cumsum(ties) - ties, np.cumsum(m) - m
    above = n - below - ties
    midrank = ties / (below * above + 0.25 * ties * (below + above))
    right = ties[:-1] / ((below + ties) * above)[:-1]
    for weights, b, mine in (
        (midrank, below + ties / 2, own + m / 2),
        (right, (below + ties)[:-1], (own + m)[:-1]),
    ):
        assert weights.sum() <= 16.0
        terms = weights * (n * mine - b * n_target) ** 2
        assert terms.sum() <= 2.0 * n * n_target * n_reference * (1 + 1e-12)
