"""Logarithms of tails: exact values, those of the plain functions, and what holds of any tail."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from pdex_gpu.stats.distributions import log_tails
from pdex_gpu.stats.distributions.log_tails import (
    FAR_BELOW,
    log10_kolmogorov,
    log10_normal,
    log10_of,
    log10_student_t,
)

# z, or df and t, or x, and log10 of the tail beyond, computed with 60 digits: erfc; the integral
# that the incomplete beta function is, by tanh-sinh quadrature; the series in x or in 1 / x.
# fmt: off
NORMAL = [
    (-9.0, -4.901397170457401e-20),
    (-3.0, -0.0005866493137900667),
    (-1.0, -0.07502601295781802),
    (-0.5, -0.16023139227784902),
    (0.0, -0.3010299956639812),
    (0.25, -0.39653768609432066),
    (1.0, -0.7995455414919705),
    (1.0001, -0.7996117790145756),
    (2.5, -2.206931805795301),
    (5.0, -6.5426456723906545),
    (12.0, -32.75043916119186),
    (30.0, -197.30920926166095),
    (36.3, -288.09207345352775),
    (36.5, -291.25611993269683),
    (37.6, -308.9686677966415),
    (40.0, -349.43700645934587),
    (75.5, -1240.070673275601),
    (150.0, -4888.388121904651),
    (214.6, -10003.047360185363),
    (1000.0, -217150.6400419944),
    (100000.0, -2171472414.915349),
]
STUDENT_T = [
    (0.3, -1.5, -0.15874306606907243),
    (0.3, 1.04522, -0.4714666428574828),
    (0.3, 11800.3, -1.6781198356750826),
    (0.3, 2.5423e+26, -8.378119960268466),
    (1.0, -1.5, -0.08999869523064728),
    (1.0, 0.764783, -0.5343540126967375),
    (1.0, 19.9275, -1.7969668435679804),
    (1.0, 100000000.0, -8.497149872694134),
    (1.0, 1e+100, -100.49714987269414),
    (1.0, 1e+288, -288.49714987269414),
    (1.0, 1e+293, -293.49714987269414),
    (2.5, -1.5, -0.05745535490087082),
    (2.5, 0.711099, -0.5706030798142007),
    (2.5, 4.99119, -1.9290868466603717),
    (2.5, 2505.94, -8.640492798166639),
    (2.5, 1.58114e+40, -100.64049177321759),
    (2.5, 2.50594e+115, -288.6404926300741),
    (2.5, 2.50594e+117, -293.6404926300741),
    (2.5, 1.58114e+280, -700.6404917732176),
    (5.0, -1.5, -0.04428908799007257),
    (5.0, 0.694544, -0.5864616418320199),
    (5.0, 3.39949, -2.016335276998791),
    (5.0, 88.9914, -8.77005370878063),
    (5.0, 2.23607e+20, -100.77015310883118),
    (5.0, 8.90195e+57, -288.77015188707367),
    (5.0, 8.90195e+58, -293.77015188707367),
    (5.0, 2.23607e+140, -700.7701531088312),
    (11.0, -1.5, -0.03662731508822291),
    (11.0, 0.685779, -0.5959804370639744),
    (11.0, 2.82071, -2.0797066620915468),
    (11.0, 17.3863, -8.923086257990102),
    (11.0, 4088890000.0, -100.92964307336266),
    (11.0, 5.04097e+26, -288.9296386150516),
    (11.0, 1.43569e+27, -293.92965080308215),
    (11.0, 1.43569e+64, -700.9296508030822),
    (11.0, 1.76998e+273, -3000.9296353231935),
    (30.0, -1.5, -0.0324674511331458),
    (30.0, 0.681227, -0.6012330417070051),
    (30.0, 2.57408, -2.1182798969737657),
    (30.0, 8.51096, -9.071479241928452),
    (30.0, 11800.3, -101.14124300827189),
    (30.0, 21805200000.0, -289.14125242502723),
    (30.0, 32005700000.0, -294.1412700961762),
    (30.0, 1.18003e+24, -701.1412416486367),
    (30.0, 5.47723e+100, -3001.1412795386523),
    (49.9, -1.5, -0.03149729259873294),
    (49.9, 0.680183, -0.6024663893026682),
    (49.9, 2.52203, -2.1276883205408086),
    (49.9, 7.38308, -9.11653670273515),
    (49.9, 712.914, -101.25030402766687),
    (49.9, 4174390.0, -289.2502990390245),
    (49.9, 5257680.0, -294.250335355158),
    (49.9, 753540000000000.0, -701.2503121822015),
    (49.9, 9.31731e+60, -3001.2503054835047),
    (49.9, 1.69751e+201, -10000.250343107082),
    (50.0, -1.5, -0.031494362453930544),
    (50.0, 0.68018, -0.6024701976331062),
    (50.0, 2.52188, -2.127721700918922),
    (50.0, 7.38003, -9.116690267555027),
    (50.0, 707.071, -101.25071233382083),
    (50.0, 4068970.0, -289.2507205490393),
    (50.0, 5122540.0, -294.2507640721679),
    (50.0, 707107000000000.0, -701.2507529836587),
    (50.0, 7.07107e+60, -3001.250752983659),
    (50.0, 6.75282e+200, -10000.250754831892),
    (100.0, -1.5, -0.03076237558962047),
    (100.0, 0.679396, -0.6034026737984257),
    (100.0, 2.48386, -2.134930828224999),
    (100.0, 6.67413, -9.153666960864896),
    (100.0, 99.4987, -101.39801735714366),
    (100.0, 7585.77, -289.4001800971188),
    (100.0, 8511.37, -294.40015235866963),
    (100.0, 100000000.0, -701.4001756522906),
    (100.0, 1e+31, -3001.4001756522903),
    (100.0, 9.77237e+100, -10000.400165832782),
    (301.5, -1.5, -0.03027217974304044),
    (301.5, 0.678873, -0.6040282306544096),
    (301.5, 2.45897, -2.1398027848014927),
    (301.5, 6.25994, -9.179885406038245),
    (301.5, 32.9741, -101.5863055553653),
    (301.5, 155.662, -289.6365287077171),
    (301.5, 161.795, -294.6367753645297),
    (301.5, 3642.2, -701.6391965148313),
    (301.5, 154843000000.0, -3001.638841195173),
    (301.5, 2.53409e+34, -10000.638874326307),
    (1000.0, -1.5, -0.030102073732628236),
    (1000.0, 0.678692, -0.6042455809611488),
    (1000.0, 2.45044, -2.1415046973168748),
    (1000.0, 6.12604, -9.189235992919334),
    (1000.0, 24.1846, -101.68370591500623),
    (1000.0, 52.6026, -289.8321052048601),
    (1000.0, 53.4302, -294.83428868445395),
    (1000.0, 155.302, -701.8890712319068),
    (1000.0, 31622.8, -3001.8997367808142),
    (1000.0, 315500000000.0, -10000.898562087934),
    (20000.0, -1.5, -0.030032294256876858),
    (20000.0, 0.678618, -0.6043348786538754),
    (20000.0, 2.44696, -2.1422085213365527),
    (20000.0, 6.0725, -9.193118336833905),
    (20000.0, 21.5838, -101.72927286896032),
    (20000.0, 37.0304, -289.95296679617024),
    (20000.0, 37.3614, -294.9575817677577),
    (20000.0, 59.1435, -702.1365872640455),
    (20000.0, 141.086, -3002.400026349336),
    (20000.0, 424.21, -10001.530431712295),
    (1000000.0, -1.5, -0.0300286946930225),
    (1000000.0, 0.678614, -0.604339383961829),
    (1000000.0, 2.44678, -2.142243972625663),
    (1000000.0, 6.06976, -9.193320356602236),
    (1000000.0, 21.4621, -101.73130996754841),
    (1000000.0, 36.4303, -289.96012175563214),
    (1000000.0, 36.7454, -294.96406557378333),
    (1000000.0, 56.8227, -702.1527556828931),
    (1000000.0, 117.947, -3002.4911679163515),
    (1000000.0, 217.08, -10001.725832710392),
    (1000000000.0, -1.5, -0.030028621305576562),
    (1000000000.0, 0.678614, -0.6043395209454614),
    (1000000000.0, 2.44678, -2.142249116779706),
    (1000000000.0, 6.06971, -9.193340271005553),
    (1000000000.0, 21.4597, -101.73199878682132),
    (1000000000.0, 36.4183, -289.9613184959821),
    (1000000000.0, 36.733, -294.9639275209874),
    (1000000000.0, 56.777, -702.1541352308781),
    (1000000000.0, 117.54, -3002.479207440755),
    (1000000000.0, 214.588, -10001.698747499044),
    (1000000000000.0, -1.5, -0.03002862123218911),
    (1000000000000.0, 0.678614, -0.604339521082445),
    (1000000000000.0, 2.44678, -2.1422491219238795),
    (1000000000000.0, 6.06971, -9.193340426126799),
    (1000000000000.0, 21.4597, -101.73202188960344),
    (1000000000000.0, 36.4183, -289.96150957907497),
    (1000000000000.0, 36.733, -294.96412528990004),
    (1000000000000.0, 56.7769, -702.1527965160477),
    (1000000000000.0, 117.539, -3002.4488627621636),
    (1000000000000.0, 214.586, -10001.74234984975),
]
KOLMOGOROV = [
    (0.15, -1.1166662121044012e-23),
    (0.2, -2.1933640385486605e-13),
    (0.3, -4.041476973910275e-06),
    (0.45, -0.005502203372561851),
    (0.6, -0.06334414028906593),
    (0.75, -0.20261677231148834),
    (0.82, -0.29075404014191353),
    (0.9, -0.4059051395552109),
    (1.0, -0.568636763947679),
    (1.2, -0.9498149399752381),
    (1.6276, -1.9999332396050025),
    (2.5, -5.1276510281266665),
    (7.0, -42.2598292308547),
    (15.0, -195.13148686079933),
    (18.2, -287.41037837560225),
    (18.4, -293.76844959066585),
    (40.0, -1389.4413120947418),
    (107.3, -10000.015601108116),
    (500.0, -217146.93992163026),
    (10000.0, -86858896.07962038),
]
# fmt: on


def check(found: np.ndarray, log10_p: np.ndarray, relative: float) -> None:
    counts = np.abs(log10_p) > 1e-3
    error = np.abs(found - log10_p)
    np.testing.assert_array_less(error[counts], relative * np.abs(log10_p[counts]))
    np.testing.assert_array_less(error[~counts], 1e-15)


def test_normal() -> None:
    """Worst seen: 2.8e-16, and 1.2e-15 on 700 random values."""
    z, log10_p = np.array(NORMAL).T
    check(log10_normal(z), log10_p, 4e-15)


def test_student_t() -> None:
    """Worst seen: 1.5e-15."""
    df, t, log10_p = np.array(STUDENT_T).T
    assert (log10_p < math.log10(FAR_BELOW)).sum() > 40
    check(log10_student_t(df, t), log10_p, 4e-15)


def test_kolmogorov() -> None:
    """Worst seen: 3.2e-15."""
    x, log10_p = np.array(KOLMOGOROV).T
    check(log10_kolmogorov(x), log10_p, 1e-14)


def test_one_and_two_degrees_of_freedom() -> None:
    """An arc tangent, also of small t, where scipy's is off by 2e-9; a root. Worst seen: 7e-16."""
    t = np.geomspace(1e-12, 1e307, 800)
    log10_p = log10_student_t(np.array(1.0), t)
    near = np.log10(0.5 - np.arctan(t[t < 1]) / np.pi)
    np.testing.assert_allclose(log10_p[t < 1], near, rtol=2e-15)
    np.testing.assert_allclose(log10_p, np.log10(np.arctan(1 / t) / np.pi), rtol=2e-15)
    # (1 - t / sqrt(2 + t**2)) / 2
    t = t[t < 1e150]
    expected = -np.log10(2 + t**2 + t * np.sqrt(2 + t**2))
    np.testing.assert_allclose(log10_student_t(np.array(2.0), t), expected, rtol=2e-15)


