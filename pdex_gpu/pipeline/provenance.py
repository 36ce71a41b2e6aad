"""The provenance of results: what was asked, what ran, on what, and in which versions."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from typing import Any

import numpy as np

from .._version import __version__
from ..backends.registry import BackendInfo, compilers
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..design.mock_groups import EMPIRICAL_NULL
from ..design.naming import joined
from ..design.own_genes import OWN_GENES, recorded
from ..errors import listing
from ..request.options import TABLES, Settings
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
    empirical: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return what a result records about its origin, the same for equal calls."""
    own = {}
    if own_gene is not None:
        own[OWN_GENES] = recorded(design.targets, own_gene, dataset.genes)
    return {
        "metric": analysis.test.metric,
        "backend": backend.name,
        "backend_reason": backend.reason,
        "device": backend.device,
        "engine": engine,
        "data": dataset.description,
        "matrix": dataset.source.description,
        "n_cells": dataset.source.n_cells,
        "n_genes": dataset.source.n_genes,
        "n_targets": len(design.targets),
        **_options(settings, design, analysis),
        "p_values": _kind_of_p_values(analysis, scale),
        "is_log1p": scale.is_log1p,
        "negative_values": scale.negative,
        "raw_counts": scale.raw_counts,
        **own,
        **({} if empirical is None else {EMPIRICAL_NULL: dict(empirical)}),
        "removed": dict(removed),
        "versions": {
            "pdex_gpu": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
            **compilers(backend.name),
        },
    }


def _options(settings: Settings, design: Design, analysis: Analysis) -> dict[str, Any]:
    """Return all options that results depend on, as they were understood."""
    found = settings.deciding()
    for name in ("metric", "pairs", "spreadsheet_safe"):  # pairs are the rows of the result
        del found[name]
    for name in TABLES:
        found[name] = None if found[name] is None else os.fspath(found[name])
    asked_all = settings.comparison.groups is None
    return found | {
        "comparison": settings.comparison.chosen.name,
        "reference": _references(design),
        "groups": "all" if asked_all else listing(design.targets),
        "allow": sorted(settings.data.allowed),
        "genes": _genes(settings.data.genes),
        "columns": list(analysis.columns),
        "test_options": {k: repr(v) for k, v in analysis.test.options.items()},
    }


def _kind_of_p_values(analysis: Analysis, scale: ValueScale) -> str:
    if analysis.p_value_kind == "conditional" and scale.negative:
        return "conditional; asymptotic for genes with negative values"
    return analysis.p_value_kind


def _genes(asked: Any) -> str | None:
    if asked is None or isinstance(asked, str):
        return asked
    return listing(asked) if isinstance(asked, tuple) else os.fspath(asked)


def _references(design: Design) -> str:
    references = list(dict.fromkeys(design.references))
    return str(references[0]) if len(references) == 1 else joined(references, " | ")
