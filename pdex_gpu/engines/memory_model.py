"""The memory that a run takes: the one model behind planning and estimating.

Each constant says what it counts. Where it counts arrays, they are named, and a change of these
arrays has to change it. Where it is a choice, the reason is given; none of the choices changes a
result. Two more constants belong to the subpackage that allocates what they count:
:data:`~pdex_gpu.sources.sizes.BYTES_PER_CELL`, which counts what every call holds per cell, and
:data:`~pdex_gpu.sources.sizes.SPARE`, an excess that is not worth refusing. What a kernel set packs
a gene into is said by its `packed_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from ..errors import MemoryBudgetError
from ..sources.base import Source
from ..sources.sizes import BYTES_PER_CELL, SPARE
from ..utils.parallel import Map

FLOAT = 8
_INT = 8

#: Per group and gene of a range in flight. Counts the offsets of packed values (8), the counts per
#: group and their running sums while columns are packed (2 x 8), and the results that wait until
#: their range is stored (a mean, a statistic and a p-value: 3 x 8; where a call stores more,
#: :meth:`.columns.measure.Analysis.width` counts them as further groups). That makes 48. The rest
#: is for what kernels return (cells expressed, deviations, u2, ties), which exists for slices only.
BYTES_PER_PAIR = 64

#: Per cell of a range in flight: where its entries start and stop in a CSR chunk, and the counts or
#: bounds from which these were made (int64 each).
BYTES_PER_CELL_OF_RANGE = 3 * _INT

#: Most bytes of buffers while a file is read: a choice. Blocks of rows have at most 2**22 entries;
#: larger buffers do not make reading faster.
MOST_BUFFERS = 1 << 27
#: Part of the budget that buffers take if that is less: a choice, so that most is left for ranges.
_PART_FOR_BUFFERS = 8

#: A file that is read whole and split keeps entries in at least this share of the budget: a choice.
#: Less would send entries to the scratch file only so that ranges may be wider.
LEAST_HELD = 0.25

#: Widest range, in genes, of a matrix that is split: kept gene indices then take one byte each.
NARROW = 256

#: Factor on sampled entries per gene: a choice. A source that samples is off by some per cent; a
#: range that still exceeds the plan is noticed (``UnevenError``) and planned again.
UNEVEN = 1.3

#: Per row of a result in memory, besides its stored fields: fold change, percent change and FDR
#: (float64), and what adjusting takes: a key and a place of 8 and 4 bytes.
BYTES_PER_ROW = 3 * FLOAT + 12

#: Largest part of a result that is stored as one file: a choice, as at most this is lost in a
#: crash. Counted for the fewest fields that a test has: statistic, p-value and mean.
_BYTES_STORED_TOGETHER = 64_000_000
_STORED_FIELDS = 3
#: The same in pairs of group and gene.
RESULTS_PER_RANGE = _BYTES_STORED_TOGETHER // (_STORED_FIELDS * FLOAT)

# A split matrix, see `sources.rechunk`. Each value is a one-byte number, and a table says what the
# numbers mean. The table takes at most one byte per entry, if a cell has enough entries for values
# to repeat. Values of short types are stored as they are.
_REPEATING = 200
_SHORT = 4
_COUNTED_IN_TWO_BYTES = 1 << 16

#: Returns the bytes that a kernel set packs a gene into, given cells, entries and their type.
PackedBytes = Callable[[int, float, np.dtype], float]


@dataclass(frozen=True)
class MemoryModel:
    """The bytes that reading and computing ranges of a matrix takes.

    Attributes
    ----------
    source : Source
    n_groups : int
        Number of groups, including the reference.
    packed_bytes : callable
        See :meth:`.backends.contract.KernelSet.packed_bytes`.
    density : callable
        Returns the entries per gene, as :meth:`.sources.base.Source.density` does.
    measured : int
        Bytes that a test measures for each entry and for the zeros of each group; see
        :attr:`.columns.measure.Analysis.bytes_per_entry`. They exist for slices of a range only,
        which may hold most of its entries: all genes of a range are counted.
    """

    source: Source
    n_groups: int
    packed_bytes: PackedBytes
    density: Callable[[Map], np.ndarray | None]
    measured: int = 0

    @classmethod
    def of(
        cls, source: Source, n_groups: int, packed_bytes: PackedBytes, measured: int = 0
    ) -> MemoryModel:
        """Return the model of a matrix that is asked for its entries per gene."""
        return cls(source, n_groups, packed_bytes, source.density, measured)

    def buffers(self, budget: int) -> int:
        """Return the bytes of buffers for reading within a budget."""
        return 0 if self.source.in_memory else min(MOST_BUFFERS, budget // _PART_FOR_BUFFERS)

    @property
    def whole_run(self) -> int:
        """Return the bytes that are taken from start to end, whatever the ranges."""
        return BYTES_PER_CELL * self.source.n_cells

    @property
    def per_range(self) -> int:
        """Return the bytes of a range that do not depend on its genes."""
        return BYTES_PER_CELL_OF_RANGE * self.source.n_cells

    def genes(self, entries: np.ndarray) -> np.ndarray:
        """Return the bytes of stored, packed and measured genes of a range, given their entries."""
        source = self.source
        stored = 0 if source.in_memory else source.bytes_per_entry
        empty, one = (self.packed_bytes(source.n_cells, n, source.dtype) for n in (0.0, 1.0))
        per_entry = one - empty + stored + self.measured
        return empty + per_entry * entries + (BYTES_PER_PAIR + self.measured) * self.n_groups

    def mean_gene(self) -> float:
        """Return the bytes of a gene with as many entries as genes have on average."""
        return float(self.genes(np.array(self.source.nnz / max(1, self.source.n_genes))))

    def mean_genes(self) -> np.ndarray:
        """Return the bytes of all genes as if each had equally many entries."""
        return np.full(self.source.n_genes, self.mean_gene())

    def counted_genes(self, parallel_map: Map) -> np.ndarray | None:
        """Return the bytes of all genes, with a margin; None if all have equally many entries."""
        density = self.density(parallel_map)
        return None if density is None else self.genes(UNEVEN * density)

    @property
    def all_entries(self) -> int:
        """Return the bytes of all entries as read."""
        return self.source.nnz * self.source.bytes_per_entry

    def kept_bytes(self, n_ranges: int) -> tuple[int, int]:
        """Return the least and most bytes that the entries of a split matrix take anywhere."""
        source, item = self.source, self.source.dtype.itemsize
        if is_dense(source):
            return source.nnz * item, source.nnz * item
        count = 2 if source.n_genes < _COUNTED_IN_TWO_BYTES else 4
        counts = count * source.n_cells * n_ranges
        if item < _SHORT:
            least = most = 1 + item
        else:
            repeating = source.nnz >= _REPEATING * source.n_cells
            least, most = 2, 3 if repeating else 1 + item
        return least * source.nnz + counts, most * source.nnz + counts


def is_dense(source: Source) -> bool:
    """Return whether all cells x genes are stored, so that nonzeros are not known."""
    return source.nnz == source.n_cells * source.n_genes


@dataclass(frozen=True)
class ResultSize:
    """The bytes of a result.

    Attributes
    ----------
    fields : mapping of str to int
        Values per gene of each stored field.
    n_rows, n_columns, n_genes : int
        Rows per gene, and further columns computed from fields.
    null : int
        Bytes of null p-values that rows are judged against; rows are then held once more.
    """

    fields: Mapping[str, int]
    n_rows: int
    n_columns: int
    n_genes: int
    null: int = 0

    @property
    def stored(self) -> int:
        """Return the bytes of the fields that are stored for all genes."""
        return FLOAT * sum(self.fields.values()) * self.n_genes

    @property
    def in_memory(self) -> int:
        """Return the bytes of the whole result in memory, as it is finished."""
        per_row = BYTES_PER_ROW + FLOAT * self.n_columns + (FLOAT if self.null else 0)
        return self.stored + self.null + per_row * self.n_rows * self.n_genes

    def check(self, budget: int) -> None:
        """Raise MemoryBudgetError if the whole result does not fit in `budget` bytes."""
        if self.in_memory > budget + SPARE:
            raise MemoryBudgetError(
                f"The result of {self.n_rows:,} targets x {self.n_genes:,} genes takes "
                f"{self.in_memory:,} bytes in memory, but memory= allows {budget:,}. Write it to a "
                "file with out=, which does not hold it in memory, or allow more with memory=."
            )


def null_bytes(n_groups: int, n_genes: int, n_fields: int) -> int:
    """Return the bytes that the results of mock groups take: all at once, and as null p-values.

    These are selected from the results, and copied when they are sorted.

    Parameters
    ----------
    n_groups, n_genes : int
    n_fields : int
        Fields stored for each mock group.
    """
    return FLOAT * (n_fields + 2) * n_groups * n_genes


def check_null(needed: int, budget: int) -> None:
    """Raise MemoryBudgetError if null p-values take more than half of `budget` bytes."""
    if needed > budget // 2 + SPARE:
        raise MemoryBudgetError(
            f"fdr_method='empirical' needs {needed:,} bytes for the p-values of mock groups, which "
            f"must be half of the memory at most, but memory= allows {budget:,}. Allow more with "
            "memory=, or use another fdr_method."
        )


def most_genes_stored_together(asked: int | None, n_groups: int) -> int:
    """Return the largest number of genes in a range whose results are stored together."""
    narrow = max(1, RESULTS_PER_RANGE // n_groups)
    return min(asked or narrow, narrow)
