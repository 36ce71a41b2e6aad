"""A run on a Dask cluster: submitting tasks and collecting their results."""

from __future__ import annotations

import hashlib
import itertools
import pickle
import tempfile
import time
import uuid
import warnings
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ...backends.contract import KernelSet
from ...backends.registry import BackendInfo
from ...errors import (
    ClusterError,
    DamagedCheckpointWarning,
    MemoryBudgetError,
    ScratchError,
    UnsupportedDataError,
    WorkerError,
    warn,
)
from ...request.choosing import names_for_workers
from ...request.options import Settings
from ...sinks.base import RangeResult, Sink
from ...sinks.checkpoint import Checkpoint
from ...sinks.checkpoint_sink import CheckpointSink
from ...sources.base import LazyBlocks, RowBlocks, Source, UnevenError
from ...sources.dataset import Dataset
from ...sources.formats import SharedPath, shared_path, shares_labels
from ...sources.rechunk.ranges import Ranges
from ...sources.rechunk.store import COPIES
from ...stats.two_sample.base import StatisticalTest
from ...utils.atomic_files import private_umask
from ...utils.leftovers import temporary_folder
from ...utils.parallel import Map
from ..base import Job
from ..memory_model import MemoryModel
from ..plan import RANGES_PER_WORKER, Plan, Schedule, leave_out, make_plan
from ..schedule import gene_chunk_size
from . import tasks
from .split_files import SplitFiles, SplitFolder
from .survey import Workers, survey
from .worker_state import Sent, Work, close_run, own_versions

if TYPE_CHECKING:
    from distributed import Client, Future

#: Largest matrix in memory, in bytes of all its arrays, that is sent to workers.
MOST_SENT = 100_000_000
_MOST_SETTINGS = 20_000  # bytes
# How rows are cut into blocks: choices. Large blocks make few files. Each slot gets several, so
# that none waits long for the last. A block takes half of the memory of a task, which decodes it.
_BLOCK = 1 << 24  # maximum entries in a block of rows
_SMALLEST_BLOCK = 1 << 16
_BLOCKS_PER_SLOT = 4
_SHARE_FOR_BLOCKS = 0.5
_PATIENCE = 5.0  # seconds, with tasks that cannot be cancelled


@dataclass(frozen=True)
class _Data:
    """The way in which workers get the data.

    Attributes
    ----------
    path : str, dict of str to str, or None
        Where workers open the data; see :meth:`.formats.FormatCode.shared_path`.
    labels : bool
        Whether workers read from there which cells are compared; otherwise the design is sent.
    blocks : LazyBlocks or None
        The blocks of a dask array, which workers receive.
    """

    path: SharedPath | None
    labels: bool
    blocks: LazyBlocks | None


