"""The options that say where and how a call runs. No result depends on them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from ..backends.options import BackendOptions, unpacked
from ..backends.registry import ENGINES, names
from ..errors import OptionError, shown
from ..utils.atomic_files import is_folder, mode_of, why_not_writable
from ..utils.checks import check_count, check_path, check_text
from ..utils.formats import PROGRAM
from ..utils.options import internal, option
from ..utils.resources import memory_budget
from .engines import DASK, Dask


@dataclass(frozen=True)
class Execution:
    """The options of execution; see :func:`pdex_gpu.differential_expression`.

    `n_processes` is set by the drop-in calls: worker processes, if `engine` is auto and the
    backend has them.
    """

    TITLE: ClassVar = "Where to run"

    backend: str | BackendOptions = option(
        "auto", f'see "{PROGRAM} backends" [auto]', "choice", choices=lambda: ("auto", *names())
    )
    engine: str | Dask = option(
        "auto",
        ", ".join(ENGINES),
        "choice",
        choices=lambda: ("auto", *ENGINES),
    )
    client: Any = option(None, "Dask scheduler, with --engine dask", "text", "ADDRESS")
    memory: str | float | int | None = option(
        None, "memory to use, such as 4GB [half of free memory]", "size", "SIZE"
    )
    scratch: str | os.PathLike[str] | None = option(
        None, "for data larger than memory [temporary folder]", "path", "DIR"
    )
    device: int | Sequence[int] | str | None = option(
        None, "CUDA device numbers [first usable]", "devices", "N,...|all"
    )
    device_memory: str | float | int | None = option(
        None, "memory per device, such as 40GB [90 % of free]", "size", "SIZE"
    )
    n_workers: int | None = option(
        None, "ranges of genes (processes) to run in parallel", "count", "N", names="--workers"
    )
    n_threads: int | None = option(
        None, "threads per range of genes [all available]", "count", "N", names="--threads"
    )
    gene_chunk_size: int | None = option(None, "maximum number of genes per range", "count", "N")
    n_processes: int | None = internal(None)

    def __post_init__(self) -> None:
        self._unpack_backend()
        self._unpack_engine()
        check_text("backend", self.backend)
        check_text("engine", self.engine)
        for name in ("n_workers", "n_threads", "gene_chunk_size"):
            check_count(name, getattr(self, name))
        some = 1 << 40  # only checks that it is a size; free memory is found out later
        memory_budget(self.memory, some)
        memory_budget(self.device_memory, some, option="device_memory")
        if self.client is not None and not self.on_cluster:
            raise OptionError(
                f"client={shown(self.client)} is only valid with engine='dask', but "
                f"engine={self.engine!r} was requested. Pass engine='dask', or leave client out."
            )
        if self.on_cluster and self.n_workers is not None:
            raise OptionError(
                f"n_workers={self.n_workers} is not valid with engine='dask': the cluster "
                "determines the number of workers. Leave it out."
            )
        if self.scratch is not None:
            _check_scratch(check_path("scratch", self.scratch))

    @property
    def on_cluster(self) -> bool:
        """Return whether the workers of a Dask cluster compute."""
        return self.engine == DASK

    def _unpack_backend(self) -> None:
        """Replace a backend given as an object by its name and its options."""
        given = unpacked(self.backend, self.device, self.device_memory)
        for name, value in zip(("backend", "device", "device_memory"), given, strict=True):
            object.__setattr__(self, name, value)

    def _unpack_engine(self) -> None:
        """Replace a Dask cluster given as an object by the engine's name and the client."""
        if not isinstance(self.engine, Dask):
            return
        if self.client is not None:
            raise OptionError(
                f"engine={shown(self.engine)} and client={shown(self.client)} both name a Dask "
                "client. Leave client out."
            )
        object.__setattr__(self, "client", self.engine.client)
        object.__setattr__(self, "engine", DASK)


def _check_scratch(folder: Path) -> None:
    if not is_folder(folder):
        what = "does not exist" if mode_of(folder) is None else "is a file, not a folder"
        raise OptionError(
            f"The scratch folder {shown(str(folder))} {what}. Create it, or pass another folder "
            "as scratch=."
        )
    why = why_not_writable(folder)
    if why is not None:
        raise OptionError(
            f"The scratch folder {str(folder)!r} is not writable ({why}). Pass another folder as "
            "scratch=."
        )
