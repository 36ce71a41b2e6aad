"""Packing row-major input (CSR, and dense by row): count the entries per gene, then scatter.

Both passes are split by cells. Each part has its own cursors, so threads never write to the same
place.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...design.contrasts import Design
from ...sources.base import CsrChunk, DenseChunk, NotCanonicalError
from ...sources.normalized.kernels import TABLE, scaled
from ...utils.parallel import Map
from .convert import Seen, convert, flags_of, merged
from .jit import jit, prefetch, prefetch_ahead
from .work_split import exclusive_sum, split_evenly

_CELLS_PER_PART = 1024
# Cells of a group lie far apart in memory, too irregularly for the hardware prefetcher. While one
# row is scattered, the row `_ROWS_AHEAD` cells on is prefetched, one cache line every `_STRETCH`
# entries.
_ROWS_AHEAD = 2
_STRETCH = 16


def pack_csr(
    chunk: CsrChunk, design: Design, parallel_map: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Pack a CSR chunk."""
    rows = (chunk.data, chunk.indices, chunk.starts, chunk.stops, design.order)
    scale = None
    if chunk.scale is not None:
        scale = (chunk.scale.divisors, chunk.scale.target, chunk.scale.form)

    def count(part: tuple[int, int], counts: np.ndarray) -> None:
        if _count_csr(*rows, *part, chunk.gene_start, chunk.n_genes, drop_zeros, counts):
            raise NotCanonicalError("gene indices are unsorted, repeated or out of range")

    def scatter(part: tuple[int, int], cursor: Any, values: Any, offsets: Any) -> Any:
        return _scatter_csr(
            *rows, design.offsets, *part, chunk.gene_start, drop_zeros, scale, cursor, values,
            offsets,
        )  # fmt: skip

    return _count_and_scatter(chunk.n_genes, design, parallel_map, dtype, count, scatter)


