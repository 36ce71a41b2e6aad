"""Where results come from: what was asked, what ran, on what, in which versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from . import __version__
from .analysis import Analysis
from .backends.registry import BackendInfo
from .design import Design
from .errors import listing
from .on_target import OWN_GENES, recorded
from .settings import Settings
from .sources.dataset import Dataset
from .versions import compiler, version


def make_provenance(
    settings: Settings,
    dataset: Dataset,
    design: Design,
    analysis: Analysis,
    backend: BackendInfo,
    engine: str,
    is_log1p: bool,
    removed: Mapping[str, int],
    own_gene: np.ndarray | None = None,
) -> dict[str, Any]:
    """What the result says of itself, the same for equal calls."""
    own = {}
    if own_gene is not None:
        own[OWN_GENES] = recorded(design.targets, own_gene, dataset.genes)
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
        "comparison": settings.comparison,
        "reference": " | ".join(map(str, dict.fromkeys(design.references))),
        "groups": "all" if settings.groups is None else listing(design.targets),
        "layer": settings.layer,
        "is_log1p": bool(is_log1p),
        "exp_post_agg": settings.exp_post_agg,
        "clip_value": settings.clip_value,
        "guides": settings.guides,
        "strata": settings.strata,
        "on_target": settings.on_target,
        **own,
        "columns": list(analysis.columns),
        "confidence": settings.confidence,
        "pseudocount": settings.pseudocount,
        "fdr_method": settings.fdr_method,
        "fdr_scope": settings.fdr_scope,
        "min_cells": settings.min_cells,
        "min_fraction": settings.min_fraction,
        "min_cpm": settings.min_cpm,
        "removed": dict(removed),
        "test_options": {k: repr(v) for k, v in analysis.test.options.items()},
        "versions": {
            "pdex_gpu": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
            **compiler(backend.name),
        },
    }
