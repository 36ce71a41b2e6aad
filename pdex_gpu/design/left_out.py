"""Rows of a design that cannot be computed, or have too few cells, are left out."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from ..errors import LabelError, SkippedWarning, listing, warn
from .contrasts import Design
from .labels import Levels
from .naming import level_text

logger = logging.getLogger("pdex_gpu")


def without_empty_rows(design: Design, strata: Levels | None) -> Design:
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
        _warn_of_rows(design, used == 0, f"they or their reference have no cell in {where}")
    return _with_rows(design, used > 0)


def with_enough_cells(design: Design, min_cells: int) -> Design:
    """Leave out rows with fewer than `min_cells` cells on either side, with a warning."""
    n_target, n_reference, _ = design.cells()
    few = (n_target < min_cells) | (n_reference < min_cells)
    if not few.any():
        return design
    if few.all():
        raise LabelError(
            f"min_cells={min_cells} leaves no comparison: the largest target has "
            f"{n_target.max()} cells, the largest reference {n_reference.max()}. Lower min_cells."
        )
    _warn_of_rows(design, few, f"they or their reference have fewer than {min_cells} cells")
    return _with_rows(design, ~few)


def _warn_of_rows(design: Design, rows: np.ndarray, why: str) -> None:
    labels = design.targets[rows]
    if design.within is not None:
        levels = map(level_text, design.within[rows])
        labels = [f"{t} in {level}" for t, level in zip(labels, levels, strict=True)]
    warn(
        f"{np.count_nonzero(rows)} of {design.n_rows} comparisons are left out because {why}: "
        f"{listing(list(labels))}.",
        SkippedWarning,
    )


def _with_rows(design: Design, keep: np.ndarray) -> Design:
    """Return the design with some of its rows only; the packing of groups does not change."""
    if keep.all():
        return design
    new = np.append(np.where(keep, np.cumsum(keep) - 1, -1), -1)
    contrasts = []
    for contrast in design.contrasts:
        rows = new[contrast.rows]
        if not contrast.one_vs_rest:  # in a rest, groups without a row still count
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
