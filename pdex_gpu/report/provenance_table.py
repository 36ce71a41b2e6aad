"""The whole provenance of a result, in words and in a fixed order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..design.mock_groups import EMPIRICAL_NULL
from ..design.own_genes import OWN_GENES
from .encode import label

# Heading, then keys and their names in the report.
_GROUPS: tuple[tuple[str, dict[str, str]], ...] = (
    (
        "Data",
        {
            "data": "Data",
            "matrix": "Matrix",
            "layer": "Layer",
            "raw": "raw of the AnnData",
            "modality": "Modality",
            "join": "Genes of several files",
            "batch": "Column of files",
            "cells": "Cells chosen by",
            "genes": "Genes chosen by",
            "gene_symbols": "Symbols of genes from",
            "n_cells": "Cells",
            "allow": "Accepted though not in the file",
            "n_genes": "Genes",
            "normalize": "Normalised to",
            "log1p": "log1p of normalised counts",
            "totals": "Totals from",
            "is_log1p": "Treated as log1p",
            "raw_counts": "Raw counts",
            "negative_values": "Negative values",
        },
    ),
    (
        "Comparisons",
        {
            "groupby": "Grouped by",
            "comparison": "Compared with",
            "reference": "Reference",
            "groups": "Groups requested",
            "n_targets": "Comparisons made",
            "strata": "Strata",
            "guides": "Guides",
            "guide_calls": "Guide calls",
            "guide_targets": "Targets of guides",
            "min_umis": "Fewest UMIs of a guide",
            "multiplicity": "Multiplicity of guides",
            "on_target": "Own gene from",
            OWN_GENES: "Perturbations with an own gene",
            "min_cells": "Minimum cells per side",
        },
    ),
    (
        "Test",
        {
            "metric": "Test",
            "test_options": "Options",
            "p_values": "P-values",
            "fdr_method": "Correction",
            "fdr_scope": "Corrected over",
            EMPIRICAL_NULL: "Mock groups of controls",
            "min_fraction": "Minimum expressing fraction",
            "min_cpm": "Minimum counts per million",
            "filter_sides": "Sides used by filters",
            "removed": "Removed by filters",
        },
    ),
    (
        "Numbers",
        {
            "exp_post_agg": "expm1 after the mean",
            "clip_value": "Fold change clipped at",
            "pseudocount": "Pseudocount",
            "confidence": "Confidence level",
            "columns": "Extra columns",
            "default_columns": "Default columns",
        },
    ),
    (
        "Execution",
        {
            "backend": "Backend",
            "backend_reason": "Reason",
            "engine": "Engine",
            "device": "Device",
            "seconds": "Seconds",
        },
    ),
)


def settings(provenance: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return groups of settings: each has a heading, and settings as pairs of name and text.

    Nothing is left out: settings unknown to this version come last, under their own keys.
    """
    known = {key for _, names in _GROUPS for key in names} | {"versions"}
    groups = []
    for heading, names in _GROUPS:
        lines = [
            (text, _shown(key, provenance[key])) for key, text in names.items() if key in provenance
        ]
        groups.append((heading, lines))
    versions = provenance.get("versions") or {}
    if isinstance(versions, Mapping):
        groups.append(("Versions", [(label(k), worded(v)) for k, v in versions.items()]))
    else:
        groups.append(("Versions", [("versions", worded(versions))]))
    rest = [(label(k), worded(v)) for k, v in provenance.items() if k not in known]
    groups.append(("Other", rest))
    return [(heading, lines) for heading, lines in groups if lines]


def _shown(key: str, value: Any) -> str:
    """Return a setting in words; for own genes, one per perturbation, only their number."""
    if key == EMPIRICAL_NULL and isinstance(value, Mapping):
        return _mock_groups(value)
    return worded(len(value) if key == OWN_GENES and isinstance(value, Mapping) else value)


def _mock_groups(facts: Mapping[str, Any]) -> str:
    """Return the facts about an empirical null in words, class by class."""
    parts = []
    for its in facts.get("size_classes") or ():
        few, many = its["target_cells"]
        cells = f"{few:,}" if few == many else f"{few:,} to {many:,}"
        ratios = ", ".join(
            f"{worded(ratio)} times the expected number of p-values at {level}"
            for level, ratio in its["excess"].items()
            if ratio is not None
        )
        parts.append(
            f"{its['mock_groups']:,} for targets of {cells} cells ({ratios or 'no p-value'})"
        )
    return "; ".join(parts) or "none"


def worded(value: Any) -> str:
    """Return a setting in words."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{label(k)}: {worded(v)}" for k, v in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(worded(v) for v in value) or "none"
    return label(value)
