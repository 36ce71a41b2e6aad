"""The limiting null distribution of A2 and of its sum over strata, accurate far into the tails.

Under the null hypothesis, the two-sample Anderson-Darling statistic converges to ::

    Z = sum over j >= 1 of chi2_m(j) / (j * (j + 1))

with m = 1 (Anderson and Darling, Ann. Math. Statist. 23, 1952; for two samples, Scholz and
Stephens, JASA 82, 1987). The sum of m independent statistics converges to Z with that m. Z has
mean m, variance ``2 * m * (pi**2 - 9) / 3`` and the moment generating function
``exp(K(s)) = D(s)**(-m / 2)`` with ::

    D(s) = prod over j of (1 - 2 * s / (j * (j + 1)))
         = -cos(pi * v) / (2 * pi * s),  v = sqrt(1/4 + 2 * s)

with branch points at s = 1, 3, 6, ... The upper tail is an integral along a path that crosses the
real axis upwards at c, where 0 < c < 1. With c < 0, on the other side of the pole at 0, the same
integral is minus the lower tail ::

    P(Z > x) = 1 / (2 * pi * i) * integral of exp(K(s) - s * x) / s ds

The path is the parabola ``s = c + i * y + bend * y**2``. It leaves the saddle point of the
integrand in the direction of steepest descent and bends to the right as the steepest descent does.
On it the integrand falls like a normal density or faster for every m and x. The trapezoidal rule
therefore needs some 60 to 150 terms for 14 digits, relative to either tail (Rice, Bell Syst. Tech.
J. 52, 1973).

Callers need millions of values, so a table is built once for each m. With ``tau = m / (x + m)`` ::

    log P(Z > x) = -x - (m / 2 - 1) * log(tau) + g(tau)

where g is smooth on all of [0, 1], because log P has an asymptotic series in 1 / x for large x. g
is approximated by Chebyshev series on pieces that are halved until the series are accurate enough.
From these, polynomials of degree 5 are built on many equal pieces.

Observed errors of log P, which are relative errors of P, against other formulas with 34 digits or
more (``test_anderson_darling_limit.py``): up to 40 strata, 1.4e-13, or half an ulp of log P where
that is larger (from about log10 P = -200 on; 2e-12 at -10000); 9e-13 with 300 strata, 2e-12 with
1000, 9e-12 with 5000, and about 2e-15 per stratum beyond.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

import numpy as np

from ...errors import OptionError

#: Largest number of strata: rounding errors grow with it.
M_MAX = 2**17

#: Values per step, few enough for the working arrays to stay in cache.
_STEP = 16_384

#: Degree of the Chebyshev series, and of the tabulated polynomials.
_DEGREE, _LOCAL = 16, 5

#: Step of the trapezoidal rule, in standard deviations of the integrand, and number of terms.
_FINE, _TERMS = 0.2, 160

#: j of the terms summed for K', and the start of the integral that replaces the others.
_J = np.arange(1.0, 65.0)
_J_TAIL = 65.0


def log_survival(a2: np.ndarray, n_strata: int | np.ndarray = 1) -> np.ndarray:
    """Return the natural log of P(Z > a2).

    Parameters
    ----------
    a2 : numpy.ndarray, float64
        A2, or its sum over strata. Values of at most 0 give 0, infinity gives -infinity, NaN gives
        NaN.
    n_strata : int or numpy.ndarray of integers
        Number of terms in the sum, at least 1. Broadcasts with `a2`; cheapest where it varies along
        few axes, such as only that of the targets.

    Returns
    -------
    numpy.ndarray, float64
        In the broadcast shape.

    Raises
    ------
    OptionError
        If a number of strata is not an integer, or is below 1 or above M_MAX.
    """
    a2, strata = np.asarray(a2, np.float64), np.asarray(n_strata)
    if strata.dtype.kind not in "iu":
        raise OptionError(
            f"n_strata= must be integers, the number of A2 terms in each sum; found "
            f"{strata.dtype}. Convert them."
        )
    if strata.size and not 1 <= strata.min() <= strata.max() <= M_MAX:
        raise OptionError(
            f"n_strata= must be from 1 to {M_MAX}, the number of A2 terms in each sum; found "
            f"{strata.min()} to {strata.max()}. Where there is nothing to sum, set the sum to NaN "
            "and n_strata to 1."
        )
    shape = np.broadcast_shapes(a2.shape, strata.shape)
    if strata.size != 1 and math.prod(shape):
        return _by_strata(a2, strata)
    out = np.full(shape, np.nan)
    if out.size:
        _evaluate(np.broadcast_to(a2, shape).reshape(-1), int(strata.item()), out.reshape(-1))
    return out


def _by_strata(a2: np.ndarray, strata: np.ndarray) -> np.ndarray:
    """Compute `log_survival` row by row of `strata`, equal numbers of strata together."""
    shape = np.broadcast_shapes(a2.shape, strata.shape)
    strata = strata.reshape((1,) * (len(shape) - strata.ndim) + strata.shape)
    axes = sorted(range(len(shape)), key=lambda axis: strata.shape[axis] == 1)
    turned = np.broadcast_to(a2, shape).transpose(axes)
    rows = turned.reshape(strata.size, -1)
    out = np.full(rows.shape, np.nan)
    order = np.argsort(strata, axis=None, kind="stable")
    ms, first = np.unique(strata.reshape(-1)[order], return_index=True)
    for m, at in zip(ms.tolist(), np.split(order, first[1:]), strict=True):
        values = rows[at].reshape(-1)
        _evaluate(values, m, values)
        out[at] = values.reshape(len(at), -1)
    back = out.reshape(turned.shape).transpose(np.argsort(axes))
    return np.ascontiguousarray(back)


def _evaluate(x: np.ndarray, m: int, out: np.ndarray) -> None:
    """Write log P(Z > x) into `out`; one axis. `out` may be `x`."""
    with np.errstate(all="ignore"):  # x may hold NaN and infinity
        table = _table(m)
        work = np.empty((4, min(len(x), _STEP)))
        cell = np.empty(work.shape[1], np.int64)
        for start in range(0, len(x), _STEP):
            at = slice(start, start + _STEP)
            n = len(x[at])
            _table_step(x[at], m, table, out[at], work[:, :n], cell[:n])


def _table_step(
    x: np.ndarray, m: int, table: np.ndarray, out: np.ndarray, work: np.ndarray, cell: np.ndarray
) -> None:
    x0, tau, g, c = work
    np.maximum(x, 0.0, out=x0)
    np.minimum(x0, 1e300, out=tau)  # so that the logarithm is finite
    tau += m
    np.divide(m, tau, out=tau)
    np.log(tau, out=c)
    c *= m / 2 - 1
    x0 += c
    tau *= table.shape[1]
    # NaN may become any integer, and tau = 1 gives an index past the end.
    cell[:] = tau
    np.clip(cell, 0, table.shape[1] - 1, out=cell)
    tau -= cell
    tau -= 0.5
    np.take(table[-1], cell, out=g, mode="clip")
    for row in table[-2::-1]:
        g *= tau
        g += np.take(row, cell, out=c, mode="clip")
    g -= x0
    np.minimum(g, 0.0, out=out)


@lru_cache(maxsize=512)
def _table(m: int) -> np.ndarray:
    """Return the coefficients of g, shape (degree + 1, pieces), constant term first.

    The variable is tau in units of a piece, counted from the centre of the piece. Neighbouring
    pieces share the value at their border.
    """
    # P falls from 1 over a range of sqrt(m) in x, which is 1 / sqrt(m) in tau.
    n = max(256, 2 ** math.ceil(math.log2(64 * math.sqrt(m))))
    nodes = -np.cos(np.pi * np.arange(_LOCAL + 1) / _LOCAL) / 2  # ends included
    tau = (np.arange(n)[:, None] + 0.5 + nodes) / n
    g = np.full(tau.shape, np.nan)
    for low, high, series in _pieces(m, 1 / n):
        at = slice(round(low * n), round(high * n))
        local = (2 * tau[at] - low - high) / (high - low)
        g[at] = np.polynomial.chebyshev.chebval(local, series)
    table = np.linalg.solve(np.vander(nodes, increasing=True), g.T)
    table.setflags(write=False)
    return table


def _pieces(m: int, least: float) -> Iterator[tuple[float, float, np.ndarray]]:
    """Yield pieces of [0, 1], none shorter than `least`, and the Chebyshev series of g on each."""
    angle = np.pi * np.arange(_DEGREE + 1) / _DEGREE
    weights = np.cos(np.outer(np.arange(_DEGREE + 1), angle)) * (2 / _DEGREE)
    weights[:, [0, -1]] /= 2
    weights[[0, -1]] /= 2
    # The rounding error of g.
    enough = 2e-14 * (1 + m / 16)
    borders = np.linspace(0.0, 1.0, 5)
    low, high = borders[:-1], borders[1:]
    while len(low):
        half = (high - low)[:, None] / 2
        tau = (low[:, None] + half) + half * np.cos(angle)
        tau[:, 0], tau[:, -1] = high, low
        g = _g(tau.reshape(-1), m).reshape(tau.shape)
        series = g @ weights.T
        done = (np.abs(series[:, -3:]).max(1) <= enough) | (high - low < 2 * least)
        for i in np.flatnonzero(done):
            yield float(low[i]), float(high[i]), series[i]
        low, high = low[~done], high[~done]
        middle = (low + high) / 2
        low, high = np.concatenate([low, middle]), np.concatenate([middle, high])


def _g(tau: np.ndarray, m: int) -> np.ndarray:
    """Return ``log P(Z > x) + x + (m / 2 - 1) * log(tau)`` where ``x = m / tau - m``."""
    # The limits: P is 1 at x = 0, and tends to 3**(m/2) * x**(m/2 - 1) * exp(-x) / gamma(m/2).
    ends = m / 2 * math.log(3.0) + (m / 2 - 1) * math.log(m) - math.lgamma(m / 2)
    g = np.where(tau == 0.0, ends, 0.0)
    inside = (tau > 0.0) & (tau < 1.0)
    x = m * (1.0 - tau[inside]) / tau[inside]
    g[inside] = _scaled(x, m) + (m / 2 - 1) * np.log(tau[inside])
    return g


def _scaled(x: np.ndarray, m: int) -> np.ndarray:
    """Return ``log P(Z > x) + x`` for finite positive x, one axis."""
    out = np.full(x.shape, np.nan)
    for start in range(0, len(x), 256):
        at = slice(start, start + 256)
        out[at] = _integral(x[at], m)
    return out


def _integral(x: np.ndarray, m: int) -> np.ndarray:
    """Compute `_scaled` by the trapezoidal rule, for at most 256 values."""
    upper = x >= m  # elsewhere use the lower tail, which is at most 2/3
    c, rest = _saddle(x, m, upper)
    _, k2, k3 = _derivatives(c, m)
    # Curvature of log(integrand) in y, with the factor 1 / s included.
    curvature = k2 + 1 / c**2
    bend = np.maximum((k3 - 2 / c**3) / (6 * curvature), k3 / (24 * k2))
    bend = np.minimum(bend, 1 / (2 * rest))
    # The step is hardly larger than the distance to s = 0 and s = 1: both enter the curvature.
    h = _FINE / np.sqrt(curvature)
    y = h[:, None] * np.arange(_TERMS)
    bend = bend[:, None]
    path = 1j * y + bend * y**2
    s, rest = c[:, None] + path, rest[:, None] - path
    log_f = -m / 2 * _log_d(s, rest) - np.log(s) + np.where(upper[:, None], rest, -s) * x[:, None]
    top = log_f[:, 0].real
    f = (np.exp(log_f - top[:, None]) * (1 - 2j * bend * y)).real
    f[:, 0] /= 2
    total = f.sum(1) * (h / np.pi)
    # Left of the pole, the integral is minus the lower tail.
    lower = np.where(upper, 0.0, total * np.exp(np.where(upper, 0.0, top)))
    return np.where(upper, top + np.log(np.abs(total)), np.log1p(lower) + x)


def _log_d(s: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Return log D(s) for complex s with Im s >= 0, continuous from log D(0) = 0.

    `rest` is 1 - s. ``-cos(pi * v) = sin(pi * w)`` where ``w = v - 1/2``; the growing exponential
    is factored out. Near the zeros w = 0 and w = 1, the distance of w from the zero is computed
    from s or from 1 - s.
    """
    v = np.sqrt(0.25 + 2 * s)
    by_s = np.abs(s) < np.abs(rest)
    off = np.where(by_s, 2 * s / (v + 0.5), -2 * rest / (v + 1.5))
    w = np.where(by_s, off, off + 1)
    log_sin = np.log(-np.expm1(2j * np.pi * off)) - 1j * np.pi * w
    return log_sin - np.log(2 * s) + (0.5j * np.pi - math.log(2 * np.pi))


