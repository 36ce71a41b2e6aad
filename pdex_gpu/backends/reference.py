"""The reference kernel set: numpy and scipy, one pair of samples at a time.

It is the runnable specification that every other kernel set is tested against, and it runs the
test options that compiled kernels do not have.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ..design import Design
from ..pools import Map
from ..sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from .contract import LOG1P_EPSILON, Moments, NonFiniteError, RankSums

name = "reference"


@dataclass(frozen=True)
class ReferenceBlock:
    """Dense columns in their stored dtype, one a gene."""

    gene_start: int
    n_genes: int
    fractional: bool
    columns: np.ndarray  # (n_cells, n_genes)

    def samples(self, j: int, design: Design) -> list[np.ndarray]:
        """Values of each group in gene `j`, ascending by cell."""
        column = self.columns[:, j]
        return np.split(column[design.order], design.offsets[1:-1])


def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
    return 16.0 * n_cells


def pack(chunk: Chunk, design: Design, run: Map, *, finite: bool = True) -> ReferenceBlock:
    columns = _densify(chunk)
    if columns.dtype.kind == "b":
        columns = columns.astype(np.uint8)
    chosen = columns[design.order]
    if chosen.dtype.kind == "f":
        if finite and not np.isfinite(chosen).all():
            cells, genes = np.nonzero(~np.isfinite(columns) & (design.codes >= 0)[:, None])
            first = np.lexsort((genes, cells))[0]
            cell, gene = int(cells[first]), int(genes[first])
            raise NonFiniteError(cell, gene + chunk.gene_start, float(columns[cell, gene]))
        fractional = bool(np.any(np.modf(chosen)[0] > LOG1P_EPSILON))
    else:
        fractional = False
    return ReferenceBlock(chunk.gene_start, chunk.n_genes, fractional, columns)


def _densify(chunk: Chunk) -> np.ndarray:
    if isinstance(chunk, DenseChunk):
        return np.asarray(chunk.values)
    if isinstance(chunk, CsrChunk):
        columns = np.zeros((len(chunk.starts), chunk.n_genes), chunk.data.dtype)
        for cell, (a, b) in enumerate(zip(chunk.starts, chunk.stops, strict=True)):
            genes = chunk.indices[a:b].astype(np.int64) - chunk.gene_start
            _check_indices(genes, chunk.n_genes)
            columns[cell, genes] = chunk.data[a:b]
        return columns
    assert isinstance(chunk, CscChunk)
    columns = np.zeros((chunk.n_cells, chunk.n_genes), chunk.data.dtype)
    for j in range(chunk.n_genes):
        a, b = chunk.indptr[j], chunk.indptr[j + 1]
        cells = chunk.indices[a:b].astype(np.int64)
        _check_indices(cells, chunk.n_cells)
        columns[cells, j] = chunk.data[a:b]
    return columns


def _check_indices(indices: np.ndarray, size: int) -> None:
    if len(indices) and (indices[0] < 0 or indices[-1] >= size or not np.all(np.diff(indices) > 0)):
        raise NotCanonicalError("indices are unsorted, repeated or out of range")


def moments(
    block: ReferenceBlock, genes: slice, design: Design, *, centred: bool, expm1: bool
) -> Moments:
    shape = (design.n_groups, genes.stop - genes.start)
    n_expressed = np.full(shape, -1, dtype=np.int32)
    mean, m2, mean_expm1 = (np.full(shape, np.nan) for _ in range(3))
    for c, j in enumerate(range(genes.start, genes.stop)):
        for g, sample in enumerate(block.samples(j, design)):
            x = sample.astype(np.float64) + 0.0  # -0.0 becomes 0.0
            n_expressed[g, c] = np.count_nonzero(x)
            constant = bool((x == x[0]).all())
            mean[g, c] = x[0] if constant else x.mean()
            if centred:
                m2[g, c] = 0.0 if constant else _squared_deviations(x)
            if expm1:
                with np.errstate(over="ignore"):  # counts, where it will not be asked for
                    mean_expm1[g, c] = np.expm1(x).mean()
    return Moments(n_expressed, mean, m2 if centred else None, mean_expm1 if expm1 else None)


def _squared_deviations(x: np.ndarray) -> float:
    deviation = x - x.mean()  # their sum is what rounding of the mean left
    return float(np.sum(deviation**2) - np.sum(deviation) ** 2 / len(x))


def rank_sums(block: ReferenceBlock, genes: slice, design: Design) -> RankSums:
    shape = (design.n_groups - 1, genes.stop - genes.start)
    u2 = np.full(shape, -1, dtype=np.int64)
    ties = np.full(shape, np.nan)
    for c, j in enumerate(range(genes.start, genes.stop)):
        reference, *targets = block.samples(j, design)
        reference = np.sort(reference)
        for t, target in enumerate(targets):
            below = np.searchsorted(reference, target, side="left")
            up_to = np.searchsorted(reference, target, side="right")
            u2[t, c] = np.sum(below + up_to, dtype=np.int64)
            counts = np.unique(np.concatenate([target, reference]), return_counts=True)[1]
            ties[t, c] = float(sum(int(n) ** 3 - int(n) for n in counts))
    return RankSums(u2, ties)


def anderson_darling(block: ReferenceBlock, genes: slice, design: Design) -> np.ndarray:
    a2 = np.full((design.n_groups - 1, genes.stop - genes.start), np.nan)
    for c, j in enumerate(range(genes.start, genes.stop)):
        reference, *targets = block.samples(j, design)
        for t, target in enumerate(targets):
            a2[t, c] = _a2(target, reference)
    return a2


def _a2(x: np.ndarray, y: np.ndarray) -> float:
    """Scholz and Stephens (1987), eq. 7, for two samples."""
    pooled = np.sort(np.concatenate([x, y]))
    distinct = np.unique(pooled)
    if len(distinct) < 2:
        return np.nan
    n = len(pooled)
    left = pooled.searchsorted(distinct, "left")
    ties = pooled.searchsorted(distinct, "right") - left
    b = left + ties / 2.0
    total = 0.0
    for sample in (np.sort(x), np.sort(y)):
        m = (sample.searchsorted(distinct, "left") + sample.searchsorted(distinct, "right")) / 2.0
        inner = ties / n * (n * m - b * len(sample)) ** 2 / (b * (n - b) - n * ties / 4.0)
        total += float(inner.sum()) / len(sample)
    return total * (n - 1.0) / n


def benjamini_hochberg(
    p_value: np.ndarray,
    run: Map,
    *,
    n_tests: int | None = None,
    n_smaller: int = 0,
    ceiling: float = 1.0,
) -> np.ndarray:
    """As ``scipy.stats.false_discovery_control`` does it, in the same order of operations."""
    flat = p_value.ravel()
    order = np.argsort(flat)
    adjusted = np.arange(n_smaller + 1, n_smaller + flat.size + 1, dtype=np.float64)
    np.divide(flat.size if n_tests is None else n_tests, adjusted, out=adjusted)
    adjusted *= flat[order]
    np.minimum.accumulate(adjusted[::-1], out=adjusted[::-1])
    fdr = np.full(flat.size, np.nan)
    fdr[order] = np.minimum(adjusted, ceiling, out=adjusted)
    return fdr.reshape(p_value.shape)


def each_pair(
    block: ReferenceBlock,
    genes: slice,
    design: Design,
    function: Callable[[np.ndarray, np.ndarray], tuple[float, float]],
) -> tuple[np.ndarray, np.ndarray]:
    """Call ``function(target, reference)`` on every pair of float64 samples.

    Returns
    -------
    statistic, p_value : numpy.ndarray, shape (T, C), float64
    """
    shape = (design.n_groups - 1, genes.stop - genes.start)
    statistic, p_value = np.full(shape, np.nan), np.full(shape, np.nan)
    for c, j in enumerate(range(genes.start, genes.stop)):
        reference, *targets = (s.astype(np.float64) for s in block.samples(j, design))
        for t, target in enumerate(targets):
            statistic[t, c], p_value[t, c] = function(target, reference)
    return statistic, p_value
