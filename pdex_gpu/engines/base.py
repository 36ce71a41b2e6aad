"""The job that an engine runs, and the computation of one range of genes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from ..backends.contract import KernelSet
from ..backends.outputs import GroupValues, Moments
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..sinks.base import RangeResult, RangeSink
from ..sources.base import Reader, Reading, Source
from ..stats.exact_moments import with_exact_sums
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .plan import Plan, Resources, Schedule

_TASKS_PER_THREAD = 8
_MOST_GENES = 64
_PAIRS_PER_TASK = 1 << 15  # so that a task's arrays fit in a core's cache


class RangeSource(Protocol):
    """The part of a :class:`.sources.base.Source` that engines use: it is read in ranges of genes.

    Attributes
    ----------
    on_device : bool
    description : str
    """

    @property
    def on_device(self) -> bool: ...

    @property
    def description(self) -> str: ...

    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> AbstractContextManager[Reader]:
        """See :meth:`.sources.base.Source.open`."""
        ...


@dataclass(frozen=True)
class Computation:
    """The computation on every range, wherever it is read and its results are stored.

    Attributes
    ----------
    design : Design
    kernels : KernelSet
    analysis : Analysis
    plan : Plan
    advance : callable
        Called with the number of genes just completed.
    """

    design: Design
    kernels: KernelSet
    analysis: Analysis
    plan: Plan
    advance: Callable[[int], None]


_Source = TypeVar("_Source", bound=RangeSource, covariant=True)


@dataclass(frozen=True)
class Job(Computation, Generic[_Source]):
    """Everything an engine needs.

    Attributes
    ----------
    source : RangeSource
    sink : RangeSink
    reading : Reading
        How to read the source; the engine supplies its own threads.
    cells : numpy.ndarray, optional
        Cells of the data in the order of `source`, if the design is not that of their labels.
    """

    source: _Source
    sink: RangeSink
    reading: Reading
    cells: np.ndarray | None = None


class Engine(Protocol):
    """A module that runs every range of a job once, in this process or in others of its own."""

    def schedule(self, source: Source, kernels: KernelSet, resources: Resources) -> Schedule:
        """Return what it wants of a plan: its workers and threads, and how finely work is cut."""
        ...

    def run(self, job: Job[RangeSource]) -> None:
        """Run every range that the job's plan has to do."""
        ...


def run_range(
    job: Computation,
    reader: Reader,
    k: int,
    parallel_map: Map,
    store: Callable[[RangeResult], None],
) -> ValueSummary:
    """Read and compute range `k`, spread over a parallel map; return a summary of its values."""
    chunk = reader.read(k)
    finite = job.analysis.test.refuses_nan
    block = job.kernels.pack(chunk, job.design, parallel_map, finite=finite)
    del chunk

    def compute(genes: slice) -> None:
        moments = group_moments(job, block, genes, block.summary)
        measured = job.analysis.measure(job.kernels, block, genes, job.design)
        values = job.analysis.evaluate(measured, moments, job.design)
        store(RangeResult(block.gene_start + genes.start, values))
        job.advance(genes.stop - genes.start)

    tasks = gene_tasks(block.n_genes, job.design.n_groups, job.plan.n_threads)
    for _ in parallel_map(compute, tasks):
        pass
    return block.summary


def group_moments(job: Computation, block: Any, genes: slice, summary: ValueSummary) -> Moments:
    """Return the moments of genes that the analysis needs, with exact sums where necessary.

    Groups with negative values are marked if the analysis needs that; `summary` tells whether the
    block has any.
    """
    analysis = job.analysis
    moments = job.kernels.moments(
        block,
        genes,
        job.design,
        centred=analysis.centred,
        expm1=analysis.expm1,
        log1p=analysis.log1p,
        higher=analysis.higher,
    )

    def entries(j: int) -> GroupValues:
        return job.kernels.entries(block, genes.start + j)

    found = with_exact_sums(moments, job.design, entries)
    if summary.minimum >= 0.0 or not analysis.marks_negative:
        return found
    genes_of_groups = [
        [bool((values < 0).any()) for values in entries(j)] for j in range(genes.stop - genes.start)
    ]
    return replace(found, negative=np.array(genes_of_groups, bool).T)


def gene_tasks(n_genes: int, n_groups: int, n_threads: int) -> list[slice]:
    """Split ``[0, n_genes)`` into slices so small that threads end at about the same time."""
    width = min(
        _MOST_GENES, _PAIRS_PER_TASK // n_groups, -(-n_genes // (_TASKS_PER_THREAD * n_threads))
    )
    width = max(1, width)
    return [slice(i, min(i + width, n_genes)) for i in range(0, n_genes, width)]