def test_all_of_the_far_formula() -> None:
    """Where P is small but has not underflowed, stdtr is right too. Worst seen: 3.4e-16."""
    df = np.array([0.5, 1.0, 4.0, 20.0, 23.9, 24.1, 49.0, 60.0, 500.0, 1e4, 1e6, 1e9])[:, None]
    # log(1 + t**2 / df) * df / 2 is 400, or less for the first ones
    t = np.sqrt(df) * np.exp(np.log(np.expm1(np.minimum(800 / df, 600.0))) / 2) * np.ones(2)
    found = log_tails._student_t_far(df.repeat(2, 1).reshape(-1), t.reshape(-1))
    np.testing.assert_allclose(found, np.log10(special.stdtr(df, -t)).reshape(-1), rtol=2e-15)


@pytest.mark.parametrize("df", [2.0, 7.5, 60.0, 2000.0, 1e6, 1e9])
def test_no_step_where_p_underflows(df: float) -> None:
    """Neighbours on both sides of FAR_BELOW. Worst seen: 2.3e-13, rounding."""
    low, high = 1.0, 1e150
    while np.nextafter(low, high) < high:
        middle = math.sqrt(low) * math.sqrt(high)
        if middle in (low, high):
            break
        above = 10 ** float(log10_student_t(np.array(df), np.array(middle))) > FAR_BELOW
        low, high = (middle, high) if above else (low, middle)
    t = low * (1 + np.arange(-100, 101) * 1e-12)
    log10_p = log10_student_t(np.array(df), t)
    # So close, it is linear in t.
    rest = log10_p - np.polynomial.Polynomial.fit(t, log10_p, 1)(t)
    assert np.abs(rest).max() < 4e-13


