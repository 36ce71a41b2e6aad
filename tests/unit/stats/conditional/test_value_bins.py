"""Nonzero values in bins, and the values that stand for them."""

from __future__ import annotations

import math

import numpy as np
import pytest

from pdex_gpu.stats.conditional.hypergeometric import log_factorials
from pdex_gpu.stats.conditional.value_bins import add, bin_edges, bin_range, log_ways, to_nodes


def binned(values: np.ndarray) -> tuple[np.ndarray, int, np.ndarray, np.ndarray, np.ndarray]:
    bits = values.astype(np.float64).view(np.int64)
    first, n_bins = bin_range(bits)
    cells, rests = np.zeros((2, n_bins), np.int64)
    assert add(bits, first, 1, cells, rests) == np.count_nonzero(values)
    return bits, first, cells, rests, bin_edges(first, n_bins)


def nodes(cells: np.ndarray, rests: np.ndarray, edges: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    values, weights = np.zeros((2, len(cells)))
    n = to_nodes(cells, rests, edges, values, weights)
    return values[:n], weights[:n]


def test_small_whole_numbers_are_kept() -> None:
    values = np.random.default_rng(1).poisson(3.0, 500)
    _, _, cells, rests, edges = binned(values)
    expected = np.unique(values[values > 0], return_counts=True)
    for found, its in zip(nodes(cells, rests, edges), expected, strict=True):
        np.testing.assert_array_equal(found, its)


def test_merged_values_keep_sums_and_ends() -> None:
    values = np.log1p(np.random.default_rng(2).gamma(1.0, 20.0, 20_000))
    _, _, cells, rests, edges = binned(values)
    found, weights = nodes(cells, rests, edges)
    assert 50 < len(found) < 300
    assert (np.diff(found) > 0.0).all()
    assert weights.sum() == len(values)
    assert found @ weights == pytest.approx(values.sum(), rel=1e-9)
    # The squares lack those within merged bins, which are narrower than a thirtieth.
    assert found**2 @ weights == pytest.approx((values**2).sum(), rel=1e-3)
    np.testing.assert_allclose(found[[0, -1]], [values.min(), values.max()], rtol=1e-9)


def test_cells_come_in_any_order_and_can_be_taken_out() -> None:
    rng = np.random.default_rng(3)
    values = rng.gamma(1.0, size=300) * (rng.random(300) < 0.6)
    bits, first, cells, rests, _ = binned(values)
    turned = binned(values[::-1].copy())
    np.testing.assert_array_equal(cells, turned[2])
    np.testing.assert_array_equal(rests, turned[3])
    part = bits[100:]
    add(part, first, -1, cells, rests)
    alone, its_rests = np.zeros((2, len(cells)), np.int64)
    add(bits[:100], first, 1, alone, its_rests)
    np.testing.assert_array_equal(cells, alone)
    np.testing.assert_array_equal(rests, its_rests)


def test_no_value() -> None:
    assert bin_range(np.zeros(4).view(np.int64)) == (0, 0)


def test_ways_to_choose() -> None:
    values = np.array([1, 1, 1, 2, 2, 0, 0, 5])
    bits, first, cells, _, _ = binned(values)
    own = np.zeros(len(cells), np.int64)
    chosen = bits[[0, 1, 3, 5, 7]]  # two of three, one of two, one of one
    found = log_ways(chosen, first, cells, own, log_factorials(10))
    assert found == pytest.approx(math.log(3 * 2 * 1), rel=1e-12)
    assert not own.any()
