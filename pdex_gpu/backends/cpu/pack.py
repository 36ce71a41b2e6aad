"""Packing: stored chunks become gene-major values in group order, without zeros.

`CpuPackedChunk.values` holds the entries of gene 0, then gene 1, ...; within a gene those of
group 0, then group 1, ..., each in ascending cell order. ``offsets[g, j]`` is where group g of
gene j starts, so values need no group codes. Counts that fit are stored as uint16.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ...design.contrasts import Design
from ...errors import UnsupportedDataError
from ...sources.base import Chunk, CscChunk, CsrChunk, DenseChunk
from ...utils.parallel import Map
from ...utils.value_summary import ValueSummary
from ..contract import NonFiniteError
from .convert import UNFIT, ZERO, Seen
from .pack_columns import pack_csc, pack_dense_columns
from .pack_rows import pack_csr, pack_dense_rows

_SAMPLE = 100_000


@dataclass(frozen=True)
class CpuPackedChunk:
    """Genes in gene-major, group-ordered form.

    Attributes
    ----------
    gene_start, n_genes : int
    summary : ValueSummary
    values : numpy.ndarray, shape (nnz,), uint16, float32, float64, int64 or uint64
        Nonzero entries by gene, then group, then cell.
    offsets : numpy.ndarray, shape (K + 1, C), int64
        Entries of group g in gene j are ``values[offsets[g, j]:offsets[g + 1, j]]``.
    """

    gene_start: int
    n_genes: int
    summary: ValueSummary
    values: np.ndarray
    offsets: np.ndarray


def pack(chunk: Chunk, design: Design, parallel_map: Map, *, finite: bool = True) -> CpuPackedChunk:
    """Pack a chunk; see :meth:`pdex_gpu.backends.contract.KernelSet.pack`."""
    packer: Callable[..., tuple[np.ndarray, np.ndarray, Seen]]
    if isinstance(chunk, CsrChunk):
        packer, data = pack_csr, chunk.data
    elif isinstance(chunk, CscChunk):
        packer, data = pack_csc, chunk.data
    else:
        data = chunk.values
        by_row = abs(data.strides[0]) >= abs(data.strides[1])
        packer = pack_dense_rows if by_row else pack_dense_columns
    scaled = isinstance(chunk, CsrChunk) and chunk.scale is not None
    native = np.dtype(np.float64) if scaled else native_dtype(data.dtype)
    seen = Seen(UNFIT, 0.0, 0.0)
    drop_zeros = isinstance(chunk, DenseChunk)
    if native == np.uint16 or (not scaled and _looks_like_counts(data)):
        values, offsets, seen = _with_zeros_dropped(
            packer, chunk, design, parallel_map, np.dtype(np.uint16), drop_zeros
        )
    if seen.flags & UNFIT:
        values, offsets, seen = _with_zeros_dropped(
            packer, chunk, design, parallel_map, native, drop_zeros
        )
    if seen.flags & UNFIT:
        raise _first_nonfinite(chunk, design)
    return CpuPackedChunk(chunk.gene_start, chunk.n_genes, seen.summary, values, offsets)


def _with_zeros_dropped(
    packer: Callable[..., tuple[np.ndarray, np.ndarray, Seen]],
    chunk: Chunk,
    design: Design,
    parallel_map: Map,
    dtype: np.dtype,
    drop_zeros: bool,
) -> tuple[np.ndarray, np.ndarray, Seen]:
    """Pack, and pack again without explicit zeros if one was met, which is rare."""
    values, offsets, seen = packer(chunk, design, parallel_map, dtype, drop_zeros)
    if seen.flags & ZERO and not seen.flags & UNFIT and not drop_zeros:
        values, offsets, seen = packer(chunk, design, parallel_map, dtype, True)
    return values, offsets, seen


def native_dtype(dtype: np.dtype) -> np.dtype:
    """Return the packed dtype that holds every value of `dtype` exactly."""
    if dtype.kind == "b" or dtype in (np.uint8, np.uint16):
        return np.dtype(np.uint16)
    if dtype.kind in "iu":
        return np.dtype(np.int64 if dtype.kind == "i" else np.uint64)
    if dtype in (np.float32, np.float64):
        return dtype
    raise UnsupportedDataError(
        f"X has dtype {dtype}. Supported: bool, integers, float32 and float64. Convert it first, "
        "for example with X.astype('float32')."
    )


def _looks_like_counts(data: np.ndarray) -> bool:
    """Return whether the first values are counts that fit uint16, to decide what to try first."""
    sample = data[:_SAMPLE] if data.ndim == 1 else data[: max(1, _SAMPLE // max(1, data.shape[1]))]
    with np.errstate(invalid="ignore"):
        return bool(np.all((sample >= 0) & (sample <= 65535) & (np.floor(sample) == sample)))


def _first_nonfinite(chunk: Chunk, design: Design) -> NonFiniteError:
    """Find the first NaN or infinity, ordered by cell, then gene."""
    if isinstance(chunk, DenseChunk):
        cells, genes = np.nonzero(~np.isfinite(chunk.values))
        found = np.asarray(chunk.values[cells, genes])
    else:
        at = np.flatnonzero(~np.isfinite(chunk.data))
        found = chunk.data[at]
        if isinstance(chunk, CsrChunk):
            # Cells may lie in any order. They share entries where a view repeats them.
            low, high = np.searchsorted(at, chunk.starts), np.searchsorted(at, chunk.stops)
            cells = np.repeat(np.arange(len(low)), high - low)
            which = np.repeat(high - np.cumsum(high - low), high - low) + np.arange(len(cells))
            at, found = at[which], found[which]
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
