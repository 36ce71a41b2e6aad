"""Confidence intervals of sparse genes and small groups: how often they hold the truth."""

from __future__ import annotations

import numpy as np
import pandas as pd
import plain_intervals
import pytest
from brute_force import BACKENDS, run, screen
from scipy import stats

COLUMNS = ["auroc", "auroc_low", "auroc_high", "mean_difference", "mean_difference_low",
           "mean_difference_high"]  # fmt: skip
INTERVALS = ("auroc", "mean_difference")
DISPERSION = 0.7
N_REFERENCE = 2000
N_GROUPS = {5: 40, 20: 24, 100: 20}  # for each effect
MEANS = {"below 0.1": (0.01, 0.1), "0.1 to 1": (0.1, 1.0), "above 1": (1.0, 10.0)}
GENES_PER_STRATUM = 50
EFFECTS = (0.5, 1.0, 2.0)


def negative_binomial(mean: float) -> stats.rv_discrete:
    return stats.nbinom(1 / DISPERSION, 1 / (1 + DISPERSION * mean))


def counts() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Counts, and of each group its size and effect; the mean of each gene in the reference."""
    rng = np.random.default_rng(20)
    means = np.concatenate(
        [np.geomspace(*ends, GENES_PER_STRATUM, endpoint=False) for ends in MEANS.values()]
    )
    sizes = np.concatenate([np.full(3 * k, n) for n, k in N_GROUPS.items()])
    effects = np.concatenate([np.repeat(EFFECTS, k) for k in N_GROUPS.values()])
    of_cells = np.concatenate([np.repeat(effects, sizes), np.ones(N_REFERENCE)])
    rate = of_cells[:, None] * means
    rate = rate * rng.gamma(1 / DISPERSION, DISPERSION, rate.shape)
    return rng.poisson(rate).astype(np.float64), sizes, effects, means


def truths(means: np.ndarray, effect: float, scale: str) -> dict[str, np.ndarray]:
    """The AUROC and the difference of means of each gene, from the distributions of counts."""
    auroc, difference = [], []
    for mean in means:
        k = np.arange(int(60 * max(mean * max(effect, 1), 1)) + 60)
        p, q = negative_binomial(mean * effect).pmf(k), negative_binomial(mean).pmf(k)
        value = k if scale == "counts" else np.log1p(5.0 * k)
        difference.append(p @ value - q @ value)
        auroc.append(p @ (np.cumsum(q) - 0.5 * q))
    return {"auroc": np.array(auroc), "mean_difference": np.array(difference)}


@pytest.mark.parametrize("scale", ["counts", "logarithms"])
def test_intervals_cover(scale):
    """Of every size, effect and expression, at least about as often as they say."""
    x, sizes, effects, means = counts()
    labels = np.repeat([f"g{i:04d}" for i in range(len(sizes))], sizes)
    labels = np.concatenate([labels, np.full(N_REFERENCE, "ctrl")])
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(len(labels))])
    values = x if scale == "counts" else np.log1p(5.0 * x)
    result, _ = run(screen(values, obs), columns=COLUMNS, backend="cpu")
    stratum = np.repeat(np.arange(len(MEANS)), GENES_PER_STRATUM)
    for effect in EFFECTS:
        truth = truths(means, effect, scale)
        for name in INTERVALS:
            low, high = result[f"{name}_low"], result[f"{name}_high"]
            assert (low < high).all()
            assert ((low < result[name]) | (low == 0)).all()
            assert ((high > result[name]) | (high == 1)).all()
            held = (low <= truth[name]) & (truth[name] <= high)
            for n in N_GROUPS:
                of = held[(sizes == n) & (effects == effect)]
                for s, expression in enumerate(MEANS):
                    # Worst seen: 0.943 of mean_difference, 0.950 of auroc
                    share = of[:, stratum == s].mean()
                    assert share > 0.93, (name, effect, n, expression)


def awkward() -> np.ndarray:
    """Genes of 5 target, 4 other target and 12 reference cells, positive and negative ones."""
    rng = np.random.default_rng(3)
    sparse = rng.poisson(0.2, (21, 12)).astype(float)
    only_reference, only_target, silent, one, apart, same = np.zeros((6, 21))
    only_reference[-4:], only_target[:2], one[3], same[:] = 1.0, 3.0, 2.0, 4.0
    apart[:9] = 7.0
    genes = [*sparse.T, only_reference, only_target, silent, one, apart, same]
    return np.stack([*genes, *(-gene for gene in genes), *(gene - 1.5 for gene in genes)], axis=1)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_awkward_genes(confidence, backend):
    values = awkward()
    labels = np.repeat(["a", "b", "ctrl"], [5, 4, 12])
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(len(labels))])
    result, _ = run(screen(values, obs), columns=COLUMNS, backend=backend, confidence=confidence,
                    is_log1p=False)  # fmt: skip
    for t, target in enumerate(result.targets):
        for g, gene in enumerate(values.T):
            x, y = gene[labels == target], gene[labels == "ctrl"]
            # Signs are those of all cells of the gene.
            pair = plain_intervals.auroc_interval(x, y, confidence, signed=gene.min() < 0)
            found = result["auroc_low"][t, g], result["auroc_high"][t, g]
            # Worst seen: 1.5e-14, of mean_difference 1.8e-15
            np.testing.assert_allclose(found, pair, rtol=0, atol=1e-13)
            assert 0 <= found[0] < found[1] <= 1
            pair = plain_intervals.mean_interval(x, y, confidence, signed=gene.min() < 0)
            found = result["mean_difference_low"][t, g], result["mean_difference_high"][t, g]
            np.testing.assert_allclose(found, pair, rtol=1e-12, atol=1e-12)
            constant = len(np.unique(x)) == 1 == len(np.unique(y))
            assert constant == np.isnan(found[0])
            assert constant or found[0] < found[1]


def test_no_expressing_cell():
    """What the intervals say then: as much as none of n tells about a fraction or a rate."""
    n, m = 10, 100_000
    values = np.zeros((n + m, 1))
    values[n : n + 100] = 1.0
    obs = pd.DataFrame({"group": ["t"] * n + ["ctrl"] * m})
    obs.index = obs.index.map("c{}".format)
    result, _ = run(screen(values, obs), columns=COLUMNS, is_log1p=False, backend="cpu")
    z2 = stats.norm.ppf(0.975) ** 2
    wilson = z2 / (n + z2)
    assert result["auroc_high"][0, 0] == pytest.approx(0.5 + wilson / 2, abs=1e-3)
    assert result["mean_difference_high"][0, 0] == pytest.approx(z2 / n, abs=2e-3)
    for name in INTERVALS:  # a fraction below 0 is none
        assert -0.002 < result[f"{name}_low"][0, 0] - (0.5 if name == "auroc" else 0) < 0
    few = values[: n + 1000]
    silent, _ = run(screen(0 * few, obs[: n + 1000]), columns=COLUMNS, is_log1p=False,
                    backend="cpu")  # fmt: skip
    assert silent["auroc_high"][0, 0] == pytest.approx(0.5 + wilson / 2, abs=1e-3)
    assert np.isnan(silent["mean_difference_low"]).all()
    assert np.isnan(silent["mean_difference_high"]).all()


def test_many_expressing_cells():
    """Then the intervals are DeLong's and Welch's, or hardly wider."""
    rng = np.random.default_rng(5)
    x = rng.gamma(4.0, size=(3000, 40))
    x[:1000] *= 0.8
    obs = pd.DataFrame({"group": ["t"] * 1000 + ["ctrl"] * 2000})
    obs.index = obs.index.map("c{}".format)
    result, _ = run(screen(x, obs), columns=COLUMNS, is_log1p=False, backend="cpu")
    ratios = []
    for g in range(x.shape[1]):
        a, b = x[:1000, g], x[1000:, g]
        welch = stats.ttest_ind(a, b, equal_var=False).confidence_interval()
        over = (a[:, None] > b) + 0.5 * (a[:, None] == b)
        error = np.sqrt(over.mean(1).var(ddof=1) / 1000 + over.mean(0).var(ddof=1) / 2000)
        delong = 2 * stats.norm.ppf(0.975) * error
        for name, classic in (("auroc", delong), ("mean_difference", welch.high - welch.low)):
            ratios.append((result[f"{name}_high"] - result[f"{name}_low"])[0, g] / classic)
    # Seen: 1.016 to 1.074
    assert 1 - 1e-12 < min(ratios) < max(ratios) < 1.2


def test_no_interval_is_shorter_than_the_classic_one():
    """So that it excludes 0 only where Welch's test rejects."""
    x, sizes, _, _ = counts()
    labels = np.repeat([f"g{i:04d}" for i in range(len(sizes))], sizes)
    labels = np.concatenate([labels, np.full(N_REFERENCE, "ctrl")])
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(len(labels))])
    result, _ = run(screen(x, obs), columns=["mean_difference_low", "mean_difference_high"],
                    metric="t-test", variance="welch", is_log1p=False, backend="cpu")  # fmt: skip
    excluded = (result["mean_difference_low"] > 0) | (result["mean_difference_high"] < 0)
    df = stats.ttest_ind(x[:5, -1], x[-N_REFERENCE:, -1], equal_var=False).df
    assert 3 < df < 6  # quantiles matter
    assert np.count_nonzero(excluded) > 1000
    assert (result["p_value"][excluded] <= 0.05).all()
