"""The identity of a run: everything that may change a bit of its results."""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .._version import __version__
from ..backends.registry import BackendInfo, compilers
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..design.mock_groups import SEED
from ..request.options import TABLES, Settings
from ..sinks.identity_diff import HASH
from ..sources.dataset import Dataset
from ..utils.options import plain
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
    return {
        "version of pdex_gpu": __version__,
        **{f"version of {name}": version(name) for name in ("numpy", "scipy")},
        **{f"version of {name}": number for name, number in compilers(backend.name).items()},
        "machine": platform.machine(),
        "backend": backend.name,
        "device": backend.models,
        **{name: plain(value) for name, value in _options(settings, design, analysis).items()},
        "labels of the cells": _hash(_labels(design), design.codes),
        "groups that are compared": _hash(_contrasts(design), *_arrays(design)),
        "names of the genes": _hash(map(str, dataset.genes)),
        "symbols": None if dataset.symbols is None else _hash(map(str, dataset.symbols)),
        **{f"data, {name}": value for name, value in dataset.source.identity().items()},
    }


def _options(settings: Settings, design: Design, analysis: Analysis) -> dict[str, Any]:
    """Return all options that results depend on; labels and names as they were understood."""
    comparison = settings.comparison
    understood = {
        "groupby": [comparison.group_column, *comparison.within_columns],
        "comparison": comparison.chosen.name,
        "reference": str(design.reference),
        "metric": analysis.test.metric,
        "groups": None if comparison.groups is None else list(map(str, design.targets)),
        "pairs": None,  # they are the labels of the design
        **dict.fromkeys(TABLES),  # so is what they hold
        "allow": sorted(settings.data.allowed),
        "genes": None,  # their names are above
        "columns": list(analysis.columns),
        "test_options": {k: repr(v) for k, v in sorted(analysis.test.options.items())},
        "p_values": analysis.p_value_kind,
        "confidence": float(settings.columns.confidence),
        "pseudocount": float(settings.columns.pseudocount),
    }
    if settings.correction.empirical:
        understood["seed of the mock groups"] = SEED
    return settings.deciding() | understood


def _labels(design: Design) -> list[str]:
    within = () if design.within is None else tuple(design.within)
    return [*map(repr, design.targets), *map(repr, design.references), *map(repr, within)]


def _contrasts(design: Design) -> list[str]:
    return [contrast.against.name for contrast in design.contrasts]


def _arrays(design: Design) -> Iterator[np.ndarray]:
    """Yield what tells comparisons apart whose labels are the same."""
    yield design.offsets
    for contrast in design.contrasts:
        yield from (contrast.groups, contrast.rows)


def _hash(texts: Iterable[str], *arrays: np.ndarray) -> str:
    found = hashlib.sha256()
    for text in texts:
        encoded = text.encode("utf-8", "backslashreplace")
        found.update(len(encoded).to_bytes(8, "little") + encoded)
    for array in arrays:
        found.update(array.size.to_bytes(8, "little"))
        found.update(np.ascontiguousarray(array).data)
    return HASH + found.hexdigest()
