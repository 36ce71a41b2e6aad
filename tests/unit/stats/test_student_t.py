"""The t distribution's tail: exact values, scipy's, and what holds of any tail."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pdex_gpu.stats.distributions import student_t
from pdex_gpu.stats.distributions.student_t import DF_MAX, DF_MIN, S_MAX, Y_MAX, survival

# df, t and P(T > t), computed with 50 digits from the continued fraction of the incomplete beta
# function; integrals of the density agree to 40 digits.
# fmt: off
EXACT = [
    (1.0, 0.5, 0.35241638234956674),
    (1.0, 2.25, 0.13312493874765657),
    (1.0, 9.0, 0.03522328747727727),
    (3.0, 0.5, 0.3257239824240755),
    (3.0, 2.25, 0.054969048198301264),
    (3.0, 9.0, 0.0014479060809320734),
    (10.5, 0.5, 0.3136936522944175),
    (10.5, 2.25, 0.02348891950465882),
    (10.5, 9.0, 1.4649803863629322e-06),
    (49.99, 0.5, 0.3096345024456729),
    (49.99, 2.25, 0.014440867744128182),
    (49.99, 9.0, 2.4653205084664845e-12),
    (50.0, 0.001, 0.49960304738775085),
    (50.0, 0.75, 0.22838471551689846),
    (50.0, 3.0, 0.0021008515935341237),
    (50.0, 5.66, 3.6763882831542915e-07),
    (50.0, 7.07, 2.331797409339824e-09),
    (50.0, 7.072, 2.3150629767771688e-09),
    (50.0, 10.61, 1.0556609052846827e-14),
    (61.25, 0.001, 0.49960268273209724),
    (61.25, 0.75, 0.2280630087610516),
    (61.25, 3.0, 0.0019501320182404751),
    (61.25, 6.26, 2.0982200364741178e-08),
    (61.25, 7.825, 4.29111093104244e-11),
    (61.25, 7.827, 4.257146763452814e-11),
    (61.25, 11.74, 1.2734721218440598e-17),
    (100.0, 0.001, 0.4996020538800517),
    (100.0, 0.75, 0.2275078202027898),
    (100.0, 3.0, 0.0017039576716647248),
    (100.0, 8.0, 1.1364324038640403e-12),
    (100.0, 9.999, 4.9759001969855724e-17),
    (100.0, 10.001, 4.925914999962717e-17),
    (100.0, 15.0, 1.2123669942305734e-27),
    (347.5, 0.001, 0.49960134469145545),
    (347.5, 0.75, 0.22688108780266625),
    (347.5, 3.0, 0.001447350216208257),
    (347.5, 14.91, 1.6429947729593566e-39),
    (347.5, 18.639, 1.531041205328779e-54),
    (347.5, 18.643, 1.4748543587691737e-54),
    (347.5, 27.96, 3.001047648965583e-91),
    (1000.0, 0.05, 0.48006618653597594),
    (1000.0, 1.5, 0.06696501941104309),
    (1000.0, 5.0, 3.3836281823243153e-07),
    (1000.0, 12.0, 2.1620286933872636e-31),
    (1000.0, 22.0, 4.229162163213927e-88),
    (1000.0, 30.0, 7.687343722021741e-142),
    (1000.0, 54.56, 2.4947243889627465e-302),
    (1000.0, 54.58, 1.8959489061867124e-302),
    (3000.0, 0.05, 0.480062858425568),
    (3000.0, 1.5, 0.06685981430224963),
    (3000.0, 5.0, 3.03126357190883e-07),
    (3000.0, 12.0, 9.704785017110085e-33),
    (3000.0, 22.0, 7.156490340203139e-100),
    (3000.0, 30.0, 1.841683249662423e-173),
    (3000.0, 41.85, 3.351115189159753e-302),
    (3000.0, 41.87, 1.9748365513391122e-302),
    (40000.5, 0.05, 0.48006131898468396),
    (40000.5, 1.5, 0.0668111474391492),
    (40000.5, 5.0, 2.878615686839455e-07),
    (40000.5, 12.0, 2.0252923832922558e-33),
    (40000.5, 22.0, 6.190114697259011e-107),
    (40000.5, 30.0, 7.274049249706684e-196),
    (40000.5, 37.46, 3.5098286279784964e-302),
    (40000.5, 37.48, 1.7007409331459827e-302),
    (1000000.0, 0.05, 0.4800611991546272),
    (1000000.0, 1.5, 0.06680735911839639),
    (1000000.0, 5.0, 2.866998935445371e-07),
    (1000000.0, 12.0, 1.785842562382545e-33),
    (1000000.0, 22.0, 1.5270766458279608e-107),
    (1000000.0, 30.0, 6.010047116831719e-198),
    (1000000.0, 37.15, 3.529861744676131e-302),
    (1000000.0, 37.17, 1.6795851935560924e-302),
    (10000000.0, 0.05, 0.48006119466092756),
    (10000000.0, 1.5, 0.06680721705381472),
    (10000000.0, 5.0, 2.8665640375042696e-07),
    (10000000.0, 12.0, 1.7774160254673176e-33),
    (10000000.0, 22.0, 1.4483845021071498e-107),
    (10000000.0, 30.0, 5.0073068454089e-198),
    (10000000.0, 37.14, 3.334001080307607e-302),
    (10000000.0, 37.16, 1.5852436706390215e-302),
    (10000000000.0, 0.05, 0.48006119416212684),
    (10000000000.0, 1.5, 0.06680720128464303),
    (10000000000.0, 5.0, 2.8665157671103237e-07),
    (10000000000.0, 12.0, 1.7764830457548404e-33),
    (10000000000.0, 22.0, 1.4399009025657448e-107),
    (10000000000.0, 30.0, 4.90681350979029e-198),
    (10000000000.0, 37.14, 3.179070876409367e-302),
    (10000000000.0, 37.16, 1.5114228604163634e-302),
    (200.0, -1.25, 0.8936198956460282),
    (200.0, -8.0, 0.9999999999999506),
    (5.0, -3.0, 0.9849503760512687),
    (100000.0, 0.0, 0.5),
]
# fmt: on


def exponent(df: Any, t: Any) -> Any:
    """u**2, which is how much larger a relative error of t is in P."""
    return (df - 0.5) * np.log1p(np.square(t) / df)


def fast(df: Any, t: Any) -> Any:
    """Where no value should come from stdtr."""
    u2 = exponent(df, t)
    return (df >= DF_MIN) & (df <= DF_MAX) & (u2 <= S_MAX * (df - 0.5)) & (u2 <= 2 * Y_MAX)


def largest_fast(df: float) -> float:
    """The last t of the region."""
    low, high = 0.0, 1e6
    while np.nextafter(low, high) < high:
        middle = (low + high) / 2
        low, high = (middle, high) if fast(df, middle) else (low, middle)
    return low


def test_exact_values() -> None:
    """Worst seen: 5e-16 where u**2 is below 4, then 1e-16 times u**2; stdtr's, 1.6e-16 times."""
    df, t, p = np.array(EXACT).T
    assert 60 <= fast(df, t).sum() < len(df)
    error = np.abs(survival(df, t) / p - 1)
    np.testing.assert_array_less(error, 1e-15 + 3.5e-16 * exponent(df, t))


