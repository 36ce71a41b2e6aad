"""Worker processes over shared memory that holds the matrix as it is, sparse or dense.

Workers are started by spawn, which is all that macOS and Windows have. Each computes whole ranges
of genes and sends the small results back.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from multiprocessing.reduction import ForkingPickler
from multiprocessing.shared_memory import SharedMemory
from multiprocessing.spawn import get_executable
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import numpy as np

from ..errors import OptionError, PdexGpuError, SharedMemoryError, WorkerError, shown
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
    why = why_no_processes()
    if why is not None:
        raise WorkerError(
            f"engine='shared_memory' cannot start worker processes here: {why}. Use "
            "engine='threads', with n_threads= for their number."
        )
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
        # Labels stay here: workers need their number, and may not know their classes.
        n = np.arange(job.design.n_rows)
        nameless = replace(job.design, targets=n, references=n * 0, within=None)
        bare = replace(job, source=None, sink=None, kernels=None, advance=None, reading=None)  # type: ignore[arg-type]
        bare = replace(bare, design=nameless)
        task = _Task(bare, type(source), shared, facts, kernels.__name__)
        _run_workers(job, task)


def _run_workers(job: Job, task: _Task) -> None:
    try:
        ForkingPickler.dumps(task)
    except Exception as error:  # of an option's own class
        raise OptionError(
            f"engine='shared_memory' cannot send the options {shown(job.analysis.test.options)} to "
            f"worker processes: {shown(error)}. Use engine='threads'."
        ) from error
    pool = ProcessPoolExecutor(
        job.plan.n_workers, multiprocessing.get_context("spawn"), _set_task, (task,)
    )
    try:
        with _program_left_alone():
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
    except OSError as error:
        if isinstance(error, PdexGpuError):
            raise
        raise WorkerError(
            f"engine='shared_memory' could not start worker processes: {error}. Use "
            "engine='threads', or fewer workers."
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def why_no_processes() -> str | None:
    """Why this process cannot start others, in words; None if it can."""
    here = multiprocessing.current_process()
    if here.daemon:
        return (
            "this process is a daemonic worker itself (of Celery, multiprocessing.Pool or a Dask "
            "nanny), which may have no children"
        )
    if getattr(here, "_inheriting", False):
        return (
            "this process is a worker that is still importing the program. Guard the program with "
            "`if __name__ == '__main__':`"
        )
    if not get_executable():
        return "this interpreter does not know its own program (sys.executable is empty)"
    return None


@contextmanager
def _program_left_alone() -> Iterator[None]:
    """Have workers that are started within the block not import a program that is in no file.

    One from standard input says it is in ``<stdin>``, which no worker could open. They need nothing
    of it.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or main.__spec__ is not None or os.path.isfile(file):
        yield
        return
    with _starting:
        del main.__file__
        try:
            yield
        finally:
            main.__file__ = file


# One thread at a time hides what `multiprocessing.spawn` looks for in `__main__`.
_starting = threading.Lock()


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
