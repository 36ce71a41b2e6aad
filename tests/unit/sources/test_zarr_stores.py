"""zarr stores, formats 2 and 3, sharded and zipped: what anndata writes comes back bit for bit."""

import os
import shutil
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import anndata
import numpy as np
import pytest
from labelled_example import COLUMNS, assert_example, meaning
from labelled_example import example as labelled
from scipy import sparse
from source_reads import DTYPES, EDGES, N_CELLS, N_GENES, example, read_back
from stored_screens import GROUPBY, MEMORY, REFERENCE, assert_same_bits, logged, screen

from pdex_gpu import differential_expression
from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    LayerError,
    MissingDependencyError,
    UnsupportedDataError,
)
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.stored import zarr as zarr_store
from pdex_gpu.utils.parallel import pool_map

zarr = pytest.importorskip("zarr")
V3 = int(zarr.__version__.split(".")[0]) >= 3
if not V3:
    pytest.skip("these tests write with zarr 3", allow_module_level=True)

TINY, AMPLE = 1, 1 << 30
LAYOUTS = ["dense", "csr", "csc"]
FORMATS = ["2", "3", "3 sharded"]

pytestmark = [
    pytest.mark.filterwarnings("ignore:Writing zarr v2"),
    pytest.mark.filterwarnings("ignore:Consolidated metadata"),
    pytest.mark.filterwarnings("ignore:Automatic shard"),
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),
]


def put(group, name, values, form, chunks):
    """An array in small chunks, and shards of two of them along each axis."""
    chunks = tuple(min(c, max(1, n)) for c, n in zip(chunks, values.shape, strict=False))
    shards = tuple(2 * c for c in chunks) if form == "3 sharded" and values.size else None
    array = group.create_array(
        name, shape=values.shape, dtype=values.dtype, chunks=chunks, shards=shards
    )
    array[...] = values
    return array


def write(folder, values, layout, form="3", chunks=(5, 4)):
    """The values as anndata would write them, in small chunks; the node they are at."""
    root = zarr.open_group(folder, mode="w", zarr_format=int(form[0]))
    if layout == "dense":
        return put(root, "X", values, form, chunks)
    matrix = (sparse.csr_matrix if layout == "csr" else sparse.csc_matrix)(values)
    group = root.create_group("X")
    group.attrs["encoding-type"] = f"{layout}_matrix"
    group.attrs["shape"] = list(matrix.shape)
    for name in ("data", "indices", "indptr"):
        put(group, name, getattr(matrix, name), form, (chunks[0] + 2,))
    return group


