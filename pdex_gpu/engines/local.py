"""The executor of a call in this process, with any engine that its backend has."""

from __future__ import annotations

from typing import Any

from ..backends.contract import KernelSet
from ..backends.registry import BackendInfo, find, load_engine, load_kernels
from ..errors import UnsupportedDataError
from ..request.options import Settings
from ..sinks.base import Sink
from ..sinks.checkpoint import Checkpoint
from ..sources.base import Source
from ..sources.dataset import Dataset
from ..stats.two_sample.base import StatisticalTest
from ..utils.parallel import Map
from .base import Engine, Job
from .memory_model import MemoryModel
from .plan import Plan, leave_out
from .schedule import choose_backend_for, choose_engine, plan_run


class LocalExecutor:
    """Runs ranges in this process and those it starts; see :class:`.executor.Executor`.

    Parameters
    ----------
    settings : Settings
    test : StatisticalTest
    """

    def __init__(self, settings: Settings, test: StatisticalTest) -> None:
        self.backend = choose_backend_for(settings, test)
        self.engine = choose_engine(settings, self.backend)
        self.settings = _with_processes(settings, self.engine, self.backend)
        self.kernels: KernelSet = load_kernels(
            self.backend.name, settings.execution.device, settings.execution.device_memory
        )
        self._engine: Engine = load_engine(self.engine)

    def prepare(
        self, data: Any, dataset: Dataset, settings: Settings, test: StatisticalTest
    ) -> None:
        """Check that the backend can read the memory that the matrix is in."""
        _check_place(dataset, test, self.backend, settings)

    def use(self, checkpoint: Checkpoint | None) -> None:
        """Keep nothing: scratch files have no name, and end with the run."""

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
        """Plan the ranges of genes that the sink lacks; see :meth:`.executor.Executor.plan`."""
        plan = plan_run(
            MemoryModel.of(source, n_groups, self.kernels.packed_bytes, measured),
            self.kernels,
            self.engine,
            self.settings,
            budget,
            reserved=sink.n_bytes,
            parallel_map=parallel_map,
        )
        # A matrix on a device is one range; its engine leaves out the slices that are stored.
        return plan if source.on_device else leave_out(plan, sink.stored)

    def run(self, job: Job[Source]) -> None:
        """Run every range that the job's plan has to do."""
        self._engine.run(job)

    def discard(self) -> None:
        """Discard nothing; see :meth:`use`."""

    def close(self) -> None:
        """Free nothing: an engine frees what it takes when its run ends."""


def _with_processes(settings: Settings, engine: str, backend: BackendInfo) -> Settings:
    """Return the settings with `n_processes` as workers, or as threads if none can be started."""
    if settings.execution.n_processes is None:
        return settings
    if engine == "shared_memory":
        return settings.changed(n_workers=settings.execution.n_processes)
    if "shared_memory" in backend.engines and settings.execution.n_processes > 1:
        n_threads = settings.execution.n_processes * (settings.execution.n_threads or 1)
        return settings.changed(n_threads=n_threads)
    return settings


def _check_place(
    dataset: Dataset, test: StatisticalTest, backend: BackendInfo, settings: Settings
) -> None:
    """Raise UnsupportedDataError if the backend cannot read the memory that the matrix is in."""
    if not dataset.source.on_device:
        return
    described = find(backend.name)
    several = settings.execution.device is not None and len(backend.devices) > 1
    if described is not None and described.reads_device_memory and not several:
        return
    what, place = settings.data.choice.what, settings.data.choice.place
    if several:
        raise UnsupportedDataError(
            f"{what} is on one CUDA device ({dataset.source.description}) and is used there, but "
            f"device={settings.execution.device!r} asks for {len(backend.devices)} devices. Pass "
            f"the number of that device as device=, or move the matrix: adata.{place} = "
            f"adata.{place}.get()."
        )
    if test.why_numpy is None:
        advice = f"({backend.reason}). Use backend='cuda'"
    else:  # with that option, the CUDA backend would give way to numpy, too
        advice = f"({test.why_numpy}). Leave that option out and use backend='cuda'"
    raise UnsupportedDataError(
        f"{what} is on a CUDA device ({dataset.source.description}), but backend "
        f"{backend.name!r} reads host memory {advice}, or move the matrix: "
        f"adata.{place} = adata.{place}.get()."
    )
