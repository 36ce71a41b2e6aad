"""Packing: a chunk as stored becomes gene-major values in group order, zeros left out.

`PackedBlock.values` holds the entries of gene 0, then gene 1, ...; within a gene those of
group 0, then group 1, ..., each in ascending cell order. ``offsets[g, j]`` says where group g of
gene j starts, so no code is stored beside a value. Counts that fit are stored as uint16.

Row-major input takes two passes: count the entries a gene, then scatter. Both are split by
cells, each part with cursors of its own, so threads never share a place to write.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba.extending import overload

from ...design import Design
from ...errors import UnsupportedDataError
from ...sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from ..contract import LOG1P_EPSILON, Map, NonFiniteError
from .jit import jit, prefetch, prefetch_ahead

# What a scatter saw: bits of its return value.
UNFIT = 1  # a value that the packed dtype cannot hold, or NaN or infinity
ZERO = 2  # an explicit zero
FRACTIONAL = 4  # a fractional part above LOG1P_EPSILON

_EPSILON = LOG1P_EPSILON
_SAMPLE = 100_000
_CELLS_A_PART = 1024
# Cells of a group lie far apart in memory, too irregular for the hardware: while one row is
# scattered, the row this many cells on is asked for, a cache line of it every so many entries.
_ROWS_AHEAD = 2
_STRETCH = 16
_MAX_PARTS = 64


@dataclass(frozen=True)
class PackedBlock:
    """Genes in gene-major, group-ordered form.

    Attributes
    ----------
    gene_start, n_genes : int
    fractional : bool
    values : numpy.ndarray, shape (nnz,), uint16, float32, float64, int64 or uint64
        Nonzero entries by gene, then group, then cell.
    offsets : numpy.ndarray, shape (K + 1, C), int64
        Entries of group g in gene j are ``values[offsets[g, j]:offsets[g + 1, j]]``.
    """

    gene_start: int
    n_genes: int
    fractional: bool
    values: np.ndarray
    offsets: np.ndarray


def pack(chunk: Chunk, design: Design, run: Map, *, finite: bool = True) -> PackedBlock:
    """Pack a chunk; see :meth:`pdex_gpu.backends.contract.KernelSet.pack`."""
    packer: Callable[..., tuple[np.ndarray, np.ndarray, int]]
    if isinstance(chunk, CsrChunk):
        packer, data = _pack_csr, chunk.data
    elif isinstance(chunk, CscChunk):
        packer, data = _pack_csc, chunk.data
    else:
        packer, data = _pack_dense, chunk.values
    native = _native_dtype(data.dtype)
    flags = UNFIT
    drop_zeros = isinstance(chunk, DenseChunk)
    if native == np.uint16 or _looks_like_counts(data):
        values, offsets, flags = _with_zeros_dropped(
            packer, chunk, design, run, np.dtype(np.uint16), drop_zeros
        )
    if flags & UNFIT:
        values, offsets, flags = _with_zeros_dropped(packer, chunk, design, run, native, drop_zeros)
    if flags & UNFIT:
        raise _first_nonfinite(chunk, design)
    return PackedBlock(chunk.gene_start, chunk.n_genes, bool(flags & FRACTIONAL), values, offsets)


def _with_zeros_dropped(
    packer: Callable[..., tuple[np.ndarray, np.ndarray, int]],
    chunk: Chunk,
    design: Design,
    run: Map,
    dtype: np.dtype,
    drop_zeros: bool,
) -> tuple[np.ndarray, np.ndarray, int]:
    """Explicit zeros are rare, so they are looked for only once one was met."""
    values, offsets, flags = packer(chunk, design, run, dtype, drop_zeros)
    if flags & ZERO and not flags & UNFIT and not drop_zeros:
        values, offsets, flags = packer(chunk, design, run, dtype, True)
    return values, offsets, flags


def _native_dtype(dtype: np.dtype) -> np.dtype:
    """The packed dtype that holds every value of `dtype` exactly."""
    if dtype.kind == "b" or dtype in (np.uint8, np.uint16):
        return np.dtype(np.uint16)
    if dtype.kind in "iu":
        return np.dtype(np.int64 if dtype.kind == "i" else np.uint64)
    if dtype in (np.float32, np.float64):
        return dtype
    raise UnsupportedDataError(
        f"X has dtype {dtype}; supported are bool, integers, float32 and float64. "
        "Convert it first, for example with X.astype('float32')."
    )


def _looks_like_counts(data: np.ndarray) -> bool:
    """Whether the first values are counts that fit uint16: decides what is tried first."""
    sample = data[:_SAMPLE] if data.ndim == 1 else data[: max(1, _SAMPLE // max(1, data.shape[1]))]
    with np.errstate(invalid="ignore"):
        return bool(np.all((sample >= 0) & (sample <= 65535) & (np.floor(sample) == sample)))


def _parts(n_items: int, items_a_part: int) -> list[tuple[int, int]]:
    n = max(1, min(_MAX_PARTS, n_items // items_a_part))
    bounds = [n_items * i // n for i in range(n + 1)]
    return list(itertools.pairwise(bounds))


# --- row-major: CSR, and dense stored by row -----------------------------------------------


def _pack_csr(
    chunk: CsrChunk, design: Design, run: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    rows = (chunk.data, chunk.indices, chunk.starts, chunk.stops, design.order)

    def count(part: tuple[int, int], counts: np.ndarray) -> None:
        if _count_csr(*rows, *part, chunk.gene_start, chunk.n_genes, drop_zeros, counts):
            raise NotCanonicalError("gene indices are unsorted, repeated or out of range")

    def scatter(part: tuple[int, int], cursor: Any, values: Any, offsets: Any) -> int:
        return int(
            _scatter_csr(
                *rows, design.offsets, *part, chunk.gene_start, drop_zeros, cursor, values, offsets
            )
        )

    return _count_and_scatter(chunk.n_genes, design, run, dtype, count, scatter)


def _pack_dense(
    chunk: DenseChunk, design: Design, run: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    del drop_zeros  # always
    x = chunk.values
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    if abs(x.strides[0]) < abs(x.strides[1]):
        return _pack_columns(_DenseColumns(x, design), chunk.n_genes, design, run, dtype)

    def count(part: tuple[int, int], counts: np.ndarray) -> None:
        _count_dense(x, design.order, *part, counts)

    def scatter(part: tuple[int, int], cursor: Any, values: Any, offsets: Any) -> int:
        return int(_scatter_dense(x, design.order, design.offsets, *part, cursor, values, offsets))

    return _count_and_scatter(chunk.n_genes, design, run, dtype, count, scatter)


def _count_and_scatter(
    n_genes: int,
    design: Design,
    run: Map,
    dtype: np.dtype,
    count: Callable[[tuple[int, int], np.ndarray], None],
    scatter: Callable[[tuple[int, int], Any, Any, Any], int],
) -> tuple[np.ndarray, np.ndarray, int]:
    parts = _parts(len(design.order), _CELLS_A_PART)
    counts = np.zeros((len(parts), n_genes), np.int64)
    for _ in run(lambda p: count(parts[p], counts[p]), range(len(parts))):
        pass
    starts = _exclusive_sum(counts.sum(axis=0))
    cursors = (starts[:-1] + _exclusive_sum(counts, axis=0)[:-1]).astype(np.uint64)
    values = np.empty(int(starts[-1]), dtype)  # scatter fills it: cursors end where parts begin
    # Not filled first, as it is large: every group has a first cell, whose part writes its row.
    offsets = np.empty((design.n_groups + 1, n_genes), np.int64)
    offsets[-1] = starts[1:]
    ends = cursors + counts.astype(np.uint64)
    flags = 0
    tasks = [(parts[p], cursors[p], values, offsets) for p in range(len(parts))]
    for seen in run(lambda task: scatter(*task), tasks):
        flags |= seen
    assert np.array_equal(cursors, ends), "a scatter did not write what was counted"
    return values, offsets, flags


def _exclusive_sum(counts: np.ndarray, axis: int = 0) -> np.ndarray:
    zero = np.zeros((1, *counts.shape[1:]), np.int64)
    return np.concatenate([zero, np.cumsum(counts, axis=axis)])


@jit
def _count_csr(
    data, indices, starts, stops, order, first, last, gene_start, n_genes, drop_zeros, counts
):
    """Entries a gene among cells ``order[first:last]``; returns 1 if indices are not canonical."""
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
    cursor, values, offsets,
):  # fmt: skip
    """Write the entries of cells ``order[first:last]``; returns flags."""
    n_groups = groups.size - 1
    n_genes = cursor.size
    flags = 0
    buffer = np.empty(n_genes, values.dtype)
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
            flags |= _convert(data[starts[cell] : stops[cell]], buffer)
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
    return flags


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
    flags = 0
    buffer = np.empty(n_genes, values.dtype)
    for g in range(n_groups):
        if groups[g + 1] < first or groups[g] >= last:
            continue
        if groups[g] >= first:
            for j in range(n_genes):
                offsets[g, j] = cursor[j]
        for o in range(max(first, groups[g]), min(last, groups[g + 1])):
            row = x[order[o]]
            flags |= _convert(row, buffer)
            for j in range(n_genes):
                if row[j] != 0:
                    at = cursor[j]
                    values[at] = buffer[j]
                    prefetch_ahead(values, at)
                    cursor[j] = at + np.uint64(1)
    return flags


# --- column-major: CSC, and dense stored by column -----------------------------------------


def _pack_csc(
    chunk: CscChunk, design: Design, run: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, int]:
    columns = _CscColumns(chunk, design, drop_zeros)
    return _pack_columns(columns, chunk.n_genes, design, run, dtype)


@dataclass(frozen=True)
class _CscColumns:
    chunk: CscChunk
    design: Design
    drop_zeros: bool

    def count(self, part: tuple[int, int], counts: np.ndarray) -> None:
        c = self.chunk
        if _count_csc(
            c.data, c.indices, c.indptr, self.design.codes, *part, self.drop_zeros, counts
        ):
            raise NotCanonicalError("cell indices are unsorted, repeated or out of range")

    def scatter(self, part: tuple[int, int], values: np.ndarray, offsets: np.ndarray) -> int:
        c = self.chunk
        return int(
            _scatter_csc(
                c.data,
                c.indices,
                c.indptr,
                self.design.codes,
                *part,
                self.drop_zeros,
                values,
                offsets,
            )
        )


@dataclass(frozen=True)
class _DenseColumns:
    x: np.ndarray
    design: Design

    def count(self, part: tuple[int, int], counts: np.ndarray) -> None:
        _count_columns(self.x, self.design.order, self.design.offsets, *part, counts)

    def scatter(self, part: tuple[int, int], values: np.ndarray, offsets: np.ndarray) -> int:
        return int(_scatter_columns(self.x, self.design.order, *part, values, offsets))


def _pack_columns(
    columns: _CscColumns | _DenseColumns, n_genes: int, design: Design, run: Map, dtype: np.dtype
) -> tuple[np.ndarray, np.ndarray, int]:
    parts = _parts(n_genes, 1)
    counts = np.zeros((design.n_groups, n_genes), np.int64)
    for _ in run(lambda part: columns.count(part, counts), parts):
        pass
    starts = _exclusive_sum(counts.sum(axis=0))
    offsets = starts[:-1] + _exclusive_sum(counts, axis=0)
    values = np.empty(int(starts[-1]), dtype)  # scatter fills it: it writes what was counted
    flags = 0
    for seen in run(lambda part: columns.scatter(part, values, offsets), parts):
        flags |= seen
    return values, offsets, flags


@jit
def _count_csc(data, indices, indptr, codes, j0, j1, drop_zeros, counts):
    bad = 0
    n_cells = codes.size
    for j in range(j0, j1):
        column = indices[indptr[j] : indptr[j + 1]]
        column_data = data[indptr[j] : indptr[j + 1]]
        previous = np.int64(-1)
        for i in range(column.size):
            cell = np.int64(column[i])
            if cell <= previous or cell >= n_cells:
                bad = 1
                break
            previous = cell
            g = codes[cell]
            if g >= 0 and not (drop_zeros and column_data[i] == 0):
                counts[g, j] += 1
    return bad


@jit
def _scatter_csc(data, indices, indptr, codes, j0, j1, drop_zeros, values, offsets):
    flags = 0
    n_groups = offsets.shape[0] - 1
    cursor = np.empty(n_groups, np.int64)
    longest = 0
    for j in range(j0, j1):
        longest = max(longest, indptr[j + 1] - indptr[j])
    selected = np.empty(longest, data.dtype)
    buffer = np.empty(longest, values.dtype)
    place = np.empty(longest, np.int64)
    for j in range(j0, j1):
        for g in range(n_groups):
            cursor[g] = offsets[g, j]
        column = indices[indptr[j] : indptr[j + 1]]
        column_data = data[indptr[j] : indptr[j + 1]]
        n = 0
        for i in range(column.size):
            g = codes[column[i]]
            if g >= 0 and not (drop_zeros and column_data[i] == 0):
                selected[n] = column_data[i]
                place[n] = cursor[g]
                cursor[g] += 1
                n += 1
        flags |= _convert(selected[:n], buffer)
        for i in range(n):
            values[place[i]] = buffer[i]
    return flags


@jit
def _count_columns(x, order, groups, j0, j1, counts):
    for j in range(j0, j1):
        for g in range(groups.size - 1):
            n = 0
            for o in range(groups[g], groups[g + 1]):
                n += x[order[o], j] != 0
            counts[g, j] = n


@jit
def _scatter_columns(x, order, j0, j1, values, offsets):
    flags = 0
    column = np.empty(order.size, x.dtype)
    for j in range(j0, j1):
        n = 0
        for o in range(order.size):
            v = x[order[o], j]
            if v != 0:
                column[n] = v
                n += 1
        flags |= _convert(column[:n], values[offsets[0, j] : offsets[-1, j]])
    return flags


# --- values --------------------------------------------------------------------------------


def _convert(source: np.ndarray, out: np.ndarray) -> int:
    """Copy `source` into the packed dtype of `out`; returns flags. Chosen by dtype below."""
    raise NotImplementedError


@overload(_convert, jit_options={"nogil": True})
def _convert_overload(source, out):
    is_float = source.dtype.name.startswith("float")
    if out.dtype.name == "uint16":

        def to_counts(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            for i in range(source.size):
                v = source[i]
                fits = (v >= 0) & (v <= 65535)  # false for NaN
                count = np.uint16(np.int32(v) if fits else np.int32(0))
                out[i] = count
                unfit |= np.uint32(count != v)
                zero |= np.uint32(v == 0)
            return np.int64(unfit) * UNFIT | np.int64(zero) * ZERO

        return to_counts

    if is_float:
        # In the precision of the values, as pdex and the reference compare them.
        epsilon = np.dtype(source.dtype.name).type(_EPSILON)

        def to_float(source, out):
            unfit = np.uint32(0)
            zero = np.uint32(0)
            fractional = np.uint32(0)
            for i in range(source.size):
                v = source[i]
                out[i] = v
                unfit |= np.uint32(v - v != 0)  # NaN or infinity
                zero |= np.uint32(v == 0)
                fractional |= np.uint32(v - np.trunc(v) > epsilon)
            return (
                np.int64(unfit) * UNFIT | np.int64(zero) * ZERO | np.int64(fractional) * FRACTIONAL
            )

        return to_float

    def to_integer(source, out):
        zero = np.uint32(0)
        for i in range(source.size):
            out[i] = source[i]
            zero |= np.uint32(source[i] == 0)
        return np.int64(zero) * ZERO

    return to_integer


def _first_nonfinite(chunk: Chunk, design: Design) -> NonFiniteError:
    """The first NaN or infinity by cell, then gene."""
    if isinstance(chunk, DenseChunk):
        cells, genes = np.nonzero(~np.isfinite(chunk.values))
        found = np.asarray(chunk.values[cells, genes])
    else:
        at = np.flatnonzero(~np.isfinite(chunk.data))
        found = chunk.data[at]
        if isinstance(chunk, CsrChunk):
            cells = np.searchsorted(chunk.starts, at, side="right") - 1
            inside = (cells >= 0) & (at < chunk.stops[cells])
            at, found, cells = at[inside], found[inside], cells[inside]
            genes = chunk.indices[at].astype(np.int64) - chunk.gene_start
        else:
            genes = np.searchsorted(chunk.indptr, at, side="right") - 1
            inside = (genes >= 0) & (genes < chunk.n_genes)
            at, found, genes = at[inside], found[inside], genes[inside]
            cells = chunk.indices[at].astype(np.int64)
    keep = design.codes[cells] >= 0
    cells, genes, found = cells[keep], genes[keep], found[keep]
    first = np.lexsort((genes, cells))[0]
    return NonFiniteError(int(cells[first]), int(genes[first]) + chunk.gene_start, found[first])
