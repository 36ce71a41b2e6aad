"""Moments of every (group, gene) of a packed block.

Sums run in fixed lanes over a group's entries in cell order, so the bits depend on nothing but
the entries.
"""

from __future__ import annotations

import numpy as np
from numba.extending import overload

from ...design import Design
from ..contract import Moments
from .jit import jit
from .pack import PackedBlock
from .transforms import expm1_of, log1p_of, log1p_of_counts, look_up


def moments(
    block: PackedBlock,
    genes: slice,
    design: Design,
    *,
    centred: bool,
    expm1: bool,
    log1p: bool = False,
) -> Moments:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.moments`."""
    shape = (design.n_groups, genes.stop - genes.start)
    n_expressed = np.diff(block.offsets[:, genes], axis=0).astype(np.int32)
    mean = np.full(shape, np.nan)
    m2 = np.full(shape if centred else (0, 0), np.nan)
    mean_expm1 = np.full(shape, np.nan) if expm1 else None
    mean_log1p = np.full(shape, np.nan) if log1p else None
    where = block.values, block.offsets, genes.start, genes.stop, design.n_cells
    _moments(*where, centred, mean, m2)
    if mean_expm1 is not None:
        _mean_expm1(*where, mean_expm1)
    if mean_log1p is not None and block.values.dtype == np.uint16:
        _mean_of_table(*where, log1p_of_counts(), mean_log1p)
    elif mean_log1p is not None:
        _mean_log1p(*where, mean_log1p)
    return Moments(n_expressed, mean, m2 if centred else None, mean_expm1, mean_log1p)


@jit
def _moments(values, offsets, j0, j1, n_cells, centred, mean, m2):
    for j in range(j0, j1):
        c = j - j0
        stop = offsets[0, j]
        for g in range(n_cells.size):
            start, stop = stop, offsets[g + 1, j]
            x = values[start:stop]
            n = n_cells[g]
            n_zero = n - x.size
            constant = True
            first = 0.0 if n_zero > 0 or x.size == 0 else np.float64(x[0])
            mu = _total(x) / n
            for i in range(x.size):
                if x[i] != first:
                    constant = False
                    break
            mean[g, c] = first if constant else mu
            if centred:
                if constant:
                    m2[g, c] = 0.0
                else:
                    m2[g, c] = _centred(x, mu, n, n_zero)


@jit
def _mean_expm1(values, offsets, j0, j1, n_cells, mean):
    buffer = np.empty(_longest(offsets, j0, j1), np.float64)
    for j in range(j0, j1):
        expm1_of(values[offsets[0, j] : offsets[-1, j]], buffer)
        _group_means(buffer, offsets[:, j], n_cells, mean[:, j - j0])


@jit
def _mean_log1p(values, offsets, j0, j1, n_cells, mean):
    buffer = np.empty(_longest(offsets, j0, j1), np.float64)
    for j in range(j0, j1):
        log1p_of(values[offsets[0, j] : offsets[-1, j]], buffer)
        _group_means(buffer, offsets[:, j], n_cells, mean[:, j - j0])


@jit
def _mean_of_table(values, offsets, j0, j1, n_cells, table, mean):
    buffer = np.empty(_longest(offsets, j0, j1), np.float64)
    for j in range(j0, j1):
        look_up(values[offsets[0, j] : offsets[-1, j]], table, buffer)
        _group_means(buffer, offsets[:, j], n_cells, mean[:, j - j0])


@jit
def _longest(offsets, j0, j1):
    longest = 0
    for j in range(j0, j1):
        longest = max(longest, offsets[-1, j] - offsets[0, j])
    return longest


@jit
def _group_means(entries, offsets, n_cells, mean):
    for g in range(n_cells.size):
        x = entries[offsets[g] - offsets[0] : offsets[g + 1] - offsets[0]]
        mean[g] = _total(x) / n_cells[g]


def _total(x):
    """Sum of the values as float64. Chosen by dtype below."""
    raise NotImplementedError


@overload(_total, jit_options={"nogil": True})
def _total_overload(x):
    if x.dtype.name == "uint16":  # exact either way, and integers add faster

        def of_counts(x):
            total = 0
            for i in range(x.size):
                total += np.int64(x[i])
            return np.float64(total)

        return of_counts

    def in_four_lanes(x):
        whole = x.size - x.size % 4
        s0 = 0.0
        s1 = 0.0
        s2 = 0.0
        s3 = 0.0
        for i in range(0, whole, 4):
            s0 += np.float64(x[i])
            s1 += np.float64(x[i + 1])
            s2 += np.float64(x[i + 2])
            s3 += np.float64(x[i + 3])
        for i in range(whole, x.size):
            s0 += np.float64(x[i])
        return (s0 + s1) + (s2 + s3)

    return in_four_lanes


@jit
def _centred(x, mu, n, n_zero):
    whole = x.size - x.size % 4
    q0 = 0.0
    q1 = 0.0
    q2 = 0.0
    q3 = 0.0
    r0 = 0.0
    r1 = 0.0
    r2 = 0.0
    r3 = 0.0
    for i in range(0, whole, 4):
        d0 = np.float64(x[i]) - mu
        d1 = np.float64(x[i + 1]) - mu
        d2 = np.float64(x[i + 2]) - mu
        d3 = np.float64(x[i + 3]) - mu
        r0 += d0
        r1 += d1
        r2 += d2
        r3 += d3
        q0 += d0 * d0
        q1 += d1 * d1
        q2 += d2 * d2
        q3 += d3 * d3
    for i in range(whole, x.size):
        d0 = np.float64(x[i]) - mu
        r0 += d0
        q0 += d0 * d0
    residual = ((r0 + r1) + (r2 + r3)) - n_zero * mu  # rounding of mu, zero in exact arithmetic
    return ((q0 + q1) + (q2 + q3)) + n_zero * (mu * mu) - residual * residual / n
