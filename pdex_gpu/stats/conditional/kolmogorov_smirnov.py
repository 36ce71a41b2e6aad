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
from .crossing import log_crossing, make_room
from .hypergeometric import log_factorials
from .untied import MOST_LEVELS, log_ahead, log_lag

_LARGE = 0.06  # p-values that are below are exact
_FEW, _LARGE_OF_FEW = 8, 0.5  # cells of a sample that are too few for a bridge
_UNTIED = 0.05  # of log p: what ties may change for the formulas of distinct values to do
_BETWEEN = 0.5826  # -zeta(1/2) / sqrt(2 pi)

BOTH, ABOVE, BELOW = 0, 1, -1


def log_p_values(
    above: np.ndarray,
    below: np.ndarray,
    n_target: np.ndarray,
    n_reference: np.ndarray,
    cells: np.ndarray,
    place: np.ndarray,
    count: np.ndarray,
    bounds: np.ndarray,
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
    cells, place, count, bounds : numpy.ndarray, int64
        The distinct values: see `GeneValues`.
    pooled : bool
        Whether `cells` counts both sides together.
    side : {BOTH, ABOVE, BELOW}
        The direction of distances that count as extreme.
    """
    out = np.zeros(len(above))
    largest = int(np.max(n_target + n_reference, initial=0))
    _judge(
        above, below, n_target, n_reference, cells, place, count, bounds, pooled, side,
        log_factorials(largest), out,
    )  # fmt: skip
    return out


@jit
def _judge(
    above, below, n_target, n_reference, cells, place, count, bounds, pooled, side,
    log_factorial, out,
):  # fmt: skip
    most_values = 0
    for t in range(above.size):
        most_values = max(most_values, bounds[t + 1] - bounds[t])
    upto = np.cumsum(cells)
    ends = np.empty(cells.size + most_values, np.int64)
    turned = np.empty(cells.size + most_values, np.int64)
    largest = 0  # of the classes of equal values but the first
    for k in range(1, cells.size):
        largest = max(largest, cells[k])
    if cells.size == 1:
        largest = cells[0]
    gap = largest / max(1, upto[-1])
    central = 0
    for k in range(cells.size):
        if abs(2 * upto[k] - upto[-1]) < abs(2 * upto[central] - upto[-1]):
            central = k
    smallest = 0
    for t in range(above.size):
        smallest = max(smallest, min(n_target[t], n_reference[t]))
    room = make_room(smallest, ends.size)
    levels, log_h = np.empty(MOST_LEVELS, np.int64), np.empty(MOST_LEVELS)
    squares = 0.0
    for k in range(cells.size):
        squares += float(cells[k]) ** 2
    for t in range(above.size):
        n, m = n_target[t], n_reference[t]
        d = max(above[t], below[t])
        if side != 0:
            d = above[t] if side > 0 else below[t]
        if n == 0 or m == 0 or d <= 0:
            out[t] = 0.0
            continue
        its = slice(bounds[t], bounds[t + 1])
        total, sides = n + m, 2 if side == 0 else 1
        smallest_class = _first(cells, place[its], count[its])
        share = smallest_class / total
        x = d / math.sqrt(float(n) * m * total)
        bridge = _bridge(x, share, sides)
        large = _LARGE if min(n, m) >= _FEW else _LARGE_OF_FEW
        if bridge >= large:
            moved = (total + min(n, m)) / (6.0 * math.sqrt(float(n) * m * total))
            moved += _BETWEEN * math.sqrt(gap)
            clear = _bridge(x + moved, share, sides) >= large
            if not clear:
                b = _upto(central, upto, place[its], count[its])
                clear = _at_end(b, n, total, d, side, log_factorial) >= large
            if clear:
                out[t] = math.log(min(1.0, bridge))
                continue
        looked_at = total - smallest_class
        equal = squares + _more_squares(cells, place[its], count[its])
        equal = (equal - float(smallest_class) ** 2) / looked_at
        half = min(looked_at, total // 2)
        if 0.5 * (equal - 1.0) * d / (float(half) * (total - half)) <= _UNTIED:
            out[t] = _distinct(looked_at, n, total, d, side, log_factorial, levels, log_h)
            continue
        if pooled:
            n_ends = cells.size - 1
            ends[:n_ends] = upto[:-1]
        else:
            n_ends = _merge(cells, place[its], count[its], ends)
        out[t] = _exact(ends[:n_ends], turned[:n_ends], n, total, d, side, log_factorial, room)


@jit
def _upto(k, upto, place, count):
    """Return the cells of the pair that are not above value k of the reference."""
    found = upto[k]
    for i in range(place.size):
        if place[i] > 2 * k + 1:
            break
        found += count[i]
    return found


@jit
def _first(cells, place, count):
    """Return how many cells of the pair have its smallest value."""
    if place.size == 0 or place[0] > 1:
        return cells[0]
    return count[0] + (cells[0] if place[0] == 1 else 0)


@jit
def _more_squares(cells, place, count):
    """Return how much larger the squares of classes are with the target's cells than without."""
    found = 0.0
    for i in range(place.size):
        there = cells[place[i] >> 1] if place[i] & 1 else 0
        found += float(count[i]) * (count[i] + 2.0 * there)
    return found


@jit
def _bridge(x, share, sides):
    """Return the probability that a Brownian bridge exceeds x after its first `share`."""
    if sides == 1:
        within = math.exp(-2.0 * x * x)
    else:
        within = 1.0
        if x > 0.3:  # 1 - K(0.3) is 1e-5
            within, sign = 0.0, 2.0
            for k in range(1, 6):
                term = math.exp(-2.0 * k * k * x * x)
                within += sign * term
                sign = -sign
                if term < 1e-6:
                    break
    spread = math.sqrt(share * (1.0 - share))
    if spread == 0.0:
        return within
    at_first = sides * _upper_tail(x / spread)
    return at_first + within * _upper_tail(x * (2.0 * share - 1.0) / spread)


@jit
def _upper_tail(z):
    return 0.5 * math.erfc(z * math.sqrt(0.5))


@jit
def _at_end(b, n, total, d, side, log_factorial):
    """Return the probability of a distance of d at the end b, exactly."""
    found = 0.0
    if side >= 0:
        found += _tail(b, n, total, d, log_factorial)
    if side <= 0:
        found += _tail(total - b, n, total, d, log_factorial)
    return found


@jit
def _tail(b, n, total, d, log_factorial):
    """Return the probability of ``N c - n b >= d``."""
    c = -((-n * b - d) // total)
    if c > min(n, b):
        return 0.0
    term = math.exp(
        log_factorial[b] - log_factorial[c] - log_factorial[b - c]
        + log_factorial[total - b] - log_factorial[n - c] - log_factorial[total - b - n + c]
        + log_factorial[n] + log_factorial[total - n] - log_factorial[total]
    )  # fmt: skip
    found = 0.0
    while c <= min(n, b) and term > 1e-6 * found:
        found += term
        term *= float(b - c) * (n - c) / ((c + 1.0) * (total - b - n + c + 1.0))
        c += 1
    return found


@jit
def _merge(cells, place, count, ends):
    """List the ends of the pooled pair but the last; return how many they are."""
    n_ends, i, below = 0, 0, 0
    for k in range(cells.size):
        while i < place.size and place[i] == 2 * k:
            below += count[i]
            ends[n_ends] = below
            n_ends += 1
            i += 1
        below += cells[k]
        if i < place.size and place[i] == 2 * k + 1:
            below += count[i]
            i += 1
        ends[n_ends] = below
        n_ends += 1
    while i < place.size:
        below += count[i]
        ends[n_ends] = below
        n_ends += 1
        i += 1
    return n_ends - 1


@jit
def _exact(ends, turned, n, total, d, side, log_factorial, room):
    """Return the logarithm of the p-value; `turned` is working memory."""
    # The smaller sample is counted. The other one is ahead where it lags behind.
    swapped = 2 * n > total
    counted = total - n if swapped else n
    above, below = -np.inf, -np.inf
    if side == 0 or (side > 0) != swapped:
        above = log_crossing(ends, counted, total, d, log_factorial, room)
    if side == 0 or (side < 0) != swapped:
        # Counted from the largest value down, the sample is ahead there.
        for k in range(ends.size):
            turned[k] = total - ends[ends.size - 1 - k]
        below = log_crossing(turned, counted, total, d, log_factorial, room)
    return _either(above, below)


@jit
def _distinct(looked_at, n, total, d, side, log_factorial, levels, log_h):
    """Return the same where the values looked at are distinct."""
    swapped = 2 * n > total
    counted = total - n if swapped else n
    above, below = -np.inf, -np.inf
    if side == 0 or (side > 0) != swapped:
        above = log_lag(looked_at, counted, total, d, log_factorial, levels, log_h)
    if side == 0 or (side < 0) != swapped:
        below = log_ahead(looked_at, counted, total, d, log_factorial, levels, log_h)
    return _either(above, below)


@jit
def _either(a, b):
    """Return the logarithm of the sum of two probabilities, at most 1."""
    high, low = max(a, b), min(a, b)
    return min(0.0, high + math.log1p(math.exp(low - high))) if low > -np.inf else min(0.0, high)
