"""What only seems to be in a file: never written, kept elsewhere, linked to, or no file at all.

HDF5 and zarr give fill values, or bytes of other files, without a word. Each is refused, unless
``allow=`` names it.
"""

from __future__ import annotations

import os
import shutil
import socket
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pytest
import zarr
from scipy import sparse
from screens import as_anndata
from stored_screens import assert_same_bits

from pdex_gpu import differential_expression, estimate, open_result, pseudobulk
from pdex_gpu.cli import main
from pdex_gpu.errors import DataError, FileFormatError, OptionError
from pdex_gpu.utils.exit_codes import Exit

N_CELLS, N_GENES = 60, 12
NODES = ["X/data", "X/indices", "X/indptr", "obs/group/codes", "layers/dense"]


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    rng = np.random.default_rng(3)
    values = rng.poisson(1.0, (N_CELLS, N_GENES)).astype("f4")
    adata = as_anndata(sparse.csr_matrix(values), rng.integers(0, 3, N_CELLS))
    adata.obs["group"] = adata.obs["group"].astype("category")
    adata.layers["dense"] = values
    return adata


@pytest.fixture
def path(screen: ad.AnnData, tmp_path: Path) -> Path:
    folder = tmp_path / "screens"
    folder.mkdir()
    screen.write_h5ad(folder / "screen.h5ad")
    return folder / "screen.h5ad"


def run(data: Any, **options: Any) -> Any:
    return differential_expression(data, "group", reference="ref", progress=False, **options)


def layer_of(name: str) -> dict[str, str]:
    return {"layer": "dense"} if name == "layers/dense" else {}


def replace(path: Path, name: str, make: Callable[[h5py.File, np.ndarray], None]) -> None:
    """Another dataset in place of one, with its attributes."""
    with h5py.File(path, "r+") as file:
        values, attributes = file[name][()], dict(file[name].attrs)
        del file[name]
        make(file, values)
        if isinstance(file.get(name, getlink=True), h5py.HardLink):
            file[name].attrs.update(attributes)


def refused(data: Any, says: str, **options: Any) -> str:
    with pytest.raises(FileFormatError, match=says) as told:
        run(data, **options)
    assert type(told.value) is FileFormatError
    return str(told.value)


@pytest.mark.parametrize("chunks", [None, (7,), (40,)])
@pytest.mark.parametrize("name", NODES)
def test_what_was_never_written(path, name, chunks):
    def make(file: h5py.File, values: np.ndarray) -> None:
        rows = None if chunks is None else (*chunks, *values.shape[1:])
        file.create_dataset(name, values.shape, values.dtype, chunks=rows)

    replace(path, name, make)
    says = "was never written" if chunks is None else r"of \d+ chunks were never written"
    text = refused(path, f"{name} of .*screen.h5ad.* {says}", **layer_of(name))
    assert "allow='unwritten' (--allow unwritten)" in text


@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}], ids=["plain", "gzip"])
@pytest.mark.parametrize("name", NODES)
def test_one_chunk_that_was_never_written(path, name, options):
    def make(file: h5py.File, values: np.ndarray) -> None:
        chunks = (9, *values.shape[1:])
        made = file.create_dataset(name, values.shape, values.dtype, chunks=chunks, **options)
        made[:9], made[18:] = values[:9], values[18:]

    replace(path, name, make)
    says = rf"{name} of .*: 1 of \d+ chunks were never written"
    refused(path, says, **layer_of(name))
    data = ad.read_h5ad(path, backed="r") if name.startswith("X/") else path
    refused(data, says, **layer_of(name))
    if data is not path:
        data.file.close()


