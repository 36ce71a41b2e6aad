"""Several matrices stacked: what is read, range by range, of every form of storage."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import sparse
from source_reads import EDGES, N_CELLS, N_GENES, example, read_back

from pdex_gpu.errors import DataError
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import Reading, Source
from pdex_gpu.sources.formats import source_of
from pdex_gpu.sources.stacked.agreement import check_agreement
from pdex_gpu.sources.stacked.part import Part
from pdex_gpu.sources.stacked.source import StackedSource
from pdex_gpu.sources.views.view import repeat, select

FORMS = ["csr", "csc", "columns", "rows", "memory csr", "memory csc", "memory dense"]
MEMORY = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
EVERY = np.arange(N_GENES)
TURNED = np.random.default_rng(3).permutation(N_GENES)


class Files:
    """Matrices, each in an HDF5 file of its own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder, self.stack, self.n = folder, stack, 0

    def source(self, values: np.ndarray, form: str, *, backwards: bool = False) -> Source:
        """Store a matrix; with `backwards`, each line begins with its last entry."""
        if form.startswith("memory"):
            return source_of(MEMORY[form.split()[1]](values), "X")
        self.n += 1
        path = self.folder / f"{self.n}.h5"
        with h5py.File(path, "w") as file:
            if form in ("columns", "rows"):
                chunks = (4, 2) if form == "columns" else (3, values.shape[1])
                file.create_dataset("X", data=values, chunks=chunks)
            else:
                matrix = MEMORY[form](values)
                if backwards:
                    for a, b in itertools.pairwise(matrix.indptr):
                        matrix.data[a:b] = matrix.data[a:b][::-1].copy()
                        matrix.indices[a:b] = matrix.indices[a:b][::-1].copy()
                group = file.create_group("X")
                group.attrs.update({"encoding-type": f"{form}_matrix", "shape": values.shape})
                for part in ("data", "indices", "indptr"):
                    group.create_dataset(part, data=getattr(matrix, part))
        return from_node(self.stack.enter_context(h5py.File(path, "r"))["X"], what="X")


@pytest.fixture
def files(tmp_path: Path) -> Iterator[Files]:
    with ExitStack() as stack:
        yield Files(tmp_path, stack)


