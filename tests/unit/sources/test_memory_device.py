"""Sources over matrices on a CUDA device: handed on as they are, with CuPy's attributes alone.

The stand-ins for CuPy's types have nothing but what the sources may use, so whatever else is
touched fails here.
"""

import subprocess
import sys

import anndata as ad
import h5py
import numpy as np
import pytest
from device_arrays import DeviceArray, DeviceSparse
from scipy import sparse
from stored_screens import GENES, GROUPBY, LABELS, counts, screen

from pdex_gpu.errors import DataError, UnsupportedDataError
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import CscChunk, CsrChunk, DenseChunk
from pdex_gpu.sources.choice import MatrixChoice
from pdex_gpu.sources.memory.arrays import CscSource, CsrSource
from pdex_gpu.sources.memory.device import DeviceCsc, DeviceCsr, DeviceDense
from pdex_gpu.sources.memory.open import from_array
from pdex_gpu.sources.open import open_dataset

N_CELLS, N_GENES = 9, 5
FORMS = ["csr", "csc"]
DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]


class WithoutGet:
    """As the device arrays of packages other than CuPy."""

    def __init__(self, host):
        self.__cuda_array_interface__ = DeviceArray(host).__cuda_array_interface__
        self.size = host.size

    def __getitem__(self, part):
        return self


def example(dtype="f4"):
    rng = np.random.default_rng(1)
    values = rng.integers(0, 4, (N_CELLS, N_GENES))
    values[4], values[:, 2] = 0, 0
    return values.astype(dtype)


def host_sparse(form, values=None):
    return sparse.csr_matrix(example() if values is None else values).asformat(form)


def only_chunk(source):
    with source.open([0, source.n_genes], 0) as reader:
        return reader.read(0)


# --- what is handed on ------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", [np.ascontiguousarray, np.asfortranarray])
def test_dense(layout, dtype):
    matrix = DeviceArray(layout(example(dtype)))
    source = from_array(matrix, what="X")
    assert isinstance(source, DeviceDense)
    assert (source.n_cells, source.n_genes, source.nnz) == (N_CELLS, N_GENES, N_CELLS * N_GENES)
    assert source.in_memory
    assert source.on_device
    assert source.bytes_per_entry == np.dtype(dtype).itemsize
    assert source.description == f"dense {np.dtype(dtype)} on the device"
    chunk = only_chunk(source)
    assert isinstance(chunk, DenseChunk)
    assert chunk.values is matrix
    assert (chunk.gene_start, chunk.n_genes) == (0, N_GENES)
    assert source.canonical() is source


@pytest.mark.parametrize("index_dtype", ["i4", "i8"])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("form", FORMS)
def test_sparse(form, dtype, index_dtype):
    host = host_sparse(form, example(dtype))
    host.indices, host.indptr = host.indices.astype(index_dtype), host.indptr.astype(index_dtype)
    matrix = DeviceSparse(host)
    source = from_array(matrix, what="X")
    assert isinstance(source, DeviceCsr if form == "csr" else DeviceCsc)
    assert (source.n_cells, source.n_genes) == (N_CELLS, N_GENES)
    assert source.nnz == host.nnz
    assert type(source.nnz) is int
    assert source.in_memory
    assert source.on_device
    assert source.bytes_per_entry == np.dtype(dtype).itemsize + np.dtype(index_dtype).itemsize
    assert source.description == f"{form.upper()} {np.dtype(dtype)} on the device"
    chunk = only_chunk(source)
    assert chunk.data is matrix.data
    assert chunk.indices is matrix.indices
    assert (chunk.gene_start, chunk.n_genes) == (0, N_GENES)
    if form == "csr":
        assert isinstance(chunk, CsrChunk)
        for part, expected in ((chunk.starts, host.indptr[:-1]), (chunk.stops, host.indptr[1:])):
            assert isinstance(part, np.ndarray)
            assert part.dtype == np.int64
            np.testing.assert_array_equal(part, expected)
    else:
        assert isinstance(chunk, CscChunk)
        assert isinstance(chunk.indptr, np.ndarray)
        assert chunk.indptr.dtype == np.int64
        np.testing.assert_array_equal(chunk.indptr, host.indptr)
        assert chunk.n_cells == N_CELLS


@pytest.mark.parametrize("form", FORMS)
def test_entries_beyond_indptr_are_ignored(form):
    host = host_sparse(form)
    expected = host.toarray()
    matrix = DeviceSparse(host)
    matrix.data = DeviceArray(np.append(host.data, np.float32(9)))
    matrix.indices = DeviceArray(np.append(host.indices, np.int32(999)))
    source = from_array(matrix, what="X")
    assert source.nnz == host.nnz
    np.testing.assert_array_equal(host_values(source.canonical()), expected)


