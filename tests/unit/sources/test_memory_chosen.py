"""Cells and genes of matrices in memory, also dask arrays: the values that slicing gives."""

from __future__ import annotations

from typing import Any

import dask.array as da
import numpy as np
import pytest
from scipy import sparse
from source_reads import DTYPES, EDGES, N_CELLS, N_GENES, example, read_back

from pdex_gpu.errors import DataError
from pdex_gpu.sources.formats import source_of
from pdex_gpu.sources.views.view import repeat, select

CELLS = {
    "all": np.arange(N_CELLS),
    "some": np.array([0, 2, 3, 5, 11, 22]),
    "repeated": np.array([7, 7, 1, 22, 0, 7]),
    "one": np.array([4]),
    "none": np.zeros(0, np.int64),
}
GENES = {
    "all": np.arange(N_GENES),
    "some": np.array([1, 4, 5, 10]),
    "in another order": np.array([9, 0, 3]),
    "none": np.zeros(0, np.int64),
}
MATRICES: dict[str, Any] = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "dense": np.ascontiguousarray,
    "by column": np.asfortranarray,
    "big-endian": lambda x: x.astype(x.dtype.newbyteorder(">")),
    "dask rows": lambda x: da.from_array(x, chunks=(4, N_GENES)).map_blocks(sparse.csr_matrix),
    "dask columns": lambda x: da.from_array(x, chunks=(N_CELLS, 2)),
}


def read(source: Any) -> np.ndarray:
    n = source.n_genes
    values = [read_back(source, edges) for edges in ([0, n], [0, n // 2, n])]
    np.testing.assert_array_equal(*values)
    return values[0]


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("matrix", MATRICES)
@pytest.mark.parametrize("cells", CELLS)
@pytest.mark.parametrize("genes", GENES)
def test_values(matrix: str, cells: str, genes: str) -> None:
    values = example()
    rows, columns = CELLS[cells], GENES[genes]
    if "dask" in matrix and not (len(rows) and len(columns)):
        return  # dask arrays are never read for nothing
    source = select(source_of(MATRICES[matrix](values), "X"), rows, columns)
    assert (source.n_cells, source.n_genes) == (len(rows), len(columns))
    np.testing.assert_array_equal(read(source), values[rows][:, columns])
    if not len(rows) or not len(columns):
        return
    again = select(select(source, np.arange(len(rows)), np.arange(len(columns))[1:]),
                   np.arange(len(rows))[::2], np.arange(len(columns) - 1)[:2])  # fmt: skip
    np.testing.assert_array_equal(read(again), values[rows[::2]][:, columns[1:][:2]])
    twice = np.repeat(np.arange(len(rows)), 2)
    np.testing.assert_array_equal(read(repeat(source, twice)), values[rows[twice]][:, columns])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("matrix", ["csr", "csc", "dense"])
def test_dtypes_and_ranges(dtype: str, matrix: str) -> None:
    values = example(dtype)
    source = select(source_of(MATRICES[matrix](values), "X"), CELLS["some"], np.arange(N_GENES))
    for edges in EDGES:
        found = read_back(source, edges)
        assert found.dtype == values.dtype
        np.testing.assert_array_equal(found, values[CELLS["some"]])


@pytest.mark.parametrize("matrix", ["csr", "csc", "dense"])
def test_a_copy_for_other_processes_has_only_what_is_chosen(matrix: str) -> None:
    values = example()
    source = select(source_of(MATRICES[matrix](values), "X"), CELLS["some"], GENES["some"])
    state = source.state()
    assert state is not None
    copy = state.make(**state.arrays, **state.facts)
    assert (copy.n_cells, copy.n_genes) == (len(CELLS["some"]), len(GENES["some"]))
    assert copy.nnz <= source.n_cells * source.n_genes
    np.testing.assert_array_equal(read(copy), values[CELLS["some"]][:, GENES["some"]])
    in_order = select(
        source_of(MATRICES[matrix](values), "X"), np.arange(N_CELLS)[::-1], GENES["all"]
    )
    assert in_order.state() is None


@pytest.mark.parametrize("matrix", ["csr", "csc"])
def test_entries_in_any_order(matrix: str) -> None:
    values = example("f8")
    made = MATRICES[matrix](values)
    for a, b in zip(made.indptr[:-1], made.indptr[1:], strict=True):
        made.data[a:b], made.indices[a:b] = (
            made.data[a:b][::-1].copy(),
            made.indices[a:b][::-1].copy(),
        )
    for cells, genes in (("some", "some"), ("some", "all"), ("all", "some")):
        source = select(source_of(made, "X"), CELLS[cells], GENES[genes]).canonical()
        np.testing.assert_array_equal(read(source), values[CELLS[cells]][:, GENES[genes]])


@pytest.mark.parametrize("matrix", ["csr", "csc"])
@pytest.mark.parametrize("index", [-1, 99])
def test_indices_out_of_range(matrix: str, index: int) -> None:
    made = MATRICES[matrix](example())
    made.indices[0] = index
    cells, genes = np.arange(N_CELLS)[:-1], np.arange(N_GENES)[:-1]
    whole_lines = (cells, GENES["all"]) if matrix == "csr" else (CELLS["all"], genes)
    parts_of_lines = (CELLS["all"], genes) if matrix == "csr" else (cells, GENES["all"])
    for chosen in (parts_of_lines, (cells, genes)):
        with pytest.raises(DataError, match=rf"^X is malformed: .* an entry in .* {index}, but"):
            read(select(source_of(made, "X"), *chosen))
    with pytest.raises(DataError, match=rf"^X is malformed: .* an entry in .* {index}, but"):
        select(source_of(made, "X"), *whole_lines).canonical()  # packing asks for it


def test_the_identity_tells_selections_apart() -> None:
    source = source_of(sparse.csr_matrix(example()), "X")
    every = np.arange(N_CELLS)
    one = select(source, every[1:], GENES["all"])
    views = [
        source,
        one,
        select(source, every, GENES["some"]),
        select(one, every[:-1], GENES["some"]),
        select(one, every[:-2], GENES["all"]),
        repeat(one, every[:-1][::-1]),
    ]
    identities = [tuple(sorted(dict(view.identity()).items())) for view in views]
    assert len(set(identities)) == len(views)
    same = select(select(source, every[1:], GENES["all"]), every[:-1], GENES["some"])
    assert dict(same.identity()) == dict(views[3].identity())