class Cluster:
    """Runs ranges on the workers of a cluster; see :class:`.executor.Executor`.

    Parameters
    ----------
    client : distributed.Client
    settings : Settings
    kernels : KernelSet
        Adjusts p-values in this process.
    on_close : contextlib.ExitStack
        Closed with the executor.
    """

    engine = "dask"

    def __init__(
        self, client: Client, settings: Settings, kernels: KernelSet, on_close: ExitStack
    ) -> None:
        self.client = client
        self.settings = settings
        self.kernels = kernels
        self._stack = on_close
        self.workers: Workers | None = None
        self._split: SplitFolder | None = None
        self._split_edges: tuple[int, ...] = ()
        self._data: _Data | None = None
        self._task_settings: Settings | None = None  # what tasks carry of the settings
        self._parent: Path | None = None  # folder for rechunked rows, if not the checkpoint's

    def close(self) -> None:
        """Remove the own folder, if there is one, and the client, if it was made for this call."""
        self._stack.close()

    @property
    def backend(self) -> BackendInfo:
        """Return the backend that the workers compute on."""
        assert self.workers is not None
        return self.workers.backend

    def prepare(
        self, data: Any, dataset: Dataset, settings: Settings, test: StatisticalTest
    ) -> None:
        """Check that workers can get the data, and survey the workers.

        Raises
        ------
        UnsupportedDataError
            If only this process can read the data.
        PdexGpuError
            See :func:`.survey.survey`.
        """
        self._data = _how(data, dataset.source)
        folders = _shared_folders(settings, dataset.source)
        comparison = settings.comparison.chosen  # workers need not have registered it
        genes = names_for_workers(dataset, settings.data)
        light = settings.without_client().changed(comparison=comparison, genes=genes)
        if len(pickle.dumps(light)) > _MOST_SETTINGS:  # every task carries them
            light = light.changed(comparison=comparison.without_labels(), groups=None, pairs=None)
            self._data = replace(self._data, labels=False)
        self._task_settings = light
        with _lost_told(self.client, None):
            self.workers = survey(self.client, self._task_settings, test, self._data.path, folders)
        if dataset.source.read_whole and (
            settings.output.out is None or settings.execution.scratch is not None
        ):
            if settings.output.out is None:
                self._parent = self._own_folder(folders[-1]) / "split"
            else:  # kept with the checkpoint, for a call that resumes it
                out = str(Path(settings.output.out).absolute())
                name = hashlib.sha256(out.encode()).hexdigest()[:16]
                self._parent = folders[-1] / f"pdex_gpu-{name}"

    def _own_folder(self, scratch: Path) -> Path:
        try:
            own = self._stack.enter_context(temporary_folder(scratch, "pdex_gpu-split-"))
            own.chmod(0o777 & ~private_umask() | 0o700)  # workers may run as another user
            return own
        except OSError as error:
            raise ScratchError(
                f"The shared folder {str(scratch)!r} cannot be written to: {error.strerror}. With "
                "scratch=, choose a folder that this process and all workers can write to."
            ) from error

    def use(self, checkpoint: Checkpoint | None) -> None:
        """Keep rechunked rows with a checkpoint, if there is one."""
        parent = self._parent
        if parent is None and checkpoint is not None:
            parent = checkpoint.split_folder
        if parent is not None:
            self._split = SplitFolder(parent, {} if checkpoint is None else checkpoint.identity)

    def plan(
        self,
        source: Source,
        n_groups: int,
        sink: Sink,
        budget: int,
        parallel_map: Map,
        *,
        measured: int = 0,
    ) -> Plan:
        """Plan the ranges of genes that the sink lacks, in sizes that the tightest worker can hold.

        Where an earlier call split the rows, its ranges are reused.
        """
        assert self.workers is not None
        tightest, settings = self.workers.tightest, self.settings
        schedule = Schedule(
            n_workers=1,
            n_threads=settings.execution.n_threads or 1,
            gene_chunk_size=gene_chunk_size(settings, n_groups),
            at_least=RANGES_PER_WORKER * self.workers.slots,
            split_elsewhere=source.read_whole,
        )
        try:
            plan = make_plan(
                MemoryModel.of(source, n_groups, self.kernels.packed_bytes, measured),
                schedule,
                tightest.budget // tightest.n_threads,
                parallel_map=parallel_map,
            )
        except MemoryBudgetError as error:
            raise MemoryBudgetError(
                f"{tightest.name}, with {tightest.n_threads} tasks at once, has too little memory "
                f"for one range of genes. Each task gets a share of {tightest.budget:,} bytes: "
                f"{error} Or start workers with more memory, or with fewer threads."
            ) from error
        found = leave_out(plan, sink.stored)
        self._split_edges = found.edges
        before = None if self._split is None else self._split.edges()
        if before is not None and source.read_whole and _rows_of(source).counted is None:
            again = leave_out(replace(plan, edges=before), sink.stored)
            kept = set(itertools.pairwise(before))
            if all((again.edges[k], again.edges[k + 1]) in kept for k in again.todo):
                found, self._split_edges = again, before
        return replace(found, n_workers=self.workers.slots)

    def discard(self) -> None:
        """Remove the rechunked rows."""
        if self._split is not None:
            self._split.remove()

    def run(self, job: Job[Source]) -> None:
        """Run every range that the job's plan has to do."""
        assert self._data is not None
        assert self._task_settings is not None
        source, plan = job.source, job.plan
        if not plan.todo:
            return
        checkpoint = job.sink.checkpoint if isinstance(job.sink, CheckpointSink) else None
        split = self._split_files(source)
        sent = _sent(job, self._data)
        work = Work(
            token=uuid.uuid4().hex[:16],
            settings=self._task_settings,
            analysis=job.analysis,
            path=self._data.path,
            identity=None if self._data.path is None else dict(source.identity()),
            sorts=source.sorts,
            versions=own_versions(),
            n_genes=source.n_genes,
            fields=job.analysis.fields(job.design),
            split=split,
            checkpoint=None if checkpoint is None else checkpoint.folder.absolute(),
            run="" if checkpoint is None else checkpoint.run,
            note="" if checkpoint is None else checkpoint.note,
        )
        futures = _Futures(self.client, work)
        try:
            with _lost_told(self.client, checkpoint):
                if sent is not None:
                    futures.send(sent)
                if split is not None:
                    self._rechunk_rows(job, work, futures)
                self._test(job, work, futures)
        finally:
            futures.cancel()
            self._close(work.token)

    def _close(self, token: str) -> None:
        """End a run on all workers; wait a little for running tasks, which may write files."""
        until = time.monotonic() + _PATIENCE
        with suppress(Exception):  # the scheduler, or a worker, may be gone
            while any(self.client.run(close_run, token, on_error="ignore").values()):
                if time.monotonic() > until:
                    break
                time.sleep(0.05)

    def _split_files(self, source: Source) -> SplitFiles | None:
        if not source.read_whole:
            return None
        assert self._split is not None
        rows = _rows_of(source)
        folder = self._split.begin(self._split_edges).absolute()
        ranges = Ranges.of(self._split_edges, source.n_genes, rows.index_dtype)
        return SplitFiles(folder, ranges, rows.n_cells, rows.dtype, rows.index_dtype)

    def _rechunk_rows(self, job: Job[Source], work: Work, futures: _Futures) -> None:
        """Run the first stage: write all rows, block by block, to the shared folder."""
        assert self.workers is not None
        assert self._data is not None
        assert self._split is not None
        assert work.split is not None
        rows = _rows_of(job.source)
        tightest = self.workers.tightest
        room = _SHARE_FOR_BLOCKS * tightest.budget / tightest.n_threads
        most = int(room / (COPIES * rows.bytes_per_entry))
        even = rows.nnz // (_BLOCKS_PER_SLOT * self.workers.slots)
        most = max(_SMALLEST_BLOCK, min(_BLOCK, most))
        length = max(_SMALLEST_BLOCK, min(most, even))
        parts = self._split.rows(work.split.folder, most, lambda: rows.cut(length))
        if self._data.blocks is None:
            given = futures.submit("pdex_gpu-rechunk-rows", tasks.rechunk_rows, parts)
        else:
            every = slice(0, job.source.n_genes)
            blocks = [(part, *self._data.blocks.part(part, every)) for part in parts]
            given = futures.compute("pdex_gpu-rechunk-rows", tasks.split_blocks, blocks)
        entries = np.zeros(work.split.ranges.n, np.int64)
        n_damaged = 0
        for done in futures.results(given):
            entries += done.entries
            n_damaged += done.damaged
            job.reading.advance(done.n_bytes)
        if n_damaged:
            warn(
                f"This checkpoint was damaged: {n_damaged:,} of {len(parts):,} blocks of cells "
                f"were read again. Their files in {str(work.split.folder)!r} were changed or "
                "truncated after pdex-gpu wrote them.",
                DamagedCheckpointWarning,
            )
        most_entries = job.reading.most_entries
        if most_entries is None or rows.counted is not None:
            return
        if (entries[np.diff(self._split_edges) > 1] > most_entries).any():
            rows.counted = work.split.seen(job.source.n_genes)
            raise UnevenError("ranges of genes are larger than was estimated")

    def _test(self, job: Job[Source], work: Work, futures: _Futures) -> None:
        """Test the ranges of genes, and store each result as it arrives."""
        assert self._data is not None
        ranges = [job.plan.genes(k) for k in job.plan.todo]
        if self._data.blocks is None or work.split is not None:
            given = futures.submit("pdex_gpu-test-genes", tasks.test_genes, ranges)
        else:
            every = slice(0, self._data.blocks.n_cells)
            blocks = [(genes, *self._data.blocks.part(every, genes)) for genes in ranges]
            given = futures.compute("pdex_gpu-test-genes", tasks.test_blocks, blocks)
        for done in futures.results(given):
            job.reading.advance(done.n_bytes if work.split is None else 0)
            if done.file is not None:
                assert isinstance(job.sink, CheckpointSink)
                job.sink.adopt(done.file)
            else:
                job.sink.store(RangeResult(done.genes.start, _by_field(work, done.values)))
                job.sink.commit(done.genes, done.summary)
            job.advance(done.genes.stop - done.genes.start)


