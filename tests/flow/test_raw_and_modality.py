"""raw= and modality=: the matrix of adata.raw, and one of a MuData, from objects and from files."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from dask_clusters import cluster
from scipy import sparse
from stored_screens import assert_same_bits

from pdex_gpu import calibrate, differential_expression, estimate, pseudobulk
from pdex_gpu.cli import main
from pdex_gpu.errors import (
    DataError,
    LayerError,
    MissingLabelWarning,
    OptionError,
    ScaleWarning,
)

N_CELLS = 60
GENES = [f"gene{j}" for j in range(6)]


def whole(seed: int = 0) -> ad.AnnData:
    """Counts of all genes."""
    rng = np.random.default_rng(seed)
    obs = pd.DataFrame(
        {"g": pd.Categorical(["A", "B", "ctrl"] * 20)}, index=[f"cell{i}" for i in range(N_CELLS)]
    )
    counts = sparse.csr_matrix(rng.poisson(1.0, (N_CELLS, 6)).astype(np.float32))
    return ad.AnnData(counts, obs=obs, var=pd.DataFrame(index=GENES))


def with_raw(kind: str = "csr") -> ad.AnnData:
    """Logarithms of four genes, and counts of all six in raw, as scanpy's tutorials leave them."""
    found = whole()
    if kind == "csc":
        found.X = found.X.tocsc()
    if kind == "dense":
        found.X = found.X.toarray()
    found.raw = found
    found = found[:, 1:5].copy()
    found.X = np.log1p(found.X)
    found.layers["counts"] = np.expm1(found.X)
    return found


def run(data: Any, groupby: str | None = "g", **options: Any) -> Any:
    given = {"reference": "ctrl", "progress": False, "backend": "cpu"} | options
    return differential_expression(data, groupby, **given)


def quietly(write: Any, *args: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, on the format
        write(*args)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize(
    "kind", ["csr", *(pytest.param(kind, marks=pytest.mark.thorough) for kind in ("csc", "dense"))]
)
def test_raw_has_its_own_genes(kind, tmp_path):
    adata, want = with_raw(kind), run(whole())
    found = run(adata, raw=True)
    assert found.features.tolist() == GENES
    assert_same_bits(found, want)
    assert "raw.X" in found.provenance["data"]
    adata.write_h5ad(tmp_path / "x.h5ad")
    quietly(adata.write_zarr, tmp_path / "x.zarr")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for data in (tmp_path / "x.h5ad", str(tmp_path / "x.zarr"), backed):
        for more in ({}, {"gene_chunk_size": 2}):
            assert_same_bits(run(data, raw=True, **more), want)
    with open(tmp_path / "x.h5ad", "rb") as file:
        assert_same_bits(run(file, raw=True), want)
    some = np.arange(N_CELLS)[::-1][5:]
    for data in (adata[some], adata[some, :2], backed[some], backed[some, 1:3]):
        assert_same_bits(run(data, raw=True), run(whole()[some].copy()))
    backed.file.close()


def test_raw_as_older_versions_of_anndata_wrote_it(tmp_path):
    path = tmp_path / "x.h5ad"
    with_raw().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        file.move("raw/X", "raw.X")
        names = np.array([(name.encode(), 1.0) for name in GENES], [("index", "S9"), ("n", "f8")])
        file["raw.var"] = names
        del file["raw"]
    found = run(path, raw=True)
    assert found.features.tolist() == GENES
    assert_same_bits(found, run(whole()))


def test_raw_that_is_read_lazily(tmp_path):
    with_raw().write_h5ad(tmp_path / "x.h5ad")
    pytest.importorskip("xarray")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = ad.experimental.read_lazy(tmp_path / "x.h5ad")
    assert_same_bits(run(data, raw=True), run(whole()))


def test_there_is_no_raw(tmp_path):
    adata = whole()
    adata.layers["counts"] = adata.X
    adata.write_h5ad(tmp_path / "x.h5ad")
    quietly(adata.write_zarr, tmp_path / "x.zarr")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for data in (adata, adata[:30], backed, tmp_path / "x.h5ad", tmp_path / "x.zarr"):
        with pytest.raises(LayerError, match=r"has none\. It has 'X', 'counts'; name a layer"):
            run(data, raw=True)
    backed.file.close()


def test_raw_without_values(tmp_path):
    path = tmp_path / "x.h5ad"
    with_raw().write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["raw/X"]
    with pytest.raises(DataError, match=r"raw\.X is None"):
        run(path, raw=True)


@pytest.mark.thorough
def test_raw_is_normalised_and_sent_to_workers(tmp_path):
    path = tmp_path / "x.h5ad"
    with_raw().write_h5ad(path)
    want = run(whole(), normalize=1e4)
    assert_same_bits(run(path, raw=True, normalize=1e4), want)
    with cluster(2) as client:
        found = run(path, raw=True, normalize=1e4, engine="dask", client=client)
    assert_same_bits(found, want)
    given = {"raw": True, "reference": "ctrl", "backend": "cpu"}
    assert estimate(path, "g", **given).n_genes == 6
    assert calibrate(path, "g", progress=False, **given).of().total.n_tests == 6
    out = tmp_path / "r.csv"
    assert main(["run", str(path), "--groupby", "g", "--reference", "ctrl", "--raw",
                 "-o", str(out)]) == 0  # fmt: skip
    assert "gene0" in out.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"raw": True, "layer": "counts"}, "raw=True and layer='counts' each name a matrix"),
        ({"raw": 1}, "raw=1 must be True or False"),
        ({"modality": 3}, "modality=3 must be text"),
    ],
)
def test_options_that_make_no_sense(options, says):
    with pytest.raises(OptionError, match=says):
        run(with_raw(), **options)


