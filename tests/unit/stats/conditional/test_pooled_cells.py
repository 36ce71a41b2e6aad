"""Counting the cells of a pair at each distinct value, against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from pdex_gpu.stats.conditional.pooled_cells import count_runs, merge


@pytest.mark.parametrize("values", [[], [2.0], [3.0, 3.0], [1.0, 1.0, 2.0, 5.0, 5.0, 5.0]])
def test_runs_are_counted(values: list[float]) -> None:
    ordered, counts = np.array(values), np.empty(len(values), np.int64)
    n_distinct = count_runs(ordered, counts)
    expected = np.unique(np.array(values), return_counts=True)
    np.testing.assert_array_equal(ordered[:n_distinct], expected[0])
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