def _by_field(work: Work, values: np.ndarray) -> dict[str, np.ndarray]:
    ends = np.cumsum(list(work.fields.values()))[:-1]
    return dict(zip(work.fields, np.split(values, ends), strict=True))


class _Futures:
    """The submitted tasks, and the data sent along with each of them."""

    def __init__(self, client: Client, work: Work) -> None:
        self._client, self._work = client, work
        self._sent: Future | None = None
        self._given: list[Future] = []

    def send(self, sent: Sent) -> None:
        """Send data that workers cannot read, as a task's result, which Dask recomputes if lost."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            self._sent = self._client.submit(
                _as_it_is, sent, key=f"pdex_gpu-labels-{self._work.token}"
            )
        self._given.append(self._sent)

    def submit(self, name: str, function: Any, items: Iterable[slice]) -> list[Future]:
        """Submit one task per slice of rows or genes."""
        given = [
            self._client.submit(
                function, self._work, self._sent, item, key=f"{name}-{self._work.token}-{i}"
            )
            for i, item in enumerate(items)
        ]
        self._given += given
        return given

    def compute(
        self, name: str, function: Any, items: Iterable[tuple[slice, Any, list[Any]]]
    ) -> list[Future]:
        """Submit one task per slice of rows or genes, each with blocks of a dask array."""
        from dask import delayed

        task = delayed(function, traverse=False)
        lines = [
            task(self._work, self._sent, item, part, *blocks,
                 dask_key_name=f"{name}-{self._work.token}-{i}")
            for i, (item, part, blocks) in enumerate(items)
        ]  # fmt: skip
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Sending large graph", UserWarning)
            given: list[Future] = self._client.compute(lines)
        self._given += given
        return given

    def results(self, given: list[Future]) -> Iterator[Any]:
        """Yield results as they arrive; raise the first error, as later ones add nothing."""
        from distributed import as_completed

        for future in as_completed(given):
            yield future.result()
            future.release()

    def cancel(self) -> None:
        """Cancel all tasks, in any state."""
        with suppress(Exception):  # the scheduler may be gone
            self._client.cancel(self._given)
        self._given.clear()


def _as_it_is(sent: Sent) -> Sent:
    return sent


@contextmanager
def _lost_told(client: Client, checkpoint: Checkpoint | None) -> Iterator[None]:
    """Turn Dask's exceptions for dead workers or a lost scheduler into clear errors."""
    from distributed import KilledWorker
    from distributed.comm import CommClosedError

    address = client.scheduler.address if client.scheduler is not None else "its address"
    try:
        yield
    except KilledWorker as error:
        raise WorkerError(
            "Dask workers died repeatedly on one task, the last of them "
            f"{error.last_worker.address} (killed, or out of memory: Dask ends a worker at 95 % of "
            "its memory limit). Give the workers more memory, or lower memory=. Their logs say "
            "more."
        ) from error
    except (CancelledError, CommClosedError, OSError) as error:
        told = isinstance(error, OSError) and not isinstance(error, CommClosedError)
        if told and client.status == "running":
            raise
        raise ClusterError(
            f"The Dask scheduler at {address} was lost, or tasks were cancelled there: "
            f"{type(error).__name__}. Start a cluster and call again"
            + (": completed work is kept." if checkpoint is not None else ".")
        ) from error


