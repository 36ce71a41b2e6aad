"""Sources over HDF5 objects: the matrix comes back, a CSR file is read once, errors are told."""

import json
import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse
from screens import as_anndata
from source_reads import DTYPES, EDGES, N_CELLS, N_GENES, dense_of, example, read_back
from stored_screens import assert_same_bits

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError, FileFormatError, ScratchError, UnsupportedDataError
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.rechunk import scratch as scratch_module
from pdex_gpu.sources.rechunk import store
from pdex_gpu.sources.stored import hdf5
from pdex_gpu.sources.stored import sparse as stored_sparse
from pdex_gpu.utils import raw_file

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
def bytes_read(monkeypatch):
    """How often each byte of the file was read: a count at each offset."""
    count = Counter()
    real_read, real_fill = raw_file.read_at, raw_file.read_into

    def read_at(fd, offset, size):
        count.update(range(offset, offset + size))
        return real_read(fd, offset, size)

    def read_into(fd, offset, buffer):
        count.update(range(offset, offset + buffer.nbytes))
        return real_fill(fd, offset, buffer)

    monkeypatch.setattr(hdf5, "read_at", read_at)
    monkeypatch.setattr(hdf5, "read_into", read_into)
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

    # Not in tempfile itself: numba makes temporary files, too.
    monkeypatch.setattr(
        scratch_module,
        "tempfile",
        SimpleNamespace(TemporaryFile=spy, gettempdir=tempfile.gettempdir),
    )
    yield opened
    assert list(folder.iterdir()) == []
    assert all(each.closed for each in opened)


GZIP = {"chunks": True, "compression": "gzip"}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("options", [{}, GZIP], ids=["plain", "gzip"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_the_matrix_back(file, scratch, layout, options, budget, edges):
    values = example()
    source = from_node(write(file, values, layout, **options), what="X")
    assert (source.n_cells, source.n_genes) == values.shape
    assert source.nnz == (values.size if layout == "dense" else np.count_nonzero(values))
    assert not source.in_memory
    assert source.read_whole == (layout != "csc")
    np.testing.assert_array_equal(read_back(source, edges, budget), values)
    assert len(scratch) == (source.read_whole and budget == TINY)


@pytest.mark.sampled(every=5)
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
    source = from_node(file["X"] if layout == "dense" else node, what="X")
    read = read_back(source, [0, 4, 7, N_GENES], budget)
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)
    assert source.bytes_per_entry >= values.itemsize


def test_an_enum_comes_back_as_numbers(file):
    values = np.array([[0, 1], [2, 0]], "i1")
    kind = h5py.enum_dtype({"low": 0, "mid": 1, "high": 2}, "i1")
    node = file.create_dataset("X", data=values, dtype=kind)
    read = read_back(from_node(node, what="X"), [0, 1, 2])
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
    source = from_node(node, what="X")
    for budget in (TINY, AMPLE):
        with source.open([0, 4, N_GENES], budget) as reader:
            assert reader.read(1).indices.dtype == np.uint16
        np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES], budget), example())


def test_wide_matrices_have_32_bit_gene_indices(file):
    matrix = sparse.csr_matrix(([1.0, 2.0], ([0, 1], [5, 70_000])), shape=(2, 70_001))
    source = from_node(write_sparse(file.create_group("X"), matrix, "csr_matrix"), what="X")
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
            read_back(from_node(node, what="X"), [0, 4, N_GENES]), example()
        )


