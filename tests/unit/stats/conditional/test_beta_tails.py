"""The fitted tail against scipy's distributions."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import special, stats

from pdex_gpu.stats.conditional.beta_tails import log_normal_tail, log_tail


@pytest.mark.parametrize(
    ("a", "b", "worst"),
    [
        (0.01, 0.01, 1e-8), (0.1, 3.0, 1e-8), (40.0, 0.3, 0.03),  # the continued fraction
        (0.6, 0.6, 0.30), (0.6, 80.0, 0.20), (1.0, 1.0, 0.20), (2.0, 20.0, 0.03),
        (4.0, 400.0, 0.01), (50.0, 50.0, 5e-4), (3000.0, 500.0, 5e-4),
    ],
)  # fmt: skip
def test_beta_distributions(a: float, b: float, worst: float) -> None:
    """Errors relative to p, from 1 to 1e-9."""
    mean, square, skewness, excess = (float(v) for v in stats.beta.stats(a, b, moments="mvsk"))
    ends = np.concatenate(
        [np.linspace(0.01, 0.99, 41), stats.beta.isf(np.logspace(-1, -9, 9), a, b)]
    )
    errors = []
    for u in ends:
        exact = float(special.betainc(b, a, 1.0 - u))
        if 1e-9 < exact < 1.0:
            found = log_tail((u - mean) / math.sqrt(square), skewness, excess + 3.0)
            errors.append(abs(math.expm1(found - math.log(exact))))
    assert len(errors) > 8
    assert max(errors) < worst


def test_limits() -> None:
    for z in (-3.0, 0.0, 1.0, 5.0, 12.0, 40.0, 1000.0):
        exact = float(special.log_ndtr(-z))
        assert log_normal_tail(z) == pytest.approx(exact, rel=1e-10, abs=1e-15)
        # 1e7 for a + b is not infinity.
        assert log_tail(z, 0.0, 3.0) == pytest.approx(exact, rel=1e-4, abs=1e-5) or z == 1000.0
    shape = 9.0  # of a gamma distribution
    for z in (-1.0, 0.5, 3.0, 10.0):
        exact = math.log(special.gammaincc(shape, shape + z * 3.0))
        heavy = log_tail(z, 2.0 / 3.0, 3.0 + 6.0 / shape)
        assert heavy == pytest.approx(exact, rel=1e-3)
        assert log_tail(z, 2.0 / 3.0, 50.0) == heavy  # heavier tails are not fitted


def test_bounded_support() -> None:
    """Student's t: a correlation with normal values is in [-1, 1]."""
    size = 12.0
    kurtosis = 3.0 * (size - 1.0) / (size + 1.0)
    end = math.sqrt(size - 1.0)
    assert log_tail(1.0001 * end, 0.0, kurtosis) == -math.inf
    assert log_tail(-1.0001 * end, 0.0, kurtosis) == 0.0
    for t in (0.3, 2.0, 5.0, 30.0):
        r = t / math.sqrt(size - 2.0 + t * t)
        exact = math.log(stats.t.sf(t, size - 2.0))
        assert log_tail(r * end, 0.0, kurtosis) == pytest.approx(exact, rel=2e-3, abs=5e-3)


def test_impossible_moments_are_those_of_two_values() -> None:
    skewness = 1.5  # values at -0.5 and 2
    tail = log_tail(1.0, skewness, 1.0)
    assert math.exp(tail) == pytest.approx(0.2, rel=0.01)
