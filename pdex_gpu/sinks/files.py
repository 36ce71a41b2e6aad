"""Results in the files of a checkpoint: stored a range at a time, read back by targets."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from io import FileIO

import numpy as np

from ..errors import CheckpointError
from ..pools import Map
from .base import RangeResult, check_complete, mark_stored
from .checkpoint import Checkpoint, RangeFile


class CheckpointSink:
    """Keeps the results of the ranges in work, and writes each once it is complete.

    See :class:`.base.Sink`.

    Parameters
    ----------
    checkpoint : Checkpoint
        What it holds already counts as stored.
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self.stored = np.zeros(checkpoint.n_genes, np.uint8)
        self.fractional = checkpoint.fractional
        self._edges = np.zeros(1, np.int64)
        self._in_work: dict[int, np.ndarray] = {}  # by the first gene of the range
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
        for field, array in zip(self._checkpoint.fields, values, strict=True):
            some = getattr(result, field)
            # The reference is compared with nobody: its statistic and p-value stay NaN.
            array[len(array) - len(some) :, genes] = some

    def commit(self, genes: slice, fractional: bool) -> None:
        """See :meth:`.base.Sink.commit`."""
        check_complete(self.stored[genes])
        with self._lock:
            values = self._in_work.pop(genes.start)
            self.fractional |= fractional
        self._checkpoint.write(genes, fractional, values)

    def start_over(self) -> None:
        """See :meth:`.base.Sink.start_over`."""
        self._checkpoint.start_over()
        self._in_work.clear()
        self.stored.fill(0)
        self.fractional = False

    def check_complete(self) -> None:
        """Raise CoverageError unless every gene was stored."""
        check_complete(self.stored)

    def _range_of(self, gene: int) -> tuple[int, np.ndarray]:
        """The first gene of the range that `gene` is in, and the range's array, NaN at first."""
        k = int(np.searchsorted(self._edges, gene, side="right")) - 1
        start, stop = (int(edge) for edge in self._edges[k : k + 2])
        with self._lock:
            if start not in self._in_work:
                shape = (len(self._checkpoint.fields), self._checkpoint.n_groups, stop - start)
                self._in_work[start] = np.full(shape, np.nan)
            return start, self._in_work[start]


class StoredResults:
    """The results in a complete checkpoint, read by groups; any thread may read.

    Parameters
    ----------
    checkpoint : Checkpoint
    """

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint = checkpoint
        self._ranges = checkpoint.ranges
        self.n_targets, self.n_genes = checkpoint.n_groups - 1, checkpoint.n_genes

    def read(self, field: str, groups: slice, run: Map = map) -> np.ndarray:
        """A field of some groups and all genes, shape (n, n_genes), `run` spreading the work."""
        out = np.full((groups.stop - groups.start, self.n_genes), np.nan)
        for _ in run(lambda stored: self._copy(stored, field, groups, out), self._ranges):
            pass
        return out

    def _copy(self, stored: RangeFile, field: str, groups: slice, out: np.ndarray) -> None:
        checkpoint, genes = self._checkpoint, stored.genes
        width = genes.stop - genes.start
        plane = checkpoint.fields.index(field) * checkpoint.n_groups
        # Straight to its place if that is one piece.
        whole = width == self.n_genes
        piece = out if whole else np.full((len(out), width), np.nan)
        try:
            with FileIO(stored.path) as file:
                file.seek(stored.offset + 8 * (plane + groups.start) * width)
                left = piece.data.cast("B")
                while left:
                    length = file.readinto(left)
                    if not length:
                        raise OSError("it ends early")
                    left = left[length:]
        except OSError as error:
            raise CheckpointError(
                f"{str(stored.path)!r} cannot be read back: {error}. Was it removed, or its disk "
                "taken away? Call again."
            ) from error
        if not whole:
            out[:, genes] = piece


class StoredPValues:
    """The p-values of a complete checkpoint in the order of the table: target by target.

    Parameters
    ----------
    results : StoredResults
    """

    def __init__(self, results: StoredResults) -> None:
        self._results = results
        self.n = results.n_targets * results.n_genes

    def read(self, first: int, last: int) -> np.ndarray:
        """Those of the rows ``[first, last)``."""
        n_genes = self._results.n_genes
        target = first // n_genes
        groups = slice(target + 1, -(-last // n_genes) + 1)
        skipped = target * n_genes
        return self._results.read("p_value", groups).ravel()[first - skipped : last - skipped]
