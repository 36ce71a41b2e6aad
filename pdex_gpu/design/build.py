"""Conversion of labels and a caller's choices to a design: groups of cells and their contrasts.

The comparison says which labels are compared; here their cells are put in order, level by level and
stratum by stratum.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import LabelError, MissingLabelWarning, warn
from .against import Against
from .comparisons.base import Comparison
from .comparisons.label_contrasts import LabelContrasts, Row
from .comparisons.registry import find_comparison
from .comparisons.selection import Selection
from .contrasts import Contrast, Design, group_cells, labels_array
from .label_match import sorted_labels
from .labels import Levels
from .left_out import with_enough_cells, without_empty_rows


def make_design(
    codes: np.ndarray,
    categories: Sequence[object] | np.ndarray,
    *,
    reference: object,
    groups: Iterable[object] | None = None,
    column: str = "the group column",
    comparison: str | Comparison = "reference",
    pairs: Any = None,
    within: Levels | None = None,
    strata: Levels | None = None,
    min_cells: int = 1,
    pools: Mapping[Any, str] | None = None,
    tells_missing: bool = True,
) -> Design:
    """Convert labels of cells and a caller's choices to groups of cells and their contrasts.

    Parameters
    ----------
    codes : numpy.ndarray, shape (n_cells,), int
        Index into `categories` of each cell's label, -1 where the label is missing.
    categories : sequence, shape (n_categories,)
        Labels; those without cells are ignored.
    reference : object
        Label of the reference group, or a list of labels.
    groups : iterable, optional
        Labels to compare, in this order; by default every other label, sorted.
    column : str
        Name of the label column, for messages.
    comparison : str or Comparison
        Name of a comparison in :mod:`.comparisons.registry`, or an instance.
    pairs : table, optional
        Pairs (target, reference), for ``"pairs"``.
    within : Levels, optional
        Cells are compared only with cells of the same level.
    strata : Levels, optional
        Cells are compared only within the same stratum; the strata of a target give one row.
    min_cells : int
        Smallest number of cells allowed on either side of a row.
    pools : mapping, optional
        Given if groups may overlap and the comparison has a pool. Maps each group to the label of
        its pool: all cells that it is compared with, each once. The pool includes the cells of
        the group itself; these are left out.
    tells_missing : bool
        Whether a warning counts the cells without a label.

    Returns
    -------
    Design

    Raises
    ------
    LabelError
        If the reference has no cells, no target is left, or a label does not exist.
    OptionError
        If there is no comparison of that name, or an option does not go with it.
    """
    codes = np.asarray(codes)
    missing = int(np.count_nonzero(codes < 0))
    if missing and tells_missing:
        warn(
            f"{missing} of {len(codes)} cells have no label in {column!r} and are left out.",
            MissingLabelWarning,
        )
    sizes = _sizes(codes, categories, () if pools is None else set(pools.values()))
    chosen = find_comparison(comparison)
    selection = Selection(sizes, column, reference, groups, pairs, pools)
    labelled = chosen.contrasts(selection)
    if not labelled.rows:
        raise selection.no_target(chosen.title)
    number_of = [labelled.numbers.get(label, -1) for label in categories]
    numbers = np.array([*number_of, -1], np.int64)[codes]
    packing = _pack(numbers, max(labelled.numbers.values()) + 1, within, strata)
    contrasts = _contrasts(labelled, packing)
    if not contrasts:
        where = " and ".join(repr(x.column) for x in (within, strata) if x is not None)
        raise LabelError(
            f"No target in column {column!r} shares a level of {where} with its reference. Check "
            "that reference and targets occur in the same levels."
        )
    names: list[object] = [None] if within is None else list(within.names)
    rows = labelled.rows
    design = Design(
        packing.order,
        packing.offsets,
        packing.codes,
        tuple(contrasts),
        labels_array([row.target for row in rows] * len(names)),
        labels_array([row.reference for row in rows] * len(names)),
        None if within is None else labels_array([name for name in names for _ in rows]),
        stratified=strata is not None,
    )
    return with_enough_cells(without_empty_rows(design, strata), min_cells)


def _sizes(
    codes: np.ndarray, categories: Sequence[object] | np.ndarray, pools: Iterable[str]
) -> dict[Any, int]:
    """Count the cells of each label that has any, sorted by label, without those of `pools`."""
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    sizes = {c: int(n) for c, n in zip(categories, counts, strict=True) if n and c not in pools}
    return {label: sizes[label] for label in sorted_labels(sizes)}


@dataclass(frozen=True)
class _Packing:
    """Groups of cells in order of level, stratum and number.

    So the groups of a contrast are contiguous.

    Attributes
    ----------
    order, offsets, codes : numpy.ndarray
        As in :class:`Design`.
    group_of : numpy.ndarray, shape (n_levels, n_strata, n_numbers), int64
        Group of each number in each stratum of a level, -1 if it has no cells.
    """

    order: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    group_of: np.ndarray


def _pack(
    numbers: np.ndarray, n_numbers: int, within: Levels | None, strata: Levels | None
) -> _Packing:
    """Put the cells in order.

    Parameters
    ----------
    numbers : numpy.ndarray, shape (n_cells,), int64
        Number of each cell's group within its level and stratum, -1 for none.
    n_numbers : int
    within, strata : Levels or None

    Raises
    ------
    LabelError
        If a cell that takes part has no level or no stratum.
    """
    taking_part = numbers >= 0
    shape: list[int] = []
    place = np.zeros(len(numbers), np.int64)
    for levels in (within, strata):
        shape.append(1 if levels is None else len(levels.names))
        if levels is None:
            continue
        unlabelled = np.count_nonzero(taking_part & (levels.codes < 0))
        if unlabelled:
            raise LabelError(
                f"{unlabelled} cells of the compared groups have no value in column "
                f"{levels.column!r}. Fill in the values, or remove these cells first."
            )
        place = place * shape[-1] + levels.codes
    shape.append(n_numbers)
    place = np.where(taking_part, place * n_numbers + numbers, -1)
    counts = np.bincount(place[taking_part], minlength=int(np.prod(shape)))
    group_of = np.where(counts > 0, np.cumsum(counts > 0) - 1, -1)
    codes = np.append(group_of, -1)[place]
    order, offsets = group_cells(codes, int(np.count_nonzero(counts)))
    return _Packing(order, offsets, codes, group_of.reshape(shape))


def _contrasts(labelled: LabelContrasts, packing: _Packing) -> list[Contrast]:
    """Make the contrasts of every level and stratum that have cells to compare."""
    sizes = np.diff(packing.offsets)
    tables = _by_reference(labelled)
    found = []
    for level, strata in enumerate(packing.group_of):
        for groups in strata:
            for reference, targets, rows in tables:
                rows = np.where(rows < 0, -1, rows + level * len(labelled.rows))
                contrast = _contrast(groups, sizes, reference, targets, rows, labelled.against)
                if contrast is not None:
                    found.append(contrast)
    return found


def _by_reference(labelled: LabelContrasts) -> list[tuple[int | None, np.ndarray, np.ndarray]]:
    """Return (number of the reference, numbers of its targets, their rows) of each contrast."""
    if labelled.against is Against.REST:
        numbers = np.arange(max(labelled.numbers.values()) + 1)
        rows = np.full(len(numbers), -1)
        rows[[labelled.numbers[row.target] for row in labelled.rows]] = range(len(labelled.rows))
        return [(None, numbers, rows)]
    targets: dict[int, list[tuple[int, int]]] = {}
    for position, row in enumerate(labelled.rows):
        target = labelled.numbers[row.target]
        targets.setdefault(_reference_number(row), []).append((target, position))
    tables = [(reference, np.array(sorted(of), np.int64)) for reference, of in targets.items()]
    return [(reference, table[:, 0], table[:, 1]) for reference, table in tables]


def _reference_number(row: Row) -> int:
    assert row.reference_number is not None
    return row.reference_number


def _contrast(
    groups: np.ndarray,
    sizes: np.ndarray,
    reference: int | None,
    targets: np.ndarray,
    rows: np.ndarray,
    against: Against,
) -> Contrast | None:
    """Make a contrast of the groups that have cells; return None if there is nothing to compare."""
    there = groups[targets] >= 0
    chosen = groups[targets[there]]
    rows = rows[there]
    if reference is None:
        useful = len(chosen) > 1 and (rows >= 0).any()
        return Contrast(chosen, sizes[chosen], against, rows) if useful else None
    if groups[reference] < 0 or not len(chosen):
        return None
    chosen = np.concatenate([[groups[reference]], chosen])
    return Contrast(chosen, sizes[chosen], against, rows)
