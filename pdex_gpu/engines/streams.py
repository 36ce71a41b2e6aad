"""Ranges of genes streamed through a device: read, uploaded and computed side by side.

While one range is read and uploaded another is computed; of a range, several slices of genes are
in work at once. Where the device has too little memory, what did not fit is halved and tried again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

from ..backends.contract import Block, Map, Moments, StreamedKernelSet
from ..errors import DeviceMemoryError
from ..sources.base import Chunk, Reader
from ..sources.split import halves
from ..stats.base import Measured
from .base import Job, RangeResult, gene_tasks
from .threads import pool_map

logger = logging.getLogger("pdex_gpu")


def run(job: Job) -> None:
    """Run every range of the job on the device of its kernel set."""
    plan, kernels = job.plan, cast(StreamedKernelSet, job.kernels)
    # Uploads have threads of their own: computing waits for the device, and they should not wait
    # behind it.
    uploads = ThreadPoolExecutor(plan.n_threads, "pdex_gpu-upload")
    threads = ThreadPoolExecutor(plan.n_workers * plan.n_threads, "pdex_gpu")
    ranges = ThreadPoolExecutor(plan.n_workers, "pdex_gpu-range")
    under_way = _Run(job, kernels, pool_map(uploads), pool_map(threads), _OnDevice())
    try:
        with job.source.open(plan.edges, plan.budget) as reader:
            try:
                futures = [ranges.submit(under_way.range, reader, k) for k in range(plan.n_ranges)]
                for future in futures:
                    job.sink.fractional |= future.result()
            finally:  # before the source closes under a range that is still read
                ranges.shutdown(cancel_futures=True)
    finally:
        uploads.shutdown(cancel_futures=True)
        threads.shutdown(cancel_futures=True)


class _OnDevice:
    """Ranges that are on the device. One that does not fit beside others can wait to be alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._n = 0
        self._closed = False

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._n += 1
        try:
            yield
        finally:
            with self._changed:
                self._n -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._closed = True
            self._changed.wait_for(lambda: self._n == 0)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


@dataclass(frozen=True)
class _Run:
    """A job under way: computing and storing ranges of genes, however small they have to be."""

    job: Job
    kernels: StreamedKernelSet
    uploads: Map
    spread: Map
    on_device: _OnDevice

    def range(self, reader: Reader, k: int) -> bool:
        """Read and compute range `k`; returns whether X is fractional."""
        return self._chunk(reader.read(k))

    def _chunk(self, chunk: Chunk) -> bool:
        with self.on_device.beside_others():
            block = self._pack(chunk)
            if block is not None:
                return self._block(block)
        if chunk.n_genes > 1 and not self.job.source.on_device:
            logger.info("halving a range of %d genes: too large for the device", chunk.n_genes)
            first, second = halves(chunk)
            del chunk
            return self._chunk(first) | self._chunk(second)
        with self.on_device.alone():
            return self._block(self._pack_or_raise(chunk))

    def _pack(self, chunk: Chunk) -> Block | None:
        # Out of the handler before anything is tried again: a traceback holds device memory.
        try:
            return self._pack_or_raise(chunk)
        except DeviceMemoryError:
            return None

    def _pack_or_raise(self, chunk: Chunk) -> Block:
        try:
            return self.kernels.pack(
                chunk, self.job.design, self.uploads, finite=self.job.test.refuses_nonfinite
            )
        except DeviceMemoryError as error:
            what = "the matrix" if self.job.source.on_device else f"{chunk.n_genes} genes"
            raise _too_small(what, error) from error

    def _block(self, block: Block) -> bool:
        def compute(genes: slice) -> None:
            self._slice(block, genes)

        for _ in self.spread(compute, self.kernels.tasks(block, self.job.design)):
            pass
        return bool(block.fractional)

    def _slice(self, block: Block, genes: slice) -> None:
        n_genes = genes.stop - genes.start
        found = self._measure(block, genes)
        if found is None and n_genes > 1:
            logger.info("halving a slice of %d genes: too large for the device", n_genes)
            middle = (genes.start + genes.stop) // 2
            self._slice(block, slice(genes.start, middle))
            self._slice(block, slice(middle, genes.stop))
            return
        moments, measured = found or self._measure_or_raise(block, genes, alone=True)
        self._store(moments, measured, block.gene_start + genes.start)

    def _measure(self, block: Block, genes: slice) -> tuple[Moments, Measured] | None:
        try:
            return self._measure_or_raise(block, genes, alone=False)
        except DeviceMemoryError:
            return None

    def _measure_or_raise(
        self, block: Block, genes: slice, *, alone: bool
    ) -> tuple[Moments, Measured]:
        job, kernels = self.job, self.kernels
        whole = slice(0, genes.stop - genes.start)
        try:
            with kernels.part(block, genes, job.design, alone=alone) as part:
                moments = kernels.moments(
                    part, whole, job.design, centred=job.test.needs_m2, expm1=job.expm1
                )
                return moments, job.test.measure(kernels, part, whole, job.design)
        except DeviceMemoryError as error:
            raise _too_small(f"work on {whole.stop} genes", error) from error

    def _store(self, moments: Moments, measured: Measured, start: int) -> None:
        """Judge and store a slice, while the device has another; little at a time, for caches."""
        job, n_genes = self.job, moments.mean.shape[1]
        for genes in gene_tasks(n_genes, job.design.n_groups, n_threads=1):
            some = moments.of(genes)
            statistic, p_value = job.test.judge(
                tuple(array[:, genes] for array in measured), some, job.design
            )
            job.sink.store(
                RangeResult(start + genes.start, some.mean, some.mean_expm1, statistic, p_value)
            )
        job.advance(n_genes)


def _too_small(what: str, error: DeviceMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"The device has too little memory for {what}: {error} Nothing smaller can be tried: give "
        "it more with device_memory=, free memory there (other programs, other arrays), or use "
        "backend='cpu'."
    )
