"""Conditional p-values of the t-test against exact permutation distributions."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import combinations

import numpy as np
import pytest
from permutations_of_sums import biased_orders, deviations, p_values, side
from scipy import stats

from pdex_gpu.stats.conditional.t_test import (
    log_p_values,
    of_expressed,
    pooled,
    shape_of_sum,
    surely_large,
    whole_sum,
)


def log_p(target: np.ndarray, reference: np.ndarray, alternative: str = "two-sided") -> float:
    return float(log_p_values(side(target), side(reference), alternative)[0, 0])


def shape(values: list[Fraction]) -> tuple[Fraction, float, float]:
    """Variance, skewness and kurtosis of a population."""
    mean = sum(values, Fraction()) / len(values)
    c2, c3, c4 = (sum((v - mean) ** k for v in values) / len(values) for k in (2, 3, 4))
    return c2, float(c3) / float(c2) ** 1.5, float(c4 / c2**2)


@pytest.mark.parametrize("size", [2, 3, 4, 5, 7])
def test_moments_of_sums_are_exact(size: int) -> None:
    values = [Fraction(v) for v in (1, 2, 2, 5, 7, 11, 30)[:size]]
    _, skewness, kurtosis = shape(values)
    for x in range(1, size):
        _, *expected = shape([sum(c) for c in combinations(values, x)])
        found = shape_of_sum(float(x), float(size), skewness, kurtosis)
        assert found == pytest.approx(expected, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(("centre", "rtol"), [(0.0, 1e-12), (1.0, 1e-12), (100.0, 1e-7)])
def test_moments_of_nonzero_values(centre: float, rtol: float) -> None:
    """From those of both samples with zeros; digits are lost where the values lie far from 0."""
    rng = np.random.default_rng(3)
    values = centre + rng.gamma(2.0, size=40)
    both = np.concatenate([values, np.zeros(300)])
    rng.shuffle(both)
    target, reference = ([a[0, 0] for a in side(part)] for part in np.split(both, [50]))
    mean, second, third, fourth = pooled(tuple(target), tuple(reference))
    found = of_expressed(340.0, 40.0, mean, second, third, fourth)
    variance, *more = shape([Fraction(v) for v in values])
    expected = values.mean(), float(variance), *more
    np.testing.assert_allclose(found, expected, rtol=rtol)


def test_counts_are_found_by_their_sums() -> None:
    counts = np.array([0, 3, 0, 1, 2])
    for values, whole in ((counts, True), (np.log1p(counts), False), (counts * 0.5, False)):
        n, _, mean, m2, _, _ = (a[0, 0] for a in side(values))
        assert whole_sum(n, mean, m2)[0] == whole


CASES = [
    # mean, dispersion, n, m; largest median error, and worst too small and too large, in decades
    ("counts", 0.1, 0.3, 8, 70, (0.08, 0.05, 0.30)),
    ("counts", 0.5, 1.0, 10, 80, (0.08, 0.15, 0.30)),
    ("counts", 0.2, 0.5, 20, 200, (0.05, 0.05, 0.30)),
    ("counts", 2.0, 0.5, 15, 60, (0.05, 0.20, 0.20)),
    # Logarithms of unscaled counts: ties that the moments do not tell of.
    ("logs", 0.2, 0.5, 20, 120, (0.25, 0.45, 0.10)),
    ("logs", 2.0, 0.5, 20, 100, (0.05, 0.20, 0.40)),
    ("normalised", 0.2, 0.5, 20, 100, (0.05, 0.30, 0.10)),
    ("normalised", 1.0, 0.5, 15, 80, (0.05, 0.10, 0.10)),
]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("kind", "mean", "dispersion", "n", "m", "worst"), CASES)
def test_exact_distributions(
    kind: str, mean: float, dispersion: float, n: int, m: int, worst: tuple[float, float, float]
) -> None:
    """P-values from 1 to 1e-12 against the exact ones; Student's are off by up to 15 decades.

    The values are multiples of a unit: 1 for counts, 0.05 for logarithms.
    """
    rng = np.random.default_rng(1)
    depth = rng.lognormal(0.0, 0.4, n + m) if kind == "normalised" else np.ones(n + m)
    counts = rng.negative_binomial(1.0 / dispersion, 1.0 / (1.0 + mean * dispersion * depth))
    values = counts if kind == "counts" else np.rint(np.log1p(counts / depth) / 0.0503).astype(int)
    unit = 1.0 if kind == "counts" else 0.0503
    exact = p_values(deviations(values, n))
    centre = Fraction(n * int(values.sum()), n + m)
    errors = []
    for order in biased_orders(values, 60, rng):
        p = exact[int(values[order[:n]].sum()) - centre]
        if 1e-12 <= p < 0.4:
            found = log_p(unit * values[order[:n]], unit * values[order[n:]])
            errors.append(found / math.log(10.0) - math.log10(p))
    assert len(errors) > 10
    assert np.median(np.abs(errors)) < worst[0]
    assert -worst[1] < min(errors)
    assert max(errors) < worst[2]


@pytest.mark.parametrize("x", [0, 1, 3, 5])
@pytest.mark.parametrize("value", [1.0, 0.37])
def test_one_nonzero_value_is_exact(x: int, value: float) -> None:
    """Then only the number of expressing cells varies."""
    n, m, expressed = 5, 40, 9
    values = [np.repeat([value, 0.0], [k, size - k]) for k, size in ((x, n), (expressed - x, m))]
    of_x = stats.hypergeom(n + m, expressed, n)
    weights = of_x.pmf(np.arange(n + 1))
    far = np.abs(np.arange(n + 1) - of_x.mean()) >= abs(x - of_x.mean()) - 1e-9
    expected = {
        "two-sided": weights[far].sum(), "greater": of_x.sf(x - 1), "less": of_x.cdf(x),
    }  # fmt: skip
    for alternative, p in expected.items():
        assert math.exp(log_p(*values, alternative)) == pytest.approx(p, rel=1e-3)


def test_normal_values_have_students_p_values() -> None:
    rng = np.random.default_rng(4)
    for shift in (0.0, 0.1, 0.2, 0.3):
        x, y = rng.normal(10.0 + shift, size=100), rng.normal(10.0, size=300)
        for alternative in ("two-sided", "greater", "less"):
            exact = stats.ttest_ind(x, y, alternative=alternative).pvalue
            assert exact > 1e-5
            # The values of the sample are not quite normal.
            assert math.exp(log_p(x, y, alternative)) == pytest.approx(exact, rel=0.05)


def test_far_below_underflow() -> None:
    rng = np.random.default_rng(5)
    x, y = rng.poisson(20.0, 3000), rng.poisson(5.0, 5000)
    assert -5000.0 < log_p(x, y) < -1000.0


def test_p_is_never_below_the_probability_of_what_was_seen() -> None:
    """The largest values all in the target: the fitted tail ends before them."""
    rng = np.random.default_rng(6)
    for n in (1, 2, 3, 5, 8):
        values = np.sort(rng.gamma(1.0, size=300) * (rng.random(300) < 0.3))[::-1]
        allocations = math.log(math.comb(300, n))
        assert log_p(values[:n], values[n:]) >= -allocations - 1e-9


def test_exchanged_samples_exchange_the_alternatives() -> None:
    rng = np.random.default_rng(7)
    for mean in (0.1, 1.0, 20.0):
        x, y = rng.poisson(1.5 * mean, 30), rng.poisson(mean, 80)
        for one, other in (("two-sided", "two-sided"), ("greater", "less"), ("less", "greater")):
            assert log_p(x, y, one) == pytest.approx(log_p(y, x, other), rel=0.02, abs=0.02)
        both = math.exp(log_p(x, y, "greater")) + math.exp(log_p(x, y, "less"))
        assert 1.0 - 1e-3 < both < 2.0  # the value seen counts in both


def test_the_cheap_rule_of_the_body_is_sound() -> None:
    """Where the normal tail is taken, the exact p-value is at least 0.05."""
    rng = np.random.default_rng(8)
    taken = 0
    for _ in range(30):
        values = np.where(rng.random(120) < 0.2, rng.integers(1, rng.integers(3, 30), 120), 0)
        exact = p_values(deviations(values, 10))
        x = values - values.mean()
        second, third, fourth = ((x**k).mean() for k in (2, 3, 4))
        of_sum = shape_of_sum(10.0, 120.0, third / second**1.5, fourth / second**2)
        deviation = math.sqrt(10.0 * 110.0 / 119.0 * second)
        for d, p in exact.items():
            if surely_large(float(d) / deviation, of_sum[1]):
                taken += 1
                assert p >= 0.05
    assert taken > 100


def test_undefined() -> None:
    ones, zeros = np.ones(5), np.zeros(7)
    assert math.isnan(log_p(ones, np.ones(7)))
    assert math.isnan(log_p(np.zeros(5), zeros))
    assert log_p(ones, zeros) == pytest.approx(-math.log(math.comb(12, 5)), rel=1e-9)
    lacking = [np.full_like(a, np.nan) if i > 1 else a for i, a in enumerate(side(ones))]
    assert np.isnan(log_p_values(lacking, side(zeros), "two-sided")).all()


def test_pairs_do_not_depend_on_their_neighbours() -> None:
    rng = np.random.default_rng(9)
    groups = [rng.poisson(0.5, (size, 4)) for size in (6, 9, 50)]
    columns = [[side(group[:, j]) for j in range(4)] for group in groups]
    joined = [[np.hstack([c[k] for c in its]) for k in range(6)] for its in columns]
    target = [np.vstack(pair) for pair in zip(*joined[:2], strict=True)]
    target[0], joined[2][0] = target[0][:, :1], joined[2][0][:, :1]
    found = log_p_values(target, joined[2], "two-sided")
    for t in range(2):
        for j in range(4):
            alone = log_p_values(columns[t][j], columns[2][j], "two-sided")
            assert found[t, j] == alone[0, 0]
