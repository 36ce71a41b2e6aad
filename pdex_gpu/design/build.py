"""Conversion of labels and a user's choices to groups and contrasts: who is compared with whom."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import (
    LabelError,
    MissingLabelWarning,
    OptionError,
    SkippedWarning,
    UnknownGroupWarning,
    listing,
    shown,
    unknown_label,
    warn,
)
from ..utils.checks import check_label, labels_of, listed
from .contrasts import Contrast, Design, group_cells, labels_array
from .labels import Levels
from .naming import level_text, pool_name, unlike

if TYPE_CHECKING:
    pass

logger = logging.getLogger("pdex_gpu")

#: What each group is compared with; see :func:`.api.differential_expression`.
COMPARISONS = ("reference", "each_reference", "rest", "perturbed", "pairs")

#: Names of the reference in rows that are compared with a pool of other cells.
REST, PERTURBED = "rest", "other perturbed"

# Names in messages of the cells that targets are compared with.
_POOLS = {"rest": "the rest", "perturbed": "the other perturbed cells"}


@dataclass(frozen=True)
class _Asked:
    """The targets and their references, by their labels in the column.

    Attributes
    ----------
    kind : str
        The comparison; ``"rest"`` and ``"complement"`` stand for those with a pool.
    numbers : dict
        Group number of each label that takes part, among the cells of one level and stratum.
    targets : list
        Labels of targets; for pairs, one per pair.
    references : list of int
        Numbers of the references: one per row for pairs and for targets with pools; empty if each
        target is compared with the rest.
    names : list
        Names in the result of these references, or of the pool.
    """

    kind: str
    numbers: dict[Any, int]
    targets: list[Any]
    references: list[Any]
    names: list[Any]


def make_design(
    codes: np.ndarray,
    categories: Sequence[object] | np.ndarray,
    *,
    reference: object,
    groups: Iterable[object] | None = None,
    column: str = "the group column",
    comparison: str = "reference",
    pairs: Any = None,
    within: Levels | None = None,
    strata: Levels | None = None,
    min_cells: int = 1,
    pools: Mapping[Any, str] | None = None,
) -> Design:
    """Encode comparisons between groups of cells that do not overlap.

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
    comparison : {"reference", "each_reference", "rest", "perturbed", "pairs"}
    pairs : table, optional
        Pairs (target, reference), for ``"pairs"``.
    within : Levels, optional
        Cells are compared only with cells of the same level.
    strata : Levels, optional
        Cells are compared only within the same stratum; the strata of a target give one row.
    min_cells : int
        Smallest number of cells allowed on either side of a row.
    pools : mapping, optional
        Given if groups may overlap. Maps each group to the label of its pool: all cells that it is
        compared with under ``"rest"`` and ``"perturbed"``, each once. The pool includes the cells
        of the group itself; these are left out.

    Returns
    -------
    Design

    Raises
    ------
    LabelError
        If the reference has no cells, no target is left, or a label does not exist.
    """
    codes = np.asarray(codes)
    missing = int(np.count_nonzero(codes < 0))
    if missing:
        warn(
            f"{missing} of {len(codes)} cells have no label in {column!r} and are left out.",
            MissingLabelWarning,
        )
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    sizes = {c: int(n) for c, n in zip(categories, counts, strict=True) if n}
    present = {label: sizes[label] for label in _sorted(list(sizes))}
    if comparison == "pairs":
        asked = _asked_pairs(pairs, present, column)
    elif pools is not None:
        asked = _asked_of_pools(comparison, reference, groups, present, column, pools)
    else:
        asked = _asked(comparison, reference, groups, present, column)
    number = {label: asked.numbers.get(label, -1) for label in categories}
    of_category = np.array([*(number[label] for label in categories), -1], np.int64)
    design = _assemble(of_category[codes], asked, within, strata, column)
    return _with_enough_cells(design, min_cells)


# --- what was asked for ----------------------------------------------------------------------


def _asked(
    kind: str,
    reference: object,
    groups: Iterable[object] | None,
    present: Mapping[Any, int],
    column: str,
) -> _Asked:
    """Find targets and references among the labels present, for all comparisons except pairs.

    Group numbers start with the references: 0 for one (or several pooled), their position in the
    list for several, none for pools. Targets follow. Only for pools, one number for all the other
    groups together comes last.
    """
    references: list[Any] = []
    if kind != "rest":
        references = _references(reference, present, column)
        if kind == "each_reference" and len(references) < 2:
            raise OptionError(
                f"comparison='each_reference' needs several references, but reference="
                f"{shown(reference)} is only one. Pass a list, or comparison='reference'."
            )
    no_targets = set() if kind == "each_reference" and groups is not None else set(references)
    targets = _targets(groups, present, no_targets, column)
    with_whom = _POOLS.get(kind, " + ".join(repr(str(label)) for label in references))
    others = len(present) - len(references) if kind == "perturbed" else len(present)
    if not targets or (kind in ("rest", "perturbed") and others < 2):
        raise _no_target(with_whom, column, present)
    if kind == "reference":
        numbers = dict.fromkeys(references, 0) | {t: k + 1 for k, t in enumerate(targets)}
        return _Asked(kind, numbers, targets, [0], [pool_name(references, present)])
    if kind == "each_reference":
        numbers = {label: k for k, label in enumerate([*references])}
        for target in targets:
            numbers.setdefault(target, len(numbers))
        return _Asked(kind, numbers, targets, list(range(len(references))), references)
    numbers = {label: k for k, label in enumerate(targets)}
    for label in present:
        if label not in references:
            numbers.setdefault(label, len(targets))  # in every target's rest, but not a target
    return _Asked("rest", numbers, targets, [], [_pool(kind, present)])


def _targets(
    groups: Iterable[object] | None, present: Mapping[Any, int], excluded: set[Any], column: str
) -> list[Any]:
    """Return the requested groups (by default all) except the excluded ones."""
    asked = labels_of("groups", groups)
    if asked is None:
        return [label for label in present if label not in excluded]
    known, by_text = set(present), {str(label): label for label in present}
    matched = [match_label(label, known, by_text) for label in asked]
    absent = [label for label in matched if label not in known]
    allowed = known - excluded
    targets = [label for label in dict.fromkeys(matched) if label in allowed]
    if absent and not targets:
        what = f"group in column {column!r}:"
        raise LabelError(unknown_label(what, absent[0], present, control=False))
    if absent:
        warn(
            f"Groups not found in column {column!r} and left out: {listing(absent)}.",
            UnknownGroupWarning,
        )
    return targets


def _no_target(with_whom: str, column: str, present: Iterable[Any]) -> LabelError:
    return LabelError(
        f"No target group is left to compare with {with_whom} in column {column!r}: "
        f"found {listing(present)}. Pass other groups or another reference."
    )


def _asked_of_pools(
    kind: str,
    reference: object,
    groups: Iterable[object] | None,
    present: Mapping[Any, int],
    column: str,
    pools: Mapping[Any, str],
) -> _Asked:
    """Find targets and their pools. Pools have the first group numbers, then targets."""
    used = set(pools.values())
    named = {label: n for label, n in present.items() if label not in used}
    excluded = set(_references(reference, named, column)) if kind == "perturbed" else set()
    targets = _targets(groups, named, excluded, column)
    if not targets:
        raise _no_target(_POOLS[kind], column, named)
    mine = dict.fromkeys(pools[target] for target in targets)
    numbers: dict[Any, int] = {pool: k for k, pool in enumerate(mine)}
    references = [numbers[pools[target]] for target in targets]
    numbers |= {target: len(mine) + k for k, target in enumerate(targets)}
    names = [_pool(kind, present)] * len(references)
    return _Asked("complement", numbers, targets, references, names)


def _pool(kind: str, present: Iterable[Any]) -> str:
    """Name the pool that targets are compared with; no group has this name."""
    return unlike(REST if kind == "rest" else PERTURBED, present)


def reference_labels(reference: object) -> list[Any]:
    """List the labels, one or several, that a caller gave as the reference.

    Raises
    ------
    OptionError
        One of them cannot be a label, such as a list.
    """
    scalar = isinstance(reference, np.ndarray) and reference.ndim == 0
    if not scalar and isinstance(reference, list | tuple | set | frozenset | np.ndarray):
        return labels_of("reference", reference) or []
    check_label("reference", reference)
    return [reference]


def _references(reference: object, present: Mapping[Any, int], column: str) -> list[Any]:
    """Return the labels of the reference, one or several, as they stand in the column."""
    labels = reference_labels(reference)
    known, by_text = set(present), {str(label): label for label in present}
    found = [match_label(label, known, by_text) for label in labels]
    for label in found:
        if label is None or label not in known:
            asked = "None" if label is None else label
            what = f"reference in column {column!r}:"
            raise LabelError(unknown_label(what, asked, present, control=True))
    if not found:
        raise OptionError("reference=[] names no group. Pass the label of the reference.")
    return list(dict.fromkeys(found))


def _asked_pairs(pairs: Any, present: Mapping[Any, int], column: str) -> _Asked:
    known, by_text = set(present), {str(label): label for label in present}
    found = []
    for target, reference in _pairs(pairs):
        labels = [match_label(label, known, by_text) for label in (target, reference)]
        for role, label in zip(("target", "reference"), labels, strict=True):
            if label not in known:
                raise LabelError(
                    f"The pair ({target!r}, {reference!r}) names a {role} that does not exist: "
                    + unknown_label(f"group in column {column!r}:", label, present, control=False)
                )
        if labels[0] == labels[1]:
            raise LabelError(
                f"The pair ({target!r}, {reference!r}) compares a group with itself. Remove it, "
                "or use another reference."
            )
        found.append((labels[0], labels[1]))
    found = list(dict.fromkeys(found))
    if not found:
        raise OptionError("pairs= is empty. Pass rows of (target, reference).")
    references = list(dict.fromkeys(r for _, r in found))
    numbers = {label: k for k, label in enumerate(references)}
    for target, _ in found:
        numbers.setdefault(target, len(numbers))
    return _Asked("pairs", numbers, [t for t, _ in found], [numbers[r] for _, r in found],
                  [r for _, r in found])  # fmt: skip


def _pairs(pairs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (target, reference) pairs from a frame with these columns or a sequence of pairs."""
    columns = getattr(pairs, "columns", None)
    if columns is not None:
        lacking = [name for name in ("target", "reference") if name not in list(columns)]
        if lacking:
            raise OptionError(
                f"pairs= has no column {lacking[0]!r}: it needs target and reference, but has "
                f"{listing(columns)}. Rename the columns."
            )
        rows = [*zip(*(_one_column(pairs, name) for name in ("target", "reference")), strict=True)]
    else:
        try:
            # `listed` refuses text: its letters are not labels.
            rows = [tuple(listed(row)) for row in listed(pairs)]
            if any(len(row) != 2 for row in rows):
                raise TypeError("a row does not have two labels")
            for label in (label for row in rows for label in row):
                check_label("pairs", label)
        except (TypeError, OptionError) as error:
            raise OptionError(
                f"pairs={shown(pairs)} must be rows of (target, reference): a list of pairs, or a "
                "table with these two columns."
            ) from error
    yield from rows


