"""Genes on the device: as uploaded (a packed chunk) and as sorted keys (a slice of it)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...design.contrasts import Contrast, Design
from ...sources.base import Chunk, NotCanonicalError
from ...utils.parallel import Map
from ...utils.value_summary import ValueSummary
from ..contract import NonFiniteError
from .device_api import Device, DeviceArray, Stream
from .device_matrix import DeviceMatrix, fetch_small, send_small, upload
from .launch_config import Shapes
from .staging import Staging
from .stream_slots import StreamSlot
from .tiles import Tiles, plan_tiles

_NOWHERE = np.uint64(2**64 - 1)
# Positions in `status`.
_BAD_INDEX, _FRACTIONAL = 0, 1
_FIRST = slice(2, 5)  # NaN, infinity and -infinity
_SMALLEST, _LARGEST = 5, 6
_NON_FINITE = (np.nan, np.inf, -np.inf)
_PIECE = 1 << 13  # entries of a column per block of threads


@dataclass(frozen=True)
class Cells:
    """A design on the device.

    Attributes
    ----------
    codes : DeviceArray, int32
        Group of each cell, -1 for none.
    order : DeviceArray, int32
        Cells in group order.
    n_cells : DeviceArray, int64
        Cells per group.
    """

    codes: DeviceArray
    order: DeviceArray
    n_cells: DeviceArray

    @classmethod
    def of(cls, design: Design, stream: Stream) -> Cells:
        return cls(
            send_small(design.codes.astype(np.int32), stream),
            send_small(design.order.astype(np.int32), stream),
            send_small(design.n_cells.astype(np.int64), stream),
        )


@dataclass
class CudaPackedChunk:
    """See :class:`pdex_gpu.backends.contract.PackedChunk`.

    Attributes
    ----------
    matrix : DeviceMatrix
    cells : Cells
    tiles : Tiles
    entries : numpy.ndarray, shape (n_genes,), int64
        Entries per gene, without zeros and without cells that are in no group.
    """

    gene_start: int
    n_genes: int
    summary: ValueSummary
    matrix: DeviceMatrix
    cells: Cells
    tiles: Tiles
    entries: np.ndarray


def make_packed(
    chunk: Chunk,
    design: Design,
    device: Device,
    stream: Stream,
    staging: Staging,
    shapes: Shapes,
    parallel_map: Map,
    *,
    finite: bool,
) -> CudaPackedChunk:
    """Upload a chunk and check it; see :meth:`pdex_gpu.backends.contract.KernelSet.pack`."""
    matrix = upload(chunk, len(design.codes), device, stream, staging, parallel_map)
    cells = Cells.of(design, stream)
    status, entries = _check(matrix, cells, stream, shapes)
    if status[_BAD_INDEX]:
        raise NotCanonicalError("indices are unsorted, repeated or out of range")
    places = status[_FIRST]
    if finite and places.min() != _NOWHERE:
        which = int(places.argmin())
        cell, gene = divmod(int(places[which]), matrix.n_genes)
        raise NonFiniteError(cell, gene + chunk.gene_start, _NON_FINITE[which])
    smallest, largest = (
        matrix.value_type.value_of(int(status[place])) for place in (_SMALLEST, _LARGEST)
    )
    summary = ValueSummary(bool(status[_FRACTIONAL]), smallest, largest)
    tiles = plan_tiles(design.n_cells, shapes.tile(matrix.value_type.bits // 8), stream)
    return CudaPackedChunk(
        chunk.gene_start,
        matrix.n_genes,
        summary,
        matrix,
        cells,
        tiles,
        entries.astype(np.int64),
    )


def _check(
    matrix: DeviceMatrix, cells: Cells, stream: Stream, shapes: Shapes
) -> tuple[np.ndarray, np.ndarray]:
    zero = matrix.value_type.zero_key
    first = np.array([0, 0, _NOWHERE, _NOWHERE, _NOWHERE, zero, zero], np.uint64)
    found = send_small(first, stream)
    counted = stream.empty(matrix.n_genes, np.uint64)
    stream.zero(counted)
    n_cells, n_genes = np.int64(matrix.n_cells), np.int64(matrix.n_genes)
    ends = (cells.codes, n_cells, n_genes)
    if matrix.form == "rows":
        _launch(
            stream, shapes, "check_rows", shapes.blocks(matrix.n_cells, 32),
            *matrix.sparse_arguments(), *ends, found, counted,
        )  # fmt: skip
    elif matrix.form == "columns":
        n_pieces = _n_pieces(matrix)
        _launch(
            stream, shapes, "check_columns", matrix.n_genes * n_pieces,
            *matrix.sparse_arguments(), *ends, np.int64(n_pieces), np.int64(_PIECE),
            found, counted,
        )  # fmt: skip
    else:
        _launch(
            stream, shapes, "check_dense", shapes.blocks(matrix.n_cells * matrix.n_genes),
            *matrix.value_arguments(), *ends, *map(np.int64, matrix.strides), found, counted,
        )  # fmt: skip
    return fetch_small(found, stream), fetch_small(counted, stream)


def _n_pieces(matrix: DeviceMatrix) -> int:
    return max(1, -(-matrix.longest // _PIECE))


def _launch(stream: Stream, shapes: Shapes, kernel: str, n_blocks: int, *args: Any) -> None:
    if n_blocks:
        stream.launch("layout", kernel, n_blocks, shapes.n_threads, *args)


@dataclass
class Slice:
    """Keys of genes, ordered by gene, then by group, and ascending within each group.

    Attributes
    ----------
    slot : StreamSlot
        The slot whose stream owns the arrays.
    n_genes, n_groups : int
    entries : numpy.ndarray, shape (n_genes,), int64
        Entries per gene.
    kind, bits : int
        Kind and width of the keys; see :class:`.dtypes.ValueType`.
    keys : DeviceArray
    starts : DeviceArray, int64
        Where each (group, gene) begins, shape (n_groups + 1, n_genes).
    n_cells : DeviceArray, int64
        Cells per group.
    tiles : Tiles
    compared : tuple or None
        The contrast that kernels asked for last, and its :class:`.comparands.Comparands`.
    """

    slot: StreamSlot
    n_genes: int
    n_groups: int
    entries: np.ndarray
    kind: int
    bits: int
    keys: DeviceArray
    starts: DeviceArray
    n_cells: DeviceArray
    tiles: Tiles
    compared: tuple[Contrast, Any] | None = None

    def launch(self, source: str, kernel: str, n_blocks: int, *args: Any, shared: int = 0) -> None:
        """Launch a kernel for keys of this width; its first arguments are the keys and starts."""
        self.run(source, kernel, n_blocks, self.keys, self.starts, *args, shared=shared)

    def run(self, source: str, kernel: str, n_blocks: int, *args: Any, shared: int = 0) -> None:
        """Launch the version of a kernel for keys of this width."""
        if n_blocks:
            self.slot.stream.launch(
                source, f"{kernel}_{self.bits}", n_blocks, self.slot.shapes.n_threads, *args,
                shared=shared,
            )  # fmt: skip


@contextmanager
def make_slice(packed: CudaPackedChunk, genes: slice, slot: StreamSlot) -> Iterator[Slice]:
    """Yield genes of a packed chunk as unsorted keys, whose memory is freed with the context."""
    stream, shapes, matrix = slot.stream, slot.shapes, packed.matrix
    n_groups, n_genes = packed.cells.n_cells.size, genes.stop - genes.start
    entries = packed.entries[genes]
    value = matrix.value_type
    counts = stream.empty(n_groups * n_genes, np.uint32)
    stream.zero(counts)
    starts = stream.empty((n_groups + 1) * n_genes, np.int64)
    keys = stream.empty(int(entries.sum()), value.key)
    walk = _walk(packed, genes, slot)
    size = np.int64(n_genes)
    walk("count", value.bits, np.int32(value.kind), size, counts)
    _sum_counts(counts, starts, n_groups, n_genes, stream, shapes)
    walk("scatter", value.bits, np.int32(value.kind), size, counts, starts, keys)
    yield Slice(
        slot, n_genes, n_groups, entries, value.kind, value.bits, keys, starts,
        packed.cells.n_cells, packed.tiles,
    )  # fmt: skip


def _walk(packed: CudaPackedChunk, genes: slice, slot: StreamSlot) -> Any:
    """Return a function that launches a kernel over the entries of these genes."""
    stream, shapes, matrix, cells = slot.stream, slot.shapes, packed.matrix, packed.cells
    first, n_genes = np.int64(genes.start), genes.stop - genes.start
    n_selected = cells.order.size
    before: tuple[Any, ...]
    if matrix.form == "rows":
        spans = stream.empty(2 * n_selected, np.int64)
        _launch(
            stream, shapes, "find_rows", shapes.blocks(n_selected), matrix.indices,
            np.int32(matrix.index_type), matrix.pointers, cells.order, np.int64(n_selected),
            first, np.int64(genes.stop), spans,
        )  # fmt: skip
        n_blocks = shapes.blocks(n_selected, 32)
        before = (matrix.indices, np.int32(matrix.index_type), spans, cells.order, cells.codes,
                  np.int64(n_selected), first)  # fmt: skip
    elif matrix.form == "columns":
        n_pieces = _n_pieces(matrix)
        n_blocks = n_genes * n_pieces
        before = (matrix.indices, np.int32(matrix.index_type), matrix.pointers, cells.codes,
                  first, np.int64(n_pieces), np.int64(_PIECE))  # fmt: skip
    else:
        n_blocks = shapes.blocks(matrix.n_cells * n_genes)
        before = (cells.codes, np.int64(matrix.n_cells), first, *map(np.int64, matrix.strides))

    def launch(step: str, bits: int, kind: np.int32, *after: Any) -> None:
        kernel = f"{step}_{matrix.form}_{bits}"
        _launch(stream, shapes, kernel, n_blocks, *matrix.value_arguments(), kind, *before, *after)

    return launch


def _sum_counts(
    counts: DeviceArray,
    starts: DeviceArray,
    n_groups: int,
    n_genes: int,
    stream: Stream,
    shapes: Shapes,
) -> None:
    bases = stream.empty(n_genes, np.uint64)
    n_blocks, shared = -(-n_genes // 32), 8 * shapes.n_threads
    size = np.int64(n_groups), np.int64(n_genes)
    for kernel, blocks, args in (
        ("gene_totals", n_blocks, (counts, *size, bases)),
        ("gene_bases", 1, (bases, size[1])),
        ("group_starts", n_blocks, (counts, bases, *size, starts)),
    ):
        stream.launch("offsets", kernel, blocks, shapes.n_threads, *args, shared=shared)
