"""A thread pool: several ranges in flight, several threads on each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from .base import Job, run_range


def run(job: Job) -> None:
    """Run every range of the job; while one range is read, another is computed."""
    plan = job.plan
    threads = ThreadPoolExecutor(plan.n_workers * plan.n_threads, "pdex_gpu")
    ranges = ThreadPoolExecutor(plan.n_workers, "pdex_gpu-range")
    try:
        with job.source.open(plan.edges, plan.budget) as reader:
            try:
                run_map = pool_map(threads)

                def compute(k: int) -> bool:
                    return run_range(job, reader, k, run_map, job.sink.store)

                for fractional in pool_map(ranges)(compute, range(plan.n_ranges)):
                    job.sink.fractional |= fractional
            finally:  # before the source closes under a range that is still read
                ranges.shutdown(cancel_futures=True)
    finally:
        threads.shutdown(cancel_futures=True)


def pool_map(pool: ThreadPoolExecutor) -> Callable[..., Iterator[Any]]:
    """The ``map`` of a pool that starts nothing more once a call failed."""

    def run_map(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        futures: list[Future[Any]] = [pool.submit(function, item) for item in items]
        try:
            for i in range(len(futures)):
                yield futures[i].result()
        finally:  # and keep none: an error's traceback refers to this frame
            while futures:
                futures.pop().cancel()

    return run_map