def test_edges_of_the_normal() -> None:
    z = np.array([np.inf, -np.inf, np.nan, 0.0, 1e200, -1e200, -40.0])
    with np.errstate(all="raise"):
        found = log10_normal(z)
    expected = [-np.inf, 0.0, np.nan, math.log10(0.5), -np.inf, 0.0, 0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_edges_of_student_t() -> None:
    df = [5, 5, 5, 5, 0.5, np.inf, np.inf, np.inf, np.inf, np.inf, 0, -1, np.nan, 100, 1e-300]
    t = [np.nan, np.inf, -np.inf, 0, np.inf, np.inf, -np.inf, 2, 50, -50, 3, 3, 3, -1e200, 5]
    with np.errstate(all="raise"):
        found = log10_student_t(np.array(df), np.array(t))
    two, fifty = log10_normal(np.array([2.0, 50.0]))
    half, nan, inf = math.log10(0.5), np.nan, np.inf
    expected = [nan, -inf, 0, half, -inf, -inf, 0, two, fifty, 0, nan, nan, nan, 0, half]
    np.testing.assert_allclose(found, expected, rtol=1e-15)


def test_many_degrees_of_freedom_are_the_normal() -> None:
    """Also where df * df leaves the range of floats. Worst seen: 1.2e-13, stdtr's."""
    z = np.array([37.0, 50.0, 150.0])
    for df in (1e17, 1e100, 1e200, 1e307):
        found = log10_student_t(np.array(df), z)
        np.testing.assert_allclose(found, log10_normal(z), rtol=1e-12)


def test_edges_of_kolmogorov() -> None:
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -1.0, 1e200, 1e-3, 1e-320])
    with np.errstate(all="raise", under="ignore"):
        found = log10_kolmogorov(x)
    np.testing.assert_array_equal(found, [-np.inf, 0.0, np.nan, 0.0, 0.0, -np.inf, 0.0, 0.0])


