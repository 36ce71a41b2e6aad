"""Sources over HDF5 objects: the matrix comes back, a CSR file is read once, errors are told."""

import gc
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from scipy import sparse
from test_sources_memory import DTYPES, EDGES, N_CELLS, N_GENES, dense_of, example, read_back

from pdex_gpu.errors import DataError, FileFormatError, UnsupportedDataError
from pdex_gpu.sources import hdf5
from pdex_gpu.sources.hdf5 import from_hdf5

TINY = 1  # a budget that nothing fits in: blocks of one HDF5 chunk, and the scratch file
AMPLE = 1 << 30
LAYOUTS = ["dense", "csr", "csc"]


@pytest.fixture
def file(tmp_path):
    with h5py.File(tmp_path / "m.h5", "w") as opened:
        yield opened


def write_sparse(group, matrix, encoding, **options):
    group.attrs["encoding-type"] = encoding
    group.attrs["shape"] = matrix.shape
    for name in ("data", "indices", "indptr"):
        group.create_dataset(name, data=getattr(matrix, name), **options)
    return group


def write(file, values, layout, *, name="X", **options):
    """The values as anndata would write them."""
    if layout == "dense":
        return file.create_dataset(name, data=values, **options)
    matrix = (sparse.csr_matrix if layout == "csr" else sparse.csc_matrix)(values)
    return write_sparse(file.create_group(name), matrix, f"{layout}_matrix", **options)


