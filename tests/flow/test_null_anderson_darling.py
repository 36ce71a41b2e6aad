"""Among control cells of real screens, conditional Anderson-Darling p-values hold their level."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from pdex_gpu import differential_expression

pytestmark = pytest.mark.real_data

LEVELS = np.array([0.05, 1e-2, 1e-3, 1e-4])
CONTROLS = {
    "papalexi_thp1_counts.h5ad": ("non-targeting", 2000),
    "heart_celltypes.h5ad": ("aCM", 1000),
}
#: Expression (mean count): below 0.1, to 1, above.
STRATA = (0.1, 1.0)


def controls(path: Path, log: bool) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Control cells, genes that some of them express, and the mean count of each gene."""
    name, _ = CONTROLS[path.name]
    data = anndata.read_h5ad(path)
    counts = sparse.csr_matrix(data.X[(data.obs.perturbation == name).to_numpy()], dtype=np.float64)
    mean = np.asarray(counts.mean(axis=0)).ravel()
    counts = counts[:, np.flatnonzero(mean)].tocsr()
    if log:
        totals = np.maximum(np.asarray(counts.sum(axis=1)).ravel(), 1.0)
        counts.data = np.log1p(counts.data / np.repeat(totals, np.diff(counts.indptr)) * 1e4)
    return counts, mean[mean > 0.0]


def null_rates(path: Path, n: int, n_splits: int, *, log: bool) -> dict[int, np.ndarray]:
    """Number of tests and shares of p-values up to each level, by expression."""
    matrix, mean = controls(path, log)
    n_cells, n_reference = matrix.shape[0], CONTROLS[path.name][1]
    stratum = np.digitize(mean, STRATA)
    rng = np.random.default_rng(n)
    found = {s: np.zeros(1 + len(LEVELS)) for s in range(len(STRATA) + 1)}
    names = pd.Index([str(i) for i in range(n_cells)])
    for _ in range(n_splits):
        groups = np.full(n_cells, "control", object)
        order = rng.permutation(n_cells)
        for i in range((n_cells - n_reference) // n or 1):
            groups[order[i * n : (i + 1) * n]] = f"mock {i}"
        data = anndata.AnnData(matrix, pd.DataFrame({"group": groups}, names))
        options: dict[str, Any] = {"backend": "cpu", "progress": False, "is_log1p": log}
        result = differential_expression(
            data, "group", reference="control", metric="anderson", **options,
            p_values="conditional",
            columns=["target_n_expressed", "reference_n_expressed"],
        )  # fmt: skip
        there = result["target_n_expressed"] + result["reference_n_expressed"] > 0
        for s, counts in found.items():
            p_value = result["p_value"][:, stratum == s][there[:, stratum == s]]
            counts[0] += p_value.size
            counts[1:] += (p_value[:, None] <= LEVELS * (1 + 1e-9)).sum(axis=0)
    return found


def check(found: dict[int, np.ndarray]) -> None:
    """No rate is above 1.3 times its level by more than three standard errors."""
    for s, (n_tests, *hits) in found.items():
        for level, n_hits in zip(LEVELS, hits, strict=True):
            expected = 1.3 * level * n_tests
            assert n_hits <= expected + 3.0 * np.sqrt(expected) + 1.0, (s, level, n_tests, n_hits)


@pytest.mark.parametrize("log", [False, True], ids=["counts", "log"])
@pytest.mark.parametrize("n", [5, 20])
def test_null_rates(real_data: Callable[[str], Path], n: int, log: bool) -> None:
    check(null_rates(real_data("papalexi_thp1_counts.h5ad"), n, 1, log=log))


@pytest.mark.thorough
@pytest.mark.parametrize("log", [False, True], ids=["counts", "log"])
@pytest.mark.parametrize(("n", "n_splits"), [(5, 6), (20, 6), (100, 12), (500, 12)])
@pytest.mark.parametrize("name", CONTROLS)
def test_null_rates_of_many_splits(
    real_data: Callable[[str], Path], name: str, n: int, n_splits: int, log: bool
) -> None:
    n_splits = n_splits if name.startswith("papalexi") else max(1, n_splits // 6)
    check(null_rates(real_data(name), n, n_splits, log=log))
