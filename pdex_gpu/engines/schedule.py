"""The choice of backend and engine for a call, and how the work is cut for them."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import cast

import numpy as np

from ..backends.contract import DeviceKernels, KernelSet
from ..backends.registry import BackendInfo, choose_backend, describe, runs_pairs
from ..errors import OptionError, unknown
from ..request.options import Settings
from ..sinks.base import Sink
from ..sources.base import Source
from ..stats.two_sample.base import StatisticalTest
from ..utils.parallel import Map
from ..utils.resources import cpu_count
from .plan import Plan, make_plan

logger = logging.getLogger("pdex_gpu")

RANGES_PER_PROCESS = 4
_RANGES_PER_DEVICE = 8
# One range is read from a file while another is computed.
_ENTRIES_PER_RANGE = 50_000_000
_MOST_RANGES = 64
# Pairs of group and gene whose results are stored together: at most this is lost in a crash.
RESULTS_PER_RANGE = 64_000_000 // 24


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
    if settings.execution.engine == "dask":
        return "dask"
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


def make_schedule(
    source: Source,
    n_groups: int,
    kernels: KernelSet,
    engine: str,
    settings: Settings,
    sink: Sink,
    budget: int,
    run: Map,
) -> Plan:
    """Plan the ranges of genes that the sink lacks, cut to suit engine, source and memory."""
    processors = cpu_count()
    n_workers, n_threads = settings.execution.n_workers, settings.execution.n_threads
    gene_chunk_size, at_least = settings.execution.gene_chunk_size, 1
    if settings.output.out is not None:
        gene_chunk_size = chunk_size_of_files(gene_chunk_size, n_groups)
    if engine == "serial":
        n_workers = n_threads = 1
    elif engine == "shared_memory":
        n_workers = n_workers or max(1, processors // (n_threads or 1))
        n_threads = n_threads or 1
        at_least = RANGES_PER_PROCESS * n_workers
    elif engine == "streams":
        if source.on_device:
            return Plan((0, source.n_genes), 0, 1, n_threads or processors)
        on_each = n_workers or (1 if source.costly_to_cut else 2)
        n_threads = n_threads or processors
        devices = cast(DeviceKernels, kernels)
        most = devices.most_genes(source, on_each)
        gene_chunk_size = min(most, gene_chunk_size or most)
        n_workers = on_each * len(devices.devices)
        if n_workers > 1:  # one range is read and uploaded while another is computed
            at_least = _RANGES_PER_DEVICE * len(devices.devices)
    else:
        # A source that is read whole has been read before the first range starts.
        by_range = not (source.in_memory or source.read_whole)
        n_workers = n_workers or (1 if source.in_memory or processors == 1 else 2)
        if by_range:
            at_least = min(_MOST_RANGES, source.nnz // _ENTRIES_PER_RANGE)
    plan = make_plan(
        source,
        n_groups,
        packed_bytes=kernels.packed_bytes,
        budget=budget,
        n_workers=n_workers,
        n_threads=n_threads,
        processors=processors,
        reserved=sink.n_bytes,
        gene_chunk_size=gene_chunk_size,
        at_least=at_least,
        run=run,
    )
    return leave_out(plan, sink.stored)


def chunk_size_of_files(asked: int | None, n_groups: int) -> int:
    """Return the largest number of genes in a range whose results are stored together."""
    narrow = max(1, RESULTS_PER_RANGE // n_groups)
    return min(asked or narrow, narrow)


def leave_out(plan: Plan, stored: np.ndarray) -> Plan:
    """Return the plan with the stored genes marked as done, in ranges of their own."""
    if not stored.any():
        return plan
    bounds = np.flatnonzero(np.diff(stored, prepend=0, append=0))
    inside = [e for e in plan.edges[1:-1] if stored[e - 1] and stored[e]]
    edges = sorted({*plan.edges, *bounds.tolist()} - set(inside))
    done = frozenset(k for k, edge in enumerate(edges[:-1]) if stored[edge])
    return replace(plan, edges=tuple(edges), done=done)
