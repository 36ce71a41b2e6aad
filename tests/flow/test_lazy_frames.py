"""AnnData whose obs and var stay in their file, and MuData, of which a modality has to be named."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from stored_screens import assert_same_bits

from pdex_gpu import (
    calibrate,
    differential_expression,
    estimate,
    parallel_differential_expression,
    pdex,
    pseudobulk,
    rank_genes_groups,
)
from pdex_gpu.cli import main
from pdex_gpu.errors import LayerError, UnsupportedDataError

N_CELLS, N_GENES = 60, 4


def screen(seed: int = 0) -> ad.AnnData:
    rng = np.random.default_rng(seed)
    index = [f"cell{i}" for i in range(N_CELLS)]
    obs = pd.DataFrame(
        {
            "g": pd.Categorical(["A", "B", "ctrl"] * 20),
            "batch": ["x", "y"] * 30,
            "few": pd.array([1, None] * 30, "Int64"),
            "gene": pd.Categorical(["gene0", "gene1", "none"] * 20),
        },
        index=index,
    )
    values = sparse.csr_matrix(rng.poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32))
    var = pd.DataFrame({"kept": [True, True, False, True]}, index=[f"gene{j}" for j in range(4)])
    found = ad.AnnData(values, obs=obs, var=var, layers={"log": values.log1p()})
    guides = rng.random((N_CELLS, 2)) < 0.4
    found.obsm["frame"] = pd.DataFrame(guides, columns=["a", "b"], index=index)
    found.obsm["array"] = guides
    found.obsm["sparse"] = sparse.csr_matrix(guides)
    return found


class LazyFrame:
    """What `anndata.experimental.read_lazy` gives for obs: all that is used of it."""

    def __init__(self, frame: pd.DataFrame, loaded: list[str]) -> None:
        self._frame, self.loaded = frame, loaded
        self.columns, self.index = frame.columns, frame.index
        self.true_index = frame.index

    def __getitem__(self, names: list[str]) -> LazyFrame:
        assert isinstance(names, list)
        return LazyFrame(self._frame[names], self.loaded)

    def to_memory(self) -> pd.DataFrame:
        self.loaded += list(self._frame.columns)
        return self._frame.copy()


def stand_in() -> tuple[ad.AnnData, list[str]]:
    adata, loaded = screen(), []
    adata._obs = LazyFrame(adata.obs, loaded)
    adata._var = LazyFrame(adata.var, loaded)
    return adata, loaded


def read_lazily(how: str, folder: Path) -> ad.AnnData:
    pytest.importorskip("xarray")
    pytest.importorskip("dask.array")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if "zarr" in how:
            pytest.importorskip("zarr")
            screen().write_zarr(folder / "screen.zarr")
        else:
            screen().write_h5ad(folder / "screen.h5ad")
        name = "screen.zarr" if "zarr" in how else "screen.h5ad"
        return ad.experimental.read_lazy(folder / name, load_annotation_index="no names" not in how)


LAZY = ["stand-in", "h5ad", "h5ad, no names", "zarr", "zarr, no names"]


@pytest.fixture(params=LAZY)
def lazy(request: pytest.FixtureRequest, tmp_path: Path) -> ad.AnnData:
    how = request.param
    return stand_in()[0] if how == "stand-in" else read_lazily(how, tmp_path)


def run(data: Any, groupby: str | None = "g", **options: Any) -> Any:
    given = {"reference": "ctrl", "progress": False, **options}
    return differential_expression(data, groupby, **given)


@pytest.mark.sampled(every=5)
@pytest.mark.filterwarnings("ignore")
def test_every_call(lazy):
    plain = screen()
    for options in (
        {},
        {"layer": "log"},
        {"strata": "batch"},
        {"on_target": "gene"},
        {"groupby": "few", "comparison": "rest", "reference": None},
        {"groupby": None, "guides": "frame", "comparison": "rest"},
        {"groupby": None, "guides": "array", "comparison": "rest"},
        {"groupby": None, "guides": "sparse", "comparison": "rest"},
    ):
        if options.get("comparison") == "rest" and options["groupby"] == "few":
            continue  # one level
        found, want = run(lazy, **options), run(plain, **options)
        assert found.features.tolist() == want.features.tolist()
        assert_same_bits(found, want)
    bulk, truth = pseudobulk(lazy, ["g", "few"]), pseudobulk(plain, ["g", "few"])
    np.testing.assert_array_equal(bulk.X, truth.X)
    assert bulk.obs_names.tolist() == truth.obs_names.tolist()
    pd.testing.assert_frame_equal(bulk.var, truth.var, check_names=False)
    estimate(lazy, "g", reference="ctrl")
    options = {"reference": "ctrl", "progress": False, "seed": 3}
    false = [calibrate(data, "g", **options).of().n_false_positives for data in (lazy, plain)]
    np.testing.assert_array_equal(*false)
    frames = [
        parallel_differential_expression(data, groupby_key="g", reference="ctrl")
        for data in (lazy, plain)
    ]
    pd.testing.assert_frame_equal(*frames)
    frames = [
        pdex(data, "g", reference="ctrl", mode="ref", is_log1p=False, as_pandas=True)
        for data in (lazy, plain)
    ]
    pd.testing.assert_frame_equal(*frames)


@pytest.mark.sampled(every=3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", LAZY[1:])
def test_rank_genes_groups(how, tmp_path):
    adata, plain = read_lazily(how, tmp_path), screen()
    for data in (adata, plain):
        rank_genes_groups(data, "g", reference="ctrl", method="wilcoxon", pts=True, mask_var="kept")
    found, want = (data.uns["rank_genes_groups"] for data in (adata, plain))
    assert found["names"].tolist() == want["names"].tolist()
    assert found["pvals"].tolist() == want["pvals"].tolist()
    pd.testing.assert_frame_equal(found["pts"], want["pts"], check_names=False)


@pytest.mark.sampled(every=3)
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("how", LAZY[1:])
def test_what_is_chosen_and_normalised(how, tmp_path):
    adata, plain = read_lazily(how, tmp_path), screen()
    for options in (
        {"normalize": 1e4},
        {"normalize": "median", "metric": "t-test", "gene_chunk_size": 2, "memory": 1},
        {"cells": "batch=x", "genes": "kept", "normalize": 1e4},
        {"cells": "batch=x", "genes": ["gene3", "gene0"]},
        {"cells": "batch=y", "groupby": None, "guides": "frame", "comparison": "rest"},
        {"cells": "batch=y", "groupby": None, "guides": "sparse", "comparison": "rest"},
    ):
        found, want = run(adata, **options), run(plain, **options)
        assert found.features.tolist() == want.features.tolist()
        assert_same_bits(found, want)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("how", LAZY[1:])
def test_views(how, tmp_path):
    adata = read_lazily(how, tmp_path)
    cells, genes = np.arange(50)[::-1], [3, 0, 1]
    assert_same_bits(run(adata[cells]), run(screen()[cells].copy()))
    assert_same_bits(run(adata[:, genes]), run(screen()[:, genes].copy()))


def test_columns_that_are_not_asked_for_stay_where_they_are():
    adata, loaded = stand_in()
    run(adata)
    assert loaded == ["g"]
    run(adata, strata="batch")
    assert set(loaded) == {"g", "batch"}


def test_a_cell_is_called_by_its_name():
    adata, _ = stand_in()
    adata.obs.index = pd.RangeIndex(N_CELLS).astype(str)  # the names are in the file
    adata.X[7, 2] = np.nan
    with pytest.raises(ValueError, match=r"X is nan in cell 'cell7' \(row 7\), gene 'gene2'"):
        run(adata)


# --- MuData -----------------------------------------------------------------------------------


class MuData:
    """As much of mudata's class as tells what it is."""

    def __init__(self, **modalities: ad.AnnData) -> None:
        self.mod = modalities
        self.obs, self.uns = pd.DataFrame(), {}


