"""Labels become groups: a code per cell, cells per group, targets against one reference."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import (
    LabelError,
    MissingLabelWarning,
    OptionError,
    UnknownGroupWarning,
    listing,
    unknown,
)

logger = logging.getLogger("pdex_gpu")


@dataclass(frozen=True)
class Design:
    """Groups of cells: the reference is group 0, target ``t`` is group ``t + 1``.

    Attributes
    ----------
    order : numpy.ndarray, shape (n_selected,), int64
        Cells in group order, ascending within a group; cells of no group are left out.
    offsets : numpy.ndarray, shape (n_groups + 1,), int64
        Cells of group ``g`` are ``order[offsets[g]:offsets[g + 1]]``.
    codes : numpy.ndarray, shape (n_cells,), int64
        Group of each cell, -1 for none.
    targets : numpy.ndarray, shape (n_targets,), object
        Labels of the targets, in the order of the result rows.
    reference : object
        Label of the reference.
    """

    order: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    targets: np.ndarray
    reference: object

    @property
    def n_groups(self) -> int:
        """Groups, the reference included."""
        return len(self.offsets) - 1

    @property
    def n_cells(self) -> np.ndarray:
        """Cells a group, shape (n_groups,), int64."""
        return np.diff(self.offsets)


def make_design(
    codes: np.ndarray,
    categories: Sequence[object] | np.ndarray,
    *,
    reference: object,
    groups: Iterable[object] | None = None,
    column: str = "the group column",
) -> Design:
    """Encode one-target-against-one-reference comparisons.

    Parameters
    ----------
    codes : numpy.ndarray, shape (n_cells,), int
        Index into `categories` of each cell's label, -1 where the label is missing.
    categories : sequence, shape (n_categories,)
        Labels; those without a cell are ignored.
    reference : object
        Label of the reference group.
    groups : iterable, optional
        Labels to compare, in this order; by default every other label, sorted.
    column : str
        Name of the label column, for messages.

    Returns
    -------
    Design

    Raises
    ------
    LabelError
        If the reference has no cell or no target is left.
    """
    codes = np.asarray(codes)
    missing = int(np.count_nonzero(codes < 0))
    if missing:
        warnings.warn(
            f"{missing} of {len(codes)} cells have no label in {column!r} and are left out.",
            MissingLabelWarning,
            stacklevel=4,
        )
    counts = np.bincount(codes[codes >= 0], minlength=len(categories))
    present = _sorted([c for c, n in zip(categories, counts, strict=True) if n])
    position = {label: i for i, label in enumerate(categories)}

    asked_groups = _as_labels("groups", groups)
    _as_labels("reference", [reference])
    known = set(present)
    by_text = {str(label): label for label in present}
    reference = _match(reference, known, by_text)
    if reference is None or reference not in position or not counts[position[reference]]:
        asked = reference if reference is not None else "None"
        raise LabelError(unknown(f"reference in column {column!r}:", asked, present))

    if asked_groups is None:
        targets = [label for label in present if label != reference]
    else:
        matched = [_match(g, known, by_text) for g in asked_groups]
        absent = [g for g in matched if g not in known]
        targets = list(dict.fromkeys(g for g in matched if g in known and g != reference))
        if absent and targets:
            warnings.warn(
                f"Groups not found in column {column!r}, left out: {listing(absent)}.",
                UnknownGroupWarning,
                stacklevel=4,
            )
        elif absent:
            raise LabelError(unknown(f"group in column {column!r}:", absent[0], present))
    if not targets:
        raise LabelError(
            f"No target group is left to compare with {str(reference)!r} in column {column!r}: "
            f"found {listing(present)}. Give other groups or another reference."
        )

    new_code = np.full(len(categories) + 1, -1, dtype=np.int64)  # the last serves code -1
    for g, label in enumerate([reference, *targets]):
        new_code[position[label]] = g
    cell_codes = new_code[codes]
    n_groups = len(targets) + 1
    selected = np.flatnonzero(cell_codes >= 0)
    # numpy sorts 16-bit integers by radix, others by merging.
    short = cell_codes[selected].astype(np.int16 if n_groups <= 1 << 15 else np.int32)
    order = selected[np.argsort(short, kind="stable")].astype(np.int64)
    offsets = np.concatenate(
        [[0], np.cumsum(np.bincount(cell_codes[selected], minlength=n_groups))]
    )
    target_array = np.empty(len(targets), dtype=object)
    target_array[:] = targets
    return Design(order, offsets.astype(np.int64), cell_codes, target_array, reference)


def _sorted(labels: list[Any]) -> list[Any]:
    try:
        return sorted(labels)
    except TypeError:  # labels of mixed types
        return sorted(labels, key=str)


def _as_labels(name: str, labels: Any) -> list[Any] | None:
    """A list of labels, or None; one label in text stands for itself."""
    if labels is None:
        return None
    try:
        found = [labels] if isinstance(labels, str) else list(labels)
        set(found)
    except TypeError as error:  # not iterable, or a label that is itself a list
        raise OptionError(f"{name}={labels!r} must be labels of the column: {error}.") from error
    return found


def _match(label: object, known: set[Any], by_text: dict[str, Any]) -> object:
    """The label as it stands in the column: ``"3"`` finds the integer 3, as on a command line."""
    return label if label in known else by_text.get(str(label), label)
