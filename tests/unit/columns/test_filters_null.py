"""Filters do not choose rows by their outcome: which cell is on which side plays no part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import run, screen

from pdex_gpu import pdex

SIZES = {"ctrl": 60, "a": 5, "b": 4}
N_GENES = 400
FILTERS = [{"min_fraction": 0.18}, {"min_cpm": 3_500.0}]


def sparse(seed: int = 0) -> np.ndarray:
    """Counts without any effect, most of them 0."""
    rng = np.random.default_rng(seed)
    return rng.poisson(rng.uniform(0.02, 0.3, N_GENES), (sum(SIZES.values()), N_GENES)) * 1.0


def labels() -> np.ndarray:
    return np.repeat([*SIZES], [*SIZES.values()])


def data(values: np.ndarray, group: np.ndarray) -> Any:
    n = len(group)
    obs = pd.DataFrame({"group": group, "batch": ["x", "y"] * (n // 2) + ["x"] * (n % 2),
                        "gene": "gene1"}, index=[f"c{i}" for i in range(n)])  # fmt: skip
    return screen(values, obs)


@pytest.mark.parametrize("filtered", FILTERS, ids=["fraction", "cpm"])
@pytest.mark.parametrize(
    "options",
    [{}, {"comparison": "rest"}, {"strata": "batch"}, {"groupby": ["group", "batch"]}],
    ids=["reference", "rest", "strata", "levels"],
)
def test_labels_permuted_within_a_pair_keep_the_same_rows(options, filtered):
    values, group = sparse(), labels()
    if options.get("comparison") != "rest":  # of one pair, or of all that are pooled
        values, group = values[group != "b"], group[group != "b"]
    batch = data(values, group).obs["batch"].to_numpy()
    within = "strata" in options or "groupby" in options
    expected = run(data(values, group), **options, **filtered)[0].kept
    assert 0.1 < expected.mean() < 0.9
    rng = np.random.default_rng(1)
    for _ in range(10):
        order = np.arange(len(group))
        for level in ("x", "y") if within else ("",):
            cells = np.flatnonzero(batch == level) if within else order.copy()
            order[cells] = rng.permutation(cells)
        found = run(data(values, group[order]), **options, **filtered)[0].kept
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("filtered", FILTERS, ids=["fraction", "cpm"])
def test_rows_that_are_kept_have_no_effect_on_the_whole(filtered):
    """The number of expressing target cells of the kept rows is that of a hypergeometric draw."""
    ((name, least),) = filtered.items()
    n, m = SIZES["a"], SIZES["ctrl"]
    excess = {"pooled": [0.0, 0.0], "either": [0.0, 0.0]}
    for seed in range(20):
        values, group = sparse(seed), labels()
        result, _ = run(data(values, group), groups=["a"], **filtered)
        sides = [values[group == label] for label in ("a", "ctrl")]
        x, expressed = (sides[0] > 0).sum(0), sum((side > 0).sum(0) for side in sides)
        if name == "min_fraction":
            either = np.any([(side > 0).mean(0) >= least for side in sides], axis=0)
        else:
            either = np.any([side.sum(0) / side.sum() * 1e6 > least for side in sides], axis=0)
        variance = n * m / (n + m) ** 2 * expressed * (n + m - expressed) / (n + m - 1)
        for rule, kept in (("pooled", result.kept[0]), ("either", either)):
            excess[rule][0] += (x - n * expressed / (n + m))[kept].sum()
            excess[rule][1] += variance[kept].sum()
    z = {rule: total / np.sqrt(variance) for rule, (total, variance) in excess.items()}
    assert abs(z["pooled"]) < 3.0  # 1.4 and 0.02 seen
    assert z["either"] > 8.0  # the rule of pdex 0.3: 20 and 16 seen


def test_the_pdex_drop_in_keeps_its_rule():
    values, group = sparse(), labels()
    table = pdex(data(values, group), "group", reference="ctrl", is_log1p=False, as_pandas=True,
                 cpm_filter=6_000.0, geometric_mean=False)  # fmt: skip
    found = set(zip(table["target"], table["feature"], strict=True))
    sides = {label: values[group == label].sum(0) / values[group == label].sum() * 1e6
             for label in SIZES}  # fmt: skip
    expected = {
        (label, f"gene{j}")
        for label in ("a", "b")
        for j in np.flatnonzero((sides[label] > 6_000.0) | (sides["ctrl"] > 6_000.0))
    }
    assert found == expected
    assert len(found) > 10
    pooled, _ = run(data(values, group), min_cpm=6_000.0)
    assert pooled.n_rows < len(found) / 2