def _one_column(table: Any, name: str) -> list[Any]:
    column = table[name]
    if getattr(column, "ndim", 1) != 1:
        raise OptionError(f"pairs= has several columns named {name!r}. Rename all but one.")
    for label in column:
        check_label("pairs", label)
    return list(column)


# --- from labels to groups -------------------------------------------------------------------


def _assemble(
    numbers: np.ndarray,
    asked: _Asked,
    within: Levels | None,
    strata: Levels | None,
    column: str,
) -> Design:
    """Order groups by level, stratum and number, so that those of a contrast are contiguous."""
    taking_part = numbers >= 0
    n_numbers = max(asked.numbers.values()) + 1
    n_levels = 1 if within is None else len(within.names)
    n_strata = 1 if strata is None else len(strata.names)
    block = np.zeros(len(numbers), np.int64)
    for levels, n in ((within, n_levels), (strata, n_strata)):
        if levels is None:
            continue
        unlabelled = np.count_nonzero(taking_part & (levels.codes < 0))
        if unlabelled:
            raise LabelError(
                f"{unlabelled} cells of the compared groups have no value in column "
                f"{levels.column!r}. Fill in the values, or remove these cells first."
            )
        block = block * n + levels.codes
    combined = np.where(taking_part, block * n_numbers + numbers, -1)
    n_blocks = n_levels * n_strata
    counts = np.bincount(combined[taking_part], minlength=n_blocks * n_numbers)
    group_of = np.where(counts > 0, np.cumsum(counts > 0) - 1, -1)
    codes = np.append(group_of, -1)[combined]
    order, offsets = group_cells(codes, int(np.count_nonzero(counts)))
    sizes = np.diff(offsets)

    parts = _parts(asked)
    n_targets = len(_row_labels(asked))  # per level
    contrasts: list[Contrast] = []
    for b in range(n_blocks):
        first_row = b // n_strata * n_targets
        groups = group_of[b * n_numbers : (b + 1) * n_numbers]
        for reference, targets, rows in parts:
            rows = np.where(rows < 0, -1, rows + first_row)
            against = "complement" if asked.kind == "complement" else "reference"
            contrast = _contrast(groups, sizes, reference, targets, rows, against)
            if contrast is not None:
                contrasts.append(contrast)
    labels = [asked.targets[k] for _, k in _row_labels(asked)]
    references = [asked.names[r] for r, _ in _row_labels(asked)]
    names: list[object] = [] if within is None else list(within.names)
    design = Design(
        order,
        offsets,
        codes,
        tuple(contrasts),
        labels_array(labels * n_levels),
        labels_array(references * n_levels),
        None if within is None else labels_array([n for n in names for _ in labels]),
        stratified=strata is not None,
    )
    if not contrasts:
        where = " and ".join(repr(x.column) for x in (within, strata) if x is not None)
        raise LabelError(
            f"No target in column {column!r} shares a level of {where} with its reference. Check "
            "that reference and targets occur in the same levels."
        )
    return _without_empty_rows(design, strata)


