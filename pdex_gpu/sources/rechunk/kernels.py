"""Compiled functions that rechunk a row-major block into ranges of genes.

This is a separate module because it imports numba: it is imported when a file is first rechunked.
"""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit


@jit
def count_pieces(indices, bounds, edges, counts, seen):
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
        Entries per gene; the counts are added.

    Returns
    -------
    int
        The first entry whose index is not above the previous one in its row; -1 if there is none.
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


@jit
def copy_pieces(data, indices, bounds, counts, starts, base, out_data, out_indices):
    """Copy each row's entries, range by range.

    Parameters
    ----------
    data, indices : numpy.ndarray, shape (nnz,)
    bounds : numpy.ndarray, shape (n_rows + 1,), int64
    counts : numpy.ndarray, shape (n_ranges, n_rows), unsigned integer
    starts : numpy.ndarray, shape (n_ranges,), int64
        Where each range begins in the output; below 0 for ranges to skip. Changed here.
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


@jit
def encode_rows(bits, bounds, codes, table, table_bounds):
    """Replace each value by a code that numbers the distinct values of its row.

    Each cell has few distinct normalised counts, so one byte can distinguish them.

    Parameters
    ----------
    bits : numpy.ndarray, shape (nnz,), uint32 or uint64
        The bit patterns of the values.
    bounds : numpy.ndarray, shape (n_rows + 1,), int64
    codes : numpy.ndarray, shape (nnz,), uint8
        For each entry, the number of its value among the row's distinct ones; filled here.
    table : numpy.ndarray, of the dtype of `bits`
        The distinct values, row by row; filled here.
    table_bounds : numpy.ndarray, shape (n_rows + 1,), int64
        Where each row begins in `table`; filled here.

    Returns
    -------
    bool
        False if a row has too many distinct values for one byte, or `table` is too small.
    """
    n_slots = 1024  # four per possible value
    keys = np.empty(n_slots, bits.dtype)
    of_key = np.empty(n_slots, np.uint8)
    of_row = np.full(n_slots, -1, np.int64)
    n = 0
    table_bounds[0] = 0
    for i in range(bounds.size - 1):
        first = n
        for e in range(bounds[i], bounds[i + 1]):
            key = bits[e]
            slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(54))
            while of_row[slot] == i and keys[slot] != key:
                slot = (slot + 1) & (n_slots - 1)
            if of_row[slot] != i:
                if n - first == 256 or n == table.size:
                    return False
                of_row[slot] = i
                keys[slot] = key
                of_key[slot] = n - first
                table[n] = key
                n += 1
            codes[e] = of_key[slot]
        table_bounds[i + 1] = n
    return True


@jit
def decode_rows(codes, counts, table, table_bounds, out):
    """Undo :func:`encode_rows` for the first ``counts[i]`` codes of row i, then row i + 1, ..."""
    e = 0
    for i in range(counts.size):
        begin = table_bounds[i]
        for _ in range(counts[i]):
            out[e] = table[begin + codes[e]]
            e += 1
