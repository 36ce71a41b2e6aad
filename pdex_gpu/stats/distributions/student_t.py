"""The tail of Student's t distribution, where possible several times faster than scipy's.

``scipy.special.stdtr`` takes about 0.2 microseconds per value for any degrees of freedom, which is
most of the time of a t-test. For large df, an expansion about the normal distribution gives the
same numbers with smaller rounding errors.

Let ``a = df - 1/2``, ``s = log(1 + t**2 / df)`` and ``u = sqrt(a * s)``. Substituting u for t in
the integral of the density gives, exactly (u is the variable of Wallace, Ann. Math. Statist. 30,
1959, and of Hill, Algorithm 395, CACM 13, 1970)::

    P(T > t) = C * integral from u to infinity of phi(w) * g(w**2 / a) dw
    g(s) = sqrt((s / 2) / sinh(s / 2))

where phi is the normal density and C makes the integral over all w equal to 1. With Q for the
normal tail, ``P = Q(u) + phi(u) * u / a * h(s)``; taking the derivative in u gives ::

    s * h(s) = C * g(s) - 1 + (h(s) + 2 * s * h'(s)) / a

Expand h and C in powers of 1 / a (a uniform expansion as in Temme, SIAM J. Math. Anal. 13, 1982).
Each term follows from the previous one, starting with ``s * h_0 = g - 1``::

    s * h_k = C_k * g + h_(k-1) + 2 * s * h_(k-1)',    C_k = -h_(k-1)(0)

The h_k are power series in s that converge up to 2 pi, with odd powers for even k and even powers
for odd k. They are used where ``50 <= df <= 1e10``, ``abs(t) <= sqrt(df)`` and ``u**2 / 2 <= 690``
(P above 2e-302). Everywhere else the result is stdtr's, bit for bit.

Relative errors against 50 digits, observed on a grid and on 63,000 random points of that region:
truncating the series costs at most 1.4e-15 of P (at df 50 and t 7.07; 2.3e-16 from df 80 on). With
rounding, the worst is 9e-16 for P above 0.02, 8e-15 above 1e-15, 3e-14 above 1e-45, 1.1e-13 above
1e-176 and 1.9e-13 at 1e-300. This is 1.8e-16 times u**2; rounding t already causes 1.1e-16 times
u**2. stdtr's errors are up to twice as large: 2e-15, 1.4e-14, 4.5e-14, 2.3e-13 and 3.8e-13. The two
differ by at most 4e-13.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
from scipy import special

DF_MIN, DF_MAX = 50.0, 1e10
#: Largest s, that is abs(t) <= sqrt(df).
S_MAX = math.log(2.0)
#: Largest u**2 / 2: beyond it, results are near the smallest float.
Y_MAX = 690.0

#: Pairs per step: enough to hide the cost of a call, few enough for the data to stay in cache.
_STEP = 32_768


def _series() -> list[list[float]]:
    """Compute the coefficients of ``h_k / sqrt(pi)`` in ``s**2``, without the factor s of even k.

    Terms below 1e-15 of the result wherever the expansion is used are left out.
    """
    n_k, n_s = 12, 16  # beyond these, every term is far smaller
    n = n_s + n_k + 2
    # sinh(s/2) / (s/2), and g as its power -1/2: g' * f = -f' * g / 2
    f = [Fraction((m + 1) % 2, 2**m * math.factorial(m + 1)) for m in range(n)]
    g = [Fraction(1)]
    for m in range(1, n):
        terms = (f[i] * g[m - i] * Fraction(i - 2 * m, 2) for i in range(2, m + 1, 2))
        g.append(sum(terms, Fraction(0)) / m)
    series = []
    h = g[1:]
    for k in range(n_k):
        kept, count = [], 0
        for j in range((k + 1) % 2, n_s, 2):
            kept.append(float(h[j]) / math.sqrt(math.pi))
            # phi(u) * u / a is at most about s * Q(u); for small u it is less.
            if abs(float(h[j])) * S_MAX ** (j + 1) / (DF_MIN - 0.5) ** k > 1e-15:
                count = len(kept)
        if count:
            series.append(kept[:count])
        h = [(2 * m + 1) * h[m] - h[0] * g[m] for m in range(1, len(h))]
    return series


_SERIES = _series()

#: ``(x + 0.5) * erfcx(x)`` for 0 <= x <= 27 as a polynomial in q = 427/54 / (x + 3.5) - 34/27,
#: which runs from -1 to 1: the Chebyshev series to order 21, computed with 40 digits. The form is
#: Shepherd and Laframboise's (Math. Comp. 36, 1981). Worst relative error observed: 7e-16, against
#: 8e-16 for scipy's erfcx, in a third of the time.
_ERFCX = [
    0.6290538403288406,
    0.058849354014511225,
    -0.021427577618902887,
    -0.05672275680862735,
    -0.054127607298968074,
    -0.034583784194568354,
    -0.01579981388299607,
    -0.004839149767871363,
    -0.0006679983505353325,
    0.00017041219404014985,
    9.911857874972831e-05,
    5.212109793674937e-06,
    -8.528244208999404e-06,
    -1.5915039990643833e-06,
    7.447497201345496e-07,
    2.1708257130100308e-07,
    -7.616622610993412e-08,
    -2.5381191171045547e-08,
    8.442086474011497e-09,
    2.5535185725112018e-09,
    -6.692715657343328e-10,
    -1.6646555894563159e-10,
]


def survival(df: np.ndarray, t: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """Return P(T > t) for Student's t distribution.

    Parameters
    ----------
    df : numpy.ndarray
        Degrees of freedom, integer or not. Broadcasts with `t`.
    t : numpy.ndarray
    out : numpy.ndarray, optional
        C-contiguous float64 array in the result's shape; may be `t` itself.

    Returns
    -------
    numpy.ndarray, float64
    """
    df, t = np.asarray(df, np.float64), np.asarray(t, np.float64)
    shape = np.broadcast_shapes(df.shape, t.shape)
    if out is None:
        out = np.empty(shape)
    df, t = (np.broadcast_to(values, shape).reshape(-1) for values in (df, t))
    p = out.reshape(-1, copy=False)
    work = np.empty((6, min(len(p), _STEP)))  # reused: fresh memory costs as much as arithmetic
    with np.errstate(all="ignore"):  # from values that `_step` leaves to stdtr
        for start in range(0, len(p), _STEP):
            at = slice(start, start + _STEP)
            _step(df[at], t[at], p[at], work[:, : len(p) - start])
    return out


def _step(df: np.ndarray, t: np.ndarray, out: np.ndarray, work: np.ndarray) -> None:
    fast = (df >= DF_MIN) & (df <= DF_MAX)
    if not fast.any():
        special.stdtr(df, -t, out=out)
        return
    a, e, s, p, x, spare = work
    np.subtract(df, 0.5, out=a)
    np.divide(1.0, a, out=e)
    np.multiply(t, t, out=s)
    s /= df
    np.log1p(s, out=s)
    _correction(e, s, p, x, spare)
    fast &= s <= S_MAX
    a *= 0.5
    s *= a  # u**2 / 2
    fast &= s <= Y_MAX
    np.sqrt(s, out=x)
    p *= x
    _erfcx(x, spare, a)
    spare *= 0.5
    p += spare
    # P magnifies a relative error of u by u**2, so exp uses u**2 itself, not the squared root.
    np.negative(s, out=s)
    p *= np.exp(s, out=s)
    np.minimum(p, 0.5, out=p)  # t = 0 rounds to above 0.5
    negative = t < 0.0
    if negative.any():
        np.subtract(1.0, p, out=x)
        np.copyto(p, x, where=negative)
    fast |= np.isnan(t)  # P is NaN already
    if not fast.all():
        slow = ~fast
        p[slow] = special.stdtr(df[slow], -t[slow])
    out[:] = p


def _correction(
    e: np.ndarray, s: np.ndarray, out: np.ndarray, square: np.ndarray, term: np.ndarray
) -> None:
    """Write ``h / (a * sqrt(pi))`` into `out`; e is 1 / a; `square` and `term` are scratch."""
    np.multiply(s, s, out=square)
    out[:] = 0.0
    for k in reversed(range(len(_SERIES))):
        _polynomial(_SERIES[k], square, term)
        if k % 2 == 0:
            term *= s
        out += term
        out *= e


def _erfcx(x: np.ndarray, out: np.ndarray, q: np.ndarray) -> None:
    """Write ``exp(x**2) * erfc(x)`` for 0 <= x <= 27 into `out`; `q` is scratch."""
    np.add(x, 3.5, out=q)
    np.divide(427.0 / 54.0, q, out=q)
    q -= 34.0 / 27.0
    _polynomial(_ERFCX, q, out)
    np.add(x, 0.5, out=q)
    out /= q


def _polynomial(coefficients: list[float], x: np.ndarray, out: np.ndarray) -> None:
    """Evaluate a polynomial by Horner's scheme; `coefficients` start with the constant term."""
    out[:] = coefficients[-1]
    for coefficient in reversed(coefficients[:-1]):
        out *= x
        out += coefficient
