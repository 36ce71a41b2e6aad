"""The choice of backend and engine for a call, and how the work is cut for them."""

from __future__ import annotations

import logging
from dataclasses import replace

from ..backends.contract import KernelSet
from ..backends.registry import BackendInfo, choose_backend, describe, load_engine, runs_pairs
from ..errors import OptionError, unknown
from ..request.options import Settings
from ..stats.two_sample.base import StatisticalTest
from ..utils.parallel import Map
from ..utils.resources import cpu_count
from .base import Engine
from .memory_model import MemoryModel, most_genes_stored_together
from .plan import Plan, Resources, make_plan

logger = logging.getLogger("pdex_gpu")


def choose_backend_for(settings: Settings, test: StatisticalTest) -> BackendInfo:
    """Return the backend asked for, or numpy if only that runs the test's options, and why."""
    backend = choose_backend(settings.execution.backend, settings.execution.device)
    if test.why_numpy is not None and not describe(backend.name).runs_pairs:
        reason = f"{backend.name} cannot run {test.metric} with {test.why_numpy}"
        backend = replace(choose_backend(runs_pairs()), reason=reason)
        logger.warning("using the %s backend (one pair at a time, slow): %s", backend.name, reason)
    else:
        logger.info("backend %s (%s): %s", backend.name, backend.device, backend.reason)
    return backend


def choose_engine(settings: Settings, backend: BackendInfo) -> str:
    """Return the engine asked for, or the backend's own; OptionError if it cannot run there."""
    if settings.execution.engine == "auto":
        if "shared_memory" not in backend.engines or (settings.execution.n_processes or 1) <= 1:
            return backend.engines[0]
        from .worker_processes import why_no_processes

        why = why_no_processes()
        if why is None:
            return "shared_memory"
        logger.warning("using threads instead of worker processes: %s", why)
        return backend.engines[0]
    if settings.execution.engine not in backend.engines:
        available = ["auto", *backend.engines, "dask"]
        raise OptionError(
            unknown(f"engine for backend {backend.name!r}:", settings.execution.engine, available)
        )
    return settings.execution.engine


def plan_run(
    memory: MemoryModel,
    kernels: KernelSet,
    engine: str,
    settings: Settings,
    budget: int,
    *,
    reserved: int = 0,
    parallel_map: Map = map,
) -> Plan:
    """Plan the ranges of a run in this process, cut to suit engine, source and memory.

    Parameters
    ----------
    memory : MemoryModel
    kernels : KernelSet
    engine : str
    settings : Settings
    budget, reserved, parallel_map
        See :func:`.plan.make_plan`.
    """
    resources = Resources(
        settings.execution.n_workers,
        settings.execution.n_threads,
        gene_chunk_size(settings, memory.n_groups),
        cpu_count(),
    )
    its: Engine = load_engine(engine)
    schedule = its.schedule(memory.source, kernels, resources)
    return make_plan(memory, schedule, budget, reserved=reserved, parallel_map=parallel_map)


def gene_chunk_size(settings: Settings, n_groups: int) -> int | None:
    """Return the largest number of genes in a range: as asked for, and as files of ranges hold."""
    if settings.output.out is None:
        return settings.execution.gene_chunk_size
    return most_genes_stored_together(settings.execution.gene_chunk_size, n_groups)
