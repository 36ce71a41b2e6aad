"""A plan: ranges of genes that fit a memory budget and cover the matrix exactly once."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import numpy as np

from ..errors import MemoryBudgetError, OptionError
from ..sources.sizes import SPARE
from ..utils.parallel import Map
from .memory_model import LEAST_HELD, MOST_BUFFERS, NARROW, MemoryModel

#: Ranges for each worker that takes whole ranges, so that none is idle for long at the end.
RANGES_PER_WORKER = 4


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
    work: int = MOST_BUFFERS
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


@dataclass(frozen=True)
class Resources:
    """The resources that an engine may use, from which it makes its schedule.

    Attributes
    ----------
    n_workers, n_threads, gene_chunk_size : int, optional
        As asked for in the call; `gene_chunk_size` also where results are stored range by range.
    processors : int
    """

    n_workers: int | None
    n_threads: int | None
    gene_chunk_size: int | None
    processors: int


@dataclass(frozen=True)
class Schedule:
    """The demands of an engine on a plan.

    Attributes
    ----------
    n_workers : int
        See :class:`Plan`; a plan has fewer if it has fewer ranges, or too little memory.
    n_threads : int, optional
        See :class:`Plan`; by default the workers share the processors.
    processors : int
    gene_chunk_size : int, optional
        Largest number of genes per range.
    at_least : int
        Smallest number of ranges, so that every worker has one.
    one_range : bool
        Whether the matrix is computed as one range, whatever its size: it is on a device.
    split_elsewhere : bool
        Whether a source that is read whole is split into files, so that nothing is held in memory
        between ranges.
    """

    n_workers: int = 1
    n_threads: int | None = None
    processors: int = 1
    gene_chunk_size: int | None = None
    at_least: int = 1
    one_range: bool = False
    split_elsewhere: bool = False

    def threads(self, n_workers: int) -> int:
        """Return the threads of each of so many workers."""
        return self.n_threads or max(1, self.processors // n_workers)


def make_plan(
    memory: MemoryModel,
    schedule: Schedule,
    budget: int,
    *,
    reserved: int = 0,
    parallel_map: Map = map,
) -> Plan:
    """Plan ranges of about equal work, as wide as the budget allows.

    Parameters
    ----------
    memory : MemoryModel
    schedule : Schedule
    budget : int
        Bytes for everything except an input that is already in memory.
    reserved : int
        Bytes of the budget that results take.
    parallel_map : callable
        A map over which reading a sample of the file is spread.

    Raises
    ------
    MemoryBudgetError
        If not even a range of one gene fits.
    """
    if schedule.gene_chunk_size is not None and schedule.gene_chunk_size < 1:
        raise OptionError(f"gene_chunk_size={schedule.gene_chunk_size} must be at least 1.")
    source = memory.source
    if schedule.one_range:
        return Plan((0, source.n_genes), 0, 1, schedule.threads(1))
    work = memory.buffers(budget)
    room = budget - reserved - memory.whole_run - work
    whole = _fits_whole(memory, schedule, room)
    n_workers, most = schedule.n_workers, schedule.gene_chunk_size or source.n_genes
    least_held = 0
    if source.read_whole and whole:
        n_workers = 1
    elif source.read_whole:
        least_held = 0 if schedule.split_elsewhere else max(0, int(LEAST_HELD * room))
        most = min(most, NARROW)
    each = (room - least_held) / n_workers - memory.per_range
    edges, weights = _edges(memory, each, most, schedule.at_least, parallel_map)
    n_workers = min(n_workers, len(edges) - 1)
    sums = (float(weights[a:b].sum()) for a, b in itertools.pairwise(edges))
    widest = memory.per_range + max(sums)
    if n_workers * widest - room > SPARE:  # not even single genes fit side by side
        n_workers = 1
    if widest - room > SPARE:
        raise _too_little(memory, budget, int(budget - room + widest), reserved)
    plan = Plan(edges, 0, n_workers, schedule.threads(n_workers), work)
    if not source.read_whole:
        return plan
    # What the ranges leave of the budget.
    held = 0 if schedule.split_elsewhere else max(0, int(room - n_workers * widest))
    each = (room - held) / n_workers - memory.per_range
    most_entries = _most_entries(memory, edges, each)
    return replace(plan, budget=memory.all_entries if whole else held, most_entries=most_entries)


def _fits_whole(memory: MemoryModel, schedule: Schedule, room: float) -> bool:
    """Return whether one range of all genes is allowed and fits."""
    most = schedule.gene_chunk_size or memory.source.n_genes
    if schedule.split_elsewhere or schedule.at_least > 1 or most < memory.source.n_genes:
        return False
    return bool(memory.mean_genes().sum() + memory.per_range <= room)


def _edges(
    memory: MemoryModel, each: float, most: int, at_least: int, parallel_map: Map
) -> tuple[tuple[int, ...], np.ndarray]:
    """Return the edges of ranges of at most `each` bytes, and the bytes of each gene."""
    n_genes, weights = memory.source.n_genes, memory.mean_genes()
    n_ranges = max(1, min(n_genes, max(at_least, -(-n_genes // most))))
    if n_ranges == 1 and weights.sum() <= each:
        return (0, n_genes), weights
    counted = memory.counted_genes(parallel_map)
    weights = weights if counted is None else counted
    return _cut(weights, each, n_ranges, most, memory.source.gene_step), weights


def _most_entries(memory: MemoryModel, edges: tuple[int, ...], each: float) -> float | None:
    """Return the entries that fit in the widest range; None if entries take no bytes."""
    empty, full = memory.genes(np.array([0.0, 1.0]))
    return (each - empty * max(np.diff(edges))) / (full - empty) if full > empty else None


def _too_little(memory: MemoryModel, budget: int, needed: int, reserved: int) -> MemoryBudgetError:
    source = memory.source
    return MemoryBudgetError(
        f"memory= allows {budget:,} bytes, but at least {needed:,} are "
        f"needed for {source.n_cells:,} cells x {source.n_genes:,} genes in "
        f"{memory.n_groups:,} groups"
        f"{f', {reserved:,} of them for the result (out= needs none)' if reserved else ''}. "
        "Allow more with memory=."
    )


def leave_out(plan: Plan, stored: np.ndarray) -> Plan:
    """Return the plan with the stored genes marked as done, in ranges of their own."""
    if not stored.any():
        return plan
    bounds = np.flatnonzero(np.diff(stored, prepend=0, append=0))
    inside = [e for e in plan.edges[1:-1] if stored[e - 1] and stored[e]]
    edges = sorted({*plan.edges, *bounds.tolist()} - set(inside))
    done = frozenset(k for k, edge in enumerate(edges[:-1]) if stored[edge])
    return replace(plan, edges=tuple(edges), done=done)


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
