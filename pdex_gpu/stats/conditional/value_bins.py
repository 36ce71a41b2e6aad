"""The nonzero values of a gene in narrow bins: which values a pair of samples has, and how often.

A bin holds positive values whose logarithms to base 2 have the same whole part, and whose leading
ten digits are the same: it is narrower than a thousandth of its values. Whole numbers up to 2048
have bins of their own. A bin keeps the number of its cells and the sum of the remaining digits, a
whole number, so cells may come in any order, and can be taken out again.
"""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit

_SHIFT = 42  # binary digits of float64 that bins leave out
_REST = 2**_SHIFT - 1
_DROPPED = 10  # digits that are not summed up, so that sums of 2**31 cells are below 2**63
_WIDTH = 1.0 / 32.0  # relative: neighbouring bins are merged up to this
_SHARE = 16.0  # and up to this part of the cells on either side


@jit
def bin_range(bits):
    """Return the lowest bin of values, given as their bits, and how many bins they span."""
    low, high = np.int64(2**62), np.int64(-1)
    for i in range(bits.size):
        if bits[i] > 0:
            low, high = min(low, bits[i]), max(high, bits[i])
    if high < 0:
        return np.int64(0), np.int64(0)
    return low >> _SHIFT, (high >> _SHIFT) - (low >> _SHIFT) + 1


@jit
def add(bits, first, sign, cells, rests):
    """Add cells to their bins, or take them out if `sign` is -1; return how many express."""
    expressed = 0
    for i in range(bits.size):
        if bits[i] > 0:
            at = (bits[i] >> _SHIFT) - first
            cells[at] += sign
            rests[at] += sign * ((bits[i] & _REST) >> _DROPPED)
            expressed += 1
    return expressed


@jit
def to_nodes(cells, rests, edges, values, weights):
    """List the values of a pair, ascending, and the cells at each; return how many there are.

    Bins are merged into one value, their mean, if few cells lie in them and the bins are near each
    other. The largest and the smallest values stay as they are.

    Parameters
    ----------
    cells, rests : numpy.ndarray, int64
        Of each bin.
    edges : numpy.ndarray, float64
        The lower ends of bins, of which there is one more.
    values, weights : numpy.ndarray, float64
        To be filled, as long as there are bins.
    """
    total = 0
    for k in range(cells.size):
        total += cells[k]
    n_nodes = 0
    before, block, added, start = 0, 0, 0.0, 0.0  # cells below the current block, its cells, sum
    for k in range(cells.size):
        its = cells[k]
        if its == 0:
            continue
        share = rests[k] * (float(1 << _DROPPED) / float(1 << _SHIFT))  # of the width, summed up
        sum_of_bin = its * edges[k] + share * (edges[k + 1] - edges[k])
        few = (block + its) * _SHARE <= min(before, total - before - block - its)
        if block > 0 and few and edges[k] <= start:
            block += its
            added += sum_of_bin
        else:
            if block > 0:
                values[n_nodes], weights[n_nodes] = added / block, block
                n_nodes += 1
                before += block
            block, added, start = its, sum_of_bin, edges[k] * (1.0 + _WIDTH)
    if block > 0:
        values[n_nodes], weights[n_nodes] = added / block, block
        n_nodes += 1
    return n_nodes


def bin_edges(first: int, n_bins: int) -> np.ndarray:
    """Return the lower ends of bins, and the upper end of the last, float64."""
    numbers = np.arange(first, first + n_bins + 1, dtype=np.int64)
    return (numbers << _SHIFT).view(np.float64)


@jit
def log_ways(bits, first, cells, own, log_factorial):
    """Return the log of the number of ways to choose as many cells from each bin as a target has.

    `cells` include the target's; `own` is working memory that is 0 and will be again.
    """
    for i in range(bits.size):
        if bits[i] > 0:
            own[(bits[i] >> _SHIFT) - first] += 1
    found = 0.0
    for i in range(bits.size):
        if bits[i] > 0:
            at = (bits[i] >> _SHIFT) - first
            k = own[at]
            if k > 0:
                own[at] = 0
                found += log_factorial[cells[at]] - log_factorial[k] - log_factorial[cells[at] - k]
    return found
