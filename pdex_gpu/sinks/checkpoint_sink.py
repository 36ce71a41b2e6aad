"""Results in the files of a checkpoint: stored range by range, read back by target."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from typing import Protocol

import numpy as np

from ..errors import CheckpointError
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .base import RangeResult, check_complete, mark_stored
from .checkpoint import Checkpoint
from .range_file import DamagedRangeError, RangeFile


class CheckpointSink:
    """Holds the results of ranges in progress, and writes each range once it is complete.

    See :class:`.base.Sink`.

    Parameters
    ----------
    checkpoint : Checkpoint
        Ranges that it already holds count as stored.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self.checkpoint = checkpoint
        self.stored = np.zeros(checkpoint.n_genes, np.uint8)
        self.summary = checkpoint.summary
        self._edges = np.zeros(1, np.int64)
        self._in_work: dict[int, np.ndarray] = {}  # key: first gene of the range
        self._lock = threading.Lock()
        for done in checkpoint.ranges:
            mark_stored(self.stored, done.genes)

    @property
    def n_bytes(self) -> int:
        """See :class:`.base.Sink`."""
        return 0

    def expect(self, edges: Sequence[int]) -> None:
        """See :meth:`.base.Sink.expect`."""
        self._edges = np.asarray(edges)

    def store(self, result: RangeResult) -> None:
        """See :meth:`.base.Sink.store`."""
        start, values = self._range_of(result.start)
        mark_stored(self.stored, result.genes)
        genes = slice(result.genes.start - start, result.genes.stop - start)
        for field in self.checkpoint.fields:
            values[self.checkpoint.place(field), genes] = result.values[field]

    def commit(self, genes: slice, summary: ValueSummary) -> None:
        """See :meth:`.base.Sink.commit`."""
        check_complete(self.stored[genes])
        with self._lock:
            values = self._in_work.pop(genes.start)
            self.summary |= summary
        self.checkpoint.write(genes, summary, values)

    def adopt(self, written: RangeFile) -> None:
        """Register a range that another process wrote to the checkpoint's folder."""
        mark_stored(self.stored, written.genes)
        with self._lock:
            self.summary |= written.summary
        self.checkpoint.add(written)

    def start_over(self) -> None:
        """See :meth:`.base.Sink.start_over`."""
        self.checkpoint.start_over()
        self._in_work.clear()
        self.stored.fill(0)
        self.summary = ValueSummary()

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        check_complete(self.stored)

    def _range_of(self, gene: int) -> tuple[int, np.ndarray]:
        """Return the first gene of the range of `gene`, and the range's array, initially NaN."""
        k = int(np.searchsorted(self._edges, gene, side="right")) - 1
        start, stop = (int(edge) for edge in self._edges[k : k + 2])
        with self._lock:
            if start not in self._in_work:
                self._in_work[start] = np.full((self.checkpoint.n_values, stop - start), np.nan)
            return start, self._in_work[start]


class StoredResults:
    """The results in a complete checkpoint, read by rows from any thread.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._ranges = checkpoint.ranges
        self.n_rows, self.n_genes = checkpoint.fields["p_value"], checkpoint.n_genes

    @property
    def ranges(self) -> list[slice]:
        """Return the ranges of genes that were stored together."""
        return [stored.genes for stored in self._ranges]

    @property
    def fields(self) -> Collection[str]:
        """Return the names of the fields stored per gene."""
        return self._checkpoint.fields.keys()

    def n_values(self, field: str) -> int:
        """Return the number of values per gene of a field: 1 if all rows share it."""
        return self._checkpoint.fields[field]

    def read(self, field: str, rows: slice, parallel_map: Map = map) -> np.ndarray:
        """Read a field for some rows and all genes; `parallel_map` spreads the work.

        The shape is (n, n_genes), or (1, n_genes) if all rows share the field.
        """
        if self.n_values(field) == 1:
            rows = slice(0, 1)
        out = np.full((rows.stop - rows.start, self.n_genes), np.nan)
        for _ in parallel_map(lambda stored: self._copy(stored, field, rows, out), self._ranges):
            pass
        return out

    def read_range(self, field: str, k: int) -> np.ndarray:
        """Read a field for all rows and the genes of the `k`-th range."""
        stored = self._ranges[k]
        out = np.full((self.n_values(field), self.n_genes), np.nan)
        self._copy(stored, field, slice(0, len(out)), out)
        return out[:, stored.genes]

    def _copy(self, stored: RangeFile, field: str, rows: slice, out: np.ndarray) -> None:
        first = self._checkpoint.place(field).start
        lines = slice(first + rows.start, first + rows.start + len(out))
        try:
            stored.read(lines, out[:, stored.genes])
        except (OSError, DamagedRangeError) as error:
            raise CheckpointError(
                f"{str(stored.path)!r} cannot be read back: {error}. Was it changed or removed, or "
                "was its disk disconnected? Call again: only the damaged parts are computed again."
            ) from error


class StoredRows(Protocol):
    """Fields of stored results, read by rows or by ranges of genes; see :class:`StoredResults`."""

    @property
    def n_rows(self) -> int: ...

    @property
    def n_genes(self) -> int: ...

    @property
    def ranges(self) -> list[slice]: ...

    def read(self, field: str, rows: slice, parallel_map: Map = map) -> np.ndarray: ...

    def read_range(self, field: str, k: int) -> np.ndarray: ...


class StoredPValues:
    """The p-values of a complete checkpoint in table order: row by row.

    Parameters
    ----------
    results : StoredRows
    kept : numpy.ndarray or None, shape (n_rows, n_genes), bool
        The p-values that count; the others are skipped.
    """

    def __init__(self, results: StoredRows, kept: np.ndarray | None = None) -> None:
        self._results, self._kept = results, kept
        sizes = (
            np.full(results.n_rows, results.n_genes)
            if kept is None
            else np.count_nonzero(kept, axis=1)
        )
        self._starts = np.concatenate([[0], np.cumsum(sizes)])
        self.n = int(self._starts[-1])

    def read(self, first: int, last: int) -> np.ndarray:
        """Read the p-values ``[first, last)`` of those that count."""
        row = int(np.searchsorted(self._starts, first, side="right")) - 1
        stop = int(np.searchsorted(self._starts, last, side="left"))
        values = self._results.read("p_value", slice(row, stop))
        found = values.ravel() if self._kept is None else values[self._kept[row:stop]]
        skipped = int(self._starts[row])
        return found[first - skipped : last - skipped]
