"""Views of backed AnnData: read from the file without loading what is selected, bit for bit."""

import anndata
import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from source_reads import N_CELLS, N_GENES, example, read_back
from stored_screens import (
    BACKED,
    GENES,
    GROUPBY,
    LABELS,
    REFERENCE,
    assert_same_bits,
    logged,
    screen,
    stored,
)

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.open import open_dataset
from pdex_gpu.sources.stored import select_csc, select_dense
from pdex_gpu.sources.views.view import select

TINY, AMPLE = 1, 1 << 30
LAYOUTS = ["dense", "csr", "csc"]
N = len(LABELS)
RNG = np.random.default_rng(3)
ROWS = {
    "all": slice(None),
    "a slice": slice(3, 50),
    "a slice with steps": slice(1, None, 2),
    "backwards": slice(None, None, -1),
    "numbers": [*range(40, 10, -1), *range(45, 55)],
    "shuffled": RNG.permutation(N),
    "repeats": RNG.integers(0, N, 2 * N),
    "a mask": RNG.random(N) < 0.7,
    "names": [f"cell{i}" for i in RNG.permutation(N)[:40]],
}
COLUMNS = {
    "all": slice(None),
    "a slice": slice(2, 7),
    "numbers": [6, 1, 0, 8],
    "repeats": [3, 3, 0, 8, 0],
    "a mask": np.arange(9) % 3 != 1,
    "names": [GENES[5], GENES[2]],
    "one": [4],
}


def write(file, values, layout, **options):
    if "X" in file:
        del file["X"]
    if layout == "dense":
        return file.create_dataset("X", data=values, **options)
    matrix = (sparse.csr_matrix if layout == "csr" else sparse.csc_matrix)(values)
    group = file.create_group("X")
    group.attrs.update({"encoding-type": f"{layout}_matrix", "shape": matrix.shape})
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(matrix, name), **options)
    return group


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as opened:
        yield opened


@pytest.mark.sampled(every=11)
@pytest.mark.filterwarnings("ignore:Observation names are not unique")
@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.DuplicateGeneWarning")
@pytest.mark.parametrize("how", BACKED)
@pytest.mark.parametrize("rows", ROWS)
def test_results_are_those_in_memory(tmp_path, how, rows):
    adata = stored(how, logged(), tmp_path)
    for columns in COLUMNS:
        view = adata[ROWS[rows], COLUMNS[columns]]
        # One after the other: h5py takes no selections that are not ascending.
        whole = adata.to_memory()[ROWS[rows]].copy()[:, COLUMNS[columns]].copy()
        expected = differential_expression(whole, GROUPBY, reference=REFERENCE)
        for options in ({}, {"memory": 1, "n_threads": 2}):
            found = differential_expression(view, GROUPBY, reference=REFERENCE, **options)
            assert list(found.features) == list(expected.features)
            assert_same_bits(found, expected)
    adata.file.close()


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("metric", ["anderson", "t-test"])
@pytest.mark.parametrize("how", BACKED)
def test_other_tests_and_engines(tmp_path, how, metric):
    adata = stored(how, logged(), tmp_path)
    view = adata[ROWS["shuffled"][5:], COLUMNS["numbers"]]
    whole = adata.to_memory()[ROWS["shuffled"][5:], COLUMNS["numbers"]].copy()
    for engine in ("threads", "serial"):
        found = differential_expression(
            view, GROUPBY, reference=REFERENCE, metric=metric, engine=engine, memory=1
        )
        expected = differential_expression(whole, GROUPBY, reference=REFERENCE, metric=metric)
        assert_same_bits(found, expected)
    adata.file.close()


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_views_of_views(file, layout):
    """Of a backed AnnData anndata makes none, but of one whose X it left in a file."""
    values = logged()
    lazy = anndata.io.sparse_dataset(write(file, values, layout))
    whole = screen(values)
    adata = anndata.AnnData(lazy, obs=whole.obs, var=whole.var)
    view = adata[10:50][::-1][[3, 0, 20, 21, 5], [8, 2, 4]][:, [2, 0]][1:]
    rows = np.arange(N)[10:50][::-1][[3, 0, 20, 21, 5]][1:]
    with open_dataset(view, GROUPBY) as dataset:
        assert not dataset.source.in_memory
        assert dataset.source.description.startswith("view of ")
        np.testing.assert_array_equal(read_back(dataset.source, [0, 1, 2]), values[rows][:, [4, 8]])
        assert [dataset.cell_name(i) for i in range(4)] == [f"cell{i}" for i in rows]
        assert list(dataset.genes) == [GENES[4], GENES[8]]


