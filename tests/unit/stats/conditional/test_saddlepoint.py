"""Tails of sums without replacement against exact ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from permutations_of_sums import allocations

from pdex_gpu.stats.conditional.saddlepoint import log_tail_of_sum


def tail(values: np.ndarray, chosen: int, end: float, whole: bool) -> float:
    return tail_over_strata([values], [chosen], end, whole)


def tail_over_strata(strata: list[np.ndarray], chosen: list[int], end: float, whole: bool) -> float:
    found = [np.unique(values, return_counts=True) for values in strata]
    distinct, counts = (np.concatenate(part).astype(float) for part in zip(*found, strict=True))
    ends = np.cumsum([0, *(len(its) for its, _ in found)])
    drawn = np.array(chosen, float)
    shares = drawn / [len(values) for values in strata]
    start = np.append(np.log(shares / (1.0 - shares)), 0.0)
    half = 0.5 if whole else 0.0
    return float(log_tail_of_sum(distinct, counts, ends[:-1], ends[1:], drawn, end, half, start))


@pytest.mark.parametrize(("n", "worst"), [(3, 0.1), (5, 0.1), (10, 0.05), (90, 0.05)])
def test_whole_numbers(n: int, worst: float) -> None:
    """Errors of log10 p, with zeros, to the end of the distribution; worst seen: 0.092 at n = 3."""
    values = np.random.default_rng(1).poisson(2.0, 100)
    ways = allocations(values, n)
    total = math.comb(len(values), n)
    errors = []
    for s in sorted(ways)[1:-1]:
        p = sum(w for k, w in ways.items() if k >= s) / total
        found = tail(values, n, s - 0.5, whole=True)
        if p > 1e-12:
            errors.append((found - math.log(p)) / math.log(10.0))
    assert len(errors) > 5
    assert np.abs(errors).max() < worst


def test_many_different_values() -> None:
    """Half of the probability of the sum seen is left out, as of continuous sums."""
    values = np.rint(1000.0 * np.random.default_rng(2).gamma(2.0, size=24)).astype(int)
    ways = allocations(values, 6)
    total = math.comb(24, 6)
    at = np.array(sorted(ways))
    upto = np.cumsum([ways[s] for s in at[::-1].tolist()])[::-1] / total
    errors = []
    for s, p in zip(at.tolist(), upto.tolist(), strict=True):
        if 1e-4 < p < 0.9:
            middle = p - 0.5 * ways[s] / total
            errors.append(tail(values, 6, float(s), whole=False) - math.log(middle))
    assert np.abs(errors).max() < 0.25  # worst seen: 0.194


def test_ends() -> None:
    values = np.array([1.0, 2.0, 2.0, 5.0])
    assert tail(values, 2, 7.0, whole=False) == -math.inf
    assert tail(values, 2, 7.5, whole=True) == -math.inf
    assert tail(values, 2, 3.0, whole=False) == 0.0
    assert tail(values, 2, 2.5, whole=True) == 0.0


def test_the_rest_has_the_other_tail() -> None:
    values = np.random.default_rng(3).poisson(4.0, 60)
    total = int(values.sum())
    for s in (60, 75, 90):
        small = tail(values, 10, s - 0.5, whole=True)
        above = tail(values, 50, total - s + 0.5, whole=True)  # the sum of the ten is below s
        assert math.exp(small) + math.exp(above) == pytest.approx(1.0, rel=1e-6)
