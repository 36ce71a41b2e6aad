"""A plan: ranges of genes that fit a memory budget and cover the matrix exactly once."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..errors import MemoryBudgetError, OptionError
from ..sources.base import Source
from ..sources.sizes import BYTES_PER_CELL, SPARE
from ..utils.parallel import Map

_BYTES_PER_PAIR = 64  # offsets and kernel outputs of one (group, gene)
_BYTES_PER_CELL_OF_RANGE = 24  # where a cell's entries start and stop
_MOST_WORK = 1 << 27  # bytes of buffers while a file is read
# A file that is read whole and split keeps entries in at least this share of the budget.
_LEAST_HELD = 0.25
# In ranges this narrow, kept gene indices take one byte each.
_NARROW = 256
_UNEVEN = 1.3  # factor by which ranges may exceed the estimate


@dataclass(frozen=True)
class Plan:
    """Ranges of genes, and the share of the machine that works on them.

    Attributes
    ----------
    edges : tuple of int
        Range ``k`` is ``[edges[k], edges[k + 1])``; the ranges cover ``[0, n_genes)`` once.
    budget : int
        Bytes of entries that the source may keep in memory.
    n_workers : int
        Ranges in flight at a time (processes in the shared-memory engine).
    n_threads : int
        Threads on each range in flight.
    work : int
        Bytes of buffers for reading.
    most_entries : float, optional
        Entries that fit in a range of several genes, where they were estimated.
    done : frozenset of int
        Ranges that need not be computed.
    """

    edges: tuple[int, ...]
    budget: int
    n_workers: int
    n_threads: int
    work: int = _MOST_WORK
    most_entries: float | None = None
    done: frozenset[int] = frozenset()

    @property
    def todo(self) -> list[int]:
        """Return the ranges to compute."""
        return [k for k in range(self.n_ranges) if k not in self.done]

    def genes(self, k: int) -> slice:
        """Return the genes of range `k`."""
        return slice(self.edges[k], self.edges[k + 1])

    @property
    def n_ranges(self) -> int:
        return len(self.edges) - 1


def make_plan(
    source: Source,
    n_groups: int,
    *,
    packed_bytes: Callable[[int, float, np.dtype], float],
    budget: int,
    n_workers: int,
    n_threads: int | None,
    processors: int = 1,
    reserved: int = 0,
    gene_chunk_size: int | None = None,
    at_least: int = 1,
    split_elsewhere: bool = False,
    run: Map = map,
) -> Plan:
    """Plan ranges of about equal work, as wide as the budget allows.

    Parameters
    ----------
    source : Source
    n_groups : int
        Number of groups, including the reference.
    packed_bytes : callable
        Returns the bytes that the kernel set packs a gene into, given its cells, its entries and
        their type.
    budget : int
        Bytes for everything except an input that is already in memory.
    n_workers : int
        See :class:`Plan`; fewer if there are fewer ranges.
    n_threads : int, optional
        See :class:`Plan`; by default the workers share the processors.
    processors : int
    reserved : int
        Bytes of the budget that results take.
    gene_chunk_size : int, optional
        Largest number of genes per range.
    at_least : int
        Smallest number of ranges, so that every worker has one.
    split_elsewhere : bool
        Whether a source that is read whole is split into files, so that nothing is held in memory
        between ranges.
    run : callable
        A map over which reading a sample of the file is spread.
    """
    if gene_chunk_size is not None and gene_chunk_size < 1:
        raise OptionError(f"gene_chunk_size={gene_chunk_size} must be at least 1.")
    n_genes = source.n_genes
    most = gene_chunk_size or n_genes
    work = 0 if source.in_memory else min(_MOST_WORK, budget // 8)
    room = budget - reserved - BYTES_PER_CELL * source.n_cells - work
    raw = 0 if source.in_memory else source.bytes_per_entry

    def gene_bytes(entries: np.ndarray) -> np.ndarray:
        packed = [packed_bytes(source.n_cells, n, source.dtype) for n in (0.0, 1.0)]
        return packed[0] + (packed[1] - packed[0] + raw) * entries + _BYTES_PER_PAIR * n_groups

    mean = gene_bytes(np.full(n_genes, source.nnz / max(1, n_genes)))
    cells = _BYTES_PER_CELL_OF_RANGE * source.n_cells
    least_held = 0
    one_range = most >= n_genes and at_least <= 1 and mean.sum() + cells <= room
    one_range = one_range and not split_elsewhere
    if source.read_whole and one_range:
        n_workers = 1
    elif source.read_whole:
        least_held = 0 if split_elsewhere else max(0, int(_LEAST_HELD * room))
        most = min(most, _NARROW)
    each = (room - least_held) / n_workers - cells
    n_ranges = max(1, min(n_genes, max(at_least, -(-n_genes // most))))
    weights = mean
    edges: tuple[int, ...] = (0, n_genes)
    if n_ranges > 1 or mean.sum() > each:
        density = source.density(run)
        weights = mean if density is None else gene_bytes(_UNEVEN * density)
        edges = _cut(weights, each, n_ranges, most, source.gene_step)
    n_workers = min(n_workers, len(edges) - 1)
    widest = cells + max(float(weights[a:b].sum()) for a, b in itertools.pairwise(edges))
    if n_workers * widest - room > SPARE:  # not even single genes fit side by side
        n_workers = 1
    if widest - room > SPARE:
        raise MemoryBudgetError(
            f"memory= allows {budget:,} bytes, but at least {int(budget - room + widest):,} are "
            f"needed for {source.n_cells:,} cells x {n_genes:,} genes in {n_groups:,} groups"
            f"{f', {reserved:,} of them for the result (out= needs none)' if reserved else ''}. "
            "Allow more with memory=."
        )
    held, most_entries = 0, None
    if source.read_whole:  # what the ranges leave of the budget
        held = 0 if split_elsewhere else max(0, int(room - n_workers * widest))
        empty, full = gene_bytes(np.array([0.0, 1.0]))
        each = (room - held) / n_workers - cells
        if full > empty:
            most_entries = (each - empty * max(np.diff(edges))) / (full - empty)
    if source.read_whole and one_range:  # the range itself
        held = source.nnz * source.bytes_per_entry
    n_threads = n_threads or max(1, processors // n_workers)
    return Plan(edges, held, n_workers, n_threads, work, most_entries)


def _cut(weights: np.ndarray, each: float, n_ranges: int, most: int, step: int) -> tuple[int, ...]:
    """Cut at least `n_ranges` ranges of at most `most` genes and, if possible, `each` bytes."""
    n_genes, at_least = len(weights), n_ranges
    step = step if most >= step else 1  # on chunk borders, if ranges are as wide as chunks
    running = np.concatenate([[0.0], np.cumsum(weights)])
    n_ranges = max(n_ranges, min(n_genes, int(-(-running[-1] // max(1.0, each)))))
    if step == 1 and 1 < n_ranges == -(-n_genes // most):  # as wide as asked for
        even = n_genes * np.arange(n_ranges + 1) // n_ranges
        if (np.diff(running[even]) <= each).all():
            return tuple(int(edge) for edge in even)
    while True:
        targets = running[-1] * np.arange(1, n_ranges) / n_ranges
        inner = np.searchsorted(running * (1 + 1e-12), targets, side="right") - 1
        inner = np.minimum(-(-inner // step) * step, n_genes)
        edges = np.unique(np.concatenate([[0], inner, [n_genes]]))
        widths, sums = np.diff(edges), np.diff(running[edges])
        enough = len(widths) >= min(at_least, -(-n_genes // step))
        if enough and widths.max() <= most and (sums[widths > step] <= each).all():
            return tuple(int(edge) for edge in edges)
        if n_ranges == n_genes:
            return tuple(sorted({*range(0, n_genes, step), n_genes}))
        n_ranges = min(n_genes, n_ranges + 1 + n_ranges // 8)
