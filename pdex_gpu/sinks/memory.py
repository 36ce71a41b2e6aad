"""Results in memory: arrays of all groups and genes, NaN until a range is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..utils.arrays import nan_filled
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .base import RangeResult, check_complete, mark_stored


class MemorySink:
    """Result arrays, each gene stored exactly once; see :class:`.base.Sink`.

    Parameters
    ----------
    fields : mapping of str to int
        Values per gene of each field.
    n_genes : int
    run : callable
        Spreads the initial filling over threads.

    Attributes
    ----------
    arrays : dict of str to numpy.ndarray, shape (values per gene, n_genes), float64
    """

    def __init__(self, fields: Mapping[str, int], n_genes: int, parallel_map: Map = map) -> None:
        self.arrays = {name: nan_filled((n, n_genes), parallel_map) for name, n in fields.items()}
        self.stored = np.zeros(n_genes, np.uint8)
        self.summary = ValueSummary()

    @property
    def n_bytes(self) -> int:
        """See :class:`.base.Sink`."""
        return sum(array.nbytes for array in self.arrays.values())

    def expect(self, edges: Sequence[int]) -> None:
        """See :meth:`.base.Sink.expect`; any range will do."""

    def store(self, result: RangeResult) -> None:
        """See :meth:`.base.Sink.store`."""
        genes = result.genes
        mark_stored(self.stored, genes)
        for name, array in self.arrays.items():
            array[:, genes] = result.values[name]

    def commit(self, genes: slice, summary: ValueSummary) -> None:
        """See :meth:`.base.Sink.commit`."""
        check_complete(self.stored[genes])
        self.summary |= summary

    def start_over(self) -> None:
        """See :meth:`.base.Sink.start_over`."""
        for array in self.arrays.values():
            array.fill(np.nan)
        self.stored.fill(0)
        self.summary = ValueSummary()

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        check_complete(self.stored)
