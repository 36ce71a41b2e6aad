"""dask arrays: dense and sparse blocks, cut in any way, computed once, bit for bit."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from source_reads import DTYPES, EDGES, N_CELLS, N_GENES, example, read_back
from stored_screens import GROUPBY, REFERENCE, assert_same_bits, logged, screen

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError, UnsupportedDataError
from pdex_gpu.sources.base import Reading, UnevenError
from pdex_gpu.sources.dask_arrays.array import from_dask
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.utils.parallel import pool_map

da = pytest.importorskip("dask.array")
import dask  # noqa: E402

TINY, AMPLE = 1, 1 << 30
KINDS = {
    "dense": np.asarray,
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
    "csc_array": sparse.csc_array,
}
GRIDS = [(5, N_GENES), (5, 3), (N_CELLS, 2), (N_CELLS, N_GENES), (1, N_GENES), (7, 1)]


def blocks(values, chunks, kind="csr"):
    """A dask array of blocks of a kind."""
    array = da.from_array(values, chunks=chunks)
    return array if kind == "dense" else array.map_blocks(KINDS[kind], meta=meta(kind, values))


def meta(kind, values):
    return KINDS[kind](np.zeros((0, 0), values.dtype))


@pytest.mark.sampled(every=17)
@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("budget", [TINY, 300, AMPLE])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_any_grid_gives_the_matrix_back(kind, grid, budget, edges):
    source = from_dask(blocks(example(), grid, kind), what="X")
    assert (source.n_cells, source.n_genes) == (N_CELLS, N_GENES)
    assert not source.in_memory
    np.testing.assert_array_equal(read_back(source, edges, budget), example())
    np.testing.assert_array_equal(read_back(source.canonical(), edges, budget), example())


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", [*DTYPES, "f2"])
@pytest.mark.parametrize("kind", ["dense", "csr"])
@pytest.mark.parametrize("grid", [(5, N_GENES), (N_CELLS, 2)], ids=str)
def test_every_dtype(kind, dtype, grid):
    if dtype == "f2" and kind == "csr":
        pytest.skip("scipy has no such matrices")
    source = from_dask(blocks(example(dtype), grid, kind), what="X")
    read = read_back(source, [0, 4, N_GENES], TINY)
    assert read.dtype == (np.float32 if dtype == "f2" else np.dtype(dtype))
    np.testing.assert_array_equal(read, example(dtype))


@given(
    rows=st.lists(st.integers(0, N_CELLS), max_size=6),
    columns=st.lists(st.integers(0, N_GENES), max_size=6),
    kind=st.sampled_from(sorted(KINDS)),
)
def test_uneven_and_empty_chunks(rows, columns, kind):
    chunks = tuple(
        tuple(np.diff([0, *sorted(cuts), n]).tolist())
        for cuts, n in ((rows, N_CELLS), (columns, N_GENES))
    )
    source = from_dask(blocks(example(), chunks, kind), what="X")
    np.testing.assert_array_equal(read_back(source, [0, 2, 9, N_GENES], TINY), example())


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("grid", [(10, 9), (10, 4), (55, 2), (1, 9)], ids=str)
def test_results_are_those_in_memory(kind, grid):
    adata = screen(blocks(logged(), grid, kind))
    adata.layers["more"] = blocks(logged(4), grid, kind)
    whole = screen(logged(), layers={"more": logged(4)})
    for layer in (None, "more"):
        for metric in ("wilcoxon", "anderson", "t-test"):
            expected = differential_expression(
                whole, GROUPBY, reference=REFERENCE, metric=metric, layer=layer
            )
            for options in ({}, {"memory": 1, "n_threads": 2}, {"engine": "serial"}):
                found = differential_expression(
                    adata, GROUPBY, reference=REFERENCE, metric=metric, layer=layer, **options
                )
                assert_same_bits(found, expected)
    assert isinstance(adata.X, da.Array)


def test_a_view_of_a_dask_array():
    adata = screen(blocks(logged(), (10, 9)))[::-1, [5, 2]]
    whole = screen(logged())[::-1, [5, 2]]
    found, expected = (
        differential_expression(x, GROUPBY, reference=REFERENCE) for x in (adata, whole)
    )
    assert_same_bits(found, expected)


def test_no_block_is_computed_twice():
    """But for the sample that tells how many entries there are."""
    seen = []
    lock = threading.Lock()

    def note(block, block_info=None):
        with lock:
            seen.append(block_info[0]["chunk-location"])
        return sparse.csr_matrix(block)

    values = np.random.default_rng(0).random((400, 30)).astype("f4")
    for grid, edges in (((10, 7), [0, 5, 30]), ((400, 3), [0, 6, 15, 30])):
        array = da.from_array(values, chunks=grid)
        seen.clear()
        source = from_dask(array.map_blocks(note, meta=sparse.csr_matrix((0, 0), dtype="f4")),
                           what="X")  # fmt: skip
        assert source.nnz > 0
        sampled = len(seen)
        assert 0 < sampled <= array.npartitions / 8
        np.testing.assert_array_equal(read_back(source, edges, TINY), values)
        assert len(seen) == array.npartitions + sampled


def test_blocks_in_flight_are_bounded(monkeypatch):
    """As many lines of blocks as there are threads, whatever the number of blocks."""
    from pdex_gpu.sources.dask_arrays import array as dask_array
    from pdex_gpu.sources.rechunk import store as row_store

    monkeypatch.setattr(row_store, "_SMALLEST_BLOCK", 1)
    monkeypatch.setattr(dask_array, "_DENSE", 1)
    now, most = [0], [0]
    lock = threading.Lock()
    original = dask_array.DaskBlocks.compute

    def spy(self, rows, columns):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
            assert rows.stop - rows.start <= 10
        try:
            return original(self, rows, columns)
        finally:
            with lock:
                now[0] -= 1

    values = np.random.default_rng(0).random((500, 20))
    source = from_dask(blocks(values, (10, 7)), what="X")
    monkeypatch.setattr(dask_array.DaskBlocks, "compute", spy)
    with ThreadPoolExecutor(3) as pool:
        reading = Reading(parallel_map=pool_map(pool), n_threads=3)
        with source.open([0, 10, 20], TINY, reading) as reader:
            assert reader.read(0).n_genes == 10
    assert 1 <= most[0] <= 3


def test_what_is_kept_in_memory_is_bounded(monkeypatch, tmp_path):
    """The estimate of entries may be far off: what does not fit goes to the scratch file."""
    from pdex_gpu.sources.rechunk import store as row_store

    monkeypatch.setattr(row_store, "_SMALLEST_BLOCK", 1)
    values = np.random.default_rng(0).random((1000, 40))
    values[300:700] = 0  # the sample is from here
    source = from_dask(blocks(values, (100, 40)), what="X")
    assert source.nnz < 1000
    opened = []
    original = row_store.Scratch

    def spy(*args):
        opened.append(original(*args))
        return opened[-1]

    monkeypatch.setattr(row_store, "Scratch", spy)
    budget = 100 * 40 * source.bytes_per_entry  # one block in ten
    with source.open([0, 15, 40], budget, Reading(scratch=tmp_path)) as store:
        assert len(opened) == 1
        assert store._used <= budget
        assert opened[0]._end > 4 * budget
    np.testing.assert_array_equal(read_back(source, [0, 15, 40], budget), values)
    with (
        pytest.raises(UnevenError, match="larger than was estimated"),
        source.open([0, 15, 40], budget, Reading(most_entries=1000)),
    ):
        pass
    np.testing.assert_array_equal(source.density(map), (values > 0).sum(axis=0))  # now it is known
    assert source.nnz == (values > 0).sum()
    with source.open([0, 15, 40], budget, Reading(most_entries=1000)):
        pass


def test_results_where_the_estimate_is_far_off():
    values = logged()
    values[:40] = 0
    expected = differential_expression(screen(values), GROUPBY, reference=REFERENCE)
    for memory in (1, 5_000, 20_000):
        found = differential_expression(
            screen(blocks(values, (5, 9))), GROUPBY, reference=REFERENCE, memory=memory
        )
        assert_same_bits(found, expected)


@pytest.mark.parametrize("grid", [(5, 3), (N_CELLS, N_GENES), (N_CELLS, 4)], ids=str)
def test_unsorted_and_repeated_indices(grid):
    """Sorted and summed as in memory, and the blocks stay as they are."""

    def shuffle(block):
        found = sparse.csr_matrix(block)
        for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True):
            found.indices[a:b] = found.indices[a:b][::-1].copy()
            found.data[a:b] = found.data[a:b][::-1].copy()
        twice = sparse.csr_matrix(
            (np.repeat(found.data, 2), np.repeat(found.indices, 2), found.indptr * 2),
            shape=found.shape,
        )
        assert not twice.has_canonical_format
        return twice

    array = da.from_array(example(), chunks=grid)
    array = array.map_blocks(shuffle, meta=sparse.csr_matrix((0, 0), dtype="f4")).persist()
    source = from_dask(array, what="X")
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES], TINY), 2 * example())
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES], TINY), 2 * example())


def test_a_scheduler_that_was_chosen_is_used():
    calls = []

    def get(graph, keys, **options):
        calls.append(keys)
        return dask.get(graph, keys, **options)

    source = from_dask(blocks(example(), (5, 3)), what="X")
    with dask.config.set(scheduler=get):
        np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES]), example())
    assert calls


def test_identity():
    array = blocks(example(), (5, 3))
    source = from_dask(array, what="X")
    assert source.identity() == from_dask(array, what="X").identity()
    assert source.identity() != from_dask(array * 2, what="X").identity()
    assert source.description == "dask array float32"


def test_what_anndata_reads_lazily(tmp_path):
    from anndata import experimental

    if not hasattr(experimental, "read_elem_lazy"):
        pytest.skip("anndata 0.12 is the first that does")
    adata = screen(sparse.csr_matrix(logged()))
    adata.layers["columns"] = sparse.csc_matrix(logged())
    adata.layers["dense"] = logged()
    expected = differential_expression(adata, GROUPBY, reference=REFERENCE)
    adata.write_h5ad(tmp_path / "a.h5ad")
    with h5py.File(tmp_path / "a.h5ad") as file:
        for node, chunks in (("X", (7, 9)), ("layers/columns", (55, 2)), ("layers/dense", (9, 4))):
            lazy = experimental.read_elem_lazy(file[node], chunks=chunks)
            found = differential_expression(screen(lazy), GROUPBY, reference=REFERENCE, memory=1)
            assert_same_bits(found, expected)


# What is refused.


def test_unknown_chunk_sizes():
    array = da.from_array(example(), chunks=(5, N_GENES))
    array = array[array[:, 7] != 0]
    with pytest.raises(
        DataError, match=r"X is a dask array whose chunk sizes are unknown\. Call c"
    ):
        from_dask(array, what="X")


def test_blocks_of_other_kinds():
    masked = da.from_array(example(), chunks=(5, N_GENES)).map_blocks(np.ma.masked_array)
    source = from_dask(masked, what="layer 'm'")
    with pytest.raises(
        UnsupportedDataError, match=r"block \(2, 0\) of layer 'm', a dask array, is"
    ):
        read_back(source, [0, 4, N_GENES])
    with pytest.raises(UnsupportedDataError, match="dtype complex128"):
        from_dask(da.zeros((4, 4), dtype=complex), what="X")
    with pytest.raises(DataError, match="X has shape"):
        from_dask(da.zeros(4), what="X")


def test_blocks_that_are_not_as_announced():
    array = da.from_array(example(), chunks=(5, N_GENES))
    short = array.map_blocks(lambda b: b[:1], meta=np.zeros((0, 0), "f4"))
    with pytest.raises(DataError, match=r"has shape \(1, 11\), but .* declare \(5, 11\)"):
        read_back(from_dask(short, what="X"), [0, 4, N_GENES])
    wide = array.map_blocks(lambda b: b.astype("f8"), meta=np.zeros((0, 0), "f4"))
    with pytest.raises(DataError, match="has dtype float64, but the dask array declares float32"):
        read_back(from_dask(wide, what="X"), [0, 4, N_GENES])


def test_malformed_blocks():
    def spoil(block):
        found = sparse.csr_matrix(block)
        found.indices[:] = 99
        return found

    array = da.from_array(example(), chunks=(5, N_GENES))
    array = array.map_blocks(spoil, meta=sparse.csr_matrix((0, 0), dtype="f4"))
    with pytest.raises(DataError, match=r"block \(2, 0\) of X is malformed: row \d+ has an entry"):
        read_back(from_dask(array, what="X"), [0, 4, N_GENES])


def test_errors_of_the_computation_come_through():
    def fail(block):
        raise ZeroDivisionError("in a block")

    array = da.from_array(example(), chunks=(5, N_GENES)).map_blocks(fail, meta=example()[:0])
    with pytest.raises(ZeroDivisionError, match="in a block"):
        differential_expression(screen(array_like(array)), GROUPBY, reference=REFERENCE)


def array_like(array):
    """As many rows and columns as the screen has."""
    return da.tile(array, (3, 1))[:55, :9]


def test_values_that_are_not_finite():
    values = logged()
    values[7, 3] = np.inf
    with pytest.raises(DataError, match=r"cell 'cell7' \(row 7\), gene 'gene3' \(column 3\)"):
        differential_expression(screen(blocks(values, (10, 4))), GROUPBY, reference=REFERENCE)


@pytest.mark.thorough
def test_dask_is_not_imported_for_other_arrays():
    code = (
        "import sys, numpy as np, pandas as pd, anndata\n"
        "from pdex_gpu.sources.detect import is_dask\n"
        "for name in [m for m in sys.modules if m.split('.')[0] == 'dask']: del sys.modules[name]\n"
        "assert not is_dask(np.zeros((2, 2)))\n"
        "assert 'dask' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_cells_or_genes():
    for shape in ((0, 4), (4, 0)):
        source = from_dask(da.zeros(shape, chunks=(2, 2)), what="X")
        assert (source.n_cells, source.n_genes, source.nnz) == (*shape, 0)


def test_labels_come_from_obs_alone():
    computed = []

    def note(block):
        computed.append(block.shape)
        return block

    array = da.from_array(logged(), chunks=(10, 9)).map_blocks(note, meta=logged()[:0])
    with open_dataset(screen(array), GROUPBY) as dataset:
        assert len(dataset.labels.codes) == 55
    assert computed == []


class OnDevice:
    """What cupy and cupyx have in common: a copy on the host can be had."""

    def __init__(self, values):
        self._values = values

    def get(self):
        return self._values


@pytest.mark.parametrize("package", ["cupy._core.core", "cupyx.scipy.sparse._csr"])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_matrix])
def test_blocks_on_a_device_are_copied_to_the_host(monkeypatch, package, kind):
    monkeypatch.setattr(OnDevice, "__module__", package)
    array = da.from_array(example(), chunks=(5, N_GENES)).map_blocks(
        lambda values: OnDevice(kind(values)), meta=np.zeros((0, 0), example().dtype)
    )
    source = from_dask(array, what="X")
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES], AMPLE), example())
