"""Chunks of counts: the totals of their cells, and their scaled values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from ...utils.parallel import Map
from ..base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from .scaling import Scaling

_PIECE = 1 << 18  # approximate entries that a thread works on at a time


def add_totals(chunk: Chunk, scaling: Scaling, totals: np.ndarray, parallel_map: Map) -> None:
    """Add the counts of a chunk to the totals of its cells, shape (n_cells,), float64."""
    if isinstance(chunk, CscChunk):
        _add_columns(chunk, scaling, totals, parallel_map)
        return

    def add(rows: slice) -> None:
        from .kernels import FINE, add_rows

        found = np.empty(rows.stop - rows.start)
        if isinstance(chunk, DenseChunk):
            values, starts, stops = _rows_of(chunk, rows)
        else:
            values, starts, stops = chunk.data, chunk.starts[rows], chunk.stops[rows]
        at = add_rows(values, starts, stops, found)
        if at != FINE:
            raise _refused_row(chunk, scaling, rows, values, starts, stops, at)
        totals[rows] += found

    for _ in parallel_map(add, _row_slices(chunk)):
        pass


def scale(chunk: Chunk, scaling: Scaling, form: int, parallel_map: Map) -> Chunk:
    """Return a chunk with scaled values, float64; `form` is one of :mod:`.kernels`."""
    target = scaling.find_target()
    if isinstance(chunk, CscChunk):
        return _scaled_columns(chunk, scaling, target, form, parallel_map)
    if isinstance(chunk, DenseChunk):
        return _scaled_dense(chunk, scaling, target, form, parallel_map)
    return _scaled_rows(chunk, scaling, target, form, parallel_map)


def _row_slices(chunk: CsrChunk | DenseChunk) -> list[slice]:
    """Cut the cells of a chunk into pieces."""
    if isinstance(chunk, DenseChunk):
        n_cells, n_entries = chunk.values.shape[0], chunk.values.size
    else:
        n_cells, n_entries = len(chunk.starts), int((chunk.stops - chunk.starts).sum())
    step = max(1, _PIECE * n_cells // max(1, n_entries))
    return [slice(a, min(a + step, n_cells)) for a in range(0, n_cells, step)]


def _together(starts: np.ndarray, stops: np.ndarray) -> bool:
    """Return whether each row starts where the one before stops, as in a whole matrix."""
    return len(starts) > 0 and np.array_equal(starts[1:], stops[:-1])


def _rows_of(
    chunk: CsrChunk | DenseChunk, rows: slice
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return a float64 copy of the values of some rows, and where each row starts and stops."""
    if isinstance(chunk, DenseChunk):
        values = np.ascontiguousarray(chunk.values[rows], np.float64)
        bounds = np.arange(len(values) + 1, dtype=np.int64) * values.shape[1]
        return values.reshape(-1), bounds[:-1], bounds[1:]
    from .kernels import copy_rows

    starts, stops = chunk.starts[rows], chunk.stops[rows]
    if _together(starts, stops):
        first = int(starts[0])
        values = chunk.data[first : int(stops[-1])].astype(np.float64)
        return values, starts - first, stops - first
    bounds = np.concatenate([[0], np.cumsum(stops - starts)]).astype(np.int64)
    values = np.empty(int(bounds[-1]))  # filled by copy_rows, like the indices
    indices = np.empty(int(bounds[-1]), chunk.indices.dtype)
    copy_rows(chunk.data, chunk.indices, starts, stops, bounds[:-1], values, indices)
    return values, bounds[:-1], bounds[1:]


def _refused_row(
    chunk: CsrChunk | DenseChunk,
    scaling: Scaling,
    rows: slice,
    values: np.ndarray,
    starts: np.ndarray,
    stops: np.ndarray,
    at: int,
) -> Exception:
    """Return the error for entry `at` of `values`, in the rows from `starts` to `stops`."""
    row = int(np.flatnonzero((starts <= at) & (at < stops))[0])
    cell, place = rows.start + row, at - int(starts[row])
    if isinstance(chunk, DenseChunk):
        return scaling.refused(float(values[at]), cell, chunk.gene_start + place)
    gene = int(chunk.indices[int(chunk.starts[cell]) + place])
    return scaling.refused(float(values[at]), cell, gene)


