"""The tasks that run on workers: splitting rows and testing genes; functions pickled by name."""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, TypeVar, cast

import numpy as np

from ...backends.registry import load_engine
from ...errors import DeviceLostError, ScratchError
from ...sinks.base import RangeResult, check_complete, mark_stored
from ...sinks.checkpoint import write_range
from ...sinks.range_file import RangeFile
from ...sources.base import Chunk, CscChunk, Reader, Reading
from ...sources.dask_arrays.blocks import BlockPart
from ...sources.rechunk.ranges import rechunk_block
from ...sources.views.view import in_order
from ...utils.parallel import Map
from ...utils.value_summary import ValueSummary
from ..base import Job, RangeSource
from ..plan import Plan
from .worker_state import OpenRun, Sent, Work, using

logger = logging.getLogger("pdex_gpu")

_Task = TypeVar("_Task", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rows:
    """A block of rows that was split.

    Attributes
    ----------
    entries : numpy.ndarray, shape (n_ranges,), int64
    n_bytes : int
        Bytes read for it.
    damaged : bool
        Whether an earlier call had written it and the file has since been damaged.
    """

    entries: np.ndarray
    n_bytes: int
    damaged: bool = False


@dataclass(frozen=True)
class Genes:
    """A range of genes that was tested.

    Attributes
    ----------
    genes : slice
    summary : ValueSummary
        Summary of the matrix values of these genes.
    n_bytes : int
        Bytes of the data read for them.
    values : numpy.ndarray or None, shape (values, genes), float64
        The results, if not written to a file.
    file : RangeFile or None
    """

    genes: slice
    summary: ValueSummary
    n_bytes: int
    values: np.ndarray | None
    file: RangeFile | None


def _errors_travel(task: _Task) -> _Task:
    """Wrap a task so that causes of its errors that cannot be pickled become notes."""

    @functools.wraps(task)
    def run(*args: Any) -> Any:
        try:
            return task(*args)
        except Exception as error:
            if _can_travel(error):
                raise
            failed = error
        if failed.__cause__ is not None:
            failed.add_note(f"Caused by {failed.__cause__!r}")
        failed.__cause__ = failed.__context__ = None
        raise failed

    return cast(_Task, run)


def _can_travel(error: BaseException | None) -> bool:
    """Return whether an error can be pickled with its chain of causes, as Dask does."""
    from distributed.protocol import pickle

    while error is not None:
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # unpickling calls foreign constructors, which may raise anything
            return False
        error = error.__cause__ or error.__context__
    return True


@_errors_travel
def rechunk_rows(work: Work, sent: Sent | None, rows: slice) -> Rows:
    """Read rows of a matrix from a file, and write them to the shared folder, split."""
    known, damaged = _known(work, rows)
    if known is not None:
        return Rows(known, 0)
    counter = _Counter()
    with using(work, sent) as run:
        blocks = run.source.rows()
        assert blocks is not None  # it is read whole
        arrays = blocks.block(rows, Reading(advance=counter.add))
    return _write(work, rows, arrays, counter.n, damaged)


@_errors_travel
def split_blocks(work: Work, sent: Sent | None, rows: slice, part: BlockPart, *blocks: Any) -> Rows:
    """Write rows of blocks of a dask array to the shared folder, split."""
    known, damaged = _known(work, rows)
    if known is not None:
        return Rows(known, 0)
    assert work.split is not None
    matrix = part.join(blocks)
    arrays = (
        matrix.data,
        matrix.indices.astype(work.split.index_dtype, copy=False),
        matrix.indptr.astype(np.int64, copy=False),
    )
    n_bytes = matrix.shape[0] * matrix.shape[1] * matrix.dtype.itemsize
    return _write(work, rows, arrays, n_bytes, damaged)


def _known(work: Work, rows: slice) -> tuple[np.ndarray | None, bool]:
    """Return the entries of a block written earlier, if any, and whether it has been damaged."""
    assert work.split is not None
    try:
        return work.split.entries(rows), False
    except ScratchError as error:
        logger.info("%s The rows are read again.", error)
        return None, True


def _write(
    work: Work,
    rows: slice,
    arrays: tuple[np.ndarray, np.ndarray, np.ndarray],
    n_bytes: int,
    damaged: bool,
) -> Rows:
    split = work.split
    assert split is not None
    seen = np.zeros(work.n_genes, np.int64)
    block = rechunk_block(split.ranges, rows, arrays, range(split.ranges.n), seen)
    split.write(block, seen)
    return Rows(np.diff(block.bounds), n_bytes, damaged)


@_errors_travel
def test_genes(work: Work, sent: Sent | None, genes: slice) -> Genes:
    """Test a range of genes, read from the matrix or from the rows in the shared folder."""
    with using(work, sent) as run:
        if work.split is None:
            return _test(run, run.source, genes)
        k = work.split.ranges.edges.index(genes.start)
        return _test(run, _Split(run, k), genes)


@_errors_travel
def test_blocks(
    work: Work, sent: Sent | None, genes: slice, part: BlockPart, *blocks: Any
) -> Genes:
    """Test a range of genes from the blocks of a dask array that hold it."""
    with using(work, sent) as run:
        return _test(run, _Blocks(part, blocks, genes, run.order), genes)


def _test(run: OpenRun, source: RangeSource, genes: slice) -> Genes:
    work = run.work
    sink = _OneRange(work, genes)
    counter = _Counter()
    job = Job(
        run.design,
        run.kernels,
        work.analysis,
        Plan((genes.start, genes.stop), 0, 1, run.n_threads),
        lambda _: None,
        source,
        sink,
        Reading(advance=counter.add),
    )
    turn: AbstractContextManager[Any] = run.turn or nullcontext()
    with turn:
        try:
            load_engine(run.engine).run(job)
        except DeviceLostError:
            _begin_anew()
            raise
    if work.checkpoint is None:
        return Genes(genes, sink.summary, counter.n, sink.values, None)
    file = write_range(work.checkpoint, genes, sink.summary, sink.values, work.run, work.note)
    return Genes(genes, sink.summary, counter.n, None, file)


def _begin_anew() -> None:
    """End this process if a nanny restarts it, because a process cannot regain a lost device.

    Dask then gives the task to another worker, as whenever a worker dies.
    """
    from distributed import get_worker

    if get_worker().nanny is None:
        return
    logger.exception("the device was lost: this worker ends, and its nanny starts another")
    os._exit(1)


class _Counter:
    def __init__(self) -> None:
        self.n = 0

    def add(self, n: int) -> None:
        self.n += n


class _OneRange:
    """The results of one range, NaN until stored; see :class:`.sinks.base.RangeSink`."""

    def __init__(self, work: Work, genes: slice) -> None:
        self._fields, self._genes = work.fields, genes
        self.values = np.full((sum(work.fields.values()), genes.stop - genes.start), np.nan)
        self.stored = np.zeros(work.n_genes, np.uint8)
        self.summary = ValueSummary()

    def store(self, result: RangeResult) -> None:
        """See :meth:`.sinks.base.RangeSink.store`."""
        mark_stored(self.stored, result.genes)
        start = self._genes.start
        where = slice(result.genes.start - start, result.genes.stop - start)
        at = 0
        for name, n in self._fields.items():
            self.values[at : at + n, where] = result.values[name]
            at += n

    def commit(self, genes: slice, summary: ValueSummary) -> None:
        """See :meth:`.sinks.base.RangeSink.commit`."""
        check_complete(self.stored[genes])
        self.summary |= summary


class _Split:
    """One range of the rows in the shared folder, as a source of only that range."""

    on_device = False
    description = "rechunked rows in a shared folder"

    def __init__(self, run: OpenRun, k: int) -> None:
        self._run, self._k = run, k

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.sources.base.Source.open`."""
        split, blocks = self._run.work.split, self._run.blocks()
        assert split is not None
        yield _One(
            lambda parallel_map: split.join(self._k, blocks, parallel_map),
            self._run.order,
            reading.parallel_map,
        )


class _Blocks:
    """A range of genes in blocks of a dask array, as a source of only that range."""

    on_device = False
    description = "blocks of a dask array"

    def __init__(
        self, part: BlockPart, blocks: Sequence[Any], genes: slice, order: np.ndarray | None
    ) -> None:
        self._part, self._blocks, self._genes, self._order = part, blocks, genes, order

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.sources.base.Source.open`."""
        yield _One(lambda _: self._chunk(reading), self._order, reading.parallel_map)

    def _chunk(self, reading: Reading) -> CscChunk:
        genes, part = self._genes, self._part
        matrix = part.join(self._blocks)
        reading.advance(matrix.shape[0] * (genes.stop - genes.start) * matrix.dtype.itemsize)
        matrix = matrix[:, genes.start - part.start : genes.stop - part.start].tocsc()
        return CscChunk(
            matrix.data,
            matrix.indices,
            matrix.indptr.astype(np.int64),
            matrix.shape[0],
            genes.start,
        )


class _One:
    """A reader of one range that puts its cells in order."""

    def __init__(
        self, make: Callable[[Map], Chunk], order: np.ndarray | None, parallel_map: Map
    ) -> None:
        self._make, self._order, self._parallel_map = make, order, parallel_map

    def read(self, k: int) -> Chunk:
        """See :meth:`.sources.base.Reader.read`."""
        chunk = self._make(self._parallel_map)
        return chunk if self._order is None else in_order(chunk, self._order)