@pytest.mark.parametrize("shape", [(0, 4), (4, 0)])
@pytest.mark.parametrize("form", ["dense", *FORMS])
def test_empty_matrices(form, shape):
    values = np.zeros(shape, "f4")
    matrix = DeviceArray(values) if form == "dense" else DeviceSparse(host_sparse(form, values))
    source = from_array(matrix, what="X")
    assert (source.n_cells, source.n_genes, source.nnz) == (*shape, 0)
    assert only_chunk(source).n_genes == shape[1]


@pytest.mark.parametrize("edges", [[0, 2, N_GENES], [1, N_GENES], [0, N_GENES - 1], [0]], ids=str)
@pytest.mark.parametrize("form", ["dense", *FORMS])
def test_there_is_but_one_range(form, edges):
    matrix = DeviceArray(example()) if form == "dense" else DeviceSparse(host_sparse(form))
    with pytest.raises(ValueError, match=r"read as one range, with edges \[0, 5\], not .*a bug"):
        from_array(matrix, what="X").open(edges, 1 << 30)


# --- a sorted copy ----------------------------------------------------------------------------


def host_values(source):
    """The values of a source in host memory."""
    chunk = only_chunk(source)
    if isinstance(chunk, CsrChunk):
        indptr = np.append(chunk.starts, chunk.stops[-1])
        return sparse.csr_array((chunk.data, chunk.indices, indptr), (N_CELLS, N_GENES)).toarray()
    return sparse.csc_array((chunk.data, chunk.indices, chunk.indptr), (N_CELLS, N_GENES)).toarray()


@pytest.mark.parametrize("form", FORMS)
def test_canonical_is_a_sorted_copy_in_host_memory(form):
    host = host_sparse(form)
    host.indices[: host.indptr[1]] = host.indices[: host.indptr[1]][::-1]
    host.indices[host.indptr[1] + 1] = host.indices[host.indptr[1]]  # repeated
    before = [part.copy() for part in (host.data, host.indices, host.indptr)]
    on_device = from_array(DeviceSparse(host), what="X")
    on_device.canonical()  # must leave nothing sorted behind that the next one starts from
    source = on_device.canonical()
    assert type(source) is (CsrSource if form == "csr" else CscSource)
    assert not source.on_device
    assert (source.n_cells, source.n_genes, source.nnz) == (N_CELLS, N_GENES, host.nnz - 1)
    expected = from_array(host, what="X").canonical()
    for found, wanted in zip(
        source.state().arrays.values(), expected.state().arrays.values(), strict=True
    ):
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(found, wanted)
    np.testing.assert_array_equal(host_values(source), host.toarray())
    for part, old in zip((host.data, host.indices, host.indptr), before, strict=True):
        np.testing.assert_array_equal(part, old)


@pytest.mark.parametrize(("form", "limit"), [("csr", N_GENES), ("csc", N_CELLS)])
def test_canonical_names_the_entry_out_of_range(form, limit):
    host = host_sparse(form)
    host.indices[host.indptr[1]] = limit
    major, minor = ("row", "column") if form == "csr" else ("column", "row")
    with pytest.raises(
        DataError, match=f"^layer 'a' is malformed: {major} 1 .* {minor} {limit}, but there are"
    ):
        from_array(DeviceSparse(host), what="layer 'a'").canonical()


@pytest.mark.parametrize("form", FORMS)
def test_what_cannot_be_copied_to_the_host(form):
    host = host_sparse(form)
    matrix = DeviceSparse(host)
    matrix.data = WithoutGet(host.data)
    source = from_array(matrix, what="X")
    text = r"^X must be copied .*test_memory_device.WithoutGet, have no get\(\) method\. Move it"
    with pytest.raises(DataError, match=text):
        source.canonical()
    matrix.indptr = WithoutGet(host.indptr)
    with pytest.raises(DataError, match=text):
        from_array(matrix, what="X")


# --- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "text"),
    [
        ("f2", r"dtype float16 on a CUDA device.*astype\('float32'\)\.$"),
        (">f8", r"dtype >f8 on a CUDA device.*astype\('float64'\)\.$"),
        ("c8", "dtype complex64. Supported: "),
        ("longdouble", ". Supported: "),
        ("V2", ". Supported: "),
    ],
)
@pytest.mark.parametrize("form", ["dense", *FORMS])
def test_dtypes_that_cannot_be_used_in_place(form, dtype, text):
    if form == "dense":
        matrix = DeviceArray(np.zeros((2, 2), dtype))
    else:
        matrix = DeviceSparse(host_sparse(form))
        matrix.data = DeviceArray(np.zeros(matrix.data.size, dtype))
    with pytest.raises(UnsupportedDataError, match=f"^X has {'.*' + text}"):
        from_array(matrix, what="X")