def test_log10_of_asks_for_what_underflowed() -> None:
    p = np.array([[0.5, 0.0, FAR_BELOW], [np.nan, 1e-320, np.nextafter(FAR_BELOW, 1)]])
    asked = []

    def far(mask: np.ndarray) -> np.ndarray:
        asked.append(mask.copy())
        return np.array([-1.0, -2.0, -3.0])

    with np.errstate(all="raise"):
        found = log10_of(p, far)
    np.testing.assert_array_equal(asked, [[False, True, True, False, True, False]])
    border = np.log10(np.nextafter(FAR_BELOW, 1))
    np.testing.assert_array_equal(found, [[np.log10(0.5), -1, -2], [np.nan, -3, border]])
    # C order, whatever the layout
    np.testing.assert_array_equal(log10_of(np.asfortranarray(p), far), found)
    wide = np.repeat(p, 2, axis=1)[:, ::2]
    np.testing.assert_array_equal(log10_of(wide, far), found)
    assert all(mask.tolist() == asked[0].tolist() for mask in asked)


@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (4,), (2, 1, 3)])
def test_log10_of_leaves_the_slow_way_alone(shape: tuple[int, ...]) -> None:
    def far(mask: np.ndarray) -> Any:
        raise AssertionError("nothing had underflowed")

    p = np.random.default_rng(1).random(shape) + 1e-289
    before = np.copy(p)
    found = log10_of(p, far)
    assert isinstance(found, np.ndarray)
    assert found.shape == shape
    np.testing.assert_array_equal(found, np.log10(p))
    np.testing.assert_array_equal(p, before)