def _saddle(x: np.ndarray, m: int, upper: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return c and 1 - c, where c in (0, 1) or below 0 minimises ``K(s) - s * x - log(abs(s))``.

    Any c near the minimum will do, so halving the bracket 30 times is plenty.
    """
    # c = 1 / (1 + exp(-z)) for the upper tail, -exp(-z) for the lower: the derivative grows with z.
    low = np.full(x.shape, -25.0)
    high = np.where(upper, np.log(2 * (x + 2) / m + 2) + 1, 25.0)
    c, rest = low, low
    for _ in range(30):
        z = (low + high) / 2
        small = np.exp(-z)
        c = np.where(upper, 1 / (1 + small), -small)
        rest = np.where(upper, small / (1 + small), 1 + small)
        beyond = _derivatives(c, m)[0] - x - 1 / c > 0
        low, high = np.where(beyond, low, z), np.where(beyond, z, high)
    # Compute the larger of the two from the smaller, so that they agree to the last bit.
    near_1 = rest < 0.5
    return np.where(near_1, 1 - rest, c), np.where(near_1, rest, 1 - c)


def _derivatives(s: np.ndarray, m: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return K', K'' and K''' for real s < 1, to a few digits."""
    inverse = 1 / (_J * (_J + 1) - 2 * s[:, None])
    b = np.sqrt(np.maximum(-2 * s, 1e-12))
    first = inverse.sum(1) + np.arctan(b / _J_TAIL) / b
    return m * first, 2 * m * (inverse**2).sum(1), 8 * m * (inverse**3).sum(1)
