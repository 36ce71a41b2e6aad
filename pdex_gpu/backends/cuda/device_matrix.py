"""A range of genes on the device in its stored form: rows, columns or dense."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError
from ...sources.base import (
    Chunk,
    CscChunk,
    CsrChunk,
    DenseChunk,
    NotCanonicalError,
    is_device_array,
)
from ...utils.parallel import Map
from .device_api import Device, DeviceArray, Stream
from .dtypes import INDEX_TYPES, ValueType, index_type, value_type
from .staging import Get, Staging, travel_dtypes

_SAMPLE = 1 << 16  # values inspected to guess the dtype to send them in


@dataclass(frozen=True)
class DeviceMatrix:
    """A cells x genes matrix on a device.

    Attributes
    ----------
    form : {"rows", "columns", "dense"}
    values : DeviceArray
    value_type : ValueType
    n_cells, n_genes : int
    indices : DeviceArray or None
        Genes ("rows") or cells ("columns") of the entries, counted from the first of the range.
    pointers : DeviceArray or None, int64
        Where each row or column begins, plus the end of the last one.
    index_type : int
    longest : int
        Entries of the longest column.
    strides : (int, int)
        Strides of a dense matrix from cell to cell and from gene to gene, in items.
    """

    form: str
    values: DeviceArray
    value_type: ValueType
    n_cells: int
    n_genes: int
    indices: DeviceArray | None = None
    pointers: DeviceArray | None = None
    index_type: int = 0
    longest: int = 0
    strides: tuple[int, int] = (0, 0)

    def sparse_arguments(self) -> tuple[Any, ...]:
        """Return values, indices and pointers as the kernels take them."""
        return (
            *self.value_arguments(), self.indices, np.int32(self.index_type), self.pointers,
        )  # fmt: skip

    def value_arguments(self) -> tuple[Any, ...]:
        return self.values, np.int32(self.value_type.code)


def upload(
    chunk: Chunk, n_cells: int, device: Device, stream: Stream, staging: Staging, parallel_map: Map
) -> DeviceMatrix:
    """Copy a chunk to the device; a chunk that is already there is used in place.

    `stream` owns the memory and has no work left on return.
    """
    if isinstance(chunk, DenseChunk):
        matrix = _dense(chunk, n_cells, device, stream, staging, parallel_map)
    elif isinstance(chunk, CsrChunk):
        matrix = _rows(chunk, n_cells, device, stream, staging, parallel_map)
    else:
        matrix = _columns(chunk, n_cells, device, stream, staging, parallel_map)
    stream.synchronize()
    return matrix


def _dense(
    chunk: DenseChunk,
    n_cells: int,
    device: Device,
    stream: Stream,
    staging: Staging,
    parallel_map: Map,
) -> DeviceMatrix:
    n_genes = chunk.n_genes
    if is_device_array(chunk.values):
        values, strides = _adopt_dense(chunk.values, device)
        kind = value_type(values.dtype)
        return DeviceMatrix("dense", values, kind, n_cells, n_genes, strides=strides)
    host = np.asarray(chunk.values)
    by_gene = abs(host.strides[1]) > abs(host.strides[0])
    lines = host.T if by_gene else host
    width = max(1, lines.shape[1])

    def get(first: int, last: int) -> tuple[np.ndarray, ...]:
        a, b = first // width, -(-last // width)
        return (lines[a:b].reshape(-1)[first - a * width : last - a * width],)

    (sent,) = _send(get, host.size, host.dtype, (), stream, staging, parallel_map)
    strides = (1, n_cells) if by_gene else (n_genes, 1)
    return DeviceMatrix("dense", sent, value_type(sent.dtype), n_cells, n_genes, strides=strides)


def _rows(
    chunk: CsrChunk,
    n_cells: int,
    device: Device,
    stream: Stream,
    staging: Staging,
    parallel_map: Map,
) -> DeviceMatrix:
    if is_device_array(chunk.data):
        pointers = np.append(chunk.starts, chunk.stops[-1:])
        return _in_place("rows", chunk, n_cells, pointers, device, stream)
    pointers = np.concatenate([[0], np.cumsum(chunk.stops - chunk.starts)]).astype(np.int64)
    whole = np.array_equal(chunk.starts[1:], chunk.stops[:-1])
    begin = int(chunk.starts[0]) if n_cells else 0

    def get(first: int, last: int) -> tuple[np.ndarray, ...]:
        where: slice | np.ndarray = slice(begin + first, begin + last)
        if not whole:  # gaps between rows
            where = _positions(pointers, chunk.starts, first, last)
        genes = chunk.indices[where]
        if chunk.gene_start:
            wide = np.int64 if genes.dtype.kind == "u" else genes.dtype
            genes = np.subtract(genes, chunk.gene_start, dtype=wide)
        return chunk.data[where], genes

    return _sparse("rows", get, chunk, pointers, n_cells, stream, staging, parallel_map)


def _positions(pointers: np.ndarray, starts: np.ndarray, first: int, last: int) -> np.ndarray:
    """Return array positions of entries [first, last), counted without the gaps between rows."""
    a = int(np.searchsorted(pointers, first, side="right")) - 1
    b = int(np.searchsorted(pointers, last, side="left"))
    edges = np.clip(pointers[a : b + 1], first, last)
    where = np.repeat(starts[a:b] - pointers[a:b], np.diff(edges))
    where += np.arange(first, last)
    return where


def _columns(
    chunk: CscChunk,
    n_cells: int,
    device: Device,
    stream: Stream,
    staging: Staging,
    parallel_map: Map,
) -> DeviceMatrix:
    if is_device_array(chunk.data):
        return _in_place("columns", chunk, n_cells, chunk.indptr, device, stream)
    begin = int(chunk.indptr[0])

    def get(first: int, last: int) -> tuple[np.ndarray, ...]:
        where = slice(begin + first, begin + last)
        return chunk.data[where], chunk.indices[where]

    pointers = chunk.indptr.astype(np.int64) - begin
    return _sparse("columns", get, chunk, pointers, n_cells, stream, staging, parallel_map)


def _sparse(
    form: str,
    get: Get,
    chunk: CsrChunk | CscChunk,
    pointers: np.ndarray,
    n_cells: int,
    stream: Stream,
    staging: Staging,
    parallel_map: Map,
) -> DeviceMatrix:
    n_genes = chunk.n_genes
    limit = n_genes if form == "rows" else n_cells
    places = stream.empty(int(pointers[-1]), np.uint16 if limit <= 1 << 16 else np.int32)
    values, _ = _send(get, places.size, chunk.data.dtype, (places,), stream, staging, parallel_map)
    return DeviceMatrix(
        form,
        values,
        value_type(values.dtype),
        n_cells,
        n_genes,
        places,
        send_small(pointers, stream),
        index_type(places.dtype),
        int(np.diff(pointers).max(initial=0)),
    )


def _send(
    get: Get,
    size: int,
    dtype: np.dtype,
    beside: tuple[DeviceArray, ...],
    stream: Stream,
    staging: Staging,
    parallel_map: Map,
) -> tuple[DeviceArray, ...]:
    """Send `size` values, narrowed if all of them allow it, along with their indices."""
    sample = get(0, min(size, _SAMPLE))[0].astype(dtype, copy=False)
    for travel in travel_dtypes(sample):
        array = stream.empty(size, travel)
        lost = staging.send(get, (array, *beside), parallel_map)
        if not lost:
            return array, *beside
        if lost != {0}:
            raise NotCanonicalError("indices are out of range")
        del array
    raise AssertionError("the last type holds all values")


# --- in place ------------------------------------------------------------------------------


class _Flat:
    """The memory of a dense device array from its first to its last item, as one dimension."""

    def __init__(self, array: Any, size: int) -> None:
        facts = dict(array.__cuda_array_interface__)
        facts.update(shape=(size,), strides=None)
        self.__cuda_array_interface__ = facts
        self.owner = array


def _adopt_dense(array: Any, device: Device) -> tuple[DeviceArray, tuple[int, int]]:
    facts = array.__cuda_array_interface__
    item = np.dtype(facts["typestr"]).itemsize
    (n_cells, n_genes), in_bytes = facts["shape"], facts.get("strides")
    by_cell, by_gene = in_bytes or (n_genes * item, item)
    if by_cell < 0 or by_gene < 0 or by_cell % item or by_gene % item:
        raise DataError(
            f"The matrix on the device has strides of {by_cell} and {by_gene} bytes. They must be "
            "non-negative multiples of the item size. Use cupy.ascontiguousarray(X)."
        )
    strides = by_cell // item, by_gene // item
    size = (n_cells - 1) * strides[0] + (n_genes - 1) * strides[1] + 1
    return device.adopt(_Flat(array, size)), strides


def _in_place(
    form: str,
    chunk: CsrChunk | CscChunk,
    n_cells: int,
    pointers: np.ndarray,
    device: Device,
    stream: Stream,
) -> DeviceMatrix:
    values, indices = device.adopt(chunk.data), device.adopt(chunk.indices)
    if indices.dtype.str[1:] not in INDEX_TYPES:
        raise DataError(
            f"The matrix on the device has indices of dtype {indices.dtype}. Supported there: "
            "uint16, int32 and int64. Convert them first with astype('int32')."
        )
    return DeviceMatrix(
        form,
        values,
        value_type(values.dtype),
        n_cells,
        chunk.n_genes,
        indices,
        send_small(pointers, stream),
        index_type(indices.dtype),
        int(np.diff(pointers).max(initial=0)),
    )


# --- small arrays ----------------------------------------------------------------------------


def fetch_small(array: DeviceArray, stream: Stream) -> np.ndarray:
    """Copy a small device array to the host; waits for the copy."""
    host = np.empty(array.size, array.dtype)
    stream.download(array, host)
    stream.synchronize()
    return host


def send_small(host: np.ndarray, stream: Stream) -> DeviceArray:
    """Copy a small host array to the device; waits for the copy."""
    array = stream.empty(host.size, host.dtype)
    stream.upload(np.ascontiguousarray(host), array)
    stream.synchronize()
    return array
