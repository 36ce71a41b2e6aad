"""Dense matrices in files: read along their chunks, none twice, whatever the edges and budget."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pdex_gpu.errors import FileFormatError
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.rechunk import scratch as scratch_module
from pdex_gpu.sources.stored import dense, hdf5
from pdex_gpu.utils.parallel import pool_map

SHAPE = (37, 23)
VALUES = np.arange(37 * 23, dtype="f4").reshape(SHAPE)


@pytest.fixture
def decoded(monkeypatch):
    """How often each chunk was decoded."""
    count: Counter = Counter()
    real = hdf5._Chunked._read_chunk

    def spy(self, index, *rest):
        count[index] += 1
        return real(self, index, *rest)

    monkeypatch.setattr(hdf5._Chunked, "_read_chunk", spy)
    return count


@pytest.fixture
def short_bands(monkeypatch):
    monkeypatch.setattr(dense, "_BAND", 400)


def write(path, chunks, **options):
    with h5py.File(path, "w") as file:
        file.create_dataset("X", data=VALUES, chunks=chunks, **options)
    return h5py.File(path)


def read_all(source, edges, budget, reading=Reading()):
    with source.open(edges, budget, reading) as reader:
        found = [reader.read(k).values for k in range(len(edges) - 1)]
    return np.hstack(found)


CHUNKS = [(1, 23), (37, 1), (1, 1), (5, 23), (37, 7), (6, 5), (36, 22), (37, 23), (7, 12), None]


@given(
    chunks=st.sampled_from(CHUNKS) | st.tuples(st.integers(1, 37), st.integers(1, 23)),
    inner=st.sets(st.integers(1, 22)),
    aligned=st.booleans(),
    budget=st.integers(0, 37 * 23 * 4 + 9),
    compression=st.sampled_from([None, "gzip"]),
    n_threads=st.integers(1, 3),
    dtype=st.sampled_from(["f4", ">f4", "f2", "i2", "f8"]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_matrix_comes_back_and_no_chunk_is_decoded_twice(
    tmp_path, decoded, short_bands, chunks, inner, aligned, budget, compression, n_threads, dtype
):
    edges = [0, *sorted(inner), 23]
    if aligned and chunks:
        edges = sorted({min(edge - edge % chunks[1], 23) for edge in edges} | {0, 23})
    path = tmp_path / "m.h5"
    path.unlink(missing_ok=True)
    with h5py.File(path, "w") as file:
        file.create_dataset(
            "X", data=VALUES.astype(dtype), chunks=chunks, compression=compression and chunks and
            compression,
        )  # fmt: skip
    told = []
    with h5py.File(path) as file, ThreadPoolExecutor(n_threads) as pool:
        source = from_node(file["X"], what="X")
        assert not decoded
        found = read_all(
            source, edges, budget, Reading(pool_map(pool), told.append, n_threads=n_threads)
        )
        np.testing.assert_array_equal(found, VALUES.astype(dtype))
        assert found.dtype.isnative
        assert found.dtype != np.float16
        assert sum(told) == source.n_bytes
    assert set(decoded.values()) <= {1}
    if chunks:
        grid = -(-37 // chunks[0]) * -(-23 // chunks[1])
        assert len(decoded) == grid
    decoded.clear()


@pytest.mark.parametrize(
    ("chunks", "read_whole", "step"),
    [((1, 23), True, 1), (None, True, 1), ((6, 40), True, 1), ((37, 7), False, 7),
     ((1, 1), False, 1)],
)  # fmt: skip
def test_what_is_said_of_the_chunks(tmp_path, chunks, read_whole, step):
    with h5py.File(tmp_path / "m.h5", "w") as file:
        node = file.create_dataset("X", data=VALUES, chunks=chunks, maxshape=(None, None)) \
            if chunks else file.create_dataset("X", data=VALUES)  # fmt: skip
        source = from_node(node, what="X")
        assert (source.read_whole, source.gene_step) == (read_whole, step)
        assert source.density(map) is None
        np.testing.assert_array_equal(read_all(source, [0, 7, 23], 0), VALUES)


def test_a_range_of_whole_chunks_reads_no_more(tmp_path, decoded):
    with write(tmp_path / "m.h5", (6, 5)) as file:
        source = from_node(file["X"], what="X")
        with source.open([0, 5, 15, 23], 0) as reader:
            assert not decoded
            np.testing.assert_array_equal(reader.read(1).values, VALUES[:, 5:15])
        assert set(decoded) == {(i, j) for i in range(7) for j in (1, 2)}


def test_a_budget_holds_rows_in_memory(tmp_path, monkeypatch, short_bands):
    """What is held is not written."""
    written = []
    real = scratch_module.write_at

    def write_at(fd, offset, array):
        written.append(array.nbytes)
        real(fd, offset, array)

    monkeypatch.setattr(scratch_module, "write_at", write_at)
    with write(tmp_path / "m.h5", (5, 23)) as file:
        source = from_node(file["X"], what="X")
        for n_rows, held in ((0, 0), (4, 0), (5, 5), (36, 35)):
            written.clear()
            found = read_all(source, [0, 3, 23], n_rows * 23 * 4)
            np.testing.assert_array_equal(found, VALUES)
            assert sum(written) == (37 - held) * 23 * 4
        written.clear()
        read_all(source, [0, 3, 23], 37 * 23 * 4)
        assert not written
        with source.open([0, 3, 10, 23], 0, Reading(wanted=[1])) as reader:
            np.testing.assert_array_equal(reader.read(1).values, VALUES[:, 3:10])
        assert sum(written) == 37 * 7 * 4


def test_genes_outside_the_edges_are_left_out(tmp_path):
    with write(tmp_path / "m.h5", (5, 23)) as file:
        source = from_node(file["X"], what="X")
        for budget in (0, 900, 1 << 20):
            np.testing.assert_array_equal(read_all(source, [2, 9, 20], budget), VALUES[:, 2:20])


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="open files are not listed here")
@pytest.mark.parametrize("budget", [0, 1000])
def test_a_damaged_chunk_leaves_no_scratch_file_open(tmp_path, monkeypatch, budget):
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    with write(tmp_path / "m.h5", (5, 23), compression="gzip") as file:
        info = file["X"].id.get_chunk_info(0)
    with open(tmp_path / "m.h5", "r+b") as raw:
        raw.seek(info.byte_offset)
        raw.write(b"\xff" * info.size)
    with h5py.File(tmp_path / "m.h5") as file:
        source = from_node(file["X"], what="X")
        with pytest.raises(FileFormatError, match=r"X of .*m\.h5, chunk 0, 0 \(rows 0 to 5"):
            read_all(source, [0, 9, 23], budget)
        links = [os.path.realpath(link.path) for link in os.scandir("/proc/self/fd")]
        assert not any(link.startswith(str(folder)) for link in links)
