"""The tail of the Mann-Whitney U of x against y cells, as a standard normal deviate.

Let T = U - x y / 2. Without ties its cumulant generating function is that of the Gaussian binomial
(Mann and Whitney 1947): with k = min(x, y), b = max(x, y) and G(u) = log(sinh(u / 2) / (u / 2)),

    K(t) = sum over i = 1 ... k of G((b + i) t) - G(i t)

G is smooth, so beyond a few terms the sum is an integral by Gauss and Legendre's rule. The tail is
the saddlepoint approximation for a lattice (Daniels 1987), in the form of one normal deviate
(Barndorff-Nielsen 1986): r + log(v / r) / r. Where that is not needed, the tail is a symmetric
beta distribution with the variance and the fourth cumulant of U, through Wallace's normal deviate
of Student's t.

Ties shrink the variance by a factor, and T is stretched by its root. Where the ties are uneven,
the skewness that they cause enters by Cornish and Fisher's expansion.
"""

from __future__ import annotations

import math

from ...utils.jit import jit

#: Deviates below this multiple of the cube root of k come from the beta distribution, whose error
#: is about 0.004 z^6 / k^2 decades.
_BODY = 1.3

#: The integral over i is split at this number over t.
_PANEL = 8.0

#: Newton's last step starts from a square of the deviate below this.
_CLOSE = 1e-3
_STEPS = 60  # most of Newton's; about 4 are taken

#: G and its derivatives are a series below this.
_SMALL = 0.3

_12TH, _20TH, _24TH, _42ND, _60TH, _63RD, _120TH = (
    1.0 / 12.0, 1.0 / 20.0, 1.0 / 24.0, 1.0 / 42.0, 1.0 / 60.0, 1.0 / 63.0, 1.0 / 120.0
)  # fmt: skip
_5_OF_126 = 5.0 / 126.0
_HALF = math.sqrt(0.5)
_LOG_ROOT_2PI = 0.5 * math.log(2.0 * math.pi)
# Four nodes and weights of Gauss and Legendre on (0, 1).
_NODES = (0.06943184420297371, 0.33000947820757187, 0.6699905217924281, 0.9305681557970262)
_WEIGHTS = (0.17392742256872692, 0.32607257743127307, 0.32607257743127307, 0.17392742256872692)


@jit
def normal_tail(z):
    """Return P(Z > z)."""
    return 0.5 * math.erfc(z * _HALF)


@jit
def log_normal_tail(z):
    """Return ``log P(Z > z)``, also far below underflow."""
    if z < 30.0:
        return math.log(0.5 * math.erfc(z * _HALF))
    i = 1.0 / (z * z)  # the next term is 945 i**5, below 2e-12
    series = 1.0 - i * (1.0 - 3.0 * i * (1.0 - 5.0 * i * (1.0 - 7.0 * i)))
    return -0.5 * z * z - _LOG_ROOT_2PI - math.log(z) + math.log(series)


@jit
def log_tail(a, x, y, spread, half, skewness):
    """Return ``log P(T >= a)``.

    Parameters
    ----------
    a : float
        A value of T.
    x, y : int
        Numbers of cells, at least 1.
    spread : float
        The variance as a share of the one without ties, above 0.
    half : float
        Half the distance of neighbouring values of T.
    skewness : float
        Of T.
    """
    top = 0.5 * x * y
    if a <= -top:
        return 0.0
    if a > top:
        return -math.inf
    if a > 0.0:
        half = 0.5 + (half - 0.5) * (1.0 - a / top)
    a -= half
    # In the body the root of `spread` stretches T; the ends of its support stay where they are.
    r = a / top
    stretch = 1.0 / math.sqrt(spread + (1.0 - spread) * r * r)
    a *= stretch
    if min(x, y) == 1:  # uniform
        return math.log(min(max(0.5 - a / (x + y), 1e-300), 1.0))
    z = beta_deviate(abs(a), beta_shape(x, y))
    near = _BODY * float(min(x, y)) ** (1.0 / 3.0)
    if z >= near:
        z = max(near, _saddlepoint(min(abs(a), (1.0 - 2e-9) * top), x, y, half * stretch))
    if a < 0.0:
        z = -z
    if skewness != 0.0:
        z += skewness * ((1.0 - z * z) / 6.0 + skewness * z * (4.0 * z * z - 7.0) / 36.0)
    return log_normal_tail(z)


