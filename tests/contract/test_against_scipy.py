"""Statistics and p-values of float64 input against scipy, one call a pair.

Worst relative errors seen, with scipy 1.17 and 1.18: Wilcoxon p 4e-16, its exact method 2e-14
(of scipy's sums), t 3.4e-13 (means of 100 that differ by 0.1), its p 4.9e-13, A2 1.7e-15,
normalised 2.1e-13, its p 2.6e-15.
"""

from __future__ import annotations

import itertools
import warnings
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats
from screens import KERNEL_SETS, as_anndata, backend_of

from pdex_gpu import differential_expression
from pdex_gpu.stats.two_sample.anderson_darling import _sigma

# Ranks and moments are compared, of values on any scale.
pytestmark = pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")

SIZES = [40, 1, 2, 5, 8, 9, 30]  # the reference first; exact by rule up to 8 cells
CODES = np.repeat(np.arange(len(SIZES)), SIZES)


@pytest.fixture(params=KERNEL_SETS)
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    return backend_of(request.param, monkeypatch)


def screen() -> np.ndarray:
    """Genes of many kinds; exactly representable where they are constant."""
    rng = np.random.default_rng(1)
    n = len(CODES)
    shift = np.array([0.0, 1.0, 2.0, -1.0, 1.5, 0.2, 3.0])[CODES]
    counts = rng.poisson(1.0, (n, 4)) * (rng.random((n, 4)) < 0.7)
    genes = [
        *counts.T,
        *np.log1p(counts * rng.lognormal(0, 0.2, (n, 1))).T,
        *(rng.normal(0, 1, (6, n)) + shift),  # no ties
        *rng.normal(100, 1, (2, n)),
        *rng.integers(-2, 3, (3, n)),
        *(rng.normal(0, 1, (2, n)) * 1e150 + shift * 1e150),
        *(rng.normal(1, 1, (2, n)) * 1e-150),
        np.zeros(n),
        np.full(n, 2.5),
        np.where(CODES == 0, 3.0, 2.0),  # each group constant, and different
        np.where(CODES == 0, 3.0, rng.normal(0, 1, n)),
        np.where(CODES == 0, rng.normal(0, 1, n), 3.0),
        np.where(np.arange(n) == 3, 7.0, 0.0),
        np.arange(n)[::-1] * 1.0,  # the reference above all others
        np.arange(n) * 1.0,
        rng.integers(0, 2**53, n).astype(np.float64),
    ]
    return np.stack(genes, axis=1).astype(np.float64)


X = screen()


def run(backend: str, matrix: np.ndarray, codes: np.ndarray, metric: str, **options: Any):
    result = differential_expression(
        as_anndata(matrix, codes), "group", reference="ref", metric=metric, backend=backend,
        engine="auto" if backend == "cuda" else "serial", is_log1p=False, progress=False, **options,
    )  # fmt: skip
    assert result.provenance["backend"] == backend, "the kernel set was not used"
    return result["statistic"], result["p_value"]


def by_scipy(function: Any, matrix: np.ndarray, codes: np.ndarray) -> tuple[Any, Any]:
    """``function(target, reference)`` on every pair; a pair it refuses is NaN and 1."""
    n_groups = codes.max() + 1
    statistic, p_value = (np.full((n_groups - 1, matrix.shape[1]), np.nan) for _ in range(2))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")  # capped p-values, samples of one cell
        for g, j in itertools.product(range(1, n_groups), range(matrix.shape[1])):
            try:
                found = function(matrix[codes == g, j], matrix[codes == 0, j])
            except ValueError:
                continue
            statistic[g - 1, j], p_value[g - 1, j] = found.statistic, found.pvalue
    return statistic, np.where(np.isnan(p_value), 1.0, p_value)


@cache
def mannwhitneyu(**options: Any) -> tuple[Any, Any]:
    return by_scipy(lambda x, y: stats.mannwhitneyu(x, y, **options), X, CODES)


@cache
def ttest_ind(**options: Any) -> tuple[Any, Any]:
    # Squares of variances of 1e150 and of 1e-150 are beyond scipy, whose df are NaN there.
    scale = np.abs(X).max(axis=0)
    extreme = (scale > 1e100) | ((scale > 0.0) & (scale < 1e-100))
    assert extreme.sum() == 4
    x = X / 2.0 ** np.where(extreme, np.frexp(scale)[1], 0)
    return by_scipy(lambda x, y: stats.ttest_ind(x, y, **options), x, CODES)


def check(what: str, found: np.ndarray, expected: np.ndarray, rtol: float, atol: float = 0) -> None:
    np.testing.assert_allclose(found, expected, rtol=rtol, atol=atol, err_msg=what)