def multimodal(folder: Path) -> Path:
    """An h5mu file as mudata writes it."""
    path = folder / "screen.h5mu"
    with h5py.File(path, "w") as file:
        file.attrs.update({"encoding-type": "MuData", "encoding-version": "0.1.0"})
        file.attrs["axis"] = 0
        group = file.create_group("mod")
        group.attrs["mod-order"] = ["rna", "protein"]
        for seed, name in enumerate(["rna", "protein"]):
            ad.io.write_elem(group, name, screen(seed))
        obs = pd.DataFrame({"rna:g": screen().obs["g"]})
        ad.io.write_elem(file, "obs", obs)
    return path


CALLS: dict[str, Callable[[Any], Any]] = {
    "differential_expression": run,
    "guides": lambda data: run(data, None, guides="frame", comparison="rest"),
    "calibrate": lambda data: calibrate(data, "g", reference="ctrl", progress=False),
    "estimate": lambda data: estimate(data, "g", reference="ctrl"),
    "pseudobulk": lambda data: pseudobulk(data, "g"),
    "pdex": lambda data: pdex(data, "g", reference="ctrl", mode="ref", as_pandas=True),
    "parallel_differential_expression": lambda data: parallel_differential_expression(
        data, groupby_key="g", reference="ctrl"
    ),
    "rank_genes_groups": lambda data: rank_genes_groups(data, "g"),
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("call", CALLS)
def test_a_mudata_is_told_with_its_modalities(call, tmp_path):
    says = r"a MuData object with the modalities 'rna', 'protein'.*data\.mod\['rna'\]"
    with pytest.raises(UnsupportedDataError, match=says):
        CALLS[call](MuData(rna=screen(), protein=screen(1)))
    if call == "rank_genes_groups":  # of objects alone
        return
    path = multimodal(tmp_path)
    says = rf"{path} holds a MuData object with the modalities .*: '{path}/mod/protein'"
    with pytest.raises(UnsupportedDataError, match=says):
        CALLS[call](str(path))


def test_a_modality_of_a_file(tmp_path):
    path = multimodal(tmp_path)
    for seed, name in enumerate(["rna", "protein"]):
        want = run(screen(seed))
        for inner in (name, f"mod/{name}"):
            assert_same_bits(run(os.path.join(path, inner)), want)
            assert_same_bits(run(path / inner, gene_chunk_size=2), want)
    bulk = pseudobulk(path / "rna", "g")
    np.testing.assert_array_equal(bulk.X, pseudobulk(screen(), "g").X)
    out = tmp_path / "de.parquet"
    given = ["--groupby", "g", "--reference", "ctrl"]
    assert main(["run", f"{path}/mod/rna", "-o", str(out), *given]) == 0
    assert out.exists()
    with h5py.File(path, "r+"):  # nothing holds the file
        pass


def test_a_modality_that_is_not_there(tmp_path):
    path = multimodal(tmp_path)
    says = r"Unknown modality of .*screen\.h5mu: 'rma'. Did you mean 'rna'\?"
    with pytest.raises(LayerError, match=says):
        run(path / "rma")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        run(tmp_path / "other.h5mu" / "rna")
    with pytest.raises(FileNotFoundError, match="There is no file"):
        run(tmp_path / "none" / "rna")
