"""Sources over arrays in memory: every layout gives the matrix back, cut at any borders."""

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from source_reads import DTYPES, EDGES, N_GENES, example, read_back

from pdex_gpu.errors import DataError, UnsupportedDataError
from pdex_gpu.sources.memory.arrays import row_positions
from pdex_gpu.sources.memory.open import from_array

DENSE = {
    "C": np.ascontiguousarray,
    "Fortran": np.asfortranarray,
    "matrix": lambda a: a.view(np.matrix),
    "reversed": lambda a: a[::-1, ::-1].copy()[::-1, ::-1],
    "strided": lambda a: np.repeat(np.repeat(a, 2, 0), 3, 1)[::2, ::3],
}
SPARSE = {
    "csr_matrix": sparse.csr_matrix,
    "csr_array": sparse.csr_array,
    "csc_matrix": sparse.csc_matrix,
    "csc_array": sparse.csc_array,
    "coo_array": sparse.coo_array,
    "lil_matrix": sparse.lil_matrix,
}


@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("layout", [*DENSE, *SPARSE])
def test_every_layout_gives_the_matrix_back(layout, edges):
    values = example()
    source = from_array((DENSE | SPARSE)[layout](values), what="X")
    assert (source.n_cells, source.n_genes) == values.shape
    assert source.in_memory
    np.testing.assert_array_equal(read_back(source, edges), values)
    np.testing.assert_array_equal(read_back(source.canonical(), edges), values)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", ["C", "csr_array", "csc_array"])
def test_every_dtype_passes_through(layout, dtype):
    values = example(dtype)
    source = from_array((DENSE | SPARSE)[layout](values), what="X")
    read = read_back(source, [0, 4, N_GENES])
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("dtype", ["f2", ">f4", ">i8", ">f2"])
def test_float16_and_foreign_byte_order_become_native(dtype):
    values = example("f4")
    native = np.dtype("f4") if dtype.endswith("f2") else np.dtype(dtype).newbyteorder("=")
    matrix = sparse.csr_matrix(values)
    matrix.data = matrix.data.astype(dtype)
    for source in (
        from_array(values.astype(dtype), what="X"),
        from_array(matrix, what="X"),
    ):
        read = read_back(source, [0, 4, N_GENES])
        assert read.dtype == native
        assert read.dtype.isnative
        np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("index_dtype", [np.int32, np.int64])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_reading_copies_neither_values_nor_indices(kind, index_dtype):
    matrix = kind(example())
    matrix.indices = matrix.indices.astype(index_dtype)
    matrix.indptr = matrix.indptr.astype(index_dtype)
    source = from_array(matrix, what="X")
    assert source.nnz == matrix.nnz
    assert source.bytes_per_entry == 4 + np.dtype(index_dtype).itemsize
    with source.open([0, 4, N_GENES], 0) as reader:
        chunk = reader.read(1)
    assert chunk.data is matrix.data or chunk.data.base is matrix.data
    assert np.shares_memory(chunk.indices, matrix.indices)
    assert chunk.indices.dtype == index_dtype
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES]), example())


def test_a_dense_chunk_is_a_view():
    values = np.asfortranarray(example())
    source = from_array(values, what="X")
    assert (source.nnz, source.bytes_per_entry) == (values.size, 4)
    with source.open([0, 4, N_GENES], 0) as reader:
        assert np.shares_memory(reader.read(1).values, values)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0), (0, 0)])
@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array, sparse.csc_array])
def test_empty_matrices(kind, shape):
    source = from_array(kind(np.zeros(shape)), what="X")
    assert (source.n_cells, source.n_genes, source.nnz) == (*shape, 0)
    assert read_back(source, [0, shape[1]]).shape == shape


def test_entries_beyond_indptr_are_ignored():
    matrix = sparse.csr_matrix(example())
    matrix.data = np.append(matrix.data, np.float32(9))
    matrix.indices = np.append(matrix.indices, np.int32(999))
    source = from_array(matrix, what="X")
    np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES]), example())
    np.testing.assert_array_equal(read_back(source.canonical(), [0, 4, N_GENES]), example())


rows_of_indices = st.lists(st.lists(st.integers(-20, 40), max_size=9), min_size=1, max_size=6)


