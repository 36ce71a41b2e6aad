"""log10 of survival functions, correct even where the p-value underflows.

Above FAR_BELOW, the result is the logarithm of the p-value. Only smaller p-values need another
formula. Two-sided callers add log10(2).

For Student's t with t > 0, let ``a = df / 2`` and ``w = df / t**2``, so that x = w / (1 + w) in the
incomplete beta function (DLMF 8.17.8 and 15.8.1)::

    P(T > t) = (1 + 1 / w)**-a * sqrt(1 + w) * F / (2 * a * B(a, 1/2))
    F = 2F1(1/2, 1; a + 1; -w)

F is computed as Gauss's continued fraction (DLMF 15.7.1), whose terms are all positive. A few terms
suffice in the far tail, because w / a = 2 / t**2 is small there.

Worst errors observed against 60 digits down to 1e-10000, relative where ``abs(log10 p) > 1e-3``:
normal 1.2e-15, Kolmogorov 3.2e-15, Student's t 1.5e-15 up to df 1e10 (9e-14 absolute above
FAR_BELOW). For larger df above FAR_BELOW it is 1.4e-13 (4e-11 absolute), which is stdtr's error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import special

from .student_t import survival

#: p-values up to this count as underflowed.
FAR_BELOW = 1e-290

_LN10 = math.log(10.0)

#: Pairs of terms of the continued fraction.
_TERMS = 6

#: Coefficients of ``log(gamma(a + 1/2) / gamma(a) / sqrt(a))`` in powers a**-1, a**-3 ..., from
#: Stirling's series: ``-B_2k * (2 - 2**(1 - 2k)) / (2k * (2k - 1))`` (DLMF 5.11.8).
_HALF_STEP = (-1 / 8, 1 / 192, -1 / 640, 17 / 14336, -31 / 18432)


def log10_of(p: np.ndarray, far: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
    """Return log10 of p-values, calling `far` for those that have underflowed.

    Parameters
    ----------
    p : numpy.ndarray, float64
        In [0, 1]. NaN stays NaN.
    far : callable
        Takes a bool array of ``p.size`` entries in C order, True where ``p <= FAR_BELOW``, and
        returns log10 of these p-values, in order. Called only if there are any.

    Returns
    -------
    numpy.ndarray, float64
        In the shape of `p`.
    """
    p = np.asarray(p, np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.asarray(np.log10(p, order="C"))
    mask = (p <= FAR_BELOW).reshape(-1)
    if mask.any():
        out.reshape(-1)[mask] = far(mask)
    return out


def log10_normal(z: np.ndarray) -> np.ndarray:
    """Return log10 P(Z > z) for the standard normal distribution; float64, in the shape of `z`."""
    z = np.asarray(z, np.float64)
    return np.asarray(special.log_ndtr(-z) / _LN10)


def log10_student_t(df: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return log10 P(T > t) for Student's t distribution.

    Parameters
    ----------
    df : numpy.ndarray, float64
        Degrees of freedom, positive, integer or not; others give NaN. Infinity means the normal
        distribution. Broadcasts with `t`.
    t : numpy.ndarray, float64
        Infinity gives -infinity, -infinity gives 0.

    Returns
    -------
    numpy.ndarray, float64
        In the broadcast shape.
    """
    df, t = np.broadcast_arrays(np.asarray(df, np.float64), np.asarray(t, np.float64))
    p = survival(df, t)
    one = df == 1.0
    if one.any():  # stdtr is off by up to 2e-9 near t = 0 here
        p[one] = np.arctan2(1.0, t[one]) / np.pi

    def far(mask: np.ndarray) -> np.ndarray:
        at = mask.reshape(p.shape)
        return _student_t_far(df[at], t[at])

    return log10_of(p, far)


def log10_kolmogorov(x: np.ndarray) -> np.ndarray:
    """Return log10 of the Kolmogorov survival function; 0 where `x` is not positive.

    The function is ``2 * sum of (-1)**(k - 1) * exp(-2 * k**2 * x**2)``, for the limiting
    distribution of Kolmogorov's statistic times the square root of the sample size. The result is
    float64, in the shape of `x`.
    """
    x = np.asarray(x, np.float64)

    def far(mask: np.ndarray) -> np.ndarray:
        # The second term is less than 1e-870 times the first.
        with np.errstate(over="ignore"):
            return (math.log(2.0) - 2.0 * np.square(x.reshape(-1)[mask])) / _LN10

    return log10_of(special.kolmogorov(x), far)


def _student_t_far(df: np.ndarray, t: np.ndarray) -> np.ndarray:
    """Return log10 P(T > t) for t > 0 where P is at most FAR_BELOW, one axis."""
    with np.errstate(all="ignore"):  # df and t may be infinite
        a, r = df / 2, t / np.sqrt(df)
        w = 1 / (r * r)
        # log(1 / x) = log(1 + r**2), where r**2 may overflow
        log_p = -a * np.where(r < 1e8, np.log1p(r * r), 2 * np.log(r))
        log_p += np.log1p(w) / 2 + np.log(_fraction(a, w))
        log_p += _log_half_step(a) - np.log(a) - math.log(2 * math.sqrt(math.pi))
        log_p = np.where(np.isinf(df), special.log_ndtr(-t), log_p)
    return log_p / _LN10


def _fraction(a: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Evaluate 2F1(1/2, 1; a + 1; -w), from the last term of the fraction to the first."""
    value = np.ones_like(a)
    for n in range(_TERMS, 0, -1):
        value = 1 + w * n * ((a + n - 0.5) / (a + 2 * n - 1)) / (a + 2 * n) / value
        value = 1 + w * (n - 0.5) * ((a + n - 1) / (a + 2 * n - 2)) / (a + 2 * n - 1) / value
    return 1 / value


def _log_half_step(a: np.ndarray) -> np.ndarray:
    """Return ``log(gamma(a + 1/2) / gamma(a))`` without cancellation of large logarithms."""
    inverse = 1 / np.maximum(a, 12.0)
    series = np.polynomial.polynomial.polyval(inverse**2, _HALF_STEP) * inverse
    few = np.minimum(a, 12.0)
    exact = np.log(special.gamma(few + 0.5) / special.gamma(few))
    return np.where(a < 12.0, exact, series + np.log(a) / 2)
