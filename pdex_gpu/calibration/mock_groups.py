"""Random splits of control cells into mock groups, as many and as large as real ones allow."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import LabelError

#: Codes of the mock control, and of cells on neither side.
CONTROL, LEFT_OUT = -1, -2

#: Largest share of its cells that a mock group may lack where strata have too few controls.
_MOST_LACKING = 0.1


@dataclass(frozen=True)
class Split:
    """A split of the control cells into mock groups and a mock control.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_control,), int64
        Mock group of each control cell, `CONTROL` or `LEFT_OUT`.
    targets : numpy.ndarray, shape (n_groups,), int64
        The target whose size each mock group has, ascending.
    """

    codes: np.ndarray
    targets: np.ndarray

    @property
    def n_cells(self) -> np.ndarray:
        """Return the number of cells of each mock group, shape (n_groups,), int64."""
        return np.bincount(self.codes[self.codes >= 0], minlength=len(self.targets))


def split_controls(
    rng: np.random.Generator,
    blocks: np.ndarray,
    wanted: np.ndarray,
    units: np.ndarray | None = None,
) -> Split:
    """Draw mock groups without replacement, leaving at least half of each block to the control.

    Targets are taken in random order; a target that the remaining cells cannot match is skipped.
    With several blocks a mock group may lack a tenth of its cells. If no target can be matched,
    there is one mock group: for the target with the most available cells, as large as possible.

    Parameters
    ----------
    rng : numpy.random.Generator
    blocks : numpy.ndarray, shape (n_control,), int64
        Block (stratum) of each control cell, from 0.
    wanted : numpy.ndarray, shape (n_targets, n_blocks), int64
        Number of cells of each target in each block that has controls, at least one in total.
    units : numpy.ndarray, optional, shape (n_control,), int64
        Unit of each control cell, from 0. Cells of one unit are never on both sides, and a mock
        group has cells of as few units as its size allows. The rest of a used unit is left out.

    Raises
    ------
    LabelError
        If not even a mock group of two cells and a control of two can be drawn.
    """
    n_blocks = wanted.shape[1]
    pool = _pool(rng, blocks, n_blocks, units)
    budget = np.array([len(cells) for cells in pool])
    if budget.sum() < 2:
        raise LabelError(
            f"The reference has {len(blocks)} cells"
            f"{'' if n_blocks == 1 else f' in {n_blocks} strata'}"
            f"{'' if units is None else f' of {len(np.unique(units))} units'}: too few to split "
            "into a mock group of 2 cells and a mock control of 2 (at least half of each stratum "
            "stays control, and units are not split). Use a larger reference."
        )
    taken = _taken(rng.permutation(len(wanted)), wanted, budget)
    codes = np.full(len(blocks), CONTROL, np.int64)
    targets = np.array(sorted(taken), np.int64)
    first = np.zeros(n_blocks, np.int64)
    for group, target in enumerate(targets.tolist()):
        last = first + taken[target]
        for b in np.flatnonzero(taken[target]).tolist():
            codes[pool[b][first[b] : last[b]]] = group
        first = last
    if units is not None:
        used = np.zeros(int(units.max()) + 1, bool)
        used[units[codes >= 0]] = True
        codes[used[units] & (codes == CONTROL)] = LEFT_OUT
    return Split(codes, targets)


def _pool(
    rng: np.random.Generator, blocks: np.ndarray, n_blocks: int, units: np.ndarray | None
) -> list[np.ndarray]:
    """Return the cells of each block that mock groups may use: at most half, in random order.

    Only units that fit are used, and their order is the same in all blocks.
    """
    n_cells = np.bincount(blocks, minlength=n_blocks)
    shuffled = rng.permutation(len(blocks))
    if units is None:
        by_block = np.split(
            shuffled[np.argsort(blocks[shuffled], kind="stable")], np.cumsum(n_cells)[:-1]
        )
        return [cells[: len(cells) // 2] for cells in by_block]
    n_units = int(units.max()) + 1
    place = np.full(n_units, n_units)
    left = n_cells // 2
    of_unit = np.argsort(units, kind="stable")
    ends = np.cumsum(np.bincount(units, minlength=n_units))
    for k, unit in enumerate(rng.permutation(n_units).tolist()):
        own = of_unit[ends[unit - 1] if unit else 0 : ends[unit]]
        counts = np.bincount(blocks[own], minlength=n_blocks)
        if (counts <= left).all():
            place[unit] = k
            left = left - counts
    ordered = shuffled[np.argsort(place[units[shuffled]], kind="stable")]
    ordered = ordered[place[units[ordered]] < n_units]
    return [ordered[blocks[ordered] == b] for b in range(n_blocks)]


def _taken(order: np.ndarray, wanted: np.ndarray, budget: np.ndarray) -> dict[int, np.ndarray]:
    """Return the targets that get a mock group, with its number of cells in each block."""
    left = budget.copy()
    taken: dict[int, np.ndarray] = {}
    lacking = 0.0 if len(budget) == 1 else _MOST_LACKING
    for target in order.tolist():
        had = np.minimum(wanted[target], left)
        if had.any() and had.sum() >= (1.0 - lacking) * wanted[target].sum():
            taken[target] = had
            left -= had
        if not left.any():
            break
    if taken:
        return taken
    best = int(order[np.argmax(np.minimum(wanted[order], budget).sum(axis=1))])
    taken[best] = np.minimum(wanted[best], budget)
    if taken[best].sum() < 2:
        raise LabelError(
            "No mock group of 2 cells can be drawn: the reference has too few cells in the strata "
            "of the targets. Leave out strata=, or use another reference."
        )
    return taken
