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
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ..backends.contract import Block, Moments, StreamedKernelSet
from ..errors import DeviceMemoryError
from ..pools import Map, pool_map
from ..sinks.base import RangeResult
from ..sources.base import Chunk
from ..sources.split import halves
from ..stats.base import Measured
from .base import Job, gene_tasks, group_moments

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
        reading = replace(job.reading, run=pool_map(uploads), n_threads=plan.n_threads, lazy=True)
        with job.source.open(plan.edges, plan.budget, reading) as reader:
            try:

                def compute(k: int) -> None:
                    job.sink.commit(plan.genes(k), under_way.range(reader.read(k)))

                for _ in pool_map(ranges)(compute, plan.todo):
                    pass
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

    def range(self, chunk: Chunk) -> bool:
        """Compute what is not stored yet of a range; returns whether X is fractional."""
        with self.on_device.beside_others():
            fractional = self._compute(chunk)
        if fractional is not None:
            return fractional
        if chunk.n_genes > 1 and not self.job.source.on_device:
            logger.info("halving a range of %d genes: too large for the device", chunk.n_genes)
            first, second = halves(chunk)
            del chunk
            return self.range(first) | self.range(second)
        with self.on_device.alone():
            return self._compute_or_raise(chunk)

    # The handlers below end before anything is tried again: a traceback holds device memory.

    def _compute(self, chunk: Chunk) -> bool | None:
        try:
            return self._compute_or_raise(chunk)
        except DeviceMemoryError:
            return None

    def _compute_or_raise(self, chunk: Chunk) -> bool:
        try:
            finite = self.job.analysis.test.refuses_nonfinite
            block = self.kernels.pack(chunk, self.job.design, self.uploads, finite=finite)
        except DeviceMemoryError as error:
            what = "the matrix" if self.job.source.on_device else _genes(chunk.n_genes)
            raise _too_small(what, error) from error
        failed: list[DeviceMemoryError] = []

        def compute(genes: slice) -> None:
            if failed:  # the range will be halved
                return
            try:
                self._slice(block, genes)
            except DeviceMemoryError as error:
                failed.append(error)

        for _ in self.spread(compute, self._missing(block)):
            pass
        if failed:
            del failed[1:]  # and the first: what this frame held, a traceback would keep
            raise failed.pop()
        return bool(block.fractional)

    def _missing(self, block: Block) -> list[slice]:
        """Slices of a block that are not stored, as they would be after a first try."""
        found = []
        for genes in self.kernels.tasks(block, self.job.design):
            offset = block.gene_start + genes.start
            stored = self.job.sink.stored[offset : block.gene_start + genes.stop]
            edges = np.flatnonzero(np.diff(stored, prepend=1, append=1))
            found += [slice(a + genes.start, b + genes.start) for a, b in edges.reshape(-1, 2)]
        return found

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

    def _measure(self, block: Block, genes: slice) -> tuple[Moments, list[Measured]] | None:
        try:
            return self._measure_or_raise(block, genes, alone=False)
        except DeviceMemoryError:
            return None

    def _measure_or_raise(
        self, block: Block, genes: slice, *, alone: bool
    ) -> tuple[Moments, list[Measured]]:
        job, kernels = self.job, self.kernels
        whole = slice(0, genes.stop - genes.start)
        try:
            with kernels.part(block, genes, job.design, alone=alone) as part:
                moments = group_moments(job, part, whole)
                return moments, job.analysis.measure(kernels, part, whole, job.design)
        except DeviceMemoryError as error:
            raise _too_small(f"work on {_genes(whole.stop)}", error) from error

    def _store(self, moments: Moments, measured: list[Measured], start: int) -> None:
        """Judge and store a slice, while the device has another; little at a time, for caches."""
        job, n_genes = self.job, moments.mean.shape[1]
        for genes in gene_tasks(n_genes, job.design.n_groups, n_threads=1):
            some = [tuple(array[:, genes] for array in arrays) for arrays in measured]
            values = job.analysis.judge(some, moments.of(genes), job.design)
            job.sink.store(RangeResult(start + genes.start, values))
        job.advance(n_genes)


def _genes(n: int) -> str:
    return "1 gene" if n == 1 else f"{n} genes"


def _too_small(what: str, error: DeviceMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"The device has too little memory for {what}: {str(error).rstrip('.')}. Nothing smaller "
        "can be tried: give it more with device_memory=, free memory there (other programs, other "
        "arrays), or use backend='cpu'."
    )
