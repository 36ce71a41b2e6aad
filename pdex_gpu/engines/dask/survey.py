"""The workers of a cluster, and checks that they can do what a call needs."""

from __future__ import annotations

import os
import platform
import uuid
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...backends.base import Device
from ...backends.registry import BackendInfo, describe
from ...errors import ClusterError, MissingDependencyError, OptionError, PdexGpuError, listing
from ...request.options import Settings
from ...sources.formats import SharedPath, is_url, paths_in
from ...stats.two_sample.base import StatisticalTest
from ...utils.install_hints import how_to_install
from ...utils.resources import available_memory, memory_budget
from ..schedule import choose_backend_for
from .worker_state import OPTIONAL, own_versions

if TYPE_CHECKING:
    from distributed import Client

# Share of a worker's Dask memory limit that the tasks of a call may take: the rest is for Python,
# packages and the data that Dask keeps.
_SHARE_OF_LIMIT = 0.6


@dataclass(frozen=True)
class Request:
    """The question that every worker answers.

    Attributes
    ----------
    settings : Settings
    test : StatisticalTest
    path : str, dict of str to str, or None
        The data, if workers open them from files.
    folders : tuple of pathlib.Path
        Folders that must exist and be writable.
    mark : str
        Name of a file in each of these folders.
    on_host : mapping of str to int
        Number of workers per host.
    """

    settings: Settings
    test: StatisticalTest
    path: SharedPath | None
    folders: tuple[Path, ...]
    mark: str
    on_host: Mapping[str, int]


@dataclass(frozen=True)
class WorkerFacts:
    """The properties of a worker.

    Attributes
    ----------
    name : str
        Its address and its host.
    n_threads : int
        Number of tasks that it runs at once.
    budget : int
        Bytes of memory for all of these tasks together.
    backend, device : str
        Where its kernels run.
    devices : tuple of Device
        The same, one by one.
    """

    name: str
    n_threads: int
    budget: int
    backend: str
    device: str
    devices: tuple[Device, ...] = ()


@dataclass(frozen=True)
class Workers:
    """The workers of a cluster at the start of the call."""

    facts: tuple[WorkerFacts, ...]

    @property
    def slots(self) -> int:
        """Return the number of tasks that run at once."""
        return sum(worker.n_threads for worker in self.facts)

    @property
    def tightest(self) -> WorkerFacts:
        """Return the worker with the least memory per task."""
        return min(self.facts, key=lambda worker: worker.budget / worker.n_threads)

    @property
    def backend(self) -> BackendInfo:
        """Return all backends and devices in use, independent of the number of workers."""
        names = " + ".join(sorted({worker.backend for worker in self.facts}))
        texts = " + ".join(sorted({worker.device for worker in self.facts}))
        devices = tuple({device for worker in self.facts for device in worker.devices})
        why = "chosen on the Dask workers"
        return BackendInfo(names, True, why, texts, ("dask",), devices)


def check_packages(client: Client) -> None:
    """Check that the workers have the packages of this process, in the same versions.

    Raises
    ------
    MissingDependencyError
        If a package is missing on some worker.
    ClusterError
        If versions differ.
    """
    wanted = own_versions()
    modules = {"pdex-gpu": "pdex_gpu"}
    packages = {name: modules.get(name, name) for name in wanted if name != "python"}
    found = client.get_versions(check=False, packages=list(packages.values()))
    missing: dict[str, list[str]] = {}
    differing: dict[str, list[str]] = {}
    for address, facts in found["workers"].items():
        if facts is None:  # the worker is gone
            continue
        where = f"{address} on {_host_of(address)}"
        has = {name: facts["packages"].get(module) for name, module in packages.items()}
        has["python"] = ".".join(str(facts["host"]["python"]).split(".")[:2])
        for name, version in has.items():
            if version is None and name in OPTIONAL:
                continue
            if version is None:
                missing.setdefault(name, []).append(where)
            elif version != wanted[name]:
                differing.setdefault(f"{name} {version} (the client has {wanted[name]})", [])
                differing[f"{name} {version} (the client has {wanted[name]})"].append(where)
    if missing:
        raise MissingDependencyError(
            "The Dask workers lack packages: "
            + "; ".join(f"{name} on {listing(where, limit=3)}" for name, where in missing.items())
            + f". Install pdex_gpu {wanted['pdex-gpu']} there, as on the client, with "
            f"{how_to_install('dask')}, and start them again."
        )
    if differing:
        raise ClusterError(
            "The Dask workers have different versions from the client: "
            + "; ".join(f"{what}: {listing(where, limit=3)}" for what, where in differing.items())
            + ". Results could differ from worker to worker: install the same versions "
            "everywhere, for example with one container image."
        )