def test_scipy() -> None:
    """stdtr's bits outside of the region; worst seen inside, 1.8e-15, or 4.2e-16 times u**2."""
    rng = np.random.default_rng(5)
    df = np.exp(rng.uniform(0, np.log(1e7), 200_000))
    df = np.where(rng.random(len(df)) < 0.5, np.round(df), df)
    t = rng.normal(0, 1, len(df)) * np.exp(rng.uniform(-3, 4, len(df)))
    found, truth, inside = survival(df, t), special.stdtr(df, -t), fast(df, t)
    assert 0.5 < inside.mean() < 0.9
    np.testing.assert_array_equal(found[~inside], truth[~inside])
    error = np.abs(found[inside] / truth[inside] - 1)
    np.testing.assert_array_less(error, 4e-15 + 7e-16 * exponent(df, t)[inside])


def test_stdtr_is_not_called_in_the_region(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("stdtr was called")

    monkeypatch.setattr(student_t.special, "stdtr", refuse)
    df = np.array([[DF_MIN], [100.0], [3000.5], [DF_MAX]])
    t = np.linspace(-7, 7, 101)
    assert np.isfinite(survival(df, t)).all()
    with pytest.raises(AssertionError, match="was called"):
        survival(df, np.full(4, 1e3))


@pytest.mark.parametrize("df", [DF_MIN, 64.5, 333.0, 1990.0, 2000.0, 50_000.0, 1e9])
def test_no_step_at_the_border_in_t(df: float) -> None:
    """Worst seen: 2.8e-16 times u**2 off a smooth curve, and a step of 1.1e-17 times u**2."""
    last = largest_fast(df)
    t = last * (1 + np.arange(-200, 201) * 1e-9)
    inside = fast(df, t)
    assert 200 <= inside.sum() <= 201
    p = survival(np.array(df), t)
    log = np.log(p / p[200])
    # So close, it is quadratic in t; what is left is rounding errors.
    rest = log - np.polynomial.Polynomial.fit(t, log, 2)(t)
    limit = 1e-15 + 7e-16 * exponent(df, last)
    assert np.abs(rest).max() < limit
    assert abs(rest[inside].mean() - rest[~inside].mean()) < limit / 5


@pytest.mark.parametrize("border", [DF_MIN, DF_MAX])
def test_no_step_at_the_borders_in_df(border: float) -> None:
    """Worst seen: 9.2e-15 at df 50, and 3e-13, near P of 1e-300, at df 1e10."""
    t = np.linspace(-7, min(np.sqrt(border), 37.0), 500)
    below, at, above = (
        survival(np.array(df), t)
        for df in (np.nextafter(border, 0), border, np.nextafter(border, np.inf))
    )
    tolerance = 4e-15 + 7e-16 * exponent(border, t)
    np.testing.assert_array_less(np.abs(below / at - 1), tolerance)
    np.testing.assert_array_less(np.abs(above / at - 1), tolerance)


def test_edges_are_those_of_stdtr() -> None:
    df = [np.nan, np.inf, -np.inf, -60.0, -1.0, 0.0, 0.3, 1.0, 49.9, 50.0, 99.0, 1e10, 1e11, 1e308]
    t = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-320, 1e200, -1e200, 1e308, -60.0, 3e5]
    df, t = np.array(df)[:, None], np.array(t)
    with np.errstate(all="raise"):
        found = survival(df, t)
    np.testing.assert_array_equal(found, special.stdtr(df, -t))


