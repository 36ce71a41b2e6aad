"""A comparison as asked for, and the checks that need no data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import OptionError
from .machine import memory_budget
from .progress import check_progress


@dataclass(frozen=True)
class Settings:
    """A comparison as asked for; see :func:`.api.differential_expression`."""

    groupby: str
    reference: object = "non-targeting"
    groups: Iterable[object] | None = None
    metric: str = "wilcoxon"
    layer: str | None = None
    out: str | os.PathLike[str] | None = None
    force: bool = False
    restart: bool = False
    backend: str = "auto"
    engine: str = "auto"
    memory: str | float | int | None = None
    scratch: str | os.PathLike[str] | None = None
    device: int | None = None
    device_memory: str | float | int | None = None
    n_workers: int | None = None
    n_threads: int | None = None
    gene_chunk_size: int | None = None
    is_log1p: bool | None = None
    exp_post_agg: bool = True
    clip_value: float | None = 20.0
    progress: bool | Callable[[Any], object] = True
    test_options: dict[str, Any] = field(default_factory=dict)
    n_processes: int | None = None  # worker processes, if `engine` is auto and the backend has them


def check_settings(settings: Settings) -> None:
    """Raise OptionError for a value that makes no sense, whatever the data."""
    for name in ("groupby", "metric", "backend", "engine", "layer"):
        value = getattr(settings, name)
        if not isinstance(value, str) and not (name == "layer" and value is None):
            raise OptionError(f"{name}={value!r} must be text, not {type(value).__name__}.")
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
    if settings.scratch is not None:
        _check_scratch(Path(settings.scratch))


def check_count(name: str, value: Any) -> None:
    """Raise OptionError unless `value` is a whole number above 0, or None."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is not None and (not whole or value < 1):
        raise OptionError(f"{name}={value!r} must be a whole number of at least 1, or None.")


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