def survey(
    client: Client,
    settings: Settings,
    test: StatisticalTest,
    path: SharedPath | None,
    folders: tuple[Path, ...],
) -> Workers:
    """Ask every worker for its properties, and whether it can see the data and folders it needs.

    Raises
    ------
    PdexGpuError
        If a worker cannot; the message is that of the first one.
    """
    check_packages(client)
    on_host = Counter(map(_host_of, client.nthreads()))
    mark = f".pdex_gpu-{uuid.uuid4().hex}"
    made: list[Path] = []
    try:
        for folder in dict.fromkeys(folders):
            made.append(folder / mark)
            try:
                made[-1].touch()
            except OSError as error:
                raise ClusterError(
                    f"The shared folder {str(folder)!r} cannot be written to: {error.strerror}. "
                    "Choose another with scratch= that all workers can see."
                ) from error
        request = Request(settings, test, path, tuple(folders), mark, on_host)
        found = client.run(_answer, request, on_error="return")
    finally:
        for file in made:
            file.unlink(missing_ok=True)
    answers = [found[address] for address in sorted(found)]
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    if not answers:
        raise ClusterError("The Dask cluster lost its workers. Start some and call again.")
    return Workers(tuple(answers))


def _host_of(address: str) -> str:
    return address.split("://")[-1].rsplit(":", 1)[0]


def _answer(request: Request, dask_worker: Any) -> WorkerFacts:
    """Return a worker's properties, on that worker; errors begin with its name."""
    name = f"Dask worker {dask_worker.address} on {platform.node()}"
    for path in paths_in(request.path):
        if not is_url(path) and not _exists(path):
            raise ClusterError(
                f"{name} cannot see the data: there is no {path!r} there. Put the data on a file "
                "system that all workers see under the same path, or in object storage."
            )
    for folder in request.folders:
        _check_folder(folder, request.mark, name)
    try:
        backend = choose_backend_for(request.settings, request.test)
        budget = _budget(request, dask_worker)
    except PdexGpuError as error:
        raise type(error)(f"{name}: {error}") from error
    n_threads = 1 if describe(backend.name).has_devices else int(dask_worker.state.nthreads)
    return WorkerFacts(name, n_threads, budget, backend.name, backend.device, backend.devices)


def _exists(path: str | Path) -> bool:
    return os.path.exists(path)


def _check_folder(folder: Path, mark: str, name: str) -> None:
    if not _exists(folder / mark):
        raise ClusterError(
            f"{name} cannot see the shared folder {str(folder)!r}. Rechunked rows and results pass "
            "through it: put the output on a file system that all workers can see, or choose a "
            "folder there with scratch=."
        )
    own = folder / f"{mark}-{uuid.uuid4().hex}"
    try:
        own.touch()
        own.unlink()
    except OSError as error:
        raise ClusterError(
            f"{name} cannot write to the shared folder {str(folder)!r}: {error.strerror}. Grant "
            "write permission, or choose another with scratch=."
        ) from error


def _budget(request: Request, dask_worker: Any) -> int:
    """Return the bytes for a worker's tasks: as requested, within what Dask allows."""
    limit = dask_worker.memory_manager.memory_limit
    here = request.on_host.get(_host_of(dask_worker.address), 1)
    free = int(limit or available_memory() / max(1, here))
    asked = memory_budget(request.settings.execution.memory, free)
    if asked < 1:
        raise OptionError(f"memory={request.settings.execution.memory!r} leaves nothing.")
    return min(asked, int(_SHARE_OF_LIMIT * limit)) if limit else asked