def test_a_view_is_not_loaded_by_anndata(tmp_path, monkeypatch):
    adata = stored("backed csr", logged(), tmp_path)
    view = adata[::-1]

    def refuse(self):
        raise AssertionError("X was loaded")

    monkeypatch.setattr(anndata.AnnData, "X", property(refuse))
    differential_expression(view, GROUPBY, reference=REFERENCE)
    adata.file.close()


def test_a_view_of_a_closed_file_opens_it_again(tmp_path):
    adata = stored("backed csr", logged(), tmp_path)
    view = adata[::-1, 2:4]
    adata.file.close()
    with open_dataset(view, GROUPBY) as dataset:
        np.testing.assert_array_equal(read_back(dataset.source, [0, 2]), logged()[::-1, 2:4])
    adata.file.close()


def test_layers_of_a_view(tmp_path):
    adata = stored("backed csr", logged(), tmp_path, layers={"d": sparse.csr_matrix(logged(5))})
    view = adata[ROWS["shuffled"], COLUMNS["numbers"]]
    with open_dataset(view, GROUPBY, MatrixChoice("d")) as dataset:
        source = dataset.source.canonical()
        expected = logged(5)[ROWS["shuffled"]][:, COLUMNS["numbers"]]
        np.testing.assert_array_equal(read_back(source, [0, 1, 4]), expected)
    adata.file.close()


SELECTION = st.tuples(
    st.lists(st.integers(0, N_CELLS - 1), min_size=1, max_size=40),
    st.lists(st.integers(0, N_GENES - 1), min_size=1, max_size=20),
)


@pytest.mark.parametrize("layout", LAYOUTS)
@given(selection=SELECTION, budget=st.sampled_from([TINY, 200, AMPLE]), data=st.data())
def test_any_selection(tmp_path_factory, layout, selection, budget, data):
    rows, columns = (np.array(x, np.int64) for x in selection)
    if data.draw(st.booleans()):
        rows = np.unique(rows)
    if data.draw(st.booleans()):
        columns = np.unique(columns)
    n = len(columns)
    edges = sorted({0, n, *data.draw(st.lists(st.integers(0, n), max_size=3))})
    chunk = data.draw(st.sampled_from([1, 3, 50]))
    values = example()
    with h5py.File("any.h5", "w", driver="core", backing_store=False) as file:
        chunks = (min(chunk, N_CELLS), min(chunk, N_GENES)) if layout == "dense" else (chunk,)
        options = {} if layout != "dense" else {"chunks": chunks}
        source = select(from_node(write(file, values, layout, **options), what="X"), rows, columns)
        assert (source.n_cells, source.n_genes) == (len(rows), n)
        expected = values[rows][:, columns]
        np.testing.assert_array_equal(read_back(source, edges, budget), expected)


@pytest.mark.parametrize("piece", [1, 64])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_small_pieces(file, monkeypatch, layout, piece):
    monkeypatch.setattr(select_csc, "_PIECE", piece)
    monkeypatch.setattr(select_dense, "_PIECE", piece)
    chunks = (4, 3) if layout == "dense" else (5,)
    node = write(file, example(), layout, chunks=chunks, compression="gzip")
    rows, columns = np.array([20, 3, 3, 9, 22, 0]), np.array([7, 2, 2, 10])
    expected = example()[rows][:, columns]
    for each in (rows, np.unique(rows)):
        source = select(from_node(node, what="X"), each, columns)
        expected = example()[each][:, columns]
        np.testing.assert_array_equal(read_back(source, [0, 1, 3, 4], TINY), expected)


