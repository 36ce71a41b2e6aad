"""Conditional Anderson-Darling p-values in whole calls: kinds of comparisons, options, strata."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest

from pdex_gpu import DEResult, differential_expression
from pdex_gpu.errors import DataError, OptionError
from pdex_gpu.stats.conditional.anderson_darling import LEAST, log_p_values
from pdex_gpu.stats.two_sample.anderson_darling import AndersonDarling, _sigma

# Of the genes with negative values.
pytestmark = pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")

SIZES = {"a": 6, "b": 20, "c": 45, "ref": 160}


def make_screen(*, log: bool, negative: bool = False) -> anndata.AnnData:
    rng = np.random.default_rng(8)
    group = rng.permutation(np.repeat(list(SIZES), list(SIZES.values())))
    values = rng.poisson(np.geomspace(0.02, 20.0, 24) * rng.gamma(2.0, 0.5, (len(group), 24)))
    values = values.astype(np.float32)
    values[group == "c", 4:8] += 2.0
    if log:
        values = np.log1p(values * rng.uniform(0.5, 2.0, (len(group), 1))).astype(np.float32)
    if negative:
        values[:, 3] -= 1.0
    obs = pd.DataFrame({"group": group, "batch": np.arange(len(group)) % 2})
    return anndata.AnnData(values, obs.set_index(pd.Index([f"cell {i}" for i in obs.index])))


def run(data: anndata.AnnData, **options: Any) -> DEResult:
    asked = {"metric": "anderson", "reference": "ref", "backend": "cpu", "columns": ["log10_p"]}
    if not {"variant", "strata"} & set(options):
        asked["p_values"] = "conditional"
    found = differential_expression(
        data, "group", progress=False, is_log1p=False, **(asked | options)
    )
    assert isinstance(found, DEResult)
    return found


@pytest.mark.parametrize("log", [False, True], ids=["counts", "log"])
def test_p_values_are_those_of_each_pair(log: bool) -> None:
    data = make_screen(log=log)
    group = data.obs["group"].to_numpy()
    result, plain = run(data), run(data, p_values="asymptotic")
    np.testing.assert_array_equal(result["statistic"], plain["statistic"])
    n_judged = 0
    for t, target in enumerate(result.targets):
        n, m = SIZES[target], SIZES["ref"]
        for j in range(data.n_vars):
            a2 = 1.0 + result["statistic"][t, j] * _sigma(m, n)
            if not a2 >= LEAST:
                assert result["p_value"][t, j] == plain["p_value"][t, j]
                continue
            n_judged += 1
            values = [data.X[group == name, j] for name in ("ref", target)]
            (log_p,) = log_p_values(
                np.concatenate(values), np.array([0, m]), np.array([m, m + n]), np.array([m, n]),
                np.array([a2]), pooled=False, rest=False,
            )  # fmt: skip
            assert result["p_value"][t, j] == pytest.approx(np.exp(log_p), rel=1e-9)
            assert result["log10_p"][t, j] == pytest.approx(log_p / np.log(10.0), rel=1e-9)
    assert n_judged > 10
    assert result["p_value"].min() < 1e-8


@pytest.mark.parametrize(
    "options",
    [{}, {"reference": None, "comparison": "rest"}, {"reference": ["ref", "b"]},
     {"reference": None, "comparison": "pairs", "pairs": [("a", "b"), ("ref", "c"), ("b", "a")]}],
    ids=str,
)  # fmt: skip
def test_kernel_sets_agree(options: dict[str, Any]) -> None:
    """The numpy kernel set rounds A2 otherwise."""
    for log in (False, True):
        data = make_screen(log=log)
        found, expected = run(data, **options), run(data, backend="numpy", **options)
        np.testing.assert_allclose(found["log10_p"], expected["log10_p"], rtol=1e-8, atol=1e-12)


def test_rest_is_a_reference_of_the_other_cells() -> None:
    data = make_screen(log=False)
    found = run(data, reference=None, comparison="rest")
    other = data.copy()
    other.obs["group"] = np.where(data.obs["group"] == "c", "c", "others")
    expected = run(other, reference="others")
    row = found.targets.tolist().index("c")
    np.testing.assert_allclose(found["log10_p"][row], expected["log10_p"][0], rtol=1e-8)


@pytest.mark.parametrize("variant", ["right", "continuous"])
def test_other_variants_are_asymptotic(variant: str) -> None:
    data = make_screen(log=False)
    found = run(data, variant=variant)
    np.testing.assert_array_equal(
        found["p_value"], run(data, variant=variant, p_values="asymptotic")["p_value"]
    )
    assert found.provenance["p_values"] == "asymptotic"
    assert AndersonDarling(variant=variant).p_values == "asymptotic"
    with pytest.raises(OptionError, match="belongs to asymptotic p-values"):
        run(data, variant=variant, p_values="conditional")


def test_one_stratum_is_nearly_the_plain_test() -> None:
    """Worst seen: 0.015 decades (below 1e-40, where methods differ, up to 5)."""
    data = make_screen(log=False)
    data.obs["one"] = "s"
    found = run(data, strata="one")
    assert found.provenance["p_values"] == "conditional"
    plain = run(data)
    both = (found["p_value"] < 0.15) & (plain["p_value"] < 0.15) & (plain["p_value"] > 1e-12)
    assert both.sum() > 5
    error = np.abs(np.log10(found["p_value"][both] / plain["p_value"][both]))
    assert error.max() < 0.03


@pytest.mark.parametrize("metric", ["wilcoxon", "anderson", "ks", "t-test"])
def test_negative_values_are_refused(metric: str) -> None:
    data = make_screen(log=False, negative=True)
    with pytest.raises(DataError, match="values that are not negative"):
        run(data, metric=metric)
    assert run(data, metric=metric, p_values="asymptotic").provenance["p_values"] == "asymptotic"


def test_cells_without_a_value_are_left_out() -> None:
    data = make_screen(log=True)
    data.X[::7, 5] = np.nan
    found = run(data, nan_policy="omit", backend="numpy")
    kept = data[~np.isnan(data.X[:, 5]), [5]].copy()
    expected = run(kept)
    np.testing.assert_allclose(found["log10_p"][:, 5], expected["log10_p"][:, 0], rtol=1e-8)
