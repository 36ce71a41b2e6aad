"""Conditional p-values of the rank-sum test against the permutation distribution, and their rates.

Whole numbers of allocations, counted without rounding that matters: float64 adds positive terms.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import special

from pdex_gpu import differential_expression
from pdex_gpu.backends.outputs import N_LOWEST
from pdex_gpu.stats.conditional.wilcoxon import BODY, judge
from pdex_gpu.stats.distributions.exact_u import survival

ALTERNATIVES = ("two-sided", "less", "greater")


def asymptotic(u2: np.ndarray, sizes: list[int], n: int, alternative: str) -> np.ndarray:
    """The normal approximation, for all values of 2U."""
    total = sum(sizes)
    m, ties = total - n, tie_term(sizes)
    deviation = math.sqrt(n * m / 12 * (total + 1 - ties / (total * (total - 1))))
    if deviation == 0.0:
        return np.ones(len(u2))
    excess = (u2 - n * m) / 2
    if alternative == "two-sided":
        return np.minimum(2 * special.ndtr(-(np.abs(excess) - 0.5) / deviation), 1.0)
    excess = -excess if alternative == "less" else excess
    return np.asarray(special.ndtr(-(excess - 0.5) / deviation))


def tie_term(sizes: list[int]) -> float:
    return float(sum(t**3 - t for t in sizes))


def conditional(
    u2: np.ndarray, sizes: list[int], n: int, alternative: str = "two-sided"
) -> tuple[np.ndarray, np.ndarray]:
    """P-values and their logarithms (NaN where they are asymptotic), of values of 2U.

    `sizes` are the sizes of the classes of ties, zeros first.
    """
    m, expressed = sum(sizes) - n, sum(sizes[1:])
    shape = 1, len(u2)
    classes = sizes[1 : 1 + N_LOWEST]
    lowest = np.zeros((*shape, N_LOWEST), np.int32)
    lowest[:, :, : len(classes)] = classes
    p = asymptotic(u2, sizes, n, alternative).reshape(shape)
    log_p = np.full(shape, np.nan)
    judge(
        p, u2.reshape(shape), np.full(shape, tie_term(sizes)), lowest, np.array([[n]]),
        np.array([[m]]), np.full(shape, expressed), np.zeros(shape, np.int64),
        np.ones(shape, bool), alternative, log_p,
    )  # fmt: skip
    return p[0], log_p[0]


def permutation_distribution(sizes: list[int], n: int) -> tuple[np.ndarray, np.ndarray]:
    """All values of 2U and their probabilities, over all choices of n cells as the target."""
    total, silent, expressed = sum(sizes), sizes[0], sum(sizes[1:])
    below = np.cumsum([0, *sizes[1:-1]])
    ranks = np.repeat(2 * below + np.array(sizes[1:]) + 1, sizes[1:])  # twice the midrank
    most = min(n, expressed)
    ways = np.zeros((most + 1, int(np.sort(ranks)[::-1][:most].sum()) + 1))
    ways[0, 0] = 1.0
    for rank in ranks.tolist():  # choose x cells with twice a sum of ranks
        ways[1:, rank:] += ways[:-1, : ways.shape[1] - rank].copy()
    found: dict[int, float] = {}
    for x in range(max(0, n - silent), most + 1):
        share = math.comb(silent, n - x) / math.comb(total, n)
        for s in np.flatnonzero(ways[x]).tolist():
            u2 = s + 2 * silent * x + (silent + 1) * (n - x) - n * (n + 1)
            found[u2] = found.get(u2, 0.0) + ways[x, s] * share
    values = np.array(sorted(found))
    probabilities = np.array([found[u2] for u2 in values.tolist()])
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-9)
    return values, probabilities


def exact(sizes: list[int], n: int, alternative: str) -> tuple[np.ndarray, np.ndarray]:
    """All values of 2U and their exact p-values."""
    values, probabilities = permutation_distribution(sizes, n)
    centre = n * (sum(sizes) - n)
    if alternative == "greater":
        extreme = values - centre
    elif alternative == "less":
        extreme = centre - values
    else:
        extreme = np.abs(values - centre)
    order = np.argsort(-extreme, kind="stable")
    p = np.cumsum(probabilities[order])
    last = np.searchsorted(-extreme[order], -extreme, side="right") - 1
    return values, p[last]


def errors(sizes: list[int], n: int, alternative: str) -> np.ndarray:
    """log10 of the ratio of conditional to exact p-values, where these are 1e-12 to 0.15."""
    values, expected = exact(sizes, n, alternative)
    kept = (expected >= 1e-12) & (asymptotic(values, sizes, n, alternative) < BODY)
    kept &= expected < 0.15
    found, log_p = conditional(values[kept], sizes, n, alternative)
    judged = ~np.isnan(log_p)
    np.testing.assert_allclose(np.exp(log_p[judged]), found[judged])
    log_p[~judged] = np.log(found[~judged])  # those that keep the asymptotic one, as others do
    return np.asarray(log_p / math.log(10.0) - np.log10(expected[kept]))


def controls(path: Path) -> np.ndarray:
    """The counts of control cells, cells x genes."""
    screen = anndata.read_h5ad(path)
    return np.asarray(
        screen[(screen.obs["perturbation"] == "non-targeting").to_numpy()].X.toarray(), np.float64
    )


def null_p_values(values: np.ndarray, n: int, n_reference: int) -> np.ndarray:
    """P-values of groups of n cells against the first ones, where any cell expresses the gene."""
    n_groups = (len(values) - n_reference) // n
    used = values[: n_reference + n_groups * n]
    labels = ["control"] * n_reference
    labels += [f"group {g}" for g in range(n_groups) for _ in range(n)]
    result = differential_expression(
        anndata.AnnData(used, pd.DataFrame({"group": labels}, [str(i) for i in range(len(used))])),
        "group",
        reference="control",
        p_values="conditional",
        backend="cpu",
        progress=False,
        is_log1p=False,
        columns=["target_n_expressed", "reference_n_expressed"],
    )
    expressed = result["target_n_expressed"] + result["reference_n_expressed"] > 0
    return np.asarray(result["p_value"][expressed])


# Without ties: both sides small, few cells, all or some expressing.
UNTIED = [
    (n, m, expressed)
    for n, m in ((3, 50), (5, 50), (8, 50), (12, 40), (20, 20), (30, 30), (50, 15))
    for expressed in (n + m, (n + m) * 3 // 4, (n + m) // 3)
]


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(("n", "m", "expressed"), UNTIED)
def test_p_values_are_exact_without_ties(n: int, m: int, expressed: int) -> None:
    sizes = [n + m - expressed, *[1] * expressed]
    found = np.concatenate([errors(sizes, n, alternative) for alternative in ALTERNATIVES])
    assert len(found) > 20
    # Worst seen: 0.012, -0.14 (one allocation but one is more extreme) and 0.23 (n = 3).
    assert np.median(np.abs(found)) < 0.02
    assert found.min() > -0.16
    assert found.max() < 0.25


# Classes of counts 0, 1, 2 ... as real genes have them, sparse to dense.
TIED = [
    ([57, 3], 5), ([116, 3, 1], 20), ([113, 6, 1], 20), ([45, 12, 3], 5), ([95, 18, 5, 2], 20),
    ([95, 18, 5, 2], 50), ([26, 17, 10, 4, 2, 1], 5), ([61, 32, 10, 9, 5, 2, 1], 20),
    ([61, 34, 14, 6, 3, 2], 50), ([17, 2, 13, 6, 4, 8, 4, 3, 3], 5),
    ([15, 27, 20, 15, 18, 8, 6, 4, 3, 2, 1, 1], 20), ([1, 2, 1, 3, 1, 5, 4, 6, 7, 5, 6, 9, 10], 5),
    ([949, 37, 11, 2, 1], 5), ([781, 171, 31, 12, 1, 2, 2], 5), ([960, 31, 7, 2], 20),
    ([0, 5, 7, 12, 5, 9, 12, 11, 14, 10, 7, 4, 4], 20), ([17, 27, 12, 3, 1], 20),
    ([62, 77, 48, 12, 1], 8), ([31, 49, 35, 5], 20),
]  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(("sizes", "n"), TIED)
def test_p_values_are_nearly_exact_with_ties_of_counts(sizes: list[int], n: int) -> None:
    found = errors(sizes, n, "two-sided")
    # Worst seen in every second of 230 patterns of real counts: 0.041, -0.19 and 0.39.
    assert np.median(np.abs(found)) < 0.05
    assert found.min() > -0.3
    assert found.max() < 0.5


def test_few_silent_or_expressing_cells_are_exact() -> None:
    """Nothing but zeros; one expressing cell; all cells tied at one value above zero."""
    assert conditional(np.array([10]), [7], 2)[0][0] == 1.0
    values, expected = exact([1999, 1], 20, "greater")
    found, log_p = conditional(values, [1999, 1], 20, "greater")
    judged = ~np.isnan(log_p)
    np.testing.assert_allclose(found[judged], expected[judged], rtol=1e-9)
    assert found[-1] == pytest.approx(0.01)
    # x of the 30 expressing cells, whose values are equal: a hypergeometric tail
    values, expected = exact([170, 30], 20, "two-sided")
    found, log_p = conditional(values, [170, 30], 20)
    judged = ~np.isnan(log_p)
    np.testing.assert_allclose(log_p[judged], np.log(expected[judged]), rtol=1e-3)


@pytest.mark.parametrize(
    ("sizes", "n"),
    [
        ([0, *[1] * 70], 20), ([40, *[1] * 30], 20), ([95, 18, 5, 2], 20),
        ([1800, 150, 40, 10], 100), ([26, 17, 10, 4, 2, 1], 5), ([1990, *[1] * 110], 100),
        ([500, *[1] * 1500], 300),
    ],
)  # fmt: skip
def test_p_values_fall_with_the_distance_from_the_mean(sizes: list[int], n: int) -> None:
    centre = n * (sum(sizes) - n)
    below = np.cumsum([0, *sizes[:-1]])
    largest = int(np.repeat(2 * below + sizes + 1, sizes)[-n:].sum()) - n * (n + 1)
    u2 = np.arange(centre, largest, max(1, centre // 4000))
    p, log_p = conditional(u2, sizes, n)
    judged = log_p[~np.isnan(log_p)]
    assert len(judged) > 100
    assert np.diff(judged).max() < 0.03  # 0.018 seen, where most values are tied
    mirrored, _ = conditional(2 * centre - u2, sizes, n)
    np.testing.assert_array_equal(mirrored, p)


@pytest.mark.parametrize(("sizes", "n"), [([30, 9, 6, 5], 20), ([10, *[1] * 40], 12)])
def test_target_and_reference_can_change_places(sizes: list[int], n: int) -> None:
    m = sum(sizes) - n
    values, _ = permutation_distribution(sizes, n)
    for one, other in (("two-sided", "two-sided"), ("less", "greater")):
        _, log_p = conditional(values, sizes, n, one)
        _, log_swapped = conditional(2 * n * m - values, sizes, m, other)
        both = ~np.isnan(log_p) & ~np.isnan(log_swapped)
        assert both.sum() > 20
        # Half the distance of values is taken to shrink with the number of target cells.
        np.testing.assert_allclose(log_swapped[both], log_p[both], rtol=0.2, atol=0.05)


def test_both_sides_count_where_they_are_equally_likely() -> None:
    """The sum for the other side starts among numbers of cells that cannot reach it."""
    n, expressed = 2000, 164
    sizes = [2 * n - expressed, *[1] * expressed]
    u2 = n * n + np.arange(150_000, 300_000, 10_000)
    _, both = conditional(u2, sizes, n)
    _, one = conditional(u2, sizes, n, "greater")
    np.testing.assert_allclose(both, one + math.log(2.0), rtol=0, atol=1e-9)  # 1.6e-12 seen


def test_p_values_far_below_underflow() -> None:
    """The target has the largest values: one of the allocations without ties, on either side."""
    n, m = 1000, 1000
    _, log_p = conditional(np.array([2 * n * m]), [0, *[1] * (n + m)], n)
    ways = special.gammaln(n + m + 1) - special.gammaln(n + 1) - special.gammaln(m + 1)
    expected = (math.log(2.0) - ways) / math.log(10.0)
    assert expected < -600
    assert log_p[0] / math.log(10.0) == pytest.approx(expected, rel=0.02)  # 0.0135 seen
    _, log_p = conditional(np.array([2 * 3000 * 4000]), [3500, *[1] * 3500], 3000)
    assert log_p[0] / math.log(10.0) == pytest.approx(-2073.77, rel=0.02)


@pytest.mark.parametrize("n", [3, 5, 8])
def test_p_values_are_those_of_the_exact_test_without_ties(n: int) -> None:
    m = 40
    sf = survival(n, m)
    u = np.arange(n * m // 2 + 1, n * m + 1)
    _, log_p = conditional(2 * u, [0, *[1] * (n + m)], n, "greater")
    judged = ~np.isnan(log_p)
    found = (log_p[judged] - np.log(sf[u[judged]])) / math.log(10.0)
    assert np.median(np.abs(found)) < 0.018  # 0.0152 seen
    assert -0.16 < found.min() <= found.max() < 0.25


def test_pairs_that_keep_their_asymptotic_p_value_have_no_small_one() -> None:
    """The rules are sound: over sizes, sparsity and ties, none of them is below 0.05.

    Where D is nearly continuous they may be below `BODY`; without ties they are exact to 3 %.
    """
    least = 1.0
    ratios = []
    for n in (3, 5, 20, 60):
        for total in (2 * n, 150, 400):
            for silent in (0.0, 0.3, 0.7, 0.9, 0.97, 0.99):
                expressed = max(1, round(total * (1 - silent)))
                if expressed * n > 6000 or total <= n:
                    continue
                half = expressed // 2
                for ties in ([1] * expressed, [expressed], [expressed - half, half]):
                    sizes = [total - expressed, *ties]
                    values, p = exact(sizes, n, "two-sided")
                    found, log_p = conditional(values, sizes, n)
                    kept = np.isnan(log_p)
                    least = min(least, float(p[kept].min(initial=1.0)))
                    if len(ties) == expressed:
                        kept &= found < BODY
                        ratios.append(found[kept] / p[kept])
    assert least > 0.05
    ratio = np.concatenate(ratios)
    assert len(ratio) > 500
    assert 0.97 < ratio.min() <= ratio.max() < 1.03


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("scale", ["counts", "log"])
def test_null_rates_of_real_cells(real_data: Callable[[str], Path], n: int, scale: str) -> None:
    """Control cells in random groups: p-values are at most 1.3 times as often small as they say."""
    found: list[Any] = []
    counts = controls(real_data("papalexi_thp1_counts.h5ad"))
    if scale == "log":
        counts = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4)
    rng = np.random.default_rng(n)
    for _ in range(2 if n == 5 else 3 if n == 20 else 10):
        found.append(null_p_values(counts[rng.permutation(len(counts))], n, 1500))
    p = np.concatenate(found)
    for level in (0.05, 0.01, 1e-3):
        error = 3 * math.sqrt(level / len(p))
        assert np.mean(p <= level) < 1.3 * level + error
