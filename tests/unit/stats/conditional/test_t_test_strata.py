"""Conditional p-values of the t-test over strata against exact permutation distributions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from permutations_of_sums import combined, deviations, p_values, side

from pdex_gpu.stats.conditional.t_test import log_p_values
from pdex_gpu.stats.conditional.t_test_strata import log_p_over_strata

ROW = np.zeros(1, np.int64)


def log_p(strata: list[tuple[np.ndarray, np.ndarray]], alternative: str = "two-sided") -> float:
    parts = [(side(x), side(y), ROW) for x, y in strata]
    return float(log_p_over_strata(parts, 1, 1, alternative)[0, 0])


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("mean", [0.05, 0.5, 5.0])
def test_one_stratum_is_nearly_the_plain_test(mean: float, alternative: str) -> None:
    """which leaves out small terms; worst seen: 0.01 %."""
    rng = np.random.default_rng(1)
    for _ in range(5):
        x, y = rng.poisson(2.0 * mean, 12), rng.poisson(mean, 90)
        plain = float(log_p_values(side(x), side(y), alternative)[0, 0])
        found = log_p([(x, y)], alternative)
        np.testing.assert_allclose(found, plain, rtol=0.0, atol=0.0005)


@pytest.mark.parametrize(("mean", "worst"), [(0.1, 0.3), (0.4, 0.6)])
def test_exact_distributions(mean: float, worst: float) -> None:
    """Two strata of counts with means that differ; errors in decades."""
    rng = np.random.default_rng(2)
    sizes = (6, 50), (10, 40)
    errors = []
    for _ in range(40):
        shift = rng.choice([1.0, 3.0, 6.0])
        strata = [
            (rng.poisson(shift * mean * k, n), rng.poisson(mean * k, m))
            for k, (n, m) in zip((1.0, 2.0), sizes, strict=True)
        ]
        pools = [np.concatenate(both) for both in strata]
        if min(pool.max() for pool in pools) == 0:
            continue
        first, second = (deviations(v, n) for v, (n, _) in zip(pools, sizes, strict=True))
        exact = p_values(combined(first, second))
        seen = sum(
            int(x.sum()) - Fraction(n * int(v.sum()), n + m)
            for (x, _), v, (n, m) in zip(strata, pools, sizes, strict=True)
        )
        p = exact[Fraction(seen)]
        if 1e-12 < p < 0.5:
            errors.append(log_p(strata) / math.log(10.0) - math.log10(p))
    assert len(errors) > 10
    assert np.median(np.abs(errors)) < 0.06
    assert -worst < min(errors)
    assert max(errors) < 0.5


def test_strata_that_say_nothing_change_nothing() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.poisson(0.6, 9), rng.poisson(0.3, 120)
    silent, same = (np.zeros(4), np.zeros(30)), (np.full(3, 2.0), np.full(8, 2.0))
    assert log_p([(x, y), silent, same]) == pytest.approx(log_p([(x, y)]), rel=1e-9)


def test_rows_are_found_by_their_number() -> None:
    rng = np.random.default_rng(4)
    x, y = rng.poisson(0.6, (2, 9)), rng.poisson(0.3, 70)
    target = [np.vstack(pair) for pair in zip(side(x[0]), side(x[1]), strict=True)]
    found = log_p_over_strata([(target, side(y), np.array([2, -1]))], 3, 1, "two-sided")
    assert np.isnan(found[:2]).all()
    assert found[2, 0] == log_p([(x[0], y)])


def test_far_below_underflow() -> None:
    rng = np.random.default_rng(5)
    strata = [(rng.poisson(20.0, 2000), rng.poisson(5.0, 3000)) for _ in range(2)]
    assert -8000.0 < log_p(strata) < -1000.0