# --- Wilcoxon --------------------------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
@pytest.mark.parametrize("use_continuity", [True, False])
@pytest.mark.parametrize("method", ["auto", "asymptotic", "exact"])
def test_wilcoxon(backend: str, alternative: str, use_continuity: bool, method: str) -> None:
    options = {"alternative": alternative, "use_continuity": use_continuity, "method": method}
    u, p = run(backend, X, CODES, "wilcoxon", p_values="asymptotic", **options)
    expected_u, expected_p = mannwhitneyu(**options)
    np.testing.assert_array_equal(u, expected_u)
    check("Wilcoxon p", p, expected_p, rtol=1e-12)
    assert (p[:, :4] > 0).all()


def test_wilcoxon_is_exact_by_rule(backend: str) -> None:
    """Where one side has at most 8 cells and nothing is tied, and nowhere else."""
    found = {
        m: run(backend, X, CODES, "wilcoxon", p_values="asymptotic", method=m)[1]
        for m in ("auto", "asymptotic", "exact")
    }
    distinct = np.array([len(np.unique(column)) == len(column) for column in X.T])
    assert 8 < distinct.sum() < X.shape[1]
    small = np.array(SIZES[1:]) <= 8
    exact = small[:, None] & distinct
    np.testing.assert_array_equal(found["auto"][exact], found["exact"][exact])
    asymptotic = ~small
    np.testing.assert_array_equal(found["auto"][asymptotic], found["asymptotic"][asymptotic])
    assert not np.isclose(found["exact"][exact], found["asymptotic"][exact], rtol=1e-6).all()


def test_wilcoxon_is_exact_for_a_small_reference_too(backend: str) -> None:
    rng = np.random.default_rng(2)
    codes = np.repeat([0, 1, 2], [6, 300, 9])
    x = rng.normal(0, 1, (len(codes), 5)) + (codes == 1)[:, None]
    x[:, 4] = np.round(x[:, 4], 1)  # ties
    u, p = run(backend, x, codes, "wilcoxon", p_values="asymptotic")
    expected_u, expected_p = by_scipy(stats.mannwhitneyu, x, codes)
    np.testing.assert_array_equal(u, expected_u)
    check("Wilcoxon exact p, small reference", p, expected_p, rtol=1e-12)
    exact = by_scipy(lambda a, b: stats.mannwhitneyu(a, b, method="exact"), x, codes)[1]
    np.testing.assert_allclose(p[:, :4], exact[:, :4], rtol=1e-12)


def test_wilcoxon_small_groups_against_thousands(backend: str) -> None:
    rng = np.random.default_rng(3)
    codes = np.repeat([0, 1, 2], [2500, 2, 4])
    x = rng.normal(0, 1, (len(codes), 4)) + 2.0 * (codes > 0)[:, None]
    u, p = run(backend, x, codes, "wilcoxon", p_values="asymptotic")
    expected_u, expected_p = by_scipy(stats.mannwhitneyu, x, codes)
    np.testing.assert_array_equal(u, expected_u)
    check("Wilcoxon exact p, thousands", p, expected_p, rtol=1e-12)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("alternative", ["two-sided", "greater"])
def test_wilcoxon_p_values_down_to_nothing(backend: str, alternative: str) -> None:
    rng = np.random.default_rng(4)
    n = 1100
    codes = np.repeat([0, 1], n)
    share = np.concatenate([np.linspace(0, 0.8, 15), np.linspace(0.81, 1.0, 90)])
    x = rng.normal(0, 1, (2 * n, len(share)))
    x[n:][np.arange(n)[:, None] < share * n] += 20.0
    _, p = run(backend, x, codes, "wilcoxon", p_values="asymptotic", alternative=alternative)
    _, expected = by_scipy(lambda a, b: stats.mannwhitneyu(a, b, alternative=alternative), x, codes)
    tiny = np.finfo(np.float64).tiny
    for low, high in [(1e-200, 1e-100), (1e-307, 1e-290), (5e-324, tiny), (-1.0, 0.0)]:
        assert ((expected > low) & (expected <= high)).any(), f"no p-value in ({low}, {high}]"
    check("Wilcoxon tiny p", p, expected, rtol=1e-12)


# --- t ---------------------------------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("equal_var", [True, False])
@pytest.mark.parametrize("alternative", ["two-sided", "less", "greater"])
def test_t(backend: str, equal_var: bool, alternative: str) -> None:
    options = {"equal_var": equal_var, "alternative": alternative}
    t, p = run(backend, X, CODES, "t-test", p_values="asymptotic", **options)
    expected_t, expected_p = ttest_ind(**options)
    assert np.isinf(expected_t).any()
    assert np.isnan(expected_t).any()
    check("t", t, expected_t, rtol=1e-12)
    check("t p", p, expected_p, rtol=1e-9)


