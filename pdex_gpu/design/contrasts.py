"""The design of a run: groups of cells as blocks hold them, and the contrasts between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .against import Against


@dataclass(frozen=True)
class Contrast:
    """The groups of a design that are compared in one pass.

    Attributes
    ----------
    groups : numpy.ndarray, shape (n,), int64
        Groups of the design, ascending, except that a reference comes first.
    n_cells : numpy.ndarray, shape (n,), int64
        Number of cells in each.
    against : Against
        What each target is compared with.
    rows : numpy.ndarray, shape (n_targets,), int64
        Row of the result that each target's comparison belongs to, -1 for none. Contrasts of
        several strata share rows.
    """

    groups: np.ndarray
    n_cells: np.ndarray
    against: Against
    rows: np.ndarray

    @property
    def pooled(self) -> bool:
        """Return whether targets are compared with a pool that includes their own cells."""
        return self.against is not Against.REFERENCE

    @property
    def one_vs_rest(self) -> bool:
        """Return whether the pool is all the groups together, each of them a target."""
        return self.against is Against.REST

    @property
    def first_target(self) -> int:
        """Return the position of the first target in `groups`: 1 after a reference or a pool."""
        return 0 if self.one_vs_rest else 1

    @property
    def n_targets(self) -> int:
        """Return the number of targets, the first axis of kernel results for the contrast."""
        return len(self.groups) - self.first_target

    @property
    def targets(self) -> np.ndarray:
        """Return the groups of the targets, shape (n_targets,)."""
        return self.groups[self.first_target :]

    @property
    def n_target(self) -> np.ndarray:
        """Return the number of cells of each target, shape (n_targets,), int64."""
        return self.n_cells[self.first_target :]

    @property
    def n_reference(self) -> np.ndarray:
        """Return the number of cells each target is compared with, shape (n_targets,), int64."""
        if self.pooled:
            return self.n_pooled - self.n_target
        return np.broadcast_to(self.n_cells[:1], self.n_target.shape)

    @property
    def n_pooled(self) -> int:
        """Return the number of cells in the largest sample that is ranked at once."""
        if self.one_vs_rest:
            return int(self.n_cells.sum())
        if self.pooled:
            return int(self.n_cells[0])
        return int(self.n_cells[0] + self.n_cells[1:].max(initial=0))

    @property
    def span(self) -> slice | None:
        """Return the groups as a slice of the design's groups, or None if not contiguous."""
        first, n = int(self.groups[0]), len(self.groups)
        if np.array_equal(self.groups, np.arange(first, first + n)):
            return slice(first, first + n)
        return None


@dataclass(frozen=True)
class Design:
    """Groups of cells, as blocks are packed, and the contrasts between these groups.

    Attributes
    ----------
    order : numpy.ndarray, shape (n_selected,), int64
        Cells in group order, ascending within a group; cells of no group are left out.
    offsets : numpy.ndarray, shape (n_groups + 1,), int64
        Cells of group ``g`` are ``order[offsets[g]:offsets[g + 1]]``; no group is empty.
    codes : numpy.ndarray, shape (n_cells,), int64
        Group of each cell, -1 for none.
    contrasts : tuple of Contrast
    targets, references : numpy.ndarray, shape (n_rows,), object
        Labels of the rows of the result.
    within : numpy.ndarray or None, shape (n_rows,), object
        Level within which a row's comparison is made; for several columns, a tuple of levels.
    stratified : bool
        Whether a row may combine several strata.
    """

    order: np.ndarray
    offsets: np.ndarray
    codes: np.ndarray
    contrasts: tuple[Contrast, ...]
    targets: np.ndarray
    references: np.ndarray
    within: np.ndarray | None = None
    stratified: bool = False

    def __getstate__(self) -> dict[str, Any]:
        # Order and offsets follow from the codes, which take a byte or two per cell.
        state = dict(self.__dict__)
        del state["order"], state["offsets"]
        small = next(t for t in (np.int8, np.int16, np.int32) if self.n_groups <= np.iinfo(t).max)
        state["codes"] = self.codes.astype(small)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        codes = state["codes"].astype(np.int64)
        order, offsets = group_cells(codes, int(codes.max(initial=-1)) + 1)
        self.__dict__.update(state, codes=codes, order=order, offsets=offsets)

    @property
    def n_groups(self) -> int:
        """Return the number of groups of cells."""
        return len(self.offsets) - 1

    @property
    def n_cells(self) -> np.ndarray:
        """Return the number of cells per group, shape (n_groups,), int64."""
        return np.diff(self.offsets)

    @property
    def n_rows(self) -> int:
        """Return the number of result rows per gene."""
        return len(self.targets)

    @property
    def reference(self) -> object:
        """Return the label of the reference if all rows have the same one, else None."""
        first: object = self.references[0]
        return first if all(label == first for label in self.references[1:]) else None

    @property
    def one_reference(self) -> bool:
        """Return whether all rows are compared with the same cells."""
        one = len(self.contrasts) == 1 and not self.contrasts[0].pooled
        return one and not self.stratified  # results of strata have all rows

    @property
    def whole(self) -> bool:
        """Return whether one contrast gives all rows, in order."""
        return len(self.contrasts) == 1 and np.array_equal(
            self.contrasts[0].rows, np.arange(self.n_rows)
        )

    def cells(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Count target cells, reference cells and strata used by row, (n_rows,), int64 each."""
        found = np.zeros((3, self.n_rows), np.int64)
        for contrast in self.contrasts:
            used = contrast.rows >= 0
            rows = contrast.rows[used]
            found[0][rows] += contrast.n_target[used]
            found[1][rows] += contrast.n_reference[used]
            found[2][rows] += 1
        return found[0], found[1], found[2]


def group_cells(codes: np.ndarray, n_groups: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the cells in group order and the offset of each group, as in :class:`Design`."""
    selected = np.flatnonzero(codes >= 0)
    # numpy's stable sort is a radix sort for 16-bit integers, and a merge sort for wider ones.
    short = codes[selected].astype(np.int16 if n_groups <= 1 << 15 else np.int32)
    order = selected[np.argsort(short, kind="stable")].astype(np.int64)
    counts = np.bincount(codes[selected], minlength=n_groups)
    return order, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def labels_array(labels: Sequence[object]) -> np.ndarray:
    """Return a one-dimensional object array, even if labels are themselves sequences."""
    return np.fromiter(labels, dtype=object, count=len(labels))
