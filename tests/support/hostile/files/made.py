"""What is damaged: small files of every kind, each made once a process and copied."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import warnings
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

import pdex_gpu
from pdex_gpu.errors import PdexGpuError

from ..child import KEPT

GROUP = "g"
N_CELLS, N_GENES = 60, 13
#: What is asked of every call.
CALL: dict[str, Any] = {
    "backend": "cpu", "progress": False, "memory": "100MB", "n_threads": 1,
}  # fmt: skip

VALUES = ["counts", "log", "integers", "doubles"]
LABELS = ["categorical", "text", "integer", "nullable", "boolean"]
METRICS = ["wilcoxon", "wilcoxon", "t-test", "anderson", "ks"]
H5AD = [
    "h5ad csr", "h5ad csr gzip", "h5ad csr lzf", "h5ad csr chunked", "h5ad csc", "h5ad csc gzip",
    "h5ad dense", "h5ad dense gzip", "h5ad dense lzf", "h5ad layer", "h5ad csr raw",
    "h5ad csr latest", "h5ad dense latest gzip", "h5ad dense shuffle", "h5mu csr",
]  # fmt: skip
ZARR = [
    "zarr2 csr", "zarr2 dense", "zarr2 csc", "zarr3 csr", "zarr3 csc", "zarr3 dense",
    "zarr3 csr sharded", "zarr3 dense sharded", "zarr2 csr zip", "zarr3 dense zip",
]  # fmt: skip


@cache
def kept() -> Path:
    """A folder for what is made once, which goes when the process ends."""
    folder = tempfile.mkdtemp(prefix=KEPT)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Path(folder)


def group_names(labels: str) -> list[Any]:
    """The groups of a screen, the reference first."""
    if labels in ("integer", "nullable"):
        return [0, 7, 12, 3]
    return [False, True] if labels == "boolean" else ["ctrl", "STAT1", "β", "A+B"]


@cache
def screen(values: str, labels: str) -> ad.AnnData:
    """A screen in memory."""
    rng = np.random.default_rng([84, VALUES.index(values), LABELS.index(labels)])
    matrix = rng.poisson(1.2, (N_CELLS, N_GENES)).astype("f4")
    if values == "log":
        matrix = np.log1p(matrix * rng.uniform(0.5, 2.0, (N_CELLS, 1))).astype("f4")
    elif values == "doubles":
        matrix = matrix * rng.lognormal(size=(N_CELLS, N_GENES))
    elif values == "integers":
        matrix = matrix.astype("i4")
    names = group_names(labels)
    found = [names[i] for i in rng.integers(0, len(names), N_CELLS)]
    found[: len(names)] = names
    column: Any = pd.Series(found, dtype=object if labels == "text" else None)
    if labels == "categorical":
        column[column.index % 9 == 8] = None
        column = pd.Categorical(column, categories=[*names[::-1], "never seen"])
    elif labels == "nullable":
        column = column.astype("Int64").mask(column.index % 7 == 6)
    obs = pd.DataFrame({"batch": ["x", "y"] * (N_CELLS // 2)}, [f"c{i}" for i in range(N_CELLS)])
    obs[GROUP] = column.array if hasattr(column, "array") else column
    var = pd.DataFrame({"kept": True}, [f"gene{j}" for j in range(N_GENES)])
    return ad.AnnData(matrix, obs, var)


def stored_screen(form: str, values: str, labels: str) -> Path:
    """The same in a file or store."""
    kind = form.split()[0]
    suffix = {"h5ad": ".h5ad", "h5mu": ".h5mu"}.get(kind, ".zip" if "zip" in form else ".zarr")
    path = kept() / f"{form} {values} {labels}{suffix}".replace(" ", "_")
    if not path.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            _write(form, screen(values, labels).copy(), path)
    return path


def _write(form: str, data: ad.AnnData, path: Path) -> None:
    make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}.get(form.split()[1], np.asarray)
    data.X = make(data.X)
    if form == "h5ad layer":
        data.layers["values"] = sparse.csr_matrix(data.X)
        data.X = sparse.csr_matrix(data.shape, dtype="f4")
    if "raw" in form:
        data.raw = data.copy()
    with ad.settings.override(allow_write_nullable_strings=True):
        if form.startswith("zarr"):
            _write_zarr(form, data, path)
        else:
            _write_hdf5(form, data, path)


def _write_hdf5(form: str, data: ad.AnnData, path: Path) -> None:
    libver = "latest" if "latest" in form else None
    with h5py.File(path, "w", libver=libver) as file:
        ad.io.write_elem(file, "mod/rna" if form.startswith("h5mu") else "/", data)
        if form.startswith("h5mu"):
            file.attrs["encoding-type"], file.attrs["encoding-version"] = "MuData", "0.1.0"
        node = file[matrix_of(form)]
        parts = [node] if isinstance(node, h5py.Dataset) else [node["data"], node["indices"]]
        for part in parts:
            store(part, form)


def store(dataset: h5py.Dataset, how: str) -> None:
    """Store a dataset anew: in chunks, with filters."""
    options: dict[str, Any] = {}
    for name in ("gzip", "lzf"):
        if name in how:
            options["compression"] = name
    if "fletcher" in how:
        options["fletcher32"] = True
    if "shuffle" in how:
        options |= {"shuffle": True, "compression": "gzip"}
    if not options and "chunked" not in how:
        return
    options["chunks"] = tuple(max(1, n // 3) for n in dataset.shape)
    replace(dataset, dataset[...], **options)


def replace(node: Any, data: Any, **options: Any) -> h5py.Dataset:
    """Another dataset in a node's place, with its attributes."""
    parent, name, attrs = node.parent, node.name.rpartition("/")[2], dict(node.attrs)
    del parent[name]
    found = parent.create_dataset(name, data=data, **options)
    for key, value in attrs.items():
        found.attrs[key] = value
    return found


