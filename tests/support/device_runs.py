"""A screen in plain arrays, and calls on it that need nothing but numpy and scipy besides."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy import sparse

from pdex_gpu import DEResult, differential_expression
from pdex_gpu.results.schema import VALUES
from pdex_gpu.sources.dataset import Dataset, Labels
from pdex_gpu.sources.memory.open import from_array

METRICS = ["wilcoxon", "t-test", "anderson", "ks"]
STORAGE = ["csr", "csc", "C", "F"]
N_CELLS, N_GENES, N_GROUPS = 900, 21, 7


def make_values(dtype: str) -> np.ndarray:
    rng = np.random.default_rng(3)
    counts = rng.poisson(rng.lognormal(-0.5, 1.5, N_GENES), (N_CELLS, N_GENES))
    counts[:, 4] = 0
    counts[:, 9] += rng.integers(0, 700, N_CELLS)
    if dtype == "int64":
        return counts * (2**50 + 1)  # more bits than float64 has
    depth = 1 + counts.sum(axis=1, keepdims=True)
    return (np.log1p(counts / depth * 50) if dtype != "counts" else counts).astype(
        "float32" if dtype == "counts" else dtype
    )


CODES = np.random.default_rng(4).choice(N_GROUPS, N_CELLS, p=[0.3, 0.2, 0.2, 0.2, 0.06, 0.02, 0.02])
BATCH = np.random.default_rng(5).integers(0, 3, N_CELLS)
GUIDES = np.random.default_rng(6).random((N_CELLS, 4)) < 0.2
TARGETS = [f"g{k}" for k in range(1, N_GROUPS - 1)]  # the last is left out


def stored(values: np.ndarray, storage: str) -> Any:
    if storage == "csr":
        return sparse.csr_matrix(values)
    if storage == "csc":
        return sparse.csc_matrix(values)
    return np.asarray(values, order=storage)  # type: ignore[call-overload]


def dataset(matrix: Any) -> Dataset:
    return Dataset(
        source=from_array(matrix, what="X"),
        labels=Labels(CODES.astype(np.int64), np.array([f"g{k}" for k in range(N_GROUPS)], object)),
        genes=np.array([f"gene{j}" for j in range(N_GENES)], object),
        cell_name=lambda row: f"cell{row}",
        description="a test",
        column=lambda name: Labels(BATCH, np.array(["u", "v", "w"], object)),
        matrix=lambda name: (GUIDES, None),
    )


def run(matrix: Any, metric: str, **options: Any) -> DEResult:
    given = {"backend": "cuda", "progress": False} | options
    return differential_expression(
        dataset(matrix), "group", reference="g0", groups=TARGETS, metric=metric, **given
    )


def same_bits(found: DEResult, expected: DEResult) -> None:
    for name in VALUES:
        assert found[name].tobytes() == expected[name].tobytes(), name
