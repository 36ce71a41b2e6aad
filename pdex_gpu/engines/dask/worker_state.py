"""The description of a run that workers receive, and what they open for it once."""

from __future__ import annotations

import platform
import threading
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np

from ...backends.contract import KernelSet
from ...backends.registry import describe, load_kernels
from ...columns.measure import Analysis
from ...design.contrasts import Design
from ...errors import ClusterError, FileFormatError, listing
from ...request.options import Settings
from ...request.screen import design_of, open_matrix, open_screen
from ...sources.base import Source
from ...sources.formats import SharedPath, paths_in
from ...sources.rechunk.ranges import RechunkedBlock
from ...sources.views.view import reordered
from ...utils.resources import cpu_count
from ...utils.versions import version
from ..schedule import choose_backend_for
from .split_files import SplitFiles

#: Packages whose versions affect results, or the transfer of tasks and results.
PACKAGES = ("pdex-gpu", "numpy", "scipy", "dask", "distributed")
#: Packages that only some backends need, compared where a worker has them.
OPTIONAL = ("numba",)

_FEEDING = 8  # threads that feed a device


def own_versions() -> dict[str, str]:
    """Return the versions that client and workers must have in common."""
    # Pickled functions and cached kernels differ between minor versions of Python.
    python = ".".join(platform.python_version_tuple()[:2])
    found = {"python": python, **{name: version(name) for name in PACKAGES}}
    for name in OPTIONAL:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Work:
    """The description of a run that every task carries: small for data of any size.

    Attributes
    ----------
    token : str
        Identifies the run.
    settings : Settings
        Without the parts that only the client needs.
    analysis : Analysis
    path : str, dict of str to str, or None
        Where workers open the data; None if the matrix comes with the tasks.
    identity : mapping or None
        Expected identity of the data at the path.
    sorts : bool
        Whether the matrix at the path has lines that are out of order.
    versions : mapping
        Versions that the client has.
    n_genes : int
    fields : mapping of str to int
        Number of values per gene, by result field.
    split : SplitFiles or None
        Where rechunked rows are written, if the matrix must be split.
    checkpoint : pathlib.Path or None
        Where results are written, if they are not returned.
    run, note : str
        For the checkpoint; see :func:`.sinks.checkpoint.write_range`.
    """

    token: str
    settings: Settings
    analysis: Analysis
    path: SharedPath | None
    identity: Mapping[str, Any] | None
    sorts: bool
    versions: Mapping[str, str]
    n_genes: int
    fields: Mapping[str, int]
    split: SplitFiles | None
    checkpoint: Path | None
    run: str
    note: str


@dataclass(frozen=True)
class Sent:
    """Data of a run that workers cannot read themselves.

    Attributes
    ----------
    design : Design
    source : Source or None
        A matrix in memory.
    order : numpy.ndarray or None
        The matrix cell of each cell of the design, if their orders differ.
    cells : numpy.ndarray or None
        Cells of the data in the order of the design, if it is not that of their labels.
    """

    design: Design
    source: Source | None
    order: np.ndarray | None
    cells: np.ndarray | None


