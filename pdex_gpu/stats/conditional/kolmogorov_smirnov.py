"""Conditional p-values of the Kolmogorov-Smirnov test: exact given ties where they are small.

With n target and m reference cells, N = n + m, the distance at a pooled value that B cells do not
exceed, c of them target cells, is ``|N c - n B|`` in units of ``n m``. All allocations of cells
being equally likely, a p-value is the probability of a distance of at least d at any pooled value.

- p-values that may be small are sums over all allocations, one for each direction: `crossing` with
  ties, `untied` where the larger of the values are distinct but for ties that would change p by
  less than 5 %. Both directions are added; that both occur is left out, which is 2e-4 of p at 0.1.
- p-values that are clearly large are those of a Brownian bridge that is watched from the smallest
  value on, of which a share s of the cells has the same (zeros, mostly):

      p = 2 (1 - Phi(x / sqrt(s (1 - s)))) + K(x) Phi(x (1 - 2 s) / sqrt(s (1 - s)))

  with x = d / sqrt(n m N), K the Kolmogorov distribution, or exp(-2 x^2) and without the 2 for one
  side. They are clearly large if this p is 0.06 or more and so is also one of these: that of a
  bridge watched only at intervals as large as the next class of equal values (Siegmund 1985: x
  moves by 0.5826 times their root, and by Hodges' 1957 term), or the exact probability of the
  distance at the most central of the reference's values, a lower bound of p. Where a sample has
  fewer than 8 cells, 0.5 takes the place of 0.06.

So a p-value below 0.06 is a sum, and a larger one that is no sum could not have been small.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit
from .crossing import log_crossing, most_steps
from .hypergeometric import log_factorials, log_weight, relative_tail
from .untied import MOST_LEVELS, log_ahead, log_lag

_LARGE = 0.06  # p-values that are below are exact
_FEW, _LARGE_OF_FEW = 8, 0.5  # cells of a sample that are too few for a bridge
_UNTIED = 0.05  # of log p: what ties may change for the formulas of distinct values to do
_BETWEEN = 0.5826  # -zeta(1/2) / sqrt(2 pi)

_CLEAR, _UNSURE, _SMALL = 0, 1, 2  # whether a p-value is that of a bridge

BOTH, ABOVE, BELOW = 0, 1, -1


def log_p_values(
    above: np.ndarray,
    below: np.ndarray,
    n_target: np.ndarray,
    n_reference: np.ndarray,
    cells: np.ndarray,
    target: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    *,
    pooled: bool,
    side: int = BOTH,
) -> np.ndarray:
    """Return the natural logarithms of the p-values of one gene, shape (T,), float64.

    Parameters
    ----------
    above, below : numpy.ndarray, shape (T,), int64
        ``n m`` times D+ and D-.
    n_target, n_reference : numpy.ndarray, shape (T,), int64
        Cells on both sides. p is 1 where one has none.
    cells, target, place, count : numpy.ndarray
        The distinct values: see `GeneValues`.
    pooled : bool
        Whether `cells` counts both sides together.
    side : {BOTH, ABOVE, BELOW}
        The direction of distances that count as extreme.
    """
    n_pairs = len(above)
    out, extreme = np.zeros(n_pairs), np.zeros(n_pairs, np.int64)
    if not cells.size:  # the reference has no cell with a value
        return out
    smallest, known = np.zeros(n_pairs, np.int64), np.zeros(n_pairs, np.int64)
    n_unclear = _bridges(
        above, below, n_target, n_reference, cells, target, place, count, pooled, side, extreme,
        smallest, known, out,
    )  # fmt: skip
    if n_unclear:
        table = log_factorials(int((n_target + n_reference).max()))
        _sums(
            extreme, n_target, n_reference, cells, target, place, count, pooled, side, smallest,
            known, table, out,
        )  # fmt: skip
    return out


@jit
def _bridges(
    above, below, n_target, n_reference, cells, target, place, count, pooled, side, extreme,
    smallest, known, out,
):  # fmt: skip
    """Write the logarithms of a bridge's p-values; return how many are not clearly large.

    `extreme` and `smallest` receive the distances, and the cells with a pair's smallest value.
    """
    total, largest = cells[0], 0  # of the classes of equal values but the first
    for k in range(1, cells.size):
        largest = max(largest, cells[k])
        total += cells[k]
    if cells.size == 1:
        largest = cells[0]
    gap = _BETWEEN * math.sqrt(largest / max(1, total))
    for k in range(target.size):
        if place[k] > 1:
            break
        if smallest[target[k]] == 0:
            smallest[target[k]] = count[k] + place[k] * cells[0]
    sides, n_unclear = 2 if side == 0 else 1, 0
    for t in range(above.size):
        n, m = n_target[t], n_reference[t]
        d = max(above[t], below[t])
        if side != 0:
            d = above[t] if side > 0 else below[t]
        extreme[t] = d
        if smallest[t] == 0:
            smallest[t] = cells[0]
        if n == 0 or m == 0 or d <= 0:
            continue
        share = smallest[t] / (n + m)
        spread = math.sqrt(share * (1.0 - share))
        unit = 1.0 / math.sqrt(float(n) * m * (n + m))
        x = d * unit
        p_value = _bridge(x, share, spread, sides)
        out[t] = math.log(min(1.0, p_value))
        large = _LARGE if min(n, m) >= _FEW else _LARGE_OF_FEW
        if p_value < large:
            known[t] = _SMALL
        else:
            x += (n + m + min(n, m)) * unit / 6.0 + gap
            # Where the bridge varies most, it exceeds x less often than anywhere.
            if sides * _upper_tail(x / (0.5 if share < 0.5 else spread)) < large:
                known[t] = _UNSURE if _bridge(x, share, spread, sides) < large else _CLEAR
        n_unclear += known[t] != _CLEAR
    return n_unclear


@jit
def _bridge(x, share, spread, sides):
    """Return the probability that a Brownian bridge exceeds x after its first `share`."""
    q = math.exp(-2.0 * x * x)
    within = q
    if sides == 2:
        within = 1.0
        if x > 0.3:  # 1 - K(0.3) is 1e-5
            q4 = q * q * q * q
            q16 = q4 * q4 * q4 * q4
            within = 2.0 * (q - q4 + q4 * q4 * q - q16 + q16 * q4 * q4 * q)
    if spread == 0.0:
        return within
    at_first = sides * _upper_tail(x / spread)
    return at_first + within * _upper_tail(x * (2.0 * share - 1.0) / spread)


@jit
def _upper_tail(z):
    return 0.5 * math.erfc(z * math.sqrt(0.5))


@jit
def _sums(
    extreme, n_target, n_reference, cells, target, place, count, pooled, side, smallest, known,
    log_factorial, out,
):  # fmt: skip
    """Write the logarithms of exact p-values, unless a bridge's is known to do."""
    start = np.full(known.size, -1, np.int64)
    upto = np.empty(cells.size, np.int64)
    total, squares = 0, 0.0
    for k in range(cells.size):
        total += cells[k]
        upto[k] = total
        squares += float(cells[k]) * cells[k]
    central = 0
    for k in range(cells.size):
        if abs(2 * upto[k] - total) < abs(2 * upto[central] - total):
            central = k
    room, most, counted = 0, 0, 0
    for t in range(known.size):
        if known[t] != _CLEAR:
            start[t] = room
            room += 0 if pooled else n_target[t]
            most = max(most, n_target[t])
            counted = max(counted, min(n_target[t], n_reference[t]))
    # The distinct values of these targets, one target after the other.
    stop = start.copy()
    own_place, own_count = np.empty(room, np.int64), np.empty(room, np.int64)
    for k in range(target.size):
        to = stop[target[k]]
        if to >= 0:
            own_place[to], own_count[to] = place[k], count[k]
            stop[target[k]] = to + 1
    ends = np.empty(cells.size + (0 if pooled else most), np.int64)
    steps = min(counted, ends.size) + 1
    at, ceiling, log_h = np.empty(steps, np.int64), np.empty(steps, np.int64), np.empty(steps)
    paths, inverse = np.empty((3, most_steps(counted))), np.zeros(counted + 2)
    for c in range(1, counted + 2):
        inverse[c] = 1.0 / c
    levels, log_level = np.empty(MOST_LEVELS, np.int64), np.empty(MOST_LEVELS)
    for t in range(known.size):
        if known[t] == _CLEAR:
            continue
        n, d, total = n_target[t], extreme[t], n_target[t] + n_reference[t]
        if known[t] == _UNSURE:
            b = upto[central]
            for i in range(start[t], stop[t]):
                if own_place[i] <= 2 * central + 1:
                    b += own_count[i]
            large = _LARGE if min(n, total - n) >= _FEW else _LARGE_OF_FEW
            if _at_end(b, n, total, d, side, log_factorial) >= large:
                continue
        looked_at = total - smallest[t]
        tied = squares - float(smallest[t]) * smallest[t]
        for i in range(start[t], stop[t]):
            there = cells[own_place[i] >> 1] if own_place[i] & 1 else 0
            tied += float(own_count[i]) * (own_count[i] + 2.0 * there)
        half = min(looked_at, total // 2)
        tied = 0.5 * (tied / looked_at - 1.0) * d / (float(half) * (total - half))
        n_ends = 0
        if tied > _UNTIED:
            n_ends = _merge(cells, own_place, own_count, start[t], stop[t], ends)
        # The smaller sample is counted. The other one is ahead where it lags behind.
        swapped = 2 * n > total
        if swapped:
            n = total - n
        found = -np.inf
        for ahead in range(2):
            if ahead == 1:
                # Counted from the largest value down, the sample is ahead where it lagged behind.
                for k in range((n_ends + 1) // 2):
                    low, high = ends[k], ends[n_ends - 1 - k]
                    ends[k], ends[n_ends - 1 - k] = total - high, total - low
            if side != 0 and ((side > 0) == swapped) != (ahead == 1):
                continue
            if tied > _UNTIED:
                one = log_crossing(
                    ends, n_ends, n, total, d, log_factorial, at, ceiling, log_h, paths, inverse
                )
            elif ahead == 0:
                one = log_lag(looked_at, n, total, d, log_factorial, levels, log_level)
            else:
                one = log_ahead(looked_at, n, total, d, log_factorial, levels, log_level)
            high, low = max(found, one), min(found, one)
            found = high + math.log1p(math.exp(low - high)) if low > -np.inf else high
        out[t] = min(0.0, found)


@jit
def _at_end(b, n, total, d, side, log_factorial):
    """Return the probability of a distance of d at the end b, exactly."""
    found = 0.0
    for k in range(2):
        # Ahead at b cells, or at the others, counted from the largest value down.
        if k == 1:
            b = total - b
        c = -((-n * b - d) // total)
        if (side <= 0 if k == 1 else side >= 0) and c <= min(n, b):
            p_value = math.exp(log_weight(c, n, b, total, log_factorial))
            found += p_value * relative_tail(b, c, n, total)
    return found


@jit
def _merge(cells, place, count, i, stop, ends):
    """List the ends of the pooled pair but the last; return how many they are.

    The target's own distinct values are those from i to `stop`.
    """
    n_ends, below = 0, 0
    for k in range(cells.size + 1):
        while i < stop and place[i] == 2 * k:
            below += count[i]
            ends[n_ends] = below
            n_ends += 1
            i += 1
        if k < cells.size:
            below += cells[k]
            if i < stop and place[i] == 2 * k + 1:
                below += count[i]
                i += 1
            ends[n_ends] = below
            n_ends += 1
    return n_ends - 1
