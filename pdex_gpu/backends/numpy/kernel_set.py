"""The numpy kernel set: numpy and scipy, one pair of samples at a time.

It is the runnable specification that every other kernel set is tested against. It also runs the
test options that the compiled kernels lack.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from ...design.contrasts import Contrast, Design
from ...sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, NotCanonicalError
from ...utils.parallel import Map
from ...utils.value_summary import ValueSummary
from ..benjamini_hochberg import benjamini_hochberg as benjamini_hochberg
from ..contract import LOG1P_EPSILON, NonFiniteError, scale_exponent
from ..gene_values import gene_values, object_row
from ..outputs import N_LOWEST, Distances, GroupValues, Moments, Placements, RankSums

name = "numpy"
scales_rows = False


@dataclass(frozen=True)
class NumpyPackedChunk:
    """Dense columns in their stored dtype, one per gene."""

    gene_start: int
    n_genes: int
    summary: ValueSummary
    columns: np.ndarray  # (n_cells, n_genes)
    design: Design
    with_nan: bool = False  # NaN is left out of the samples

    def samples(self, j: int) -> list[np.ndarray]:
        """Return the values of each group in gene `j`, in ascending order of cells."""
        column = self.columns[:, j]
        found = np.split(column[self.design.order], self.design.offsets[1:-1])
        return [values[~np.isnan(values)] for values in found] if self.with_nan else found

    def pairs(self, j: int, contrast: Contrast) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield the values of each target and of what it is compared with, in gene `j`."""
        samples = self.samples(j)
        chosen = [samples[g] for g in contrast.groups]
        if contrast.one_vs_rest:
            for t, target in enumerate(chosen):
                yield target, np.concatenate([s for k, s in enumerate(chosen) if k != t])
            return
        first, *targets = chosen
        for target in targets:
            yield target, _without(first, target) if contrast.pooled else first


