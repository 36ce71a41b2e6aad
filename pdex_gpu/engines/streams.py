"""Ranges of genes streamed through devices: read, uploaded and computed concurrently.

While one range is read and uploaded, another is computed, several slices of its genes at once.
Where the device has too little memory, the part that did not fit is halved and tried again. With
several devices, the next free one takes the next range, and the unfinished work of a lost device
goes to the others.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ..backends.contract import DeviceKernels, KernelSet, PackedChunk, StreamedKernelSet
from ..backends.outputs import Moments
from ..columns.inputs import KernelOutput
from ..errors import DeviceLostError, DeviceMemoryError
from ..sinks.base import RangeResult
from ..sources.base import Chunk, Reader, Source
from ..sources.chunk_ops import halves
from ..utils.parallel import Map, pool_map
from ..utils.value_summary import ValueSummary
from .base import Job, RangeSource, gene_tasks, group_moments
from .plan import Resources, Schedule

logger = logging.getLogger("pdex_gpu")

# Devices take the next range when they are free, so none waits long for the slowest at the end.
_RANGES_PER_DEVICE = 8


def schedule(source: Source, kernels: KernelSet, resources: Resources) -> Schedule:
    """Want two ranges on each device, of as many genes as fit there."""
    n_threads = resources.n_threads or resources.processors
    if source.on_device:
        return Schedule(n_threads=n_threads, one_range=True)
    on_each = resources.n_workers or (1 if source.costly_to_cut else 2)
    devices = cast(DeviceKernels, kernels)
    most = devices.most_genes(source, on_each)
    n_devices = len(devices.devices)
    n_workers = on_each * n_devices
    return Schedule(
        n_workers=n_workers,
        n_threads=n_threads,
        gene_chunk_size=min(most, resources.gene_chunk_size or most),
        # One range is read and uploaded while another is computed.
        at_least=_RANGES_PER_DEVICE * n_devices if n_workers > 1 else 1,
    )


def run(job: Job[RangeSource]) -> None:
    """Run every range of the job on the devices of its kernel sets."""
    plan, devices = job.plan, cast(DeviceKernels, job.kernels).devices
    ranges = _Ranges(plan.todo, plan.n_workers)
    with ExitStack() as stack:

        def pool(n_threads: int, name: str) -> Map:
            threads = ThreadPoolExecutor(n_threads, name)
            stack.callback(threads.shutdown, cancel_futures=True)
            return pool_map(threads)

        # Uploads have their own threads, so that they do not queue behind computing, which waits
        # for the device. So does each of several devices: a slow one would hold all threads.
        uploads = pool(plan.n_threads, "pdex_gpu-upload")
        on_each = -(-plan.n_workers // len(devices))
        n_threads = -(-plan.n_threads // len(devices))
        under_way = [
            _Run(
                replace(job, kernels=kernels),
                kernels,
                uploads if len(devices) == 1 else pool(n_threads, "pdex_gpu-upload"),
                pool(on_each * n_threads, "pdex_gpu"),
                _OnDevice(),
            )
            for kernels in devices
        ]
        reading = replace(job.reading, parallel_map=uploads, n_threads=plan.n_threads, lazy=True)
        with job.source.open(plan.edges, plan.budget, reading) as reader:
            workers = ThreadPoolExecutor(on_each * len(devices), "pdex_gpu-range")
            try:
                for done in [
                    workers.submit(_take_ranges, job, one, ranges, reader)
                    for one in under_way * on_each  # every device gets one before any gets two
                ]:
                    done.result()
                ranges.check()
            finally:  # before the source closes while a range is still being read
                ranges.end()
                workers.shutdown()


def _take_ranges(job: Job[RangeSource], under_way: _Run, ranges: _Ranges, reader: Reader) -> None:
    """Compute ranges until none is left or the device is lost."""
    kernels = under_way.kernels
    while (taken := ranges.take(kernels)) is not None:
        k, chunk = taken
        try:
            if chunk is None:
                chunk = reader.read(k)
            job.sink.commit(job.plan.genes(k), under_way.range(chunk))
        except DeviceLostError as error:
            if cast(DeviceKernels, job.kernels).give_up(kernels, error):
                ranges.give_back(k, chunk, kernels)
            else:
                ranges.fail(k, error)
            return
        except BaseException as error:
            ranges.fail(k, error)
            return
        del taken, chunk  # before another is read
        ranges.done()


class _Ranges:
    """The ranges left to compute, and those that came back from a lost device.

    Parameters
    ----------
    todo : iterable of int
        Ranges, in the order in which they are handed out.
    most : int
        How many may be out at once, as each takes host memory.
    """

    def __init__(self, todo: Iterable[int], most: int) -> None:
        self._changed = threading.Condition()
        self._todo = deque(todo)
        self._back: deque[tuple[int, Chunk | None]] = deque()
        self._most = most
        self._n_out = 0  # includes those that came back: their chunks are still held
        self._lost: list[StreamedKernelSet] = []
        self._failed: dict[int, BaseException] = {}
        self._ended = False

    def take(self, kernels: StreamedKernelSet) -> tuple[int, Chunk | None] | None:
        """Return a range, and its chunk if it was already read; None if nothing is left to do.

        Waits while others hold all remaining ranges, as one may come back.
        """

        def no_more() -> bool:
            finished = not self._todo and self._n_out == 0
            return self._ended or finished or any(kernels is one for one in self._lost)

        def some() -> bool:
            return bool(self._back) or (bool(self._todo) and self._n_out < self._most)

        with self._changed:
            self._changed.wait_for(lambda: no_more() or some())
            if no_more():
                return None
            if self._back:
                return self._back.popleft()
            self._n_out += 1
            return self._todo.popleft(), None

    def done(self) -> None:
        """Record that a range is complete."""
        with self._changed:
            self._n_out -= 1
            self._changed.notify_all()

    def give_back(self, k: int, chunk: Chunk | None, lost: StreamedKernelSet) -> None:
        """Hand back a range for others to complete, as this device was lost; it gets no more."""
        with self._changed:
            self._back.append((k, chunk))
            self._lost.append(lost)
            self._changed.notify_all()

    def fail(self, k: int, error: BaseException) -> None:
        """Record that a range cannot be computed; no other is started."""
        with self._changed:
            self._failed[k] = error
            self._ended = True
            self._changed.notify_all()

    def end(self) -> None:
        """Hand out no more ranges."""
        with self._changed:
            self._ended = True
            self._back.clear()
            self._changed.notify_all()

    def check(self) -> None:
        """Raise the error of the first range that failed, if any did."""
        if not self._failed:
            return
        error = self._failed[min(self._failed)]
        self._failed.clear()  # its traceback refers to this frame
        try:
            raise error
        finally:
            del error


class _OnDevice:
    """The ranges on a device. One that does not fit next to others can wait to be alone."""

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
    """A job under way on a device; ranges are split as far as its memory demands."""

    job: Job[RangeSource]
    kernels: StreamedKernelSet
    uploads: Map
    spread: Map
    on_device: _OnDevice

    def range(self, chunk: Chunk) -> ValueSummary:
        """Compute the part of a range that is not stored yet; returns a summary of its values."""
        with self.on_device.beside_others():
            summary = self._compute(chunk)
        if summary is not None:
            return summary
        if chunk.n_genes > 1 and not self.job.source.on_device:
            logger.info("halving a range of %d genes: too large for the device", chunk.n_genes)
            first, second = halves(chunk)
            del chunk
            return self.range(first) | self.range(second)
        with self.on_device.alone():
            return self._compute_or_raise(chunk)

    # The handlers below end before anything is retried, because a traceback holds device memory.

    def _compute(self, chunk: Chunk) -> ValueSummary | None:
        try:
            return self._compute_or_raise(chunk)
        except DeviceMemoryError:
            return None

    def _compute_or_raise(self, chunk: Chunk) -> ValueSummary:
        try:
            finite = self.job.analysis.test.refuses_nan
            block = self.kernels.pack(chunk, self.job.design, self.uploads, finite=finite)
        except DeviceMemoryError as error:
            what = "the matrix" if self.job.source.on_device else _genes(chunk.n_genes)
            raise _too_small(what, error) from error
        failed: list[DeviceMemoryError | DeviceLostError] = []

        def compute(genes: slice) -> None:
            if failed:  # the range will be halved, or go to another device
                return
            try:
                self._slice(block, genes)
            # Slices in work run to their end: what they store must be known before a retry.
            except (DeviceMemoryError, DeviceLostError) as error:
                failed.append(error)

        for _ in self.spread(compute, self._missing(block)):
            pass
        if failed:
            # A lost device has no memory either, so its loss counts first. The list is emptied
            # because a traceback would keep what this frame holds.
            failed.sort(key=lambda error: isinstance(error, DeviceMemoryError))
            del failed[1:]
            raise failed.pop()
        return block.summary

    def _missing(self, block: PackedChunk) -> list[slice]:
        """Return the slices of a block not stored yet; a first try may have stored some."""
        found = []
        for genes in self.kernels.tasks(block, self.job.design):
            offset = block.gene_start + genes.start
            stored = self.job.sink.stored[offset : block.gene_start + genes.stop]
            edges = np.flatnonzero(np.diff(stored, prepend=1, append=1))
            found += [slice(a + genes.start, b + genes.start) for a, b in edges.reshape(-1, 2)]
        return found

    def _slice(self, block: PackedChunk, genes: slice) -> None:
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

    def _measure(
        self, block: PackedChunk, genes: slice
    ) -> tuple[Moments, list[KernelOutput]] | None:
        try:
            return self._measure_or_raise(block, genes, alone=False)
        except DeviceMemoryError:
            return None

    def _measure_or_raise(
        self, block: PackedChunk, genes: slice, *, alone: bool
    ) -> tuple[Moments, list[KernelOutput]]:
        job, kernels = self.job, self.kernels
        whole = slice(0, genes.stop - genes.start)
        try:
            with kernels.part(block, genes, job.design, alone=alone) as part:
                moments = group_moments(job, part, whole, block.summary)
                return moments, job.analysis.measure(kernels, part, whole, job.design)
        except DeviceMemoryError as error:
            raise _too_small(f"work on {_genes(whole.stop)}", error) from error

    def _store(self, moments: Moments, measured: list[KernelOutput], start: int) -> None:
        """Evaluate and store a slice, in cache-sized pieces, while the device computes another."""
        job, n_genes = self.job, moments.mean.shape[1]
        for genes in gene_tasks(n_genes, job.design.n_groups, n_threads=1):
            some = [output.of(genes) for output in measured]
            values = job.analysis.evaluate(some, moments.of(genes), job.design)
            job.sink.store(RangeResult(start + genes.start, values))
        job.advance(n_genes)


def _genes(n: int) -> str:
    return "1 gene" if n == 1 else f"{n} genes"


def _too_small(what: str, error: DeviceMemoryError) -> DeviceMemoryError:
    return DeviceMemoryError(
        f"The device has too little memory for {what}: {str(error).rstrip('.')}. The work cannot "
        "be split further. Raise device_memory=, free memory on the device (other programs, other "
        "arrays), or use backend='cpu'."
    )
