"""What a worker needs to know of a run, and what it opens for it once."""

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

from ..analysis import Analysis
from ..backends.contract import KernelSet
from ..backends.registry import load_kernels
from ..design import Design
from ..errors import ClusterError, FileFormatError
from ..machine import cpu_count
from ..opening import design_of, open_screen
from ..schedule import choose_backend_for
from ..settings import Settings
from ..sources.base import Source
from ..sources.dataset import open_dataset
from ..sources.row_split import SplitBlock
from ..sources.view import take_apart
from ..versions import version
from .split_files import SplitFiles

#: Packages whose versions change results, or how tasks and results travel.
PACKAGES = ("pdex-gpu", "numpy", "scipy", "dask", "distributed")
#: Those that only some backends need: compared where a worker has them.
OPTIONAL = ("numba",)

_FEEDING = 8  # threads that feed a device


def own_versions() -> dict[str, str]:
    """Versions that client and workers have to have in common."""
    # Pickled functions and cached kernels differ between minor versions of Python.
    python = ".".join(platform.python_version_tuple()[:2])
    found = {"python": python, **{name: version(name) for name in PACKAGES}}
    for name in OPTIONAL:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


@dataclass(frozen=True)
class Work:
    """A run, as every task carries it: small, whatever the size of the data.

    Attributes
    ----------
    token : str
        Names the run.
    settings : Settings
        Without what only the client needs.
    analysis : Analysis
    path : str or None
        Where workers open the data; None if the matrix comes with the tasks.
    identity : mapping or None
        What the data at the path have to be.
    sorts : bool
        Whether the matrix at the path has lines that are out of order.
    versions : mapping
        Those of the client.
    n_genes : int
    fields : mapping of str to int
        What is kept of each gene, and how many values that is.
    split : SplitFiles or None
        Where rows are split to, if the matrix has to be.
    checkpoint : pathlib.Path or None
        Where results are written, if not returned.
    run : str or None
        See :func:`.sinks.checkpoint.write_range`.
    """

    token: str
    settings: Settings
    analysis: Analysis
    path: str | None
    identity: Mapping[str, Any] | None
    sorts: bool
    versions: Mapping[str, str]
    n_genes: int
    fields: Mapping[str, int]
    split: SplitFiles | None
    checkpoint: Path | None
    run: str | None


@dataclass(frozen=True)
class Sent:
    """What workers cannot read themselves.

    Attributes
    ----------
    design : Design
    source : Source or None
        A matrix in memory.
    order : numpy.ndarray or None
        Cell of the matrix for each cell of the design, where these differ.
    """

    design: Design
    source: Source | None
    order: np.ndarray | None


class OpenRun:
    """A run on a worker: the data opened, the kernels loaded."""

    def __init__(self, work: Work, sent: Sent | None) -> None:
        check_versions(work.versions)
        settings = work.settings
        self.work = work
        self._stack = ExitStack()
        try:
            self.backend = choose_backend_for(settings, work.analysis.test)
            self.kernels: KernelSet = load_kernels(
                self.backend.name, settings.device, settings.device_memory
            )
            on_device = self.backend.engines[0] == "streams"
            self.n_threads = settings.n_threads or (min(_FEEDING, cpu_count()) if on_device else 1)
            by_itself = "serial" if self.n_threads == 1 else "threads"
            self.engine = self.backend.engines[0] if on_device else by_itself
            source = None if sent is None else sent.source
            if work.path is not None:
                # Labels that were sent may be in no file.
                matrix_alone = sent is not None and settings.guides is None
                dataset = self._stack.enter_context(
                    open_dataset(work.path, None, settings.layer, settings.allowed)
                    if matrix_alone
                    else open_screen(work.path, settings)
                )
                source = dataset.source
                _check_same(work, source)
                if work.sorts:
                    source = source.canonical()
            self._source = source
            self.order = sent.order if sent is not None else take_apart(self.source)[1]
            self.design: Design = design_of(dataset, settings) if sent is None else sent.design
            # One range at a time on a device: a range fills it.
            self.turn = threading.Lock() if on_device else None
            self._blocks: list[SplitBlock] | None = None
            self._lock = threading.Lock()
        except BaseException:
            self.close()
            raise

    @property
    def source(self) -> Source:
        """The matrix, where it is not split and does not come with the tasks."""
        assert self._source is not None
        return self._source

    def blocks(self) -> list[SplitBlock]:
        """The split rows, once all are there."""
        assert self.work.split is not None
        with self._lock:
            if self._blocks is None:
                self._blocks = self.work.split.blocks()
            return self._blocks

    def close(self) -> None:
        """Close the data."""
        self._stack.close()


def check_versions(wanted: Mapping[str, str]) -> None:
    """Raise ClusterError unless this process has the versions of the client."""
    own = own_versions()
    differing = [
        f"{name} {own[name]} (the client has {wanted[name]})"
        for name in wanted
        if own.get(name, wanted[name]) != wanted[name]
    ]
    if differing:
        raise ClusterError(
            f"A Dask worker on {platform.node()} has {', '.join(differing)}. Results could differ "
            "from worker to worker: install the same versions everywhere, as with one image."
        )


def _check_same(work: Work, source: Source) -> None:
    found = dict(source.identity())
    differing = [name for name, value in (work.identity or {}).items() if found.get(name) != value]
    if differing:
        raise FileFormatError(
            f"{work.path} is not the same for a Dask worker on {platform.node()} as for the "
            f"client: {', '.join(differing)} differ. Give a path that leads to one file "
            "everywhere."
        )


@dataclass
class _Entry:
    """A run on this worker, and how many tasks are using it."""

    run: OpenRun | None = None
    users: int = 0
    ended: bool = False


_entries: dict[str, _Entry] = {}
_lock = threading.Lock()
_MOST_ENDED = 100  # ended runs that are remembered, for tasks that were under way


@contextmanager
def using(work: Work, sent: Sent | None) -> Iterator[OpenRun]:
    """What this worker has opened for a run: by the first task of the run, for all.

    Raises
    ------
    ClusterError
        The run has ended.
    """
    with _lock:
        entry = _entries.setdefault(work.token, _Entry())
        if entry.ended:
            raise ClusterError(f"The run {work.token} that this task is of has ended.")
        if entry.run is None:
            entry.run = OpenRun(work, sent)
        entry.users += 1
    try:
        yield entry.run
    finally:
        with _lock:
            entry.users -= 1
            _close_if_done(entry)


def close_run(token: str) -> None:
    """Close what was opened for a run once no task uses it; called on every worker at its end."""
    with _lock:
        entry = _entries.setdefault(token, _Entry())
        entry.ended = True
        _close_if_done(entry)
        ended = [name for name, found in _entries.items() if found.ended and found.run is None]
        for name in ended[:-_MOST_ENDED]:
            del _entries[name]


def _close_if_done(entry: _Entry) -> None:
    if entry.ended and not entry.users and entry.run is not None:
        entry.run.close()
        entry.run = None


def n_open() -> int:
    """Runs that this worker has open."""
    with _lock:
        return sum(entry.run is not None for entry in _entries.values())