def _row_labels(asked: _Asked) -> list[tuple[int, int]]:
    """Return (position in names, position in targets) of a level's rows, target by target."""
    if asked.kind in ("pairs", "complement"):
        return [(k, k) for k in range(len(asked.targets))]
    if asked.kind != "each_reference":
        return [(0, k) for k in range(len(asked.targets))]
    return [
        (r, k)
        for k, target in enumerate(asked.targets)
        for r, reference in enumerate(asked.names)
        if target != reference
    ]


def _parts(asked: _Asked) -> list[tuple[int | None, np.ndarray, np.ndarray]]:
    """Return (number of the reference, numbers of its targets, their rows) of each contrast."""
    if asked.kind == "rest":
        numbers = np.arange(max(asked.numbers.values()) + 1)
        rows = np.where(numbers < len(asked.targets), numbers, -1)
        return [(None, numbers, rows)]
    by_reference: dict[int, list[tuple[int, int]]] = {}
    for row, (r, k) in enumerate(_row_labels(asked)):
        target = asked.numbers[asked.targets[k]]
        by_reference.setdefault(asked.references[r], []).append((target, row))
    found: list[tuple[int | None, np.ndarray, np.ndarray]] = []
    for reference, targets in by_reference.items():
        table = np.array(sorted(targets), np.int64)
        found.append((reference, table[:, 0], table[:, 1]))
    return found


