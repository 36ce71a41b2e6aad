"""Results in memory: arrays of all groups and genes, NaN until a range is stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import InitVar, dataclass, field

import numpy as np

from ..arrays import nan_filled
from ..errors import MemoryBudgetError
from ..pools import Map
from .base import RangeResult, check_complete, mark_stored

_FLOAT = 8
# Six columns, and what adjusting p-values takes beside them.
_BYTES_PER_ROW = 6 * _FLOAT + 12
_SPARE = 1 << 26  # not worth refusing


def check_result_size(n_groups: int, n_genes: int, budget: int) -> None:
    """Raise MemoryBudgetError if the whole result does not fit in `budget` bytes."""
    needed = (n_groups - 1) * n_genes * _BYTES_PER_ROW
    if needed > budget + _SPARE:
        raise MemoryBudgetError(
            f"The result of {n_groups - 1:,} targets x {n_genes:,} genes takes {needed:,} bytes in "
            f"memory, but memory= allows {budget:,}. Write it to a file with out=, which holds "
            "none of it, or give more memory with memory=."
        )


@dataclass
class MemorySink:
    """Result arrays, each range stored exactly once; see :class:`.base.Sink`."""

    n_groups: int
    n_genes: int
    expm1: bool
    run: InitVar[Map] = map
    fractional: bool = False
    mean: np.ndarray = field(init=False)
    mean_expm1: np.ndarray | None = field(init=False)
    statistic: np.ndarray = field(init=False)
    p_value: np.ndarray = field(init=False)
    stored: np.ndarray = field(init=False)

    def __post_init__(self, run: Map) -> None:
        groups, pairs = (self.n_groups, self.n_genes), (self.n_groups - 1, self.n_genes)
        self.mean = nan_filled(groups, run)
        self.mean_expm1 = nan_filled(groups, run) if self.expm1 else None
        self.statistic = nan_filled(pairs, run)
        self.p_value = nan_filled(pairs, run)
        self.stored = np.zeros(self.n_genes, np.uint8)

    @property
    def n_bytes(self) -> int:
        """See :class:`.base.Sink`."""
        return (3 + self.expm1) * _FLOAT * self.n_groups * self.n_genes

    def expect(self, edges: Sequence[int]) -> None:
        """See :meth:`.base.Sink.expect`; any range will do."""

    def store(self, result: RangeResult) -> None:
        """See :meth:`.base.Sink.store`."""
        genes = result.genes
        mark_stored(self.stored, genes)
        self.mean[:, genes] = result.mean
        if self.mean_expm1 is not None:
            self.mean_expm1[:, genes] = result.mean_expm1
        self.statistic[:, genes] = result.statistic
        self.p_value[:, genes] = result.p_value

    def commit(self, genes: slice, fractional: bool) -> None:
        """See :meth:`.base.Sink.commit`."""
        check_complete(self.stored[genes])
        self.fractional |= fractional

    def start_over(self) -> None:
        """See :meth:`.base.Sink.start_over`."""
        for array in (self.mean, self.mean_expm1, self.statistic, self.p_value):
            if array is not None:
                array.fill(np.nan)
        self.stored.fill(0)
        self.fractional = False

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        check_complete(self.stored)