def chunk_bytes(dataset):
    """Offsets of the bytes of every chunk."""
    found = []
    dataset.id.chunk_iter(lambda info: found.append((info.byte_offset, info.size)))
    return [at for offset, size in found for at in range(offset, offset + size)]


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("budget", [TINY, AMPLE, 700])
@pytest.mark.parametrize("edges", EDGES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_byte_is_read_once(file, bytes_read, layout, budget, edges):
    chunks = (6, 11) if layout == "dense" else (5,)
    node = write(file, example(), layout, chunks=chunks, compression="gzip")
    source = from_node(node, what="X")
    datasets = [node] if layout == "dense" else [node["data"], node["indices"]]
    expected = Counter(at for dataset in datasets for at in chunk_bytes(dataset))
    assert not expected.keys() & bytes_read.keys()  # nothing but indptr to open it
    bytes_read.clear()
    told = []
    with source.open(edges, budget, Reading(advance=told.append)) as reader:
        for k in range(len(edges) - 1):
            reader.read(k)
    if layout == "csc":  # a chunk on the border of two ranges is in both
        assert bytes_read.keys() == expected.keys()
        assert max(bytes_read.values()) <= len(edges) - 1
    else:
        assert bytes_read == expected
    assert sum(told) == bytes_read.total()
    assert sum(told) == source.n_bytes or layout == "csc"


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("length", [1, 7, 64])
def test_blocks_share_no_more_than_the_chunk_between_them(file, bytes_read, monkeypatch, length):
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", length)
    matrix = sparse.random(90, 40, density=0.3, random_state=0, format="csr", dtype=np.float32)
    options = {"chunks": (16,), "compression": "gzip"}
    node = write_sparse(file.create_group("X"), matrix, "csr_matrix", **options)
    source = from_node(node, what="X")
    bytes_read.clear()
    with source.open([0, 13, 40], TINY, Reading(n_threads=1000)):
        pass
    for dataset in (node["data"], node["indices"]):
        expected = chunk_bytes(dataset)
        assert {at for at in bytes_read if at in set(expected)} == set(expected)
        rows_in_chunk = 16 / (matrix.nnz / 90) + 2
        assert max(bytes_read[at] for at in expected) <= rows_in_chunk
    if length == 64:
        total = sum(len(chunk_bytes(dataset)) for dataset in (node["data"], node["indices"]))
        assert bytes_read.total() < 1.5 * total


def test_a_contiguous_file_is_read_once(file, bytes_read):
    for name, layout in (("d", "dense"), ("r", "csr"), ("c", "csc")):
        source = from_node(write(file, example(), layout, name=name), what="X")
        for budget in (TINY, AMPLE):
            bytes_read.clear()
            with source.open([0, 4, N_GENES], budget) as reader:
                for k in range(2):
                    reader.read(k)
            assert bytes_read.total() == source.n_bytes
            assert set(bytes_read.values()) == {1}


def test_a_range_of_genes_of_a_csc_file_reads_no_more_than_itself(file, bytes_read):
    values = example()
    source = from_node(write(file, values, "csc"), what="X")
    bytes_read.clear()
    with source.open([0, 4, 7, N_GENES], TINY) as reader:
        reader.read(1)
    assert bytes_read.total() == np.count_nonzero(values[:, 4:7]) * (4 + 4)


@pytest.mark.parametrize("chunk", [1, 3, 64, 100_000])
def test_scratch_file_equals_memory(file, scratch, monkeypatch, chunk):
    """Blocks that end anywhere in a row: same entries, in the same order, as from memory."""
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", 50)
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
    source = from_node(group, what="X")
    edges = [0, 1, 13, 14, 39, 40]
    many = Reading(n_threads=1000)  # short blocks
    with source.open(edges, TINY, many) as small, source.open(edges, AMPLE, many) as large:
        assert len(scratch) == 1
        for k in (3, 0, 4, 1, 2, 1):
            one, other = small.read(k), large.read(k)
            np.testing.assert_array_equal(one.stops - one.starts, other.stops - other.starts)
            for a, b in zip(
                np.stack([one.starts, one.stops]).T.tolist(),
                np.stack([other.starts, other.stops]).T.tolist(),
                strict=True,
            ):
                np.testing.assert_array_equal(one.data[slice(*a)], other.data[slice(*b)])
                np.testing.assert_array_equal(one.indices[slice(*a)], other.indices[slice(*b)])
    np.testing.assert_array_equal(read_back(source, edges, TINY), matrix.toarray())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_threads_may_read_at_once(file, layout):
    values = np.tile(example(), (20, 1))
    source = from_node(write(file, values, layout, chunks=True), what="X")
    edges = list(range(N_GENES + 1))
    with source.open(edges, TINY) as reader, ThreadPoolExecutor(8) as pool:
        order = list(range(N_GENES)) * 20
        for k, chunk in zip(order, pool.map(reader.read, order), strict=True):
            np.testing.assert_array_equal(dense_of(chunk, len(values)), values[:, k : k + 1])


def test_scratch_file_of_long_rows(file):
    """More entries in a row than 16 bits count."""
    n_genes = (1 << 16) + 10
    matrix = sparse.csr_matrix(np.arange(1, 2 * n_genes + 1, dtype="f4").reshape(2, n_genes))
    source = from_node(write_sparse(file.create_group("X"), matrix, "csr_matrix"), what="X")
    with source.open([0, n_genes - 3, n_genes], 1 << 19) as reader:
        chunk = reader.read(0)
        np.testing.assert_array_equal(chunk.stops, [n_genes - 3, 2 * (n_genes - 3)])
        np.testing.assert_array_equal(reader.read(1).data, matrix.toarray()[:, -3:].ravel())


def test_scratch_file_leaves_out_genes_outside_the_edges(file, scratch):
    source = from_node(write(file, example(), "csr"), what="X")
    np.testing.assert_array_equal(read_back(source, [2, 5, 9], TINY), example()[:, 2:9])


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("edges", [[0, N_GENES], [0, 4, N_GENES]], ids=str)
@pytest.mark.parametrize(
    ("bad", "layout"), [(11, "csr"), (-1, "csr"), (65_536 + 3, "csr"), (23, "csc"), (65_536, "csc")]
)
def test_indices_out_of_range_are_named(file, scratch, bad, layout, edges, budget):
    node = write(file, example(), layout)
    node["indices"][node["indptr"][7]] = bad
    source = from_node(node, what="X")
    major = "row" if layout == "csr" else "column"
    says = (
        rf"^X/indices of \S+m\.h5 is malformed: {major} 7 has an entry in \w+ {bad}, but there are"
    )
    with pytest.raises(FileFormatError, match=says):
        read_back(source, edges, budget)
    if layout == "csr":
        with pytest.raises(FileFormatError, match=says):
            source.density(map)


@pytest.mark.parametrize(("index_dtype", "n_genes"), [("i1", 200), ("i2", 40_000), ("i4", 40_000)])
@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_negative_indices_of_narrow_types(file, layout, index_dtype, n_genes):
    """As unsigned numbers they would be within range."""
    shape = (2, n_genes) if layout == "csr" else (n_genes, 2)
    group = file.create_group("X")
    group["data"] = np.ones(4, np.float32)
    group["indices"] = np.array([3, 7, 5, -1], index_dtype)
    indptr = np.zeros(3, np.int64)
    indptr[1:] = 2, 4
    group["indptr"] = indptr
    group.attrs.update({"encoding-type": f"{layout}_matrix", "shape": shape})
    source = from_node(group, what="X")
    says = r"^X/indices of \S+m\.h5 is malformed: \w+ 1 has an entry in \w+ -1, but there are"
    with pytest.raises(FileFormatError, match=says):
        read_back(source, [0, source.n_genes], AMPLE)


def test_the_scratch_file_goes_when_reading_fails(file, scratch):
    source = from_node(write(file, example(), "csr"), what="X")
    with pytest.raises(ZeroDivisionError), source.open([0, 4, N_GENES], TINY):
        raise ZeroDivisionError
    assert len(scratch) == 1


@pytest.mark.parametrize("layout", ["csr", "dense"])
def test_a_shortened_scratch_file_is_noticed(file, scratch, layout):
    source = from_node(write(file, example(), layout), what="X")
    with source.open([0, 4, N_GENES], TINY) as reader:
        os.ftruncate(scratch[0].fileno(), 10)
        with pytest.raises(ScratchError, match="ended early"):
            reader.read(1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_density(file, layout):
    values = np.tile(example(), (40, 1))
    density = from_node(write(file, values, layout, chunks=True), what="X").density(map)
    if layout == "dense":
        assert density is None
    else:
        np.testing.assert_allclose(density, np.count_nonzero(values, axis=0))


def test_density_of_a_sample(file, monkeypatch):
    monkeypatch.setattr(stored_sparse, "_SAMPLES", 10)
    rng = np.random.default_rng(0)
    values = (rng.random((4000, 20)) < np.linspace(0, 0.5, 20)).astype("f4")
    source = from_node(write(file, values, "csr", chunks=(500,)), what="X")
    density = source.density(map)
    assert density.sum() == pytest.approx(source.nnz)
    np.testing.assert_allclose(density, np.count_nonzero(values, axis=0), rtol=0.2, atol=60)
    assert density[0] == 0


@pytest.mark.parametrize("layout", ["csr", "csc"])
def test_density_of_a_matrix_without_entries(file, layout):
    source = from_node(write(file, np.zeros((5, 3), "f4"), layout), what="X")
    np.testing.assert_array_equal(source.density(map), np.zeros(3))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_identity_tells_files_apart(tmp_path, layout):
    seen = []
    for i, values in enumerate([example(), example(), np.where(example() == 1, 2, example())]):
        with h5py.File(tmp_path / f"{i}.h5", "w") as file:
            write(file, values.astype("f4"), layout)
    for i in (0, 0, 1, 2):
        with h5py.File(tmp_path / f"{i}.h5") as file:
            seen.append(from_node(file["X"], what="X").identity())
    assert seen[0] == seen[1]
    assert seen[0] not in seen[2:]
    assert seen[2] != seen[3]
    assert json.loads(json.dumps(seen[0])) == seen[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_open_for_writing_is_read_as_it_was_written(tmp_path, layout):
    """HDF5 keeps in memory what was written, until told to flush."""
    with h5py.File(tmp_path / "m.h5", "w") as file:
        chunks = (6, 11) if layout == "dense" else (5,)
        node = write(file, np.zeros_like(example()) + 1, layout, chunks=chunks)
        source = from_node(node, what="X")
        np.testing.assert_array_equal(read_back(source, [0, 4, N_GENES]), 1)
        (node if layout == "dense" else node["data"])[...] = 2
        np.testing.assert_array_equal(
            read_back(from_node(node, what="X"), [0, 4, N_GENES], TINY), 2
        )


def _rows(n):
    return sparse.random(n, 30, density=0.4, random_state=n, format="csr", dtype=np.float32)


SHAPES = {
    "no entries": sparse.csr_matrix((5, 7), dtype="f4"),
    "one row": _rows(1),
    "one gene": sparse.csr_matrix(np.array([[1], [0], [2]], "f4")),
    "no rows": sparse.csr_matrix((0, 4), dtype="f4"),
    "first and last rows empty": sparse.vstack(
        [sparse.csr_matrix((3, 30), dtype="f4"), _rows(4), sparse.csr_matrix((3, 30), dtype="f4")],
        format="csr",
    ),
    "one long row": sparse.vstack(
        [_rows(2), sparse.csr_matrix(np.arange(1, 31, dtype="f4")[None]), _rows(3)], format="csr"
    ),
}


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_odd_shapes(file, monkeypatch, shape, layout, budget):
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", 8)  # shorter than a full row
    matrix = SHAPES[shape]
    source = from_node(write(file, matrix.toarray(), layout), what="X")
    n = matrix.shape[1]
    for edges in ([0, n], list(range(n + 1)), sorted({0, n // 2, n})):
        found = []
        with source.open(edges, budget, Reading(n_threads=1000)) as reader:
            found = [dense_of(reader.read(k), source.n_cells) for k in range(len(edges) - 1)]
        np.testing.assert_array_equal(np.hstack(found), matrix.toarray())


@pytest.mark.parametrize("budget", [TINY, AMPLE])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_only_what_is_wanted_is_kept(file, scratch, layout, budget):
    source = from_node(write(file, example(), layout), what="X")
    edges = [0, 2, 5, 9, N_GENES]
    with source.open(edges, budget, Reading(wanted={1, 3})) as reader:
        for k in (3, 1):
            part = example()[:, edges[k] : edges[k + 1]]
            np.testing.assert_array_equal(dense_of(reader.read(k), N_CELLS), part)
        if layout == "csr" and budget == TINY:
            kept = np.count_nonzero(example()[:, [2, 3, 4, 9, 10]])
            assert os.fstat(scratch[0].fileno()).st_size <= kept * 5 + 2 * N_CELLS * 4


@pytest.fixture(scope="module")
def screens():
    """Screens of counts and logged values, and their results from memory."""
    rng = np.random.default_rng(5)
    counts = rng.poisson(rng.lognormal(-0.7, 1, 23), (150, 23)).astype("f4")
    counts[:, 9] = 0  # a gene never seen
    counts[17] = 0
    codes = rng.integers(0, 4, 150)
    found = []
    for values in (counts, np.log1p(counts * rng.uniform(0.5, 2, (150, 1))).astype("f4")):
        for metric in ("wilcoxon", "t-test"):
            adata = as_anndata(values, codes)
            found.append((values, codes, metric, compare(adata, metric)))
    return found


def compare(data, metric="wilcoxon", **options):
    return differential_expression(
        data, "group", reference="ref", metric=metric, progress=False, **options
    )


FILTERS = [
    {}, {"compression": "gzip", "compression_opts": 1}, {"compression": "lzf"}, {"shuffle": True},
    {"fletcher32": True}, {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"compression": "szip"},
]  # fmt: skip


@pytest.mark.thorough
@given(
    which=st.integers(0, 3),
    layout=st.sampled_from(LAYOUTS),
    options=st.sampled_from(FILTERS),
    chunk=st.tuples(st.integers(1, 150), st.integers(1, 23)),
    dtype=st.sampled_from(["f4", "f8", ">f4"]),
    index_dtype=st.sampled_from(["i4", "i8", "u2"]),
    block=st.sampled_from([1, 20, 1 << 16]),
    memory=st.sampled_from([1, 30_000, 1 << 30]),
    threads=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    gene_chunk_size=st.none() | st.integers(1, 23),
)
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_gives_the_results_of_memory(
    screens, monkeypatch, tmp_path, which, layout, options, chunk, dtype, index_dtype, block,
    memory, threads, gene_chunk_size,
):  # fmt: skip
    values, codes, metric, expected = screens[which]
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", block)
    path = tmp_path / "screen.h5ad"
    path.unlink(missing_ok=True)
    if options.get("compression") == "szip":  # takes eight numbers at a time
        chunk = max(chunk[0], 8), max(chunk[1], 8)
    as_anndata(np.zeros((150, 23), "f4"), codes).write_h5ad(path)
    with h5py.File(path, "r+") as file:
        del file["X"]
        if layout == "dense":
            file.create_dataset("X", data=values.astype(dtype), chunks=chunk, **options)
        else:
            matrix = (sparse.csr_matrix if layout == "csr" else sparse.csc_matrix)(values)
            group = file.create_group("X")
            group.attrs.update({"encoding-type": f"{layout}_matrix", "shape": values.shape})
            length = (min(chunk[0] * chunk[1], matrix.nnz),)
            group["indptr"] = matrix.indptr.astype(index_dtype)
            group.create_dataset("data", data=matrix.data.astype(dtype), chunks=length, **options)
            group.create_dataset(
                "indices", data=matrix.indices.astype(index_dtype), chunks=length, **options
            )
    n_workers, n_threads = threads
    found = compare(
        path, metric, memory=memory, n_workers=n_workers, n_threads=n_threads,
        gene_chunk_size=gene_chunk_size,
    )  # fmt: skip
    if dtype == "f8":  # exact sums of the same values
        np.testing.assert_array_equal(found["p_value"], expected["p_value"])
    assert_same_bits(found, expected)


@pytest.mark.parametrize("encoding", ["coo_matrix", "awkward-array"])
def test_unsupported_encodings_are_named(file, encoding):
    group = file.create_group("X")
    group.attrs["encoding-type"] = encoding
    with pytest.raises(
        UnsupportedDataError, match=f"'{encoding}'. Supported: array, csr_matrix and csc_matrix"
    ):
        from_node(group, what="X")


def test_a_group_without_encoding_and_a_dataset_of_strings(file):
    with pytest.raises(UnsupportedDataError, match="encoding 'none'"):
        from_node(file.create_group("X"), what="X")
    strings = file.create_dataset("S", data=np.array([["a"]], object), dtype=h5py.string_dtype())
    with pytest.raises(UnsupportedDataError, match="dtype object"):
        from_node(strings, what="X")
    strings.attrs["encoding-type"] = "string-array"
    with pytest.raises(UnsupportedDataError, match="'string-array'"):
        from_node(strings, what="X")
    with pytest.raises(DataError, match=r"X has shape \(3,\)"):
        from_node(file.create_dataset("V", data=np.zeros(3)), what="X")


@pytest.mark.parametrize("part", ["data", "indices", "indptr", "shape"])
def test_incomplete_sparse_groups_say_what_is_missing(file, part):
    node = write(file, example(), "csr")
    if part == "shape":
        del node.attrs["shape"]
    else:
        del node[part]
    with pytest.raises(FileFormatError, match=f"without usable {part}:"):
        from_node(node, what="X")


def test_malformed_sparse_groups(file):
    node = write(file, example(), "csr")
    indices = node["indices"][:]
    del node["indices"]
    node["indices"] = indices.astype("c8")
    with pytest.raises(FileFormatError, match="without usable indices:"):
        from_node(node, what="X")
    del node["indices"]
    node["indices"] = indices[:-1]
    n = len(indices)
    says = f"X of .*m.h5 is malformed: it has {n} data values but {n - 1} indices"
    with pytest.raises(FileFormatError, match=says):
        from_node(node, what="X")
    del node["data"]
    node["data"] = np.zeros(len(indices), "c8")
    with pytest.raises(UnsupportedDataError, match="complex64"):
        from_node(node, what="X")
