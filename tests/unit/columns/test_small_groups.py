"""One, two and three cells on a side: each column is NaN where its documentation says so."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, run, screen

SIZES = [*itertools.product((1, 2, 3), repeat=2), (1, 11), (11, 1)]
COLUMNS = ["auroc", "auroc_low", "auroc_high", "rank_biserial", "mean_difference",
           "mean_difference_low", "mean_difference_high", "cohens_d", "hedges_g", "z",
           "log10_p"]  # fmt: skip
ALWAYS = {"auroc", "rank_biserial", "mean_difference", "z", "log10_p", "p_value", "target_mean",
          "reference_mean"}  # fmt: skip
TESTS: list[dict[str, Any]] = [
    {},
    {"metric": "t-test"},
    {"metric": "t-test", "variance": "welch"},
    {"metric": "t-test", "variance": "overestimated"},
]
N_GENES = 60


def data(n: int, m: int, n_strata: int = 1) -> Any:
    """Values without ties, so that rounding has its chance in every gene."""
    rng = np.random.default_rng(n * 100 + m)
    labels = ["a"] * n + ["ctrl"] * m
    obs = pd.DataFrame(
        {"group": labels * n_strata, "batch": np.repeat([*map(str, range(n_strata))], n + m)}
    )
    obs.index = obs.index.map("c{}".format)
    obs["one"] = "x"
    return screen(rng.normal(size=(len(obs), N_GENES)), obs)


INTERVALS = ("auroc_low", "auroc_high", "mean_difference_low", "mean_difference_high")


def undefined(n: int, m: int, df: int) -> dict[str, bool]:
    """Where a column is NaN, by its documentation."""
    return dict.fromkeys(INTERVALS, min(n, m) < 2) | {"cohens_d": df < 1, "hedges_g": df < 2}


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("options", TESTS, ids=str)
@pytest.mark.parametrize("comparison", ["reference", "rest", "levels"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_columns_of_small_groups(comparison, options, backend):
    how = {"levels": {"groupby": ["group", "one"]}}.get(comparison, {"comparison": comparison})
    variance = options.get("variance", "pooled")
    for n, m in SIZES:
        z = [] if "metric" in options else ["z"]
        columns = [name for name in COLUMNS if name != "z"] + z
        result, _ = run(data(n, m), backend=backend, is_log1p=False, groups=["a"],
                        columns=columns, **how, **options)  # fmt: skip
        nan = undefined(n, m, n + m - 2)
        no_variance = n + m < 3 if variance == "pooled" else min(n, m) < 2
        nan["statistic"] = "metric" in options and no_variance
        for name, expected in nan.items():
            assert (np.isnan(result[name]) == expected).all(), (name, n, m)
        for name in ALWAYS & set(result.columns):
            assert np.isfinite(result[name]).all(), (name, n, m)
        if nan["statistic"]:
            assert (result["p_value"] == 1.0).all()
        for of in INTERVALS[::2]:
            low, high = result[of], result[of.replace("low", "high")]
            assert np.isnan(low).all() or (low < high).all()
        assert np.isnan(low).all() or (result["auroc_low"] >= 0).all()
        assert np.isnan(low).all() or (result["auroc_high"] <= 1).all()


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("n_strata", [1, 2])
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_columns_of_small_strata(n_strata, metric):
    for n, m in SIZES:
        columns = [name for name in COLUMNS if name not in ("auroc_low", "auroc_high", "z")]
        result, _ = run(data(n, m, n_strata), strata="batch", metric=metric, is_log1p=False,
                        columns=columns)  # fmt: skip
        df = n_strata * (n + m - 1) - 1
        nan = undefined(n * n_strata, m * n_strata, df)
        nan["statistic"] = metric == "t-test" and df < 1
        for name in {*columns, "statistic"} - ALWAYS:
            assert (np.isnan(result[name]) == nan[name]).all(), (name, n, m)
        for name in ALWAYS & set(result.columns):
            assert np.isfinite(result[name]).all(), (name, n, m)


@pytest.mark.parametrize("n", [1, 2, 3])
@pytest.mark.parametrize("m", [1, 2, 3])
def test_carriers_and_few_others(n, m):
    """Guides: what is left of a pool once the carriers are taken out."""
    values = data(n, m)
    values.obsm["guides"] = pd.DataFrame(
        {"x": [True] * n + [False] * m, "y": True}, index=values.obs_names
    ).iloc[:, :1]
    columns = [name for name in COLUMNS if name != "z"]
    result, _ = run(values, None, guides="guides", comparison="rest", columns=columns,
                    is_log1p=False, metric="t-test")  # fmt: skip
    for name, expected in undefined(n, m, n + m - 2).items():
        assert (np.isnan(result[name]) == expected).all(), name