@pytest.mark.parametrize("form", ["coo", "dia"])
def test_other_formats_say_tocsr(form):
    matrix = DeviceSparse(host_sparse(form))
    text = r"^X is a device_arrays.DeviceSparse on a CUDA device\. Supported.*tocsr\(\) method"
    with pytest.raises(UnsupportedDataError, match=text):
        from_array(matrix, what="X")
    del matrix.format
    with pytest.raises(UnsupportedDataError, match=text):
        from_array(matrix, what="X")


@pytest.mark.parametrize("shape", [(3,), (2, 2, 2)])
def test_other_than_two_dimensions_are_refused(shape):
    with pytest.raises(DataError, match=r"^X has shape"):
        from_array(DeviceArray(np.zeros(shape)), what="X")
    matrix = DeviceSparse(host_sparse("csr"))
    matrix.shape = shape
    with pytest.raises(DataError, match=r"^X has shape"):
        from_array(matrix, what="X")


@pytest.mark.parametrize("change", ["first", "falls", "beyond", "short", "long"])
@pytest.mark.parametrize("form", FORMS)
def test_contradicting_indptr_is_refused(form, change):
    host = host_sparse(form)
    if change == "first":
        host.indptr[0] = 1
    elif change == "falls":
        host.indptr[1] = host.indptr[2] + 1
    elif change == "beyond":
        host.indptr[-1] += 1
    matrix = DeviceSparse(host)
    if change == "short":
        matrix.indices = matrix.indices[:-1]
    elif change == "long":
        matrix.indptr = DeviceArray(np.append(host.indptr, host.indptr[-1]))
    with pytest.raises(DataError, match=r"^X is malformed: indptr must hold"):
        from_array(matrix, what="X")


@pytest.mark.parametrize("name", ["data", "indices", "indptr"])
@pytest.mark.parametrize("form", FORMS)
def test_parts_are_contiguous_vectors_on_the_device(form, name):
    host = host_sparse(form)
    part = getattr(host, name)
    wrong = [DeviceArray(np.repeat(part, 2)[::2]), DeviceArray(part[:, None])]
    if name != "data":  # a matrix with data in host memory is not on a device
        wrong.append(part)
    for array in wrong:
        matrix = DeviceSparse(host)
        setattr(matrix, name, array)
        with pytest.raises(DataError, match=f"^X is malformed: {name} must be one-dim"):
            from_array(matrix, what="X")


def test_strides_that_say_contiguous_are_accepted():
    host = host_sparse("csr")
    matrix = DeviceSparse(host)
    matrix.data = WithoutGet(host.data)
    matrix.data.__cuda_array_interface__["strides"] = (4,)
    assert from_array(matrix, what="X").nnz == host.nnz
    del matrix.data.__cuda_array_interface__["strides"]  # may be missing, says the protocol
    assert from_array(matrix, what="X").nnz == host.nnz


# --- around it --------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [None, "counts"])
@pytest.mark.parametrize("form", ["dense", *FORMS])
def test_an_anndata_on_the_device(form, layer, monkeypatch):
    adata = screen()
    values = counts()
    matrix = DeviceArray(values) if form == "dense" else DeviceSparse(host_sparse(form, values))
    # Without CuPy, anndata takes no such matrix from anyone.
    if layer is None:
        monkeypatch.setattr(ad.AnnData, "X", property(lambda self: matrix))
    else:
        monkeypatch.setattr(ad.AnnData, "layers", property(lambda self: {layer: matrix}))
    with open_dataset(adata, GROUPBY, MatrixChoice(layer)) as dataset:
        assert dataset.source.on_device
        assert (dataset.source.n_cells, dataset.source.n_genes) == (len(LABELS), len(GENES))
        chunk = only_chunk(dataset.source)
    assert (chunk.values if form == "dense" else chunk.data) is (
        matrix if form == "dense" else matrix.data
    )


def test_all_other_sources_are_in_host_memory(tmp_path):
    for matrix in (example(), host_sparse("csr"), host_sparse("csc")):
        assert not from_array(matrix, what="X").on_device
    path = tmp_path / "screen.h5ad"
    layers = {form: host_sparse(form, counts()) for form in FORMS}
    screen(counts(), layers=layers).write_h5ad(path)
    with h5py.File(path) as file:
        for name in ("X", "layers/csr", "layers/csc"):
            assert not from_node(file[name], what="X").on_device


def test_objects_that_only_look_like_it_are_named():
    class Table:
        data, format = np.zeros(3), "csr"

    with pytest.raises(UnsupportedDataError, match=r"Table\. Supported: .*CuPy.*Convert it"):
        from_array(Table(), what="X")


def test_cupy_is_not_imported():
    code = (
        "import sys, pdex_gpu.sources.memory.device, pdex_gpu.sources.chunk_ops\n"
        "assert not {'cupy', 'cupyx', 'scipy', 'numba', 'anndata'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
