"""A comparison as asked for, and the checks that need no data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .comparisons import COMPARISONS
from .correction import Correction
from .errors import OptionError, unknown
from .machine import memory_budget
from .progress import check_progress
from .schema import check_level_names

# Calls whose numbers are others': who asks for a comparison, in `Settings.entry`.
PDEX_ENTRY, SCANPY_ENTRY = "parallel_differential_expression", "rank_genes_groups"


@dataclass(frozen=True)
class Settings:
    """A comparison as asked for; see :func:`.api.differential_expression`."""

    groupby: str | Sequence[str] | None
    reference: object = "non-targeting"
    groups: Iterable[object] | None = None
    comparison: str = "reference"
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
    out: str | os.PathLike[str] | None = None
    force: bool = False
    restart: bool = False
    backend: str = "auto"
    engine: str = "auto"
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
    entry: str = "differential_expression"
    takes_nan_policy: bool = True  # whether the public call has that option of the test
    filter_sides: str = "pooled"  # or "either": min_cpm of one side is enough, as in pdex 0.3
    n_processes: int | None = None  # worker processes, if `engine` is auto and the backend has them

    @property
    def group_column(self) -> str:
        """The column of obs with the groups, or what stands for it in messages."""
        if self.groupby is None:
            return str(self.guides)
        return self.groupby if isinstance(self.groupby, str) else self.groupby[0]

    @property
    def within_columns(self) -> tuple[str, ...]:
        """Columns of obs within whose levels cells are compared."""
        if self.groupby is None or isinstance(self.groupby, str):
            return ()
        return tuple(self.groupby[1:])

    @property
    def correction(self) -> Correction:
        return Correction(self.fdr_method, self.fdr_scope)


def check_settings(settings: Settings) -> None:
    """Raise OptionError for a value that makes no sense, whatever the data."""
    optional = ("layer", "on_target", "strata", "guides")
    for name in ("metric", "backend", "engine", "comparison", *optional):
        value = getattr(settings, name)
        if not isinstance(value, str) and not (name in optional and value is None):
            raise OptionError(f"{name}={value!r} must be text, not {type(value).__name__}.")
    if settings.guides is None:
        _check_groupby(settings.groupby)
    elif settings.groupby is not None:
        raise OptionError(
            f"guides={settings.guides!r} says which cells belong to which group, and so does "
            f"groupby={settings.groupby!r}. Give groupby=None."
        )
    elif settings.on_target is not None:
        raise OptionError(
            "on_target= maps the groups of a column to genes, and guides= has no such column. "
            "Select the rows of the result instead."
        )
    _check_comparison(settings)
    settings.correction.check()
    for name in ("confidence", "min_fraction"):
        _check_fraction(name, getattr(settings, name), may_be_none=name == "min_fraction")
    if settings.min_cpm is not None and not _is_number(settings.min_cpm):
        raise OptionError(f"min_cpm={settings.min_cpm!r} must be a number.")
    if not _is_number(settings.pseudocount) or settings.pseudocount < 0:
        raise OptionError(f"pseudocount={settings.pseudocount!r} must be a number, at least 0.")
    check_count("min_cells", settings.min_cells, may_be_none=False)
    for name in ("exp_post_agg", "force", "restart"):
        value = getattr(settings, name)
        if not isinstance(value, bool | np.bool_):
            raise OptionError(f"{name}={value!r} must be True or False.")
    for name in ("n_workers", "n_threads", "gene_chunk_size"):
        check_count(name, getattr(settings, name))
    clip = settings.clip_value
    if clip is not None and not (isinstance(clip, (int, float, np.number)) and clip > 0):
        raise OptionError(f"clip_value={clip!r} must be a number above 0, or None for no clipping.")
    if settings.is_log1p is not None and not isinstance(settings.is_log1p, bool | np.bool_):
        raise OptionError(f"is_log1p={settings.is_log1p!r} must be True, False or None.")
    memory_budget(settings.memory)
    memory_budget(settings.device_memory, option="device_memory")
    check_progress(settings.progress)
    for name in ("out", "scratch"):
        value = getattr(settings, name)
        if value is not None and not isinstance(value, str | os.PathLike):
            raise OptionError(f"{name}={value!r} must be a path, not {type(value).__name__}.")
    if settings.out is None and (settings.force or settings.restart):
        name = "force" if settings.force else "restart"
        raise OptionError(f"{name}=True is about the file that out= names. Give out=, too.")
    if settings.client is not None and settings.engine != "dask":
        raise OptionError(
            f"client={settings.client!r} is the Dask cluster of engine='dask', but "
            f"engine={settings.engine!r} was asked for. Give engine='dask', or leave client out."
        )
    if settings.engine == "dask" and settings.n_workers is not None:
        raise OptionError(
            f"n_workers={settings.n_workers} cannot be given with engine='dask': the cluster says "
            "how many workers there are. Leave it out."
        )
    if settings.scratch is not None:
        _check_scratch(Path(settings.scratch))


def _is_number(value: Any) -> bool:
    """Whether this is a number, and neither NaN nor infinite."""
    known = isinstance(value, (int, float, np.number)) and not isinstance(value, bool)
    return known and bool(np.isfinite(value))


def _check_fraction(name: str, value: Any, *, may_be_none: bool) -> None:
    if value is None and may_be_none:
        return
    if not _is_number(value) or not 0.0 <= value <= 1.0:
        percent = _is_number(value) and 1.0 < value <= 100.0
        hint = f" For {value} %, give {value / 100:g}." if percent else ""
        raise OptionError(f"{name}={value!r} must be a number between 0 and 1.{hint}")


def _check_groupby(groupby: Any) -> None:
    names = [groupby] if isinstance(groupby, str) else groupby
    listed = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    if not listed or not names:
        raise OptionError(
            f"groupby={groupby!r} must be text, not {type(groupby).__name__}: a column of obs, or "
            "a list of columns, the groups' first."
        )
    if len(set(names)) < len(names):
        raise OptionError(f"groupby={groupby!r} names a column twice.")
    check_level_names(names[1:])


def _check_comparison(settings: Settings) -> None:
    """Refuse combinations that make no sense."""
    asked = settings.comparison
    if asked not in COMPARISONS:
        raise OptionError(unknown("comparison", asked, COMPARISONS))
    if (settings.pairs is not None) != (asked == "pairs"):
        raise OptionError(
            "pairs= goes with comparison='pairs', and only with it: give both, or neither."
        )
    if asked == "pairs" and settings.groups is not None:
        raise OptionError("groups= and pairs= both say what is compared. Give one of them.")
    if settings.strata is not None and settings.strata in (
        settings.group_column,
        *settings.within_columns,
    ):
        raise OptionError(
            f"strata={settings.strata!r} is a column of groupby, so no stratum would hold cells of "
            "both sides. Name another column."
        )


def check_count(name: str, value: Any, *, may_be_none: bool = True) -> None:
    """Raise OptionError unless `value` is a whole number above 0, or None where that may be."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if (value is None and not may_be_none) or (value is not None and (not whole or value < 1)):
        otherwise = ", or None" if may_be_none else ""
        raise OptionError(f"{name}={value!r} must be a whole number of at least 1{otherwise}.")


def _check_scratch(folder: Path) -> None:
    if not folder.is_dir():
        what = "is a file, not a folder" if folder.exists() else "does not exist"
        raise OptionError(
            f"The scratch folder {str(folder)!r} {what}. Create it, or name another with scratch=."
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OptionError(
            f"The scratch folder {str(folder)!r} is not writable. Name another with scratch=."
        )
