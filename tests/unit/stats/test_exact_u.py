"""The exact distribution of U against enumeration, and against scipy."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from pdex_gpu.stats.distributions.exact_u import survival

SMALL = [(m, n) for m in range(1, 6) for n in range(1, 7)]


@pytest.mark.parametrize(("m", "n"), SMALL)
def test_enumeration(m: int, n: int) -> None:
    """Every way to place the m cells of one sample among all, each equally likely."""
    ways = [0] * (m * n + 1)
    for places in itertools.combinations(range(m + n), m):
        ways[sum(places) - m * (m - 1) // 2] += 1
    total = math.comb(m + n, m)
    expected = [float(Fraction(sum(ways[u:]), total)) for u in range(m * n + 1)]
    np.testing.assert_array_equal(survival(m, n), expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(("m", "n"), [(3, 8), (8, 8), (1, 40), (7, 60), (12, 15), (20, 20)])
def test_scipy(m: int, n: int) -> None:
    """Samples with every possible U, through the public function."""
    found = survival(m, n)
    for u in range(m * n + 1):
        full, part = divmod(u, n)  # `full` cells above all others, one above `part` of them
        x = np.array([n + 1.0 + i for i in range(full)] + [-1.0 - i for i in range(m - full)])
        if part:
            x[full] = part - 0.5  # above 0 ... part - 1
        result = stats.mannwhitneyu(x, np.arange(n), alternative="greater", method="exact")
        assert result.statistic == u
        # Worst seen: 4.9e-16, of scipy's sums in floating point.
        np.testing.assert_allclose(found[u], result.pvalue, rtol=1e-12)


@pytest.mark.parametrize(("m", "n"), [(2, 3), (8, 8), (8, 30), (5, 400), (40, 50)])
def test_properties(m: int, n: int) -> None:
    """Certain at 0, falling, one arrangement at the end, symmetric, the same either way."""
    found = survival(m, n)
    assert found.shape == (m * n + 1,)
    assert found[0] == 1.0
    assert (np.diff(found) <= 0).all()
    assert found[-1] == 1 / math.comb(m + n, m)
    np.testing.assert_array_equal(found, survival(n, m))
    # P(U >= u) + P(U >= m n - u + 1) = 1; one rounding each.
    np.testing.assert_allclose(found[1:] + found[1:][::-1], 1.0, rtol=3e-16)


@pytest.mark.parametrize(("m", "n", "limit"), [(32, 33, 2**61), (33, 34, 2**63)])
def test_the_step_from_machine_integers_to_any_size(m: int, n: int, limit: int) -> None:
    """Arrangements outgrow int64 from one size to the next; recursion on a cell joins them."""
    assert math.comb(m + n - 1, m) < limit < math.comb(m + n, m)
    whole, of_m, of_n = survival(m, n), survival(m - 1, n), survival(m, n - 1)
    for u in (1, 100, 500, 512, 700, m * n):
        # The largest cell is of the first sample, and lies above n others, or of the second.
        above = of_m[max(0, u - n)] if u - n <= (m - 1) * n else 0.0
        below = of_n[u] if u <= m * (n - 1) else 0.0
        expected = (m * above + n * below) / (m + n)
        np.testing.assert_allclose(whole[u], expected, rtol=1e-15)


def test_one_side_of_thousands() -> None:
    """As ``method="auto"`` needs it for a small group against a large reference."""
    m, n = 4, 3000
    found = survival(m, n)
    rng = np.random.default_rng(1)
    y = np.arange(float(n))
    for centre in (10, 800, 1500, 2990):
        x = np.sort(rng.choice(n, m, replace=False)) * 0.1 + centre + 0.05
        result = stats.mannwhitneyu(x, y, alternative="greater", method="exact")
        np.testing.assert_allclose(found[int(result.statistic)], result.pvalue, rtol=1e-12)


def test_results_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="read-only"):
        survival(3, 4)[0] = 0.0
