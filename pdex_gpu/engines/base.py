"""The job that an engine runs, and the computation of one range of genes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..backends.contract import KernelSet, Moments
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..sinks.base import RangeResult, Sink
from ..sources.base import Reader, Reading, Source
from ..stats.exact_moments import with_exact_sums
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .plan import Plan

_TASKS_PER_THREAD = 8
_MOST_GENES = 64
_PAIRS_A_TASK = 1 << 15  # so that a task's arrays fit in a core's cache


@dataclass(frozen=True)
class Job:
    """Everything an engine needs.

    Attributes
    ----------
    source : Source
    design : Design
    kernels : KernelSet
    analysis : Analysis
    plan : Plan
    sink : Sink
    advance : callable
        Called with the number of genes just completed.
    reading : Reading
        How to read the source; the engine supplies its own threads.
    cluster : Cluster or None
        With ``engine="dask"``, the cluster whose workers run the job.
    """

    source: Source
    design: Design
    kernels: KernelSet
    analysis: Analysis
    plan: Plan
    sink: Sink
    advance: Callable[[int], None]
    reading: Reading
    cluster: Cluster | None = None


class Cluster(Protocol):
    """Runs every range of a job once, on its own workers."""

    def run(self, job: Job) -> None: ...


class Engine(Protocol):
    """Runs every range of a job once."""

    def run(self, job: Job) -> None: ...


def run_range(
    job: Job, reader: Reader, k: int, run: Map, store: Callable[[RangeResult], None]
) -> ValueSummary:
    """Read and compute range `k`; `run` spreads the work. Returns a summary of its values."""
    chunk = reader.read(k)
    finite = job.analysis.test.refuses_nan
    block = job.kernels.pack(chunk, job.design, run, finite=finite)
    del chunk

    def compute(genes: slice) -> None:
        moments = group_moments(job, block, genes)
        measured = job.analysis.measure(job.kernels, block, genes, job.design)
        values = job.analysis.evaluate(measured, moments, job.design)
        store(RangeResult(block.gene_start + genes.start, values))
        job.advance(genes.stop - genes.start)

    tasks = gene_tasks(block.n_genes, job.design.n_groups, job.plan.n_threads)
    for _ in run(compute, tasks):
        pass
    return block.summary


def group_moments(job: Job, block: Any, genes: slice) -> Moments:
    """Return the moments of genes that the analysis needs, with exact sums where necessary."""
    analysis = job.analysis
    moments = job.kernels.moments(
        block,
        genes,
        job.design,
        centred=analysis.centred,
        expm1=analysis.expm1,
        log1p=analysis.log1p,
    )

    def entries(j: int) -> list[np.ndarray]:
        return job.kernels.entries(block, genes.start + j)

    return with_exact_sums(moments, job.design, entries)


def gene_tasks(n_genes: int, n_groups: int, n_threads: int) -> list[slice]:
    """Split ``[0, n_genes)`` into slices so small that threads end at about the same time."""
    width = min(
        _MOST_GENES, _PAIRS_A_TASK // n_groups, -(-n_genes // (_TASKS_PER_THREAD * n_threads))
    )
    width = max(1, width)
    return [slice(i, min(i + width, n_genes)) for i in range(0, n_genes, width)]