@given(rows_of_indices, st.sets(st.integers(1, 19), max_size=6))
def test_ranges_share_out_the_entries_of_any_row(rows, inner):
    """Unsorted, repeated and out-of-range indices: every entry is in exactly one range."""
    n_genes = 20
    edges = [0, *sorted(inner), n_genes]
    indptr = np.cumsum([0] + [len(row) for row in rows])
    indices = np.array([i for row in rows for i in row], np.int32)
    positions = [row_positions(indices, indptr, n_genes, edge) for edge in edges]
    np.testing.assert_array_equal(positions[0], indptr[:-1])
    np.testing.assert_array_equal(positions[-1], indptr[1:])
    assert np.all(np.diff(positions, axis=0) >= 0)
    for row, content in enumerate(rows):
        if content == sorted(content):
            for edge, position in zip(edges[1:-1], positions[1:-1], strict=True):
                assert position[row] - indptr[row] == np.searchsorted(content, edge)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_canonical_sorts_and_sums_a_copy(kind):
    lines = kind((4, 4)).indptr  # rows of a CSR matrix, columns of a CSC matrix
    lines[1:] = [3, 3, 5, 6]
    matrix = kind(
        (np.array([1.0, 2, 4, 8, 16, 32]), np.array([2, 0, 2, 3, 1, 0]), lines), shape=(4, 4)
    )
    before = [a.copy() for a in (matrix.data, matrix.indices, matrix.indptr)]
    source = from_array(matrix, what="X").canonical()
    with source.open([0, 4], 0) as reader:
        chunk = reader.read(0)
    np.testing.assert_array_equal(chunk.indices, [0, 2, 1, 3, 0])
    np.testing.assert_array_equal(chunk.data, [2, 5, 16, 8, 32])
    np.testing.assert_array_equal(read_back(source, [0, 1, 4]), matrix.toarray())
    for array, old in zip((matrix.data, matrix.indices, matrix.indptr), before, strict=True):
        np.testing.assert_array_equal(array, old)


@pytest.mark.parametrize(("bad", "kind"), [(11, "csr"), (-1, "csr"), (23, "csc"), (-1, "csc")])
def test_canonical_names_the_entry_out_of_range(bad, kind):
    matrix = sparse.csr_matrix(example()) if kind == "csr" else sparse.csc_matrix(example())
    line = 7
    matrix.indices[matrix.indptr[line]] = bad
    source = from_array(matrix, what="X")
    major, minor, limit = ("row", "column", 11) if kind == "csr" else ("column", "row", 23)
    with pytest.raises(
        DataError, match=f"^X is malformed: {major} 7 .* {minor} {bad}, but there are {limit} "
    ):
        source.canonical()


@pytest.mark.parametrize("change", ["first", "falls", "beyond", "short"])
@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
def test_contradicting_indptr_is_refused(kind, change):
    matrix = kind(example())
    if change == "first":
        matrix.indptr[0] = 1
    elif change == "falls":
        matrix.indptr[2] = matrix.indptr[3] + 1
    elif change == "beyond":
        matrix.indptr[-1] += 1
    else:
        matrix.indices = matrix.indices[:-1]
    with pytest.raises(DataError, match="X is malformed: indptr"):
        from_array(matrix, what="X")


def test_none_says_what_to_do():
    with pytest.raises(DataError, match=r"^X is None: .*name the layer"):
        from_array(None, what="X")


@pytest.mark.parametrize(
    ("matrix", "named"),
    [
        ([[1, 2]], "builtins.list"),
        (np.ma.masked_array([[1, 2]]), "MaskedArray"),
        (np.array([[1j]]), "complex128"),
        (np.array([["a"]], object), "object"),
        (np.zeros((2, 2), "i4,f4"), "i4"),
        (np.zeros((2, 2), np.longdouble), "float128|longdouble"),
        (sparse.csr_matrix(np.array([[1j]])), "complex128"),
    ],
)
def test_unsupported_matrices_are_named(matrix, named):
    with pytest.raises(UnsupportedDataError, match=rf"^layer 'a' .*({named}).*Supported: "):
        from_array(matrix, what="layer 'a'")


@pytest.mark.parametrize("matrix", [np.zeros(3), np.zeros((2, 2, 2)), sparse.coo_array([1, 2])])
def test_other_than_two_dimensions_are_refused(matrix):
    with pytest.raises(DataError, match="X has shape"):
        from_array(matrix, what="X")


def test_imports_stay_light():
    code = (
        "import sys, pdex_gpu.sources.base, pdex_gpu.sources.memory.arrays\n"
        "import pdex_gpu.sources.dataset\n"
        "assert not {'scipy', 'h5py', 'pandas', 'anndata'} & set(sys.modules)\n"
        "import pdex_gpu.sources.stored.hdf5, pdex_gpu.sources.anndata_files.h5ad\n"
        "assert not {'numba', 'cupy', 'pandas', 'anndata'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
