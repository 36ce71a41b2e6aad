"""Several files as one screen: the bits of the matrix concatenated by anndata."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from dask_clusters import cluster
from emulated.build import needs_compiler
from scipy import sparse
from screens import backend_of
from stopped_runs import interrupted
from stopped_runs import run as run_into_file
from stored_screens import GENES, GROUPBY, REFERENCE, assert_same_bits, counts, logged, screen

import pdex_gpu
from pdex_gpu import DEResult, Progress, differential_expression
from pdex_gpu.cli import main
from pdex_gpu.errors import (
    CheckpointError,
    ColumnError,
    DataError,
    FileFormatError,
    LayerError,
    MissingFileError,
    OptionError,
    UnsupportedDataError,
)
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.utils.exit_codes import Exit

METRICS = ["wilcoxon", "t-test", "anderson"]
FORMS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
OPTIONS: list[dict[str, Any]] = [
    {},
    {"gene_chunk_size": 2, "n_threads": 3},
    {"memory": 1, "engine": "serial"},
]
TURNED = [GENES[i] for i in (4, 8, 0, 3, 7, 1, 6, 2, 5)]


def run(data: Any, metric: str = "wilcoxon", groupby: Any = GROUPBY, **options: Any) -> DEResult:
    given = {"backend": "cpu", "progress": False, "columns": "all", "reference": REFERENCE}
    return differential_expression(data, groupby, metric=metric, **given | options)


class Plates:
    """A folder of plates, and the screens in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.paths: list[Path] = []
        self.screens: list[ad.AnnData] = []

    def add(
        self,
        form: str = "csr",
        values: np.ndarray | None = None,
        genes: list[str] = GENES,
        change: Callable[[ad.AnnData], object] = lambda _: None,
        **options: Any,
    ) -> ad.AnnData:
        """Write another plate, h5ad or zarr, and return it."""
        i = len(self.paths) + 1
        chosen = logged(i) if values is None else values
        adata = screen(FORMS[form.split()[0]](chosen[:, : len(genes)]), genes=genes)
        change(adata)
        path = self.folder / f"plate{i}.{'zarr' if form.endswith('zarr') else 'h5ad'}"
        if path.suffix == ".zarr":
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # anndata's own, on the format
                adata.write_zarr(path)
        else:
            adata.write_h5ad(path, **{"compression": "gzip"} | options)
        self.paths.append(path)
        self.screens.append(adata)
        return adata

    def whole(self, join: str = "inner") -> ad.AnnData:
        """Return all plates, concatenated by anndata; genes in the order of the first."""
        found = ad.concat(self.screens, join=join, index_unique="-", fill_value=0)
        names = list(dict.fromkeys(name for one in self.screens for name in one.var_names))
        return found[:, [name for name in names if name in found.var_names]].copy()


@pytest.fixture
def plates(tmp_path: Path) -> Plates:
    return Plates(tmp_path)


def check(plates: Plates, join: str = "inner", metrics: list[str] = METRICS, **more: Any) -> None:
    whole = plates.whole(join)
    for metric in metrics:
        expected = run(whole, metric)
        for options in OPTIONS:
            found = run(plates.paths, metric, join=join, **options, **more)
            assert list(found.features) == list(expected.features)
            assert found.provenance["n_cells"] == whole.n_obs
            assert_same_bits(found, expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("forms", ["csr csr csr", "csc csc", "dense dense", "csc dense", "csr csc"])
def test_all_tests_on_every_layout(plates: Plates, forms: str) -> None:
    for form in forms.split():
        plates.add(form)
    check(plates)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    "forms", ["csr zarr,csc", "dense zarr,dense", "csc zarr,csc", "csr zarr,csr", "dense,csr"]
)
def test_zarr_and_h5ad_mix(plates: Plates, forms: str) -> None:
    for form in forms.split(","):
        plates.add(form)
    check(plates, metrics=["t-test"])


def test_dtypes_and_compressions_mix(plates: Plates) -> None:
    for dtype, options in (
        ("int32", {"compression": "lzf"}),
        ("float32", {"compression": None}),
        ("uint8", {}),
        ("float64", {"as_dense": ("X",)}),
    ):
        plates.add("csr", counts(len(plates.paths)).astype(dtype), **options)
    check(plates, metrics=["wilcoxon"])
    assert (
        run(plates.paths).provenance["matrix"].startswith("4 matrices stacked: CSR int32 in a file")
    )


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("forms", ["csr csr", "csc csc", "dense csc", "csr dense"])
@pytest.mark.parametrize("join", ["inner", "outer"])
def test_genes_are_joined_by_name(plates: Plates, forms: str, join: str) -> None:
    first, second = forms.split()
    plates.add(first, genes=TURNED[:7])
    plates.add(second, genes=[*GENES[2:], "new"][:8])
    check(plates, join, ["wilcoxon"])


