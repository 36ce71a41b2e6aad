"""The limit of Anderson-Darling's statistic: exact values, known ones, and what any tail does."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pdex_gpu.errors import OptionError
from pdex_gpu.stats.distributions import anderson_darling
from pdex_gpu.stats.distributions.anderson_darling import M_MAX, log_survival

# Strata, x and log P(Z > x), computed with 60 digits. To some x where P is 1e-30, the inversion of
# the characteristic function on the imaginary axis, from the product of gamma functions that D is
# (Davies, Biometrika 60, 1973; aliasing below e**-130, cut off at 1e-46). Besides: for one stratum,
# Smirnov's formula, integrals of 1 / (u * sqrt(abs(D))) between poles; for even numbers of strata,
# the sum of the residues; for odd ones and large x, the asymptotic series from s = 1. Wherever two
# of them apply they agree to 22 digits or more.
# fmt: off
EXACT = [
    (1, 0.06, -9.66752284074172e-09),
    (1, 0.09, -7.5061934945432045e-06),
    (1, 0.113, -0.00010937078183899017),
    (1, 0.117, -0.00015619261762297757),
    (1, 0.15, -0.0014095495807628325),
    (1, 0.2, -0.009633708261099579),
    (1, 0.4, -0.16401003977222006),
    (1, 0.774, -0.6928257286614111),
    (1, 1.0, -1.0292727922632634),
    (1, 1.25, -1.3893130903339583),
    (1, 1.933, -2.302638862357357),
    (1, 2.492, -2.9952886447796314),
    (1, 3.857, -4.581341045608309),
    (1, 6.0, -6.940844807140666),
    (1, 12.0, -13.27884936567168),
    (1, 30.0, -31.729645451663234),
    (1, 75.0, -77.18431369031948),
    (1, 170.0, -172.5920856717674),
    (1, 700.0, -703.2988757839613),
    (1, 2500.0, -2503.9351595063863),
    (1, 23026.0, -23031.04525688788),
    (1, 1000000.0, -1000006.930814272),
    (2, 0.15, -1.4241645426206122e-12),
    (2, 0.25, -3.4777800166068613e-07),
    (2, 0.3984, -0.00027483199731988066),
    (2, 0.5, -0.002455707361634588),
    (2, 1.0, -0.13736845603451964),
    (2, 1.75, -0.7026385462931852),
    (2, 1.999, -0.9313426705222063),
    (2, 2.0, -0.9322801851706592),
    (2, 2.5, -1.412672360807473),
    (2, 4.0, -2.901946967256816),
    (2, 8.0, -6.901387898890532),
    (2, 15.0, -13.901387711332045),
    (2, 40.0, -38.90138771133189),
    (2, 170.0, -168.9013877113319),
    (2, 700.0, -698.9013877113318),
    (2, 23026.0, -23024.901387711332),
    (2, 1000000.0, -999998.9013877113),
    (3, 0.4, -2.5089993495406915e-09),
    (3, 0.6, -9.661735630126739e-06),
    (3, 0.8, -0.000489278080544558),
    (3, 2.0, -0.26029682996302583),
    (3, 2.999, -0.8868312993898173),
    (3, 3.0, -0.8875626825023956),
    (3, 3.5, -1.2690917736827707),
    (3, 6.0, -3.416981268018388),
    (3, 10.0, -7.1256345919186685),
    (3, 45.0, -41.33740738846554),
    (3, 75.0, -71.07817512355021),
    (3, 170.0, -165.66586352367725),
    (3, 700.0, -694.9563551303926),
    (3, 23026.0, -23019.209127779905),
    (3, 1000000.0, -999991.3235444671),
    (7, 1.5, -1.9823548100509065e-10),
    (7, 2.0, -7.271315984444095e-07),
    (7, 3.0, -0.0012469578394882675),
    (7, 5.0, -0.1589077077021225),
    (7, 6.999, -0.8179008635382146),
    (7, 7.0, -0.8183481740262205),
    (7, 8.0, -1.311293172108624),
    (7, 12.0, -3.890360419532836),
    (7, 20.0, -10.299948131531785),
    (7, 60.0, -47.25919120183735),
    (7, 100.0, -85.92580167075711),
    (7, 300.0, -283.1237948226052),
    (7, 900.0, -880.3589603473638),
    (7, 23032.0, -23004.244586814362),
    (7, 1000000.0, -999962.8170623916),
    (40, 20.0, -1.1878102764373938e-09),
    (40, 25.0, -4.045632253314155e-05),
    (40, 30.0, -0.009251047581515218),
    (40, 35.0, -0.15817810223430634),
    (40, 39.9, -0.7267411475888204),
    (40, 40.0, -0.7440436645600087),
    (40, 40.1, -0.7615818998819631),
    (40, 44.0, -1.6266768413208543),
    (40, 50.0, -3.5878298384128784),
    (40, 70.0, -13.869780469991737),
    (40, 85.0, -23.780115402065626),
    (40, 120.0, -50.40655890087991),
    (40, 300.0, -210.52571126649832),
    (40, 1000.0, -886.5697354557337),
    (40, 23100.0, -22926.482759143968),
    (40, 1000000.0, -999754.8733832609),
    (300, 220.0, -5.401229931091477e-13),
    (300, 250.0, -1.6748329779038133e-05),
    (300, 280.0, -0.06256267659861493),
    (300, 290.0, -0.25734742961966756),
    (300, 299.9, -0.7053108693034805),
    (300, 300.0, -0.711454725376414),
    (300, 300.1, -0.7176333539801314),
    (300, 310.0, -1.5090056365958313),
    (300, 340.0, -6.180007638574548),
    (300, 400.0, -24.419375965704404),
    (300, 500.0, -72.35682226583201),
    (300, 800.0, -276.46226002369656),
    (300, 3000.0, -2251.545794657963),
    (300, 24000.0, -22933.5674445573),
    (300, 1000000.0, -998376.7337237316),
    (1000, 928.0, -0.0009800555786202434),
    (1000, 1000.0, -0.7031343082218052),
    (1000, 1024.0, -1.836649320519522),
    (1000, 1241.0, -43.40542333285825),
    (5000, 5000.0, -0.6976014187610847),
    (5000, 5538.0, -48.176547093879535),
    (131072, 130245.0, -0.0013120414690016946),
    (131072, 131072.0, -0.6940155998359411),
    (131072, 132175.0, -10.297362231420705),
]
# fmt: on


def test_exact_values() -> None:
    """Worst seen: half an ulp and 1.4e-13 to 40 strata, 9e-13 at 300, 2e-12 at 1000, 9e-12 at 5000,
    3e-10 at 131072.

    An error of log P is a relative error of P.
    """
    for m, x, log_p in EXACT:
        found = log_survival(np.array(x), m)
        limit = np.spacing(abs(log_p)) + 4e-13 * max(1.0, m / 100)
        assert abs(found - log_p) < limit, (m, x)
    assert min(log_p for _, _, log_p in EXACT) < -1e4 * math.log(10.0)


def test_critical_values() -> None:
    """Anderson and Darling 1954: 10, 5 and 1 %; to their digits."""
    p = np.exp(log_survival(np.array([1.933, 2.492, 3.878])))
    np.testing.assert_allclose(p, [0.1, 0.05, 0.01], rtol=5e-4)


@pytest.mark.parametrize("m", [1, 2, 3, 4, 6, 8, 10])
def test_table_of_scholz_and_stephens(m: int) -> None:
    """JASA 82, table 2, of m + 1 samples, an interpolation of theirs. Worst seen: 2.6 %, at 1 %."""
    b0 = np.array([0.675, 1.281, 1.645, 1.96, 2.326, 2.573, 3.085])
    b1 = np.array([-0.245, 0.25, 0.678, 1.149, 1.822, 2.364, 3.615])
    b2 = np.array([-0.105, -0.305, -0.362, -0.391, -0.396, -0.345, -0.154])
    sigma = math.sqrt(2 * m * (math.pi**2 - 9) / 3)
    p = np.exp(log_survival(m + sigma * (b0 + b1 / math.sqrt(m) + b2 / m), m))
    np.testing.assert_allclose(p, [0.25, 0.1, 0.05, 0.025, 0.01, 0.005, 0.001], rtol=0.04)


@pytest.mark.parametrize("m", [1, 2, 3, 17, 300])
def test_moments(m: int) -> None:
    """Integrals of P and of 2 x P, by Gauss's rule on pieces. Worst seen: 2e-14 and 1.4e-11."""
    top = m + 60 + 12 * math.sqrt(m)
    borders = np.linspace(0.0, top, 200)
    nodes, weights = np.polynomial.legendre.leggauss(30)
    half = np.diff(borders)[:, None] / 2
    x = borders[:-1, None] + half * (1 + nodes)
    p = np.exp(log_survival(x, m)) * half * weights
    mean = p.sum()
    variance = (2 * x * p).sum() - mean**2
    np.testing.assert_allclose(mean, m, rtol=1e-13)
    np.testing.assert_allclose(variance, 2 * m * (math.pi**2 - 9) / 3, rtol=1e-10)


