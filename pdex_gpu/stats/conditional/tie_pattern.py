"""The constants of the midrank Anderson-Darling statistic that depend on the pooled tie pattern.

Notation: N pooled cells, Z of them 0, E = N - Z; of the distinct values other than 0, number k has
l_k cells, a share phi_k = l_k / E, with midpoint s_k: the share below it plus phi_k / 2. With
z = Z / N and e = E / N, its midrank is N b_k, b_k = z + e s_k. Of n target cells, M_k count up to
the midrank. The statistic (Scholz and Stephens 1987, eq. 7) is ::

    A2 = sum of w_k (M_k - n b_k)**2,     w_k = (N - 1) E / (n m N) omega_k,
    omega_k = phi_k / (b_k (1 - b_k) - e phi_k / 4)

over all distinct values, 0 included. So the pattern enters through shares alone, and the constants
here are functions of the shares phi and of z.
"""

from __future__ import annotations

import math

import numpy as np

from ...utils.jit import jit

# Constants: see :func:`constants`.
C0, C1, C2, C3, D1, D2, C_TOP, T2, T3, T_TOP = range(10)
N_CONSTANTS = 10

_FINE = 64  # patterns up to this size are left as they are
_BLOCK = 16  # blocks are at most this part of the cells on either side
_POWER_STEPS = 4


@jit
def coarsen(cells, ties, n_values):
    """Merge neighbouring distinct values with few cells, in place; return how many blocks remain.

    Values are merged while the block has at most a sixteenth of the cells before it and of those
    after it, so ends stay as they are.

    Parameters
    ----------
    cells : float64
        Cells at each distinct value, of which there are `n_values`; afterwards those of each block.
    ties : float64
        Filled with the mean number of cells that share the value of a cell, by block.
    """
    total = 0.0
    for k in range(n_values):
        total += cells[k]
    kept = 0
    before = 0.0  # the current block
    block, squares = cells[0], cells[0] * cells[0]
    for k in range(1, n_values):
        after = total - before - block - cells[k]
        if n_values > _FINE and (block + cells[k]) * _BLOCK <= min(before, after):
            block += cells[k]
            squares += cells[k] * cells[k]
        else:
            before += block
            next_one = cells[k]
            cells[kept], ties[kept] = block, squares / block
            kept += 1
            block, squares = next_one, next_one * next_one
    cells[kept], ties[kept] = block, squares / block
    return kept + 1


@jit
def constants(cells, ties, n_values, z, work, found):
    """Compute the constants of a pattern.

    With W = diag(omega), u = 1 - s, and the covariance of a bridge among nonzero values,
    ``G_jk = s_j u_k`` for j < k and ``G_kk = s_k u_k - phi_k / 4``::

        C0 = u'Wu     C1, C2, C3 = tr (WG), tr (WG)**2, tr (WG)**3
        D1 = u'WGWu   D2 = u'WGWGWu   C_TOP = the largest eigenvalue of WG

    T2, T3 and T_TOP are the traces of the square and cube, and the largest eigenvalue, of the
    covariance of ``sqrt(w_k) (M_k - n b_k)`` over all values, 0 included; its trace is 1.

    In a block of several values phi_k / 4 becomes a quarter of the share of a single value, and in
    squares and cubes, which are sums over pairs in a block, a sixth of phi_k and a twelfth of that.

    Parameters
    ----------
    cells, ties : float64, at least (n_values,)
        Cells of each block of distinct values other than 0, and at a single one of them.
    z : float
        Share of zeros among all cells.
    work : float64, shape (6, at least n_values + 1)
    found : float64, shape (10,)
    """
    total = 0.0
    for k in range(n_values):
        total += cells[k]
    e = 1.0 - z
    s, omega, b, weight, vector, image = work[0], work[1], work[2], work[3], work[4], work[5]
    before = 0.0
    sum_uu = 0.0
    for k in range(n_values):
        phi, tie = cells[k] / total, ties[k] / total
        s[k] = (before + 0.5 * cells[k]) / total
        before += cells[k]
        below, above = z + e * (s[k] - 0.5 * tie), e * (1.0 - s[k] - 0.5 * tie)
        spread = below * above + 0.25 * e * tie * (below + above)
        omega[k] = phi / spread if spread > 0.0 else 0.0
        u = 1.0 - s[k]
        sum_uu += omega[k] * u * u
        b[k] = z + e * s[k]
        weight[k] = e * omega[k]
    c1, c2, c3, d1, d2 = 0.0, 0.0, 0.0, 0.0, 0.0
    before_ss, before_su = 0.0, 0.0  # over smaller values: of omega s**2, and of omega s u
    after_uu = sum_uu
    for k in range(n_values):
        u, w = 1.0 - s[k], omega[k]
        after_uu -= w * u * u
        own = s[k] * u - _within(cells[k], ties[k]) / total
        product = u * before_su + s[k] * max(after_uu, 0.0) + own * w * u  # GWu
        d1 += w * u * product
        d2 += w * product * product
        c1 += w * (s[k] * u - 0.25 * ties[k] / total)
        c2 += w * w * own * own + 2.0 * w * u * u * before_ss
        c3 += (
            (w * own) ** 3
            + 6.0 * w * s[k] * u * before_ss * max(after_uu, 0.0)
            + 3.0 * w * w * own * (u * u * before_ss + s[k] * s[k] * max(after_uu, 0.0))
        )
        before_su += w * s[k] * u
        before_ss += w * s[k] * s[k]
    found[C0], found[C1], found[C2], found[C3] = sum_uu, c1, c2, c3
    found[D1], found[D2] = d1, d2
    found[C_TOP] = _largest_among_nonzero(cells, ties, n_values, total, s, omega, vector, image, c2)
    # Zero has the share z, the midrank z / 2 and the spread z e / 4.
    zero_weight = 4.0 / e if z > 0.0 else 0.0
    _whole(cells, ties, n_values, total, z, zero_weight, b, weight, vector, image, found)


