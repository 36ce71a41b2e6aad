"""Kolmogorov-Smirnov p-values of groups of real control cells, which differ by chance alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from pdex_gpu import differential_expression

N_REFERENCE = 1000
LEVELS = [0.05, 1e-2, 1e-3, 1e-4]


def controls(path: Path, control: str) -> sp.csr_matrix:
    data = anndata.read_h5ad(path)
    counts = sp.csr_matrix(data.X[(data.obs["perturbation"] == control).to_numpy()], dtype=float)
    return counts[:, np.flatnonzero(counts.sum(axis=0))]


def logged(counts: sp.csr_matrix) -> sp.csr_matrix:
    total = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
    values = np.log1p(counts.data / np.repeat(total, np.diff(counts.indptr)) * 1e4)
    return sp.csr_matrix((values, counts.indices, counts.indptr), counts.shape)


def null_p_values(values: sp.csr_matrix, size: int, repeats: int, **options: Any) -> np.ndarray:
    """P-values of cells divided at random, where either side expresses the gene."""
    rng, found = np.random.default_rng(size), []
    n_cells = values.shape[0]
    for _ in range(repeats):
        labels = np.full(n_cells, "control", object)
        order = rng.permutation(n_cells)
        for k in range((n_cells - N_REFERENCE) // size):
            labels[order[k * size : (k + 1) * size]] = f"group {k}"
        obs = pd.DataFrame({"group": labels}, index=[str(i) for i in range(n_cells)])
        result = differential_expression(
            anndata.AnnData(values, obs=obs), "group", reference="control", metric="ks",
            backend="cpu", progress=False, is_log1p=False,
            columns=["target_n_expressed", "reference_n_expressed"], **options,
        )  # fmt: skip
        expressed = result["target_n_expressed"] + result["reference_n_expressed"] > 0
        found.append(result["p_value"][expressed])
    return np.concatenate(found)


@pytest.mark.thorough
@pytest.mark.parametrize("size", [5, 20, 100])
@pytest.mark.parametrize("kind", ["raw", "log"])
@pytest.mark.parametrize(
    ("name", "control", "repeats"),
    [("papalexi_thp1_counts.h5ad", "non-targeting", 12), ("heart_celltypes.h5ad", "aCM", 2)],
)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")
def test_null_rates_hold(
    real_data: Callable[[str], Path], name: str, control: str, repeats: int, kind: str, size: int
) -> None:
    counts = controls(real_data(name), control)
    p_values = null_p_values(counts if kind == "raw" else logged(counts), size, repeats)
    for level in LEVELS:
        expected = level * len(p_values)
        # Tests share genes and cells, so chance adds more than to independent ones.
        assert (p_values <= level).sum() <= 1.3 * expected + 4.0 * np.sqrt(expected), level


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")
def test_ties_do_not_hide_differences() -> None:
    """Asymptotic p-values of counts are too large, which conditional ones are not."""
    rng = np.random.default_rng(3)
    counts = sp.csr_matrix(rng.poisson(0.3, (1500, 2000)).astype(np.float32))
    conditional = null_p_values(counts, 100, 1)
    asymptotic = null_p_values(counts, 100, 1, p_values="asymptotic")
    assert conditional.shape == asymptotic.shape == (10_000,)
    assert (conditional <= asymptotic * (1.0 + 1e-6)).all()
    assert 0.035 < (conditional <= 0.05).mean() < 0.055
    assert (asymptotic <= 0.05).mean() < 0.01