def stacked(
    files: Files,
    forms: tuple[str, ...],
    genes: tuple[np.ndarray, ...],
    n_genes: int = N_GENES,
    n_all: int = N_GENES,
    dtypes: tuple[str, ...] = ("f4", "f4"),
) -> tuple[StackedSource, np.ndarray]:
    """Return a source, and all of the matrix that it must read: genes at their places, else 0."""
    parts, expected = [], []
    for i, (form, place, dtype) in enumerate(zip(forms, genes, dtypes, strict=False)):
        values = example(dtype)[:, : len(place)] * np.dtype(dtype).type(i + 1)
        parts.append(Part(f"p{i}", files.source(values, form), place))
        whole = np.zeros((N_CELLS, n_all), np.result_type(*dtypes))
        whole[:, place] = values
        expected.append(whole)
    dtype = np.result_type(*(part.source.dtype for part in parts))
    return StackedSource(parts, n_genes, n_all, dtype), np.vstack(expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("forms", [*itertools.product(FORMS, FORMS)], ids="-".join)
def test_every_pair_of_forms(files: Files, forms: tuple[str, str]) -> None:
    for genes in ((EVERY, EVERY), (EVERY, TURNED)):
        source, expected = stacked(files, forms, genes)
        assert (source.n_cells, source.n_genes) == expected.shape
        for edges, budget in itertools.product(EDGES, (0, 1 << 30)):
            np.testing.assert_array_equal(read_back(source, edges, budget), expected)
        assert source.nnz >= np.count_nonzero(expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("second", ["csr", "csc", "columns"])
@pytest.mark.parametrize("first", FORMS)
def test_genes_that_a_matrix_lacks_or_has_alone(files: Files, first: str, second: str) -> None:
    # The first has genes 0 to 8 turned, the second 3 to 10; of all 11, the first 7 are kept.
    genes = TURNED[TURNED < 9], np.arange(3, N_GENES)
    for n_genes in (N_GENES, 7):
        source, expected = stacked(files, (first, second), genes, n_genes)
        for edges in ([0, n_genes], [0, 2, 5, n_genes], list(range(n_genes + 1))):
            np.testing.assert_array_equal(read_back(source, edges), expected[:, :n_genes])
        whole = source.all_genes()
        assert (whole is source) == (n_genes == N_GENES)
        np.testing.assert_array_equal(read_back(whole, [0, 4, N_GENES]), expected)


@pytest.mark.parametrize("forms", [("csr", "csr"), ("csc", "csc"), ("columns", "rows")])
@pytest.mark.parametrize("dtypes", [("i4", "f4"), ("?", "u1"), ("f4", "f8"), ("i8", "u8")])
def test_dtypes_are_joined_as_numpy_does(
    files: Files, forms: tuple[str, str], dtypes: tuple[str, str]
) -> None:
    source, expected = stacked(files, forms, (EVERY, EVERY), dtypes=dtypes)
    assert source.dtype == np.result_type(*dtypes)
    found = read_back(source, [0, 4, N_GENES])
    assert found.dtype == source.dtype
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("forms", [("csr", "csr"), ("csc", "columns"), ("csr", "csc", "rows")])
def test_some_cells_and_genes(files: Files, forms: tuple[str, ...]) -> None:
    dtypes = ("f4",) * len(forms)
    source, expected = stacked(files, forms, (EVERY, TURNED, EVERY)[: len(forms)], dtypes=dtypes)
    rng = np.random.default_rng(2)
    every = np.arange(source.n_cells)
    cells = rng.permutation(source.n_cells)[:20]
    twice = np.concatenate([cells, cells[:4]])
    genes = np.array([5, 0, 9])
    for view, rows, columns in (
        (select(source, every, genes), every, genes),
        (select(source, cells, genes), cells, genes),
        (repeat(source, twice), twice, EVERY),
        (repeat(source, np.array([3, 1])), np.array([3, 1]), EVERY),
    ):
        edges = [0, 1, view.n_genes]
        np.testing.assert_array_equal(read_back(view, edges), expected[np.ix_(rows, columns)])
    again = select(source, every, genes).take_apart()[0].select(every[::2], np.array([2, 1]))
    assert again is not None
    found = read_back(again.source, [0, 2])
    np.testing.assert_array_equal(found, expected[np.ix_(every[::2], [9, 0])])
    assert source.select(every, np.array([1, 1])) is None  # genes may not repeat
    # Genes that are left out stay so, and are still there for totals.
    inner = StackedSource(source.parts, 6, N_GENES, source.dtype)
    some = inner.select(cells, np.arange(6))
    assert some is not None
    order = np.arange(len(cells)) if some.order is None else some.order
    whole = read_back(some.source.all_genes(), [0, N_GENES])
    np.testing.assert_array_equal(whole[order], expected[cells])


def test_lines_out_of_order_are_put_in_order(files: Files) -> None:
    values = example()
    for forms in itertools.product(("csr", "csc"), repeat=2):
        parts = [Part(form, files.source(values, form, backwards=True), EVERY) for form in forms]
        source = StackedSource(parts, N_GENES, N_GENES, np.dtype("f4")).canonical()
        assert source.sorts
        assert source.canonical() is source
        for edges, budget in itertools.product(EDGES, (0, 1 << 30)):
            found = read_back(source, edges, budget)
            np.testing.assert_array_equal(found, np.vstack([values, values]))


def test_facts(files: Files) -> None:
    source, expected = stacked(files, ("csr", "csc"), (EVERY, TURNED))
    assert source.description == "2 matrices stacked: CSR float32 in a file, CSC float32 in a file"
    assert (source.layout, source.read_whole, source.reopens) == ("csr", True, True)
    identity = source.identity()
    assert identity["p0: matrix"] == f"row-major float32 {N_CELLS} x {N_GENES}"
    assert identity["p1: matrix"] == f"column-major float32 {N_CELLS} x {N_GENES}"
    parts = [part.source for part in source.parts]
    assert source.n_bytes == sum(part.n_bytes for part in parts) > 0
    assert source.decoded_bytes == sum(part.decoded_bytes for part in parts) > 0
    density = source.density(map)
    assert density is not None
    np.testing.assert_allclose(density, np.count_nonzero(expected, axis=0), atol=3)
    columns, _ = stacked(files, ("csc", "csc"), (EVERY, EVERY))
    assert (columns.layout, columns.read_whole, columns.knows_density) == ("csc", False, True)
    dense, _ = stacked(files, ("columns", "columns"), (EVERY, EVERY))
    assert (dense.layout, dense.gene_step, dense.density(map)) == ("dense", 2, None)
    assert not stacked(files, ("csr", "memory csr"), (EVERY, EVERY))[0].reopens


@pytest.mark.parametrize("forms", [("csr", "csr"), ("csc", "csc"), ("csr", "csc")])
def test_every_byte_is_read_once(files: Files, forms: tuple[str, str]) -> None:
    source, _ = stacked(files, forms, (EVERY, EVERY))
    read: list[int] = []
    with source.open([0, 4, N_GENES], 0, Reading(advance=read.append)) as reader:
        for k in range(2):
            reader.read(k)
    assert sum(read) == source.n_bytes


@contextmanager
def refused(words: str) -> Iterator[None]:
    with pytest.raises(DataError, match=words):
        yield


@pytest.mark.parametrize("form", FORMS)
def test_files_must_be_on_one_scale(files: Files, form: str) -> None:
    counts, logged = np.abs(example("f4")), np.log1p(np.abs(example("f4")))
    nothing = np.zeros_like(counts)
    sources: dict[str, Any] = {
        "counts": files.source(counts, form),
        "logged": files.source(logged, "csr"),
        "nothing": files.source(nothing, form),
        "negative": files.source(-counts, form),
        "other": files.source(counts.astype("i4"), form),
    }

    def check(*names: str) -> None:
        check_agreement(names, [sources[name] for name in names], "X")

    check("counts", "nothing", "other")
    check("logged", "negative", "nothing")
    check("nothing")
    with refused(
        r"X holds whole numbers in counts \(such as \d, .* not in logged \(such as 1.09861"
    ):
        check("nothing", "logged", "counts")
    with refused(r"whole numbers in other .* not in negative \(such as -"):
        check("other", "negative")


def test_the_entries_of_many_matrices_are_estimated_from_few(files: Files) -> None:
    looked: list[int] = []

    parts = []
    for i in range(7):
        source = files.source(example() * np.float32(i + 1), "csr")
        real = source.density
        source.density = lambda m, i=i, real=real: (looked.append(i), real(m))[1]
        parts.append(Part(f"p{i}", source, EVERY if i % 2 else np.arange(N_GENES) + 1))
    stack = StackedSource(parts, N_GENES, N_GENES + 1, np.dtype("f4"))
    density = stack.density(map)
    assert density is not None
    assert looked == [0, 3, 6]
    expected = sum(np.isin(np.arange(N_GENES), part.place) for part in parts)
    assert ((density > 0) == (expected > 0)).all()
    assert abs(stack.all_genes().density(map).sum() - stack.all_genes().nnz) <= 7
    assert looked == [0, 3, 6]
    assert stack.nnz <= stack.all_genes().nnz
