"""Correction of p-values for multiple testing: the method and the tests corrected together."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ...backends.benjamini_hochberg import benjamini_hochberg
from ...backends.contract import KernelSet
from ...sinks.checkpoint_sink import StoredPValues, StoredRows
from ...utils.arrays import nan_filled
from ...utils.parallel import Map
from ..options import CorrectionOptions
from .empirical import EmpiricalNull, JudgedResults
from .external_sort import Column, FileColumn, adjust

_ROWS_PER_TASK = 64


def scaled(values: np.ndarray, method: str, n_tests: int) -> np.ndarray:
    """Convert Benjamini-Hochberg adjusted p-values to those of the method, in place.

    Benjamini and Yekutieli (2001) multiply by ``1 + 1/2 + ... + 1/n``.
    """
    if method == "benjamini-yekutieli":
        values *= float((1.0 / np.arange(1, n_tests + 1)).sum())
        np.minimum(values, 1.0, out=values)
    return values


def correct_family(p_values: np.ndarray, method: str) -> np.ndarray:
    """Return the corrected p-values of one family, shape (n,)."""
    if method == "bonferroni":
        return np.minimum(p_values * len(p_values), 1.0)
    return scaled(benjamini_hochberg(p_values, map), method, len(p_values))


def correct(
    p_values: np.ndarray,
    kept: np.ndarray | None,
    correction: CorrectionOptions,
    kernels: KernelSet,
    parallel_map: Map,
    null: EmpiricalNull | None = None,
) -> np.ndarray:
    """Return corrected p-values, NaN where a pair is not kept.

    Parameters
    ----------
    p_values : numpy.ndarray, shape (n_rows, n_genes)
    kept : numpy.ndarray or None, shape (n_rows, n_genes), bool
    correction : CorrectionOptions
    kernels : KernelSet
    parallel_map : callable
        Distributes the work.
    null : EmpiricalNull, optional
        Judges the p-values before they are corrected.
    """
    if null is not None:
        p_values = null.judged(p_values, 0, parallel_map)
    if correction.fdr_scope == "all":
        family = p_values if kept is None else p_values[kept]
        if correction.fdr_method == "bonferroni":
            found = np.minimum(family * family.size, 1.0)
        else:
            found = kernels.benjamini_hochberg(family, parallel_map)
            found = scaled(found, correction.fdr_method, family.size)
        return found if kept is None else _at(kept, found)
    out = nan_filled(p_values.shape, parallel_map)
    views = (p_values, out, kept)
    if correction.fdr_scope == "gene":
        views = (p_values.T, out.T, None if kept is None else kept.T)
    of_families(*views, partial(correct_family, method=correction.fdr_method), parallel_map)
    return out


def of_families(
    p_values: np.ndarray,
    out: np.ndarray,
    kept: np.ndarray | None,
    function: Callable[[np.ndarray], np.ndarray],
    parallel_map: Map,
) -> None:
    """Call the function on each row's kept values, and write its results to their places."""

    def some(rows: slice) -> None:
        for row in range(rows.start, rows.stop):
            chosen = slice(None) if kept is None else kept[row]
            out[row, chosen] = function(np.ascontiguousarray(p_values[row, chosen]))

    n = len(p_values)
    for _ in parallel_map(
        some, [slice(r, min(r + _ROWS_PER_TASK, n)) for r in range(0, n, _ROWS_PER_TASK)]
    ):
        pass


def _at(kept: np.ndarray, values: np.ndarray) -> np.ndarray:
    out = np.full(kept.shape, np.nan)
    out[kept] = values
    return out


class StoredCorrection:
    """Corrected p-values of stored results, read by rows.

    Parameters
    ----------
    results : StoredRows
    kept : numpy.ndarray or None, shape (n_rows, n_genes), bool
    correction : CorrectionOptions
    column : Column
        A file with room for all kept values.
    null : EmpiricalNull, optional
        Judges the p-values before they are corrected.
    """

    def __init__(
        self,
        results: StoredRows,
        kept: np.ndarray | None,
        correction: CorrectionOptions,
        column: FileColumn,
        null: EmpiricalNull | None = None,
    ) -> None:
        self._results = results if null is None else JudgedResults(results, null)
        self._kept, self._correction, self._null = kept, correction, null
        self._family = partial(correct_family, method=correction.fdr_method)
        self._column: Column = column
        self._n_genes = results.n_genes
        sizes = (
            np.full(results.n_rows, results.n_genes)
            if kept is None
            else np.count_nonzero(kept, axis=1)
        )
        self._starts = np.concatenate([[0], np.cumsum(sizes)])

    def prepare(self, kernels: KernelSet, parallel_map: Map, budget: int) -> None:
        """Compute corrections that need more than one row at a time."""
        if self._correction.fdr_method == "bonferroni" and self._correction.fdr_scope != "gene":
            return
        if self._correction.fdr_scope == "all":
            p_values = StoredPValues(self._results, self._kept)
            if p_values.n:
                adjust(p_values, self._column, kernels, parallel_map, budget=budget)
        elif self._correction.fdr_scope == "gene":
            for k, genes in enumerate(self._results.ranges):
                self._write_genes(self._results.read_range("p_value", k), genes, parallel_map)

    def _write_genes(self, p_values: np.ndarray, genes: slice, parallel_map: Map) -> None:
        kept = None if self._kept is None else self._kept[:, genes]
        out = np.full(p_values.shape, np.nan)
        of_families(p_values.T, out.T, None if kept is None else kept.T, self._family, parallel_map)
        for row in range(len(out)):
            if kept is None:
                self._column.write(int(self._starts[row]) + genes.start, out[row])
                continue
            before = int(np.count_nonzero(self._kept[row, : genes.start]))  # type: ignore[index]
            self._column.write(int(self._starts[row]) + before, out[row, kept[row]])

    def read(self, rows: slice, p_values: np.ndarray) -> np.ndarray:
        """Return corrected p-values of some rows from their p-values; NaN if a pair is not kept."""
        kept = None if self._kept is None else self._kept[rows]
        correction = self._correction
        if correction.fdr_scope == "target":
            if self._null is not None:
                p_values = self._null.judged(p_values, rows.start)
            out = np.full(p_values.shape, np.nan)
            of_families(p_values, out, kept, self._family, map)
            return out
        n = int(self._starts[-1])
        if correction.fdr_method == "bonferroni" and correction.fdr_scope == "all":
            found = np.minimum(p_values * n, 1.0)
            return found if kept is None else np.where(kept, found, np.nan)
        first, last = int(self._starts[rows.start]), int(self._starts[rows.stop])
        values = self._column.read(first, last)
        if correction.fdr_scope == "all":
            values = scaled(np.array(values), correction.fdr_method, n)
        return values.reshape(p_values.shape) if kept is None else _at(kept, values)
