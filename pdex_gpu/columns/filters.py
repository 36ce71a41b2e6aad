"""The selection of (row, gene) pairs for the result: filters, and leaving out own genes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Container
from dataclasses import dataclass

import numpy as np

from ..design.contrasts import Design

logger = logging.getLogger("pdex_gpu")

#: Returns a field's values for some rows; one row if all rows share it.
Read = Callable[[str, slice], np.ndarray]

_PAIRS_PER_BLOCK = 1 << 20
_SIDES = ("target", "reference")


@dataclass(frozen=True)
class Filters:
    """The conditions for a pair to be in the result.

    Attributes
    ----------
    min_fraction : float, optional
        Least fraction of expressing cells, over both sides together.
    min_cpm : float, optional
        Counts per million that the gene must exceed: its mean in count space over the sum of all
        genes' means, times a million; over both sides together.
    either_side : bool
        Whether `min_cpm` applies to the target or the reference, whichever has more (as in pdex
        0.3), instead of both together. This selects rows by the outcome: where groups are small,
        it keeps rows whose counts happen to lie on one side.
    own_gene : numpy.ndarray, optional, shape (n_rows,), int64
        Own gene of each row's target; negative if none.
    """

    min_fraction: float | None = None
    min_cpm: float | None = None
    either_side: bool = False
    own_gene: np.ndarray | None = None

    @property
    def of_values(self) -> bool:
        """Return whether pairs may be left out for the values of a gene."""
        return not (self.min_fraction is None and self.min_cpm is None)

    @property
    def any(self) -> bool:
        """Return whether pairs may be left out."""
        return self.of_values or self.own_gene is not None


def find_kept(
    filters: Filters,
    n_rows: int,
    n_genes: int,
    read: Read,
    count_mean: str,
    *,
    tells: bool = True,
) -> tuple[np.ndarray | None, dict[str, int]]:
    """Return which pairs are kept, shape (n_rows, n_genes), and how many each filter removed.

    The mask is None if there is no filter. A pair that several filters would remove counts for the
    first.

    Parameters
    ----------
    filters : Filters
    n_rows, n_genes : int
    read : callable
        Returns values of stored fields, and numbers of cells (:func:`with_cells`).
    count_mean : str
        The stored mean that is in count space: ``"mean"`` or ``"mean_expm1"``.
    tells : bool
        Whether the log says how many pairs each filter removed.
    """
    if not filters.any:
        return None, {}
    kept = np.ones((n_rows, n_genes), bool)
    removed: dict[str, int] = {}
    step = max(1, _PAIRS_PER_BLOCK // max(1, n_genes))
    blocks = [slice(r, min(r + step, n_rows)) for r in range(0, n_rows, step)]
    for rows in blocks:
        for name, passes in _passes(filters, rows, n_genes, read, count_mean):
            before = np.count_nonzero(kept[rows])
            kept[rows] &= passes
            gone = before - np.count_nonzero(kept[rows])
            removed[name] = removed.get(name, 0) + int(gone)
    if not tells:
        return kept, removed
    for name, n in removed.items():
        logger.info("%s removed %d of %d (target, gene) pairs", name, n, kept.size)
    if not kept.any():
        logger.warning("no row is left: %s removed all (target, gene) pairs", " and ".join(removed))
    return kept, removed


def with_cells(read: Read, stored: Container[str], design: Design) -> Read:
    """Extend `read` by the design's numbers of cells, where none are stored per gene."""
    names = "target_n_cells", "reference_n_cells", "n_strata"
    cells = dict(zip(names, design.cells(), strict=True))

    def found(name: str, rows: slice) -> np.ndarray:
        if name in stored or name not in cells:
            return read(name, rows)
        return cells[name][rows, None]

    return found


def _passes(
    filters: Filters, rows: slice, n_genes: int, read: Read, count_mean: str
) -> list[tuple[str, np.ndarray]]:
    def both(name: str) -> np.ndarray:
        return read(f"target_{name}", rows) + read(f"reference_{name}", rows)

    found = []
    if filters.own_gene is not None:
        own = np.zeros((rows.stop - rows.start, n_genes), bool)
        genes = filters.own_gene[rows]
        own[np.flatnonzero(genes >= 0), genes[genes >= 0]] = True
        found.append(("on_target", own))
    if filters.min_fraction is not None:
        with np.errstate(invalid="ignore"):  # without any cell, a pair is not kept
            fraction = both("n_expressed") / both("n_cells")
        found.append(("min_fraction", fraction >= filters.min_fraction))
    if filters.min_cpm is not None:
        means = [read(f"{side}_{count_mean}", rows) for side in _SIDES]
        if not filters.either_side:
            cells = [read(f"{side}_n_cells", rows) for side in _SIDES]
            means = [_pooled(means, cells)]
        passes = [_cpm(mean) > filters.min_cpm for mean in means]
        found.append(("min_cpm", np.logical_or.reduce(np.broadcast_arrays(*passes))))
    return found


def _pooled(means: list[np.ndarray], cells: list[np.ndarray]) -> np.ndarray:
    """Return the mean over both sides together; NaN where there is no cell."""
    sums = [np.where(n == 0.0, 0.0, n * mean) for n, mean in zip(cells, means, strict=True)]
    with np.errstate(invalid="ignore"):
        found: np.ndarray = (sums[0] + sums[1]) / (cells[0] + cells[1])
    return found


def _cpm(means: np.ndarray) -> np.ndarray:
    """Return the pooled counts per million of each gene, 0 where a sample has no counts."""
    total = np.nansum(means, axis=1, keepdims=True)  # genes without a value have NaN
    cpm: np.ndarray = means / np.where(total == 0.0, 1.0, total) * 1e6
    return cpm
