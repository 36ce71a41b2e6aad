"""Conditional p-values of the t-test in whole calls."""

from __future__ import annotations

from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pdex_gpu import differential_expression


def screen(values: Any, group: np.ndarray) -> anndata.AnnData:
    names = [f"c{i}" for i in range(len(group))]
    obs = pd.DataFrame({"group": group, "batch": np.arange(len(group)) % 3}, index=names)
    return anndata.AnnData(values, obs)


def run(data: anndata.AnnData, **options: Any) -> Any:
    asked = {"metric": "t-test", "backend": "cpu", "is_log1p": False, "progress": False}
    return differential_expression(data, "group", **(asked | options))


def sparse_counts() -> anndata.AnnData:
    rng = np.random.default_rng(1)
    group = np.repeat(["ref", "a", "b", "c"], [300, 5, 20, 60])
    means = rng.gamma(0.5, 1.0, 40)
    return screen(rng.poisson(means, (len(group), 40)).astype(np.float32), group)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize(
    "options", [{}, {"strata": "batch"}, {"comparison": "rest"}, {"alternative": "greater"}]
)
def test_the_default_is_conditional(options: dict[str, Any], backend: str) -> None:
    data, asked = sparse_counts(), {"backend": backend, "columns": ["log10_p"]} | options
    if "comparison" not in options:
        asked["reference"] = "ref"
    found, student = run(data, **asked), run(data, p_values="asymptotic", **asked)
    assert found.provenance["p_values"] == "conditional"
    np.testing.assert_array_equal(found["statistic"], student["statistic"])
    np.testing.assert_allclose(np.log10(found["p_value"]), found["log10_p"], atol=1e-12)
    # Student's p-values of the smallest group are the ones that are too small.
    assert (found["p_value"] < 1e-3).sum() <= (student["p_value"] < 1e-3).sum()
    assert not np.allclose(found["p_value"], student["p_value"])
    if backend == "cpu":
        same = run(data, **(asked | {"backend": "numpy"}))
        np.testing.assert_allclose(found["log10_p"], same["log10_p"], rtol=1e-9, atol=1e-12)


def test_only_pooled_variance_has_them() -> None:
    found = run(sparse_counts(), reference="ref", variance="welch")
    assert found.provenance["p_values"] == "asymptotic"


def test_nearly_constant_values_have_students() -> None:
    data = sparse_counts()
    data.X = data.X.astype(np.float64) + 1e9  # exact sums, without higher moments
    found, student = (
        run(data, reference="ref", **more) for more in ({}, {"p_values": "asymptotic"})
    )
    np.testing.assert_array_equal(found["p_value"], student["p_value"])


@pytest.mark.thorough
@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("log", [False, True])
@pytest.mark.parametrize(
    ("name", "control"),
    [("papalexi_thp1_counts", "non-targeting"), ("heart_celltypes", "aCM")],
)
def test_null_rates_of_real_cells(
    real_data: Any, name: str, control: str, log: bool, n: int
) -> None:
    """Controls, split at random into groups of n cells, each against all others."""
    adata = anndata.read_h5ad(real_data(f"{name}.h5ad"))
    adata = adata[(adata.obs["perturbation"] == control).to_numpy()]
    counts = sparse.csc_matrix(adata.X)
    counts = counts[:, np.diff(counts.indptr) >= 3][:, :3000].tocsr()
    if log:
        depth = np.asarray(counts.sum(axis=1)).ravel()
        counts = sparse.diags(np.median(depth) / np.maximum(depth, 1.0)) @ counts
        counts.data = np.log1p(counts.data)
    rng = np.random.default_rng(7)
    n_groups = counts.shape[0] // n
    small = np.zeros(3)
    n_tests = 0
    while n_tests < 400_000:
        group = np.full(counts.shape[0], "g0", object)
        group[rng.permutation(counts.shape[0])[: n_groups * n]] = np.repeat(
            [f"g{i}" for i in range(n_groups)], n
        )
        p = run(screen(counts, group), comparison="rest")["p_value"]
        small += [(p <= level).sum() for level in (0.05, 1e-2, 1e-3)]
        n_tests += p.size
    rates = small / n_tests / (0.05, 1e-2, 1e-3)
    assert (rates < 1.3).all(), rates  # worst seen: 1.15
