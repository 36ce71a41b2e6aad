"""Real screens: pdex 0.1.28's own tables, scipy on a sample of pairs, and known biology.

The tables hold what pdex answers on float64 input (it loses p-values on float32); this package
must give them from either. Worst relative errors seen: none in the columns of Wilcoxon and in
means and changes; t 3.6e-15, its p 3.3e-13; normalised A2 1.1e-10, its p 8e-15.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from emulated.build import needs_compiler
from numpy._core._multiarray_umath import __cpu_features__
from scipy import sparse, stats
from screens import backend_of

from pdex_gpu import differential_expression
from pdex_gpu.results.schema import VALUES

pytestmark = pytest.mark.real_data

REFERENCE = {
    "papalexi_thp1_counts.h5ad": "non-targeting",
    "vcc_h1_dense.h5ad": "non-targeting",
    "heart_celltypes.h5ad": "aCM",
}
METRICS = ["wilcoxon", "t-test", "anderson"]

#: The tables of logarithms were made where numpy takes them with AVX-512, which rounds otherwise.
SAME_LOGARITHMS = bool(__cpu_features__.get("AVX512_SKX"))


@pytest.fixture(scope="module")
def screens(real_data: Callable[[str], Path]) -> Callable[[str], anndata.AnnData]:
    """Each file as an AnnData, read once."""
    read: dict[str, anndata.AnnData] = {}

    def get(name: str) -> anndata.AnnData:
        if name not in read:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of anndata, about how the file was written
                read[name] = anndata.read_h5ad(real_data(name))
        return read[name]

    return get


def log1p(counts: sparse.csr_matrix) -> sparse.csr_matrix:
    """Each cell scaled to 10,000 counts, then log1p: in float32, as the tables were made."""
    total = np.asarray(counts.sum(axis=1)).ravel()
    scale = np.float32(1e4) / total.astype(np.float32)
    data = np.log1p(counts.data * np.repeat(scale, np.diff(counts.indptr)))
    assert data.dtype == np.float32
    return sparse.csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape)


def compare(adata: anndata.AnnData, name: str, x: Any, metric: str, **options: Any):
    data = anndata.AnnData(x, obs=adata.obs, var=pd.DataFrame(index=adata.var_names))
    # As scipy, and so pdex, has p-values.
    options["p_values"] = "interpolated" if metric == "anderson" else "asymptotic"
    return differential_expression(
        data, "perturbation", reference=REFERENCE[name], metric=metric, n_threads=2,
        progress=False, **({"backend": "cpu"} | options),
    )  # fmt: skip


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("kernels", "dtype"),
    [
        ("cpu", "float32"),
        ("cpu", "float64"),
        pytest.param("emulated", "float32", marks=needs_compiler),
    ],
)
@pytest.mark.parametrize("values", ["counts", "log1p"])
@pytest.mark.parametrize("metric", METRICS)
def test_pdex(
    screens: Callable[[str], anndata.AnnData],
    golden: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    metric: str,
    values: str,
    kernels: str,
    dtype: str,
) -> None:
    if values == "log1p" and not SAME_LOGARITHMS:
        pytest.skip("numpy's float32 log1p rounds otherwise on this processor (no AVX-512)")
    name = "papalexi_thp1_counts.h5ad"
    table = pd.read_parquet(golden(f"papalexi_{values}_{metric}.parquet"))
    adata = screens(name)
    x = (adata.X if values == "counts" else log1p(adata.X)).astype(dtype)
    backend = backend_of(kernels, monkeypatch)
    result = compare(adata, name, x, metric, is_log1p=values == "log1p", backend=backend)
    assert result.provenance["backend"] == backend
    frame = result.to_pandas()
    for label in ("target", "reference", "feature"):
        frame[label] = frame[label].astype(str)
    frame = frame.sort_values(["target", "feature"], ignore_index=True)
    assert list(frame) == [*table, "target_n_cells", "reference_n_cells", "log2_fold_change"]
    assert len(frame) == len(table) == 25 * 299
    for label in ("target", "reference", "feature"):
        assert (frame[label] == table[label]).all()
    for column in VALUES:
        found, expected = frame[column].to_numpy(), table[column].to_numpy()
        if metric == "wilcoxon" and column == "statistic":
            np.testing.assert_array_equal(found, expected, err_msg=column)
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0, err_msg=column)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("values", ["counts", "log1p"])
@pytest.mark.parametrize("name", ["vcc_h1_dense.h5ad", "heart_celltypes.h5ad"])
def test_scipy_on_a_sample_of_pairs(
    screens: Callable[[str], anndata.AnnData], name: str, values: str
) -> None:
    adata = screens(name)
    x = adata.X if values == "counts" else log1p(adata.X)
    results = {metric: compare(adata, name, x, metric) for metric in METRICS}
    columns = x.tocsc().astype(np.float64)
    labels = adata.obs["perturbation"].astype(str).to_numpy()
    rng = np.random.default_rng(1)
    expressed = np.flatnonzero(np.diff(columns.indptr) > 0.02 * x.shape[0])
    empty = np.flatnonzero(np.diff(columns.indptr) == 0)[:2]
    targets = results["wilcoxon"].targets
    n_judged = 0
    for j in np.concatenate([rng.choice(expressed, 60, replace=False), empty]):
        column = columns[:, [j]].toarray().ravel()
        control = column[labels == REFERENCE[name]]
        for t in rng.choice(len(targets), 2, replace=False):
            target = column[labels == targets[t]]
            found = {
                metric: (r["statistic"][t, j], r["p_value"][t, j]) for metric, r in results.items()
            }
            if np.ptp(np.concatenate([target, control])) == 0:
                assert found["wilcoxon"][1] == found["t-test"][1] == found["anderson"][1] == 1.0
                assert np.isnan(found["t-test"][0])
                assert np.isnan(found["anderson"][0])
                continue
            n_judged += 1
            u = stats.mannwhitneyu(target, control)
            assert found["wilcoxon"][0] == u.statistic
            np.testing.assert_allclose(found["wilcoxon"][1], u.pvalue, rtol=1e-12, atol=0)
            student = stats.ttest_ind(target, control)
            # Worst seen: t 4.4e-16, its p 3.3e-14.
            np.testing.assert_allclose(found["t-test"][0], student.statistic, rtol=1e-12)
            np.testing.assert_allclose(found["t-test"][1], student.pvalue, rtol=1e-9, atol=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # p-values at the ends of scipy's table
                ad = stats.anderson_ksamp([target, control])
            # The statistic crosses zero. Worst seen: relative 1e-13, absolute 2.8e-14.
            np.testing.assert_allclose(found["anderson"][0], ad.statistic, rtol=1e-10, atol=1e-12)
            np.testing.assert_allclose(found["anderson"][1], ad.pvalue, rtol=1e-9)
    assert n_judged >= 110


def test_a_file_gives_what_memory_gives(
    screens: Callable[[str], anndata.AnnData], real_data: Callable[[str], Path]
) -> None:
    name = "heart_celltypes.h5ad"
    adata = screens(name)
    in_memory = compare(adata, name, adata.X, "wilcoxon")
    from_file = differential_expression(
        real_data(name), "perturbation", reference="aCM", memory="20MB", progress=False,
        p_values="asymptotic",
    )  # fmt: skip
    for column in VALUES:
        assert from_file[column].tobytes() == in_memory[column].tobytes(), column


# --- known biology ---------------------------------------------------------------------------


INTERFERON = ["PSMB9", "STAT1", "JAK2", "UBE2L6", "TNFRSF14"]  # induced by IFN-gamma


@pytest.mark.parametrize("target", ["IFNGR1", "IFNGR2", "JAK2", "STAT1"])
def test_the_interferon_response_needs_its_pathway(
    screens: Callable[[str], anndata.AnnData], target: str
) -> None:
    """Papalexi et al. 2021: without receptor, kinase or STAT1, IFN-gamma's genes stay down."""
    name = "papalexi_thp1_counts.h5ad"
    adata = screens(name)
    result = compare(adata, name, log1p(adata.X), "wilcoxon")
    assert result.provenance["is_log1p"] is True
    t = int(np.flatnonzero(result.targets == target)[0])
    for gene in INTERFERON:
        j = int(np.flatnonzero(result.features == gene)[0])
        assert result["fold_change"][t, j] < 0.4, gene
        assert result["fdr"][t, j] < 1e-30, gene
    # Nothing else is hit so clearly.
    top = result.top(target, 6)["feature"]
    assert set(INTERFERON) <= set(top)


def test_a_knock_down_takes_its_own_gene(screens: Callable[[str], anndata.AnnData]) -> None:
    name = "vcc_h1_dense.h5ad"
    adata = screens(name)
    result = compare(adata, name, adata.X, "wilcoxon")
    assert result.provenance["is_log1p"] is False
    row = result.top("TMSB4X", 1).iloc[0]
    assert row["feature"] == "TMSB4X"
    assert row["reference_mean"] == pytest.approx(126.5, abs=0.05)
    assert row["target_mean"] == pytest.approx(4.0, abs=0.05)
    assert row["p_value"] < 1e-30
    assert row["fdr"] < 1e-25
