"""Reading rows of an open result file, checked against the file's metadata."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from ..utils.foreign_errors import reading
from .digests import chunk_values, digest
from .footer import ADVICE, Footer, changed
from .row_index import OTHER_ROWS, OtherRowsError, decoded
from .schema import INTEGERS
from .table import OF_GENES, block_size, encoded

if TYPE_CHECKING:
    import pyarrow
    import pyarrow.parquet

#: About this many rows have their labels verified on opening; all others when they are read.
_ROWS_AT_FIRST = 1 << 16


class Expected:
    """The rows that a file must have, and which of them have been verified.

    Parameters
    ----------
    footer : Footer
    kept : numpy.ndarray or None, shape (n_comparisons, n_genes), bool
        Whether each pair has a row; None if all have.

    Attributes
    ----------
    labels : set of int
        Blocks whose labels have been verified.
    values : set of (int, str)
        Blocks of columns whose digests have been verified.
    """

    def __init__(self, footer: Footer, kept: np.ndarray | None) -> None:
        self.kept, self.digests = kept, footer.digests
        self.n_comparisons, self.n_genes = len(footer.targets), len(footer.features)
        self.step = block_size(self.n_genes)
        if self.digests is not None:
            self.step = self.digests.comparisons
        names = {**footer.labels, **footer.gene_labels}
        self.codes = {name: encoded(labels) for name, labels in names.items()}
        sizes = np.full(self.n_comparisons, self.n_genes, np.int64)
        if kept is not None:
            sizes = np.count_nonzero(kept, axis=1)
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.labels: set[int] = set()
        self.values: set[tuple[int, str]] = set()

    def forget(self) -> None:
        """Forget which rows have been verified."""
        self.labels.clear()
        self.values.clear()

    def blocks(self) -> list[slice]:
        """Return the comparisons of each block."""
        return [self.block(k) for k in range(-(-self.n_comparisons // self.step))]

    def block(self, k: int) -> slice:
        """Return the comparisons of block `k`."""
        return slice(k * self.step, min((k + 1) * self.step, self.n_comparisons))

    def rows(self, comparisons: slice) -> tuple[int, int]:
        """Return the first row of some comparisons, and the row after their last."""
        first, last = (
            int(self._ends[t - 1]) if t else 0 for t in (comparisons.start, comparisons.stop)
        )
        return first, last


class RowReader:
    """Reads comparisons from an open file; everything read is verified once.

    Parameters
    ----------
    file : pyarrow.parquet.ParquetFile
    expected : Expected
    shown : str
        Name of the file in error messages.
    """

    def __init__(self, file: pyarrow.parquet.ParquetFile, expected: Expected, shown: str) -> None:
        self._file, self.expected, self._shown = file, expected, shown
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self._starts = self._ends - np.array(sizes, np.int64)
        self._last: tuple[tuple[list[int], list[str]], pyarrow.Table] | None = None

    def read(self, part: slice, names: list[str]) -> dict[str, np.ndarray]:
        """Read columns of the comparisons in `part`, shape (n, n_genes).

        Pairs that are not kept are NaN, or 0 in columns of whole numbers.

        Raises
        ------
        FileFormatError
            If the rows of a block are not those listed, or a column was changed.
        """
        expected = self.expected
        blocks = range(part.start // expected.step, -(-part.stop // expected.step))
        whole = slice(expected.block(blocks.start).start, expected.block(blocks.stop - 1).stop)
        unseen = any(k not in expected.labels for k in blocks)
        start, stop = expected.rows(whole)
        table = self._rows(start, stop, [*names, *(expected.codes if unseen else ())])
        for k in blocks:
            first, last = expected.rows(expected.block(k))
            rows = table.slice(first - start, last - first)
            if k not in expected.labels:
                self.verify_labels(rows, expected.block(k))
                expected.labels.add(k)
            for name in names:
                if (k, name) not in expected.values:
                    self._verify_values(rows[name], name, k)
                    expected.values.add((k, name))
        first, last = expected.rows(part)
        return {
            name: self._in_place(table[name].slice(first - start, last - first), name, part)
            for name in names
        }

    def verify_first(self) -> None:
        """Verify the labels of the first rows, if all pairs have a row; most changes show there."""
        expected = self.expected
        n = min(expected.n_comparisons, max(1, _ROWS_AT_FIRST // max(1, expected.n_genes)))
        wanted = n * expected.n_genes
        if wanted == 0:
            return
        import pyarrow as pa

        batches, found = [], 0
        with self._reading():
            for batch in self._file.iter_batches(
                min(wanted, _ROWS_AT_FIRST), columns=[*expected.codes]
            ):
                batches.append(batch)
                found += batch.num_rows
                if found >= wanted:
                    break
            table = pa.Table.from_batches(batches).slice(0, wanted)
        self.verify_labels(table, slice(0, n))

    def verify_labels(self, rows: pyarrow.Table, comparisons: slice) -> None:
        """Raise FileFormatError unless `rows` are the rows of `comparisons`."""
        kept, n_genes = self.expected.kept, self.expected.n_genes
        for name, (codes, labels) in self.expected.codes.items():
            shape = comparisons.stop - comparisons.start, n_genes
            wanted = codes[None, :] if name in OF_GENES else codes[comparisons, None]
            wanted = np.broadcast_to(wanted, shape)
            if kept is not None:
                wanted = wanted[kept[comparisons]]
            try:
                found = self._found_codes(rows[name], labels)
            except OtherRowsError as error:
                raise changed(self._shown, OTHER_ROWS) from error
            if found.size != wanted.size or not np.array_equal(found.reshape(wanted.shape), wanted):
                raise changed(self._shown, OTHER_ROWS)

    def _found_codes(self, column: pyarrow.ChunkedArray, labels: list[str]) -> np.ndarray:
        """Return the codes of the rows' labels; -1 for a label that is not in `labels`."""
        found = [np.zeros(0, np.int32)]
        for chunk in column.chunks:
            with self._reading():
                codes, names = decoded(chunk)
            if names != labels[: len(names)]:  # not in order of first appearance
                places = {label: k for k, label in enumerate(labels)}
                codes = np.array([places.get(name, -1) for name in names], np.int32)[codes]
            found.append(codes)
        return found[1] if len(found) == 2 else np.concatenate(found)

    def _verify_values(self, column: pyarrow.ChunkedArray, name: str, block: int) -> None:
        if column.null_count:
            raise changed(self._shown, f"values are missing in its column {name!r}")
        digests = self.expected.digests
        if digests is None:
            return
        if digest(chunk_values(column)) != digests.of_block(name, block):
            raise changed(self._shown, f"values of its column {name!r} were changed")

    def _rows(self, first: int, last: int, names: list[str]) -> pyarrow.Table:
        """Read rows `first` to `last`; keep what was decoded last, as row groups can be large."""
        groups = np.flatnonzero((self._ends > first) & (self._starts < last)).tolist()
        asked = groups, names
        if self._last is None or self._last[0] != asked:
            self._last = None
            with self._reading():
                self._last = asked, self._file.read_row_groups(groups, columns=names)
        before = int(self._starts[groups[0]]) if groups else first
        return self._last[1].slice(first - before, last - first)

    def _in_place(self, column: pyarrow.ChunkedArray, name: str, part: slice) -> np.ndarray:
        values: np.ndarray = column.to_numpy()
        shape = part.stop - part.start, self.expected.n_genes
        if self.expected.kept is None:
            return values.reshape(shape)
        found = np.full(shape, 0 if name in INTEGERS else np.nan, values.dtype)
        found[self.expected.kept[part]] = values
        return found

    def _reading(self) -> AbstractContextManager[None]:
        return reading(self._shown, "pyarrow", "it was damaged", ADVICE)