def _without(pool: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Return the sorted values of `pool` minus those of `target`, as multisets."""
    values, counts = np.unique(pool, return_counts=True)
    own, own_counts = np.unique(target, return_counts=True)
    counts[values.searchsorted(own)] -= own_counts
    return np.repeat(values, counts)


def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
    return 16.0 * n_cells


def pack(
    chunk: Chunk, design: Design, parallel_map: Map, *, finite: bool = True
) -> NumpyPackedChunk:
    columns = _densify(chunk)
    if columns.dtype.kind == "b":
        columns = columns.astype(np.uint8)
    chosen = columns[design.order]
    with_nan = False
    if chosen.dtype.kind == "f":
        if _refused(chosen, finite).any():
            cells, genes = np.nonzero(_refused(columns, finite) & (design.codes >= 0)[:, None])
            first = np.lexsort((genes, cells))[0]
            cell, gene = int(cells[first]), int(genes[first])
            raise NonFiniteError(cell, gene + chunk.gene_start, float(columns[cell, gene]))
        with_nan = bool(np.isnan(chosen).any())
    return NumpyPackedChunk(
        chunk.gene_start, chunk.n_genes, _summary(chosen), columns, design, with_nan
    )


def _summary(values: np.ndarray) -> ValueSummary:
    fractional = False
    if values.dtype.kind == "f":
        values = values[np.isfinite(values)]
        fractional = bool(np.any(np.modf(values)[0] > LOG1P_EPSILON))
    low, high = float(np.min(values, initial=0)), float(np.max(values, initial=0))
    return ValueSummary(fractional, low, high)


def _refused(values: np.ndarray, finite: bool) -> np.ndarray:
    return ~np.isfinite(values) if finite else np.isinf(values)


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
    packed: NumpyPackedChunk,
    genes: slice,
    design: Design,
    *,
    centred: bool,
    expm1: bool,
    log1p: bool = False,
    higher: bool = False,
) -> Moments:
    shape = (design.n_groups, genes.stop - genes.start)
    n_expressed = np.full(shape, -1, dtype=np.int32)
    n_measured = np.full(shape, -1, dtype=np.int32)
    exponent = np.zeros(shape, dtype=np.int32)
    mean, m2, mean_expm1, mean_log1p, m3, m4 = (np.full(shape, np.nan) for _ in range(6))
    for c, j in enumerate(range(genes.start, genes.stop)):
        for g, sample in enumerate(packed.samples(j)):
            x = sample.astype(np.float64) + 0.0  # -0.0 becomes 0.0
            plain = x
            n_expressed[g, c], n_measured[g, c] = np.count_nonzero(x), len(x)
            if not len(x):
                continue
            exponent[g, c] = _exponent(x)
            x = np.ldexp(x, -exponent[g, c])
            constant = bool((x == x[0]).all())
            mean[g, c] = x[0] if constant else x.mean()
            if centred:
                m2[g, c] = 0.0 if constant else _squared_deviations(x)
            if higher:
                deviation = np.zeros(len(x)) if constant else x - x.mean()
                m3[g, c], m4[g, c] = np.sum(deviation**3), np.sum(deviation**4)
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
                # Computed even if not asked for: exponentials of counts overflow, and some
                # logarithms do not exist.
                mean_expm1[g, c] = np.expm1(plain).mean()
                mean_log1p[g, c] = np.log1p(plain).mean()
    return Moments.unscaled(
        n_expressed,
        mean,
        m2 if centred else None,
        exponent,
        mean_expm1=mean_expm1 if expm1 else None,
        mean_log1p=mean_log1p if log1p else None,
        m3=m3 if higher else None,
        m4=m4 if higher else None,
        n_measured=n_measured if packed.with_nan else None,
    )


def _exponent(x: np.ndarray) -> int:
    largest = np.abs(x).max()
    return scale_exponent(max(int(np.frexp(largest)[1]) - 1, -1023)) if largest > 0.0 else 0


def _squared_deviations(x: np.ndarray) -> float:
    deviation = x - x.mean()  # their sum is due to rounding of the mean
    return float(np.sum(deviation**2) - np.sum(deviation) ** 2 / len(x))


def entries(packed: NumpyPackedChunk, gene: int) -> GroupValues:
    samples = packed.samples(gene)
    bounds = np.concatenate([[0], np.cumsum([len(sample) for sample in samples])])
    return GroupValues(np.concatenate(samples), bounds.astype(np.int64))


def rank_sums(
    packed: NumpyPackedChunk, genes: slice, contrast: Contrast, *, lowest: bool = False
) -> RankSums:
    shape = (contrast.n_targets, genes.stop - genes.start)
    u2 = np.full(shape, -1, dtype=np.int64)
    ties = np.full(shape, np.nan)
    classes = np.zeros((*shape, N_LOWEST), np.int32)
    for c, j in enumerate(range(genes.start, genes.stop)):
        for t, (target, reference) in enumerate(packed.pairs(j, contrast)):
            below, equal = _counted(target, reference)
            u2[t, c] = np.sum(2 * below + equal, dtype=np.int64)
            values, counts = np.unique(np.concatenate([target, reference]), return_counts=True)
            ties[t, c] = float(sum(int(n) ** 3 - int(n) for n in counts))
            counts = counts[values > 0][:N_LOWEST]
            classes[t, c, : len(counts)] = counts
    return RankSums(u2, ties, classes if lowest else None)


def _counted(of: np.ndarray, among: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Count, for each value of `of`, the values of `among` below it and those equal to it."""
    among = np.sort(among)
    below = among.searchsorted(of, side="left")
    return below, among.searchsorted(of, side="right") - below


def anderson_darling(
    packed: NumpyPackedChunk, genes: slice, contrast: Contrast, *, variant: str = "midrank"
) -> np.ndarray:
    a2 = np.full((contrast.n_targets, genes.stop - genes.start), np.nan)
    statistic = {"midrank": _a2_midrank, "right": _a2_right, "continuous": _a2_continuous}[variant]
    for c, j in enumerate(range(genes.start, genes.stop)):
        for t, (target, reference) in enumerate(packed.pairs(j, contrast)):
            pooled = np.sort(np.concatenate([target, reference]))
            if len(target) and len(reference) and pooled[0] != pooled[-1]:
                a2[t, c] = statistic((target, reference), pooled)
    return a2


def _a2_midrank(samples: tuple[np.ndarray, ...], pooled: np.ndarray) -> float:
    """Compute A2 by eq. 7 of Scholz and Stephens (1987)."""
    n, distinct = len(pooled), np.unique(pooled)
    left = pooled.searchsorted(distinct, "left")
    ties = pooled.searchsorted(distinct, "right") - left
    b = left + ties / 2.0
    total = 0.0
    for sample in map(np.sort, samples):
        m = (sample.searchsorted(distinct, "left") + sample.searchsorted(distinct, "right")) / 2.0
        inner = ties / n * (n * m - b * len(sample)) ** 2 / (b * (n - b) - n * ties / 4.0)
        total += float(inner.sum()) / len(sample)
    return total * (n - 1.0) / n


def _a2_right(samples: tuple[np.ndarray, ...], pooled: np.ndarray) -> float:
    """Compute A2 by eq. 6 of Scholz and Stephens (1987)."""
    n, distinct = len(pooled), np.unique(pooled)[:-1]
    b = pooled.searchsorted(distinct, "right")
    ties = b - pooled.searchsorted(distinct, "left")
    total = 0.0
    for sample in map(np.sort, samples):
        m = sample.searchsorted(distinct, "right")
        inner = ties / n * (n * m - b * len(sample)) ** 2.0 / (b * (n - b))
        total += float(inner.sum()) / len(sample)
    return total


def _a2_continuous(samples: tuple[np.ndarray, ...], pooled: np.ndarray) -> float:
    """Compute A2 by eq. 3 of Scholz and Stephens (1987), with ties treated as scipy does."""
    n = len(pooled)
    b = np.arange(1, n)
    total = 0.0
    for sample in map(np.sort, samples):
        m = sample.searchsorted(pooled[:-1], "right")
        inner = (n * m - b * len(sample)) ** 2.0 / (b * (n - b))
        total += float(inner.sum()) / len(sample)
    return total / n


def kolmogorov_smirnov(
    packed: NumpyPackedChunk, genes: slice, contrast: Contrast, *, values: bool = False
) -> Distances:
    shape = (contrast.n_targets, genes.stop - genes.start)
    above, below = (np.full(shape, -1, dtype=np.int64) for _ in range(2))
    for c, j in enumerate(range(genes.start, genes.stop)):
        for t, (target, reference) in enumerate(packed.pairs(j, contrast)):
            at = np.unique(np.concatenate([target, reference]))
            ahead = len(reference) * np.sort(target).searchsorted(at, "right")
            ahead -= len(target) * np.sort(reference).searchsorted(at, "right")
            above[t, c] = ahead.max(initial=0)
            below[t, c] = -ahead.min(initial=0)
    if not values:
        return Distances(above, below)
    found = []
    for j in range(genes.start, genes.stop):
        samples = entries(packed, j)
        n_cells = np.diff(samples.bounds)[contrast.groups]
        found.append(gene_values(samples, n_cells, contrast))
    return Distances(above, below, object_row(found))


def placements(packed: NumpyPackedChunk, genes: slice, contrast: Contrast) -> Placements:
    shape = (contrast.n_targets, genes.stop - genes.start)
    of_target, of_reference = (np.full(shape, np.nan) for _ in range(2))
    for c, j in enumerate(range(genes.start, genes.stop)):
        for t, (target, reference) in enumerate(packed.pairs(j, contrast)):
            below, equal = _counted(target, reference)
            of_target[t, c] = float(sum(int(v) ** 2 for v in 2 * below + equal))
            below, equal = _counted(reference, target)
            above = len(target) - below - equal
            of_reference[t, c] = float(sum(int(v) ** 2 for v in 2 * above + equal))
    return Placements(of_target, of_reference, rank_sums(packed, genes, contrast))


def each_pair(
    packed: NumpyPackedChunk,
    genes: slice,
    contrast: Contrast,
    function: Callable[[np.ndarray, np.ndarray], tuple[float, float]],
) -> tuple[np.ndarray, np.ndarray]:
    """Call ``function(target, reference)`` on every pair of samples, in their stored dtype.

    Returns
    -------
    statistic, p_value : numpy.ndarray, shape (T, C), float64
    """
    shape = (contrast.n_targets, genes.stop - genes.start)
    statistic, p_value = np.full(shape, np.nan), np.full(shape, np.nan)
    for c, j in enumerate(range(genes.start, genes.stop)):
        for t, (target, reference) in enumerate(packed.pairs(j, contrast)):
            statistic[t, c], p_value[t, c] = function(target, reference)
    return statistic, p_value
