"""Small p-values of the t-test over strata against exact permutation distributions."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from permutations_of_sums import allocations, biased_orders, side

from pdex_gpu.stats.conditional.gene_samples import GeneSamples
from pdex_gpu.stats.conditional.t_test_strata import log_p_over_strata
from pdex_gpu.stats.conditional.t_test_strata_values import refine_over_strata
from pdex_gpu.stats.conditional.t_test_values import refine

Strata = list[tuple[np.ndarray, np.ndarray]]
ROW = np.zeros(1, np.int64)


def samples(*values: np.ndarray, pooled: bool = False, rest: bool = False) -> GeneSamples:
    stops = np.cumsum([len(its) for its in values])
    sizes = np.diff(stops, prepend=0)
    return GeneSamples(np.concatenate(values), stops - sizes, stops, sizes, pooled, rest)


def log_p(strata: Strata, alternative: str = "two-sided", *, refined: bool = True) -> float:
    parts = [(side(x), side(y), ROW) for x, y in strata]
    found = log_p_over_strata(parts, 1, 1, alternative)
    if refined:
        values = [[samples(y, x)] for x, y in strata]
        refine_over_strata(found, np.ones(1, bool), parts, values, alternative)
    return float(found[0, 0])


def distribution(pools: list[np.ndarray], sizes: list[int]) -> np.ndarray:
    """Return the probability of each sum of whole values."""
    found = np.ones(1)
    for values, n in zip(pools, sizes, strict=True):
        ways = allocations(values, n)
        its = np.zeros(max(ways) + 1)
        for total, count in ways.items():
            its[total] = count / math.comb(len(values), n)
        found = np.convolve(found, its)
    return found


def values_of(kind: str, size: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    """Whole values: counts, or multiples of 0.02 of logarithms and other numbers."""
    if kind == "counts":
        return rng.negative_binomial(0.7, 0.7 / (0.7 + 2.0 * scale), size)
    if kind == "logs":
        counts = rng.negative_binomial(1.5, 1.5 / (1.5 + scale), size)
        return np.rint(np.log1p(counts / rng.lognormal(0.0, 0.4, size)) / 0.02).astype(int)
    if kind == "bands":  # nearly one value, in some cells
        return np.rint(50.0 * scale * rng.normal(1.0, 0.05, size)).astype(int) * (
            rng.random(size) < 0.15
        )
    if kind == "skewed":
        found = np.rint(25.0 * scale * rng.lognormal(0.0, 1.0, size)).astype(int)
        return np.minimum(found, 400) * (rng.random(size) < 0.6)
    found = rng.poisson(2.0 * scale, size)  # "outliers": two values among small ones
    found[:2] = rng.integers(10, 60, 2)
    return found


CASES = [
    # kind, most target cells of a stratum; limits of errors too small and too large, in decades
    ("counts", 12, (0.06, 0.04)),  # worst seen: 0.050, 0.020
    ("logs", 8, (0.08, 0.12)),  # 0.064, 0.097
    ("bands", 12, (0.15, 0.17)),  # 0.131, 0.146
    ("skewed", 6, (0.09, 0.12)),  # 0.070, 0.097
    ("outliers", 12, (0.04, 0.18)),  # 0.019, 0.153; four moments: 30 decades too small
]


@pytest.mark.parametrize(("kind", "most", "worst"), CASES)
def test_exact_distributions(kind: str, most: int, worst: tuple[float, float]) -> None:
    """P-values from 0.05 to 1e-12, of 2 to 4 strata."""
    rng = np.random.default_rng(1)
    unit = 1.0 if kind in ("counts", "outliers") else 0.0201
    errors = []
    for _ in range(12):
        sizes = rng.integers(2, most + 1, rng.integers(2, 5)).tolist()
        scales = np.exp(rng.normal(0.0, 0.4, len(sizes)))
        pools = [
            values_of(kind, n + int(rng.integers(10, 50)), scale, rng)
            for n, scale in zip(sizes, scales, strict=True)
        ]
        exact = distribution(pools, sizes)
        upper, lower = np.cumsum(exact[::-1])[::-1], np.cumsum(exact)
        pairs = list(zip(pools, sizes, strict=True))
        centre = sum(Fraction(n * int(values.sum()), len(values)) for values, n in pairs)
        for orders in zip(*(biased_orders(values, 10, rng) for values in pools), strict=True):
            strata = [
                (unit * values[order[:n]], unit * values[order[n:]])
                for (values, n), order in zip(pairs, orders, strict=True)
            ]
            seen = sum(
                int(values[order[:n]].sum())
                for (values, n), order in zip(pairs, orders, strict=True)
            )
            away = abs(seen - centre)
            p = sum(
                float(tail[at])
                for tail, at in (
                    (upper, math.ceil(centre + away)), (lower, math.floor(centre - away)),
                )
                if 0 <= at < len(exact)
            )  # fmt: skip
            if away > 0 and 1e-12 <= p < 0.05:
                errors.append(log_p(strata) / math.log(10.0) - math.log10(p))
    assert len(errors) > 30
    assert np.median(np.abs(errors)) < 0.03
    assert -worst[0] < min(errors)
    assert max(errors) < worst[1]


def test_the_largest_values_in_the_target_are_exact() -> None:
    rng = np.random.default_rng(2)
    strata, allocations_of_all = [], 0.0
    for n in (2, 3, 4):
        values = np.sort(rng.gamma(1.0, size=60) * (rng.random(60) < 0.4))[::-1]
        strata.append((values[:n], values[n:]))
        allocations_of_all += math.log(math.comb(60, n))
    assert log_p(strata) == pytest.approx(-allocations_of_all, abs=0.01)
    assert abs(log_p(strata, refined=False) + allocations_of_all) > 1.0


def test_one_value_in_each_stratum_is_exact() -> None:
    """The sum depends on the numbers of expressing cells only."""
    strata = [(np.repeat([1.7, 0.0], [4, 1]), np.repeat([1.7, 0.0], [3, 40]))] * 2
    ways = [math.comb(7, x) * math.comb(41, 5 - x) / math.comb(48, 5) for x in range(6)]
    p = sum(ways[x] * ways[z] for x in range(6) for z in range(6) if x + z >= 8)
    assert log_p(strata) == pytest.approx(math.log(p), abs=0.02)


def test_many_strata_with_gaps_are_near() -> None:
    """Ten strata: more numbers of expressing cells than are added up one by one."""
    strata = [(np.repeat([1.7, 0.0], [4, 4]), np.repeat([1.7, 0.0], [8, 40]))] * 10
    ways = np.array([math.comb(12, x) * math.comb(44, 8 - x) / math.comb(56, 8) for x in range(9)])
    exact = np.ones(1)
    for _ in range(10):
        exact = np.convolve(exact, ways)
    assert log_p(strata, "greater") == pytest.approx(math.log(exact[40:].sum()), abs=0.3)


def test_one_stratum_is_the_plain_test() -> None:
    rng = np.random.default_rng(3)
    x, y = rng.gamma(4.0, size=5), rng.gamma(1.0, size=60) * (rng.random(60) < 0.5)
    expected = np.array([[-9.0]])
    refine(expected, np.ones(1, bool), [samples(y, x)], side(x), side(y), "two-sided")
    assert expected[0, 0] != -9.0
    assert log_p([(x, y)]) == expected[0, 0]


def test_pools_and_rests_give_the_same_as_pairs() -> None:
    rng = np.random.default_rng(4)
    strata = [(rng.poisson(7.0, 5), rng.poisson(1.0, 6), rng.poisson(1.0, 40)) for _ in range(2)]
    others = [np.concatenate([z, y]) for _, y, z in strata]
    alone = log_p([(x, o) for (x, *_), o in zip(strata, others, strict=True)])
    assert alone < -8.0
    for rest in (False, True):
        held = [
            samples(x, y, z, pooled=True, rest=True)
            if rest
            else samples(np.concatenate([x, y, z]), x, pooled=True)
            for x, y, z in strata
        ]
        parts = []
        for its, other in zip(strata, others, strict=True):
            targets = its if rest else its[:1]
            target = [np.vstack(arrays) for arrays in zip(*map(side, targets), strict=True)]
            rows = np.where(np.arange(len(targets)) == 0, 0, -1)
            parts.append((target, [np.repeat(a, len(targets), 0) for a in side(other)], rows))
        found = np.array([[-9.0]])
        refine_over_strata(found, np.ones(1, bool), parts, [[its] for its in held], "two-sided")
        assert found[0, 0] == alone


def test_only_small_ones_of_judged_genes_change() -> None:
    rng = np.random.default_rng(5)
    strata = [(rng.poisson(7.0, 5), rng.poisson(1.0, 60))] * 2
    parts = [(side(x), side(y), ROW) for x, y in strata]
    found = np.array([[-20.0]])
    refine_over_strata(found, np.zeros(1, bool), parts, [], "two-sided")
    assert found[0, 0] == -20.0
    found[0, 0] = -2.0
    refine_over_strata(found, np.ones(1, bool), parts, [], "two-sided")
    assert found[0, 0] == -2.0
