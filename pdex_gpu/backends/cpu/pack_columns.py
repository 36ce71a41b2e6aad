"""Packing column-major input (CSC, and dense by column) gene by gene, split by genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...design.contrasts import Design
from ...sources.base import CscChunk, DenseChunk, NotCanonicalError
from ...utils.parallel import Map
from .convert import Seen, convert, merged
from .jit import jit
from .work_split import exclusive_sum, split_evenly


def pack_csc(
    chunk: CscChunk, design: Design, parallel_map: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Pack a CSC chunk."""
    columns = _CscColumns(chunk, design, drop_zeros)
    return _pack_columns(columns, chunk.n_genes, design, parallel_map, dtype)


def pack_dense_columns(
    chunk: DenseChunk, design: Design, parallel_map: Map, dtype: np.dtype, drop_zeros: bool
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Pack a dense chunk whose columns are contiguous, or nearly so."""
    del drop_zeros  # always dropped
    x = chunk.values
    if x.dtype.kind == "b":
        x = x.view(np.uint8)
    return _pack_columns(_DenseColumns(x, design), chunk.n_genes, design, parallel_map, dtype)


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

    def scatter(self, part: tuple[int, int], values: np.ndarray, offsets: np.ndarray) -> Any:
        c = self.chunk
        return _scatter_csc(
            c.data, c.indices, c.indptr, self.design.codes, *part, self.drop_zeros, values, offsets
        )


@dataclass(frozen=True)
class _DenseColumns:
    x: np.ndarray
    design: Design

    def count(self, part: tuple[int, int], counts: np.ndarray) -> None:
        _count_columns(self.x, self.design.order, self.design.offsets, *part, counts)

    def scatter(self, part: tuple[int, int], values: np.ndarray, offsets: np.ndarray) -> Any:
        return _scatter_columns(self.x, self.design.order, *part, values, offsets)


def _pack_columns(
    columns: _CscColumns | _DenseColumns,
    n_genes: int,
    design: Design,
    parallel_map: Map,
    dtype: np.dtype,
) -> tuple[np.ndarray, np.ndarray, Seen]:
    parts = split_evenly(n_genes, 1)
    counts = np.zeros((design.n_groups, n_genes), np.int64)
    for _ in parallel_map(lambda part: columns.count(part, counts), parts):
        pass
    starts = exclusive_sum(counts.sum(axis=0))
    offsets = starts[:-1] + exclusive_sum(counts)
    values = np.empty(int(starts[-1]), dtype)  # scatter fills it with what was counted
    seen = merged(parallel_map(lambda part: columns.scatter(part, values, offsets), parts))
    return values, offsets, seen


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
    flags, low, high = 0, 0.0, 0.0
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
        seen = convert(selected[:n], buffer)
        flags, low, high = flags | seen[0], min(low, seen[1]), max(high, seen[2])
        for i in range(n):
            values[place[i]] = buffer[i]
    return flags, low, high


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
    flags, low, high = 0, 0.0, 0.0
    column = np.empty(order.size, x.dtype)
    for j in range(j0, j1):
        n = 0
        for o in range(order.size):
            v = x[order[o], j]
            if v != 0:
                column[n] = v
                n += 1
        seen = convert(column[:n], values[offsets[0, j] : offsets[-1, j]])
        flags, low, high = flags | seen[0], min(low, seen[1]), max(high, seen[2])
    return flags, low, high
