"""Our results in the real packages that people use next: `make test-peers` installs them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest

import pdex_gpu
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Warnings inside the packages that are tried here are theirs."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.filterwarnings("ignore"))


@pytest.fixture(scope="session")
def screen() -> ad.AnnData:
    """A small screen with known effects, log-normalised."""
    found = simulate_screen(900, 120, 5, seed=0)
    adata = found.to_anndata()
    adata.X = found.log_normalised()
    adata.obs[GROUPBY] = adata.obs[GROUPBY].astype("category")
    return adata


@pytest.fixture(scope="session")
def prediction(screen: ad.AnnData) -> ad.AnnData:
    """The screen as a mediocre model would predict it: with noise, and effects too small."""
    rng = np.random.default_rng(1)
    adata = screen.copy()
    values = screen.X.toarray()
    noise = rng.normal(0.0, 0.3, values.shape)
    adata.X = np.maximum(0.7 * values + 0.3 * values.mean(axis=0) + noise, 0.0).astype(np.float32)
    return adata


@pytest.fixture(scope="session")
def result(screen: ad.AnnData) -> Any:
    return pdex_gpu.differential_expression(
        screen, GROUPBY, reference=REFERENCE, columns=["z", "log10_p", "log2_fold_change"],
        progress=False,
    )  # fmt: skip
