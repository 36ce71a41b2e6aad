"""cells= and genes= give the bits of data without the others, and read no more than they must."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from dask_clusters import STORAGE, cluster
from device_arrays import DeviceArray
from emulated.build import needs_compiler
from scipy import sparse
from screens import backend_of
from stopped_runs import interrupted
from stored_screens import GENES, GROUPBY, REFERENCE, assert_same_bits, counts, screen

from pdex_gpu import (
    DEResult,
    calibrate,
    differential_expression,
    estimate,
    pseudobulk,
    rank_genes_groups,
)
from pdex_gpu.cli import main
from pdex_gpu.errors import (
    CheckpointError,
    ColumnError,
    DataError,
    DuplicateGeneWarning,
    FileFormatError,
    GeneError,
    LabelError,
    MissingFileError,
    OptionError,
    PdexGpuError,
    UnsupportedDataError,
)
from pdex_gpu.sources.formats import source_of
from pdex_gpu.sources.views.view import select

CHOSEN = ["gene6", "gene1", "gene4", "gene2"]  # in another order than the matrix
POSITIONS = [1, 2, 4, 6]
KEPT = np.random.default_rng(11).random(len(counts())) < 0.8
NORMALISE: list[dict[str, Any]] = [{}, {"normalize": 1e4}, {"normalize": "median"}]


def run(data: Any, **options: Any) -> DEResult:
    given = {"backend": "cpu", "progress": False, "columns": "all", "reference": REFERENCE}
    return differential_expression(data, GROUPBY, **given | options)


def annotated(data: Any) -> Any:
    """The data with columns to choose by, also if they are in a file or a store."""
    if not isinstance(data, Path):
        if not data.isbacked:
            _annotate(data)
        return data
    if data.suffix == ".zarr":
        adata = ad.read_zarr(data)
        _annotate(adata)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # anndata's own, on the format
            adata.write_zarr(data)
        return data
    adata = ad.read_h5ad(data)
    _annotate(adata)
    with h5py.File(data, "r+") as file:  # X stays as it is stored
        for name in ("obs", "var"):
            del file[name]
            ad.io.write_elem(file, name, getattr(adata, name))
    return data


def _annotate(adata: ad.AnnData) -> None:
    n = adata.n_obs
    adata.obs["kept"] = KEPT[:n]
    adata.obs["kept=A"] = KEPT[:n]
    adata.obs["phase"] = np.where(KEPT[:n], "G1", "S")
    adata.obs["number"] = np.where(KEPT[:n], 1, 2)
    adata.obs["hole"] = pd.array(np.where(KEPT[:n], True, None), "boolean")
    adata.var["chosen"] = adata.var_names.isin(CHOSEN)
    adata.var["all"] = True
    adata.var["none"] = False
    adata.var["length"] = np.arange(adata.n_vars)


def adata_in_memory(kind: Callable[[Any], Any] = sparse.csr_matrix) -> ad.AnnData:
    return annotated(screen(kind(counts())))


def of_genes(result: DEResult, positions: list[int]) -> dict[str, np.ndarray]:
    from pdex_gpu.results.schema import VALUES

    return {name: result[name][:, positions] for name in VALUES if name != "fdr"} | {
        "fdr": run_fdr(result["p_value"][:, positions])
    }


def run_fdr(p: np.ndarray) -> np.ndarray:
    """Benjamini-Hochberg over the genes that were tested."""
    flat = p.ravel()
    order = np.argsort(-flat, kind="stable")
    factor = len(flat) / (len(flat) - np.arange(len(flat)))
    found = np.empty(len(flat))
    found[order] = np.minimum(1.0, np.minimum.accumulate(flat[order] * factor))
    return found.reshape(p.shape)


def adjusted(one: DEResult, expected: dict[str, np.ndarray]) -> None:
    for name, values in expected.items():
        if name == "fdr":
            np.testing.assert_allclose(one[name], values, rtol=1e-14)
        else:
            np.testing.assert_array_equal(one[name], values, err_msg=name)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("storage", STORAGE)
def test_every_form_of_storage(storage: str, tmp_path: Path) -> None:
    path = STORAGE[storage](counts(), tmp_path)
    data = path if storage.startswith("backed") else annotated(path)
    if storage.startswith("backed"):  # columns of the object, not of its file
        _annotate(data)
    whole = adata_in_memory()
    some = whole[KEPT].copy()
    for options in NORMALISE:
        expected = of_genes(run(some, **options), POSITIONS)
        for more in ({}, {"gene_chunk_size": 1, "memory": 1, "engine": "serial"}):
            found = run(data, cells="kept", genes=CHOSEN, **options, **more)
            assert found.features.tolist() == [GENES[j] for j in POSITIONS]
            adjusted(found, expected)
        assert_same_bits(run(data, cells="phase=G1", **options), run(some, **options))
        adjusted(run(data, genes="chosen", **options), of_genes(run(whole, **options), POSITIONS))


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_genes_in_any_way_that_they_are_given(kind: Any, tmp_path: Path) -> None:
    adata = adata_in_memory(kind)
    expected = of_genes(run(adata), POSITIONS)
    listed = tmp_path / "genes.txt"
    listed.write_bytes("\ufeffgene6\r\n gene1\n\ngene4\ngene2".encode())
    names = pd.Index(CHOSEN), np.array(CHOSEN), tuple(CHOSEN), (name for name in CHOSEN)
    for genes in (CHOSEN, *names, str(listed), listed, "chosen"):
        adjusted(run(adata, genes=genes), expected)
    assert_same_bits(run(adata, genes="all"), run(adata))
    found = run(adata, genes=CHOSEN).provenance["genes"]
    assert found == "'gene6', 'gene1', 'gene4', 'gene2'"


def test_cells_in_any_way_that_they_are_given() -> None:
    adata = adata_in_memory()
    expected = run(adata[KEPT].copy())
    for cells in ("kept", "kept=A", "phase=G1", "number=1", "kept=True"):
        assert_same_bits(run(adata, cells=cells), expected)
    adata.obs["a=b"] = adata.obs["phase"]
    assert_same_bits(run(adata, cells="a=b=G1"), expected)


def test_a_column_comes_before_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("chosen").write_text("gene0\n")
    adata = adata_in_memory()
    with caplog.at_level(logging.INFO, "pdex_gpu"):
        assert run(adata, genes="chosen").features.tolist() == [GENES[j] for j in POSITIONS]
    assert "a column of var and a file of this name; the column is used" in caplog.text
    assert run(adata, genes="./chosen").features.tolist() == ["gene0"]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("in_file", [False, True])
def test_entries_in_any_order(kind: Any, in_file: bool, tmp_path: Path) -> None:
    order = np.random.default_rng(2).permutation
    matrix = kind(counts())
    for a, b in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        shuffled = a + order(b - a)
        matrix.data[a:b], matrix.indices[a:b] = matrix.data[shuffled], matrix.indices[shuffled]
    matrix.has_sorted_indices = False
    assert not kind((matrix.data, matrix.indices, matrix.indptr)).has_sorted_indices
    data: Any = annotated(screen(matrix))
    if in_file:
        data.write_h5ad(tmp_path / "screen.h5ad")
        data = tmp_path / "screen.h5ad"
    some = adata_in_memory()[KEPT].copy()
    for options in NORMALISE:
        found = run(data, cells="kept", genes=CHOSEN, **options)
        adjusted(found, of_genes(run(some, **options), POSITIONS))
        assert_same_bits(run(data, cells="kept", **options), run(some, **options))


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")
def test_views_guides_strata_and_levels(tmp_path: Path) -> None:
    adata = adata_in_memory()
    rng = np.random.default_rng(6)
    adata.obs["batch"] = rng.choice(["x", "y"], adata.n_obs)
    carried = rng.random((adata.n_obs, 3)) < 0.4
    frame = pd.DataFrame(carried, index=adata.obs_names, columns=list("xyz"))
    frame["x"] = frame["x"].astype("boolean").mask(rng.random(adata.n_obs) < 0.1)
    adata.obsm["frame"], adata.obsm["array"] = frame, carried
    adata.obsm["sparse"] = sparse.csc_matrix(carried)
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    backed = ad.read_h5ad(path, backed="r")
    order = rng.permutation(adata.n_obs)[:48]
    asked: list[dict[str, Any]] = [
        {"strata": "batch"},
        {"groupby": [GROUPBY, "batch"]},
        *({"groupby": None, "guides": g, "comparison": "rest", "reference": None}
          for g in ("frame", "array", "sparse")),
    ]  # fmt: skip
    given: dict[str, Any] = {"columns": "all", "cells": "kept", "genes": CHOSEN}
    for how in asked:
        call: dict[str, Any] = {"groupby": GROUPBY, "reference": REFERENCE, "progress": False}
        call |= how
        for options in NORMALISE[:2]:
            for rows in (slice(None), order):
                truth = adata[rows]
                truth = truth[truth.obs["kept"]].copy()
                expected = of_genes(
                    differential_expression(truth, columns="all", **call, **options), POSITIONS
                )
                whole = isinstance(rows, slice)
                for data in (adata, backed, path) if whole else (adata[rows], backed[rows]):
                    adjusted(differential_expression(data, **call, **options | given), expected)
    backed.file.close()


@pytest.mark.thorough
def test_threads_and_processes() -> None:
    threads = {"engine": "threads", "n_workers": 3, "n_threads": 2, "gene_chunk_size": 1}
    for kind in (sparse.csr_matrix, sparse.csc_matrix, np.asarray):
        adata = adata_in_memory(kind)
        for options in NORMALISE[:2]:
            expected = of_genes(run(adata[KEPT].copy(), **options), POSITIONS)
            adjusted(run(adata, cells="kept", genes=CHOSEN, **options, **threads), expected)
    processes = {"engine": "shared_memory", "n_workers": 1}
    adata = adata_in_memory(sparse.csc_matrix)
    found = run(adata, cells="kept", genes=CHOSEN, normalize=1e4, **processes)
    adjusted(found, of_genes(run(adata[KEPT].copy(), normalize=1e4), POSITIONS))


@pytest.mark.sampled(every=2)
@needs_compiler
@pytest.mark.parametrize("storage", ["h5ad csr", "memory csr", "memory csc", "memory dense"])
def test_an_emulated_device(storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = annotated(STORAGE[storage](counts(), tmp_path))
    some = adata_in_memory()[KEPT].copy()
    expected = [of_genes(run(some, **options), POSITIONS) for options in NORMALISE[:2]]
    name = backend_of("emulated", monkeypatch)
    for options, wanted in zip(NORMALISE, expected, strict=False):
        adjusted(run(data, cells="kept", genes=CHOSEN, backend=name, **options), wanted)


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster(2) as found:
        yield found


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    "storage", ["h5ad csr", "h5ad csc", "zarr csr", "memory csr", "memory csc", "dask rows csr"]
)
def test_a_cluster(client: Any, storage: str, tmp_path: Path) -> None:
    data = annotated(STORAGE[storage](counts(), tmp_path))
    names = tmp_path / "genes.txt"
    names.write_text("\n".join(CHOSEN))
    some = adata_in_memory()[KEPT].copy()
    cluster_of = {"engine": "dask", "client": client, "gene_chunk_size": 2}
    for options in NORMALISE[: 1 if "dask" in storage else 2]:
        expected = of_genes(run(some, **options), POSITIONS)
        for genes in (CHOSEN, "chosen", names):
            adjusted(run(data, cells="kept", genes=genes, **options, **cluster_of), expected)


def test_workers_do_not_need_the_file_of_names(
    client: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pdex_gpu.engines.dask import worker_state

    data = annotated(STORAGE["h5ad csr"](counts(), tmp_path))
    names = tmp_path / "genes.txt"
    names.write_text("\n".join(CHOSEN))
    opened = worker_state.open_screen

    def without_file(path: Any, settings: Any) -> Any:
        assert settings.data.genes == tuple(GENES[j] for j in POSITIONS)
        return opened(path, settings)

    monkeypatch.setattr(worker_state, "open_screen", without_file)
    found = run(data, genes=names, engine="dask", client=client)
    adjusted(found, of_genes(run(adata_in_memory()), POSITIONS))


@pytest.mark.thorough
def test_other_calls(tmp_path: Path) -> None:
    path = annotated(STORAGE["h5ad csr"](counts(), tmp_path))
    adata = adata_in_memory()
    some = adata[KEPT].copy()
    for data in (path, adata):
        bulk = pseudobulk(data, GROUPBY, cells="kept", genes=CHOSEN)
        expected = pseudobulk(some[:, POSITIONS].copy(), GROUPBY)
        np.testing.assert_array_equal(bulk.X, expected.X)
        assert bulk.var_names.tolist() == expected.var_names.tolist()
        pd.testing.assert_frame_equal(bulk.obs, expected.obs)
        options: dict[str, Any] = {"reference": REFERENCE, "progress": False, "seed": 5}
        found = calibrate(data, GROUPBY, cells="kept", genes=CHOSEN, normalize=1e4, **options)
        wanted = calibrate(
            some, GROUPBY, genes=[GENES[j] for j in POSITIONS], normalize=1e4, **options
        )
        np.testing.assert_array_equal(found.of().n_false_positives, wanted.of().n_false_positives)
        costs = estimate(data, GROUPBY, reference=REFERENCE, cells="kept", genes=CHOSEN)
        assert (costs.n_cells, costs.n_genes) == (KEPT.sum(), len(CHOSEN))
    assert pseudobulk(adata, GROUPBY, genes=CHOSEN).var["length"].tolist() == POSITIONS
    for call in (pseudobulk,):
        with pytest.raises(OptionError, match=r"does not take normalize=: pseudobulk sums raw"):
            call(adata, GROUPBY, normalize=1e4)
        call(adata, GROUPBY, normalize=None)


def test_the_genes_of_raw(tmp_path: Path) -> None:
    """Their var is not that of adata."""
    adata = adata_in_memory()
    expected = run(adata, genes="chosen", normalize=1e4, cells="kept")
    adata.raw = adata
    less = adata[:, 3:].copy()
    less.var["chosen"] = True
    less.X = less.X * 0
    less.write_h5ad(tmp_path / "raw.h5ad")
    backed = ad.read_h5ad(tmp_path / "raw.h5ad", backed="r")
    for data in (less, tmp_path / "raw.h5ad", backed, backed[np.arange(adata.n_obs)]):
        found = run(data, raw=True, genes="chosen", normalize=1e4, cells="kept")
        assert found.features.tolist() == expected.features.tolist()
        assert_same_bits(found, expected)
    backed.file.close()


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = annotated(STORAGE["h5ad csr"](counts(), tmp_path))
    names = tmp_path / "genes.txt"
    names.write_text("\n".join(CHOSEN))
    some = adata_in_memory()[KEPT].copy()
    expected = of_genes(run(some, normalize=1e4), POSITIONS)
    for k, genes in enumerate((str(names), "chosen")):
        out = tmp_path / f"{k}.parquet"
        given = ["run", str(path), "-o", str(out), "--groupby", GROUPBY, "--reference", REFERENCE]
        more = ["--cells", "phase=G1", "--genes", genes, "--normalize", "1e4"]
        assert main([*given, *more]) == 0
        table = pd.read_parquet(out)
        np.testing.assert_array_equal(table["p_value"], expected["p_value"].ravel())
    assert main([*given[:3], str(tmp_path / "x.parquet"), *given[4:], "--genes", "chosn"]) != 0
    assert "neither a column of var nor a file" in capsys.readouterr().err.replace("\n", " ")


@pytest.mark.parametrize("mask", ["chosen", None])
@pytest.mark.parametrize("raw", [False, True])
def test_masks_of_rank_genes_groups_leave_totals_as_they_are(mask: Any, raw: bool) -> None:
    adata = adata_in_memory()
    totals = counts().sum(axis=1, dtype=np.float64)[:, None]
    normalised = adata.copy()
    normalised.X = np.log1p(1e4 * counts() / np.maximum(totals, 1.0))
    for data in (adata, normalised):
        data.obs[GROUPBY] = data.obs[GROUPBY].astype("category")
        if raw:
            data.raw = data
            data.X = data.X * 0
        given = adata.var["chosen"].to_numpy() if mask is None else mask
        options: dict[str, Any] = {"normalize": 1e4} if data is adata else {}
        rank_genes_groups(data, GROUPBY, method="wilcoxon", pts=True, mask_var=given, **options)
    found, expected = (data.uns["rank_genes_groups"] for data in (adata, normalised))
    assert found["names"].tolist() == expected["names"].tolist()
    assert sorted(found["names"]["A"]) == sorted(CHOSEN)
    for name in ("A", "B", "C"):
        np.testing.assert_allclose(found["scores"][name], expected["scores"][name], rtol=1e-6)
    pd.testing.assert_frame_equal(found["pts"], expected["pts"])


def test_what_is_not_chosen_is_not_read() -> None:
    """Values that no test is defined for do no harm where they are left out."""
    values = counts()
    values[~KEPT, 1] = np.nan
    values[:, 0] = np.inf
    for kind in (sparse.csr_matrix, sparse.csc_matrix, np.asarray):
        adata = annotated(screen(kind(values)))
        found = run(adata, cells="kept", genes=CHOSEN)
        adjusted(found, of_genes(run(adata_in_memory()[KEPT].copy()), POSITIONS))


def test_a_run_resumes_only_with_the_same_choice(tmp_path: Path) -> None:
    path = annotated(STORAGE["h5ad csr"](counts(), tmp_path))
    out = tmp_path / "result.parquet"
    options = {"out": out, "gene_chunk_size": 1, "columns": (), "engine": "serial"}
    interrupted(out, 2, path, genes=CHOSEN, cells="kept", backend="cpu")
    for other, says in (
        ({"genes": CHOSEN[:3]}, "names of the genes"),
        ({"genes": CHOSEN, "cells": "phase=S"}, "cells"),
        ({"genes": CHOSEN, "cells": None}, "cells"),
    ):
        with pytest.raises(CheckpointError, match=says):
            run(path, **{"cells": "kept"} | other, **options)
    run(path, genes="chosen", cells="kept", **options)  # the same genes
    expected = run(path, genes=CHOSEN, cells="kept", columns=()).to_pandas()
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected)


# --- bad input ------------------------------------------------------------------------------------

WRONG: list[tuple[dict[str, Any], type[PdexGpuError], str]] = [
    ({"genes": "chosn"}, ColumnError,
     r"genes='chosn' is neither a column of var nor a file\. .* Did you mean 'chosen'\?"),
    ({"genes": "length"}, OptionError, r"column 'length' of var is not boolean: it holds int"),
    ({"genes": "none"}, OptionError, r"genes='none' chooses none of 9 genes"),
    ({"genes": ["gene1", "gnee2", "TP53"]}, GeneError,
     r"2 of 3 names in genes= are not in the matrix: 'gnee2', 'TP53'\. Instead of 'gnee2', did"),
    ({"genes": []}, OptionError, r"genes=\[\] names no gene"),
    ({"genes": ["gene1", 3]}, OptionError, r"genes= holds 3 \(int\), but names are needed"),
    ({"genes": np.array([True, False])}, OptionError, r"adata\.var_names\[mask\]"),
    ({"genes": 3}, OptionError, r"genes=3 must be names of genes in a list"),
    ({"genes": ""}, OptionError, r"genes="),
    ({"genes": ["gene1"], "min_cpm": 1.0}, OptionError, r"min_cpm=1\.0 needs the counts of all"),
    ({"genes": Path("nowhere.txt")}, MissingFileError, r"genes='nowhere\.txt': there is no such"),
    ({"genes": Path(".")}, FileFormatError, r"'\.' is a folder\. Pass a text file"),
    ({"genes": Path("/dev/null")}, FileFormatError, r"is not a regular file"),
    ({"cells": "kpet"}, ColumnError, r"cells='kpet' must be a boolean column of obs, or 'column="),
    ({"cells": "kpet=G1"}, ColumnError, r"cells='kpet=G1' must be a boolean column of obs"),
    ({"cells": "phase"}, OptionError,
     r"column 'phase' of obs is not boolean: it holds str.*pass cells='phase=(S|G1)'"),
    ({"cells": "number"}, OptionError, r"is not boolean: it holds int"),
    ({"cells": "hole"}, DataError, r"column 'hole' of obs has missing values in \d+ of 55 rows"),
    ({"cells": "phase=G2"}, LabelError, r"Unknown label in column 'phase' of obs .*'G2'.*'G1'"),
    ({"cells": 3}, OptionError, r"cells=3 must be text"),
]  # fmt: skip


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("options", "kind", "message"), WRONG)
def test_what_cannot_be_chosen(
    options: dict[str, Any], kind: type[PdexGpuError], message: str, tmp_path: Path
) -> None:
    path = annotated(STORAGE["h5ad csr"](counts(), tmp_path))
    for data in (adata_in_memory(), path):
        with pytest.raises(kind, match=message):
            run(data, **options)


def test_files_of_names_that_cannot_be_read(tmp_path: Path) -> None:
    adata = adata_in_memory()
    for content, says in (
        (b"\n \n", "holds no names"),
        (b"gene1\n\xff\xfe", r"is not UTF-8 text \(.* at byte 6\)"),
        (b"gene1\n" + b"\0" * (1 << 26), "is too large for a list of names"),
    ):
        path = tmp_path / "genes.txt"
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=says):
            run(adata, genes=path)
    path.write_text("gene1\nGENE3")
    with pytest.raises(GeneError, match=r"1 of 2 names in the file .*genes\.txt.* did you mean"):
        run(adata, genes=str(path))


def test_no_cell_is_left() -> None:
    adata = adata_in_memory()
    adata.obs["nobody"] = False
    with pytest.raises(OptionError, match=r"cells='nobody' chooses none of 55 cells"):
        run(adata, cells="nobody")
    adata.obs["phase"] = adata.obs["phase"].astype("category").cat.add_categories("G2")
    with pytest.raises(OptionError, match=r"cells='phase=G2' chooses none of 55 cells"):
        run(adata, cells="phase=G2")


def test_names_that_repeat() -> None:
    adata = adata_in_memory()
    with pytest.warns(DuplicateGeneWarning, match=r"2 names in genes= are repeated, such as 'gene"):
        found = run(adata, genes=["gene2", "gene1", "gene2", "gene1"])
    assert found.features.tolist() == ["gene1", "gene2"]
    adata.var_names = ["gene1" if name == "gene2" else name for name in adata.var_names]
    with pytest.raises(
        GeneError, match=r"1 of 2 names in genes= belong to several genes .*'gene1'"
    ):
        run(adata, genes=["gene1", "gene3"])
    with pytest.warns(DuplicateGeneWarning):  # of the result, whose names repeat
        assert len(run(adata, genes="chosen").features) == 4


def test_messages_name_the_cell_and_the_gene() -> None:
    values = counts()
    row = int(np.flatnonzero(KEPT)[5])
    values[row, 4] = np.nan
    adata = annotated(screen(sparse.csr_matrix(values)))
    for options in NORMALISE:
        with pytest.raises(DataError, match=rf"cell 'cell{row}' .*gene 'gene4'"):
            run(adata, cells="kept", genes=CHOSEN, **options)


def test_a_matrix_on_a_device_is_refused() -> None:
    from dataclasses import replace

    from pdex_gpu.request.choosing import with_cells, with_genes
    from pdex_gpu.sources.open import open_dataset
    from pdex_gpu.sources.options import DataOptions

    dataset = open_dataset(adata_in_memory(), GROUPBY)
    dataset = replace(dataset, source=source_of(DeviceArray(counts()), "X"))
    with pytest.raises(UnsupportedDataError, match=r"cells= works in host memory .*adata\[cells\]"):
        with_cells(dataset, DataOptions(cells="kept"))
    with pytest.raises(UnsupportedDataError, match=r"genes= works in .*pass adata\[:, genes\]"):
        with_genes(dataset, DataOptions(genes="chosen"))
    with pytest.raises(UnsupportedDataError, match=r"it is always read whole"):
        select(dataset.source, np.arange(3), np.arange(2))


def test_labels_that_are_left_out_are_no_groups() -> None:
    adata = adata_in_memory()
    adata.obs[GROUPBY] = adata.obs[GROUPBY].astype("category")
    adata.obs["not C"] = adata.obs[GROUPBY] != "C"
    expected = run(adata[adata.obs["not C"]].copy())
    found = run(adata, cells="not C")
    assert list(found.targets) == list(expected.targets)
    assert_same_bits(found, expected)
