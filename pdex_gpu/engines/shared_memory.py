"""Worker processes over shared memory that holds the matrix as it is, sparse or dense.

Workers are started by spawn, which is all that macOS and Windows have. Each computes whole ranges
of genes and sends the small results back.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ..errors import OptionError, SharedMemoryError, WorkerError
from ..pools import pool_map
from ..sinks.base import RangeResult
from ..sources.base import Reading, Source
from ..sources.memory import MemorySource
from ..value_summary import ValueSummary
from .base import Job, run_range

_MOUNT = Path("/dev/shm")


@dataclass(frozen=True)
class _SharedArray:
    name: str
    shape: tuple[int, ...]
    dtype: str
    order: Literal["C", "F"]


@dataclass(frozen=True)
class _Task:
    """A job as it travels to a worker."""

    job: Job  # without source and sink
    source: Callable[..., Source]
    arrays: dict[str, _SharedArray]
    facts: dict[str, Any]
    kernels: str


def run(job: Job) -> None:
    """Run every range of the job in worker processes."""
    source = job.source
    if not isinstance(source, MemorySource):
        raise OptionError(
            f"engine='shared_memory' needs the matrix in memory, but it is {source.description}. "
            "Use engine='threads', or load the data first."
        )
    arrays, facts = source.state()
    _check_space(sum(a.nbytes for a in arrays.values()))
    with ExitStack() as stack:
        shared = {name: _share(stack, array) for name, array in arrays.items()}
        kernels = job.kernels
        assert isinstance(kernels, ModuleType)
        bare = replace(job, source=None, sink=None, kernels=None, advance=None, reading=None)  # type: ignore[arg-type]
        task = _Task(bare, type(source), shared, facts, kernels.__name__)
        _run_workers(job, task)


def _run_workers(job: Job, task: _Task) -> None:
    pool = ProcessPoolExecutor(
        job.plan.n_workers, multiprocessing.get_context("spawn"), _set_task, (task,)
    )
    try:
        futures = {pool.submit(_run_range, k): k for k in job.plan.todo}
        for future in as_completed(futures):
            results, summary = future.result()
            for result in results:
                job.sink.store(result)
                job.advance(result.genes.stop - result.genes.start)
            job.sink.commit(job.plan.genes(futures[future]), summary)
    except BrokenProcessPool as error:
        raise WorkerError(
            "A worker process of engine='shared_memory' died before its results were complete "
            "(killed, out of memory, or unable to start). In a script, "
            "guard the call with `if __name__ == '__main__':`, as worker processes import the "
            "script again; else use fewer workers or engine='threads'."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _check_space(needed: int) -> None:
    """Writing past the end of a full tmpfs kills the process, so look first."""
    if not _MOUNT.is_dir():
        return
    free = shutil.disk_usage(_MOUNT).free
    if free < needed:
        raise SharedMemoryError(
            f"engine='shared_memory' needs {needed:,} bytes ({needed / 2**20:,.0f} MiB) in "
            f"{_MOUNT}, which has {free:,} free. Use engine='threads', or enlarge it (in Docker: "
            f"--shm-size={-(-needed // 2**20) + 64}m)."
        )


def _share(stack: ExitStack, array: np.ndarray) -> _SharedArray:
    order: Literal["C", "F"] = (
        "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    )
    memory = SharedMemory(create=True, size=max(1, array.nbytes))
    stack.callback(memory.unlink)
    stack.callback(memory.close)
    _reserve(memory)
    view = np.ndarray(array.shape, array.dtype, memory.buf, order=order)
    view[...] = array
    del view
    return _SharedArray(memory.name, array.shape, array.dtype.str, order)


def _reserve(memory: SharedMemory) -> None:
    """Take the pages now: another process may have filled the mount since it was looked at."""
    path = _MOUNT / memory.name.lstrip("/")
    if not path.exists():
        return
    fd = os.open(path, os.O_RDWR)
    try:
        os.posix_fallocate(fd, 0, memory.size)
    except OSError as error:
        raise SharedMemoryError(
            f"engine='shared_memory' could not reserve {memory.size:,} bytes in {_MOUNT}: "
            f"{error.strerror}. Use engine='threads'."
        ) from error
    finally:
        os.close(fd)


# --- in a worker ---------------------------------------------------------------------------

_task: _Task | None = None
_attached: tuple[list[SharedMemory], Job] | None = None


def _set_task(task: _Task) -> None:
    # Attaching may fail; done by the first range, so that the error reaches the parent.
    global _task
    _task = task


def _run_range(k: int) -> tuple[list[RangeResult], ValueSummary]:
    job = _job()
    results: list[RangeResult] = []
    with (
        ThreadPoolExecutor(job.plan.n_threads) as pool,
        job.source.open(job.plan.edges, job.plan.budget, Reading(pool_map(pool))) as reader,
    ):
        summary = run_range(job, reader, k, pool_map(pool), results.append)
    return results, summary


def _job() -> Job:
    global _attached
    if _attached is None:
        assert _task is not None
        memories, arrays = [], {}
        for name, shared in _task.arrays.items():
            memory = SharedMemory(name=shared.name)
            memories.append(memory)
            arrays[name] = np.ndarray(
                shared.shape,
                shared.dtype,
                memory.buf,
                order=shared.order,
            )
        job = replace(
            _task.job,
            source=_task.source(**arrays, **_task.facts),
            kernels=importlib.import_module(_task.kernels),
            advance=lambda _: None,
        )
        _attached = memories, job
    return _attached[1]
