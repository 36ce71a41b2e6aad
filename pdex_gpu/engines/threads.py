"""A thread pool: several ranges in flight, several threads on each."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from ..backends.contract import KernelSet
from ..sources.base import Source
from ..utils.parallel import pool_map
from .base import Job, RangeSource, run_range
from .plan import Resources, Schedule

# One range is read from a file while another is computed, so several are wanted: this many.
_ENTRIES_PER_RANGE = 50_000_000
_MOST_RANGES = 64


def schedule(source: Source, kernels: KernelSet, resources: Resources) -> Schedule:
    """Want two ranges in flight if the source is read range by range, and all processors."""
    one_at_a_time = source.in_memory or resources.processors == 1
    # A source that is read whole has been read before the first range starts.
    by_range = not (source.in_memory or source.read_whole)
    return Schedule(
        n_workers=resources.n_workers or (1 if one_at_a_time else 2),
        n_threads=resources.n_threads,
        processors=resources.processors,
        gene_chunk_size=resources.gene_chunk_size,
        at_least=min(_MOST_RANGES, source.nnz // _ENTRIES_PER_RANGE) if by_range else 1,
    )


def run(job: Job[RangeSource]) -> None:
    """Run every range of the job; while one range is read, another is computed."""
    plan = job.plan
    threads = ThreadPoolExecutor(plan.n_workers * plan.n_threads, "pdex_gpu")
    ranges = ThreadPoolExecutor(plan.n_workers, "pdex_gpu-range")
    try:
        parallel_map = pool_map(threads)
        reading = replace(
            job.reading, parallel_map=parallel_map, n_threads=plan.n_workers * plan.n_threads
        )
        with job.source.open(plan.edges, plan.budget, reading) as reader:
            try:

                def compute(k: int) -> None:
                    summary = run_range(job, reader, k, parallel_map, job.sink.store)
                    job.sink.commit(plan.genes(k), summary)

                for _ in pool_map(ranges)(compute, plan.todo):
                    pass
            finally:  # before the source closes while a range is still being read
                ranges.shutdown(cancel_futures=True)
    finally:
        threads.shutdown(cancel_futures=True)
