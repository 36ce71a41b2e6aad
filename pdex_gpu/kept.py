"""Which (row, gene) pairs are in the result: filters, and each target at its own gene."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

logger = logging.getLogger("pdex_gpu")

#: Values of a field of some rows; of one row where all share it.
Read = Callable[[str, slice], np.ndarray]

_PAIRS_A_BLOCK = 1 << 20


@dataclass(frozen=True)
class Filters:
    """What a pair needs to be in the result.

    Attributes
    ----------
    min_fraction : float, optional
        Least fraction of expressing cells in the target or in the reference.
    min_cpm : float, optional
        Pooled counts per million that the gene must exceed in the target or in the reference: its
        mean in count space over the sum of all genes' means, times a million (as pdex 0.3).
    own_gene : numpy.ndarray, optional, shape (n_rows,), int64
        The gene that each row is about, if about one.
    """

    min_fraction: float | None = None
    min_cpm: float | None = None
    own_gene: np.ndarray | None = None

    @property
    def any(self) -> bool:
        """Whether pairs may be left out."""
        return not (self.min_fraction is None and self.min_cpm is None and self.own_gene is None)


def find_kept(
    filters: Filters, n_rows: int, n_genes: int, read: Read, count_mean: str
) -> tuple[np.ndarray | None, dict[str, int]]:
    """Which pairs are kept, shape (n_rows, n_genes), and how many each filter removed.

    None if there is no filter. Of a pair that several filters would remove, the first counts.

    Parameters
    ----------
    filters : Filters
    n_rows, n_genes : int
    read : callable
        Gives values of stored fields.
    count_mean : str
        Which stored means are in count space: ``"mean"`` or ``"mean_expm1"``.
    """
    if not filters.any:
        return None, {}
    kept = np.ones((n_rows, n_genes), bool)
    removed: dict[str, int] = {}
    step = max(1, _PAIRS_A_BLOCK // max(1, n_genes))
    blocks = [slice(r, min(r + step, n_rows)) for r in range(0, n_rows, step)]
    for rows in blocks:
        for name, passes in _passes(filters, rows, n_genes, read, count_mean):
            before = np.count_nonzero(kept[rows])
            kept[rows] &= passes
            gone = before - np.count_nonzero(kept[rows])
            removed[name] = removed.get(name, 0) + int(gone)
    for name, n in removed.items():
        logger.info("%s removed %d of %d (target, gene) pairs", name, n, kept.size)
    if not kept.any():
        logger.warning("no row is left: %s removed all (target, gene) pairs", " and ".join(removed))
    return kept, removed


def _passes(
    filters: Filters, rows: slice, n_genes: int, read: Read, count_mean: str
) -> list[tuple[str, np.ndarray]]:
    found = []
    if filters.own_gene is not None:
        own = np.zeros((rows.stop - rows.start, n_genes), bool)
        genes = filters.own_gene[rows]
        own[np.flatnonzero(genes >= 0), genes[genes >= 0]] = True
        found.append(("on_target", own))
    if filters.min_fraction is not None:
        sides = [read(f"{side}_fraction", rows) for side in ("target", "reference")]
        passes = (sides[0] >= filters.min_fraction) | (sides[1] >= filters.min_fraction)
        found.append(("min_fraction", passes))
    if filters.min_cpm is not None:
        cpm = [_cpm(read(f"{side}_{count_mean}", rows)) for side in ("target", "reference")]
        found.append(("min_cpm", (cpm[0] > filters.min_cpm) | (cpm[1] > filters.min_cpm)))
    return found


def _cpm(means: np.ndarray) -> np.ndarray:
    """Pooled counts per million of each gene, 0 where a sample has no counts."""
    total = means.sum(axis=1, keepdims=True)
    cpm: np.ndarray = means / np.where(total == 0.0, 1.0, total) * 1e6
    return cpm