def _contrast(
    groups: np.ndarray,
    sizes: np.ndarray,
    reference: int | None,
    targets: np.ndarray,
    rows: np.ndarray,
    against: str,
) -> Contrast | None:
    """Make a contrast of the groups that have cells; return None if there is nothing to compare."""
    there = groups[targets] >= 0
    chosen = groups[targets[there]]
    rows = rows[there]
    if reference is None:
        useful = len(chosen) > 1 and (rows >= 0).any()
        return Contrast(chosen, sizes[chosen], "rest", rows) if useful else None
    if groups[reference] < 0 or not len(chosen):
        return None
    chosen = np.concatenate([[groups[reference]], chosen])
    return Contrast(chosen, sizes[chosen], against, rows)


def _without_empty_rows(design: Design, strata: Levels | None) -> Design:
    """Leave out rows that no contrast contributes to, with a warning."""
    used = design.cells()[2]
    if strata is not None:
        skipped = len(strata.names) - used[used > 0]
        if skipped.any():
            logger.info(
                "strata of %r that lack target or reference are skipped: %d of %d (row, stratum) "
                "pairs, in %d rows", strata.column, skipped.sum(), used.size * len(strata.names),
                np.count_nonzero(skipped),
            )  # fmt: skip
    if (used == 0).any():
        where = "any stratum" if design.within is None else "the level"
        _say_left_out(design, used == 0, f"target or reference has no cells in {where}")
    return keep_rows(design, used > 0)


