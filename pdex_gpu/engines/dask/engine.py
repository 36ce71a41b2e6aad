"""Ranges of genes on the workers of a Dask cluster.

A matrix stored by columns is read by the tasks that test it. A matrix stored by rows takes two
stages: blocks of rows are read and split by range of genes into files in a shared folder, and
ranges are assembled from these files. Dask decides where tasks run, what is retried, and how small
results travel.
"""

from __future__ import annotations

from ..base import Job


def run(job: Job) -> None:
    """Run every range of the job on its cluster."""
    assert job.cluster is not None
    job.cluster.run(job)
