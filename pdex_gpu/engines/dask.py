"""Ranges of genes on the workers of a Dask cluster.

Columns are read by whoever tests them. A matrix stored by rows goes in two stages: blocks of rows
are read and split by ranges of genes into files of a shared folder, and ranges put together from
these. Where tasks run, what is tried again, and how small results travel is Dask's.
"""

from __future__ import annotations

from .base import Job


def run(job: Job) -> None:
    """Run every range of the job on its cluster."""
    assert job.cluster is not None
    job.cluster.run(job)
