"""Chunks cut in two: together the halves hold what the whole holds, and share its memory."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from screens import KERNEL_SETS, LAYOUTS, as_chunk, kernel_set, make_case

from pdex_gpu.sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from pdex_gpu.sources.chunk_ops import halves


def dense_of(chunk: Chunk, n_cells: int) -> np.ndarray:
    """The values of a chunk as a dense matrix; entries must lie in the chunk, once each."""
    if isinstance(chunk, DenseChunk):
        return chunk.values
    out = np.zeros((n_cells, chunk.n_genes), chunk.data.dtype)
    seen = np.zeros(out.shape, bool)
    by_row = isinstance(chunk, CsrChunk)
    starts, stops = (chunk.starts, chunk.stops) if by_row else (chunk.indptr[:-1], chunk.indptr[1:])
    assert len(starts) == len(stops) == (n_cells if by_row else chunk.n_genes)
    for line, (start, stop) in enumerate(zip(starts, stops, strict=True)):
        for at in range(start, stop):
            index = int(chunk.indices[at])
            cell, gene = (line, index - chunk.gene_start) if by_row else (index, line)
            assert 0 <= gene < chunk.n_genes
            assert not seen[cell, gene]
            seen[cell, gene] = True
            out[cell, gene] = chunk.data[at]
    return out


def leaves(chunk: Chunk) -> list[Chunk]:
    """Cut until single genes are left."""
    if chunk.n_genes < 2:
        return [chunk]
    left, right = halves(chunk)
    assert left.n_genes == chunk.n_genes // 2
    assert (left.gene_start, right.gene_start) == (
        chunk.gene_start,
        chunk.gene_start + left.n_genes,
    )
    assert left.n_genes + right.n_genes == chunk.n_genes
    return [*leaves(left), *leaves(right)]


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    """Mostly zeros, of no to seven cells."""
    shape = draw(st.integers(0, 7)), draw(st.integers(2, 9))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    values = rng.integers(1, 100, shape).astype(draw(st.sampled_from(["f4", "f8", "i8", "u1"])))
    values[rng.random(shape) < draw(st.sampled_from([0.0, 0.6, 1.0]))] = 0
    return values


@pytest.mark.parametrize("layout", LAYOUTS)
@given(values=matrices(), gene_start=st.integers(0, 4), extra=st.integers(0, 3))
@example(values=np.zeros((0, 2), "f4"), gene_start=0, extra=0)
@example(values=np.zeros((4, 3), "f4"), gene_start=2, extra=1)
@example(values=np.ones((3, 5), "f4"), gene_start=1, extra=2)
def test_halves_hold_what_the_whole_holds(layout, values, gene_start, extra):
    chunk = as_chunk(values, layout, gene_start, extra)
    left, right = halves(chunk)
    assert type(left) is type(right) is type(chunk)
    n_cells = len(values)
    together = [dense_of(left, n_cells), dense_of(right, n_cells)]
    np.testing.assert_array_equal(np.hstack(together), values)
    assert all(half.dtype == values.dtype for half in together)
    single = [dense_of(leaf, n_cells) for leaf in leaves(chunk)]
    np.testing.assert_array_equal(np.hstack(single), values)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_halves_copy_no_values(layout):
    chunk = as_chunk(np.ones((5, 6), "f4"), layout, gene_start=1)
    for half in halves(chunk):
        if isinstance(chunk, DenseChunk):
            assert np.shares_memory(half.values, chunk.values)
            continue
        assert half.data is chunk.data
        assert half.indices is chunk.indices
        if isinstance(chunk, CscChunk):
            assert half.indptr.base is not None
        else:
            assert half.starts.dtype == half.stops.dtype == np.int64


def test_the_whole_is_left_as_it_is():
    chunk = as_chunk(np.ones((5, 6), "f4"), "csr-int32", gene_start=1)
    before = chunk.starts.copy(), chunk.stops.copy()
    halves(chunk)
    np.testing.assert_array_equal((chunk.starts, chunk.stops), before)


GENE_START, N_GENES = 10, 7
any_rows = st.lists(st.lists(st.integers(-3, 25), max_size=9), min_size=1, max_size=6)


def csr_chunk(rows: list[list[int]], gap: int = 0) -> CsrChunk:
    """A chunk with entries of these genes, and `gap` entries of other ranges after each row."""
    indices = np.array([i for row in rows for i in row + [GENE_START] * gap], np.int32)
    lengths = np.array([len(row) for row in rows])
    starts = np.cumsum([0, *(lengths[:-1] + gap)])
    return CsrChunk(
        np.ones(len(indices), "f4"), indices, starts, starts + lengths, GENE_START, N_GENES
    )


@given(any_rows, st.integers(0, 2))
def test_unsorted_rows_are_shared_out_whole(rows, gap):
    """Whatever the indices, each entry is in one half; a fault of a row is seen in one, too."""
    chunk = csr_chunk(rows, gap)
    left, right = halves(chunk)
    np.testing.assert_array_equal(left.starts, chunk.starts)
    np.testing.assert_array_equal(left.stops, right.starts)
    np.testing.assert_array_equal(right.stops, chunk.stops)
    assert np.all(left.starts <= left.stops)
    assert np.all(right.starts <= right.stops)
    for i, row in enumerate(rows):
        seen = [proper(half, i) for half in (left, right)]
        within = all(GENE_START <= gene < GENE_START + N_GENES for gene in row)
        assert all(seen) == (within and row == sorted(set(row)))


def proper(chunk: CsrChunk, i: int) -> bool:
    """Whether the genes of row `i` rise and lie in the chunk."""
    genes = chunk.indices[chunk.starts[i] : chunk.stops[i]] - chunk.gene_start
    return bool(np.all(np.diff(genes) > 0) and np.all((genes >= 0) & (genes < chunk.n_genes)))


@pytest.fixture(scope="module", params=KERNEL_SETS)
def kernels(request: pytest.FixtureRequest) -> ModuleType:
    return kernel_set(request.param)


@pytest.mark.parametrize(
    "row", [[15, 10], [10, 10], [10, 13, 12, 16], [12, 13, 13], [16, 11, 12], [10, 15, 11]], ids=str
)
def test_a_kernel_set_finds_the_fault_in_a_half(kernels, row):
    chunk = csr_chunk([[10, 16], row, [], [12]])
    design = make_case([2, 2], ["counts"], "float32", seed=1, left_out=0).design
    faults = 0
    for half in halves(chunk):
        try:
            kernels.pack(half, design, map)
        except NotCanonicalError:
            faults += 1
    assert faults


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_halves_give_the_results_of_the_whole(kernels, layout):
    case = make_case([5, 3, 4], ["counts", "zeros", "ones", "normal", "binary"], "float32", seed=3)
    found = []
    for chunk in halves(as_chunk(case.values, layout, gene_start=2, extra=1)):
        block = kernels.pack(chunk, case.design, map)
        found.append(kernels.rank_sums(block, slice(0, chunk.n_genes), case.design.contrasts[0]))
    block = kernels.pack(as_chunk(case.values, layout), case.design, map)
    whole = kernels.rank_sums(block, case.genes, case.design.contrasts[0])
    np.testing.assert_array_equal(np.hstack([part.u2 for part in found]), whole.u2)
    np.testing.assert_array_equal(np.hstack([part.ties for part in found]), whole.ties)


@pytest.mark.parametrize("n_genes", [0, 1])
@pytest.mark.parametrize("layout", ["C", "csr-int32", "csc-int32"])
def test_one_gene_cannot_be_cut(layout, n_genes):
    chunk = as_chunk(np.ones((3, max(1, n_genes)), "f4"), layout)
    if n_genes == 0 and isinstance(chunk, DenseChunk):
        chunk = DenseChunk(chunk.values[:, :0], 0)
    elif n_genes == 0 and isinstance(chunk, CscChunk):
        chunk = CscChunk(chunk.data, chunk.indices, chunk.indptr[:1], 3, 0)
    elif n_genes == 0:
        chunk = CsrChunk(chunk.data, chunk.indices, chunk.starts, chunk.starts, 0, 0)
    with pytest.raises(ValueError, match=f"a chunk of {n_genes} genes cannot be cut"):
        halves(chunk)


class OnDevice(np.ndarray):
    """Would be cut without complaint, were it not for where it lies."""

    @property
    def __cuda_array_interface__(self):
        return {}


@pytest.mark.parametrize("form", ["dense", "csr", "csc"])
def test_device_chunks_are_refused(form):
    x = np.ones((4, 4), "f4").view(OnDevice)
    flat, four = x.ravel(), np.arange(5)
    chunk = {
        "dense": DenseChunk(x, 0),
        "csr": CsrChunk(flat, four, four[:-1], four[1:], 0, 4),
        "csc": CscChunk(flat, four, four, 4, 0),
    }[form]
    with pytest.raises(TypeError, match="on a device"):
        halves(chunk)
