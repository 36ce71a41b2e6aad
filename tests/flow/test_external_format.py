"""A storage format from outside the package: defined here, and registered in one line."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.cli.options import short_names
from pdex_gpu.design.labels import no_labels
from pdex_gpu.doctor.results import examine
from pdex_gpu.errors import (
    ColumnError,
    FileFormatError,
    LayerError,
    OptionError,
    UnsupportedDataError,
    unknown,
)
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen
from pdex_gpu.sources.base import Reading, Source
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.dataset import Dataset
from pdex_gpu.sources.formats import FORMATS, Format, FormatCode, register, shared_path, unregister
from pdex_gpu.sources.obs_columns import Values, as_labels
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.stored.base import Where, position
from pdex_gpu.sources.stored.dense import StoredDense
from pdex_gpu.sources.stored.sparse import SparseArrays, StoredCsc, StoredCsr
from pdex_gpu.sources.views.view import repeat, select

FORMS = ["csr", "csc", "dense"]
NOTE = "screen.json"
N_CELLS, N_GENES = 300, 40


# --- the format: a folder with a note and one .npy file per array ---------------------------------


class Folder:
    """The folder that arrays come from; see `Origin`."""

    def __init__(self, path: Path) -> None:
        self._path, self._seen = path, self._now(path)

    @staticmethod
    def _now(path: Path) -> dict[str, int]:
        return {file.name: file.stat().st_mtime_ns for file in sorted(path.rglob("*.npy"))}

    def identity(self) -> dict[str, int | str]:
        return {"folder": str(self._path), "files": str(self._seen)}

    def check_unchanged(self) -> None:
        if self._now(self._path) != self._seen:
            raise FileFormatError(f"{self._path} was changed while it was read. Start again.")


class NpyArray:
    """An array in a .npy file; see `StoredArray`."""

    def __init__(self, path: Path, name: str, file: Folder) -> None:
        try:
            self._values = np.load(path, mmap_mode="r")
        except (OSError, ValueError, EOFError) as error:
            raise FileFormatError(
                f"{path} is missing, truncated or damaged. Copy the folder again. numpy says: "
                f"{error}"
            ) from error
        self.name = f"{name} of {path}"
        self.shape, self.dtype = self._values.shape, self._values.dtype
        self.chunks = (16, *self.shape[1:])
        self.n_bytes = self._values.nbytes
        self.file: Folder | None = file

    def read(self, where: Where, out: np.ndarray) -> int:
        try:
            out[...] = self._values[where]
        except ValueError as error:
            raise FileFormatError(f"{self.name}, {position(where)}: {error}") from error
        return out.nbytes


class NpyFolders(FormatCode):
    """Folders with .npy files."""

    def claims(self, data: Any) -> bool:
        return isinstance(data, str | os.PathLike) and os.path.exists(os.path.join(data, NOTE))

    def open(self, data: Any, groupby: str | None, choice: MatrixChoice) -> Dataset:
        path = Path(data)
        note = json.loads((path / NOTE).read_text())
        layer = choice.layer
        if layer is not None and layer not in note["layers"]:
            raise LayerError(unknown("layer", layer, note["layers"]))

        def column(name: str) -> Any:
            if name not in note["obs"]:
                raise ColumnError(unknown("column of obs", name, list(note["obs"])))
            values = np.array(note["obs"][name], object)
            return as_labels(Values(values, np.array([v is None for v in values])))

        n_cells = len(note["cells"])
        return Dataset(
            source=self._source(path, "X" if layer is None else layer, note),
            labels=no_labels(n_cells) if groupby is None else column(groupby),
            genes=np.array(note["genes"], object),
            cell_name=lambda row: str(note["cells"][row]),
            description=f"folder {path}",
            column=column,
        )

    def _source(self, path: Path, matrix: str, note: dict[str, Any]) -> Source:
        what, shape = f"matrix {matrix!r}", (len(note["cells"]), len(note["genes"]))
        file = Folder(path)
        names = ("values",) if note["form"] == "dense" else ("data", "indices", "indptr")
        arrays = [NpyArray(path / matrix / f"{name}.npy", f"{what}/{name}", file) for name in names]
        if note["form"] == "dense":
            return StoredDense(arrays[0], what, file)
        indptr = np.empty(arrays[2].shape, arrays[2].dtype)
        arrays[2].read((slice(0, len(indptr)),), indptr)
        by_row = note["form"] == "csr"
        parts = SparseArrays(arrays[0], arrays[1], indptr, shape, by_row, what, file)
        return StoredCsr(parts) if by_row else StoredCsc(parts)


THE_LINE = Format("npy", NpyFolders(), files="folders of .npy files", short="folders of .npy",
                  suffixes=(".npys",), folder="a folder of .npy files", marks=(NOTE,))  # fmt: skip


def write_folder(path: Path, adata: Any, form: str, layers: tuple[str, ...] = ()) -> Path:
    """Write an AnnData in the format of this file."""
    for name in ("X", *layers):
        matrix = adata.X if name == "X" else adata.layers[name]
        (path / name).mkdir(parents=True)
        parts = {"values": matrix.toarray()} if form == "dense" else vars_of(matrix, form)
        for part, values in parts.items():
            np.save(path / name / f"{part}.npy", values)
    obs = {column: adata.obs[column].tolist() for column in adata.obs}
    note = {"form": form, "cells": [*adata.obs_names], "genes": [*adata.var_names],
            "obs": obs, "layers": layers}  # fmt: skip
    (path / NOTE).write_text(json.dumps(note))
    return path


def vars_of(matrix: Any, form: str) -> dict[str, np.ndarray]:
    matrix = sparse.csr_matrix(matrix) if form == "csr" else sparse.csc_matrix(matrix)
    return {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}


# --- what it can do, once registered --------------------------------------------------------------


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register(THE_LINE)
    yield
    unregister(THE_LINE.name)


@pytest.fixture(scope="module")
def adata() -> Any:
    found = simulate_screen(N_CELLS, N_GENES, 3, mean_umi=300, seed=2).to_anndata()
    found.obs["donor"] = [f"d{i % 3}" for i in range(found.n_obs)]
    found.layers["halved"] = found.X * 0.5
    return found


@pytest.fixture(scope="module", params=FORMS)
def folder(request: Any, adata: Any, tmp_path_factory: Any) -> Path:
    path = tmp_path_factory.mktemp(request.param) / "screen.npys"
    return write_folder(path, adata, request.param, ("halved",))


def same(found: Any, wanted: Any) -> None:
    pd.testing.assert_frame_equal(found.to_pandas(), wanted.to_pandas(), check_exact=True)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("options", [
    {}, {"metric": "t-test", "layer": "halved", "is_log1p": False},
    {"gene_chunk_size": 7, "n_threads": 2},
    {"metric": "ks", "comparison": "rest", "gene_chunk_size": 9},
])  # fmt: skip
def test_results_are_those_of_the_data_in_memory(folder, adata, options):
    options = {"reference": REFERENCE, "backend": "cpu", **options}
    if options.get("comparison") == "rest":
        del options["reference"]
    found = pdex_gpu.differential_expression(folder, GROUPBY, **options)
    same(found, pdex_gpu.differential_expression(adata, GROUPBY, **options))


def test_a_path_as_text_and_a_checkpointed_run(folder, adata, tmp_path):
    out = tmp_path / "de.parquet"
    pdex_gpu.differential_expression(str(folder), GROUPBY, reference=REFERENCE, out=out)
    wanted = pdex_gpu.differential_expression(adata, GROUPBY, reference=REFERENCE)
    pd.testing.assert_frame_equal(
        pd.read_parquet(out), wanted.to_pandas(), check_exact=True, check_dtype=False,
        check_categorical=False,
    )  # fmt: skip


def test_calibrate(folder, adata):
    options = {"reference": REFERENCE, "units": "donor", "seed": 3}
    found, wanted = (pdex_gpu.calibrate(data, GROUPBY, **options) for data in (folder, adata))
    for name in ("targets", "n_uninformative", "control_cells", "assignment"):
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name))
    np.testing.assert_array_equal(found.of().n_false_positives, wanted.of().n_false_positives)
    for name, value in vars(wanted.of().total).items():
        np.testing.assert_array_equal(getattr(found.of().total, name), value)


@pytest.mark.parametrize("method", ["sum", "median"])
def test_pseudobulk(folder, adata, method):
    found, wanted = (
        pdex_gpu.pseudobulk(data, ["donor", GROUPBY], method=method) for data in (folder, adata)
    )
    np.testing.assert_array_equal(found.X, wanted.X)
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
    assert found.var_names.equals(wanted.var_names)


@pytest.mark.sampled(every=3)
def test_estimate(folder, adata):
    found, wanted = (
        pdex_gpu.estimate(data, GROUPBY, reference=REFERENCE) for data in (folder, adata)
    )
    assert found.n_rows == wanted.n_rows
    assert found.n_comparisons == wanted.n_comparisons
    assert found.file_bytes > 0


def test_command_line(folder, adata, tmp_path, capsys):
    out = tmp_path / "de.csv"
    call = ["run", str(folder), "--groupby", GROUPBY, "--reference", REFERENCE, "-o", str(out)]
    assert main(call) == 0, capsys.readouterr().err
    other = tmp_path / "other.csv"
    pdex_gpu.differential_expression(adata, GROUPBY, reference=REFERENCE).to_csv(other)
    assert out.read_text() == other.read_text()


def values_of(source: Source, step: int = 11) -> np.ndarray:
    """Read a source in ranges of genes, into a dense array."""
    edges = [*range(0, source.n_genes, step), source.n_genes]
    parts = []
    with source.open(edges, 1 << 30, Reading()) as reader:
        for k in range(len(edges) - 1):
            parts.append(dense(reader.read(k), source.n_cells))
    return np.concatenate(parts, axis=1)


def dense(chunk: Any, n_cells: int) -> np.ndarray:
    if hasattr(chunk, "values"):
        return np.array(chunk.values)
    out = np.zeros((n_cells, chunk.n_genes), chunk.data.dtype)
    if hasattr(chunk, "starts"):
        for i, (a, b) in enumerate(zip(chunk.starts, chunk.stops, strict=True)):
            out[i, chunk.indices[a:b].astype(int) - chunk.gene_start] = chunk.data[a:b]
    else:
        for j in range(chunk.n_genes):
            a, b = chunk.indptr[j], chunk.indptr[j + 1]
            out[chunk.indices[a:b].astype(int), j] = chunk.data[a:b]
    return out


def test_it_is_read_in_part(folder, adata):
    rng = np.random.default_rng(0)
    cells, genes = rng.integers(0, N_CELLS, 70), rng.permutation(N_GENES)[:23]
    with open_dataset(folder, None) as dataset:
        part = select(dataset.source, cells, genes)
        assert part.n_bytes < dataset.source.n_bytes
        np.testing.assert_array_equal(values_of(part), adata.X.toarray()[cells][:, genes])
        again = repeat(dataset.source, cells)
        np.testing.assert_array_equal(values_of(again), adata.X.toarray()[cells])


def test_the_drop_in_looks_at_its_first_rows(folder):
    from pdex_gpu.sources.peek import leading_values

    with open_dataset(folder, None) as dataset:
        assert leading_values(dataset.source, 5).size > 0


def test_workers_get_its_path(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert shared_path(folder.name) == str(folder)


# --- refusals -------------------------------------------------------------------------------------


def test_missing_columns_and_layers(folder):
    with pytest.raises(ColumnError, match="donor"):
        pdex_gpu.differential_expression(folder, "donnor", reference=REFERENCE)
    with pytest.raises(LayerError, match="halved"):
        pdex_gpu.differential_expression(folder, GROUPBY, reference=REFERENCE, layer="halve")


@pytest.mark.parametrize("name", ["data", "indices", "indptr", "values"])
@pytest.mark.parametrize("damage", ["cut", "gone", "text"])
def test_damaged_files(adata, tmp_path, name, damage):
    path = write_folder(tmp_path / "screen.npys", adata, "dense" if name == "values" else "csr")
    file = path / "X" / f"{name}.npy"
    whole = file.read_bytes()
    file.unlink()
    if damage != "gone":
        file.write_bytes(whole[: len(whole) // 2] if damage == "cut" else b"not an array")
    with pytest.raises(FileFormatError, match=r"\.npy"):
        pdex_gpu.differential_expression(path, GROUPBY, reference=REFERENCE)


def test_indices_out_of_range(adata, tmp_path):
    path = write_folder(tmp_path / "screen.npys", adata, "csr")
    indices = np.load(path / "X" / "indices.npy")
    indices[5] = N_GENES
    np.save(path / "X" / "indices.npy", indices)
    with pytest.raises(FileFormatError, match="40 columns"):
        pdex_gpu.differential_expression(path, GROUPBY, reference=REFERENCE)


def test_a_change_while_it_is_read(adata, tmp_path):
    path = write_folder(tmp_path / "screen.npys", adata, "csr")
    with open_dataset(path, None) as dataset:
        os.utime(path / "X" / "data.npy", ns=(1, 1))
        with pytest.raises(FileFormatError, match="was changed"):
            values_of(dataset.source)


def test_messages_name_it(folder, tmp_path):
    with pytest.raises(UnsupportedDataError, match=r"zarr stores and folders of \.npy files"):
        open_dataset(3, None)
    with pytest.raises(FileFormatError, match=r"or zarr\.json or screen\.json file"):
        open_dataset(tmp_path, None)
    with pytest.raises(OptionError, match="not a results file"):
        examine(tmp_path / "screen.npys")
    assert short_names() == ".h5ad, Cell Ranger's .h5, zarr or folders of .npy"


def test_it_is_gone_once_unregistered(folder):
    unregister(THE_LINE.name)
    with pytest.raises(FileFormatError, match="is a folder"):
        open_dataset(folder, None)


# --- the registry ---------------------------------------------------------------------------------


def test_a_second_registration_replaces_the_first():
    register(THE_LINE)
    assert [form.name for form in FORMATS].count("npy") == 1


def test_extras_of_formats_are_those_of_the_project():
    text = (Path(pdex_gpu.__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8")
    extras = tomllib.loads(text)["project"]["optional-dependencies"]
    for form in FORMATS:
        if form.extra:
            declared = [text.partition(">")[0] for text in extras[form.extra]]
            assert declared == list(form.packages)
            assert form.how_to_install == f"pip install {' '.join(form.packages)}"
