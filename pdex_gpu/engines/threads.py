"""A thread pool: several ranges in flight, several threads on each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..utils.parallel import pool_map
from .base import Job, run_range


def run(job: Job) -> None:
    """Run every range of the job; while one range is read, another is computed."""
    plan = job.plan
    threads = ThreadPoolExecutor(plan.n_workers * plan.n_threads, "pdex_gpu")
    ranges = ThreadPoolExecutor(plan.n_workers, "pdex_gpu-range")
    try:
        run_map = pool_map(threads)
        reading = replace(job.reading, run=run_map, n_threads=plan.n_workers * plan.n_threads)
        with job.source.open(plan.edges, plan.budget, reading) as reader:
            try:

                def compute(k: int) -> None:
                    summary = run_range(job, reader, k, run_map, job.sink.store)
                    job.sink.commit(plan.genes(k), summary)

                for _ in pool_map(ranges)(compute, plan.todo):
                    pass
            finally:  # before the source closes while a range is still being read
                ranges.shutdown(cancel_futures=True)
    finally:
        threads.shutdown(cancel_futures=True)