def test_log10_of_one_value() -> None:
    found = log10_of(np.array(0.0), lambda mask: np.full(mask.sum(), -400.0))
    assert found.shape == ()
    assert found == -400.0


@pytest.mark.parametrize(
    ("df_shape", "t_shape"),
    [((), ()), ((), (7,)), ((3, 1), (3, 50)), ((50,), (3, 50)), ((4, 3, 1), (3, 5)), ((0,), (0,)),
     ((3, 1), (3, 0)), ((7,), ())],
)  # fmt: skip
def test_broadcasting(df_shape: tuple[int, ...], t_shape: tuple[int, ...]) -> None:
    """As one pair at a time, to the bit, with values of both tails and of the far one."""
    rng = np.random.default_rng(4)
    df, t = rng.uniform(1, 4000, df_shape), rng.normal(0, 60, t_shape)
    found = log10_student_t(df, t)
    assert found.shape == np.broadcast_shapes(df_shape, t_shape)
    assert found.dtype == np.float64
    df, t = np.broadcast_arrays(df, t)
    for at in range(found.size):
        assert found.flat[at] == log10_student_t(df.flat[at], t.flat[at])
    for function in (log10_normal, log10_kolmogorov):
        log10_p = function(np.abs(t) / 2)
        assert log10_p.shape == t.shape
        for at in range(0, t.size, 7):
            assert log10_p.flat[at] == function(np.abs(t.flat[at]) / 2)


@given(st.floats(0.5, 1e7), st.floats(-50, 500), st.floats(0, 50))
def test_tails_fall(df: float, t: float, step: float) -> None:
    """Worst seen: none beyond rounding. A normal tail is the lighter one where t is large."""
    values = np.array([t, t + step])
    student = log10_student_t(np.array(df), values)
    for log10_p in (student, log10_normal(values), log10_kolmogorov(values)):
        assert log10_p[1] <= log10_p[0] + 2e-13
        assert (log10_p <= 0).all()
    assert t < 0 or (student >= log10_normal(values) * (1 + 1e-12) - 2e-13).all()
