"""The empirical null of a call: its own comparison, made between mock groups of controls."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..columns.filters import find_kept, with_cells
from ..design.contrasts import Design
from ..design.mock_groups import SEED, MockGroups, plan_mock_groups
from ..errors import UnsupportedDataError
from ..request.analysis import analysis_of
from ..request.options import Settings
from ..results.schema import HIT_FDR
from ..sinks.memory import MemorySink
from ..sources.base import Source
from ..sources.sizes import BYTES_PER_CELL
from ..sources.views.view import reordered
from ..stats.multitest.empirical import EmpiricalNull
from ..utils.progress import Tracker
from .call import Call
from .ranges import run_ranges
from .value_scale import ValueScale

logger = logging.getLogger("pdex_gpu")

#: Levels at which observed and expected numbers of null p-values are recorded.
LEVELS = (0.05, 0.001)


@dataclass(frozen=True)
class Empirical:
    """The empirical nulls of a call, and the facts about them for the provenance.

    Attributes
    ----------
    nulls : dict of str to EmpiricalNull
        By the field that stores the p-values: those of the call's test, and of others.
    facts : dict
        What results record of the null of the call's test.
    """

    nulls: dict[str, EmpiricalNull]
    facts: dict[str, Any]


def mock_groups_of(design: Design, settings: Settings, source: Source) -> MockGroups | None:
    """Return the mock groups that a call needs; None if it judges against none.

    Raises
    ------
    OptionError
        See :func:`.design.mock_groups.plan_mock_groups`.
    UnsupportedDataError
        If the matrix is on a device, where cells cannot be repeated.
    """
    if not settings.correction.empirical:
        return None
    if source.on_device:
        raise UnsupportedDataError(
            "fdr_method='empirical' does not work with a matrix on a CUDA device: move it with "
            "adata.X.get()."
        )
    return plan_mock_groups(design, source.n_genes, SEED)


def empirical_null(
    call: Call, source: Source, values: ValueScale, tracker: Tracker, *, held: int = 0
) -> Empirical | None:
    """Compare the mock groups of a call; return the null p-values, None if it needs none.

    Parameters
    ----------
    call : Call
    source : Source
        The matrix of the call, or its canonical form.
    values : ValueScale
    tracker : Tracker
    held : int
        Bytes of the budget that the call's result takes.
    """
    mock = call.mock
    if mock is None:
        return None
    test = call.analysis.test
    analysis = analysis_of(call.settings.changed(columns=(), default_columns=False), test)
    others = call.analysis.others
    analysis = analysis.judged_also(list(others.values()))
    filters = replace(call.filters, own_gene=None)
    names = ("p_value", *others)
    cells, design = mock.draw()
    fields = analysis.fields(design)
    if not filters.of_values:
        fields = {name: fields[name] for name in names}
    sink = MemorySink(fields, source.n_genes, call.parallel_map)
    its = replace(
        call,
        design=design,
        analysis=analysis,
        filters=filters,
        budget=call.budget - held - BYTES_PER_CELL * len(cells),
        mock=None,
        cells=cells,
    )
    run_ranges(its, reordered(source, cells), sink, tracker)
    sink.check_complete()
    kept = _kept(its, sink, values)
    found: dict[str, list[list[np.ndarray]]] = {name: [] for name in names}
    n_below = np.zeros((len(mock.classes), len(LEVELS)), np.int64)
    of_mock, powers = mock.class_of_row[mock.model_rows], mock.powers[:, None]
    for c in range(len(mock.classes)):
        rows = np.flatnonzero(of_mock == c)
        for name in names:
            p_values = sink.arrays[name][rows]
            chosen = np.ones(p_values.shape, bool) if kept is None else kept[rows]
            if name == "p_value":
                n_below[c] = [np.count_nonzero(chosen & (p_values <= level)) for level in LEVELS]
            # Libraries need not return x for x**1, and ties with p-values of rows count.
            judged = np.where(powers[rows] == 1.0, p_values, p_values ** powers[rows])
            found[name].append([judged[chosen]])
    nulls_of = {name: EmpiricalNull.of(mock.class_of_row, null) for name, null in found.items()}
    null = nulls_of["p_value"]
    expected = np.array([len(its) for its in null.p_values])[:, None] * np.array(LEVELS)
    excess = np.divide(n_below, expected, out=np.full(expected.shape, np.nan), where=expected > 0)
    _log(mock, null, excess, _most_together(call))
    return Empirical(nulls_of, _facts(mock, null, excess))


def _kept(call: Call, sink: MemorySink, values: ValueScale) -> np.ndarray | None:
    """Return which pairs of mock groups and genes pass the filters of the call."""
    if not call.filters.of_values:
        return None
    arrays, design = sink.arrays, call.design

    def stored(name: str, rows: slice) -> np.ndarray:
        return arrays[name][rows]

    mean = call.scale(values).count_mean
    n_genes = arrays["p_value"].shape[1]
    read = with_cells(stored, arrays, design)
    return find_kept(call.filters_on(values), design.n_rows, n_genes, read, mean, tells=False)[0]


def _most_together(call: Call) -> int:
    """Return the largest number of rows that are corrected together."""
    n_rows, n_genes = call.design.n_rows, call.dataset.source.n_genes
    scope = call.settings.correction.fdr_scope
    return {"all": n_rows * n_genes, "target": n_genes, "gene": n_rows}[scope]


def _facts(mock: MockGroups, null: EmpiricalNull, excess: np.ndarray) -> dict[str, Any]:
    classes = [
        {
            "target_cells": [its.smallest, its.largest],
            "rows": len(its.rows),
            "mock_groups": n_groups,
            "null_tests": len(p_values),
            "excess": {
                f"{level:g}": None if math.isnan(ratio) else round(ratio, 4)
                for level, ratio in zip(LEVELS, ratios, strict=True)
            },
        }
        for its, n_groups, p_values, ratios in zip(
            mock.classes, mock.n_groups.tolist(), null.p_values, excess.tolist(), strict=True
        )
    ]
    return {"seed": mock.seed, "splits": len(mock.splits), "size_classes": classes}


def _log(mock: MockGroups, null: EmpiricalNull, excess: np.ndarray, together: int) -> None:
    """Say in a line what the null is, and how many hits it takes to find any."""
    hits = max(1, math.ceil(null.smallest().max() * together / HIT_FDR))
    ratios = ", ".join(
        f"up to {np.nanmax(excess[:, at], initial=0.0):.2f} times the expected number at {level:g}"
        for at, level in enumerate(LEVELS)
    )
    logger.info(
        "empirical null: %s p-values of %d mock groups in %d classes of sizes (%s); rows beyond "
        "all of them have an FDR of at most %g if there are %s or more",
        f"{sum(map(len, null.p_values)):,}", mock.n_groups.sum(), len(mock.classes), ratios,
        HIT_FDR, f"{hits:,}",
    )  # fmt: skip


def facts_of(found: Empirical | None) -> Mapping[str, Any] | None:
    """Return what results record of the null; None if there is none."""
    return None if found is None else found.facts