def _with_enough_cells(design: Design, min_cells: int) -> Design:
    n_target, n_reference, _ = design.cells()
    few = (n_target < min_cells) | (n_reference < min_cells)
    if not few.any():
        return design
    if few.all():
        raise LabelError(
            f"min_cells={min_cells} leaves no comparison: the largest target has "
            f"{n_target.max()} cells, the largest reference {n_reference.max()}. Lower min_cells."
        )
    _say_left_out(design, few, f"target or reference has fewer than {min_cells} cells")
    return keep_rows(design, ~few)


def _say_left_out(design: Design, rows: np.ndarray, why: str) -> None:
    labels = design.targets[rows]
    if design.within is not None:
        levels = map(level_text, design.within[rows])
        labels = [f"{t} in {level}" for t, level in zip(labels, levels, strict=True)]
    warn(
        f"{np.count_nonzero(rows)} of {design.n_rows} comparisons are left out because {why}: "
        f"{listing(list(labels))}.",
        SkippedWarning,
    )


def keep_rows(design: Design, keep: np.ndarray) -> Design:
    """Return the design with some of its rows only; the packing of groups does not change."""
    if keep.all():
        return design
    new = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
    contrasts = []
    for contrast in design.contrasts:
        rows = new[contrast.rows]
        if contrast.against != "rest":  # in a rest, groups without a row still count
            used = np.concatenate([[True], rows >= 0])
            contrast = replace(
                contrast, groups=contrast.groups[used], n_cells=contrast.n_cells[used]
            )
            rows = rows[rows >= 0]
        if (rows >= 0).any():
            contrasts.append(replace(contrast, rows=rows))
    return replace(
        design,
        contrasts=tuple(contrasts),
        targets=design.targets[keep],
        references=design.references[keep],
        within=None if design.within is None else design.within[keep],
    )


# --- labels ----------------------------------------------------------------------------------


def _sorted(labels: list[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:  # labels of mixed types
        return sorted(labels, key=str)


def match_label(label: object, known: set[Any], by_text: dict[str, Any]) -> object:
    """Return the label as it stands in the column: ``"3"`` finds the integer 3, as in a shell.

    It also finds the number 3.0: columns in which a value is missing store integers as floats.
    Bytes find the text that they encode. A value equal to a label but of another type, as True and
    1.0 are equal to 1, gives the column's own label.
    """
    label = label.decode("utf-8", "replace") if isinstance(label, bytes) else label
    own = by_text.get(str(label))
    if label in known:
        return own if own == label else next(one for one in known if one == label)
    if own is not None:
        return own
    try:
        found = by_text.get(str(float(str(label))))
    except ValueError:
        return label
    return found if isinstance(found, float) else label
