"""Where results come from: what was asked, what ran, on what, in which versions."""

from __future__ import annotations

import platform
from typing import Any

from . import __version__
from .backends.registry import BackendInfo
from .design import Design
from .errors import listing
from .settings import Settings
from .sources.dataset import Dataset
from .stats.base import StatisticalTest
from .versions import compiler, version


def make_provenance(
    settings: Settings,
    dataset: Dataset,
    design: Design,
    test: StatisticalTest,
    backend: BackendInfo,
    engine: str,
    is_log1p: bool,
) -> dict[str, Any]:
    """What the result says of itself, the same for equal calls."""
    return {
        "metric": settings.metric,
        "backend": backend.name,
        "backend_reason": backend.reason,
        "device": backend.device,
        "engine": engine,
        "data": dataset.description,
        "matrix": dataset.source.description,
        "n_cells": dataset.source.n_cells,
        "n_genes": dataset.source.n_genes,
        "n_targets": len(design.targets),
        "groupby": settings.groupby,
        "reference": str(design.reference),
        "groups": "all" if settings.groups is None else listing(design.targets),
        "layer": settings.layer,
        "is_log1p": bool(is_log1p),
        "exp_post_agg": settings.exp_post_agg,
        "clip_value": settings.clip_value,
        "test_options": {k: repr(v) for k, v in test.options.items()},
        "versions": {
            "pdex_gpu": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
            **compiler(backend.name),
        },
    }