@pytest.fixture(scope="module", params=(1, 5), ids=lambda n: f"{n} workers")
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with cluster(request.param) as found:
        yield found


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("forms", ["csr csr csr", "csc csc", "csr csc"])
def test_workers_of_a_cluster(plates: Plates, forms: str, client: Any) -> None:
    for form in forms.split():
        plates.add(form, genes=TURNED if plates.paths else GENES)
    expected = run(plates.whole())
    for data, options in (
        (plates.paths, {}),
        (plates.folder / "plate*", {"batch": "plate", "strata": None}),
    ):
        found = run(data, engine="dask", client=client, **options)
        assert_same_bits(found, expected)
    by_plate = run(plates.paths, engine="dask", client=client, batch="plate", strata="plate")
    assert_same_bits(by_plate, run(plates.paths, batch="plate", strata="plate"))


@pytest.mark.sampled(every=2)
@needs_compiler
@pytest.mark.parametrize("forms", ["csr csr", "csc dense"])
def test_an_emulated_device(plates: Plates, forms: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for form in forms.split():
        plates.add(form)
    expected = run(plates.whole())
    name = backend_of("emulated", monkeypatch)
    for metric in METRICS:
        expected = run(plates.whole(), metric)
        assert_same_bits(run(plates.paths, metric, backend=name), expected)


# --- columns of obs, and matrices -----------------------------------------------------------------


def test_the_file_of_each_cell_is_a_column(plates: Plates) -> None:
    for i in range(3):
        plates.add(values=logged(i) + np.float32(0.1) * (logged(i) > 0) * i)
    whole = plates.whole()
    whole.obs["plate"] = np.repeat(
        ["plate1", "plate2", "plate3"], [s.n_obs for s in plates.screens]
    )
    expected = run(whole, strata="plate")
    assert_same_bits(run(plates.paths, batch="plate", strata="plate"), expected)
    named = dict(zip("abc", plates.paths, strict=True))
    assert_same_bits(run(named, batch="p", strata="p"), expected)
    expected = run(whole, groupby=[GROUPBY, "plate"])
    found = run(plates.folder / "*.h5ad", groupby=[GROUPBY, "plate"], batch="plate")
    assert_same_bits(found, expected)
    assert list(found.to_pandas()["plate"]) == list(expected.to_pandas()["plate"])
    by_plate = {"groupby": "plate", "reference": "plate2"}
    assert_same_bits(run(plates.paths, batch="plate", **by_plate), run(whole, **by_plate))


def test_one_file_is_that_file(plates: Plates) -> None:
    plates.add()
    path = plates.paths[0]
    expected = run(path)
    for data in ([path], {"p": path}, str(plates.folder / "plate*.h5ad")):
        found = run(data)
        assert_same_bits(found, expected)
        assert found.provenance["data"] == expected.provenance["data"]
    assert set(run(path, groupby=[GROUPBY, "p"], batch="p").to_pandas()["p"]) == {"plate1"}


def test_categories_and_guides_are_united(plates: Plates) -> None:
    def change(adata: ad.AnnData) -> None:
        i = len(plates.paths)
        labels = adata.obs[GROUPBY].replace("C", "D") if i else adata.obs[GROUPBY]
        adata.obs[GROUPBY] = pd.Categorical(labels)
        names = ["nt", "g1", "g2"] if i else ["g2", "nt"]
        carried = np.arange(adata.n_obs)[:, None] % 3 == np.arange(len(names))
        adata.obsm["guides"] = pd.DataFrame(carried, columns=names, index=adata.obs_names)
        adata.obsm["array"] = carried[:, :2]

    plates.add(change=change)
    plates.add("csc", change=change)
    whole = plates.whole()
    assert_same_bits(run(plates.paths), run(whole))
    assert list(run(plates.paths).targets) == ["A", "B", "C", "D"]
    frames = [adata.obsm["guides"] for adata in plates.screens]
    united = pd.concat([frame.astype(float) for frame in frames]).fillna(0.0) > 0.0
    whole.obsm["guides"] = united.set_index(whole.obs_names)
    for matrix, reference in (("guides", "nt"), ("array", "1")):
        given = {"groupby": None, "guides": matrix, "reference": reference}
        assert_same_bits(run(plates.paths, **given), run(whole, **given))


def test_a_dataset_of_several_files(plates: Plates) -> None:
    plates.add(change=lambda adata: adata.layers.update(counts=adata.X, more=adata.X))
    plates.add("csc", change=lambda adata: adata.layers.update(counts=adata.X))
    with open_dataset(plates.paths, GROUPBY) as dataset:
        n = plates.screens[0].n_obs
        assert dataset.cell_name(n + 3) == f"cell3 of {plates.paths[1]}"
        assert dataset.cell_name(n - 1) == f"cell{n - 1} of {plates.paths[0]}"
        assert dataset.cell_names().tolist() == [f"cell{i}" for i in range(n)] * 2
        assert dataset.matrices() == ["counts"]
        assert dataset.var() is None
        assert dataset.description.startswith(f"2 files ('{plates.paths[0]}', ")
    layer = run(plates.paths, layer="counts")
    assert_same_bits(layer, run(plates.whole()))


def test_names_of_cells_may_repeat(plates: Plates, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(2):
        plates.add(genes=TURNED[len(plates.paths) :])
    with caplog.at_level(logging.INFO, "pdex_gpu"):
        run(plates.paths, batch="plate")
    assert "110 of 110 cells have a name that occurs more than once" in caplog.text
    assert "8 of 9 genes are in all 2 files" in caplog.text
    assert "the column 'plate' holds 'plate1', 'plate2'" in caplog.text


# --- normalising ----------------------------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("forms", ["csr csr", "csc csc", "dense dense", "csr csc"])
@pytest.mark.parametrize("target", [1e4, "median"])
def test_totals_are_those_of_all_genes_of_a_file(plates: Plates, forms: str, target: Any) -> None:
    first, second = forms.split()
    plates.add(first, counts(1), genes=GENES)
    plates.add(second, counts(2), genes=TURNED[2:])
    totals = [np.asarray(adata.X.sum(axis=1)).ravel() for adata in plates.screens]
    for join in ("inner", "outer"):
        whole = plates.whole(join)
        whole.obs["total"] = np.concatenate(totals)
        expected = run(whole, "t-test", normalize=target, totals="total")
        for options in OPTIONS:
            found = run(plates.paths, "t-test", normalize=target, join=join, **options)
            assert_same_bits(found, expected)


def test_a_value_that_is_no_count_is_named_with_its_file(plates: Plates) -> None:
    plates.add("csr", counts(1), genes=GENES[:8])
    values = counts(2)
    values[7, 8] = 2**54
    plates.add("csr", values)
    cell = f"cell7 of {plates.paths[1]}"
    named = rf"X is 1.80144e\+16 in cell '{cell}' \(row 62\), gene 'gene8' \(column 8\)"
    with pytest.raises(DataError, match=named):
        run(plates.paths, normalize=1e4)


# --- what goes wrong ------------------------------------------------------------------------------


def refused(error: type[Exception], data: Any, *words: str, **options: Any) -> None:
    with pytest.raises(error) as caught:
        run(data, **options)
    for word in words:
        assert word in str(caught.value)


def test_files_that_do_not_fit_are_named(plates: Plates) -> None:
    plates.add()
    one = plates.paths[0]
    plates.add(change=lambda adata: adata.obs.pop(GROUPBY))
    words = (f"{plates.paths[1]}: Unknown column of obs 'perturbation'",)
    refused(ColumnError, plates.paths, *words)
    plates.add(change=lambda adata: adata.obs.insert(0, "plate", "x"))
    words = ("batch='plate' would be a new column", str(plates.paths[2]))
    refused(OptionError, [one, plates.paths[2]], *words, batch="plate")
    words = (f"{one}: Unknown column of obs 'plate'",)
    refused(ColumnError, [plates.paths[2], one], *words, strata="plate")
    plates.add(change=lambda adata: adata.layers.update(raw=adata.X))
    words = (f"{one}: Unknown layer 'raw'",)
    refused(LayerError, [plates.paths[3], one], *words, layer="raw")
    plates.add(genes=["a", "b", "a"])
    words = (f"{plates.paths[4]} has several genes named 'a'",)
    refused(DataError, [one, plates.paths[4]], *words)
    plates.add(genes=["ENSG1", "ENSG2"])
    words = ("No gene is in all", str(one), "'gene0', 'gene1'", "'ENSG1', 'ENSG2'", "join='outer'")
    refused(DataError, [one, plates.paths[5]], *words)
    plates.add(values=counts())
    words = ("whole numbers in", str(plates.paths[6]), f"but not in {one}", "raw counts")
    refused(DataError, [one, plates.paths[6]], *words)
    (plates.folder / "broken.h5ad").write_bytes(b"no file of HDF5")
    words = ("broken.h5ad is not an HDF5 file",)
    refused(FileFormatError, [one, plates.folder / "broken.h5ad"], *words)
    refused(MissingFileError, [one, "none.h5ad"], "There is no file 'none.h5ad'")
    refused(MissingFileError, str(plates.folder / "w*.h5ad"), "No file matches", "'plate1.h5ad'")
    refused(OptionError, [one, str(one)], "occurs more than once")
    refused(OptionError, [], "The list of files is empty")
    refused(UnsupportedDataError, [plates.screens[0]], "data[0] is a anndata", "anndata.concat")
    refused(OptionError, plates.screens[0], "batch='b' holds the names of files", batch="b")
    refused(OptionError, plates.paths, "join", "'inner'", join="left")
    refused(OptionError, plates.paths, "batch=3 must be text", batch=3)
    refused(OptionError, plates.paths, "batch='' must name", batch="")


def test_the_output_is_none_of_the_files(plates: Plates) -> None:
    plates.add()
    plates.add()
    plates.paths[1].rename(plates.folder / "plate2.csv")
    data = [plates.paths[0], plates.folder / "plate2.csv"]
    refused(OptionError, data, "is the input file", out=data[1], force=True)


def test_a_file_that_changed_between_runs_is_named(plates: Plates) -> None:
    for _ in range(4):
        plates.add()
    out = plates.folder / "de.parquet"
    options = {"backend": "cpu"}
    interrupted(out, 3, plates.paths, **options)
    with h5py.File(plates.paths[2], "r+") as file:
        file.attrs["touched"] = 1
    with pytest.raises(CheckpointError) as caught:
        run_into_file(out, plates.paths, **options)
    assert "plate3: file modified" in str(caught.value)
    assert "plate2" not in str(caught.value)
    run_into_file(out, plates.paths, restart=True, **options)
    assert_same_bits(pd.read_parquet(out), run(plates.whole(), columns=()).to_pandas())


def test_a_stopped_run_continues(plates: Plates) -> None:
    for form in ("csr", "csc", "csr"):
        plates.add(form)
    out = plates.folder / "de.parquet"
    interrupted(out, 3, plates.paths, backend="cpu")
    run_into_file(out, plates.paths, backend="cpu")
    assert_same_bits(pd.read_parquet(out), run(plates.whole(), columns=()).to_pandas())


@pytest.mark.parametrize("form", ["csr", "csc"])
def test_progress_counts_the_bytes_of_all_files(plates: Plates, form: str) -> None:
    plates.add(form)
    plates.add("csr")
    seen: list[Progress] = []
    run(plates.paths, progress=seen.append, gene_chunk_size=3)
    with open_dataset(plates.paths, None) as dataset:
        n_bytes = sum(part.source.n_bytes for part in dataset.source.parts)
    assert seen[-1].n_bytes == seen[-1].total_bytes == n_bytes


def test_an_estimate(plates: Plates) -> None:
    plates.add()
    plates.add("csc", genes=TURNED)
    found = pdex_gpu.estimate(plates.paths, GROUPBY, reference=REFERENCE, timing=False)
    assert (found.n_cells, found.n_genes, found.n_comparisons) == (110, 9, 3)
    assert found.matrix == "2 matrices stacked: CSR float32 in a file, CSC float32 in a file"
    assert found.memory_needed > 0
    assert not found.problems
    calibrated = pdex_gpu.calibrate(plates.paths, GROUPBY, reference=REFERENCE, progress=False)
    assert calibrated.summary()["n_control_cells"] == 48
    samples = pdex_gpu.pseudobulk(plates.paths, GROUPBY)
    assert samples.obs["n_cells"].sum() == 110


def test_the_command_line(plates: Plates, capsys: pytest.CaptureFixture[str]) -> None:
    plates.add()
    plates.add()
    files = [str(path) for path in plates.paths]
    expected = run(plates.paths, batch="plate", strata="plate", columns=()).to_pandas()
    named = ["--groupby", GROUPBY, "--reference", REFERENCE, "--batch", "plate"]
    for data in (files, [str(plates.folder / "plate*.h5ad")]):
        out = plates.folder / "de.parquet"
        more = ["--strata", "plate", "--backend", "cpu", "--force", "-o", str(out)]
        assert main(["run", *data, *named, *more]) == Exit.OK
        assert_same_bits(pd.read_parquet(out), expected)
    assert main(["estimate", *files, *named, "--join", "outer", "--no-timing"]) == Exit.OK
    assert re.search(r"^cells +110\ngenes +9$", capsys.readouterr().out, re.MULTILINE)
    assert main(["run", "no*.h5ad", *named, "-o", str(out), "--force"]) == Exit.INPUT
    assert "No file matches 'no*.h5ad'" in capsys.readouterr().err