def _scaled_rows(
    chunk: CsrChunk, scaling: Scaling, target: float, form: int, parallel_map: Map
) -> CsrChunk:
    from .kernels import FINE, copy_rows, scale_rows

    lengths = chunk.stops - chunk.starts
    together = _together(chunk.starts, chunk.stops)
    if together:
        first = int(chunk.starts[0])
        starts, indices = chunk.starts - first, chunk.indices[first : int(chunk.stops[-1])]
    else:
        starts = np.cumsum(lengths) - lengths
        indices = np.empty(int(lengths.sum()), chunk.indices.dtype)  # filled by piece
    stops = starts + lengths
    values = np.empty(len(indices))  # filled by piece

    def piece(rows: slice) -> None:
        begin, end = int(starts[rows.start]), int(stops[rows.stop - 1])
        if together:
            source = int(chunk.starts[rows.start])
            values[begin:end] = chunk.data[source : source + end - begin]
        else:
            copy_rows(
                chunk.data, chunk.indices, chunk.starts[rows], chunk.stops[rows], starts[rows],
                values, indices,
            )  # fmt: skip
        at = scale_rows(values, starts[rows], stops[rows], scaling.divisors[rows], target, form)
        if at != FINE:
            cell = rows.start + int(np.searchsorted(stops[rows], at, side="right"))
            raise scaling.refused(float(values[at]), cell, int(indices[at]))

    for _ in parallel_map(piece, _row_slices(chunk)):
        pass
    return replace(chunk, data=values, indices=indices, starts=starts, stops=stops)


def _scaled_dense(
    chunk: DenseChunk, scaling: Scaling, target: float, form: int, parallel_map: Map
) -> DenseChunk:
    from .kernels import FINE, scale_rows

    scaled = np.empty(chunk.values.shape)  # filled by piece

    def piece(rows: slice) -> None:
        values, starts, stops = _rows_of(chunk, rows)
        at = scale_rows(values, starts, stops, scaling.divisors[rows], target, form)
        if at != FINE:
            raise _refused_row(chunk, scaling, rows, values, starts, stops, at)
        scaled[rows] = values.reshape(-1, chunk.n_genes)

    for _ in parallel_map(piece, _row_slices(chunk)):
        pass
    return replace(chunk, values=scaled)


def _pieces(chunk: CscChunk) -> Iterator[slice]:
    first, last = int(chunk.indptr[0]), int(chunk.indptr[-1])
    return (slice(a, min(a + _PIECE, last)) for a in range(first, last, _PIECE))


def _add_columns(chunk: CscChunk, scaling: Scaling, totals: np.ndarray, parallel_map: Map) -> None:
    from .kernels import FINE, add_entries

    # Pieces hold entries of all cells, so they are added up one after the other.
    values = parallel_map(lambda part: (part, chunk.data[part].astype(np.float64)), _pieces(chunk))
    for part, some in values:
        at = add_entries(some, chunk.indices[part], totals)
        if at != FINE:
            raise _refused_column(chunk, scaling, part, some, at)


def _scaled_columns(
    chunk: CscChunk, scaling: Scaling, target: float, form: int, parallel_map: Map
) -> CscChunk:
    from .kernels import FINE, scale_entries

    first, last = int(chunk.indptr[0]), int(chunk.indptr[-1])
    scaled = np.empty(last - first)  # filled by piece

    def piece(part: slice) -> None:
        values = scaled[part.start - first : part.stop - first]
        values[:] = chunk.data[part]
        at = scale_entries(values, chunk.indices[part], scaling.divisors, target, form)
        if at != FINE:
            raise _refused_column(chunk, scaling, part, values, at)

    for _ in parallel_map(piece, _pieces(chunk)):
        pass
    return replace(
        chunk, data=scaled, indices=chunk.indices[first:last], indptr=chunk.indptr - first
    )


def _refused_column(
    chunk: CscChunk, scaling: Scaling, part: slice, values: np.ndarray, at: int
) -> Exception:
    """Return the error for entry `at` of a piece, or for an index that is out of range."""
    from .kernels import OUT_OF_RANGE

    if at == OUT_OF_RANGE:
        return NotCanonicalError("indices are out of range")
    gene = int(np.searchsorted(chunk.indptr, part.start + at, side="right")) - 1
    cell = int(chunk.indices[part.start + at])
    return scaling.refused(float(values[at]), cell, chunk.gene_start + gene)