@pytest.mark.thorough
def test_what_was_never_written_may_be_zeros(path, screen):
    """A dense matrix of which only rows with counts were written."""
    values = screen.layers["dense"].copy()
    values[20:40] = 0

    def make(file: h5py.File, _: np.ndarray) -> None:
        made = file.create_dataset("layers/dense", values.shape, "f4", chunks=(10, N_GENES))
        made[:20], made[40:] = values[:20], values[40:]

    replace(path, "layers/dense", make)
    refused(path, "2 of 6 chunks were never written", layer="dense")
    told = screen.copy()
    told.X = values
    found = run(path, layer="dense", allow="unwritten")
    assert_same_bits(found, run(told))
    assert found.provenance["allow"] == ["unwritten"]
    bulk = pseudobulk(path, "group", layer="dense", allow=["unwritten"])
    np.testing.assert_array_equal(bulk.X, pseudobulk(told, "group").X)
    assert estimate(path, "group", reference="ref", layer="dense", allow="unwritten").seconds
    with pytest.raises(FileFormatError, match="never written"):
        estimate(path, "group", reference="ref", layer="dense")
    with pytest.raises(FileFormatError, match="never written"):
        pseudobulk(path, "group", layer="dense")


def test_the_command_line_allows_it(path, tmp_path, capsys):
    replace(path, "layers/dense", lambda f, v: f.create_dataset("layers/dense", v.shape, "f4"))
    out = tmp_path / "out.parquet"
    call = ["run", str(path), "--groupby", "group", "--reference", "ref", "-o", str(out)]
    call += ["--layer", "dense", "--quiet"]
    assert main(call) == Exit.INPUT
    assert "--allow unwritten" in " ".join(capsys.readouterr().err.split())
    assert main([*call, "--allow", "unwritten"]) == Exit.OK
    assert np.all(open_result(out).load()["p_value"] == 1.0)


@pytest.mark.parametrize("allow", ["all", 1, None, ["unwritten", "x"], b"external"])
def test_what_is_no_allowance(path, allow):
    with pytest.raises(OptionError, match="allow"):
        run(path, allow=allow)


def virtual(path: Path, name: str, source: str, rows: int | None = None) -> None:
    """A dataset whose values are to come from the dataset ``values`` of another file."""

    def make(file: h5py.File, values: np.ndarray) -> None:
        n = len(values) if rows is None else rows
        layout = h5py.VirtualLayout(values.shape, values.dtype)
        layout[:n] = h5py.VirtualSource(source, "values", (n, *values.shape[1:]))
        file.create_virtual_dataset(name, layout)

    replace(path, name, make)


def part(path: Path, screen_path: Path, name: str, n: int | None = None) -> None:
    with h5py.File(screen_path) as file, h5py.File(path, "w") as made:
        made["values"] = file[name][:n]


@pytest.mark.parametrize("name", NODES)
def test_a_virtual_dataset(path, name, tmp_path):
    want = run(path, **layer_of(name))
    part(path.with_name("part.h5"), path, name)
    virtual(path, name, "part.h5")
    assert_same_bits(run(path, **layer_of(name)), want)
    part(path.with_name("part.h5"), path, name, 5)
    says = r"part of it should come from 'values' of .*part\.h5, .* its shape is \(5"
    refused(path, says, **layer_of(name))
    path.with_name("part.h5").unlink()
    refused(path, rf"{name} of .*: part of it .* 'part\.h5', which does not", **layer_of(name))


def test_a_virtual_dataset_without_its_dataset_or_of_a_part(path):
    part(path.with_name("part.h5"), path, "X/data")
    with h5py.File(path.with_name("part.h5"), "r+") as file:
        file.move("values", "others")
    virtual(path, "X/data", "part.h5")
    refused(path, r"'values' of .*part\.h5, which has no such dataset")
    with h5py.File(path.with_name("part.h5"), "r+") as file:
        file.create_dataset("values", file["others"].shape, "f4")
    refused(path, r"values of .*part\.h5 was never written")
    with h5py.File(path.with_name("part.h5"), "r+") as file:
        del file["values"]
        file.move("others", "values")
    with h5py.File(path, "r+") as file:
        n = file["X/data"].shape[0]
    virtual(path, "X/data", "part.h5", rows=10)
    refused(path, rf"only 10 of {n} values have a source")


def test_a_virtual_dataset_of_itself(path):
    virtual(path, "X/data", "screen.h5ad")
    with h5py.File(path, "r+") as file:
        file["values"] = h5py.SoftLink("/X/data")
    refused(path, "forms a loop")


