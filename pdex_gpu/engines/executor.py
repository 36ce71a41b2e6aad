"""The executor of a call, which plans and runs its ranges: in this process, or on a cluster."""

from __future__ import annotations

from typing import Any, Protocol

from ..backends.contract import KernelSet
from ..backends.registry import BackendInfo
from ..request.options import Settings
from ..sinks.base import Sink
from ..sinks.checkpoint import Checkpoint
from ..sources.base import Source
from ..sources.dataset import Dataset
from ..stats.two_sample.base import StatisticalTest
from ..utils.parallel import Map
from .base import Job
from .plan import Plan


class Executor(Protocol):
    """Plans and runs the ranges of a call.

    Its methods are called in this order: `prepare`, `use`, then `plan` and `run`, again if the
    matrix turns out to be other than planned, `discard`, `close`.

    Attributes
    ----------
    settings : Settings
        The settings of the call, in the terms of this executor.
    engine : str
        Name of the engine, for the provenance.
    backend : BackendInfo
        What computes the ranges; known once prepared.
    kernels : KernelSet
        The kernel set of this process, which adjusts p-values. All kernel sets give the same bits.
    """

    @property
    def settings(self) -> Settings: ...

    @property
    def engine(self) -> str: ...

    @property
    def backend(self) -> BackendInfo: ...

    @property
    def kernels(self) -> KernelSet: ...

    def prepare(
        self, data: Any, dataset: Dataset, settings: Settings, test: StatisticalTest
    ) -> None:
        """Check that the data can be computed on, before anything is written.

        Parameters
        ----------
        data : object
            As given in the call.
        dataset : Dataset
            The same, opened in this process.
        settings : Settings
        test : StatisticalTest

        Raises
        ------
        PdexGpuError
            If they cannot.
        """
        ...

    def use(self, checkpoint: Checkpoint | None) -> None:
        """Keep intermediate data with a checkpoint, if there is one."""
        ...

    def plan(
        self,
        source: Source,
        n_groups: int,
        sink: Sink,
        budget: int,
        parallel_map: Map,
        *,
        measured: int = 0,
    ) -> Plan:
        """Plan the ranges of genes that the sink lacks.

        Parameters
        ----------
        source : Source
        n_groups : int
            Number of groups whose results take as much memory as those of the call.
        sink : Sink
        budget : int
            Bytes that this process may use.
        parallel_map : callable
            A map over which reading a sample of the file is spread.
        measured : int
            Bytes that the test measures for each entry.
        """
        ...

    def run(self, job: Job[Source]) -> None:
        """Run every range that the job's plan has to do."""
        ...

    def discard(self) -> None:
        """Remove intermediate data that a later call could have used."""
        ...

    def close(self) -> None:
        """Free everything, at the end of the call."""
        ...


def open_executor(settings: Settings, test: StatisticalTest) -> Executor:
    """Return the executor that a call asks for.

    Raises
    ------
    PdexGpuError
        If its backend or cluster cannot be used.
    """
    if settings.execution.on_cluster:
        from .dask.engine import open_cluster

        return open_cluster(settings)
    from .local import LocalExecutor

    return LocalExecutor(settings, test)
