"""Benjamini-Hochberg over all rows of a table whose p-values may not fit in memory.

The adjusted p-value of the one of rank r among n is the running minimum, from the largest p-value
down, of ``p * (n / r)``, at most 1 (Benjamini and Hochberg 1995). All that a stretch of the sorted
p-values needs to know of the others is how many are smaller, and the smallest adjusted p-value
among the larger ones. So the p-values are taken in batches that fit, from the largest down, and
each is given to the kernel set. The result is that of one call on all of them, to the bit.

No p-value is moved outside a batch. A histogram tells where to cut; then each pass over the table
collects the p-values of one batch and, for the batch before it, puts each result in its place.
P-values lie in [0, 1], so their bits, read as integers, sort as they do: batches are ranges of
bits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from io import FileIO
from typing import NamedTuple, Protocol

import numpy as np

from .backends.contract import KernelSet
from .errors import CoverageError, DataError, FileFormatError
from .pools import Map
from .sources.raw_file import read_into, write_at

#: Values read, held and written at a time, by each call that `run` has in work.
_PIECE = 1 << 18

# Buckets of a histogram, as a power of two: it takes as much memory as a piece, and the fullest
# bucket of uniform p-values holds 1 in 512 of them. That is how exactly batches fill their memory.
_BUCKET_BITS = 18

# Bytes a p-value while it is adjusted, at most; the CPU kernel set takes most. The p-value, its
# key and its result take 8 each, its place 4, counters 4, and sorting needs a second key and place.
# Places take 8 beyond 2**32 p-values.
_BYTES, _BYTES_OF_MANY = 44, 52

_ONE = int(np.float64(1.0).view(np.int64))

_CHANGED = "P-values changed while they were adjusted. This is a bug in pdex_gpu."


class PValues(Protocol):
    """The p-values of a table, read in pieces, by several threads and more than once.

    Attributes
    ----------
    n : int
        How many there are.
    """

    @property
    def n(self) -> int: ...

    def read(self, first: int, last: int) -> np.ndarray:
        """Those at positions ``[first, last)``, float64, not changed by the caller."""
        ...


class Column(Protocol):
    """Where adjusted p-values are kept, addressed by position, by several threads."""

    def read(self, first: int, last: int) -> np.ndarray:
        """What was written at positions ``[first, last)``, not changed by the caller."""
        ...

    def write(self, first: int, values: np.ndarray) -> None:
        """Keep `values` at the positions from `first` on."""
        ...


class ArrayColumn:
    """A column in memory.

    Parameters
    ----------
    array : numpy.ndarray, shape (n,), float64
        Written in place.
    """

    def __init__(self, array: np.ndarray) -> None:
        self._array = array

    @property
    def n(self) -> int:
        return len(self._array)

    def read(self, first: int, last: int) -> np.ndarray:
        """A view that cannot be written."""
        view = self._array[first:last]
        view.flags.writeable = False
        return view

    def write(self, first: int, values: np.ndarray) -> None:
        """Copy `values` into the array."""
        self._array[first : first + len(values)] = values


class FileColumn:
    """A column in a file that holds nothing else, 8 bytes a value.

    Parameters
    ----------
    file : io.FileIO
        Open for reading and writing, without a buffer. Stays open.
    n : int
        How many values the column has. The file grows as they are written.
    """

    def __init__(self, file: FileIO, n: int) -> None:
        self.n = n
        self._file = file

    def read(self, first: int, last: int) -> np.ndarray:
        """A new array.

        Raises
        ------
        FileFormatError
            If the file ends before `last`.
        """
        values = np.empty(last - first)  # filled below, or an error
        missing = values.nbytes - read_into(self._file.fileno(), 8 * first, values)
        if missing:
            raise FileFormatError(
                f"Values {first:,} to {last:,} of a column of {self.n:,} were asked for, but "
                f"its file {self._file.name!r} ends {missing:,} bytes before that. Was it "
                "cut short, or its disk taken away? Run again."
            )
        return values

    def write(self, first: int, values: np.ndarray) -> None:
        """Write `values` at their place."""
        write_at(self._file.fileno(), 8 * first, np.ascontiguousarray(values, np.float64))


def adjust(p_values: PValues, fdr: Column, kernels: KernelSet, run: Map, *, budget: int) -> None:
    """Adjust the p-values of a table, within a budget of memory.

    Parameters
    ----------
    p_values : PValues
        In [0, 1], in the order of the table. Must stay as they are meanwhile.
    fdr : Column
        Receives the adjusted p-value of every position. If all p-values fit in the budget, each
        is written once; else pieces are read and written again as their values become known.
    kernels : KernelSet
    run : Map
        Spreads the work over threads.
    budget : int
        Bytes that may be taken, besides about 10 MiB for each call that `run` has in work.

    Raises
    ------
    DataError
        If p-values that do not fit are not all in [0, 1].
    """
    n = p_values.n
    capacity = budget // (_BYTES if budget < _BYTES << 32 else _BYTES_OF_MANY)
    table = _Table(p_values, fdr, run)
    if n <= capacity:
        table.write_all(kernels.benjamini_hochberg(table.read_all(), run))
        return
    n_smaller, ceiling = n, 1.0
    done: list[_Adjusted] = []
    for batch in table.batches(0, _ONE, n, capacity):
        rank = n_smaller  # of the largest of the batch
        n_smaller -= batch.n
        if batch.tied:  # all have the result of the last of them
            ceiling = min(ceiling, batch.largest * (n / rank))
            done.append(_Adjusted(batch, ceiling))
            continue
        values, places = table.exchange(done, batch)
        done = []  # frees the results before the kernel set needs memory
        values = kernels.benjamini_hochberg(
            values, run, n_tests=n, n_smaller=n_smaller, ceiling=ceiling
        )
        ceiling = float(values.min())
        done.append(_Adjusted(batch, values, places))
    table.exchange(done)
    table.check_complete()


class _Batch(NamedTuple):
    """All p-values whose bits are in ``[low, high]``: `n` of them, at least one."""

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
    """The results of a batch: one for all, or those of piece k at ``values[places[k]]``."""

    batch: _Batch
    values: np.ndarray | float
    places: Sequence[slice] = ()

    def of(self, k: int, n: int) -> np.ndarray | float:
        """Those of the `n` p-values of the batch that piece `k` holds."""
        if isinstance(self.values, float):
            return self.values
        values = self.values[self.places[k]]
        if len(values) != n:
            raise CoverageError(_CHANGED)
        return values


class _Table:
    """P-values and their results, visited piece by piece."""

    def __init__(self, p_values: PValues, fdr: Column, run: Map) -> None:
        self._p_values, self._fdr, self._run = p_values, fdr, run
        n = p_values.n
        self._pieces = [(first, min(first + _PIECE, n)) for first in range(0, n, _PIECE)]
        self._n_written = np.zeros(len(self._pieces), np.int64)

    def read_all(self) -> np.ndarray:
        """All p-values."""
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
        """The `n` p-values with bits in ``[low, high]``, from the largest down.

        Batches hold at most `capacity` p-values, unless they are tied.
        """
        shift = max(0, (high - low).bit_length() - _BUCKET_BITS)
        counts = self._histogram(low, high, shift)[::-1]
        up_to = np.cumsum(counts)  # p-values in a bucket and all above it
        if up_to[-1] != n:
            raise DataError(
                f"{n:,} p-values in [{_float(low)}, {_float(high)}] were expected, but "
                f"{up_to[-1]:,} are there. NaN and numbers below 0 or above 1 are no p-values."
            )

        def bounds(bucket: int) -> tuple[int, int]:
            bottom = low + ((len(counts) - 1 - bucket) << shift)
            return bottom, min(high, bottom + (1 << shift) - 1)

        first, taken = 0, 0
        while taken < n:
            # As many buckets as fit, or one that does not. Many ties, p = 1 above all, are
            # cheaper on their own: they need no sorting.
            last = int(np.searchsorted(up_to, taken + capacity, side="right"))
            bottom, top = bounds(first)
            if last == first or (bottom == top and 2 * counts[first] > capacity):
                last = first + 1
            else:
                bottom = bounds(last - 1)[0]
            size = int(up_to[last - 1]) - taken
            first, taken = last, taken + size
            if size > capacity and bottom < top:  # a range of fewer bits each time, so this ends
                yield from self.batches(bottom, top, size, capacity)
            elif size:
                yield _Batch(bottom, top, size)

    def exchange(
        self, done: Sequence[_Adjusted], batch: _Batch | None = None
    ) -> tuple[np.ndarray, list[slice]]:
        """One pass: write the results of batches that are done, and collect another batch.

        Returns
        -------
        values : numpy.ndarray, shape (batch.n,), float64
            The p-values of the batch, by piece, the pieces in any order.
        places : list of slice
            Where those of each piece are.
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
        """Raise an error unless every position was written once.

        Batches have no bits in common, so no position is written twice; what is left is to count.
        """
        if any(self._n_written != [last - first for first, last in self._pieces]):
            raise CoverageError(_CHANGED)

    def _write(self, k: int, bits: np.ndarray, done: Sequence[_Adjusted]) -> None:
        """Write what is known of piece `k`, whose p-values have these bits."""
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
        """How many p-values there are by ``(bits - low) >> shift``, of bits in ``[low, high]``."""
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
        """The bits of the p-values of piece `k`, in a new array; those of -0.0 are 0."""
        return (self._p_values.read(*self._pieces[k]) + 0.0).view(np.int64)

    def _each(self, visit: Callable[[int], None]) -> None:
        for _ in self._run(visit, range(len(self._pieces))):
            pass


def _between(bits: np.ndarray, low: int, high: int) -> np.ndarray:
    return (bits >= low) & (bits <= high)


def _float(bits: int) -> float:
    return float(np.int64(bits).view(np.float64))
