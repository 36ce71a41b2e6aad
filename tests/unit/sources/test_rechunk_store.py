"""A CSR matrix split by ranges of genes: the same entries in the same order, wherever they lie."""

from __future__ import annotations

import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.rechunk.store import RowStore
from pdex_gpu.utils.parallel import pool_map


class Blocks:
    """Rows of a matrix in memory, as they would come from a file; remembers which were taken."""

    exact = True
    counted = None

    def __init__(self, matrix: sparse.csr_matrix, dtype: str = "f4", index_dtype: str = "u2"):
        self.matrix = matrix
        self.n_cells, self.n_genes = matrix.shape
        self.nnz = matrix.nnz
        self.dtype, self.index_dtype = np.dtype(dtype), np.dtype(index_dtype)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.cuts: list[int] = []
        self.taken: list[slice] = []

    def cut(self, length: int) -> list[slice]:
        cuts = sorted({0, *(c % (self.n_cells + 1) for c in self.cuts), self.n_cells})
        return [slice(a, b) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading):
        self.taken.append(rows)
        part = self.matrix[rows]
        return (
            part.data.astype(self.dtype),
            part.indices.astype(self.index_dtype),
            part.indptr.astype(np.int64),
        )


def matrix_of(n_cells: int, n_genes: int, density: float, seed: int) -> sparse.csr_matrix:
    matrix = sparse.random(n_cells, n_genes, density, "csr", "f4", random_state=seed)
    matrix.sort_indices()
    matrix.data = np.arange(1, matrix.nnz + 1, dtype="f4")
    return matrix


def check(store: RowStore, matrix: sparse.csr_matrix, edges: list[int], k: int) -> None:
    """Range k holds what the matrix does there, row by row, in order."""
    chunk = store.read(k)
    first, last = edges[k], edges[k + 1]
    assert (chunk.gene_start, chunk.n_genes) == (first, last - first)
    assert chunk.starts.dtype == chunk.stops.dtype == np.int64
    part = matrix[:, first:last].tocsr()
    part.sort_indices()
    np.testing.assert_array_equal(chunk.stops - chunk.starts, np.diff(part.indptr))
    for row in range(matrix.shape[0]):
        ours, theirs = (
            slice(chunk.starts[row], chunk.stops[row]),
            slice(*part.indptr[row : row + 2]),
        )
        np.testing.assert_array_equal(chunk.data[ours], part.data[theirs])
        np.testing.assert_array_equal(chunk.indices[ours], part.indices[theirs] + first)


@given(
    n_cells=st.integers(1, 25),
    n_genes=st.integers(1, 40) | st.just(300),
    density=st.sampled_from([0, 0.05, 0.5, 1]),
    inner=st.sets(st.integers(1, 39)),
    outer=st.booleans(),
    cuts=st.lists(st.integers(1, 24), max_size=6),
    share=st.floats(0, 1.1),
    wanted=st.none() | st.sets(st.integers(0, 40)),
    dtype=st.sampled_from(["f4", "f8", "i2", "u1", "?"]),
    index_dtype=st.sampled_from(["u2", "i4", "i8"]),
    n_threads=st.integers(1, 3),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_ranges_are_those_of_the_matrix(
    tmp_path, n_cells, n_genes, density, inner, outer, cuts, share, wanted, dtype, index_dtype,
    n_threads, seed,
):  # fmt: skip
    matrix = matrix_of(n_cells, n_genes, density, seed)
    matrix.data = matrix.data.astype(dtype).astype("f8")
    edges = sorted({0, *(e for e in inner if e < n_genes), n_genes})
    if not outer and len(edges) > 3:  # genes outside are left out
        edges = edges[1:-1]
    blocks = Blocks(matrix, dtype, index_dtype)
    blocks.cuts = cuts
    budget = int(share * matrix.nnz * blocks.bytes_per_entry)
    with ThreadPoolExecutor(n_threads) as pool:
        reading = Reading(pool_map(pool), scratch=tmp_path, wanted=wanted, n_threads=n_threads)
        with RowStore(blocks, edges, budget, reading) as store:
            assert sorted(blocks.taken, key=lambda rows: rows.start) == blocks.cut(0)
            for k in reversed(range(len(edges) - 1)):
                if wanted is None or k in wanted:
                    check(store, matrix, edges, k)
            assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("width", [255, 256, 257])
@pytest.mark.parametrize("budget", [0, 1000])
def test_genes_of_narrow_ranges_take_a_byte_on_disk(tmp_path, width, budget):
    matrix = matrix_of(40, 3 * width, 0.3, 0)
    blocks = Blocks(matrix)
    blocks.cuts = [3, 9, 22]
    edges = [0, width, 2 * width, 3 * width]
    with RowStore(blocks, edges, budget, Reading(scratch=tmp_path)) as store:
        for k in range(3):
            check(store, matrix, edges, k)
        if budget == 0 and os.path.isdir("/proc/self/fd"):
            sizes = [
                os.stat(link.path).st_size
                for link in os.scandir("/proc/self/fd")
                if os.path.realpath(link.path).startswith(str(tmp_path))
            ]
            a_gene = 1 if width <= 256 else 2
            assert sizes == [matrix.nnz * (4 + a_gene) + 3 * 40 * 2]


def test_a_row_of_more_entries_than_16_bits_count(tmp_path):
    n_genes = (1 << 16) + 10
    matrix = matrix_of(3, n_genes, 1, 0)
    edges = [0, n_genes - 3, n_genes]
    for budget in (0, 1 << 30):
        blocks = Blocks(matrix, index_dtype="i4")
        with RowStore(blocks, edges, budget, Reading(scratch=tmp_path)) as store:
            check(store, matrix, edges, 0)
            check(store, matrix, edges, 1)


@pytest.mark.parametrize("at", [0, 1, 2])
@pytest.mark.parametrize("bad", [[0, 0], [3, 1], [0, 2, 2], [5, 6, 4]])
@pytest.mark.parametrize("budget", [0, 1 << 20])
def test_rows_out_of_order_are_sorted(tmp_path, bad, at, budget):
    """In any row, also where the genes are those of one range; repeated ones are summed."""
    rows = [[1, 2, 5], [0, 6], [4]]
    rows[at] = bad
    indices, indptr = np.concatenate(rows), np.cumsum([0, *map(len, rows)])
    matrix = sparse.csr_matrix(
        (np.arange(1, len(indices) + 1, dtype="f4"), indices, indptr), shape=(3, 8)
    )
    truth = matrix.copy()
    truth.sum_duplicates()
    for edges in ([0, 8], [0, 2, 8], [0, 1, 2, 3, 4, 5, 6, 7, 8]):
        blocks = Blocks(matrix)
        blocks.cuts = [1, 2]
        with RowStore(blocks, edges, budget, Reading(scratch=tmp_path)) as store:
            for k in range(len(edges) - 1):
                check(store, truth, edges, k)
        assert not matrix.has_canonical_format


def test_threads_may_read_ranges_at_once(tmp_path: Path):
    matrix = matrix_of(60, 90, 0.4, 1)
    blocks = Blocks(matrix)
    blocks.cuts = list(range(0, 60, 7))
    edges = list(range(0, 91, 9))
    budget = matrix.nnz * 6 // 2
    with (
        RowStore(blocks, edges, budget, Reading(scratch=tmp_path)) as store,
        ThreadPoolExecutor(6) as pool,
    ):
        assert len(list(pool.map(lambda k: check(store, matrix, edges, k), [*range(10)] * 10)))
