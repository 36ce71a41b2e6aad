"""The settings of a comparison, and the checks that need no data."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from ..backends.options import BackendOptions, unpacked
from ..design.comparisons.base import Comparison
from ..design.comparisons.registry import find_comparison
from ..errors import OptionError, shown
from ..results.schema import check_level_names
from ..sources.allowed import Allowed, check_allow
from ..stats.multitest.correction import Correction
from ..utils.atomic_files import is_folder, mode_of, why_not_writable
from ..utils.checks import (
    check_count,
    check_flag,
    check_fraction,
    check_number,
    check_path,
    check_text,
    kind,
)
from ..utils.progress import check_progress
from ..utils.resources import memory_budget
from .engines import Dask

# Names of entries that give the numbers of other tools.
PDEX_ENTRY, SCANPY_ENTRY = "parallel_differential_expression", "rank_genes_groups"


@dataclass(frozen=True)
class Entry:
    """The public call behind a comparison, as far as it differs from the native one.

    Attributes
    ----------
    name : str
    parameters : tuple of str
        Its parameters, for messages, where their names differ from those of `Settings`.
    takes_nan_policy : bool
        Whether it takes the option `nan_policy` of the test.
    filter_sides : {"pooled", "either"}
        Whether filters count the cells of both sides together, or are met by either side, as in
        pdex 0.3.
    """

    name: str = "differential_expression"
    parameters: tuple[str, ...] = ()
    takes_nan_policy: bool = True
    filter_sides: str = "pooled"


@dataclass(frozen=True)
class Settings:
    """The settings of a comparison; see :func:`.api.differential_expression`."""

    groupby: str | Sequence[str] | None
    reference: object = "non-targeting"
    groups: Iterable[object] | None = None
    comparison: str | Comparison = "reference"
    pairs: Any = None
    guides: str | None = None
    on_target: str | None = None
    strata: str | None = None
    columns: str | Iterable[str] = ()
    confidence: float = 0.95
    pseudocount: float = 1e-9
    fdr_method: str = "benjamini-hochberg"
    fdr_scope: str = "all"
    min_cells: int = 1
    min_fraction: float | None = None
    min_cpm: float | None = None
    metric: str = "wilcoxon"
    layer: str | None = None
    allow: str | Collection[str] = ()
    out: str | os.PathLike[str] | None = None
    force: bool = False
    restart: bool = False
    spreadsheet_safe: bool = False
    backend: str | BackendOptions = "auto"
    engine: Any = "auto"  # the name of an engine; a `Dask` becomes "dask" and its client
    client: Any = None
    memory: str | float | int | None = None
    scratch: str | os.PathLike[str] | None = None
    device: int | Sequence[int] | str | None = None
    device_memory: str | float | int | None = None
    n_workers: int | None = None
    n_threads: int | None = None
    gene_chunk_size: int | None = None
    is_log1p: bool | None = None
    exp_post_agg: bool = True
    clip_value: float | None = 20.0
    progress: bool | Callable[[Any], object] = True
    test_options: dict[str, Any] = field(default_factory=dict)
    entry: Entry = Entry()
    n_processes: int | None = None  # worker processes, if `engine` is auto and the backend has them

    def __post_init__(self) -> None:
        if not isinstance(self.engine, Dask):
            return
        if self.client is not None:
            raise OptionError(
                f"engine={shown(self.engine)} and client={shown(self.client)} both name a Dask "
                "client. Leave client out."
            )
        object.__setattr__(self, "client", self.engine.client)
        object.__setattr__(self, "engine", "dask")

    @property
    def group_column(self) -> str:
        """Return the column of obs with the groups, or its stand-in for messages."""
        if self.groupby is None:
            return str(self.guides)
        return self.groupby if isinstance(self.groupby, str) else self.groupby[0]

    @property
    def within_columns(self) -> tuple[str, ...]:
        """Return the columns of obs within whose levels cells are compared."""
        if self.groupby is None or isinstance(self.groupby, str):
            return ()
        return tuple(self.groupby[1:])

    @property
    def call(self) -> tuple[str, ...]:
        """Return the parameters of the call that was made, for messages."""
        inner = ("test_options", "entry", "n_processes")
        own = self.entry.parameters
        return own or tuple(f.name for f in fields(self) if f.name not in inner)

    @property
    def allowed(self) -> Allowed:
        """Return what may be read from outside the given file."""
        return check_allow(self.allow)

    @property
    def correction(self) -> Correction:
        return Correction(self.fdr_method, self.fdr_scope)


def unpack_backend(settings: Settings) -> Settings:
    """Return settings that name the backend, with the options of a backend given as an object."""
    backend, device, memory = unpacked(settings.backend, settings.device, settings.device_memory)
    return replace(settings, backend=backend, device=device, device_memory=memory)


def check_settings(settings: Settings) -> None:
    """Raise OptionError for a value that makes no sense for any data."""
    optional = ("layer", "on_target", "strata", "guides")
    for name in ("metric", "backend", "engine", *optional):
        check_text(name, getattr(settings, name), may_be_none=name in optional)
    if not isinstance(settings.comparison, Comparison):
        check_text("comparison", settings.comparison)
    if settings.guides is None:
        _check_groupby(settings.groupby)
    elif settings.groupby is not None:
        raise OptionError(
            f"guides={settings.guides!r} and groupby={shown(settings.groupby)} both assign cells "
            "to groups. Pass groupby=None."
        )
    elif settings.on_target is not None:
        raise OptionError(
            "on_target= maps the groups of a column to genes, but guides= has no such column. "
            "Select rows of the result instead."
        )
    _check_comparison(settings)
    settings.correction.check()
    check_allow(settings.allow)
    check_fraction("confidence", settings.confidence)
    if settings.min_fraction is not None:
        check_fraction("min_fraction", settings.min_fraction)
    if settings.min_cpm is not None:
        check_number("min_cpm", settings.min_cpm)
    words = "a number of at least 0"
    if check_number("pseudocount", settings.pseudocount, words) < 0:
        raise OptionError(f"pseudocount={settings.pseudocount!r} must be {words}.")
    check_count("min_cells", settings.min_cells, may_be_none=False)
    about_output = ("force", "restart", "spreadsheet_safe")
    for name in ("exp_post_agg", *about_output):
        check_flag(name, getattr(settings, name))
    for name in ("n_workers", "n_threads", "gene_chunk_size"):
        check_count(name, getattr(settings, name))
    clip = settings.clip_value
    words = "a number above 0, or None for no clipping"
    infinite = isinstance(clip, float) and clip == math.inf
    if clip is not None and not infinite and check_number("clip_value", clip, words) <= 0:
        raise OptionError(f"clip_value={clip!r} must be {words}.")
    check_flag("is_log1p", settings.is_log1p, may_be_none=True)
    some = 1 << 40  # only checks that it is a size; free memory is found out later
    memory_budget(settings.memory, some)
    memory_budget(settings.device_memory, some, option="device_memory")
    check_progress(settings.progress)
    for name in ("out", "scratch"):
        if getattr(settings, name) is not None:
            check_path(name, getattr(settings, name))
    for name in about_output:
        if settings.out is None and getattr(settings, name):
            raise OptionError(f"{name}=True requires an output file. Also pass out=.")
    if settings.client is not None and settings.engine != "dask":
        raise OptionError(
            f"client={shown(settings.client)} is only valid with engine='dask', but "
            f"engine={settings.engine!r} was requested. Pass engine='dask', or leave client out."
        )
    if settings.engine == "dask" and settings.n_workers is not None:
        raise OptionError(
            f"n_workers={settings.n_workers} is not valid with engine='dask': the cluster "
            "determines the number of workers. Leave it out."
        )
    if settings.scratch is not None:
        _check_scratch(check_path("scratch", settings.scratch))


def _check_groupby(groupby: Any) -> None:
    names = [groupby] if isinstance(groupby, str) else groupby
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or not names:
        raise OptionError(
            f"groupby={shown(groupby)} must be text, not {kind(groupby)}: a column of obs, or a "
            "list of columns with that of the groups first."
        )
    if len(set(names)) < len(names):
        raise OptionError(f"groupby={groupby!r} names a column twice.")
    check_level_names(names[1:])


def _check_comparison(settings: Settings) -> None:
    """Refuse combinations that make no sense."""
    comparison = find_comparison(settings.comparison)
    comparison.check(groups=settings.groups, pairs=settings.pairs)
    if settings.strata is not None and settings.strata in (
        settings.group_column,
        *settings.within_columns,
    ):
        raise OptionError(
            f"strata={settings.strata!r} is a column of groupby, so no stratum would contain cells "
            "of both sides. Use another column."
        )


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