def bytes_read(source, edges):
    """What reading all ranges takes from the file."""
    n_bytes = []
    with source.open(edges, TINY, Reading(advance=n_bytes.append)) as reader:
        for k in range(len(edges) - 1):
            reader.read(k)
    return sum(n_bytes)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_what_is_not_selected_is_not_read(file, layout):
    values = np.random.default_rng(0).random((400, 200))
    chunks = (20, 10) if layout == "dense" else (100,)
    source = from_node(write(file, values, layout, chunks=chunks, compression="gzip"), what="X")
    every = bytes_read(source, [0, 200])
    rows, columns = np.arange(400), np.arange(200)
    if layout != "csc":
        assert bytes_read(select(source, rows[40:60], columns), [0, 200]) <= every / 15
        assert bytes_read(select(source, rows[[0, 399]], columns), [0, 200]) <= every / 8
    if layout != "csr":
        assert bytes_read(select(source, rows, columns[50:60]), [0, 10]) <= every / 15
        assert bytes_read(select(source, rows, columns[[199, 0]]), [0, 2]) <= every / 8
        some = select(select(source, rows, columns[40:80]), rows, np.arange(10, 20))
        assert bytes_read(some, [0, 10]) <= every / 15


def test_blocks_hold_no_more_than_was_asked_for(file):
    """A view of few cells of each block reads blocks of the same size, not larger ones."""
    values = np.random.default_rng(0).random((3000, 100))
    source = from_node(write(file, values, "csr", chunks=(100,)), what="X")
    rows = np.arange(0, 3000, 7)
    blocks = select(source, rows, np.arange(100)).inner.rows()
    for length in (1000, 5000):
        for part in blocks.cut(length):
            kept = rows[part]
            assert (kept[-1] - kept[0] + 1) * 100 <= length + 100
        assert sum(part.stop - part.start for part in blocks.cut(length)) == len(rows)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_identity_tells_selections_apart(file, layout):
    source = from_node(write(file, example(), layout), what="X")
    rows, columns = np.arange(N_CELLS), np.arange(N_GENES)
    views = [
        select(source, rows, columns),
        select(source, rows[::-1], columns),
        select(source, rows, columns[::-1]),
        select(source, rows[1:], columns),
    ]
    assert views[0] is source
    found = [tuple(sorted(view.identity().items())) for view in views]
    assert len(set(found)) == 4
    assert select(source, rows[1:], columns).identity() == views[3].identity()


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_estimates_are_about_right(file, layout):
    values = (np.random.default_rng(0).random((500, 80)) < np.linspace(0, 1, 80)).astype("f4")
    source = from_node(write(file, values, layout), what="X")
    rows, columns = np.arange(0, 500, 2), np.arange(79, 20, -1)
    view = select(source, rows, columns)
    counts = (values[rows][:, columns] != 0).sum(axis=0)
    np.testing.assert_allclose(view.density(map), counts, rtol=0.3)
    assert 0.95 * counts.sum() <= view.nnz <= 1.3 * counts.sum()


def test_repeated_cells_count_as_often_as_they_occur(file):
    source = from_node(write(file, example(), "csr"), what="X")
    view = select(source, np.repeat(np.arange(N_CELLS), 3), np.arange(N_GENES))
    assert view.nnz == 3 * source.nnz
    np.testing.assert_allclose(view.density(map), 3 * source.density(map))


def test_values_that_are_not_finite_are_found_in_the_view(tmp_path):
    values = logged()
    values[7, 3] = np.nan
    for how in BACKED:
        adata = stored(how, values, tmp_path)
        view = adata[::-1, [5, 3]]
        with pytest.raises(DataError, match=r"cell 'cell7' \(row 47\), gene 'gene3' \(column 1\)"):
            differential_expression(view, GROUPBY, reference=REFERENCE)
        adata.file.close()


def test_no_cells_or_genes(file):
    for layout in LAYOUTS:
        source = from_node(write(file, example(), layout), what="X")
        none = np.zeros(0, np.int64)
        view = select(source, none, np.arange(N_GENES))
        assert (view.n_cells, view.nnz) == (0, 0)
        view = select(source, np.arange(N_CELLS), none)
        assert (view.n_genes, view.nnz) == (0, 0)
