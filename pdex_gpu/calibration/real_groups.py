"""The groups of a screen that mock perturbations are modelled on, and its control cells."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ..design.build import make_design
from ..design.labels import combined
from ..errors import LabelError, MissingLabelWarning, listing
from ..request.options import Settings
from ..sources.dataset import Dataset

_MOST_NAMED = 3


@dataclass(frozen=True)
class RealGroups:
    """The screen's own groups.

    Attributes
    ----------
    controls : numpy.ndarray, shape (n_control,), int64
        Rows of the control cells, ascending.
    blocks : numpy.ndarray, shape (n_control,), int64
        The combination of levels and stratum of each control cell.
    units : numpy.ndarray or None, shape (n_control,), int64
    targets : numpy.ndarray, shape (n_targets,), object
    wanted : numpy.ndarray, shape (n_targets, n_blocks), int64
        Number of cells of each target in each block that has control cells.
    n_cells : int
        Number of cells in the data.
    reference : str
        Name of the reference.
    """

    controls: np.ndarray
    blocks: np.ndarray
    units: np.ndarray | None
    targets: np.ndarray
    wanted: np.ndarray
    n_cells: int
    reference: str


def real_groups(dataset: Dataset, settings: Settings, units: str | None) -> RealGroups:
    """Return the groups of a screen, given the column of units.

    Raises
    ------
    LabelError
        If a cell that is used has no value in a column, or no target has enough cells.
    """
    column = settings.comparison.group_column
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MissingLabelWarning)
        design = make_design(
            dataset.labels.codes,
            dataset.labels.categories,
            reference=settings.comparison.reference,
            groups=settings.comparison.groups,
            column=column,
        )
    names = list(settings.comparison.within_columns)
    if settings.comparison.strata is not None:
        names.append(settings.comparison.strata)
    block, n_blocks = np.zeros(len(design.codes), np.int64), 1
    if names:
        block, n_blocks = _levels(dataset, names, design.codes >= 0)
    controls = np.flatnonzero(design.codes == 0)
    unit = None if units is None else _levels(dataset, [units], design.codes == 0)[0][controls]
    cells = np.flatnonzero(design.codes > 0)
    place = (design.codes[cells] - 1) * n_blocks + block[cells]
    wanted = np.bincount(place, minlength=design.n_rows * n_blocks).reshape(-1, n_blocks)
    wanted[:, np.bincount(block[controls], minlength=n_blocks) == 0] = 0
    used = wanted.sum(axis=1) >= settings.comparison.min_cells
    if not used.any():
        _no_target(settings, column, wanted)
    return RealGroups(
        controls,
        block[controls],
        unit,
        design.targets[used],
        wanted[used],
        len(design.codes),
        str(design.reference),
    )


def _levels(dataset: Dataset, names: list[str], used: np.ndarray) -> tuple[np.ndarray, int]:
    """Combine columns of obs; return the level of each cell and the number of levels."""
    found = combined([dataset.column(name) for name in names], names)
    missing = np.flatnonzero(used & (found.codes < 0))
    if len(missing):
        first = [dataset.cell_name(int(cell)) for cell in missing[:_MOST_NAMED]]
        raise LabelError(
            f"{len(missing):,} of the {np.count_nonzero(used):,} cells used have no value in "
            f"column {found.column!r}, such as {listing(first)}. Fill in the values, or remove "
            "these cells first."
        )
    return found.codes, len(found.names)


def _no_target(settings: Settings, column: str, wanted: np.ndarray) -> NoReturn:
    most = int(wanted.sum(axis=1).max())
    raise LabelError(
        f"No target in column {column!r} has min_cells={settings.comparison.min_cells} cells that "
        f"can be compared with the reference: the largest has {most}. Use a smaller min_cells, or "
        "check that reference and targets occur in the same strata and levels."
    )
