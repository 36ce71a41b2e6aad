"""A plain loop: one range after the other, in the calling thread."""

from __future__ import annotations

from .base import Job, run_range


def run(job: Job) -> None:
    """Run every range of the job."""
    with job.source.open(job.plan.edges, job.plan.budget) as reader:
        for k in range(job.plan.n_ranges):
            job.sink.fractional |= run_range(job, reader, k, map, job.sink.store)
