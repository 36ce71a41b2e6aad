"""What an engine runs, and how one range of genes is computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from ..backends.contract import KernelSet
from ..design import Design
from ..plan import Plan
from ..pools import Map
from ..sinks.base import RangeResult, Sink
from ..sources.base import Reader, Reading, Source
from ..stats.base import StatisticalTest

_TASKS_PER_THREAD = 8
_MOST_GENES = 64
_PAIRS_A_TASK = 1 << 15  # arrays of a task's pairs stay in a core's cache


@dataclass(frozen=True)
class Job:
    """All that an engine needs.

    Attributes
    ----------
    source : Source
    design : Design
    kernels : KernelSet
    test : StatisticalTest
    plan : Plan
    expm1 : bool
        Whether means of ``expm1(x)`` are wanted.
    sink : Sink
    advance : callable
        Told how many more genes are done.
    reading : Reading
        How the source is to be read; the engine gives its own threads.
    """

    source: Source
    design: Design
    kernels: KernelSet
    test: StatisticalTest
    plan: Plan
    expm1: bool
    sink: Sink
    advance: Callable[[int], None]
    reading: Reading


class Engine(Protocol):
    """Runs every range of a job once."""

    def run(self, job: Job) -> None: ...


def run_range(
    job: Job, reader: Reader, k: int, run: Map, store: Callable[[RangeResult], None]
) -> bool:
    """Read and compute range `k`, `run` spreading the work; returns whether X is fractional."""
    chunk = reader.read(k)
    block = job.kernels.pack(chunk, job.design, run, finite=job.test.refuses_nonfinite)
    del chunk

    def compute(genes: slice) -> None:
        moments = job.kernels.moments(
            block, genes, job.design, centred=job.test.needs_m2, expm1=job.expm1
        )
        measured = job.test.measure(job.kernels, block, genes, job.design)
        statistic, p_value = job.test.judge(measured, moments, job.design)
        start = block.gene_start + genes.start
        store(RangeResult(start, moments.mean, moments.mean_expm1, statistic, p_value))
        job.advance(genes.stop - genes.start)

    tasks = gene_tasks(block.n_genes, job.design.n_groups, job.plan.n_threads)
    for _ in run(compute, tasks):
        pass
    return block.fractional


def gene_tasks(n_genes: int, n_groups: int, n_threads: int) -> list[slice]:
    """Slices of ``[0, n_genes)`` small enough that threads end at about the same time."""
    width = min(
        _MOST_GENES, _PAIRS_A_TASK // n_groups, -(-n_genes // (_TASKS_PER_THREAD * n_threads))
    )
    width = max(1, width)
    return [slice(i, min(i + width, n_genes)) for i in range(0, n_genes, width)]
