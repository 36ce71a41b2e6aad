"""Tails of Pearson III distributions against scipy, and against formulas with more digits."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest
from scipy import special, stats

from pdex_gpu.stats.conditional.gamma_tails import (
    NOTHING,
    erfcx,
    log_correction,
    log_tail,
    log_tail_from,
    log_upper_gamma,
)


@pytest.mark.parametrize("shape", [0.01, 0.3, 1.0, 7.5, 120.0, 3000.0, 19_999.0, 20_001.0, 4e6])
def test_the_incomplete_gamma_function(shape: float) -> None:
    deviates = np.array([-6.0, -2.0, -0.3, 0.0, 1e-3, 0.5, 1.0, 3.0, 8.0, 12.0])
    x = np.maximum(shape + deviates * math.sqrt(shape), 1e-3)
    expected = np.log(special.gammaincc(shape, x))
    for value, log_q in zip(x, expected, strict=True):
        found = log_upper_gamma(shape, value)
        # Worst seen: 3e-11 absolute, 2e-10 relative.
        assert found == pytest.approx(log_q, rel=1e-9, abs=1e-9)


@pytest.mark.parametrize("shape", [0.3, 1.0, 12.0, 900.0])
@pytest.mark.parametrize("factor", [3.0, 20.0, 1000.0])
def test_the_incomplete_gamma_function_far_below_underflow(shape: float, factor: float) -> None:
    x = (shape + 5.0) * factor
    with mpmath.workdps(60):
        expected = float(mpmath.log(mpmath.gammainc(shape, x, mpmath.inf, regularized=True)))
    assert log_upper_gamma(shape, x) == pytest.approx(expected, rel=1e-10)


def test_the_scaled_complementary_error_function() -> None:
    for x in (0.0, 0.1, 1.0, 2.9, 3.1, 10.0, 1e5):
        assert erfcx(x) == pytest.approx(special.erfcx(x), rel=1e-12)


@pytest.mark.parametrize(("k1", "k2", "k3"), [(1.0, 0.58, 1.04), (3.0, 4.0, 1.0), (0.2, 0.02, 0.1)])
def test_pearson_iii_against_scipy(k1: float, k2: float, k3: float) -> None:
    law = stats.pearson3(k3 / k2**1.5, loc=k1, scale=math.sqrt(k2))
    for a in k1 + math.sqrt(k2) * np.array([-0.5, 0.0, 1.0, 4.0, 9.0]):
        assert log_tail(a, k1, k2, k3) == pytest.approx(law.logsf(a), rel=1e-9, abs=1e-12)


def test_without_variance_all_is_at_one_value() -> None:
    assert log_tail(2.0, 2.0, 0.0, 0.0) == 0.0
    assert log_tail(2.1, 2.0, 0.0, 0.0) == -math.inf


def test_only_negligible_tails_are_left_out() -> None:
    seen = {"left out": 0, "certain": 0, "kept": 0}
    for k1, k2, k3 in [(1.0, 0.58, 1.04), (3.0, 4.0, 1.0), (0.2, 0.02, 0.1), (5.0, 2.0, 0.0)]:
        for a in k1 + math.sqrt(k2) * np.linspace(-12.0, 40.0, 105):
            whole, found = log_tail(a, k1, k2, k3), log_tail_from(a, k1, k2, k3, -20.0)
            if found == -math.inf:
                assert whole < -20.0
                seen["left out"] += 1
            elif found == 0.0:
                assert whole >= -math.exp(NOTHING)
                seen["certain"] += 1
            else:
                assert found == whole
                assert found > -26.0  # the bound is at most 4 too large; worst: -23.9
                seen["kept"] += 1
    assert min(seen.values()) > 20


def test_the_largest_weight_decides_the_far_tail() -> None:
    """The limiting distribution of A2, whose weights are 1 / (j (j + 1))."""
    from pdex_gpu.stats.distributions.anderson_darling import log_survival

    weights = 1.0 / (np.arange(1.0, 2000.0) * np.arange(2.0, 2001.0))
    k1, k2, k3 = weights.sum(), 2.0 * (weights**2).sum(), 8.0 * (weights**3).sum()
    a = np.array([1.5, 2.5, 5.0, 10.0, 20.0, 40.0, 200.0])
    exact = log_survival(a, 1) / math.log(10.0)
    plain = np.array([log_tail(x, k1, k2, k3) for x in a]) / math.log(10.0)
    found = plain + np.array([log_correction(x, 0.5, k1, k2, k3) for x in a]) / math.log(10.0)
    assert np.abs(found[:-1] - exact[:-1]).max() < 0.05  # decades; 0.03 seen
    assert found[-1] == pytest.approx(exact[-1], rel=2e-3)
    assert plain[4] < exact[4] - 0.5  # Pearson III alone
    assert log_correction(1.0, 0.5, k1, k2, k3) == 0.0
