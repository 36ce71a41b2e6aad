"""Sums, means and medians over the cells of each sample, for one range of genes.

Entries are added in float64, one after the other in cell order, leaving out zeros. So the bits
depend neither on the ranges nor on how the matrix is stored, and sums of whole numbers are exact
up to 2**53. If a sum overflows on the way, it is computed again without intermediate rounding.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backends.contract import NonFiniteError
from ..sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from ..stats.exact_moments import UNIT, Sums, quotient

#: Largest number of bytes per stored entry while the medians of its range are computed.
MEDIAN_BYTES_PER_ENTRY = 64
_PIECE = 1 << 16  # entries per piece: a few MB of temporary arrays

_Triples = Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]


def sums(
    chunk: Chunk, codes: np.ndarray, n_cells: np.ndarray, *, mean: bool = False
) -> tuple[np.ndarray, float]:
    """Return the sum, or the mean, of each gene over the cells of each sample.

    Parameters
    ----------
    chunk : Chunk
    codes : numpy.ndarray, shape (n_cells,), int64
        Sample of each cell, -1 for none.
    n_cells : numpy.ndarray, shape (n_samples,), int64
        Number of cells of each sample, at least one.
    mean : bool

    Returns
    -------
    numpy.ndarray, shape (n_samples, n_genes), float64
        A sum that float64 cannot hold is infinite.
    float
        The smallest value in the cells of the samples, or 0 if none is negative.

    Raises
    ------
    NonFiniteError
        If a cell of a sample holds NaN or infinity.
    NotCanonicalError
        If sparse indices are unsorted, repeated or out of range.
    """
    shape = len(n_cells), chunk.n_genes
    found = np.zeros(shape[0] * shape[1])
    smallest = 0.0
    with np.errstate(over="ignore", invalid="ignore"):
        for keys, values in _keyed(chunk, codes):
            np.add.at(found, keys, values)
            smallest = min(smallest, float(values.min(initial=0.0)))
    overflowed = ~np.isfinite(found)
    if mean:
        found /= np.repeat(n_cells, shape[1])
    if overflowed.any():
        divisors = np.repeat(n_cells if mean else np.ones_like(n_cells), shape[1])
        _add_exactly(chunk, codes, overflowed, divisors, found)
    return found.reshape(shape), smallest


def _add_exactly(
    chunk: Chunk, codes: np.ndarray, where: np.ndarray, divisors: np.ndarray, out: np.ndarray
) -> None:
    """Write to `out` the sums at `where`, divided by `divisors` and rounded once."""
    totals = {key: Sums(0, 0, 0) for key in np.flatnonzero(where).tolist()}
    for keys, values in _keyed(chunk, codes):
        taken = np.flatnonzero(where[keys])
        taken = taken[np.argsort(keys[taken], kind="stable")]
        distinct, starts = np.unique(keys[taken], return_index=True)
        for key, its in zip(distinct.tolist(), np.split(values[taken], starts[1:]), strict=False):
            totals[key] += Sums.of(its, 0)
    for key, total in totals.items():
        out[key] = quotient(total.total, int(divisors[key]), UNIT)


def medians(chunk: Chunk, codes: np.ndarray, n_cells: np.ndarray) -> tuple[np.ndarray, float]:
    """Return the median of each gene over the cells of each sample, as `numpy.median` defines it.

    For an even number of cells, this is the mean of the two middle values. Zeros count. Where they
    fill the middle, as in most of a sparse matrix, nothing is sorted.

    Parameters
    ----------
    chunk : Chunk
    codes : numpy.ndarray, shape (n_cells,), int64
        Sample of each cell, -1 for none.
    n_cells : numpy.ndarray, shape (n_samples,), int64
        Number of cells of each sample, at least one.

    Returns
    -------
    numpy.ndarray, shape (n_samples, n_genes), float64
    float
        The smallest value in the cells of the samples, or 0 if none is negative.

    Raises
    ------
    NonFiniteError, NotCanonicalError
        As in :func:`sums`.
    """
    shape = len(n_cells), chunk.n_genes
    negative, positive = np.zeros((2, shape[0] * shape[1]), np.int64)
    smallest = 0.0
    for keys, values in _keyed(chunk, codes):
        smallest = min(smallest, float(values.min(initial=0.0)))
        np.add.at(negative, keys[values < 0], 1)
        np.add.at(positive, keys[values > 0], 1)
    # In ascending order, ranks from `negative` up to `zeros_end` are zeros.
    zeros_end = np.repeat(n_cells, shape[1]) - positive
    low, high = np.repeat((n_cells - 1) // 2, shape[1]), np.repeat(n_cells // 2, shape[1])
    sought = (low < negative) | (high >= zeros_end)
    found = np.zeros(shape[0] * shape[1])
    if not sought.any():
        return found.reshape(shape), smallest

    parts = []
    for keys, values in _keyed(chunk, codes):
        taken = sought[keys] & (values != 0)
        parts.append((keys[taken], values[taken]))
    keys, values = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    order = np.lexsort((values, keys))
    keys, values = keys[order], values[order]
    wanted = np.flatnonzero(sought)
    first = np.searchsorted(keys, wanted)
    begin, end = negative[wanted], zeros_end[wanted]

    def at_rank(rank: np.ndarray) -> np.ndarray:
        zero = (rank >= begin) & (rank < end)
        place = first + np.where(rank < begin, rank, rank - (end - begin))
        return np.where(zero, 0.0, values[np.where(zero, 0, place)])

    middle, above = at_rank(low[wanted]), at_rank(high[wanted])
    even = low[wanted] != high[wanted]
    with np.errstate(over="ignore"):
        between = (middle[even] + above[even]) / 2
    overflowed = np.isinf(between)
    between[overflowed] = middle[even][overflowed] / 2 + above[even][overflowed] / 2
    middle[even] = between
    found[wanted] = middle
    return found.reshape(shape), smallest


def _keyed(chunk: Chunk, codes: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield keys ``sample * n_genes + gene`` and values of the entries of cells in a sample."""
    for cells, genes, values in _entries(chunk):
        samples = codes[cells]
        assigned = samples >= 0
        if not assigned.all():
            samples, cells, genes, values = (x[assigned] for x in (samples, cells, genes, values))
        if values.dtype.kind == "f":
            odd = np.flatnonzero(~np.isfinite(values))
            if len(odd):
                at = odd[0]
                gene = int(genes[at]) + chunk.gene_start
                raise NonFiniteError(int(cells[at]), gene, float(values[at]))
        yield samples * chunk.n_genes + genes, values.astype(np.float64)