@jit
def _within(cells, tie):
    """Return what a block takes off the covariance, on average over its pairs of cells."""
    return cells / 6.0 + tie / 12.0


@jit
def _largest_among_nonzero(cells, ties, n_values, total, s, omega, vector, image, c2):
    """Return the largest eigenvalue of WG, by power iteration."""
    for k in range(n_values):
        vector[k] = s[k] * (1.0 - s[k])
    top = 0.0
    for _ in range(_POWER_STEPS):
        before, after = 0.0, 0.0
        for k in range(n_values):
            after += omega[k] * (1.0 - s[k]) * vector[k]
        length, quotient = 0.0, 0.0
        for k in range(n_values):
            u, w = 1.0 - s[k], omega[k] * vector[k]
            after -= w * u
            own = s[k] * u - _within(cells[k], ties[k]) / total
            image[k] = u * before + s[k] * after + own * w
            before += w * s[k]
            length += w * vector[k]
            quotient += w * image[k]
        if not quotient > 0.0:  # a single value
            return 0.0
        top = quotient / length
        for k in range(n_values):
            vector[k] = image[k] / top
    return min(top, math.sqrt(c2))


@jit
def _whole(cells, ties, n_values, total, z, zero_weight, b, weight, vector, image, found):
    """Compute the constants that include 0, which is put after all other values in `vector`."""
    e = 1.0 - z
    zero_b = 0.5 * z
    before = zero_weight * zero_b * zero_b
    after = 0.0
    for k in range(n_values):
        after += weight[k] * (1.0 - b[k]) ** 2
    t2 = z * z
    t3 = z * z * z + 3.0 * z * zero_weight * zero_b * zero_b * after
    for k in range(n_values):
        above, w = 1.0 - b[k], weight[k]
        share = w * (b[k] * above - e * _within(cells[k], ties[k]) / total)
        after -= w * above * above
        left = max(after, 0.0)
        t2 += share * share + 2.0 * w * above * above * before
        t3 += (
            share**3
            + 6.0 * w * b[k] * above * before * left
            + 3.0 * share * w * (above * above * before + b[k] * b[k] * left)
        )
        before += w * b[k] * b[k]
    found[T2], found[T3] = t2, t3
    # Power iteration. It starts from the eigenvector for continuous values without zeros, with one
    # eigenvalue that is at least three times the second.
    for k in range(n_values):
        vector[k] = b[k] * (1.0 - b[k])
    vector[n_values] = zero_b * (1.0 - zero_b)
    top = 0.0
    for _ in range(_POWER_STEPS):
        after = 0.0
        for k in range(n_values):
            after += weight[k] * (1.0 - b[k]) * vector[k]
        zero = zero_b * after + z * vector[n_values]
        length = zero_weight * vector[n_values] ** 2
        quotient = zero_weight * vector[n_values] * zero
        before = zero_weight * zero_b * vector[n_values]
        for k in range(n_values):
            after -= weight[k] * (1.0 - b[k]) * vector[k]
            share = weight[k] * (b[k] * (1.0 - b[k]) - e * _within(cells[k], ties[k]) / total)
            image[k] = (1.0 - b[k]) * before + b[k] * after + share * vector[k]
            length += weight[k] * vector[k] ** 2
            quotient += weight[k] * vector[k] * image[k]
            before += weight[k] * b[k] * vector[k]
        top = quotient / length
        factor = 1.0 / top
        for k in range(n_values):
            vector[k] = image[k] * factor
        vector[n_values] = zero * factor
    found[T_TOP] = min(top, math.sqrt(t2))


def room(n_values: int) -> np.ndarray:
    """Allocate `work` for patterns of up to `n_values` distinct values."""
    return np.empty((6, n_values + 1))