def test_t_p_values_down_to_nothing(backend: str) -> None:
    rng = np.random.default_rng(5)
    n = 600
    codes = np.repeat([0, 1], n)
    x = rng.normal(0, 1, (2 * n, 40))
    x[n:] += np.linspace(0.5, 4.5, 40)
    t, p = run(backend, x, codes, "t-test", p_values="asymptotic")
    expected_t, expected_p = by_scipy(stats.ttest_ind, x, codes)
    for low, high in [(1e-200, 1e-100), (0.0, 1e-290), (-1.0, 0.0)]:
        assert ((expected_p > low) & (expected_p <= high)).any()
    check("t", t, expected_t, rtol=1e-12)
    check("t tiny p", p, expected_p, rtol=1e-9)


# --- Anderson-Darling ------------------------------------------------------------------------


def test_anderson(backend: str) -> None:
    rng = np.random.default_rng(6)
    # Effects of all sizes, so that p-values are inside [0.001, 0.25] and at both ends.
    graded = rng.normal(0, 1, (len(CODES), 30)) + np.linspace(0, 2, 30) * (CODES > 0)[:, None]
    x = np.concatenate([X, graded], axis=1)
    found, p = run(backend, x, CODES, "anderson", p_values="interpolated")
    expected, expected_p = by_scipy(lambda a, b: stats.anderson_ksamp([a, b]), x, CODES)
    sigma = np.array([_sigma(SIZES[0], n) for n in SIZES[1:]])[:, None]
    # The statistic is (A2 - 1) / sigma: where it crosses zero, A2 carries the precision.
    check("A2", found * sigma + 1, expected * sigma + 1, rtol=1e-10)
    # Worst seen: relative 2.1e-13, so `atol` has not been needed.
    check("normalised A2", found, expected, rtol=1e-10, atol=1e-13)
    check("A-D p", p, expected_p, rtol=1e-9)
    inside = (expected_p > 0.001) & (expected_p < 0.25)
    assert inside.sum() > 20
    assert (expected_p == 0.001).any()
    assert (expected_p == 0.25).any()


# --- pairs that cannot be judged -------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("value", [0.0, 0.1, -7.3])
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson"])
def test_a_constant_gene(backend: str, metric: str, value: float) -> None:
    """scipy's variance of many times 0.1 is not 0; a gene without variation is still that."""
    statistic, p = run(backend, np.full((len(CODES), 1), value), CODES, metric)
    assert (p == 1.0).all()
    if metric == "wilcoxon":
        np.testing.assert_array_equal(statistic[:, 0], np.array(SIZES[1:]) * SIZES[0] / 2)
    else:
        assert np.isnan(statistic).all()


@pytest.mark.parametrize(
    ("metric", "options", "n_ref", "judged"),
    [
        ("wilcoxon", {}, 1, True),
        ("t-test", {}, 1, False),
        ("t-test", {"p_values": "asymptotic"}, 2, True),  # the reference's variance serves both
        ("t-test", {"equal_var": False}, 2, False),
        ("anderson", {}, 1, False),
        ("anderson", {}, 2, False),  # the variance under the null needs four cells
        ("anderson", {}, 3, True),
    ],
)
def test_groups_of_one_cell(
    backend: str, metric: str, options: dict, n_ref: int, judged: bool
) -> None:
    codes = np.array([0] * n_ref + [1])
    x = np.array([[3.0, 1.0, 2.5, 9.0][i] for i in range(n_ref)] + [7.0])[:, None]
    statistic, p = run(backend, x, codes, metric, **options)
    assert np.isfinite(statistic[0, 0]) == judged
    if not judged:
        assert p[0, 0] == 1.0
    elif metric == "t-test":
        expected = stats.ttest_ind([7.0], x[:-1, 0])
        np.testing.assert_allclose([statistic[0, 0], p[0, 0]], [*expected], rtol=1e-12)


# --- options that only scipy has -------------------------------------------------------------


@pytest.mark.parametrize(
    ("metric", "options", "function"),
    [
        ("t-test", {"trim": 0.1}, lambda x, y: stats.ttest_ind(x, y, trim=0.1)),
    ],
)
def test_other_options_run_through_scipy(metric: str, options: dict, function: Any) -> None:
    codes = np.repeat([0, 1], [20, 30])
    x = np.random.default_rng(7).normal(0, 1, (50, 4)) + 0.4 * codes[:, None]
    statistic, p = run("numpy", x, codes, metric, **options)
    expected, expected_p = by_scipy(function, x, codes)
    np.testing.assert_array_equal(statistic, expected)
    np.testing.assert_array_equal(p, expected_p)