def _entries(chunk: Chunk) -> _Triples:
    """Yield the cell, gene within the chunk and value of all entries, one piece at a time.

    The entries of a gene come in ascending order of their cells.
    """
    if isinstance(chunk, DenseChunk):
        yield from _dense_entries(chunk)
    elif isinstance(chunk, CsrChunk):
        for cells, genes, where in _pieces(
            chunk.indices, chunk.starts, chunk.stops, chunk.gene_start, chunk.n_genes
        ):
            yield cells, genes, chunk.data[where]
    else:
        assert isinstance(chunk, CscChunk)
        for genes, cells, where in _pieces(
            chunk.indices, chunk.indptr[:-1], chunk.indptr[1:], 0, chunk.n_cells
        ):
            yield cells, genes, chunk.data[where]


def _dense_entries(chunk: DenseChunk) -> _Triples:
    n_cells, n_genes = chunk.values.shape
    step = max(1, _PIECE // n_genes)
    for start in range(0, n_cells, step):
        block = np.ascontiguousarray(chunk.values[start : start + step])
        where = np.flatnonzero(block)  # includes NaN
        rows = where // n_genes
        yield rows + start, where - rows * n_genes, block.reshape(-1)[where]


def _pieces(
    indices: np.ndarray, starts: np.ndarray, stops: np.ndarray, first: int, n_minor: int
) -> Iterator[tuple[np.ndarray, np.ndarray, slice | np.ndarray]]:
    """Yield whole rows (or columns) of a sparse chunk: major and minor index and place of entries.

    Raises NotCanonicalError unless minor indices minus `first` ascend within ``[0, n_minor)``.
    """
    lengths = stops - starts
    ends = np.cumsum(lengths)
    a = 0
    while a < len(lengths):
        before = int(ends[a - 1]) if a else 0
        b = max(a + 1, int(np.searchsorted(ends, before + _PIECE, side="right")))
        rows, n = slice(a, b), lengths[a:b]
        major = np.repeat(np.arange(a, min(b, len(lengths))), n)
        where: slice | np.ndarray
        if np.array_equal(starts[rows][1:], stops[rows][:-1]):
            where = slice(int(starts[rows][0]), int(stops[rows][-1]))
        else:  # a range of genes, or reordered cells
            where = np.arange(len(major)) + np.repeat(starts[rows] - (ends[rows] - n - before), n)
        minor = indices[where].astype(np.int64) - first
        ascends = (minor[1:] > minor[:-1]) | (major[1:] != major[:-1])
        if len(minor) and (minor.min() < 0 or minor.max() >= n_minor or not ascends.all()):
            raise NotCanonicalError("indices are unsorted, repeated or out of range")
        yield major, minor, where
        a = b
