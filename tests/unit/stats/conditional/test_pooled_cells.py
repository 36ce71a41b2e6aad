"""Counting the cells of a pair at each distinct value, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from pdex_gpu.stats.conditional.pooled_cells import count_runs, count_small, merge


@pytest.mark.parametrize("dtype", ["u1", "u2", "f4", "f8"])
@pytest.mark.parametrize(
    "values", [[2], [3, 3], [1, 1, 2, 5, 5, 5], [7, 1, 7, 7, 7, 7, 2, 7, 7, 2]]
)
def test_distinct_values_are_counted(values: list[int], dtype: str) -> None:
    given = np.array(values, dtype)
    distinct, counts = np.empty(len(values)), np.empty(len(values), np.int64)
    if given.dtype.kind == "u":
        n_distinct = count_small(given, max(values), distinct, counts)
    else:
        n_distinct = count_runs(np.sort(given), distinct, counts)
    expected = np.unique(given, return_counts=True)
    np.testing.assert_array_equal(distinct[:n_distinct], expected[0])
    np.testing.assert_array_equal(counts[:n_distinct], expected[1])


@pytest.mark.parametrize("included", [False, True])
@pytest.mark.parametrize("size", [0, 1, 2, 7, 60])
def test_cells_are_pooled(size: int, included: bool) -> None:
    rng = np.random.default_rng(size)
    for most in (3, 40, 1000):
        reference = rng.integers(1, most + 1, 50).astype(np.float64)
        target = rng.integers(1, most + 1, size).astype(np.float64)
        pooled = np.concatenate([reference, target])
        distinct, counts = np.unique(pooled if included else reference, return_counts=True)
        merged, own = np.full(200, -1), np.full(200, -1)
        values = np.concatenate([reference, target, reference])
        n_values = merge(distinct, counts, values, 50, 50 + size, included, merged, own)
        expected, cells = np.unique(pooled, return_counts=True)
        assert n_values == len(expected)
        np.testing.assert_array_equal(merged[:n_values], cells)
        np.testing.assert_array_equal(own[:n_values], [(target == v).sum() for v in expected])
