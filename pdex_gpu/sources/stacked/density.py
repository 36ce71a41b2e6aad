"""Estimates of the entries of each gene in several matrices, from a look into a few of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...utils.parallel import Map
from .part import Part

# Most matrices of which entries are sampled; the others are taken to be like these. What is wrong
# is noticed once all were read: see :class:`..base.UnevenError`.
_SAMPLED = 3
_LEAST = 0.01  # of the mean: entries that a gene is taken to have where none were sampled


class Densities:
    """The entries of each gene in each matrix, estimated when they are first asked for.

    Parameters
    ----------
    parts : sequence of Part
    n_genes : int
        Genes of all matrices together.
    """

    def __init__(self, parts: Sequence[Part], n_genes: int) -> None:
        self._parts, self._n_genes = parts, n_genes
        self._found: list[np.ndarray] | None = None

    def of_parts(self, parallel_map: Map) -> list[np.ndarray]:
        """Return the entries of each gene of each matrix, in the order of the matrix's genes."""
        if self._found is None:
            self._found = self._estimate(parallel_map)
        return self._found

    def joined(self, n_genes: int, parallel_map: Map) -> np.ndarray:
        """Return the entries of the first `n_genes` joined genes."""
        total = np.zeros(n_genes)
        for part, found in zip(self._parts, self.of_parts(parallel_map), strict=True):
            kept = part.kept(n_genes)
            total[part.place[kept]] += found[kept]
        return total

    def _estimate(self, parallel_map: Map) -> list[np.ndarray]:
        unknown = [i for i, part in enumerate(self._parts) if not part.source.knows_density]
        places = np.linspace(0, len(unknown) - 1, min(_SAMPLED, len(unknown))).astype(int)
        like = set(unknown) - {unknown[place] for place in places.tolist()}
        found: dict[int, np.ndarray] = {}
        profile = np.zeros(self._n_genes)
        for i, part in enumerate(self._parts):
            if i in like:
                continue
            density = part.source.density(parallel_map)
            if density is None:  # all are stored
                density = np.full(part.source.n_genes, float(part.source.n_cells))
            found[i] = density
            if i in unknown:
                there = part.place >= 0
                profile[part.place[there]] += density[there]
        profile += max(_LEAST * float(profile.mean()), np.finfo(float).tiny) if len(profile) else 0
        for i in like:
            part = self._parts[i]
            own = np.where(part.place >= 0, profile[part.place], profile.mean())
            found[i] = own * (part.source.nnz / max(np.finfo(float).tiny, float(own.sum())))
        return [found[i] for i in range(len(self._parts))]