class OpenRun:
    """A run on a worker, with data opened and kernels loaded."""

    def __init__(self, work: Work, sent: Sent | None) -> None:
        check_versions(work.versions)
        settings = work.settings
        self.work = work
        self._stack = ExitStack()
        try:
            self.backend = choose_backend_for(settings, work.analysis.test)
            self.kernels: KernelSet = load_kernels(
                self.backend.name, settings.execution.device, settings.execution.device_memory
            )
            on_device = describe(self.backend.name).has_devices
            self.n_threads = settings.execution.n_threads or (
                min(_FEEDING, cpu_count()) if on_device else 1
            )
            by_itself = "serial" if self.n_threads == 1 else "threads"
            self.engine = self.backend.engines[0] if on_device else by_itself
            source = None if sent is None else sent.source
            if work.path is not None:
                # The file may lack the labels that were sent.
                matrix_alone = sent is not None and not settings.comparison.groups_overlap
                dataset = self._stack.enter_context(
                    open_matrix(work.path, settings, None)
                    if matrix_alone
                    else open_screen(work.path, settings)
                )
                source = dataset.source
                if sent is not None and sent.cells is not None:
                    source = reordered(source, sent.cells)
                _check_same(work, source)
                if work.sorts:
                    source = source.canonical()
            self._source = source
            self.order = sent.order if sent is not None else self.source.take_apart()[1]
            self.design: Design = design_of(dataset, settings) if sent is None else sent.design
            # One range at a time on a device, as a range fills it.
            self.turn = threading.Lock() if on_device else None
            self._blocks: list[RechunkedBlock] | None = None
            self._lock = threading.Lock()
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Source:
        """Return the matrix, where it is not split and does not come with the tasks."""
        assert self._source is not None
        return self._source

    def blocks(self) -> list[RechunkedBlock]:
        """Return the rechunked rows, once all are written."""
        assert self.work.split is not None
        with self._lock:
            if self._blocks is None:
                self._blocks = self.work.split.blocks()
            return self._blocks

    def close(self) -> None:
        """Close the data."""
        self._stack.close()


def check_versions(wanted: Mapping[str, str]) -> None:
    """Raise ClusterError unless this process has the same versions as the client."""
    own = own_versions()
    differing = [
        f"{name} {own[name]} (the client has {wanted[name]})"
        for name in wanted
        if own.get(name, wanted[name]) != wanted[name]
    ]
    if differing:
        raise ClusterError(
            f"A Dask worker on {platform.node()} has {', '.join(differing)}. Results could differ "
            "from worker to worker: install the same versions everywhere, for example with one "
            "container image."
        )


def _told(path: SharedPath | None) -> str:
    """Return where the data are, for messages."""
    paths = paths_in(path)
    return paths[0] if len(paths) == 1 else listing(paths, limit=3)


def _check_same(work: Work, source: Source) -> None:
    found = dict(source.identity())
    differing = [name for name, value in (work.identity or {}).items() if found.get(name) != value]
    if differing:
        raise FileFormatError(
            f"{_told(work.path)} is not the same for a Dask worker on "
            f"{platform.node()} as for the client: {', '.join(differing)} differ. Pass a path that "
            "leads to the same file everywhere."
        )


@dataclass
class _Entry:
    """A run on this worker, and the number of tasks that use it."""

    run: OpenRun | None = None
    users: int = 0
    ended: bool = False


_entries: dict[str, _Entry] = {}
_lock = threading.Lock()
_MOST_ENDED = 100  # ended runs to remember, for tasks that were still under way


@contextmanager
def using(work: Work, sent: Sent | None) -> Iterator[OpenRun]:
    """Yield the open run, which the first task of the run opens for all.

    Raises
    ------
    ClusterError
        If the run has ended.
    """
    with _lock:
        entry = _entries.setdefault(work.token, _Entry())
        if entry.ended:
            raise ClusterError(f"The run {work.token} that this task belongs to has ended.")
        if entry.run is None:
            entry.run = OpenRun(work, sent)
        entry.users += 1
    try:
        yield entry.run
    finally:
        with _lock:
            entry.users -= 1
            _close_if_done(entry)


def close_run(token: str) -> int:
    """End a run on this worker, and close its data once no task uses them.

    The client calls this on every worker when the run ends.

    Returns
    -------
    int
        Number of tasks of the run that are still running; no further one will start.
    """
    with _lock:
        entry = _entries.setdefault(token, _Entry())
        entry.ended = True
        _close_if_done(entry)
        ended = [name for name, found in _entries.items() if found.ended and found.run is None]
        for name in ended[:-_MOST_ENDED]:
            del _entries[name]
        return entry.users


def _close_if_done(entry: _Entry) -> None:
    if entry.ended and not entry.users and entry.run is not None:
        entry.run.close()
        entry.run = None
