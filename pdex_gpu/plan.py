"""A memory budget becomes ranges of genes that cover the matrix exactly once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .errors import OptionError
from .sources.base import Source

_BYTES_PER_PAIR = 64  # offsets and kernel outputs of one (group, gene)


@dataclass(frozen=True)
class Plan:
    """Ranges of genes, and how much of the machine works on them.

    Attributes
    ----------
    edges : tuple of int
        Range ``k`` is ``[edges[k], edges[k + 1])``; the ranges cover ``[0, n_genes)`` once.
    budget : int
        Bytes the source may use to prepare itself.
    n_workers : int
        Ranges in flight at once (processes in the shared-memory engine).
    n_threads : int
        Threads on each range in flight.
    done : frozenset of int
        Ranges that need not be computed.
    """

    edges: tuple[int, ...]
    budget: int
    n_workers: int
    n_threads: int
    done: frozenset[int] = frozenset()

    @property
    def todo(self) -> list[int]:
        """The ranges to compute."""
        return [k for k in range(self.n_ranges) if k not in self.done]

    def genes(self, k: int) -> slice:
        """The genes of range `k`."""
        return slice(self.edges[k], self.edges[k + 1])

    @property
    def n_ranges(self) -> int:
        return len(self.edges) - 1


def make_plan(
    source: Source,
    n_groups: int,
    *,
    packed_bytes: Callable[[int, float], float],
    budget: int,
    n_workers: int,
    n_threads: int,
    gene_chunk_size: int | None = None,
    at_least: int = 1,
) -> Plan:
    """Ranges of equal width, as wide as the budget allows.

    Parameters
    ----------
    source : Source
    n_groups : int
        Groups, the reference included.
    packed_bytes : callable
        Bytes that the kernel set packs a gene into, from its cells and entries.
    budget : int
        Bytes for everything beyond an input that is in memory already.
    n_workers, n_threads : int
        See :class:`Plan`.
    gene_chunk_size : int, optional
        Most genes in a range.
    at_least : int
        Fewest ranges, so that every worker has one.
    """
    if gene_chunk_size is not None and gene_chunk_size < 1:
        raise OptionError(f"gene_chunk_size={gene_chunk_size} must be at least 1.")
    n_genes = source.n_genes
    entries = source.nnz / max(1, n_genes)  # a gene
    per_gene = packed_bytes(source.n_cells, entries) + _BYTES_PER_PAIR * n_groups
    if not source.in_memory:
        per_gene += source.bytes_per_entry * entries
    width = int(budget / (n_workers * max(1.0, per_gene)))
    width = max(1, min(width, gene_chunk_size or n_genes))
    n_ranges = max(1, -(-n_genes // width), min(at_least, n_genes))
    edges = tuple(n_genes * k // n_ranges for k in range(n_ranges + 1))
    return Plan(edges, budget, min(n_workers, n_ranges), n_threads)