def test_random_sums() -> None:
    """100,000 sums for three strata: within 4 standard errors. Worst seen: 1.7."""
    n, m = 100_000, 3
    rng = np.random.default_rng(11)
    z = np.full(n, m / 41.0)  # the mean of what is left out; its variance is below 1e-4
    for j in range(1, 41):
        z += rng.chisquare(m, n) / (j * (j + 1))
    for x in (1.0, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0, 9.0):
        p = math.exp(float(log_survival(np.array(x), m)))
        assert abs((z > x).mean() - p) < 4 * math.sqrt(p * (1 - p) / n), x


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("m", [1, 2, 3, 5, 16, 50, 100, 1000])
def test_the_rule_has_converged(m: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice as fine and four times as many terms change nothing.

    Worst seen, but for an ulp: the rule 7e-16; the table 3e-13, and with 1000 strata 3e-12.
    """
    x = m * np.concatenate([np.geomspace(0.05, 1e4, 150), 1 + np.linspace(-0.2, 0.2, 51)])
    log_p = anderson_darling._scaled(x, m) - x
    table = log_survival(x, m)
    monkeypatch.setattr(anderson_darling, "_FINE", anderson_darling._FINE / 2)
    monkeypatch.setattr(anderson_darling, "_TERMS", anderson_darling._TERMS * 4)
    limit = 2e-13 + 1e-14 * m + 4 * np.spacing(x)
    finer = anderson_darling._scaled(x, m) - x
    np.testing.assert_array_less(np.abs(log_p - finer), 1e-14 + 2 * np.spacing(x))
    np.testing.assert_array_less(np.abs(table - finer), limit)


@pytest.mark.parametrize("m", [1, 2, 7, 128, 300])
def test_no_steps_between_pieces(m: int) -> None:
    """Floats next to each other at each border. Worst seen: 2e-12, far out with 300 strata."""
    n = anderson_darling._table(m).shape[1]
    border = m * n / np.arange(1, n) - m
    around = np.stack([np.nextafter(border, 0), border, np.nextafter(border, np.inf)])
    log_p = log_survival(around, m)
    # P falls by no more than the slope, which is at most 1, and rounding.
    step = np.abs(np.diff(log_p, axis=0)).max(0)
    np.testing.assert_array_less(step, 6e-14 * max(1.0, m / 20) + 4 * np.spacing(border))


def test_edges() -> None:
    a2 = np.array([np.nan, -np.inf, -3.0, -0.0, 0.0, 1e-320, 1e-9, 1e300, 1.7e308, np.inf])
    expected = [np.nan, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1e300, -1.7e308, -np.inf]
    for m in (1, 2, 3, 40, M_MAX):
        with np.errstate(all="raise"):
            found = log_survival(a2, m)
        np.testing.assert_allclose(found, expected, rtol=1e-15, atol=1e-9 if m == M_MAX else 1e-13)
        assert (found[1:] <= 0).all()


@pytest.mark.parametrize("strata", [0, -1, [1, 0], M_MAX + 1, [3, 2**40]])
def test_strata_out_of_range(strata: int | list[int]) -> None:
    with pytest.raises(OptionError, match=f"from 1 to {M_MAX}.*found {np.min(strata)} to"):
        log_survival(np.ones(2), np.array(strata))


@pytest.mark.parametrize("strata", [1.0, [True, True], ["a", "b"]])
def test_strata_that_are_not_integers(strata: object) -> None:
    with pytest.raises(OptionError, match="must be integers"):
        log_survival(np.ones(2), np.array(strata))


@pytest.mark.parametrize(
    ("a2_shape", "strata_shape"),
    [((), ()), ((), (1,)), ((7,), ()), ((3, 5), ()), ((3, 5), (3, 1)), ((3, 5), (5,)),
     ((3, 5), (3, 5)), ((4, 3, 5), (3, 1)), ((4, 3, 5), (4, 1, 5)), ((4, 3, 5), (5,)), ((), (6,)),
     ((3, 5), (1, 1)), ((1, 5), (3, 1)), ((0,), ()), ((3, 0), (3, 1)), ((0, 4), (0, 1)),
     ((0,), (0,)), ((2, 40_000), (2, 1)), ((40_000,), ())],
)  # fmt: skip
def test_broadcasting(a2_shape: tuple[int, ...], strata_shape: tuple[int, ...]) -> None:
    """As one value at a time, to the bit; steps and neighbours do not matter."""
    rng = np.random.default_rng(2)
    strata = rng.integers(1, 5, strata_shape)
    a2 = rng.chisquare(3, a2_shape)
    kept = np.copy(a2)
    found = log_survival(a2, strata)
    np.testing.assert_array_equal(a2, kept)
    assert found.shape == np.broadcast_shapes(a2_shape, strata_shape)
    assert found.dtype == np.float64
    assert found.flags.c_contiguous
    a2, strata = np.broadcast_arrays(a2, strata)
    for at in rng.permutation(found.size)[:200]:
        assert found.flat[at] == log_survival(a2.flat[at], int(strata.flat[at]))


def test_layouts_and_types() -> None:
    a2 = np.random.default_rng(3).chisquare(2, (30, 20)).astype(np.float32)
    expected = log_survival(a2.astype(np.float64), np.arange(1, 31)[:, None])
    for given_ in (a2, np.asfortranarray(a2), np.repeat(a2, 2, 1)[:, ::2]):
        for dtype in (np.int32, np.uint64):
            found = log_survival(given_, np.arange(1, 31, dtype=dtype)[:, None])
            np.testing.assert_array_equal(found, expected)


A2 = st.one_of(st.floats(0, 30), st.floats(0, 1e5))


@given(A2, st.floats(0, 10), st.integers(1, 60))
def test_falls_with_a2_and_grows_with_strata(a2: float, step: float, m: int) -> None:
    values = np.array([a2, a2 + step])
    log_p, more = log_survival(values, m), log_survival(values, m + 1)
    rounding = 1e-12 + 4 * np.spacing(values)
    assert log_p[1] <= log_p[0] + rounding[1]
    assert log_p[0] <= 0
    assert (log_p <= more + rounding).all()
