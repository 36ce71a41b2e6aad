"""Results in memory: arrays of all groups and genes, NaN until a range is stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..errors import MemoryBudgetError
from ..utils.arrays import nan_filled
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .base import RangeResult, check_complete, mark_stored

_FLOAT = 8
# Changes and FDR, plus what adjusting p-values takes.
BYTES_PER_ROW = 3 * _FLOAT + 12
_SPARE = 1 << 26  # bytes; an excess up to this is not worth refusing


def check_result_size(
    fields: Mapping[str, int], n_rows: int, n_columns: int, n_genes: int, budget: int
) -> None:
    """Raise MemoryBudgetError if the whole result does not fit in `budget` bytes.

    Parameters
    ----------
    fields : mapping of str to int
        Values per gene of each stored field.
    n_rows, n_columns, n_genes : int
        Rows per gene, and further columns computed from fields.
    budget : int
    """
    a_gene = _FLOAT * sum(fields.values()) + (BYTES_PER_ROW + _FLOAT * n_columns) * n_rows
    needed = a_gene * n_genes
    if needed > budget + _SPARE:
        raise MemoryBudgetError(
            f"The result of {n_rows:,} targets x {n_genes:,} genes takes {needed:,} bytes in "
            f"memory, but memory= allows {budget:,}. Write it to a file with out=, which does not "
            "hold it in memory, or allow more with memory=."
        )


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

    def __init__(self, fields: Mapping[str, int], n_genes: int, run: Map = map) -> None:
        self.arrays = {name: nan_filled((n, n_genes), run) for name, n in fields.items()}
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