@pytest.fixture
def elements_read(monkeypatch):
    """Elements read so far, by name of the dataset."""
    count = Counter()
    original = h5py.Dataset.__getitem__

    def spy(self, key, *args, **kwargs):
        result = original(self, key, *args, **kwargs)
        count[self.name] += np.size(result)
        return result

    monkeypatch.setattr(h5py.Dataset, "__getitem__", spy)
    return count


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """The only folder for temporary files, and a list of the files opened there."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    opened = []
    original = tempfile.TemporaryFile

    def spy(*args, **kwargs):
        opened.append(original(*args, **kwargs))
        return opened[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", spy)
    yield opened
    assert list(folder.iterdir()) == []
    assert all(each.closed for each in opened)


@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("options", [{}, {"chunks": True, "compression": "gzip"}], ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_matrix_back(file, scratch, layout, options, budget, edges):
    values = example()
    source = from_hdf5(write(file, values, layout, **options), what="X")
    assert (source.n_cells, source.n_genes) == values.shape
    assert source.nnz == (values.size if layout == "dense" else np.count_nonzero(values))
    assert not source.in_memory
    np.testing.assert_array_equal(read_back(source, edges, budget), values)
    np.testing.assert_array_equal(read_back(source.canonical(), edges, budget), values)
    assert len(scratch) == (layout == "csr" and budget == TINY and len(edges) > 2)


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("dtype", [*DTYPES, "f2", ">f4", ">i2"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_dtype_comes_back_native(file, layout, dtype, budget):
    values = example(dtype.lstrip(">").replace("f2", "f4"))
    node = write(file, values, layout)
    name = "X" if layout == "dense" else "X/data"
    stored = file[name][:].astype(dtype)
    del file[name]
    file[name] = stored
    source = from_hdf5(file["X"] if layout == "dense" else node, what="X")
    read = read_back(source, [0, 4, 7, N_GENES], budget)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)
    assert source.bytes_per_entry >= values.itemsize


def test_an_enum_comes_back_as_numbers(file):
    values = np.array([[0, 1], [2, 0]], "i1")
    kind = h5py.enum_dtype({"low": 0, "mid": 1, "high": 2}, "i1")
    node = file.create_dataset("X", data=values, dtype=kind)
    read = read_back(from_hdf5(node, what="X"), [0, 1, 2])
    assert read.dtype == np.dtype("i1")
    np.testing.assert_array_equal(read, values)


@pytest.mark.parametrize("index_dtype", ["i4", "i8", "u2", "u8", ">i4"])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_every_index_dtype(file, layout, index_dtype):
    node = write(file, example(), layout)
    for name in ("indices", "indptr"):
        values = node[name][:].astype(index_dtype)
        del node[name]
        node[name] = values
    source = from_hdf5(node, what="X")
    for budget in (TINY, AMPLE):
        with source.open([0, 4, N_GENES], budget) as reader:
            assert reader.read(1).indices.dtype == (np.uint16 if layout == "csr" else np.int32)
        np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES], budget), example())


def test_wide_matrices_have_32_bit_gene_indices(file):
    matrix = sparse.csr_matrix(([1.0, 2.0], ([0, 1], [5, 70_000])), shape=(2, 70_001))
    source = from_hdf5(write_sparse(file.create_group("X"), matrix, "csr_matrix"), what="X")
    with source.open([0, 10, 70_001], TINY) as reader:
        chunk = reader.read(1)
    assert chunk.indices.dtype == np.int32
    np.testing.assert_array_equal(chunk.indices, [70_000])
    np.testing.assert_array_equal(chunk.stops - chunk.starts, [0, 1])


def test_the_old_sparse_format(file):
    node = write(file, example(), "csr")
    node.attrs["h5sparse_shape"] = node.attrs["shape"]
    for name in ("encoding-type", "shape"):
        del node.attrs[name]
    for value in ("csr", np.bytes_(b"csr")):
        node.attrs["h5sparse_format"] = value
        np.testing.assert_array_equal(
            read_back(from_hdf5(node, what="X"), [0, 4, N_GENES]), example()
        )


@pytest.mark.parametrize("budget", [TINY, AMPLE, 4096])
@pytest.mark.parametrize("edges", EDGES, ids=str)
def test_a_csr_file_is_read_once(file, elements_read, budget, edges):
    values = example()
    node = write(file, values, "csr", chunks=(5,))
    source = from_hdf5(node, what="X")
    read_back(source, edges, budget)
    nnz = np.count_nonzero(values)
    assert elements_read == {"/X/data": nnz, "/X/indices": nnz, "/X/indptr": N_CELLS + 1}


@pytest.mark.parametrize("layout", ["dense", "csc"])
def test_a_range_of_genes_reads_no_more_than_itself(file, elements_read, layout):
    values = example()
    source = from_hdf5(write(file, values, layout), what="X")
    elements_read.clear()
    with source.open([0, 4, 7, N_GENES], TINY) as reader:
        reader.read(1)
    part = values[:, 4:7]
    if layout == "dense":
        assert elements_read == {"/X": part.size}
    else:
        assert elements_read["/X/data"] == elements_read["/X/indices"] == np.count_nonzero(part)


@pytest.mark.parametrize("chunk", [1, 3, 64, 100_000])
def test_scratch_file_equals_memory(file, scratch, monkeypatch, chunk):
    """Blocks that end anywhere in a row: same entries, in the same order, as from memory."""
    monkeypatch.setattr(hdf5, "_BLOCK_ENTRIES", 50)
    rng = np.random.default_rng(0)
    matrix = sparse.random(60, 40, density=0.4, random_state=rng, format="csr", dtype=np.float32)
    matrix.data[:] = np.arange(1, matrix.nnz + 1)
    matrix = sparse.vstack([matrix[:30], sparse.csr_matrix((9, 40)), matrix[30:]], format="csr")
    chunks = (min(chunk, matrix.nnz),)
    group = file.create_group("X")
    group.attrs.update({"encoding-type": "csr_matrix", "shape": matrix.shape})
    group["indptr"] = matrix.indptr
    for name in ("data", "indices"):
        group.create_dataset(name, data=getattr(matrix, name), chunks=chunks)
    source = from_hdf5(group, what="X")
    edges = [0, 1, 13, 14, 39, 40]
    with source.open(edges, TINY) as small, source.open(edges, AMPLE) as large:
        assert len(scratch) == 1
        for k in (3, 0, 4, 1, 2, 1):
            one, other = small.read(k), large.read(k)
            np.testing.assert_array_equal(one.stops - one.starts, other.stops - other.starts)
            taken = np.concatenate(
                [np.arange(a, b) for a, b in zip(other.starts, other.stops, strict=True)]
            ).astype(int)
            np.testing.assert_array_equal(one.data, other.data[taken])
            np.testing.assert_array_equal(one.indices, other.indices[taken])
    np.testing.assert_array_equal(read_back(source, edges, TINY), matrix.toarray())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_may_read_at_once(file, layout):
    values = np.tile(example(), (20, 1))
    source = from_hdf5(write(file, values, layout, chunks=True), what="X")
    edges = list(range(N_GENES + 1))
    with source.open(edges, TINY) as reader, ThreadPoolExecutor(8) as pool:
        order = list(range(N_GENES)) * 20
        for k, chunk in zip(order, pool.map(reader.read, order), strict=True):
            np.testing.assert_array_equal(dense_of(chunk, len(values)), values[:, k : k + 1])


def test_scratch_file_of_long_rows(file):
    """More entries in a row than 16 bits count."""
    n_genes = (1 << 16) + 10
    matrix = sparse.csr_matrix(np.arange(1, 2 * n_genes + 1, dtype="f4").reshape(2, n_genes))
    source = from_hdf5(write_sparse(file.create_group("X"), matrix, "csr_matrix"), what="X")
    with source.open([0, n_genes - 3, n_genes], 1 << 19) as reader:
        chunk = reader.read(0)
        np.testing.assert_array_equal(chunk.stops, [n_genes - 3, 2 * (n_genes - 3)])
        np.testing.assert_array_equal(reader.read(1).data, matrix.toarray()[:, -3:].ravel())


def test_scratch_file_leaves_out_genes_outside_the_edges(file, scratch):
    source = from_hdf5(write(file, example(), "csr"), what="X")
    np.testing.assert_array_equal(read_back(source, [2, 5, 9], TINY), example()[:, 2:9])


def test_unsorted_rows_pass_and_canonical_sorts_them(file, scratch):
    matrix = sparse.csr_matrix(
        (np.array([1.0, 2, 4, 8]), np.array([3, 0, 3, 1]), np.array([0, 3, 4])), shape=(2, 4)
    )
    source = from_hdf5(write_sparse(file.create_group("X"), matrix, "csr_matrix"), what="X")
    with source.open([0, 2, 4], TINY) as reader:
        chunk = reader.read(1)
        np.testing.assert_array_equal(chunk.indices, [3, 3])
        np.testing.assert_array_equal(chunk.data, [1, 4])
    canonical = source.canonical()
    assert canonical.nnz == 3
    np.testing.assert_array_equal(read_back(canonical, [0, 2, 4]), [[2, 0, 0, 5], [0, 8, 0, 0]])


def test_csc_canonical_sorts(file):
    matrix = sparse.csc_matrix(
        (np.array([1.0, 2, 4]), np.array([1, 0, 1]), np.array([0, 3])), shape=(2, 1)
    )
    source = from_hdf5(write_sparse(file.create_group("X"), matrix, "csc_matrix"), what="X")
    np.testing.assert_array_equal(read_back(source.canonical(), [0, 1]), [[2], [5]])


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize(
    ("bad", "layout"), [(11, "csr"), (-1, "csr"), (23, "csc"), (65_536, "csc")]
)
def test_indices_out_of_range_are_named(file, scratch, monkeypatch, bad, layout, budget):
    monkeypatch.setattr(hdf5, "_BLOCK_ENTRIES", 4)
    node = write(file, example(), layout)
    node["indices"][node["indptr"][7]] = bad
    source = from_hdf5(node, what="X")
    major = "row" if layout == "csr" else "column"
    with pytest.raises(DataError, match=f"X is malformed: {major} 7 .* {bad}, but there are"):
        read_back(source, [0, 4, N_GENES], budget)
    with pytest.raises(DataError, match=f"X is malformed: {major} 7 "):
        source.canonical()


def test_the_scratch_file_goes_when_reading_fails(file, scratch):
    source = from_hdf5(write(file, example(), "csr"), what="X")
    with pytest.raises(ZeroDivisionError), source.open([0, 4, N_GENES], TINY):
        raise ZeroDivisionError
    assert len(scratch) == 1


def test_a_full_disk_says_where(file, scratch, monkeypatch):
    class Full:
        def tell(self):
            return 0

        def write(self, _):
            raise OSError(28, "No space left on device")

    source = from_hdf5(write(file, example(), "csr"), what="X")
    with pytest.raises(OSError, match="No space left") as raised:
        hdf5._write_scratch(source._parts, [0, 4, N_GENES], TINY, Full())
    assert not isinstance(raised.value, FileFormatError)
    assert any("TMPDIR" in note for note in raised.value.__notes__)


def test_a_shortened_scratch_file_is_noticed(file, scratch):
    source = from_hdf5(write(file, example(), "csr"), what="X")
    with source.open([0, 4, N_GENES], TINY) as reader:
        scratch[0].truncate(10)
        with pytest.raises(OSError, match="ended early"):
            reader.read(1)


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_data_keep_their_cause(tmp_path, layout, budget):
    path = tmp_path / "m.h5"
    with h5py.File(path, "w") as file:
        node = write(file, example(), layout, chunks=True, compression="gzip")
        dataset = node if layout == "dense" else node["data"]
        chunk = dataset.id.get_chunk_info(0)
    with open(path, "r+b") as raw:
        raw.seek(chunk.byte_offset)
        raw.write(b"\xff" * chunk.size)
    with h5py.File(path) as file:
        source = from_hdf5(file["X"], what="X")
        with pytest.raises(FileFormatError, match=r"^X, .*cannot be read: .*truncated") as raised:
            read_back(source, [0, 4, N_GENES], budget)
        assert type(raised.value.__cause__) is OSError
        assert raised.value.__cause__.args[0] in str(raised.value)
        del source, raised
        gc.collect()


@pytest.mark.parametrize("encoding", ["coo_matrix", "awkward-array"])
def test_unsupported_encodings_are_named(file, encoding):
    group = file.create_group("X")
    group.attrs["encoding-type"] = encoding
    with pytest.raises(
        UnsupportedDataError, match=f"'{encoding}'; supported are array, csr_matrix and csc_matrix"
    ):
        from_hdf5(group, what="X")


def test_a_group_without_encoding_and_a_dataset_of_strings(file):
    with pytest.raises(UnsupportedDataError, match="encoding 'none'"):
        from_hdf5(file.create_group("X"), what="X")
    strings = file.create_dataset("S", data=np.array([["a"]], object), dtype=h5py.string_dtype())
    with pytest.raises(UnsupportedDataError, match="dtype object"):
        from_hdf5(strings, what="X")
    strings.attrs["encoding-type"] = "string-array"
    with pytest.raises(UnsupportedDataError, match="'string-array'"):
        from_hdf5(strings, what="X")
    with pytest.raises(DataError, match=r"X has shape \(3,\)"):
        from_hdf5(file.create_dataset("V", data=np.zeros(3)), what="X")


@pytest.mark.parametrize("part", ["data", "indices", "indptr", "shape"])
def test_incomplete_sparse_groups_say_what_is_missing(file, part):
    node = write(file, example(), "csr")
    if part == "shape":
        del node.attrs["shape"]
    else:
        del node[part]
    with pytest.raises(FileFormatError, match=f"without usable {part}:"):
        from_hdf5(node, what="X")


def test_malformed_sparse_groups(file):
    node = write(file, example(), "csr")
    indices = node["indices"][:]
    del node["indices"]
    node["indices"] = indices.astype("f4")
    with pytest.raises(FileFormatError, match="without usable indices:"):
        from_hdf5(node, what="X")
    del node["indices"]
    node["indices"] = indices[:-1]
    with pytest.raises(DataError, match="X is malformed: indptr"):
        from_hdf5(node, what="X")
    del node["data"]
    node["data"] = np.zeros(len(indices), "c8")
    with pytest.raises(UnsupportedDataError, match="complex64"):
        from_hdf5(node, what="X")
