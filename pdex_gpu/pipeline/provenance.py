"""The provenance of results: what was asked, what ran, on what, and in which versions."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._version import __version__
from ..backends.registry import BackendInfo, compilers
from ..columns.measure import Analysis
from ..design.comparisons.registry import find_comparison
from ..design.contrasts import Design
from ..design.naming import joined
from ..design.own_genes import OWN_GENES, recorded
from ..errors import listing
from ..request.options import Settings
from ..sources.dataset import Dataset
from ..utils.versions import version
from .value_scale import ValueScale


def make_provenance(
    settings: Settings,
    dataset: Dataset,
    design: Design,
    analysis: Analysis,
    backend: BackendInfo,
    engine: str,
    scale: ValueScale,
    removed: Mapping[str, int],
    own_gene: np.ndarray | None = None,
) -> dict[str, Any]:
    """Return what a result records about its origin, the same for equal calls."""
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
        "comparison": find_comparison(settings.comparison).name,
        "reference": _references(design),
        "groups": "all" if settings.groups is None else listing(design.targets),
        "layer": settings.layer,
        "allow": sorted(settings.allowed),
        "is_log1p": scale.is_log1p,
        "negative_values": scale.negative,
        "raw_counts": scale.raw_counts,
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
        "filter_sides": settings.entry.filter_sides,
        "removed": dict(removed),
        "test_options": {k: repr(v) for k, v in analysis.test.options.items()},
        "versions": {
            "pdex_gpu": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
            **compilers(backend.name),
        },
    }


def _references(design: Design) -> str:
    references = list(dict.fromkeys(design.references))
    return str(references[0]) if len(references) == 1 else joined(references, " | ")
