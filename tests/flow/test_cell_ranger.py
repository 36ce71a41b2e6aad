"""From Cell Ranger's output to a table: the same bits as from an AnnData with labels in obs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dask_clusters import cluster
from stopped_runs import Stop, stop_at
from stored_screens import assert_same_bits

from pdex_gpu import calibrate, differential_expression, estimate
from pdex_gpu.cli import main
from pdex_gpu.errors import CheckpointError, DataError, MissingLabelWarning
from pdex_gpu.simulate import GROUPBY, Screen, simulate_screen
from pdex_gpu.sinks.checkpoint_sink import CheckpointSink

N_CELLS, N_GENES, N_TARGETS = 400, 30, 3
HDF5, FOLDER = "filtered_feature_bc_matrix.h5", "filtered_feature_bc_matrix"
CALLS = "crispr_analysis/protospacer_calls_per_cell.csv"
LEFT_OUT = r"\d+ of 400 cells are left out: 0 have no guide, and \d+ have guides of several targets"


@pytest.fixture(scope="module")
def screen() -> Screen:
    return simulate_screen(N_CELLS, N_GENES, N_TARGETS, seed=2, annotated=True)


@pytest.fixture(scope="module")
def outs(screen: Screen, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outs")
    screen.write_cell_ranger(folder)
    return folder


@pytest.fixture(scope="module")
def labelled(screen: Screen) -> ad.AnnData:
    """The cells that carry guides of one target."""
    assert screen.guides is not None
    adata = screen.to_anndata()[screen.guides.sum(axis=1) == 1].copy()
    assert len(adata) < N_CELLS
    return adata


def run(data: Any, groupby: Any = None, **options: Any) -> Any:
    given = {"normalize": 1e4, "progress": False, "backend": "cpu"} | options
    return differential_expression(data, groupby, **given)


def of_calls(outs: Path) -> dict[str, Any]:
    return {"guide_calls": outs / CALLS, "guide_targets": outs / "feature_reference.csv"}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("form", [HDF5, FOLDER])
@pytest.mark.parametrize("how", ["guide_calls", "min_umis"])
@pytest.mark.parametrize(
    "more",
    [{}, pytest.param({"gene_chunk_size": 7}, marks=pytest.mark.thorough)],
    ids=["", "ranges"],
)
def test_the_same_bits_as_from_an_anndata(form, how, more, outs, labelled):
    options = of_calls(outs) if how == "guide_calls" else {
        "min_umis": 4, "guide_targets": str(outs / "feature_reference.csv"),
    }  # fmt: skip
    with pytest.warns(MissingLabelWarning, match=LEFT_OUT) as told:
        found = run(outs / form, **options, **more)
    assert len(told) == 1
    assert_same_bits(found, run(labelled, GROUPBY))
    assert set(found.references) == {"non-targeting"}
    provenance = found.provenance
    assert provenance["n_genes"] == N_GENES
    assert provenance["guide_targets"] == str(outs / "feature_reference.csv")
    json.dumps(provenance)


def test_guides_are_groups_without_their_targets(outs, labelled):
    reference = sorted(name for name in set(labelled.obs["guide"]) if name.startswith("non-"))
    with pytest.warns(MissingLabelWarning, match="have several guides"):
        found = run(outs / HDF5, guide_calls=outs / CALLS, reference=reference)
    assert_same_bits(found, run(labelled, "guide", reference=reference))


@pytest.mark.parametrize(
    "comparison", ["rest", pytest.param("reference", marks=pytest.mark.thorough)]
)
@pytest.mark.parametrize("form", [HDF5, FOLDER])
def test_cells_with_several_guides_count_for_each(form, comparison, outs, screen):
    found = run(outs / form, **of_calls(outs), multiplicity="high", comparison=comparison)
    adata = screen.to_anndata()
    names = sorted(adata.obsm["guides"].columns)
    adata.obsm["guides"] = adata.obsm["guides"][names]
    assert_same_bits(found, run(adata, guides="guides", comparison=comparison))


def test_an_h5ad_file_with_guide_calls(outs, screen, labelled, tmp_path):
    adata = screen.to_anndata()
    calls = (outs / CALLS).read_text().splitlines()
    adata.obs_names = [line.split(",")[0] for line in calls[1:]]
    adata.write_h5ad(tmp_path / "x.h5ad")
    for data in (adata, tmp_path / "x.h5ad", adata[::-1]):
        with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
            found = run(data, **of_calls(outs))
        assert_same_bits(found, run(labelled, GROUPBY))
    adata.obs_names = adata.obs_names.str.removesuffix("-1")
    with pytest.raises(DataError, match=r"Without its suffix, 400 more would be found"):
        run(adata, **of_calls(outs))


def test_a_table_of_another_run(outs, tmp_path):
    folder = tmp_path / "m"
    shutil.copytree(outs / FOLDER, folder)
    other = simulate_screen(50, 40, 2, seed=1, annotated=True)
    other.write_cell_ranger(tmp_path / "other")
    shutil.copy(tmp_path / "other" / FOLDER / "features.tsv.gz", folder)
    with pytest.raises(OSError, match=r"features\.tsv\.gz' has \d+ features, but the matrix"):
        run(folder, **of_calls(outs))


@pytest.mark.parametrize("form", [HDF5, FOLDER])
def test_from_the_command_line(form, outs, tmp_path, labelled, capsys):
    out = tmp_path / "results.parquet"
    given = ["--guide-calls", str(outs / CALLS), "--normalize", "1e4", "--backend", "cpu"]
    targets = ["--guide-targets", str(outs / "feature_reference.csv")]
    assert main(["run", str(outs / form), *given, *targets, "-o", str(out)]) == 0
    assert "guides of several targets" in capsys.readouterr().err
    found = pq.read_table(out)
    want = run(labelled, GROUPBY)
    np.testing.assert_array_equal(found["p_value"].to_numpy(), want["p_value"].ravel())
    assert main(["run", str(outs / form), *given, *targets, "-o", str(out), "--groupby", "x"]) == 2


def test_the_command_line_tells_of_guide_calls(outs, tmp_path, capsys):
    assert main(["run", str(outs / HDF5), "-o", str(tmp_path / "r.csv")]) == 2
    assert "--guide-calls FILE, a table of Cell Ranger" in " ".join(capsys.readouterr().err.split())


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("multiplicity", ["low", "high"])
@pytest.mark.parametrize("form", [HDF5, FOLDER])
def test_dask_workers_open_the_same_files(form, multiplicity, outs, monkeypatch):
    monkeypatch.chdir(outs)
    options = {
        "guide_calls": CALLS, "guide_targets": "feature_reference.csv",
        "multiplicity": multiplicity,
    }  # fmt: skip
    with pytest.warns(MissingLabelWarning) if multiplicity == "low" else cluster(0):
        want = run(form, **options)
    with cluster(2) as client:
        if multiplicity == "low":
            with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
                found = run(form, **options, client=client, engine="dask", gene_chunk_size=7)
        else:
            found = run(form, **options, client=client, engine="dask", gene_chunk_size=7)
    assert_same_bits(found, want)


def test_another_table_of_calls_is_another_run(outs, tmp_path):
    calls = tmp_path / "calls.csv"
    shutil.copy(outs / CALLS, calls)
    options = of_calls(outs) | {"guide_calls": calls, "out": tmp_path / "r.csv"}
    options |= {"gene_chunk_size": 5, "engine": "serial"}
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, CheckpointSink, "commit", 2)
        with pytest.warns(MissingLabelWarning), pytest.raises(Stop):
            run(outs / HDF5, **options)
    lines = calls.read_text().splitlines(keepends=True)
    calls.write_text("".join(lines[:-40]))
    with pytest.warns(MissingLabelWarning), pytest.raises(CheckpointError, match="labels"):
        run(outs / HDF5, **options)
    moved = calls.rename(tmp_path / "moved.csv")
    moved.write_text("".join(lines))
    with pytest.warns(MissingLabelWarning):  # the same calls elsewhere are the same run
        run(outs / HDF5, **options | {"guide_calls": moved})


@pytest.mark.thorough
def test_calibrate_and_estimate_know_guide_calls(outs, labelled):
    given = {"normalize": 1e4, "backend": "cpu", **of_calls(outs)}
    with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
        found = calibrate(outs / HDF5, progress=False, **given)
    want = calibrate(labelled, GROUPBY, normalize=1e4, backend="cpu", progress=False)
    assert found.of().total.n_tests == want.of().total.n_tests
    with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
        assert estimate(outs / HDF5, **given).n_comparisons == N_TARGETS


def test_several_runs_are_one_screen(tmp_path):
    """Of the same barcodes, and with other genes, guides and targets."""
    files, parts, targets = [], [], []
    for seed in (3, 4):
        sample = simulate_screen(200, 20, 3, seed=seed, annotated=True)
        sample.write_cell_ranger(tmp_path / str(seed))
        files.append(tmp_path / str(seed) / HDF5)
        targets += (tmp_path / str(seed) / "feature_reference.csv").read_text().splitlines()
        assert sample.guides is not None
        adata = sample.to_anndata()[sample.guides.sum(axis=1) == 1].copy()
        adata.obs_names = [f"{seed}-{i}" for i in range(len(adata))]
        del adata.obsm
        parts.append(adata)
    whole = ad.concat(parts)
    reference = tmp_path / "reference.csv"
    reference.write_text("\n".join(dict.fromkeys(targets)))
    folder = files[1].with_suffix("")
    for data in (files, [files[0], folder], {"one": files[0], "other": folder}):
        with pytest.warns(MissingLabelWarning, match=r"of 400 cells are left out: 0 have no guide"):
            found = run(data, min_umis=4, guide_targets=reference)
        assert_same_bits(found, run(whole, GROUPBY))
    with pytest.raises(DataError, match=r"200 cells have the same name .*min_umis= in its place"):
        run(files, guide_calls=files[0].parent / CALLS)


def test_some_genes_of_cell_ranger(outs, labelled):
    genes = list(labelled.var_names[3:20:4])
    for form in (HDF5, FOLDER):
        with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
            found = run(outs / form, **of_calls(outs), genes=genes)
        assert_same_bits(found, run(labelled, GROUPBY, genes=genes))


def test_some_cells_with_guide_calls(outs, screen, labelled):
    """A table has the barcodes of all cells, so that none counts as missing from the data."""
    adata = screen.to_anndata()
    adata.obs_names = pd.read_csv(outs / CALLS)["cell_barcode"].to_numpy()
    with pytest.warns(MissingLabelWarning, match=LEFT_OUT):
        found = run(adata, **of_calls(outs), cells="batch=batch1")
    assert_same_bits(found, run(labelled, GROUPBY, cells="batch=batch1"))