@jit
def beta_shape(x, y):
    """Return the numbers by which :func:`beta_deviate` knows x and y, each at least 1."""
    total, pairs = x + y, float(x) * y
    power = 5.0 * pairs * (total + 1.0) / (float(x) * x + float(y) * y + pairs + total) - 2.0
    square = 12.0 / (pairs * (total + 1.0) * (power + 1.0))
    return square, -power, (8.0 * power + 1.0) / (8.0 * power + 3.0)


@jit
def beta_deviate(a, form):
    """Return z such that P(T >= a) is about P(Z > z) for a continuous T without ties, 0 <= a.

    `form` is that of :func:`beta_shape`.
    """
    square, negative, factor = form
    r2 = a * a * square
    if r2 >= 1.0:
        return math.inf
    return factor * math.sqrt(negative * math.log1p(-r2))


@jit
def _saddlepoint(a, x, y, half):
    """Return z such that P(T >= a + half) is about P(Z > z) without ties, for positive a.

    K is computed after Newton's last step, in the same loop: one call, which compiles once.
    """
    k, b, top = min(x, y), max(x, y), 0.5 * x * y
    r = a / top
    t = a / (top / 6.0 * (x + y + 1.0) * (1.0 - r * r))
    low, high = 0.0, math.inf
    k0, k2, left = 0.0, 1.0, _STEPS
    while left >= 0:
        sums = _sums(t, k, b, left == 0)
        if left == 0:
            k0 = sums[0]
            break
        error, k2 = sums[0] - a, sums[1]
        left -= 1
        if error * error < 1e-12 * k2:
            left = 0
            continue
        if error * error < _CLOSE * k2:  # after this step; its effect is of the second order
            left = 0
        if error > 0.0:
            high = t
        else:
            low = t
        moved = t - error / k2
        if not low < moved < high:
            moved = 0.5 * (low + high) if high < math.inf else 2.0 * t
        t = moved
    w = math.sqrt(2.0 * (t * a - k0))
    v = math.sinh(min(half * t, 300.0)) / half * math.sqrt(k2)
    return w + math.log(v / w) / w


@jit
def _sums(t, k, b, itself):
    """Return (K(t), 0) if `itself`, else the first two derivatives."""
    one, two = 0.0, 0.0
    first = min(float(k), max(_PANEL / t, 4.0))  # below, exp(-i t) still changes
    for node in range(k if k <= 4 else 8):
        i, weight = node + 1.0, 1.0
        if k > 4:
            start, length = (0.5, first) if node < 4 else (0.5 + first, k - first)
            i = start + length * _NODES[node % 4]
            weight = length * _WEIGHTS[node % 4]
            if length <= 0.0:
                break
        j = b + i
        if itself:
            one += weight * _rise(i * t, j * t)
        else:
            slope, curvature = _slopes(j * t)
            one += weight * j * slope
            two += weight * j * j * curvature
            slope, curvature = _slopes(i * t)
            one -= weight * i * slope
            two -= weight * i * i * curvature
    return one, two


@jit
def _rise(u, v):
    """Return G(v) - G(u), u < v, by one logarithm."""
    if v < _SMALL:
        return _series(v) - _series(u)
    ratio = (1.0 - math.exp(-v)) / v
    if u < _SMALL:
        return 0.5 * v + math.log(ratio) - _series(u)
    return 0.5 * (v - u) + math.log(ratio * u / (1.0 - math.exp(-u)))


@jit
def _series(u):
    """Return G(u) = log(sinh(u / 2) / (u / 2)) for u below `_SMALL`."""
    u2 = u * u
    return u2 * _24TH * (1.0 - u2 * _120TH * (1.0 - u2 * _63RD))


@jit
def _slopes(u):
    """Return the first two derivatives of G, by one division."""
    if u < _SMALL:
        u2 = u * u
        return (
            u * _12TH * (1.0 - u2 * _60TH * (1.0 - u2 * _42ND)),
            _12TH * (1.0 - u2 * _20TH * (1.0 - u2 * _5_OF_126)),
        )
    e = math.exp(-u)
    rest = 1.0 - e
    both = 1.0 / (u * rest)
    of_u, of_rest = both * rest, both * u
    return 0.5 * (1.0 + e) * of_rest - of_u, of_u * of_u - e * of_rest * of_rest