# --- modality= ------------------------------------------------------------------------------------


class MuData:
    """As much of mudata's class as is used of it: modalities, and obs of all cells."""

    def __init__(self, obs: pd.DataFrame, **modalities: Any) -> None:
        self.mod, self.obs = modalities, obs


def modalities() -> tuple[pd.DataFrame, dict[str, ad.AnnData]]:
    """Two modalities of most cells, in other orders, and obs of all, with a column of its own."""
    rna, protein = whole()[::-1][3:].copy(), whole(1)[5:].copy()
    obs = whole().obs.rename(columns={"g": "rna:g"})
    obs["shared"] = pd.Categorical(["C", "ctrl", "D"] * 20)
    del protein.obs["g"]
    return obs, {"rna": rna, "protein": protein}


def written(path: Path, obs: pd.DataFrame, found: dict[str, ad.AnnData]) -> Path:
    """An h5mu file, or a zarr store, as mudata writes it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own, on the format
        if path.suffix == ".h5mu":
            with h5py.File(path, "w") as file:
                _fill(file, obs, found)
        else:
            import zarr

            _fill(zarr.open_group(str(path), mode="w"), obs, found)
    return path


def _fill(root: Any, obs: pd.DataFrame, found: dict[str, ad.AnnData]) -> None:
    root.attrs["encoding-type"], root.attrs["encoding-version"] = "MuData", "0.1.0"
    group = root.create_group("mod")
    for name, adata in found.items():
        ad.io.write_elem(group, name, adata)
    ad.io.write_elem(root, "obs", obs)


@pytest.fixture(params=["object", "x.h5mu", "x.zarr"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    obs, found = modalities()
    if request.param == "object":
        return MuData(obs, **found)
    return written(tmp_path / request.param, obs, found)


def test_a_modality_with_its_own_labels(data):
    _, found = modalities()
    assert_same_bits(run(data, modality="rna"), run(found["rna"]))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", ["rna", "protein"])
def test_a_modality_with_labels_of_the_mudata(data, name):
    obs, found = modalities()
    adata = found[name]
    adata.obs["shared"] = obs["shared"].reindex(adata.obs_names)
    assert_same_bits(run(data, "shared", modality=name), run(adata, "shared"))
    assert_same_bits(run(data, "shared", modality=name, gene_chunk_size=2), run(adata, "shared"))


def test_cells_that_the_mudata_lacks_have_no_label(tmp_path):
    obs, found = modalities()
    adata = found["protein"]
    few = obs.iloc[:50]
    adata.obs["shared"] = few["shared"].reindex(adata.obs_names)
    for data in (MuData(few, **found), written(tmp_path / "x.h5mu", few, found)):
        with pytest.warns(MissingLabelWarning, match="10 of 55 cells"):
            got = run(data, "shared", modality="protein")
        with pytest.warns(MissingLabelWarning, match="10 of 55 cells"):
            assert_same_bits(got, run(adata, "shared"))


def test_names_that_repeat_in_the_mudata(tmp_path):
    obs, found = modalities()
    del found["protein"]
    obs.index = [*obs.index[:-1], "cell7"]
    for data in (MuData(obs, **found), written(tmp_path / "x.h5mu", obs, found)):
        with pytest.raises(DataError, match="several cells named 'cell7'"):
            run(data, "shared", modality="rna")
        run(data, modality="rna")  # its own column needs no names


def test_a_modality_that_is_not_there(data):
    with pytest.raises(LayerError, match=r"Unknown modality of .*'rma'\. Did you mean 'rna'\?"):
        run(data, modality="rma")
    with pytest.raises(TypeError, match=r"the modalities 'protein', 'rna'|'rna', 'protein'"):
        run(data)
    with pytest.raises(TypeError, match=r"modality="):
        run(data)


def test_a_column_that_neither_has(data):
    with pytest.raises(KeyError, match="Unknown column of obs 'h'"):
        run(data, "h", modality="rna")


def test_an_anndata_has_no_modalities(tmp_path):
    adata = whole()
    adata.write_h5ad(tmp_path / "x.h5ad")
    inside = written(tmp_path / "x.h5mu", *modalities()) / "rna"
    for data in (adata, tmp_path / "x.h5ad", inside):
        with pytest.raises(LayerError, match=r"modality='rna' names a part of a MuData, but"):
            run(data, modality="rna")


@pytest.mark.thorough
def test_a_modality_by_the_command_line_and_on_workers(tmp_path):
    path = written(tmp_path / "x.h5mu", *modalities())
    out = tmp_path / "r.csv"
    given = ["--groupby", "g", "--reference", "ctrl", "--modality", "rna", "-o", str(out)]
    assert main(["run", str(path), *given]) == 0
    with cluster(2) as client:
        found = run(path, "shared", modality="protein", engine="dask", client=client)
    assert_same_bits(found, run(path, "shared", modality="protein"))
    assert estimate(path, "g", modality="rna", reference="ctrl", backend="cpu").n_genes == 6


# --- pseudobulk -----------------------------------------------------------------------------------


def test_samples_of_raw_and_of_a_modality(tmp_path):
    want = pseudobulk(whole(), "g")
    found = pseudobulk(with_raw(), "g", raw=True)
    np.testing.assert_array_equal(found.X, want.X)
    assert found.var_names.tolist() == GENES
    obs, parts = modalities()
    for data in (MuData(obs, **parts), written(tmp_path / "x.h5mu", obs, parts)):
        found = pseudobulk(data, "g", modality="rna")
        np.testing.assert_array_equal(found.X, pseudobulk(parts["rna"], "g").X)


def test_raw_that_is_negative_is_named():
    adata = with_raw()
    adata.raw.X.data[:] *= -1.0
    with pytest.warns(ScaleWarning, match=r"^Raw\.X has negative values.*layer= or raw="):
        pseudobulk(adata, "g", raw=True)
