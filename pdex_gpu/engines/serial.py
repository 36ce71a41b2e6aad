"""A plain loop: one range after another, in the calling thread."""

from __future__ import annotations

from ..backends.contract import KernelSet
from ..sources.base import Source
from .base import Job, RangeSource, run_range
from .plan import Resources, Schedule


def schedule(source: Source, kernels: KernelSet, resources: Resources) -> Schedule:
    """Want one worker with one thread."""
    return Schedule(n_workers=1, n_threads=1, gene_chunk_size=resources.gene_chunk_size)


def run(job: Job[RangeSource]) -> None:
    """Run every range of the job."""
    plan = job.plan
    with job.source.open(plan.edges, plan.budget, job.reading) as reader:
        for k in plan.todo:
            job.sink.commit(plan.genes(k), run_range(job, reader, k, map, job.sink.store))
