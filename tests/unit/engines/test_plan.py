"""Ranges of genes cover the matrix exactly once, whatever the budget."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.engines.memory_model import MemoryModel
from pdex_gpu.engines.plan import Plan, Schedule, make_plan
from pdex_gpu.errors import MemoryBudgetError, OptionError

N_GROUPS = 12
A_PAIR = 64  # bytes, as in the plan
MARGIN = 1.3  # of what is estimated


def source(
    n_genes: int,
    *,
    n_cells: int = 100,
    density: np.ndarray | None = None,
    nnz: int = 1000,
    in_memory: bool = True,
    read_whole: bool = False,
    gene_step: int = 1,
):
    def count(run):
        asked.append(run)
        return density

    asked: list = []
    return SimpleNamespace(
        n_cells=n_cells,
        n_genes=n_genes,
        nnz=nnz if density is None else int(density.sum()),
        bytes_per_entry=8,
        in_memory=in_memory,
        read_whole=read_whole and not in_memory,
        gene_step=gene_step,
        dtype=np.dtype("f4"),
        density=count,
        asked=asked,
    )


def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
    assert dtype == np.dtype("f4")
    return 8.0 * n_entries + n_cells


def planned(matrix, n_groups: int, *, budget: int, parallel_map=map, **schedule) -> Plan:
    memory = MemoryModel.of(matrix, n_groups, packed_bytes)
    return make_plan(memory, Schedule(**schedule), budget, parallel_map=parallel_map)


SHARES = {
    "even": lambda n: np.ones(n),
    "falling": lambda n: 1 / np.arange(1, n + 1),
    "first": lambda n: np.eye(1, n)[0],
    "last": lambda n: np.eye(1, n, n - 1)[0],
    "half": lambda n: np.arange(n) % 2.0,
    "block": lambda n: np.where(np.arange(n) < n // 10, 100.0, 0.1),
}


@given(
    n_genes=st.integers(1, 1_000) | st.just(7_000),
    n_cells=st.integers(1, 10**6),
    share=st.sampled_from(sorted(SHARES)),
    filled=st.floats(0.0, 1.0),
    known=st.booleans(),
    in_memory=st.booleans(),
    read_whole=st.booleans(),
    gene_step=st.sampled_from([1, 2, 7, 100, 5000]),
    budget=st.integers(1, 10**12) | st.floats(0, 12).map(lambda x: int(10**x)),
    n_workers=st.integers(1, 70),
    chunk=st.none() | st.integers(1, 100_000) | st.integers(1, 50),
    at_least=st.integers(1, 300),
)
def test_ranges_cover_every_gene_once_within_the_budget(
    n_genes: int,
    n_cells: int,
    share: str,
    filled: float,
    known: bool,
    in_memory: bool,
    read_whole: bool,
    gene_step: int,
    budget: int,
    n_workers: int,
    chunk: int | None,
    at_least: int,
) -> None:
    density = SHARES[share](n_genes)
    density = np.floor(filled * n_cells * density / max(density.max(), 1e-9))  # half of one: 0
    matrix = source(
        n_genes,
        n_cells=n_cells,
        density=density if known else None,
        nnz=int(density.sum()),
        in_memory=in_memory,
        read_whole=read_whole,
        gene_step=gene_step,
    )
    try:
        plan = planned(
            matrix,
            N_GROUPS,
            budget=budget,
            n_workers=n_workers,
            n_threads=2,
            gene_chunk_size=chunk,
            at_least=at_least,
        )
    except MemoryBudgetError:  # one range beside the cells takes 64 MiB more than there are
        a_step = gene_step * (n_cells * 17 + A_PAIR * N_GROUPS)
        assert 1.3 * a_step + (48 + 24) * n_cells + 8 * matrix.nnz > budget + (1 << 26)
        return
    assert plan.edges[0] == 0
    assert plan.edges[-1] == n_genes
    assert all(isinstance(edge, int) for edge in plan.edges)
    widths = np.diff(plan.edges)
    assert widths.min() >= 1
    assert plan.n_ranges == len(widths) == len(plan.todo)
    assert 1 <= plan.n_workers <= min(n_workers, plan.n_ranges)
    assert plan.n_threads == 2
    assert plan.budget >= 0
    assert plan.work >= 0
    most = chunk or n_genes
    assert widths.max() <= most
    narrowed = matrix.read_whole and plan.n_ranges > 1
    step = gene_step if min(most, 256 if narrowed else most) >= gene_step else 1
    assert all(edge % step == 0 for edge in plan.edges[:-1])
    assert plan.n_ranges >= min(at_least, -(-n_genes // step))
    if in_memory:
        assert plan.work == 0
    else:
        assert plan.work <= budget / 8
    if narrowed and step == 1:
        assert widths.max() <= 256

    # Memory: of each range but those that are as narrow as can be.
    entries = density if known else np.full(n_genes, density.sum() / n_genes)
    raw = 0 if in_memory else 8
    weights = n_cells + (8 + raw) * entries + A_PAIR * N_GROUPS
    sums = np.add.reduceat(weights, plan.edges[:-1])
    held = plan.budget if narrowed else 0  # one range is what is held
    room = budget - 48 * n_cells - plan.work - held
    for width, total in zip(widths, sums, strict=True):
        if width > step:
            assert plan.n_workers * (total + 24 * n_cells) <= room * (1 + 1e-9)
    if matrix.read_whole and widths.max() == 1:
        assert held <= max(0, budget)


@given(
    n_genes=st.integers(1, 500),
    budget=st.floats(4, 11).map(lambda x: int(10**x)),
    filled=st.floats(0, 1),
    n_workers=st.integers(1, 4),
)
def test_a_file_that_is_read_whole_is_held_if_it_fits(
    n_genes: int, budget: int, filled: float, n_workers: int
) -> None:
    matrix = source(
        n_genes, n_cells=1000, nnz=int(filled * 1000 * n_genes), in_memory=False, read_whole=True
    )
    plan = planned(matrix, 2, budget=budget, n_workers=n_workers, n_threads=1)
    size, room = matrix.nnz * 8, budget - 48 * 1000 - plan.work
    packed = n_genes * (1000 + 2 * A_PAIR) + size  # what the kernels make of it
    if size + packed + 24 * 1000 <= room:
        assert plan.edges == (0, n_genes)
        assert plan.budget == size
    elif n_genes == 1:
        assert plan.edges == (0, 1)
    else:
        assert 0 <= plan.budget <= max(0, room) + 1
        if np.diff(plan.edges).max() > 1:  # single genes may take the room of what would be held
            assert plan.budget + 1 >= 0.25 * room
        assert np.diff(plan.edges).max() <= 256


def plan(n_genes: int = 1000, **options):
    given = {"budget": 10**9, "n_workers": 1, "n_threads": 1} | options
    names = ("in_memory", "read_whole", "gene_step", "density")
    of_source = {"nnz": 100 * n_genes} | {n: given.pop(n) for n in names if n in given}
    return planned(source(n_genes, **of_source), 2, **given)


def test_one_range_if_all_fits() -> None:
    assert plan().edges == (0, 1000)
    assert plan(in_memory=False).edges == (0, 1000)
    assert plan(in_memory=False, read_whole=True).edges == (0, 1000)


def test_the_density_is_not_asked_for_in_vain() -> None:
    matrix = source(100, density=np.ones(100))
    options = {"n_workers": 1, "n_threads": 1}
    assert planned(matrix, 2, budget=10**9, **options).n_ranges == 1
    assert not matrix.asked
    assert planned(matrix, 2, budget=10**4, parallel_map=filter, **options).n_ranges > 1
    assert matrix.asked == [filter]


def test_more_ranges_for_less_memory() -> None:
    assert plan(budget=10**6).n_ranges < plan(budget=10**5).n_ranges


def test_a_budget_is_shared_by_the_workers() -> None:
    assert plan(budget=10**5, n_workers=4).n_ranges > plan(budget=10**5).n_ranges


def test_reading_a_file_costs_memory_too() -> None:
    assert plan(budget=10**5, in_memory=False).n_ranges > plan(budget=10**5).n_ranges


def test_ranges_are_of_equal_work_not_width() -> None:
    density = np.where(np.arange(1000) < 100, 90.0, 0.0)
    edges = np.array(plan(density=density, at_least=10).edges)
    weights = 100 + 8 * MARGIN * density + 2 * A_PAIR
    sums = np.add.reduceat(weights, edges[:-1])
    assert sums.max() < 1.1 * sums.mean()
    assert np.diff(edges)[0] < np.diff(edges)[-1] / 3


def test_ranges_end_where_chunks_do() -> None:
    assert plan(1000, gene_step=100, at_least=3).edges == (0, 400, 700, 1000)
    assert plan(1000, gene_step=300, at_least=99).edges == (0, 300, 600, 900, 1000)
    edges = plan(1000, gene_step=300, gene_chunk_size=299).edges  # narrower than a chunk
    assert max(np.diff(edges)) <= 299


def test_chunk_size() -> None:
    assert plan(10, gene_chunk_size=4).edges == (0, 3, 6, 10)
    assert plan(3, gene_chunk_size=1).edges == (0, 1, 2, 3)


def test_chunk_size_must_be_positive() -> None:
    with pytest.raises(OptionError, match="gene_chunk_size=0"):
        plan(gene_chunk_size=0)


def test_what_is_left_to_do() -> None:
    whole = plan(10, gene_chunk_size=4)
    assert whole.todo == [0, 1, 2]
    assert [whole.genes(k) for k in whole.todo] == [
        slice(a, b) for a, b in itertools.pairwise(whole.edges)
    ]
