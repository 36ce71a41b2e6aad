"""Ranges of genes cover the matrix exactly once, whatever the budget."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.errors import OptionError
from pdex_gpu.plan import make_plan


def source(n_genes: int, *, n_cells: int = 100, nnz: int = 1000, in_memory: bool = True):
    return SimpleNamespace(
        n_cells=n_cells, n_genes=n_genes, nnz=nnz, bytes_per_entry=8, in_memory=in_memory
    )


def packed_bytes(n_cells: int, n_entries: float) -> float:
    return 8.0 * n_entries + n_cells


@given(
    n_genes=st.integers(1, 70_000),
    n_cells=st.integers(1, 10**7),
    density=st.floats(0.0, 1.0),
    in_memory=st.booleans(),
    budget=st.integers(1, 10**12),
    n_workers=st.integers(1, 70),
    chunk=st.none() | st.integers(1, 100_000),
    at_least=st.integers(1, 300),
)
def test_ranges_cover_every_gene_once(
    n_genes: int,
    n_cells: int,
    density: float,
    in_memory: bool,
    budget: int,
    n_workers: int,
    chunk: int | None,
    at_least: int,
) -> None:
    matrix = source(
        n_genes, n_cells=n_cells, nnz=int(density * n_cells * n_genes), in_memory=in_memory
    )
    plan = make_plan(
        matrix,
        12,
        packed_bytes=packed_bytes,
        budget=budget,
        n_workers=n_workers,
        n_threads=2,
        gene_chunk_size=chunk,
        at_least=at_least,
    )
    assert plan.edges[0] == 0
    assert plan.edges[-1] == n_genes
    widths = [b - a for a, b in itertools.pairwise(plan.edges)]
    assert min(widths) >= 1
    assert max(widths) - min(widths) <= 1
    assert plan.n_ranges == len(widths) >= min(at_least, n_genes)
    assert 1 <= plan.n_workers == min(n_workers, plan.n_ranges)
    assert plan.n_threads == 2
    assert plan.budget == budget
    if chunk is not None:
        assert max(widths) <= chunk
    if max(widths) > 1:  # one gene is always taken, however small the budget
        entries = matrix.nnz / n_genes
        a_gene = packed_bytes(n_cells, entries) + (0 if in_memory else 8 * entries)
        assert max(widths) * a_gene * n_workers <= budget


def plan(n_genes: int = 1000, **options):
    given = {
        "packed_bytes": packed_bytes, "budget": 10**9, "n_workers": 1, "n_threads": 1,
    } | options  # fmt: skip
    in_memory = given.pop("in_memory", True)
    return make_plan(source(n_genes, nnz=100 * n_genes, in_memory=in_memory), 2, **given)


def test_one_range_if_all_fits() -> None:
    assert plan().edges == (0, 1000)


def test_more_ranges_for_less_memory() -> None:
    assert plan(budget=10**6).n_ranges < plan(budget=10**5).n_ranges


def test_a_budget_is_shared_by_the_workers() -> None:
    assert plan(budget=10**5, n_workers=4).n_ranges > plan(budget=10**5).n_ranges


def test_reading_a_file_costs_memory_too() -> None:
    assert plan(budget=10**5, in_memory=False).n_ranges > plan(budget=10**5).n_ranges


def test_chunk_size() -> None:
    assert plan(10, gene_chunk_size=4).edges == (0, 3, 6, 10)
    assert plan(3, gene_chunk_size=1).edges == (0, 1, 2, 3)


def test_chunk_size_must_be_positive() -> None:
    with pytest.raises(OptionError, match="gene_chunk_size=0"):
        plan(gene_chunk_size=0)
