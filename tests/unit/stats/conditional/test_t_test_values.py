"""Small p-values of the t-test, from pooled values, against exact permutation distributions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from permutations_of_sums import biased_orders, deviations, p_values, side

from pdex_gpu.stats.conditional.gene_samples import GeneSamples
from pdex_gpu.stats.conditional.t_test import log_p_values
from pdex_gpu.stats.conditional.t_test_values import refine


def log_p(samples: list[np.ndarray], *, pooled: bool = False, rest: bool = False) -> np.ndarray:
    """Return log p of each target; the first sample is what they are compared with, unless rest."""
    if rest:
        others = [np.concatenate(samples[:i] + samples[i + 1 :]) for i in range(len(samples))]
        targets = samples
    else:
        others, targets = [samples[0]] * (len(samples) - 1), samples[1:]
    held = samples
    if pooled:  # the targets' cells are the last of the pool
        others = [np.concatenate([s for s in samples if s is not t]) for t in targets]
        held = [np.concatenate(samples), *targets]
    ends = np.cumsum([0, *(len(sample) for sample in held)])
    its = GeneSamples(
        np.concatenate(held), ends[:-1], ends[1:], np.diff(ends), pooled or rest, rest
    )
    target = [np.vstack(arrays) for arrays in zip(*map(side, targets), strict=True)]
    other = [np.vstack(arrays) for arrays in zip(*map(side, others), strict=True)]
    found = log_p_values(target, other, "two-sided")
    refine(found, np.ones(1, bool), [its], target, other, "two-sided")
    return found[:, 0]


CASES = [
    # kind, mean, dispersion, n, m; worst error too small and too large, in decades
    ("counts", 0.3, 1.0, 3, 60, (0.25, 0.25)),
    ("counts", 2.0, 2.0, 5, 60, (0.25, 0.25)),
    ("counts", 8.0, 1.0, 8, 60, (0.25, 0.25)),
    ("counts", 2.0, 3.0, 20, 60, (0.25, 0.25)),
    ("logs", 3.0, 1.0, 3, 80, (0.30, 0.30)),
    ("logs", 8.0, 0.5, 5, 80, (0.30, 0.30)),
    pytest.param("logs", 20.0, 0.5, 8, 60, (0.30, 0.30), marks=pytest.mark.thorough),
    pytest.param("logs", 1.0, 1.0, 12, 60, (0.30, 0.30), marks=pytest.mark.thorough),
]


@pytest.mark.parametrize(("kind", "mean", "dispersion", "n", "m", "worst"), CASES)
def test_exact_distributions(
    kind: str, mean: float, dispersion: float, n: int, m: int, worst: tuple[float, float]
) -> None:
    """P-values from 0.004 to 1e-12; four moments are off by up to 6 decades here."""
    rng = np.random.default_rng(1)
    errors = []
    for _ in range(3):
        counts = rng.negative_binomial(1.0 / dispersion, 1.0 / (1.0 + mean * dispersion), n + m)
        depth = rng.lognormal(0.0, 0.4, n + m)
        values = (
            counts if kind == "counts" else np.rint(np.log1p(counts / depth) / 0.01).astype(int)
        )
        unit = 1.0 if kind == "counts" else 0.0101
        exact = p_values(deviations(values, n))
        centre = Fraction(n * int(values.sum()), n + m)
        for order in biased_orders(values, 30, rng):
            p = exact[int(values[order[:n]].sum()) - centre]
            if 1e-12 <= p < 0.004:
                found = log_p([unit * values[order[n:]], unit * values[order[:n]]])[0]
                errors.append(found / math.log(10.0) - math.log10(p))
    assert len(errors) > 10
    assert np.median(np.abs(errors)) < 0.05
    assert -worst[0] < min(errors)
    assert max(errors) < worst[1]


def test_the_largest_values_in_the_target_are_exact() -> None:
    rng = np.random.default_rng(2)
    for n in (2, 3, 5, 8):
        values = np.sort(rng.gamma(1.0, size=200) * (rng.random(200) < 0.3))[::-1]
        allocations = math.log(math.comb(200, n))
        found = log_p([values[n:], values[:n]])[0]
        assert found == pytest.approx(-allocations, abs=0.01)


def test_two_large_values_among_many() -> None:
    """Of 280 cells, all of which express: four moments are off by up to 2.9 decades."""
    rng = np.random.default_rng(5)
    values = 1 + rng.poisson(2.0, 280)
    values[:2] = 16, 20
    exact = p_values(deviations(values, 41))
    centre = Fraction(41 * int(values.sum()), 280)
    errors, of_moments = [], []
    for order in biased_orders(values, 12, rng):
        p = exact[int(values[order[:41]].sum()) - centre]
        if 1e-12 <= p < 0.004:
            x, y = values[order[:41]], values[order[41:]]
            errors.append(log_p([y, x])[0] / math.log(10.0) - math.log10(p))
            moments = log_p_values(side(x), side(y), "two-sided")[0, 0]
            of_moments.append(moments / math.log(10.0) - math.log10(p))
    assert len(errors) == 3
    assert np.max(np.abs(errors)) < 0.01  # worst seen: 0.005
    assert min(of_moments) > 0.9


def test_pools_and_rests_give_the_same_as_pairs() -> None:
    rng = np.random.default_rng(3)
    samples = [rng.poisson(1.0, 60), rng.poisson(9.0, 5), rng.poisson(6.0, 8)]
    pool, rest = log_p(samples, pooled=True), log_p(samples, rest=True)
    for t, its in enumerate(samples[1:], 1):
        others = np.concatenate([s for i, s in enumerate(samples) if i != t])
        alone = log_p([others, its])[0]
        assert alone < -8.0
        assert pool[t - 1] == alone
        assert rest[t] == alone


def test_only_small_ones_of_judged_genes_change() -> None:
    rng = np.random.default_rng(4)
    x, y = side(rng.poisson(9.0, 5)), side(rng.poisson(1.0, 60))
    found = np.array([[-20.0]])
    refine(found, np.zeros(1, bool), [], x, y, "two-sided")
    assert found[0, 0] == -20.0
    found[0, 0] = -5.0
    refine(found, np.ones(1, bool), [], x, y, "two-sided")
    assert found[0, 0] == -5.0
