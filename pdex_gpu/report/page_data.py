"""The data of the page: text and labels as JSON, numbers as packed arrays."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np

from .._version import __version__
from ..calibration.result import Calibration
from ..design.contrasts import labels_array
from ..design.naming import level_text
from ..results.base import Result
from ..results.plot_values import count
from .bins import Background
from .calibration import calibration_part
from .definitions import definitions, test_name
from .encode import Packed, coded, label, pack, whole
from .notes import notes
from .nouns import noun_of
from .payload import ReportData
from .provenance_table import settings
from .row_codes import encode_rows


def document(
    result: Result, data: ReportData, calibration: Calibration | None, *, title: str | None
) -> tuple[dict[str, Any], dict[str, Packed]]:
    """Assemble the data that the page shows.

    Returns
    -------
    meta : dict
        Text and labels, as JSON values.
    arrays : dict of str to Packed
        Numbers.
    """
    arrays = {
        **encode_rows(data.rows, len(result.features), data.effect),
        **_comparisons(data),
        **_row_cells(data),
        "gene_hits_up": whole(data.genes.up),
        "gene_hits_down": whole(data.genes.down),
        "gene_hits_level": whole(data.genes.level),
        "gene_rows": whole(data.genes.rows),
        "gene_undrawn": whole(data.genes.undrawn),
        "map_genes": whole(data.effect_map.genes),
        "map_sizes": pack(data.effect_map.sizes.ravel(), "f4"),
        **_background("behind", data.background),
        **_background("behind_gene", data.gene_background),
    }
    labels = {"target": result.targets, "reference": result.references}
    if result.within is not None:
        labels["within"] = labels_array(list(map(level_text, result.within[1])))
    values = {}
    for name, texts in labels.items():
        values[name], codes = coded(texts)
        arrays[f"label_{name}"] = whole(codes)
    totals, noun = data.totals, noun_of(result.provenance)
    n_judged = int(totals.histogram.sum())
    meta = {
        "title": label(title) if title else "Differential expression",
        "summary": _summary(result, data),
        "version": __version__,
        "fdr": data.fdr,
        "effect": {"column": data.effect.scaled_column, "is_ratio": data.effect.is_ratio},
        "labels": values,
        "within": None if result.within is None else label(level_text(result.within[0])),
        "several_references": len(values["reference"]) > 1,
        "noun": asdict(noun),
        "features": [label(name) for name in result.gene_names],
        **_identifiers(result),
        "n_rows": int(data.comparisons.rows.sum()),
        "n_hits": int(data.comparisons.hits.sum()),
        "left_out": data.n_left_out,
        "n_cells": sorted(data.n_cells),
        "bins": {"behind": data.background.shape, "behind_gene": data.gene_background.shape},
        "p_values": {
            "histogram": totals.histogram.tolist(),
            "uninformative": totals.uninformative,
            # Storey 2002, with lambda 0.5.
            "pi0": min(1.0, totals.above_half / (0.5 * n_judged)) if n_judged else None,
        },
        "notes": [asdict(note) for note in notes(result, data, calibration)],
        "settings": settings(result.provenance),
        "definitions": definitions(result.provenance, data.fdr, data.effect),
        "calibration": None if calibration is None else calibration_part(calibration),
    }
    return meta, arrays


def _comparisons(data: ReportData) -> dict[str, Packed]:
    counts, own = data.comparisons, data.own
    found = {
        "row_ends": whole(data.rows.ends),
        "row_hits": whole(data.rows.n_hits),
        "hits_up": whole(counts.up),
        "hits_down": whole(counts.down),
        "hits_level": whole(counts.level),
        "rows": whole(counts.rows),
        "undrawn": whole(counts.undrawn),
        "own_gene": pack(own.gene, "i4"),
        "own_size": pack(_single(own.size), "f4"),
        "own_hit": pack(own.hit, "u1"),
        "own_log10_fdr": pack(_single(own.log10_fdr), "f4"),
    }
    return found | {f"cells_{side}": whole(cells) for side, cells in data.n_cells.items()}


def _row_cells(data: ReportData) -> dict[str, Packed]:
    """Encode the cells of each row as how many fewer they are than in the comparison: mostly 0."""
    sizes = np.diff(data.rows.ends, prepend=0)
    return {
        f"row_fewer_{side}": whole(np.repeat(data.n_cells[side], sizes) - cells)
        for side, cells in data.rows.n_cells.items()
    }


def _identifiers(result: Result) -> dict[str, list[str] | None]:
    """Return the names in var and the symbols of genes, where there are symbols."""
    if result.symbols is None:
        return {"identifiers": None, "symbols": None}
    return {
        "identifiers": [label(name) for name in result.features],
        "symbols": [label(name) for name in result.symbols],
    }


def _background(name: str, background: Background) -> dict[str, Packed]:
    return {
        f"{name}_limits": pack(background.limits.ravel(), "f4"),
        f"{name}_ends": whole(background.ends),
        f"{name}_bins": pack(background.bins, "u2"),
        f"{name}_counts": whole(background.counts),
    }


def _single(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def _summary(result: Result, data: ReportData) -> str:
    """Summarize the result in a line or two."""
    hits = data.comparisons.hits
    n_targets, noun = len({str(target) for target in result.targets}), noun_of(result.provenance)
    what = count(n_targets, noun.one, noun.many)
    if len(result.targets) != n_targets:
        what = f"{len(result.targets):,} comparisons of {what}"
    against = "several references"
    if result.reference is not None:
        against = str(result.reference)
    text = (
        f"{what} against {against}, {count(len(result.features), 'gene')}: "
        f"{count(int(hits.sum()), 'hit')} at FDR ≤ {data.fdr:g} in "
        f"{count(int(np.count_nonzero(hits)), 'comparison')}."
    )
    test = test_name(result.provenance)
    if test is not None:
        data_read = result.provenance.get("data")
        text += f" {test}{f' on {data_read}' if data_read else ''}."
    return label(text)
