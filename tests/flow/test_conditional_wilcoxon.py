"""Conditional p-values of the rank-sum test in whole calls."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, special

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError


def screen(seed: int = 0) -> anndata.AnnData:
    """Counts of 20 genes in 400 cells; gene 0 is high in group a, gene 1 silent."""
    rng = np.random.default_rng(seed)
    values = rng.poisson(0.3, (400, 20)).astype(np.float64)
    values[:40, 0] += 9
    values[:, 1] = 0.0
    labels = ["a"] * 40 + ["b"] * 9 + ["control"] * 351
    return anndata.AnnData(values, pd.DataFrame({"g": labels}, [str(i) for i in range(400)]))


def compared(data: anndata.AnnData, **options: Any) -> Any:
    return differential_expression(
        data, "g", reference="control", progress=False, is_log1p=False,
        columns=["z", "log10_p"], **({"p_values": "conditional"} | options),
    )  # fmt: skip


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_z_and_logarithm_belong_to_the_p_value(alternative: str) -> None:
    found = compared(screen(), alternative=alternative)
    p, z = found["p_value"], found["z"]
    np.testing.assert_allclose(10 ** found["log10_p"], p, rtol=1e-9)
    usual = compared(screen(), alternative=alternative, p_values="asymptotic")
    small = usual["p_value"] < 0.2
    assert small.sum() > 3
    sign = np.sign(found["statistic"] - np.array([[40], [9]]) * 351 / 2)
    if alternative == "two-sided":
        expected = -sign * special.ndtri(p / 2)
    else:
        expected = special.ndtri(p) * (1 if alternative == "less" else -1)
    np.testing.assert_allclose(z[small], expected[small], rtol=1e-6)
    np.testing.assert_array_equal(p[~small], usual["p_value"][~small])
    np.testing.assert_array_equal(found["statistic"], usual["statistic"])
    assert (p != usual["p_value"]).any()
    assert (p[:, 1] == 1.0).all()


def test_a_missing_value_is_as_if_the_cell_were_not_there() -> None:
    data = screen()
    data.X[45, 3] = np.nan
    found = compared(data, nan_policy="omit")
    whole = compared(screen())
    kept = np.arange(20) != 3
    np.testing.assert_array_equal(found["p_value"][:, kept], whole["p_value"][:, kept])
    without = screen()[np.arange(400) != 45].copy()
    np.testing.assert_array_equal(found["p_value"][1, 3], compared(without)["p_value"][1, 3])


def test_pools_are_judged_like_pairs() -> None:
    """One against the rest: the rest is a reference made of two groups."""
    data = screen()
    rest = differential_expression(
        data, "g", comparison="rest", progress=False, is_log1p=False, p_values="conditional"
    )
    data.obs["g"] = np.where(data.obs["g"] == "a", "a", "control")
    np.testing.assert_array_equal(rest["p_value"][0], compared(data)["p_value"][0])


def stratified(data: anndata.AnnData, **options: Any) -> Any:
    data.obs["batch"] = np.where(np.arange(data.n_obs) % 3, "x", "y")
    return compared(data, strata="batch", **options)


@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_z_and_logarithm_belong_to_the_p_value_over_strata(alternative: str) -> None:
    found = stratified(screen(), alternative=alternative)
    assert found.provenance["p_values"] == "conditional"
    usual = stratified(screen(), alternative=alternative, p_values="asymptotic")
    p, z = found["p_value"], found["z"]
    np.testing.assert_allclose(10 ** found["log10_p"], p, rtol=1e-9)
    small = usual["p_value"] < 0.2
    assert small.sum() > 3
    if alternative == "two-sided":
        expected = np.sign(usual["z"]) * -special.ndtri(p / 2)
    else:
        expected = special.ndtri(p) * (1 if alternative == "less" else -1)
    np.testing.assert_allclose(z[small], expected[small], rtol=1e-6, atol=1e-9)
    np.testing.assert_array_equal(p[~small], usual["p_value"][~small])
    np.testing.assert_array_equal(found["statistic"], usual["statistic"])
    assert (p[small] != usual["p_value"][small]).all()
    assert (p[:, 1] == 1.0).all()


def test_strata_have_the_same_bits_however_they_are_computed() -> None:
    found = stratified(screen())
    for options in ({"backend": "numpy"}, {"memory": "64 MB"}, {"n_threads": 1}):
        other = stratified(screen(), **options)
        np.testing.assert_array_equal(found["log10_p"], other["log10_p"])
    data = screen()
    data.X = sparse.csc_matrix(data.X)
    np.testing.assert_array_equal(found["log10_p"], stratified(data)["log10_p"])


def test_negative_values_over_strata() -> None:
    data = screen()
    data.X[:, 5] -= 1.0
    with pytest.raises(DataError, match="needs values that are not negative"):
        stratified(data)
