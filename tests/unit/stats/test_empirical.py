"""Empirical p-values: counts of null p-values, exactly."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.stats.multitest.empirical import EmpiricalNull, JudgedResults

NULL = EmpiricalNull.of(
    np.array([0, 1, 0, 2]),
    [
        [np.array([0.5, 0.01]), np.array([0.01, 1.0])],
        [np.array([0.2])],
        [np.array([])],
    ],
)
P = np.array([[0.0, 0.01, 0.5], [0.2, 0.1, 1.0], [0.02, 1.0, 0.009], [1e-300, 0.5, 1.0]])
EXPECTED = np.array(
    [[1 / 5, 3 / 5, 4 / 5], [2 / 2, 1 / 2, 2 / 2], [3 / 5, 5 / 5, 1 / 5], [1.0, 1.0, 1.0]]
)


def test_by_hand():
    np.testing.assert_array_equal(NULL.judged(P), EXPECTED)
    np.testing.assert_array_equal(NULL.judged(P[2:], 2), EXPECTED[2:])
    np.testing.assert_array_equal(NULL.smallest(), [1 / 5, 1 / 2, 1.0])


class Stored:
    """Results that are stored in ranges of one and of two genes."""

    n_rows, n_genes = P.shape
    ranges = (slice(0, 1), slice(1, 3))

    def read(self, field, rows, parallel_map=map):
        assert field == "p_value"
        return P[rows]

    def read_range(self, field, k):
        assert field == "p_value"
        return P[:, self.ranges[k]]


def test_stored_results_are_judged_as_they_are_read():
    found = JudgedResults(Stored(), NULL)
    assert (found.n_rows, found.n_genes, found.ranges) == (4, 3, Stored.ranges)
    np.testing.assert_array_equal(found.read("p_value", slice(1, 3)), EXPECTED[1:3])
    np.testing.assert_array_equal(found.read_range("p_value", 1), EXPECTED[:, 1:])


unit = st.floats(0.0, 1.0)


@given(st.lists(unit, max_size=30), st.lists(unit, min_size=1, max_size=30))
def test_any_null(null: list[float], p_values: list[float]):
    found = EmpiricalNull.of(np.zeros(1, np.int64), [[np.array(null)]])
    expected = [Fraction(1 + sum(q <= p for q in null), 1 + len(null)) for p in p_values]
    np.testing.assert_array_equal(
        found.judged(np.array([p_values]))[0], [float(x) for x in expected]
    )


@pytest.mark.parametrize("n_threads", [1, 3])
def test_threads_make_no_difference(n_threads: int):
    rng = np.random.default_rng(0)
    null = EmpiricalNull.of(rng.integers(0, 2, 50), [[rng.random(900)], [rng.random(70)]])
    p_values = rng.random((50, 4000))
    with ThreadPoolExecutor(n_threads) as pool:
        found = null.judged(p_values, 0, pool.map)
    np.testing.assert_array_equal(found, null.judged(p_values))
