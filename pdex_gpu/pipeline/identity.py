"""The identity of a run: everything that may change a bit of its results."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable
from typing import Any

import numpy as np

from .._version import __version__
from ..backends.registry import BackendInfo, compilers
from ..columns.measure import Analysis
from ..design.comparisons.registry import find_comparison
from ..design.contrasts import Design
from ..request.options import Settings
from ..sinks.identity_diff import HASH
from ..sources.dataset import Dataset
from ..utils.versions import version


def run_identity(
    settings: Settings,
    dataset: Dataset,
    design: Design,
    analysis: Analysis,
    backend: BackendInfo,
) -> dict[str, Any]:
    """Return what two runs must have in common for one to resume where the other stopped.

    Memory, threads, workers and engine are left out: results do not depend on them. Nor do they
    depend on which of several equal devices compute, or on how many do.
    """
    groups = None if settings.groups is None else [str(target) for target in design.targets]
    return {
        "version of pdex_gpu": __version__,
        **{f"version of {name}": version(name) for name in ("numpy", "scipy")},
        **{f"version of {name}": number for name, number in compilers(backend.name).items()},
        "machine": platform.machine(),
        "backend": backend.name,
        "device": backend.models,
        "metric": settings.metric,
        "test options": {
            name: repr(value) for name, value in sorted(analysis.test.options.items())
        },
        "columns": list(analysis.columns),
        "confidence": float(settings.confidence),
        "pseudocount": float(settings.pseudocount),
        "fdr": f"{settings.fdr_method}, {settings.fdr_scope}",
        "comparison": find_comparison(settings.comparison).name,
        "guides": settings.guides,
        "strata": settings.strata,
        "on_target": settings.on_target,
        "min_cells": _plain(settings.min_cells),
        "min_fraction": _plain(settings.min_fraction),
        "min_cpm": _plain(settings.min_cpm),
        "cells that filters count": settings.entry.filter_sides,
        "layer": settings.layer,
        "groupby": [settings.group_column, *settings.within_columns],
        "reference": str(design.reference),
        "groups": groups,
        "is_log1p": _plain(settings.is_log1p),
        "exp_post_agg": bool(settings.exp_post_agg),
        "clip_value": _plain(settings.clip_value),
        "spreadsheet_safe": bool(settings.spreadsheet_safe),
        "labels of the cells": _hash(_labels(design), design.codes),
        "names of the genes": _hash(map(str, dataset.genes)),
        **{f"data, {name}": value for name, value in dataset.source.identity().items()},
    }


def _labels(design: Design) -> list[str]:
    within = () if design.within is None else tuple(design.within)
    return [*map(repr, design.targets), *map(repr, design.references), *map(repr, within)]


def _hash(texts: Iterable[str], codes: np.ndarray | None = None) -> str:
    found = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "backslashreplace")
        found.update(len(encoded).to_bytes(8, "little") + encoded)
    if codes is not None:
        found.update(np.ascontiguousarray(codes).data)
    return HASH + found.hexdigest()


def _plain(value: Any) -> Any:
    """Convert a NumPy scalar to the Python number that JSON accepts."""
    return value.item() if isinstance(value, np.generic) else value