@pytest.mark.parametrize("name", NODES)
def test_a_virtual_dataset_of_another_folder(path, name, tmp_path):
    want = run(path, **layer_of(name))
    part(tmp_path / "part.h5", path, name)
    virtual(path, name, str(tmp_path / "part.h5"))
    refused(path, r"points outside the folder .*/part\.h5'.*allow='external'", **layer_of(name))
    assert_same_bits(run(path, allow="external", **layer_of(name)), want)
    virtual(path, name, "../part.h5")
    refused(path, "points outside the folder", **layer_of(name))
    path.with_name("part.h5").symlink_to(tmp_path / "part.h5")
    virtual(path, name, "part.h5")
    refused(path, "points outside the folder", **layer_of(name))
    virtual(path, name, "/none/part.h5")
    path.with_name("part.h5").unlink()
    refused(path, "which does not exist", allow="external", **layer_of(name))


@pytest.mark.parametrize("name", NODES)
def test_raw_bytes_of_another_file(path, name, tmp_path):
    want = run(path, **layer_of(name))
    raw = tmp_path / "raw"

    def make(file: h5py.File, values: np.ndarray) -> None:
        values.tofile(raw)
        external = [(str(raw), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(name, values.shape, values.dtype, external=external)

    replace(path, name, make)
    refused(path, f"{name} of .* is not in the file: .*/raw'.*allow='ext", **layer_of(name))
    assert_same_bits(run(path, allow="external", **layer_of(name)), want)
    os.truncate(raw, raw.stat().st_size - 1)
    refused(path, "bytes from other files, which hold only", allow="external", **layer_of(name))
    raw.unlink()
    refused(path, "bytes from other files, which hold only 0", allow="external", **layer_of(name))
    os.mkfifo(raw)
    refused(path, "/raw' is a pipe", allow="external", **layer_of(name))


@pytest.mark.parametrize("name", ["X", "X/data", "obs", "obs/group", "obs/group/codes", "var"])
def test_links_to_other_files(path, name, tmp_path):
    want = run(path)
    others = {"near.h5ad": path.with_name("near.h5ad"), "../far.h5ad": tmp_path / "far.h5ad"}
    for other in others.values():
        shutil.copy(path, other)
    others[str(tmp_path / "far.h5ad")] = others["../far.h5ad"]
    with h5py.File(path, "r+") as file:
        del file[name]
    for told in others:
        with h5py.File(path, "r+") as file:
            file.pop(name, None) if isinstance(file.get(name), h5py.Group) else None
            if file.get(name, getlink=True) is not None:
                del file[name]
            file[name] = h5py.ExternalLink(told, name)
        if told == "near.h5ad":
            assert_same_bits(run(path), want)
        else:
            refused(path, rf"{name} of .*: a link points outside .*/far\.h5ad'.*allow='external'")
            assert_same_bits(run(path, allow="external"), want)
    for other in others.values():
        other.unlink(missing_ok=True)
    refused(path, "which does not exist", allow="external")
    os.mkfifo(tmp_path / "far.h5ad")
    refused(path, r"far\.h5ad' is a pipe", allow="external")


@pytest.mark.parametrize("name", ["X", "X/data", "obs", "obs/group/codes"])
def test_links_that_lead_round(path, name):
    with h5py.File(path, "r+") as file:
        del file[name]
        file[name] = h5py.SoftLink("/other")
        file["other"] = h5py.SoftLink(f"/{name}")
    refused(path, f"^{name} of .*screen.h5ad forms a loop")
    with h5py.File(path, "r+") as file:
        del file["other"]
        file["other"] = h5py.ExternalLink(path.name, f"/{name}")
    refused(path, "forms a loop")


def test_links_within_a_file(path):
    want = run(path)
    with h5py.File(path, "r+") as file:
        file.move("X/data", "kept/here")
        file["X/data"] = h5py.SoftLink("/kept/here")
        file.move("obs", "kept/obs")
        file["obs"] = h5py.SoftLink("kept/./obs")
    assert_same_bits(run(path), want)


def test_a_type_is_no_matrix(path):
    with h5py.File(path, "r+") as file:
        del file["X"]
        file["X"] = np.dtype("f8")
    refused(path, "X of .* is neither a dataset nor a group")


@pytest.mark.parametrize(
    ("part", "change", "says"),
    [
        ("indptr", lambda v: 0 * v, r"it ends at 0, but there are \d+ data values and indices"),
        ("indptr", lambda v: v - (v == v[-1]), r"it ends at \d+, but there are"),
        ("indptr", lambda v: v + 1, "rise from 0"),
        ("indptr", lambda v: v[::-1], "rise from 0"),
        ("indptr", lambda v: v[:-1], "must hold 61 numbers"),
        ("indices", lambda v: v[:-1], r"it has \d+ data values but \d+ indices"),
        ("data", lambda v: v[:-1], r"it has \d+ data values but \d+ indices"),
        ("data", lambda v: v[:0], "it has 0 data values but"),
    ],
)
def test_arrays_that_do_not_go_together(path, part, change, says):
    replace(path, f"X/{part}", lambda f, v: f.create_dataset(f"X/{part}", data=change(v)))
    refused(path, rf"X.* of .*screen.h5ad is malformed: .*{says}")


@pytest.mark.parametrize("shape", [[60], [60, 12, 1], [60.5, 12], [-60, 12], "x", [[60], [12]]])
def test_shapes_that_are_none(path, shape):
    with h5py.File(path, "r+") as file:
        file["X"].attrs["shape"] = shape
    if shape == [[60], [12]]:
        run(path)
    else:
        refused(path, "without usable shape")


def test_the_order_of_columns_is_a_list_of_names(path):
    """It serves messages only: nothing else depends on it."""
    whole = run(path)
    with h5py.File(path, "r+") as file:
        file["obs"].attrs["column-order"] = 3
    assert run(path).to_pandas().equals(whole.to_pandas())
    with pytest.raises(FileFormatError, match="column-order of obs should be a list of names"):
        differential_expression(path, "gruop", reference="ref", progress=False)


def test_labels_are_shuffled(path):
    """HDF5 notes no width for the filter where texts vary in length."""
    whole = run(path)
    replace(
        path,
        "obs/group/categories",
        lambda f, v: f.create_dataset("obs/group/categories", data=v, chunks=(2,), shuffle=True),
    )
    assert_same_bits(run(path), whole)


@pytest.mark.filterwarnings("ignore:Writing zarr v2:UserWarning")
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_a_zarr_store_of_one_gene(tmp_path, kind):
    """All indices by row are zeros, which writers leave out."""
    values = np.arange(1, N_CELLS + 1, dtype=np.float32)[:, None] % 7
    adata = as_anndata(kind(values), np.arange(N_CELLS) % 2)
    adata.write_zarr(tmp_path / "one.zarr")
    assert_same_bits(run(tmp_path / "one.zarr"), run(adata))


@pytest.mark.parametrize("where", ["layers", "obsm"])
def test_an_array_where_a_group_belongs(path, where):
    with h5py.File(path, "r+") as file:
        del file[where]
        file[where] = np.zeros((2, 2))
    asked = {"layers": {"layer": "dense"}, "obsm": {"guides": "g", "comparison": "rest"}}[where]
    groupby = "group" if where == "layers" else None
    with pytest.raises(FileFormatError, match=f"{where} is an array instead of a group"):
        differential_expression(path, groupby, reference="ref", progress=False, **asked)


# What is no file.


def pipe(path: Path) -> None:
    os.mkfifo(path)


def bound(path: Path) -> None:
    here = os.getcwd()
    os.chdir(path.parent)  # names of sockets are short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(here)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are none on Windows")
@pytest.mark.parametrize("name", ["a.h5ad", "a.h5mu", "a.zip", "a.parquet", "a"])
@pytest.mark.parametrize(
    ("make", "kind"),
    [(pipe, "a pipe"), (bound, "a socket"), (lambda p: p.symlink_to("/dev/zero"), "a device")],
)
def test_pipes_sockets_and_devices_are_not_opened(tmp_path, make, kind, name):
    path = tmp_path / name
    make(path)
    for call in (run, open_result, lambda p: pseudobulk(p, "group"), lambda p: estimate(p, "g")):
        with pytest.raises(FileFormatError, match=f"is {kind}, but a file or folder is needed"):
            call(path)


# zarr


def write_zarr(adata: ad.AnnData, path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what anndata is going to do otherwise
        adata.write_zarr(path)


@pytest.fixture(params=[2, 3])
def store(request, screen: ad.AnnData, tmp_path: Path) -> Path:
    folder = tmp_path / "stores"
    folder.mkdir()
    with ad.settings.override(zarr_write_format=request.param):
        write_zarr(screen, folder / "screen.zarr")
    return folder / "screen.zarr"


def chunk(store: Path, name: str) -> Path:
    """The only chunk of an array, or the first."""
    files = [p for p in (store / name).rglob("*") if p.is_file()]
    return min(p for p in files if p.name != "zarr.json" and not p.name.startswith(".z"))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", [*NODES[:-1], "obs/group/categories", "var/_index"])
def test_a_chunk_that_is_not_there(store, name):
    chunk(store, name).unlink()
    refused(store, rf"{name} of .*screen\.zarr.* missing|{name}: chunk 0")


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", NODES[:-1])
def test_a_chunk_that_is_not_in_a_zip_file(store, name):
    chunk(store, name).unlink()
    packed = shutil.make_archive(str(store), "zip", store)
    refused(packed, rf"{name} of .*screen\.zarr\.zip.* missing")


@pytest.mark.filterwarnings("ignore:Consolidated metadata")
def test_zeros_that_were_left_out_of_a_dense_matrix(store, screen):
    """As zarr writes them."""
    values = screen.layers["dense"].copy()
    values[:20] = 0
    root = zarr.open_group(store, mode="r+", use_consolidated=False)
    root["layers"].create_array("gaps", data=values, chunks=(10, N_GENES))
    zarr.consolidate_metadata(root.store)
    written = [p for p in (store / "layers" / "gaps").rglob("*") if p.name[0].isdigit()]
    assert len([p for p in written if p.is_file()]) == 4
    told = screen.copy()
    told.X = values
    assert_same_bits(run(store, layer="gaps"), run(told))


def test_codes_of_one_category_may_be_left_out(store, screen):
    told = screen.copy()
    told.obs["batch"] = np.repeat("only", N_CELLS)
    told.obs["batch"] = told.obs["batch"].astype("category")
    write_zarr(told, store)
    assert not list((store / "obs/batch/codes").rglob("0"))
    assert_same_bits(run(store, strata="batch"), run(told, strata="batch"))


def test_a_folder_where_a_chunk_belongs(store):
    for name in ("layers/dense", "X/data"):
        found = chunk(store, name)
        found.unlink()
        found.mkdir()
    refused(store, "is a folder instead of a file", layer="dense")
    refused(store, "is a folder instead of a file")


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", ["X/data", "obs/group/codes", "layers/dense"])
def test_links_out_of_a_store(store, name, tmp_path):
    want = run(store, **layer_of(name))
    found = chunk(store, name)
    found.rename(tmp_path / "kept")
    found.symlink_to(tmp_path / "kept")
    says = r"is a link that points outside the store, to '.*/kept'\. .*allow='external'"
    refused(store, says, **layer_of(name))
    assert_same_bits(run(store, allow="external", **layer_of(name)), want)
    (tmp_path / "kept").rename(store / "kept")
    found.unlink()
    found.symlink_to(store / "kept")
    assert_same_bits(run(store, **layer_of(name)), want)
    found.unlink()
    (store / "kept").rename(found)
    shutil.move(str(store / name), tmp_path / "folder")
    (store / name).symlink_to(tmp_path / "folder")
    refused(store, "is a link that points outside the store", **layer_of(name))
    found = chunk(store, name)
    found.unlink()
    os.mkfifo(found)
    refused(store, "is a pipe", allow="external", **layer_of(name))


def test_malformed_guides_in_files(path, screen):
    guides = sparse.csr_matrix(np.eye(N_CELLS, 4, dtype=bool))
    told = screen.copy()
    told.obsm["guides"] = guides
    told.write_h5ad(path)

    def call() -> Any:
        return differential_expression(path, guides="guides", comparison="rest", progress=False)

    assert_same_bits(
        call(), differential_expression(told, guides="guides", comparison="rest", progress=False)
    )
    replace(path, "obsm/guides/indices", lambda f, v: f.create_dataset(
        "obsm/guides/indices", data=v + 10**6))  # fmt: skip
    with pytest.raises((FileFormatError, DataError), match=r"indices.* is malformed: row 0 has an"):
        call()
