"""The hypergeometric number of expressing cells against exact fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from pdex_gpu.stats.conditional.hypergeometric import log_factorials, log_weight, mode


@pytest.mark.parametrize(
    ("n", "expressed", "total"), [(1, 1, 2), (5, 3, 40), (20, 33, 60), (200, 900, 3000)]
)
def test_weights_are_exact_to_the_last_digits(n: int, expressed: int, total: int) -> None:
    low, high = max(0, n - (total - expressed)), min(n, expressed)
    exact = [
        Fraction(math.comb(expressed, x) * math.comb(total - expressed, n - x), math.comb(total, n))
        for x in range(low, high + 1)
    ]
    assert sum(exact) == 1
    table = log_factorials(total)
    for x, weight in zip(range(low, high + 1), exact, strict=True):
        if weight > 1e-290:
            found = math.exp(log_weight(x, n, expressed, total, table))
            assert found == pytest.approx(float(weight), rel=1e-10)  # worst seen: 8e-12
    assert exact[mode(n, expressed, total) - low] == max(exact)


def test_the_table_grows_and_its_entries_stay() -> None:
    short = log_factorials(10)
    long = log_factorials(3 * len(short))
    np.testing.assert_array_equal(long[: len(short)], short)
    assert not long.flags.writeable
