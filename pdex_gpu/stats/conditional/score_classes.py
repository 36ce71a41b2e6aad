"""The scores of a stratum's cells by classes of ties, as far as these are known.

What is known of the ties of a gene: the cells without expression, those at the lowest values above
zero, and the sum of t^3 - t over all classes. Cells above are taken to lie in classes of one size,
which gives that sum; if no value or a single one is left, this is exact. Far from the ends, classes
are then merged, to save time: their ties hardly matter there.
"""

from __future__ import annotations

import math

from ...utils.jit import jit

#: Most classes of a stratum, if it has up to 10**9 cells.
MOST_CLASSES = 640
_MERGED = 12  # classes have at most this part of the cells on either side, if larger than given
_ROUNDING = 1e-9


@jit
def list_classes(total, expressed, ties, lowest, scores, cells):
    """List the classes of a stratum; return how many there are.

    Parameters
    ----------
    total, expressed : float64
        Cells, and those above zero, at least one.
    ties : float64
        Sum of t^3 - t over all classes.
    lowest : numpy.ndarray, float64
        Cells at the lowest values above zero.
    scores, cells : numpy.ndarray, float64
        To be filled with twice the midrank over total + 1, and the cells.
    """
    below, kept = 0.0, 0
    left = ties
    for k in range(lowest.size + 1):
        size = total - expressed if k == 0 else lowest[k - 1]
        if size > 0.0:
            scores[kept], cells[kept] = (2.0 * below + size + 1.0) / (total + 1.0), size
            kept += 1
            below += size
            left -= size * size * size - size
    first = below
    above = total - first
    if above <= 0.0:
        return kept
    size = math.sqrt(1.0 + max(left, 0.0) / above)
    if size < 1.0 + _ROUNDING:
        size = 1.0
    upto = 0.0
    while below < total:
        upto += size
        plain = max(math.floor(upto + 0.5), below - first + 1.0)
        merged = below - first + math.floor(min(below - first, total - below) / _MERGED)
        if merged > plain:
            plain = upto = merged
        end = min(first + plain, total)
        its = end - below
        scores[kept], cells[kept] = (2.0 * below + its + 1.0) / (total + 1.0), its
        kept += 1
        below = end
    return kept
