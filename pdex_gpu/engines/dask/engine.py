"""Ranges of genes on the workers of a Dask cluster.

A matrix stored by columns is read by the tasks that test it. A matrix stored by rows takes two
stages: blocks of rows are read and split by range of genes into files in a shared folder, and
ranges are assembled from these files. Dask decides where tasks run, what is retried, and how small
results travel.
"""

from __future__ import annotations

from contextlib import ExitStack

from ...backends.contract import KernelSet
from ...backends.registry import load_kernels, on_host
from ...request.options import Settings
from .cluster import Cluster
from .connect import connected


def open_cluster(settings: Settings) -> Cluster:
    """Connect to the cluster that a call asks for, and return its executor.

    Raises
    ------
    PdexGpuError
        See :func:`.connect.connected`.
    """
    with ExitStack() as stack:
        client = stack.enter_context(connected(settings.execution.client))
        # All backends adjust the workers' p-values to the same bits.
        kernels: KernelSet = load_kernels(on_host().name)
        return Cluster(client, settings, kernels, stack.pop_all())
