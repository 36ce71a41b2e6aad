"""Conditional p-values of van Elteren's test against permutations within strata."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import special
from test_wilcoxon import (
    ALTERNATIVES,
    controls,
    exact,
    permutation_distribution,
    tie_term,
)

from pdex_gpu import differential_expression
from pdex_gpu.backends.outputs import N_LOWEST
from pdex_gpu.stats.conditional.wilcoxon import BODY
from pdex_gpu.stats.conditional.wilcoxon_strata import judge_strata

#: Sizes of the classes of ties of a stratum, zeros first, and the number of target cells.
Strata = list[tuple[list[int], int]]


def asymptotic(u2: np.ndarray, strata: Strata, alternative: str) -> np.ndarray:
    """The normal approximation; `u2` has a column for each stratum."""
    excess, variance = np.zeros(len(u2)), 0.0
    for s, (sizes, n) in enumerate(strata):
        total = sum(sizes)
        m = total - n
        part = total + 1 - tie_term(sizes) / (total * (total - 1))
        excess += (u2[:, s] - n * m) / 2 / (total + 1)
        variance += n * m / 12 * part / (total + 1) ** 2
    if alternative == "two-sided":
        excess = np.abs(excess)
    p = special.ndtr((excess if alternative == "less" else -excess) / math.sqrt(variance))
    return np.asarray(2 * p if alternative == "two-sided" else p)


def lowest(sizes: list[int], shape: tuple[int, int]) -> np.ndarray:
    """Cells at the lowest values above zero."""
    known = [*sizes[1:], *[0] * N_LOWEST][:N_LOWEST]
    return np.broadcast_to(np.array(known, np.int32), (*shape, N_LOWEST))


def conditional(u2: np.ndarray, strata: Strata, alternative: str = "two-sided") -> np.ndarray:
    """Logarithms of p-values, NaN where they are asymptotic."""
    p = asymptotic(u2, strata, alternative)[None]
    parts = []
    for s, (sizes, n) in enumerate(strata):
        total, expressed, shape = sum(sizes), sum(sizes[1:]), (1, len(u2))
        # The expressing cells of the target only serve the least p-value: as few ways as can be.
        silent = total - expressed
        x = min(min(n, expressed), max(0, n - silent), key=lambda x: math.comb(silent, n - x))
        parts.append(
            (
                u2[None, :, s], np.full(shape, tie_term(sizes)), lowest(sizes, shape),
                np.array([[n]]), np.array([[total - n]]), np.full(shape, x),
                np.full(shape, expressed - x), np.zeros(1, np.int64),
            )
        )  # fmt: skip
    log_p = judge_strata(p, parts, np.ones(len(u2), bool), alternative)[0]
    judged = ~np.isnan(log_p)
    np.testing.assert_allclose(np.exp(log_p[judged]), p[0][judged])
    return log_p


def all_values(strata: Strata, alternative: str) -> tuple[np.ndarray, np.ndarray]:
    """2U of each stratum, for values of S and their exact p-values."""
    values, probabilities = np.zeros(1), np.ones(1)
    u2 = np.zeros((1, 0), np.int64)
    for sizes, n in strata:
        total = sum(sizes)
        its, p = permutation_distribution(sizes, n)
        s = (its - n * (total - n)) / (total + 1)
        u2 = np.column_stack([np.repeat(u2, len(its), axis=0), np.tile(its, len(values))])
        values = np.round((values[:, None] + s).ravel(), 9)
        values, first, where = np.unique(values, return_index=True, return_inverse=True)
        probabilities = np.bincount(where, np.outer(probabilities, p).ravel())
        u2 = u2[first]
    extreme = {"two-sided": np.abs(values), "less": -values, "greater": values}[alternative]
    order = np.argsort(-extreme, kind="stable")
    p = np.cumsum(probabilities[order])
    return u2, p[np.searchsorted(-extreme[order], -extreme, side="right") - 1]


def errors(strata: Strata, alternative: str) -> np.ndarray:
    """log10 of the ratio of conditional to exact p-values, of some between 1e-12 and 0.15."""
    u2, expected = all_values(strata, alternative)
    kept = np.flatnonzero((expected >= 1e-12) & (expected < 0.15))
    kept = kept[np.argsort(expected[kept], kind="stable")]
    if len(kept) > 150:  # evenly over the logarithm of p
        wanted = np.linspace(*np.log(expected[kept[[0, -1]]]), 150)
        kept = kept[
            np.unique(np.searchsorted(np.log(expected[kept]), wanted).clip(0, len(kept) - 1))
        ]
    log_p = conditional(u2[kept], strata, alternative)
    judged = ~np.isnan(log_p)
    return np.asarray(log_p[judged] / math.log(10.0) - np.log10(expected[kept][judged]))


UNTIED: list[Strata] = [
    [([0, *[1] * 30], 5), ([0, *[1] * 34], 5)],
    [([0, *[1] * 25], 3), ([0, *[1] * 30], 4), ([0, *[1] * 20], 3)],
    [([0, *[1] * 40], 6), ([0, *[1] * 40], 6)],
    [([20, *[1] * 30], 6), ([30, *[1] * 25], 6)],
    [([40, *[1] * 20], 6), ([50, *[1] * 15], 8)],
    [([90, *[1] * 10], 10), ([80, *[1] * 6], 10)],
    [([30, *[1] * 30], 2), ([30, *[1] * 20], 2)],
    [([0, *[1] * 60], 2), ([20, *[1] * 30], 2)],
    [([60, *[1] * 20], 15), ([50, *[1] * 15], 15)],
    [([34, *[1] * 16], 3), ([3, *[1] * 24], 12)],
]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("strata", UNTIED, ids=str)
def test_p_values_without_ties(strata: Strata) -> None:
    found = np.concatenate([errors(strata, alternative) for alternative in ALTERNATIVES])
    assert len(found) > 50
    # Worst seen: 0.024, -0.07 and 0.22, next to the largest value of S.
    assert np.median(np.abs(found)) < 0.03
    assert found.min() > -0.1
    assert found.max() < 0.25


TIED: list[Strata] = [
    [([95, 18, 5, 2], 10), ([80, 20, 6, 1], 10)],
    [([61, 32, 10, 9, 5, 2, 1], 8), ([40, 25, 10, 5, 1, 1], 8)],
    [([113, 6, 1], 12), ([95, 9, 2], 10)],
    [([230, 20, 4, 1], 20), ([200, 30, 5, 1], 20)],
    [([0, 5, 7, 12, 5, 9, 12, 11, 4], 8), ([1, 2, 1, 3, 1, 5, 4, 6, 7, 5], 5)],
    [([949, 37, 11, 2, 1], 5), ([781, 80, 15, 3], 5)],
    [([45, 12, 3], 5), ([57, 3], 5), ([50, 9, 2], 6)],
    [([50, 20], 6), ([40, 18], 6)],
    [([9, 7, 3, 2, 1], 8), ([22, 6, 2], 9)],
    [([7, 1, 1, 18], 3), ([6, 1, 2, 1, 45], 5), ([5, 2, 2, 1, 7], 5)],
    [([8, 1, 1, 3, 9], 10), ([3, 3, 1, 36], 2)],
    [([11, 35, 2], 8), ([10, 23, 3], 4)],
]


@pytest.mark.parametrize("strata", TIED, ids=str)
def test_p_values_with_ties_of_counts(strata: Strata) -> None:
    found = errors(strata, "two-sided")
    # Worst seen: 0.021, -0.33 and 0.28; the former with 46 to 48 cells at three values.
    assert np.median(np.abs(found)) < 0.03
    assert found.min() > -0.35
    assert found.max() < 0.3


@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("sizes", [[40, *[1] * 30], [95, 18, 5, 2], [0, *[1] * 60]], ids=str)
def test_one_stratum_has_the_p_values_of_the_plain_test(sizes: list[int], alternative: str) -> None:
    values, expected = exact(sizes, 8, alternative)
    log_p = conditional(values[:, None], [(sizes, 8)], alternative)
    kept = ~np.isnan(log_p) & (expected >= 1e-12)
    found = log_p[kept] / math.log(10.0) - np.log10(expected[kept])
    assert len(found) > 20 or (sizes, alternative) == ([95, 18, 5, 2], "less")
    assert np.median(np.abs(found)) < 0.02
    assert -0.3 < found.min() <= found.max() < 0.1  # -0.20 and 0.02 seen


def test_strata_without_expressing_cells_change_nothing() -> None:
    strata: Strata = [([40, 9, 3], 6), ([50, 6, 2], 8)]
    u2, _ = all_values(strata, "two-sided")
    silent = np.column_stack([u2, np.full(len(u2), 5 * 20)])
    more = conditional(silent, [*strata, ([25], 5)])
    fewer = conditional(u2, strata)
    both = ~np.isnan(more) & ~np.isnan(fewer)
    assert both.sum() > 100
    np.testing.assert_array_equal(more[both], fewer[both])


def test_target_and_reference_can_change_places() -> None:
    strata: Strata = [([30, *[1] * 25], 12), ([10, *[1] * 40], 15)]
    swapped = [(sizes, sum(sizes) - n) for sizes, n in strata]
    u2, _ = all_values(strata, "two-sided")
    u2 = u2[:: max(1, len(u2) // 400)]
    most = np.array([2 * n * (sum(sizes) - n) for sizes, n in strata])
    for one, other in (("two-sided", "two-sided"), ("less", "greater")):
        found, expected = conditional(most - u2, swapped, other), conditional(u2, strata, one)
        kept = (expected > -30.0) & (found > -30.0)  # above the least p-value, which differs
        assert kept.sum() > 100
        np.testing.assert_allclose(found[kept], expected[kept], atol=0.02)


def test_p_values_that_stay_asymptotic_are_not_small() -> None:
    """The rule is sound: none of them is below 0.05."""
    least = 1.0
    for strata in (*UNTIED[1:], *TIED):
        u2, p = all_values(strata, "two-sided")
        kept = asymptotic(u2, strata, "two-sided") >= BODY
        least = min(least, float(p[kept].min()))
    assert least > 0.05


def test_rows_are_found_by_their_number() -> None:
    strata: Strata = [([40, 9, 3], 6), ([50, 6, 2], 8)]
    u2 = np.array([[400, 800]])
    alone = conditional(u2, strata)
    p = np.full((3, 1), 1e-3)
    parts = []
    for s, (sizes, n) in enumerate(strata):
        total, expressed = sum(sizes), sum(sizes[1:])
        x = min(n, expressed)
        parts.append(
            (
                np.full((2, 1), u2[0, s]), np.full((2, 1), tie_term(sizes)), lowest(sizes, (2, 1)),
                np.full((2, 1), n), np.array([[total - n]]), np.full((2, 1), x),
                np.array([[expressed - x]]), np.array([[2, -1], [-1, 2]][s]),
            )
        )  # fmt: skip
    log_p = judge_strata(p, parts, np.ones(1, bool), "two-sided")
    assert log_p[2, 0] == alone[0]
    assert (p[:2] == 1.0).all()  # no stratum


def test_far_below_underflow() -> None:
    """All allocations but two are less extreme, in two strata without ties."""
    n, m = 500, 700
    strata: Strata = [([0, *[1] * (n + m)], n)] * 2
    log_p = conditional(np.array([[2 * n * m, 2 * n * m]]), strata)
    ways = special.gammaln(n + m + 1) - special.gammaln(n + 1) - special.gammaln(m + 1)
    assert log_p[0] == pytest.approx(math.log(2.0) - 2 * ways, rel=0.04)  # 0.036 seen


@pytest.mark.parametrize("n", [5, 20])
@pytest.mark.parametrize("scale", ["counts", "log"])
def test_null_rates_of_real_cells(real_data: Callable[[str], Path], n: int, scale: str) -> None:
    """Control cells in random groups, n in each of three strata that differ in depth."""
    values = controls(real_data("papalexi_thp1_counts.h5ad"))
    depth = values.sum(axis=1)
    stratum = np.searchsorted(np.quantile(depth, [1 / 3, 2 / 3]), depth)
    if scale == "log":
        values = np.log1p(values / depth[:, None] * 1e4)
    values = values[:, (values > 0).sum(axis=0) >= 3][:, :1000]
    rng = np.random.default_rng(1)
    labels = np.full(len(values), "control", object)
    for s in range(3):
        cells = rng.permutation(np.flatnonzero(stratum == s))[: len(values) // 6]
        groups = np.arange(len(cells)) // n
        labels[cells] = [f"group {g}" for g in groups]
        labels[cells[groups == groups[-1]]] = "control"  # perhaps not n cells
    obs = pd.DataFrame({"group": labels, "depth": stratum.astype(str)})
    obs.index = obs.index.astype(str)
    result = differential_expression(
        anndata.AnnData(values, obs), "group", reference="control", strata="depth",
        p_values="conditional", backend="cpu", progress=False, is_log1p=False,
    )  # fmt: skip
    p = result["p_value"]
    assert p.size > 5_000
    for level in (0.05, 1e-2, 1e-3):
        rate, error = np.mean(p <= level) / level, 1 / math.sqrt(level * p.size)
        assert rate < 1.3 + 3 * error, (level, rate)
