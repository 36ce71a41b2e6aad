"""Benjamini-Hochberg over all rows of a table whose p-values may not fit in memory.

For p of rank r among n, the adjusted p-value is the running minimum of ``p * (n / r)`` from the
largest p-value down, at most 1 (Benjamini and Hochberg 1995). A stretch of the sorted p-values
needs only two facts about the others: how many are smaller, and the smallest adjusted p-value among
the larger ones. So the kernel set gets the p-values in batches that fit, from the largest down. The
result equals that of one call on all of them, to the bit.

No p-value moves outside a batch. A histogram shows where to cut. Each pass over the table then
collects the p-values of one batch and puts each result of the batch before it in its place.
P-values lie in [0, 1], so their bits, read as integers, sort in the same order: batches are ranges
of bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import NamedTuple, Protocol

import numpy as np

from ...backends.contract import KernelSet
from ...errors import CoverageError, DataError, FileFormatError
from ...utils.parallel import Map
from ...utils.raw_file import read_into, write_at

#: Values that each call in progress under `run` reads, holds and writes at a time.
_PIECE = 1 << 18

# Buckets of a histogram, as a power of two: a histogram takes as much memory as a piece, and the
# fullest bucket of uniform p-values holds 1 in 512 of them. Batches fill their memory that closely.
_BUCKET_BITS = 18

# Most bytes per p-value while it is adjusted; the CPU kernel set takes most. The p-value, its key
# and its result take 8 each, its place 4, counters 4, and sorting needs a second key and place.
# Beyond 2**32 p-values a place takes 8.
_BYTES, _BYTES_OF_MANY = 44, 52

_ONE = int(np.float64(1.0).view(np.int64))

_CHANGED = "P-values changed while they were adjusted. This is a bug in pdex_gpu."


class PValues(Protocol):
    """The p-values of a table, read in pieces, by several threads and more than once.

    Attributes
    ----------
    n : int
        Number of p-values.
    """

    @property
    def n(self) -> int: ...

    def read(self, first: int, last: int) -> np.ndarray:
        """Return the p-values at positions ``[first, last)``, float64; not to be modified."""
        ...


class Column(Protocol):
    """A store of adjusted p-values, addressed by position, used by several threads."""

    def read(self, first: int, last: int) -> np.ndarray:
        """Return the values at positions ``[first, last)``; not to be modified."""
        ...

    def write(self, first: int, values: np.ndarray) -> None:
        """Store `values` at the positions from `first` on."""
        ...


class FileColumn:
    """A column in a file that holds nothing else, 8 bytes per value.

    Parameters
    ----------
    file : io.FileIO
        Open for reading and writing, unbuffered. Stays open.
    n : int
        Number of values in the column. The file grows as they are written.
    """

    def __init__(self, file: FileIO, n: int) -> None:
        self.n = n
        self._file = file

    def read(self, first: int, last: int) -> np.ndarray:
        """Read the values at positions ``[first, last)`` into a new array.

        Raises
        ------
        FileFormatError
            If the file ends before `last`.
        """
        values = np.empty(last - first)  # filled below, or an error is raised
        missing = values.nbytes - read_into(self._file.fileno(), 8 * first, values)
        if missing:
            raise FileFormatError(
                f"Values {first:,} to {last:,} of a column of {self.n:,} were requested, but its "
                f"file {self._file.name!r} is {missing:,} bytes too short. It was truncated, or "
                "its disk was removed. Run again."
            )
        return values

    def write(self, first: int, values: np.ndarray) -> None:
        """Write `values` at the positions from `first` on."""
        write_at(self._file.fileno(), 8 * first, np.ascontiguousarray(values, np.float64))


def adjust(
    p_values: PValues, fdr: Column, kernels: KernelSet, parallel_map: Map, *, budget: int
) -> None:
    """Adjust the p-values of a table within a memory budget.

    Parameters
    ----------
    p_values : PValues
        In [0, 1], in the order of the table. Must not change during the call.
    fdr : Column
        Receives the adjusted p-value of every position. If all p-values fit in the budget, each
        is written once; otherwise pieces are reread and rewritten as their values become known.
    kernels : KernelSet
    parallel_map : Map
        Spreads the work over threads.
    budget : int
        Bytes that may be used, in addition to about 10 MiB per call in progress.

    Raises
    ------
    DataError
        If the p-values do not fit in the budget and are not all in [0, 1].
    """
    n = p_values.n
    capacity = budget // (_BYTES if budget < _BYTES << 32 else _BYTES_OF_MANY)
    table = _Table(p_values, fdr, parallel_map)
    if n <= capacity:
        table.write_all(kernels.benjamini_hochberg(table.read_all(), parallel_map))
        return
    n_smaller, ceiling = n, 1.0
    done: list[_Adjusted] = []
    for batch in table.batches(0, _ONE, n, capacity):
        rank = n_smaller  # of the batch's largest p-value
        n_smaller -= batch.n
        if batch.tied:  # all get the result of the highest rank
            ceiling = min(ceiling, batch.largest * (n / rank))
            done.append(_Adjusted(batch, ceiling))
            continue
        values, places = table.exchange(done, batch)
        done = []  # free the results before the kernel set needs memory
        values = kernels.benjamini_hochberg(
            values, parallel_map, n_tests=n, n_smaller=n_smaller, ceiling=ceiling
        )
        ceiling = float(values.min())
        done.append(_Adjusted(batch, values, places))
    table.exchange(done)
    table.check_complete()


class _Batch(NamedTuple):
    """The p-values with bits in ``[low, high]``: `n` of them, at least one."""

    low: int
    high: int
    n: int

    @property
    def tied(self) -> bool:
        return self.low == self.high

    @property
    def largest(self) -> float:
        return _float(self.high)


@dataclass(frozen=True)
class _Adjusted:
    """The results of a batch: one for all, or those of each piece k at ``values[places[k]]``."""

    batch: _Batch
    values: np.ndarray | float
    places: Sequence[slice] = ()

    def of(self, k: int, n: int) -> np.ndarray | float:
        """Return the results of the `n` p-values of the batch that are in piece `k`."""
        if isinstance(self.values, float):
            return self.values
        values = self.values[self.places[k]]
        if len(values) != n:
            raise CoverageError(_CHANGED)
        return values


class _Table:
    """P-values and their results, visited piece by piece."""

    def __init__(self, p_values: PValues, fdr: Column, parallel_map: Map) -> None:
        self._p_values, self._fdr, self._run = p_values, fdr, parallel_map
        n = p_values.n
        self._pieces = [(first, min(first + _PIECE, n)) for first in range(0, n, _PIECE)]
        self._n_written = np.zeros(len(self._pieces), np.int64)

    def read_all(self) -> np.ndarray:
        """Return all p-values."""
        values = np.full(self._p_values.n, np.nan)

        def read(k: int) -> None:
            first, last = self._pieces[k]
            values[first:last] = self._bits(k).view(np.float64)

        self._each(read)
        return values

    def write_all(self, fdr: np.ndarray) -> None:
        """Write the results of all p-values."""

        def write(k: int) -> None:
            first, last = self._pieces[k]
            self._fdr.write(first, fdr[first:last])

        self._each(write)

    def batches(self, low: int, high: int, n: int, capacity: int) -> Iterator[_Batch]:
        """Yield batches of the `n` p-values with bits in ``[low, high]``, from the largest down.

        A batch holds at most `capacity` p-values, unless all are tied.
        """
        shift = max(0, (high - low).bit_length() - _BUCKET_BITS)
        counts = self._histogram(low, high, shift)[::-1]
        up_to = np.cumsum(counts)  # p-values in a bucket and in all above it
        if up_to[-1] != n:
            raise DataError(
                f"{n:,} p-values in [{_float(low)}, {_float(high)}] were expected, but "
                f"{up_to[-1]:,} were found. P-values must be between 0 and 1, and not NaN."
            )

        def bounds(bucket: int) -> tuple[int, int]:
            bottom = low + ((len(counts) - 1 - bucket) << shift)
            return bottom, min(high, bottom + (1 << shift) - 1)

        first, taken = 0, 0
        while taken < n:
            # Take as many buckets as fit, or one that does not. Many ties, mostly at p = 1, are
            # cheaper as a batch of their own: they need no sorting.
            last = int(np.searchsorted(up_to, taken + capacity, side="right"))
            bottom, top = bounds(first)
            if last == first or (bottom == top and 2 * counts[first] > capacity):
                last = first + 1
            else:
                bottom = bounds(last - 1)[0]
            size = int(up_to[last - 1]) - taken
            first, taken = last, taken + size
            if size > capacity and bottom < top:  # ends, as the range loses bits each time
                yield from self.batches(bottom, top, size, capacity)
            elif size:
                yield _Batch(bottom, top, size)

    def exchange(
        self, done: Sequence[_Adjusted], batch: _Batch | None = None
    ) -> tuple[np.ndarray, list[slice]]:
        """Write the results of the finished batches and collect another batch, in one pass.

        Returns
        -------
        values : numpy.ndarray, shape (batch.n,), float64
            The p-values of the batch, piece by piece, in any order of pieces.
        places : list of slice
            Position of each piece's p-values in `values`.
        """
        values = np.full(batch.n if batch else 0, np.nan)
        places = [slice(0, 0)] * len(self._pieces)
        n_collected = 0
        lock = threading.Lock()

        def collect(k: int, bits: np.ndarray, batch: _Batch) -> None:
            nonlocal n_collected
            chosen = bits[_between(bits, batch.low, batch.high)]
            with lock:
                place = slice(n_collected, n_collected + len(chosen))
                n_collected = place.stop
            if place.stop > batch.n:
                raise CoverageError(_CHANGED)
            values[place] = chosen.view(np.float64)
            places[k] = place

        def visit(k: int) -> None:
            bits = self._bits(k)
            if batch:
                collect(k, bits, batch)
            self._write(k, bits, done)

        self._each(visit)
        return values, places

    def check_complete(self) -> None:
        """Check that every position was written once.

        Batches share no bits, so no position is written twice: counting is enough.
        """
        if any(self._n_written != [last - first for first, last in self._pieces]):
            raise CoverageError(_CHANGED)

    def _write(self, k: int, bits: np.ndarray, done: Sequence[_Adjusted]) -> None:
        """Write the known results of piece `k`, given the bits of its p-values."""
        first, last = self._pieces[k]
        fdr = None
        for adjusted in done:
            here = _between(bits, adjusted.batch.low, adjusted.batch.high)
            n = int(np.count_nonzero(here))
            if not n:
                continue
            if fdr is None and self._n_written[k]:
                fdr = self._fdr.read(first, last).copy()
            elif fdr is None:
                fdr = np.full(last - first, np.nan)
            fdr[here] = adjusted.of(k, n)
            self._n_written[k] += n
        if fdr is not None:
            self._fdr.write(first, fdr)

    def _histogram(self, low: int, high: int, shift: int) -> np.ndarray:
        """Count the p-values with bits in ``[low, high]`` by ``(bits - low) >> shift``."""
        total = np.zeros(((high - low) >> shift) + 1, np.int64)
        lock = threading.Lock()

        def count(k: int) -> None:
            bits = self._bits(k)
            bits = bits[_between(bits, low, high)]
            bits -= low
            bits >>= shift
            counts = np.bincount(bits, minlength=len(total))
            with lock:
                np.add(total, counts, out=total)

        self._each(count)
        return total

    def _bits(self, k: int) -> np.ndarray:
        """Return the bits of the p-values of piece `k` in a new array; those of -0.0 are 0."""
        return (self._p_values.read(*self._pieces[k]) + 0.0).view(np.int64)

    def _each(self, visit: Callable[[int], None]) -> None:
        for _ in self._run(visit, range(len(self._pieces))):
            pass


def _between(bits: np.ndarray, low: int, high: int) -> np.ndarray:
    return (bits >= low) & (bits <= high)


def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))
