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
def room(n_values):
    """Allocate `work` for patterns of up to `n_values` distinct values."""
    return np.empty((5, n_values + 1))


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
    work : float64, shape (5, at least n_values + 1)
    found : float64, shape (10,)
    """
    total = 0.0
    for k in range(n_values):
        total += cells[k]
    e = 1.0 - z
    # Number 0 is the value 0; among nonzero values its weight is 0.
    middle, weight, within, vector, image = work[0], work[1], work[2], work[3], work[4]
    middle[0], weight[0], within[0] = 0.0, 0.0, 0.0
    before, c1 = 0.0, 0.0
    for k in range(n_values):
        phi, tie = cells[k] / total, ties[k] / total
        s = (before + 0.5 * cells[k]) / total
        before += cells[k]
        below, above = z + e * (s - 0.5 * tie), e * (1.0 - s - 0.5 * tie)
        spread = below * above + 0.25 * e * tie * (below + above)
        omega = phi / spread if spread > 0.0 else 0.0
        c1 += omega * (s * (1.0 - s) - 0.25 * tie)
        middle[k + 1], weight[k + 1], within[k + 1] = s, omega, phi / 6.0 + tie / 12.0
    found[C1] = c1
    offset, factor = 0.0, 1.0
    for whole in range(2):
        sum_uu, along = 0.0, 0.0  # sums of w u**2, and of w u times the vector
        for k in range(n_values + 1):
            s, w = offset + factor * middle[k], factor * weight[k]
            if whole and k == 0:  # zero has the share z, the midrank z / 2 and the spread z e / 4
                s, w, within[0] = 0.5 * z, 4.0 / e if z > 0.0 else 0.0, 0.25 * z / e
            middle[k], weight[k] = s, w
            within[k] *= factor
            sum_uu += w * (1.0 - s) * (1.0 - s)
            # Power iteration starts from the eigenvector for continuous values without zeros, with
            # one eigenvalue that is at least three times the second.
            vector[k] = s * (1.0 - s)
            along += w * (1.0 - s) * vector[k]
        t2, t3, d1, d2 = 0.0, 0.0, 0.0, 0.0
        before_ss, before_su = 0.0, 0.0  # over smaller values: of w s**2, and of w s u
        after_uu = sum_uu
        for k in range(n_values + 1):
            s, w = middle[k], weight[k]
            u = 1.0 - s
            own = s * u - within[k]
            share = w * own
            after_uu -= w * u * u
            after = max(after_uu, 0.0)
            product = u * before_su + s * after + share * u  # GWu
            d1 += w * u * product
            d2 += w * product * product
            t2 += share * share + 2.0 * w * u * u * before_ss
            t3 += (
                share * share * share
                + 6.0 * w * s * u * before_ss * after
                + 3.0 * share * w * (u * u * before_ss + s * s * after)
            )
            before_su += w * s * u
            before_ss += w * s * s
        top = 0.0
        for _ in range(_POWER_STEPS):
            after, along = along, 0.0
            before, length, quotient = 0.0, 0.0, 0.0
            for k in range(n_values + 1):
                s, w = middle[k], weight[k] * vector[k]
                after -= w * (1.0 - s)
                image[k] = (1.0 - s) * before + s * after + (s * (1.0 - s) - within[k]) * w
                before += w * s
                length += w * vector[k]
                quotient += w * image[k]
            if not quotient > 0.0:  # a single value
                top = 0.0
                break
            top = quotient / length
            for k in range(n_values + 1):
                vector[k] = image[k] / top
                along += weight[k] * (1.0 - middle[k]) * vector[k]
        top = min(top, math.sqrt(t2))
        if whole:
            found[T2], found[T3], found[T_TOP] = t2, t3, top
        else:
            found[C0], found[C2], found[C3], found[C_TOP] = sum_uu, t2, t3, top
            found[D1], found[D2] = d1, d2
        offset, factor = z, e
