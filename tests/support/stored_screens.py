"""Small AnnData screens for the tests of both calls, and every way to store one."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

from pdex_gpu.results.schema import VALUES

GROUPBY = "perturbation"
REFERENCE = "ctl"
LABELS = ["ctl"] * 24 + ["A"] * 14 + ["B"] * 12 + ["C"] * 5  # C is small enough to be exact
GENES = [f"gene{j}" for j in range(9)]

MEMORY = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
}
BACKED = ("backed C", "backed csr", "backed csc")


def counts(seed: int = 0) -> np.ndarray:
    """Counts with ties, zeros, an all-zero gene and an effect; float32, one row a label."""
    values = np.random.default_rng(seed).poisson(1.5, (len(LABELS), len(GENES))).astype(np.float32)
    values[::3, 2] += 3
    values[:, 7] = 0
    return values


def logged(seed: int = 0) -> np.ndarray:
    """Log-normalised values: mostly distinct where they are not zero."""
    factor = np.random.default_rng(seed + 1).uniform(0.5, 2.0, (len(LABELS), 1))
    return np.log1p(counts(seed) * factor).astype(np.float32)


def screen(
    matrix: Any = None,
    labels: Sequence[object] = LABELS,
    genes: Sequence[str] | None = None,
    **more: Any,
) -> ad.AnnData:
    """An AnnData; the labels are shuffled over the cells, the same way each time."""
    if matrix is None:
        matrix = counts()
    order = np.random.default_rng(9).permutation(len(labels))
    column = pd.Series([labels[i] for i in order], dtype=object)
    if labels and all(isinstance(label, int) for label in labels):
        column = column.astype(int)
    names = [f"cell{i}" for i in range(len(labels))]
    obs = pd.DataFrame({GROUPBY: column.to_numpy(), "batch": 1}, index=names)
    var = pd.DataFrame(index=list(GENES[: matrix.shape[1]] if genes is None else genes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, on gene names that repeat
        return ad.AnnData(X=matrix, obs=obs, var=var, **more)


def stored(how: str, values: np.ndarray, folder: Path, **more: Any) -> ad.AnnData:
    """The screen of `values` in any of :data:`MEMORY` or :data:`BACKED`."""
    adata = screen(MEMORY[how.removeprefix("backed ")](values), **more)
    if not how.startswith("backed"):
        return adata
    path = folder / f"{how.replace(' ', '_')}.h5ad"
    adata.write_h5ad(path)
    return ad.read_h5ad(path, backed="r")


def assert_same_bits(one: Any, other: Any) -> None:
    """Two DEResults, or two frames, agree to the last bit."""
    for name in VALUES:
        a, b = (np.ascontiguousarray(x[name], dtype=np.float64) for x in (one, other))
        np.testing.assert_array_equal(a.view(np.int64), b.view(np.int64), err_msg=name)
