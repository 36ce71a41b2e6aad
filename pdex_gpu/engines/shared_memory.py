"""Worker processes over shared memory that holds the matrix as it is, sparse or dense.

Workers are started by spawn, which is all that macOS and Windows have. Each computes whole ranges
of genes and sends the small results back.

Use it where threads would wait for Python's lock: with the numpy kernel set, above all with options
of a test that run through scipy, pair by pair. The compiled kernels release the lock, so threads
are as fast there, and start at once: a worker takes about a second to start and to import what it
needs. The matrix has to be in memory and is copied once. ``benchmarks/shared_memory.py`` compares
the two. It is also the engine behind `num_workers` of ``parallel_differential_expression``, whose
contract is worker processes over shared memory.
"""

from __future__ import annotations

import importlib
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ..backends.contract import KernelSet
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..errors import OptionError, SharedMemoryError, WorkerError, shown
from ..sinks.base import RangeResult
from ..sources.base import Reading, Source
from ..sources.views.view import reordered
from ..utils.parallel import pool_map
from ..utils.value_summary import ValueSummary
from . import worker_processes
from .base import Computation, Job, RangeSource, run_range
from .plan import RANGES_PER_WORKER, Plan, Resources, Schedule
from .shared_segments import MOUNT, Segment, make_segment


@dataclass(frozen=True)
class _SharedArray:
    segment: Segment
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"]

    def view(self) -> np.ndarray:
        return np.ndarray(self.shape, self.dtype, self.segment.buffer, order=self.order)


@dataclass(frozen=True)
class _Task:
    """A job as it is sent to a worker: its source and kernels by name, without sink."""

    design: Design
    analysis: Analysis
    plan: Plan
    kernels: str
    source: Callable[..., Source]
    arrays: dict[str, _SharedArray]
    facts: dict[str, Any]
    order: _SharedArray | None


def schedule(source: Source, kernels: KernelSet, resources: Resources) -> Schedule:
    """Want a process of one thread for each processor, and some ranges for each process."""
    n_threads = resources.n_threads or 1
    n_workers = resources.n_workers or max(1, resources.processors // n_threads)
    return Schedule(
        n_workers=n_workers,
        n_threads=n_threads,
        gene_chunk_size=resources.gene_chunk_size,
        at_least=RANGES_PER_WORKER * n_workers,
    )


def run(job: Job[Source]) -> None:
    """Run every range of the job in worker processes."""
    source = job.source
    why = worker_processes.why_no_processes()
    if why is not None:
        raise WorkerError(
            f"engine='shared_memory' cannot start worker processes here: {why}. Use "
            "engine='threads', and set the number of threads with n_threads=."
        )
    whole, order = source.take_apart()
    state = whole.state()
    if state is None:
        raise OptionError(
            f"engine='shared_memory' needs the matrix in memory, but it is {source.description}. "
            "Use engine='threads', or load the data first."
        )
    arrays = [*state.arrays.values(), *([] if order is None else [order])]
    _check_space(sum(a.nbytes for a in arrays))
    with ExitStack() as stack:
        shared = {name: _share(stack, array) for name, array in state.arrays.items()}
        kernels = job.kernels
        assert isinstance(kernels, ModuleType)
        # Labels stay here: workers need only their number, and may not know their classes.
        n = np.arange(job.design.n_rows)
        nameless = replace(job.design, targets=n, references=n * 0, within=None)
        task = _Task(
            nameless,
            job.analysis,
            job.plan,
            kernels.__name__,
            state.make,
            shared,
            state.facts,
            None if order is None else _share(stack, order),
        )
        _run_workers(job, task)


def _run_workers(job: Job[Source], task: _Task) -> None:
    try:
        ForkingPickler.dumps(replace(task, arrays={}, order=None))
    except Exception as error:  # of any type: pickling runs the option's own class
        raise OptionError(
            f"engine='shared_memory' cannot send the options {shown(job.analysis.test.options)} to "
            f"worker processes: {shown(error)}. Use engine='threads'."
        ) from error
    done = worker_processes.results(job.plan.n_workers, _run_range, task, job.plan.todo)
    with closing(done):
        for k, (results, summary) in done:
            for result in results:
                job.sink.store(result)
                job.advance(result.genes.stop - result.genes.start)
            job.sink.commit(job.plan.genes(k), summary)


def _check_space(needed: int) -> None:
    """Check that the memory fits: writing past the end of a full tmpfs kills the process."""
    if not MOUNT.is_dir():
        return
    free = shutil.disk_usage(MOUNT).free
    if free < needed:
        raise SharedMemoryError(
            f"engine='shared_memory' needs {needed:,} bytes ({needed / 2**20:,.0f} MiB) in "
            f"{MOUNT}, which has {free:,} free. Use engine='threads', or enlarge it (in Docker: "
            f"--shm-size={-(-needed // 2**20) + 64}m)."
        )


def _share(stack: ExitStack, array: np.ndarray) -> _SharedArray:
    order: Literal["C", "F"] = (
        "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    )
    size = max(1, array.nbytes)
    try:
        segment = make_segment(size)
    except OSError as error:
        raise SharedMemoryError(
            f"engine='shared_memory' could not reserve {size:,} bytes in {MOUNT}: "
            f"{error.strerror}. Use engine='threads'."
        ) from error
    stack.callback(segment.close)
    shared = _SharedArray(segment, array.shape, array.dtype.str, order)
    shared.view()[...] = array
    return shared


# --- in a worker ---------------------------------------------------------------------------

_attached: tuple[Computation, RangeSource] | None = None


def _run_range(task: _Task, k: int) -> tuple[list[RangeResult], ValueSummary]:
    job, source = _attach(task)
    results: list[RangeResult] = []
    with (
        ThreadPoolExecutor(job.plan.n_threads) as pool,
        source.open(job.plan.edges, job.plan.budget, Reading(pool_map(pool))) as reader,
    ):
        summary = run_range(job, reader, k, pool_map(pool), results.append)
    return results, summary


def _attach(task: _Task) -> tuple[Computation, RangeSource]:
    """Return this worker's job, made on first use so that an error reaches the parent."""
    global _attached
    if _attached is None:
        arrays = {name: shared.view() for name, shared in task.arrays.items()}
        source = task.source(**arrays, **task.facts)
        if task.order is not None:
            source = reordered(source, task.order.view())
        kernels: Any = importlib.import_module(task.kernels)
        job = Computation(task.design, kernels, task.analysis, task.plan, lambda _: None)
        _attached = job, source
    return _attached