def matrix_of(form: str) -> str:
    """Where the matrix is in a file."""
    if form == "h5ad layer":
        return "layers/values"
    return "mod/rna/X" if form.startswith("h5mu") else "X"


def _write_zarr(form: str, data: ad.AnnData, path: Path) -> None:
    import zarr

    folder = path.with_suffix(".folder")
    with ad.settings.override(zarr_write_format=int(form[4])):
        data.write_zarr(folder)
    root = zarr.open_group(folder, mode="r+", use_consolidated=False)
    names = ["X"] if isinstance(root["X"], zarr.Array) else ["X/data", "X/indices"]
    for name in names:
        array = root[name]
        values, attrs = array[...], dict(array.attrs)
        chunks = tuple(max(1, n // 4) for n in values.shape)
        shards = tuple(2 * n for n in chunks) if "sharded" in form else None
        del root[name]
        new = root.create_array(
            name, shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards
        )
        new[...] = values
        new.attrs.update(attrs)
    _consolidate(root, folder, again="dense" in form or "csc" in form)
    if "zip" not in form:
        folder.rename(path)
        return
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(p for p in folder.rglob("*") if p.is_file()):
            archive.write(file, file.relative_to(folder))


def _consolidate(root: Any, folder: Path, *, again: bool) -> None:
    """Write the metadata of all arrays in one place, or leave them where they belong."""
    import zarr

    if again:
        zarr.consolidate_metadata(folder)
    elif root.metadata.zarr_format == 2:
        (folder / ".zmetadata").unlink()
    else:
        note = json.loads((folder / "zarr.json").read_text())
        del note["consolidated_metadata"]
        (folder / "zarr.json").write_text(json.dumps(note))


# --- results -----------------------------------------------------------------------------------

RESULTS = ["plain", "within", "kept", "columns", "kept within", "lone surrogate", "pairs"]


def _result_options(form: str) -> dict[str, Any]:
    options: dict[str, Any] = {"groupby": GROUP, "reference": "ctrl"}
    if "within" in form:
        options["groupby"] = [GROUP, "batch"]
    if "kept" in form:
        options["min_fraction"] = 0.68
    if "columns" in form:
        options["columns"] = ["auroc", "log10_p", "target_n_cells", "cohens_d"]
    if form == "pairs":
        options |= {"comparison": "pairs", "pairs": [("STAT1", "ctrl"), ("β", "STAT1")]}
        del options["reference"]
    return options


@cache
def result(form: str) -> Any:
    """A result in memory."""
    data = screen("log", "text").copy()
    if form == "lone surrogate":
        data.var_names = [f"gene\ud800{j}" for j in range(N_GENES)]
    return pdex_gpu.differential_expression(data, **_result_options(form), **CALL)


def stored_result(form: str) -> Path:
    """The same in a file."""
    path = kept() / f"{form}.parquet".replace(" ", "_")
    if not path.exists():
        result(form).to_parquet(path)
    return path


@cache
def calibration() -> Any:
    """A calibration of mock groups."""
    data = screen("log", "text")
    return pdex_gpu.calibrate(
        data, GROUP, reference="ctrl", n_repeats=2, seed=3, backend="cpu", progress=False
    )


def stored_calibration() -> Path:
    """The same in a file."""
    path = kept() / "calibration.json"
    if not path.exists():
        calibration().to_json(path)
    return path


# --- interrupted runs --------------------------------------------------------------------------

CHECKPOINTS = ["plain", "kept", "within", "rows"]


def run_options(form: str) -> dict[str, Any]:
    """The call of a run that is interrupted."""
    storage = "h5ad csr" if form == "rows" else "h5ad csc"
    options = _result_options(form) | CALL
    return options | {"data": stored_screen(storage, "log", "text"), "gene_chunk_size": 2}


class _Stop(Exception):
    pass


def interrupted(form: str) -> tuple[Path, bytes]:
    """The checkpoint of an interrupted run, and the bytes of the output of a complete one."""
    folder = kept() / f"checkpoint_{form}"
    whole = folder / "whole" / "out.parquet"
    if not folder.exists():
        whole.parent.mkdir(parents=True)
        pdex_gpu.differential_expression(out=whole, **run_options(form))
        left = folder / "left" / "out.parquet"
        left.parent.mkdir()

        def stop(progress: Any) -> None:
            if len(list(left.parent.glob(".*/genes-*"))) >= 4:
                raise _Stop

        try:
            options = run_options(form) | {"progress": stop}
            pdex_gpu.differential_expression(out=left, **options)
        except (_Stop, PdexGpuError):
            pass
    return folder / "left" / ".out.parquet.checkpoint", whole.read_bytes()