@contextmanager
def writing(form):
    """What anndata needs to be told to write a format."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the next versions will do
        with (
            anndata.settings.override(zarr_write_format=int(form[0])),
            anndata.settings.override(auto_shard_zarr_v3="sharded" in form),
            anndata.settings.override(allow_write_nullable_strings=True),
        ):
            yield


def save(adata, path, form):
    with writing(form):
        adata.write_zarr(path)
    return path


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_and_format_gives_the_matrix_back(tmp_path, layout, form, budget, edges):
    values = example()
    source = from_node(write(tmp_path / "a.zarr", values, layout, form), what="X")
    assert (source.n_cells, source.n_genes) == values.shape
    assert not source.in_memory
    np.testing.assert_array_equal(read_back(source, edges, budget), values)


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("dtype", [*DTYPES, "f2", ">f4", ">i2"])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("form", ["2", "3"])
def test_every_dtype_comes_back_native(tmp_path, layout, dtype, form):
    values = example(dtype.lstrip(">").replace("f2", "f4"))
    node = write(tmp_path / "a.zarr", values, layout, form)
    parent = node if layout != "dense" else zarr.open_group(tmp_path / "a.zarr", mode="r+")
    name = "data" if layout != "dense" else "X"
    stored = parent[name][:].astype(dtype)
    del parent[name]
    put(parent, name, stored, form, (5, 4))
    source = from_node(node if layout != "dense" else parent["X"], what="X")
    read = read_back(source, [0, 4, N_GENES], TINY)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("index_dtype", ["i4", "i8", "u2", "u8"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_every_index_dtype(tmp_path, layout, index_dtype):
    node = write(tmp_path / "a.zarr", example(), layout)
    for name in ("indices", "indptr"):
        stored = node[name][:].astype(index_dtype)
        del node[name]
        put(node, name, stored, "3", (6,))
    np.testing.assert_array_equal(
        read_back(from_node(node, what="X"), [0, 4, N_GENES], TINY), example()
    )


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("chunks", [(1, 1), (2, 3), (N_CELLS, 2), (3, N_GENES), (999, 999)])
@pytest.mark.parametrize("piece", [1, 64, 1 << 22])
def test_any_chunks_and_pieces(tmp_path, monkeypatch, chunks, piece):
    monkeypatch.setattr(zarr_store, "_PIECE", piece)
    for layout in LAYOUTS:
        node = write(tmp_path / "a.zarr", example(), layout, chunks=chunks)
        for budget in (TINY, AMPLE):
            source = from_node(node, what="X")
            np.testing.assert_array_equal(read_back(source, [0, 3, N_GENES], budget), example())


@pytest.mark.thorough
def test_what_is_decoded_at_a_time_is_bounded(tmp_path, monkeypatch):
    values = np.arange(400.0 * 300).reshape(400, 300)
    node = write(tmp_path / "a.zarr", values, "dense", "3 sharded", (10, 10))
    monkeypatch.setattr(zarr_store, "_PIECE", 4000)
    sizes = []
    original = zarr.Array.__getitem__

    def spy(self, key):
        found = original(self, key)
        sizes.append(found.nbytes)
        return found

    monkeypatch.setattr(zarr.Array, "__getitem__", spy)
    array = zarr_store.ZarrArray(node, "X", False)
    out = np.empty((400, 300))
    array.read((slice(0, 400), slice(0, 300)), out)
    np.testing.assert_array_equal(out, values)
    assert max(sizes) <= 4000
    sizes.clear()
    array.read((slice(15, 26), slice(7, 8)), out[:11, :1])
    np.testing.assert_array_equal(out[:11, :1], values[15:26, 7:8])
    assert sum(sizes) == 11 * 8


@pytest.mark.thorough
def test_several_threads_read_at_once(tmp_path):
    values = np.random.default_rng(0).random((300, 40))
    for layout in LAYOUTS:
        source = from_node(write(tmp_path / "a.zarr", values, layout, chunks=(50, 8)), what="X")
        edges = list(range(0, 41, 4))
        with ThreadPoolExecutor(8) as pool, ThreadPoolExecutor(4) as outer:
            reading = Reading(parallel_map=pool_map(pool), n_threads=8)
            with source.open(edges, TINY, reading) as reader:
                barrier = threading.Barrier(4)

                def read(k, reader=reader, barrier=barrier):
                    if k < 4:
                        barrier.wait()
                    return reader.read(k)

                chunks = list(outer.map(read, range(10)))
        sums = np.concatenate([np.full(c.n_genes, c.gene_start) for c in chunks])
        np.testing.assert_array_equal(sums, np.repeat(edges[:-1], 4))
        np.testing.assert_array_equal(read_back(source, edges, TINY), values)


@pytest.mark.sampled(every=13)
@pytest.mark.parametrize("column", COLUMNS)
@pytest.mark.parametrize("form", FORMATS)
def test_labels_and_names(tmp_path, column, form):
    path = save(labelled(), tmp_path / "example", form)  # no suffix: it is known by its content
    with open_dataset(str(path), column) as dataset, open_dataset(labelled(), column) as expected:
        assert_example(dataset)
        assert dataset.description == f"{path}, X"
        labels = meaning(dataset.labels)
        assert labels == meaning(expected.labels)
        assert [type(x) for x in labels] == [type(x) for x in meaning(expected.labels)]
    with open_dataset(path, column, MatrixChoice("twice")) as dataset:
        assert_example(dataset, 2)


def test_labels_come_without_the_rest(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    for name in os.listdir(path / "obs"):
        if name not in ("zarr.json", "_index", "integer"):
            shutil.rmtree(path / "obs" / name)
    shutil.rmtree(path / "layers" / "twice" / "data")
    with open_dataset(path, "integer") as dataset:
        assert_example(dataset)


def test_a_zip_file(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    zipped = shutil.make_archive(str(tmp_path / "b.zarr"), "zip", path)
    with open_dataset(zipped, "integer") as dataset:
        assert_example(dataset)
        before = dataset.source.identity()
    os.utime(zipped, ns=(1, 1))
    with open_dataset(zipped, "integer") as dataset:
        assert dataset.source.identity() != before


def test_what_anndata_left_in_a_store(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    node = zarr.open_group(path, mode="r")["X"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lazy = anndata.io.sparse_dataset(node)
        adata = anndata.AnnData(lazy, obs=labelled().obs, var=labelled().var)
    with open_dataset(adata, "integer") as dataset:
        assert_example(dataset)
        assert not dataset.source.in_memory


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("how", MEMORY)
@pytest.mark.parametrize("form", FORMATS)
def test_results_are_those_in_memory(tmp_path, how, form):
    adata = screen(MEMORY[how](logged()))
    path = save(adata, tmp_path / "screen.zarr", form)
    for metric in ("wilcoxon", "anderson", "t-test"):
        expected = differential_expression(adata, GROUPBY, reference=REFERENCE, metric=metric)
        for options in ({}, {"memory": 20_000, "n_threads": 2}, {"memory": 1, "n_workers": 3}):
            found = differential_expression(
                path, GROUPBY, reference=REFERENCE, metric=metric, **options
            )
            assert_same_bits(found, expected)


# What went wrong.


def damaged(path, match, groupby="integer", error=FileFormatError, layer=None):
    with (
        pytest.raises(error, match=match) as raised,
        open_dataset(path, groupby, MatrixChoice(layer)) as dataset,
    ):
        read_back(dataset.source, [0, 2, 4], TINY)
    return raised.value


def test_a_damaged_chunk(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    (chunk,) = [p for p in (path / "X" / "data").rglob("*") if p.is_file() and p.name == "0"]
    chunk.write_bytes(b"\0" * 30)
    error = damaged(path, r"X/data of .*a\.zarr, entries 0 to .* cannot be read: .*zarr says: ")
    assert error.__cause__ is not None


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_a_chunk_that_is_missing(tmp_path, layout, form):
    node = write(tmp_path / "a.zarr", example("u1"), layout, form)
    folder = tmp_path / "a.zarr" / "X" / "data"
    (folder / ("1" if form == "2" else "c/1")).unlink()
    source = from_node(node, what="X")
    expected = r"X/data of .*a\.zarr: chunk 1 \(entries \d+ to \d+\) is missing: .* no file .*1\. "
    with pytest.raises(FileFormatError, match=expected):
        read_back(source, [0, 4, N_GENES], TINY)


def test_zeros_that_are_stored_are_zeros(tmp_path):
    path = tmp_path / "a.zarr"
    with zarr.config.set({"array.write_empty_chunks": True}):
        node = write(path, example(), "csr")
        node["data"][...] = 0
    values = read_back(from_node(node, what="X"), [0, 4, N_GENES], TINY)
    np.testing.assert_array_equal(values, 0 * example())


def test_stores_that_change_while_they_are_read(tmp_path):
    for layout in LAYOUTS:
        node = write(tmp_path / "a.zarr", example(), layout)
        source = from_node(node, what="X")
        before = source.identity()
        with (
            pytest.raises(FileFormatError, match=r"a\.zarr was changed while it was being read"),
            source.open([0, 4, N_GENES], TINY),
        ):
            write(tmp_path / "a.zarr", example("f8"), layout)
        again = from_node(zarr.open_group(tmp_path / "a.zarr", mode="r")["X"], what="X")
        assert again.identity() != before
        with (
            pytest.raises(FileFormatError, match=r"a\.zarr was removed while it was being read"),
            again.open([0, 4, N_GENES], TINY),
        ):
            shutil.rmtree(tmp_path / "a.zarr")


def test_identity_tells_one_store_from_another(tmp_path):
    node = write(tmp_path / "a.zarr", example(), "csr")
    identity = from_node(node, what="X").identity()
    assert from_node(node, what="X").identity() == identity
    (file, *_) = [p for p in (tmp_path / "a.zarr/X/data").rglob("*") if p.name == "0"]
    os.utime(file, ns=(1, 1))
    assert from_node(node, what="X").identity() != identity


def test_stores_in_memory_of_zarr():
    store = zarr.storage.MemoryStore()
    node = zarr.open_group(store, mode="w").create_array("X", data=example())
    source = from_node(node, what="X")
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES]), example())
    assert source.identity() == {"matrix": f"dense float32 {N_CELLS} x {N_GENES}"}


def test_names_that_do_not_exist(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    damaged(path, "Did you mean 'categorical'", "categoricl", ColumnError)
    damaged(path, r"Unknown layer 'twise'. Did you mean 'twice'", error=LayerError, layer="twise")
    damaged(path, "'_index'", "_index", ColumnError)


def test_stores_that_anndata_did_not_write(tmp_path):
    root = zarr.open_group(tmp_path / "a.zarr", mode="w")
    damaged(tmp_path / "a.zarr", "not laid out as anndata writes it: it has no obs with an index")
    root.create_array("obs", data=np.ones(3))
    damaged(tmp_path / "a.zarr", "not laid out as anndata writes it: it has no obs with an index")
    (tmp_path / "b").mkdir()
    damaged(
        tmp_path / "b",
        "is a folder but not a matrix folder of Cell Ranger or a zarr store: it has no ",
    )
    (tmp_path / "c.zip").write_bytes(b"no zip")
    damaged(tmp_path / "c.zip", r"c\.zip cannot be read: the store is incomplete or damaged")


def test_no_x_and_other_encodings(tmp_path):
    adata = labelled()
    adata.X = None
    path = save(adata, tmp_path / "a.zarr", "3")
    damaged(path, "X is None", error=DataError)
    root = zarr.open_group(path, mode="r+", use_consolidated=False)
    root.create_group("layers/odd").attrs["encoding-type"] = "awkward-array"
    zarr.consolidate_metadata(root.store)
    damaged(path, "has the encoding 'awkward-array'", error=UnsupportedDataError, layer="odd")


def test_zarr_is_not_installed(tmp_path, monkeypatch):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    monkeypatch.setitem(sys.modules, "zarr", None)
    damaged(path, r'needs the package zarr: pip install zarr\.',
            error=MissingDependencyError)  # fmt: skip


@pytest.mark.thorough
def test_reading_a_store_imports_neither_anndata_nor_h5py(tmp_path):
    path = save(labelled(), tmp_path / "a.zarr", "3")
    code = (
        "import sys; from pdex_gpu.sources.open import open_dataset\n"
        "with open_dataset(sys.argv[1], 'categorical') as d: assert d.genes[1] == 'B'\n"
        "assert not {'anndata', 'pandas', 'numba', 'h5py'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)