def _how(data: Any, source: Source) -> _Data:
    """Return how workers get the data; raise UnsupportedDataError if they cannot."""
    path = shared_path(data)
    if path is not None and shares_labels(data):
        return _Data(path, True, None)
    description = source.description
    source, order = source.take_apart()
    if source.blocks is not None:
        return _Data(None, False, source.blocks)
    if path is not None and source.reopens and order is None:
        return _Data(path, False, None)
    state = source.state()
    if state is not None:
        n_bytes = sum(array.nbytes for array in state.arrays.values())
        if n_bytes <= MOST_SENT:
            return _Data(None, False, None)
        raise UnsupportedDataError(
            f"engine='dask' cannot send a matrix of {n_bytes:,} bytes ({source.description}) to "
            f"its workers; at most {MOST_SENT:,} can be sent. Write it to a file that all workers "
            "can see (adata.write_h5ad), and pass its path."
        )
    raise UnsupportedDataError(
        f"engine='dask' cannot send its workers a {description} that this process has open. Pass "
        "the path of the file or store (write a selection to a file of its own first)."
    )


def _rows_of(source: Source) -> RowBlocks:
    """Return the rows of a source with ``read_whole``."""
    rows = source.rows()
    assert rows is not None
    return rows


def _sent(job: Job[Source], data: _Data) -> Sent | None:
    if data.labels and job.cells is None:
        return None
    in_memory = data.path is None and data.blocks is None
    _, order = job.source.take_apart()
    return Sent(job.design, job.source if in_memory else None, order, job.cells)


def _shared_folders(settings: Settings, source: Source) -> tuple[Path, ...]:
    """Return the folders that workers write to: the output's, and the one for rechunked rows."""
    folders = []
    if settings.output.out is not None:
        folders.append(Path(settings.output.out).absolute().parent)
    if source.read_whole and (
        settings.execution.scratch is not None or settings.output.out is None
    ):
        folder = (
            tempfile.gettempdir()
            if settings.execution.scratch is None
            else settings.execution.scratch
        )
        folders.append(Path(folder).absolute())
    return tuple(folders)
