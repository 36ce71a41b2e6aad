"""The protocol of sinks, which take the results of each gene exactly once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..errors import CoverageError
from ..utils.value_summary import ValueSummary


@dataclass(frozen=True)
class RangeResult:
    """Results of genes ``[start, start + width)``.

    Attributes
    ----------
    start : int
    values : mapping of str to numpy.ndarray
        The fields of the sink, each of shape (its values per gene, width), float64.
    """

    start: int
    values: Mapping[str, np.ndarray]

    @property
    def genes(self) -> slice:
        return slice(self.start, self.start + self.values["p_value"].shape[1])


class RangeSink(Protocol):
    """Takes results gene by gene; threads may store different genes at once.

    Attributes
    ----------
    stored : numpy.ndarray, shape (n_genes,), uint8
        1 for genes whose results were passed to :meth:`store`.
    summary : ValueSummary
        Summary of the values in the ranges committed so far.
    """

    stored: np.ndarray
    summary: ValueSummary

    def store(self, result: RangeResult) -> None:
        """Take the results of a few genes."""
        ...

    def commit(self, genes: slice, summary: ValueSummary) -> None:
        """Commit a range whose genes are all stored; `summary` describes their values."""
        ...


class Sink(RangeSink, Protocol):
    """Takes the results of all genes of a call, whose ranges may be planned several times."""

    @property
    def n_bytes(self) -> int:
        """Return the bytes of memory it takes in total, not counting ranges in progress."""
        ...

    def expect(self, edges: Sequence[int]) -> None:
        """Announce the ranges to be committed: range ``k`` is ``[edges[k], edges[k + 1])``."""
        ...

    def start_over(self) -> None:
        """Discard all results: the matrix was not canonical; its sorted copy is read instead."""
        ...

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        ...


def mark_stored(stored: np.ndarray, genes: slice) -> None:
    """Mark genes as stored; raise CoverageError if one already was."""
    if stored[genes].any():
        raise CoverageError(f"genes {genes.start} to {genes.stop} were computed twice")
    stored[genes] = 1


def check_complete(stored: np.ndarray) -> None:
    """Raise CoverageError unless every gene was stored."""
    missing = np.flatnonzero(stored == 0)
    if len(missing):
        raise CoverageError(
            f"{len(missing)} of {len(stored)} genes were never computed, "
            f"the first is number {missing[0]}. This is a bug in pdex_gpu."
        )