def pack_dense_rows(
    chunk: DenseChunk, design: Design, parallel_map: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Pack a dense chunk whose rows are contiguous, or nearly so."""
    del drop_zeros  # always dropped
    x = chunk.values
    if x.dtype.kind == "b":
        x = x.view(np.uint8)

    def count(part: tuple[int, int], counts: np.ndarray) -> None:
        _count_dense(x, design.order, *part, counts)

    def scatter(part: tuple[int, int], cursor: Any, values: Any, offsets: Any) -> Any:
        return _scatter_dense(x, design.order, design.offsets, *part, cursor, values, offsets)

    return _count_and_scatter(chunk.n_genes, design, parallel_map, dtype, count, scatter)


def _count_and_scatter(
    n_genes: int,
    design: Design,
    parallel_map: Map,
    dtype: np.dtype,
    count: Callable[[tuple[int, int], np.ndarray], None],
    scatter: Callable[[tuple[int, int], Any, Any, Any], Any],
) -> tuple[np.ndarray, np.ndarray, Seen]:
    parts = split_evenly(len(design.order), _CELLS_PER_PART)
    counts = np.zeros((len(parts), n_genes), np.int64)
    for _ in parallel_map(lambda p: count(parts[p], counts[p]), range(len(parts))):
        pass
    starts = exclusive_sum(counts.sum(axis=0))
    cursors = (starts[:-1] + exclusive_sum(counts)[:-1]).astype(np.uint64)
    values = np.empty(int(starts[-1]), dtype)  # scatter fills it: cursors end where parts start
    # Large, so not filled first: the part with the first cell of a group writes the group's row.
    offsets = np.empty((design.n_groups + 1, n_genes), np.int64)
    offsets[-1] = starts[1:]
    ends = cursors + counts.astype(np.uint64)
    tasks = [(parts[p], cursors[p], values, offsets) for p in range(len(parts))]
    seen = merged(parallel_map(lambda task: scatter(*task), tasks))
    assert np.array_equal(cursors, ends), "a scatter did not write what was counted"
    return values, offsets, seen


@jit
def _count_csr(
    data, indices, starts, stops, order, first, last, gene_start, n_genes, drop_zeros, counts
):
    """Count entries per gene in cells ``order[first:last]``; return 1 if not canonical."""
    bad = np.uint32(0)
    for o in range(first, last):
        cell = order[o]
        row = indices[starts[cell] : stops[cell]]
        n = row.size
        if n == 0:
            continue
        row_bad = np.uint32(0)
        for i in range(1, n):
            row_bad |= np.uint32(row[i] <= row[i - 1])
        row_bad |= np.uint32(row[0] < gene_start)
        row_bad |= np.uint32(row[n - 1] >= gene_start + n_genes)
        bad |= row_bad
        if row_bad:
            continue
        if drop_zeros:
            row_data = data[starts[cell] : stops[cell]]
            for i in range(n):
                if row_data[i] != 0:
                    counts[np.uint64(np.int64(row[i]) - gene_start)] += 1
        else:
            for i in range(n):  # unsigned indices: no test for negative ones
                counts[np.uint64(np.int64(row[i]) - gene_start)] += 1
    return bad


@jit
def _scatter_csr(
    data, indices, starts, stops, order, groups, first, last, gene_start, drop_zeros,
    scale, cursor, values, offsets,
):  # fmt: skip
    """Write the entries of cells ``order[first:last]``; return what `convert` saw."""
    n_groups = groups.size - 1
    n_genes = cursor.size
    flags, low, high = 0, 0.0, 0.0
    buffer = np.empty(n_genes, values.dtype)
    codes = np.empty(n_genes, np.int32)
    present = np.zeros(TABLE + 1, np.bool_)
    table = np.zeros(TABLE, np.float64)
    for g in range(n_groups):
        if groups[g + 1] < first or groups[g] >= last:
            continue
        if groups[g] >= first:
            for j in range(n_genes):
                offsets[g, j] = cursor[j]
        for o in range(max(first, groups[g]), min(last, groups[g + 1])):
            cell = order[o]
            ahead = starts[order[min(o + _ROWS_AHEAD, last - 1)]]
            row = indices[starts[cell] : stops[cell]]
            counts = data[starts[cell] : stops[cell]]
            if scale is None:  # known when this is compiled
                seen = convert(counts, buffer)
            else:
                divisors, target, form = scale
                seen = _scale(counts, divisors[cell], target, form, codes, present, table, buffer)
            flags, low, high = flags | seen[0], min(low, seen[1]), max(high, seen[2])
            if drop_zeros:
                for i in range(row.size):
                    if buffer[i] != 0:
                        j = np.uint64(np.int64(row[i]) - gene_start)
                        at = cursor[j]
                        values[at] = buffer[i]
                        prefetch_ahead(values, at)
                        cursor[j] = at + np.uint64(1)
            else:
                for stretch in range(0, row.size, _STRETCH):
                    prefetch(indices, ahead + stretch)
                    prefetch(data, ahead + stretch)
                    for i in range(stretch, min(stretch + _STRETCH, row.size)):
                        j = np.uint64(np.int64(row[i]) - gene_start)
                        at = cursor[j]
                        values[at] = buffer[i]
                        prefetch_ahead(values, at)
                        cursor[j] = at + np.uint64(1)
    return flags, low, high


@jit
def _scale(counts, divisor, target, form, codes, present, table, out):
    """Scale the counts of a cell, and return what `convert` would see of the values.

    The formula is that of :func:`.sources.normalized.kernels.scaled`. Its values are finite, not
    negative, and grow with the count. Each distinct small count is scaled once. Separate loops,
    because the first one then compiles to vector instructions.
    """
    largest = np.int32(0)
    for i in range(counts.size):
        x = np.float32(counts[i])  # small counts are exact
        code = np.int32(x if x < np.float32(TABLE) else np.float32(TABLE))
        codes[i] = code
        largest = max(largest, code)
    for i in range(counts.size):
        present[codes[i]] = True
    flags, high = 0, 0.0
    for code in range(min(largest + 1, TABLE)):
        if present[code]:
            present[code] = False
            high = scaled(np.float64(code), divisor, target, form)
            table[code] = high
            flags |= flags_of(high)
    if largest < TABLE:
        for i in range(counts.size):
            out[i] = table[codes[i]]
        return flags, 0.0, high
    for i in range(counts.size):
        if codes[i] < TABLE:
            out[i] = table[codes[i]]
        else:
            value = scaled(np.float64(counts[i]), divisor, target, form)
            flags |= flags_of(value)
            high = max(high, value)
            out[i] = value
    return flags, 0.0, high


@jit
def _count_dense(x, order, first, last, counts):
    for o in range(first, last):
        row = x[order[o]]
        for j in range(counts.size):
            counts[j] += row[j] != 0


@jit
def _scatter_dense(x, order, groups, first, last, cursor, values, offsets):
    n_groups = groups.size - 1
    n_genes = cursor.size
    flags, low, high = 0, 0.0, 0.0
    buffer = np.empty(n_genes, values.dtype)
    for g in range(n_groups):
        if groups[g + 1] < first or groups[g] >= last:
            continue
        if groups[g] >= first:
            for j in range(n_genes):
                offsets[g, j] = cursor[j]
        for o in range(max(first, groups[g]), min(last, groups[g + 1])):
            row = x[order[o]]
            seen = convert(row, buffer)
            flags, low, high = flags | seen[0], min(low, seen[1]), max(high, seen[2])
            for j in range(n_genes):
                if row[j] != 0:
                    at = cursor[j]
                    values[at] = buffer[j]
                    prefetch_ahead(values, at)
                    cursor[j] = at + np.uint64(1)
    return flags, low, high
