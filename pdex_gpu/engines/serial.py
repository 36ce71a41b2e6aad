"""A plain loop: one range after another, in the calling thread."""

from __future__ import annotations

from .base import Job, run_range


def run(job: Job) -> None:
    """Run every range of the job."""
    plan = job.plan
    with job.source.open(plan.edges, plan.budget, job.reading) as reader:
        for k in plan.todo:
            job.sink.commit(plan.genes(k), run_range(job, reader, k, map, job.sink.store))