@pytest.mark.parametrize(
    ("df_shape", "t_shape"),
    [((), (7,)), ((), ()), ((3, 1), (3, 5)), ((3, 5), (3, 5)), ((5,), (3, 5)), ((4, 3, 1), (3, 5)),
     ((3, 1), (3, 0)), ((0,), (0,)), ((7,), ()), ((300, 1), (300, 120)), ((1, 1), (1, 40_000))],
)  # fmt: skip
def test_broadcasting(df_shape: tuple[int, ...], t_shape: tuple[int, ...]) -> None:
    """As one pair at a time, to the bit; steps and neighbours do not matter."""
    rng = np.random.default_rng(2)
    df, t = rng.uniform(30, 200, df_shape), rng.normal(0, 5, t_shape)
    found = survival(df, t)
    assert found.shape == np.broadcast_shapes(df_shape, t_shape)
    assert found.dtype == np.float64
    df, t = np.broadcast_arrays(df, t)
    for at in rng.permutation(found.size)[:300]:
        assert found.flat[at] == survival(df.flat[[at]], t.flat[[at]])[0]


def test_in_place() -> None:
    rng = np.random.default_rng(3)
    df, t = rng.uniform(30, 500, (300, 1)), rng.normal(0, 8, (300, 120))
    expected, kept = survival(df, t), t.copy()
    assert fast(df, t).mean() < 1
    out = np.empty_like(t)
    assert survival(df, t, out=out) is out
    np.testing.assert_array_equal(out, expected)
    np.testing.assert_array_equal(t, kept)
    survival(df, t, out=t)
    np.testing.assert_array_equal(t, expected)
    strided = survival(df, np.asfortranarray(kept)), survival(df, np.repeat(kept, 2, 1)[:, ::2])
    np.testing.assert_array_equal(strided, [expected, expected])
    np.testing.assert_array_equal(
        survival(np.array(100), np.arange(5)), survival(100.0, np.arange(5.0))
    )
    with pytest.raises(ValueError, match="copy"):
        survival(df, kept, out=np.empty((120, 300)).T)


DF = st.one_of(st.floats(1, 1e11), st.floats(40, 5000), st.integers(1, 10**6).map(float))


@given(DF, st.floats(-60, 60), st.floats(0, 10))
def test_falls_with_t(df: float, t: float, step: float) -> None:
    p = survival(np.array(df), np.array([t, t + step]))
    assert 0 <= p[1] <= p[0] * (1 + 4e-15 + 7e-16 * exponent(df, t + step))
    assert p[0] <= 1


@given(DF, st.floats(-60, 60))
def test_both_tails_make_one(df: float, t: float) -> None:
    """Worst seen: none, as one tail is 1 less the other."""
    p = survival(np.array(df), np.array([t, -t]))
    assert abs(p.sum() - 1) < 1e-15
    if t == 0:
        assert p[0] == 0.5


def test_the_series_known_terms() -> None:
    """g is 1 - s**2/48 + s**4/2560 ..., and C is 1 + 1/16 a**-2 - 19/512 a**-4 ..."""
    series = np.sqrt(np.pi) * np.array([terms[:2] for terms in student_t._SERIES[:4]])
    assert series[0] == pytest.approx([float(Fraction(-1, 48)), float(Fraction(1, 2560))], 1e-15)
    assert series[1, 0] == pytest.approx(-1 / 16, 1e-15)
    assert series[3, 0] == pytest.approx(19 / 512, 1e-15)


def test_erfcx() -> None:
    """Worst seen: 1e-15, each within 8e-16 of the truth."""
    x = np.linspace(0, 27, 50_001)
    out, spare = np.empty_like(x), np.empty_like(x)
    student_t._erfcx(x, out, spare)
    np.testing.assert_allclose(out, special.erfcx(x), rtol=2e-15)
