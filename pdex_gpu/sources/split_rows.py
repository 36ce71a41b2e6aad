"""Compiled: the rows of a block of a row-major matrix, split by ranges of genes.

A module of its own because it imports numba: it is imported when a file is first split.
"""

from __future__ import annotations

import numba
import numpy as np


@numba.njit(nogil=True, cache=True)
def count_pieces(indices, bounds, edges, counts, seen):  # type: ignore[no-untyped-def]
    """Count the entries of each row in each range.

    Parameters
    ----------
    indices : numpy.ndarray, shape (nnz,), integer
    bounds : numpy.ndarray, shape (n_rows + 1,), int64
        Row i is ``indices[bounds[i]:bounds[i + 1]]``.
    edges : numpy.ndarray, shape (n_ranges + 1,), int64
        From 0 to the number of genes.
    counts : numpy.ndarray, shape (n_ranges, n_rows), unsigned integer
        Filled here.
    seen : numpy.ndarray, shape (n_genes,), int64
        Entries of each gene, added to here.

    Returns
    -------
    int
        The first entry that is not above the one before it in its row; -1 if all are.
    """
    for i in range(bounds.size - 1):
        k = 0
        n = 0
        edge = edges[1]
        previous = np.int64(-1)
        for e in range(bounds[i], bounds[i + 1]):
            gene = np.int64(indices[e])
            if gene <= previous:
                return e
            previous = gene
            while gene >= edge:
                counts[k, i] = n
                n = 0
                k += 1
                edge = edges[k + 1]
            n += 1
            seen[gene] += 1
        counts[k, i] = n
        for rest in range(k + 1, edges.size - 1):
            counts[rest, i] = 0
    return -1


@numba.njit(nogil=True, cache=True)
def copy_pieces(data, indices, bounds, counts, starts, base, out_data, out_indices):  # type: ignore[no-untyped-def]
    """Copy each row's entries, range by range.

    Parameters
    ----------
    data, indices : numpy.ndarray, shape (nnz,)
    bounds : numpy.ndarray, shape (n_rows + 1,), int64
    counts : numpy.ndarray, shape (n_ranges, n_rows), unsigned integer
    starts : numpy.ndarray, shape (n_ranges,), int64
        Where each range begins in the output; below 0 for ranges to leave out. Changed here.
    base : numpy.ndarray, shape (n_ranges,), int64
        Subtracted from the genes of a range.
    out_data, out_indices : numpy.ndarray
    """
    for i in range(bounds.size - 1):
        e = bounds[i]
        for k in range(starts.size):
            n = np.int64(counts[k, i])
            at = starts[k]
            if at >= 0:
                for j in range(n):
                    out_data[at + j] = data[e + j]
                    out_indices[at + j] = np.int64(indices[e + j]) - base[k]
                starts[k] = at + n
            e += n
