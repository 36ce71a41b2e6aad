"""One of several matrices that are stacked."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..base import Source


@dataclass(frozen=True)
class Part:
    """One of several matrices.

    Attributes
    ----------
    name : str
    source : Source
    place : numpy.ndarray, shape (n_genes,), int64
        Position of each gene in the joined matrix; -1 if it is left out. Positions from the
        matrix's number of genes on are left out, too.
    """

    name: str
    source: Source
    place: np.ndarray

    def kept(self, n_genes: int) -> np.ndarray:
        """Return whether each gene is in a matrix of the first `n_genes` joined genes."""
        found: np.ndarray = (self.place >= 0) & (self.place < n_genes)
        return found
