"""The further columns and the options of tests: each against a formula of its own."""

from __future__ import annotations

import math
from typing import Any

import mpmath
import numpy as np
import pandas as pd
import plain_intervals
import pytest
from brute_force import BACKENDS, counts, frame, rows_of, run, screen
from r_truths import r_screen, r_truths
from scipy import special, stats

from pdex_gpu.errors import OptionError
from pdex_gpu.results.schema import EXTRA, INTEGERS

ASKED: dict[str, dict[str, Any]] = {
    "reference": {},
    "rest": {"comparison": "rest"},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "safe"), ("ctrl", "a")]},
    "within": {"groupby": ["group", "type"]},
}
DIFFERENCE = ["mean_difference", "mean_difference_low", "mean_difference_high"]
ENDS = ("low", "high")
STANDARDISED = ["cohens_d", "hedges_g"]
ALTERNATIVES = ["two-sided", "less", "greater"]


def logged() -> np.ndarray:
    """Log-normalised counts, float64, with ties at 0 and, of the last gene, everywhere."""
    values = counts()
    found = np.log1p(values / (1 + values.sum(axis=1, keepdims=True)) * 300)
    found[:, 5] = np.log1p(values[:, 5])
    return found


def pairs_of(values: np.ndarray, **asked: Any) -> list[list[tuple[np.ndarray, np.ndarray]]]:
    """Target and reference values of every row and gene."""
    rows, _ = rows_of(frame(), **asked)
    return [[row.pooled(values[:, g]) for g in range(values.shape[1])] for row in rows]


# --- numbers and means ---------------------------------------------------------------------------


def expected_of(x: np.ndarray, y: np.ndarray, is_log1p: bool, pseudocount: float) -> dict[str, Any]:
    """Columns of numbers, means and changes, from the values of target and reference."""
    found: dict[str, Any] = {"n_strata": 1}
    means = {}
    for side, v in (("target", x), ("reference", y)):
        c = np.expm1(v) if is_log1p else v
        logs = v if is_log1p else np.log1p(v)
        means[side] = c.mean(), logs.mean(), np.expm1(logs.mean())
        found |= {
            f"{side}_n_cells": len(v),
            f"{side}_n_expressed": sum(1 for value in v if value != 0),
            f"{side}_fraction": sum(1 for value in v if value != 0) / len(v),
            f"{side}_count_mean": means[side][0],
            f"{side}_log_mean": means[side][1],
            f"{side}_geometric_mean": means[side][2],
        }
    (count_x, _, geo_x), (count_y, _, geo_y) = means["target"], means["reference"]
    found["log2_fold_change_scanpy"] = math.log2(geo_x + 1e-9) - math.log2(geo_y + 1e-9)
    found["log2_fold_change_seurat"] = math.log2(count_x + 1 / len(x)) - math.log2(
        count_y + 1 / len(y)
    )
    if pseudocount or (geo_x and geo_y):
        changed = math.log2(geo_x + pseudocount) - math.log2(geo_y + pseudocount)
        found["log2_fold_change_geometric"] = changed
    return found


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("exp_post_agg", [True, False])
@pytest.mark.parametrize("scale", ["counts", "logs", "found to be logs", "counts called logs"])
@pytest.mark.parametrize("asked", ASKED)
def test_numbers_means_and_changes(asked, scale, exp_post_agg, backend):
    values = counts() / 40 if scale == "counts called logs" else counts()
    values = values if scale.startswith("counts") else logged()
    given = {"counts": None, "logs": True, "found to be logs": None}.get(scale, True)
    is_log1p = scale != "counts"
    wanted = [c for c in EXTRA if c in expected_of(np.ones(1), np.ones(1), True, 0.5)]
    result, _ = run(
        screen(values),
        backend=backend,
        is_log1p=given,
        exp_post_agg=exp_post_agg,
        columns=[*wanted, "log2_fold_change"],
        pseudocount=0.5,
        **ASKED[asked],
    )
    assert result.provenance["is_log1p"] is is_log1p
    for t, genes in enumerate(pairs_of(values, **ASKED[asked])):
        for g, (x, y) in enumerate(genes):
            for name, value in expected_of(x, y, is_log1p, 0.5).items():
                found = result[name][t, g]
                if name in INTEGERS:
                    assert found == value
                    assert result[name].dtype == np.int64
                else:
                    # Worst seen: 2.6e-15, beside 1e-14 of logarithms of ratios near 1.
                    np.testing.assert_allclose(found, value, rtol=1e-13, atol=1e-14, err_msg=name)
            means = [v.mean() for v in (x, y)]
            if is_log1p:
                means = [np.expm1(m) if exp_post_agg else np.expm1(v).mean()
                         for m, v in zip(means, (x, y), strict=True)]  # fmt: skip
            found = [result[f"{side}_mean"][t, g] for side in ("target", "reference")]
            # Worst seen: 2.7e-15.
            np.testing.assert_allclose(found, means, rtol=1e-13)
            if means[0] and means[1]:
                change = math.log2(means[0]) - math.log2(means[1])
                np.testing.assert_allclose(
                    result["log2_fold_change"][t, g], change, rtol=1e-12, atol=1e-14
                )


def test_changes_where_a_mean_is_0():
    values = np.array([[0.0, 3, 0], [0, 0, 0], [0, 0, 5], [0, 0, 0]])
    obs = pd.DataFrame({"group": ["t", "t", "ctrl", "ctrl"]}, index=list("abcd"))
    names = [
        "log2_fold_change",
        *(f"log2_fold_change_{n}" for n in ("scanpy", "seurat", "geometric")),
    ]
    result, _ = run(screen(values, obs), columns=names, pseudocount=0, clip_value=8)
    assert result["log2_fold_change"].tolist() == [[0.0, 3.0, -3.0]]
    assert result["log2_fold_change_seurat"].tolist() == [[0.0, 2.0, -math.log2(6)]]
    geometric = math.expm1(math.log(4) / 2), math.expm1(math.log(6) / 2)
    expected = [0.0, math.log2(geometric[0] / 1e-9 + 1), -math.log2(geometric[1] / 1e-9 + 1)]
    np.testing.assert_allclose(result["log2_fold_change_scanpy"][0], expected, rtol=1e-14)
    assert result["log2_fold_change_geometric"].tolist() == [[0.0, math.inf, -math.inf]]
    result, _ = run(screen(values, obs), columns=names, clip_value=None)
    np.testing.assert_array_equal(result["log2_fold_change"], [[np.nan, np.nan, -np.inf]])
    assert np.isfinite(result["log2_fold_change_geometric"]).all()  # its pseudocount is 1e-9


def test_scanpy_and_seurat_say_the_same():
    """Their formulas on log-normalised values, as their sources have them.

    scanpy: ``log2((expm1(mean_group) + 1e-9) / (expm1(mean_rest) + 1e-9))``. Seurat 5,
    FoldChange.Assay: the difference of ``log((rowSums(expm1(x)) + 1) / NCOL(x), base = 2)``; in
    Seurat 4, of ``log(rowMeans(expm1(x)) + 1, base = 2)``.
    """
    values = logged()
    names = ["log2_fold_change_scanpy", "log2_fold_change_seurat"]
    result, _ = run(screen(values), comparison="rest", columns=names)
    labels = frame().group.to_numpy(object)
    labelled = ~pd.isna(labels)
    for t, target in enumerate(result.targets):
        mine, rest = values[labels == target], values[labelled & (labels != target)]
        scanpy = np.log2((np.expm1(mine.mean(0)) + 1e-9) / (np.expm1(rest.mean(0)) + 1e-9))
        seurat = np.log2((np.expm1(mine).sum(0) + 1) / len(mine)) - np.log2(
            (np.expm1(rest).sum(0) + 1) / len(rest)
        )
        # Worst seen: 2.4e-14, near 0.
        np.testing.assert_allclose(result[names[0]][t], scanpy, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(result[names[1]][t], seurat, rtol=1e-12, atol=1e-14)


# --- ranks ---------------------------------------------------------------------------------------


def delong(x: np.ndarray, y: np.ndarray, level: float) -> tuple[float, float, float]:
    """AUROC and its interval from placements, cell by cell."""
    over = (x[:, None] > y) + 0.5 * (x[:, None] == y)
    auroc = over.mean()
    if len(x) < 2 or len(y) < 2:
        return auroc, math.nan, math.nan
    error = math.sqrt(over.mean(1).var(ddof=1) / len(x) + over.mean(0).var(ddof=1) / len(y))
    reach = stats.norm.ppf(0.5 + level / 2) * error
    return auroc, max(0.0, auroc - reach), min(1.0, auroc + reach)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson", "ks"])
@pytest.mark.parametrize("asked", ASKED)
def test_auroc(asked, metric, backend):
    values = logged()
    names = ["auroc", "auroc_low", "auroc_high", "rank_biserial"]
    result, _ = run(
        screen(values),
        metric=metric,
        backend=backend,
        columns=names,
        confidence=0.9,
        **ASKED[asked],
    )
    for t, genes in enumerate(pairs_of(values, **ASKED[asked])):
        for g, (x, y) in enumerate(genes):
            auroc = ((x[:, None] > y) + 0.5 * (x[:, None] == y)).mean()
            low, high = plain_intervals.auroc_interval(x, y, 0.9)
            found = [result[name][t, g] for name in names]
            # Worst seen: 4.4e-16.
            expected = [auroc, low, high, 2 * auroc - 1]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-13)


def test_r_says_the_same():
    """t.test, wilcox.test, and pROC's and t.test's intervals, which ours hold and hardly exceed."""
    truth, (data, genes) = r_truths(), r_screen()
    columns = ["auroc", "auroc_low", "auroc_high"]
    result, _ = run(data, reference="r", columns=columns)
    for g, gene in enumerate(genes):
        middle, low, high = (result[c][0, g] for c in columns)
        assert middle == pytest.approx(truth[gene, "auroc_middle"], rel=1e-13)
        # Where DeLong's variance is the larger one on both sides, the limits are DeLong's.
        of_r = truth[gene, "auroc_low"], truth[gene, "auroc_high"]
        assert of_r[0] - 0.005 < low < of_r[0] + 1e-13, gene  # seen: 0.0036, 0.0044
        assert of_r[1] - 1e-13 < high < of_r[1] + 0.005, gene  # seen: 0, 0
    for alternative in ALTERNATIVES:
        name = alternative.replace("-", ".")
        for continuity in (True, False):
            options = {"continuity": continuity, "alternative": alternative}
            result, _ = run(data, reference="r", p_values="asymptotic", **options)
            expected = [truth[g, f"wilcoxon_{name}_{str(continuity).upper()}"] for g in genes]
            # Worst seen: 3.9e-16.
            np.testing.assert_allclose(result["p_value"][0], expected, rtol=1e-12)
        for variance in ("pooled", "welch"):
            columns = ["mean_difference_low", "mean_difference_high"]
            options = {"metric": "t-test", "variance": variance, "alternative": alternative}
            result, _ = run(data, reference="r", columns=columns, p_values="asymptotic", **options)
            expected = [truth[g, f"{variance}_{name}"] for g in genes]
            np.testing.assert_allclose(result["p_value"][0], expected, rtol=1e-12)
            # Always of both sides, as the confidence level says, and whatever the test.
            low, high = (np.array([truth[g, f"welch_{end}"] for g in genes]) for end in ENDS)
            assert (result["mean_difference_low"][0] <= low + 1e-12).all()
            assert (result["mean_difference_high"][0] >= high - 1e-12).all()
            width = result["mean_difference_high"][0] - result["mean_difference_low"][0]
            assert (width < 1.1 * (high - low)).all()  # seen: 1.073


def test_the_interval_of_auroc_covers():
    """Of 2,000 samples with a known AUROC, 95 % intervals hold it as often as they should."""
    rng, n, m, shift = np.random.default_rng(7), 40, 60, 0.8
    values = rng.normal(size=(n + m, 2000))
    values[:n] += shift
    obs = pd.DataFrame({"group": ["t"] * n + ["ctrl"] * m}, index=[str(i) for i in range(n + m)])
    result, _ = run(screen(values, obs), columns=["auroc_low", "auroc_high"], backend="cpu")
    truth = stats.norm.cdf(shift / math.sqrt(2))
    covered = np.mean((result["auroc_low"] <= truth) & (truth <= result["auroc_high"]))
    assert 0.94 <= covered <= 0.97  # seen: 0.962; of DeLong's interval, 0.944
    x, y = values[:n, 0], values[n:, 0]
    drawn = [delong(rng.choice(x, n), rng.choice(y, m), 0.95)[0] for _ in range(2000)]
    low, high = result["auroc_low"][0, 0], result["auroc_high"][0, 0]
    # A bootstrap of the first; its ends move by 0.01 by chance. Seen: 0.0065.
    np.testing.assert_allclose(np.quantile(drawn, [0.025, 0.975]), [low, high], atol=0.02)


# --- moments -------------------------------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("variance", ["pooled", "welch", None])
@pytest.mark.parametrize("asked", ASKED)
def test_mean_difference_and_standardised(asked, variance, backend):
    values = logged()
    names = [
        "mean_difference",
        "mean_difference_low",
        "mean_difference_high",
        "cohens_d",
        "hedges_g",
    ]
    test = {"metric": "t-test", "variance": variance} if variance else {"metric": "wilcoxon"}
    result, _ = run(
        screen(values), columns=names, confidence=0.99, backend=backend, **test, **ASKED[asked]
    )
    for t, genes in enumerate(pairs_of(values, **ASKED[asked])):
        for g, (x, y) in enumerate(genes):
            if np.ptp(x) == 0 and np.ptp(y) == 0:
                continue
            n, m = len(x), len(y)
            low, high = plain_intervals.mean_interval(x, y, 0.99)
            spread = math.sqrt(((n - 1) * x.var(ddof=1) + (m - 1) * y.var(ddof=1)) / (n + m - 2))
            d = (x.mean() - y.mean()) / spread
            half = mpmath.mpf(n + m - 2) / 2
            bias = mpmath.gamma(half) / (mpmath.sqrt(half) * mpmath.gamma(half - 0.5))
            expected = [x.mean() - y.mean(), low, high, d, d * float(bias)]
            # Worst seen: 4.6e-13, of differences near 0.
            np.testing.assert_allclose(
                [result[c][t, g] for c in names], expected, rtol=1e-11, atol=1e-12
            )


def test_hedges_correction_of_many_cells():
    """Below 1 by 3 / (4 df - 1), which a difference of large logarithms would lose."""
    n = 40_000
    rng = np.random.default_rng(0)
    values = rng.normal(size=(2 * n, 1))
    obs = pd.DataFrame({"group": np.repeat(["t", "ctrl"], n)}, index=[str(i) for i in range(2 * n)])
    result, _ = run(screen(values, obs), columns=["cohens_d", "hedges_g"], backend="cpu")
    df = 2 * n - 2
    ratio = result["hedges_g"][0, 0] / result["cohens_d"][0, 0]
    # Terms of order df**-3 are 1e-15; worst seen 2.2e-16.
    assert ratio == pytest.approx(1 - 3 / (4 * df) - 7 / (32 * df**2), rel=1e-14)


def test_no_spread():
    """Sides of one value each: neither a standardised difference nor an interval."""
    values = np.array([[3.0, 2.0], [3, 2], [3, 2], [1, 2], [1, 2], [1, 2]])
    obs = pd.DataFrame({"group": ["t"] * 3 + ["ctrl"] * 3}, index=list("abcdef"))
    names = [
        "mean_difference",
        "cohens_d",
        "hedges_g",
        "mean_difference_low",
        "mean_difference_high",
    ]
    options = {"metric": "t-test", "p_values": "asymptotic"}
    result, _ = run(screen(values, obs), columns=names, **options)
    assert result["mean_difference"].tolist() == [[2.0, 0.0]]
    assert np.isnan(result["cohens_d"]).all()
    assert np.isnan(result["hedges_g"]).all()
    assert result["statistic"][0, 0] == np.inf
    assert np.isnan(result["statistic"][0, 1])
    assert result["p_value"].tolist() == [[0.0, 1.0]]
    for end in ENDS:
        assert np.isnan(result[f"mean_difference_{end}"]).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_rest_of_one_value_has_no_spread(backend):
    """Whatever the value, and whatever is rounded when its groups are put together."""
    rng, sizes = np.random.default_rng(2), [7, 11, 13, 5]
    labels = np.repeat(["a", "b", "c", "d"], sizes)
    obs = pd.DataFrame({"group": labels}, index=[str(i) for i in range(len(labels))])
    of_rest, of_a = rng.normal(size=40), rng.normal(size=40)
    values = np.where((labels == "a")[:, None], of_a, of_rest)
    names = [*DIFFERENCE, "cohens_d"]
    options = {"comparison": "rest", "groups": ["a"], "metric": "t-test", "columns": names}
    result, _ = run(
        screen(values, obs), backend=backend, is_log1p=False, p_values="asymptotic", **options
    )
    np.testing.assert_array_equal(result["reference_mean"][0], of_rest)
    np.testing.assert_array_equal(result["statistic"][0], np.sign(of_a - of_rest) * np.inf)
    assert (result["p_value"] == 0).all()
    np.testing.assert_array_equal(result["mean_difference"][0], of_a - of_rest)
    for name in DIFFERENCE[1:]:
        assert np.isnan(result[name]).all()
    assert np.isnan(result["cohens_d"]).all()


# --- tests and their options ---------------------------------------------------------------------


def judged(p: float) -> float:
    return 1.0 if math.isnan(p) else p


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("continuity", [True, False])
@pytest.mark.parametrize("tie_correction", [True, False])
@pytest.mark.parametrize("method", ["auto", "asymptotic", "exact"])
def test_wilcoxon(method, tie_correction, continuity, alternative, backend):
    """scipy; without tie correction, which that has not, the formula; z and p agree."""
    values = np.column_stack([logged(), np.random.default_rng(0).normal(size=len(frame()))])
    options = {
        "groupby": ["group", "type"],
        "comparison": "pairs",
        "pairs": [("d", "a"), ("a", "b")],
    }
    given = {
        "method": method,
        "tie_correction": tie_correction,
        "continuity": continuity,
        "alternative": alternative,
        "p_values": "asymptotic",
    }
    result, _ = run(screen(values), backend=backend, columns=["z"], **given, **options)
    for t, genes in enumerate(pairs_of(values, **options)):
        for g, (x, y) in enumerate(genes):
            n, m = len(x), len(y)
            with np.errstate(all="ignore"):
                scipy = stats.mannwhitneyu(x, y, continuity, alternative, method=method)
            assert result["statistic"][t, g] == scipy.statistic
            ranks = stats.rankdata(np.concatenate([x, y]))
            spread = math.sqrt(
                n * m / (n + m) * ranks.var(ddof=1) if tie_correction else n * m * (n + m + 1) / 12
            )
            excess = scipy.statistic - n * m / 2
            if alternative == "two-sided":
                excess = math.copysign(max(abs(excess) - continuity / 2, 0.0), excess)
            else:
                excess += continuity / 2 if alternative == "less" else -continuity / 2
            z = excess / spread if spread else 0.0
            # Worst seen: 2.3e-16, and 3.4e-16 of p-values.
            np.testing.assert_allclose(result["z"][t, g], z, rtol=1e-13, atol=1e-14)
            exact = method == "exact" or (
                method == "auto" and min(n, m) <= 8 and len(set(x) | set(y)) == n + m
            )
            p = judged(scipy.pvalue)
            if not tie_correction and not exact and spread:
                one = {"less": z, "greater": -z, "two-sided": -abs(z)}[alternative]
                p = min(1.0, stats.norm.cdf(one) * (2 if alternative == "two-sided" else 1))
            np.testing.assert_allclose(result["p_value"][t, g], p, rtol=1e-12)


def test_exact_p_values_out_of_reach():
    """The message says what the limit is; sizes just within it are computed."""
    n = 900
    obs = pd.DataFrame({"group": np.repeat(["t", "ctrl"], n)}, index=[str(i) for i in range(2 * n)])
    values = np.random.default_rng(0).normal(size=(2 * n, 1))
    with pytest.raises(OptionError) as caught:
        run(screen(values, obs), method="exact", backend="cpu")
    message = str(caught.value)
    assert "method='exact' would take too long for groups of 900 and 900 cells" in message
    assert "above the limit of 500,000,000" in message
    assert "is 729,000,000" in message
    assert "Use method='auto'" in message


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("variance", ["pooled", "welch", "overestimated"])
def test_t(variance, alternative, backend):
    """scipy's; "overestimated" as scanpy's rank_genes_groups calls it, for each group."""
    values = logged()
    options = {"variance": variance, "alternative": alternative, "p_values": "asymptotic"}
    result, _ = run(screen(values), metric="t-test", backend=backend, comparison="rest", **options)
    for t, genes in enumerate(pairs_of(values, comparison="rest")):
        for g, (x, y) in enumerate(genes):
            if np.ptp(x) == np.ptp(y) == 0:
                continue
            expected = stats.ttest_ind_from_stats(
                x.mean(), x.std(ddof=1), len(x),
                y.mean(), y.std(ddof=1), len(x) if variance == "overestimated" else len(y),
                equal_var=variance == "pooled", alternative=alternative,
            )  # fmt: skip
            # Worst seen: 2.7e-14, and 2e-14 of p-values.
            np.testing.assert_allclose(
                result["statistic"][t, g], expected.statistic, rtol=1e-12, atol=1e-13
            )
            np.testing.assert_allclose(result["p_value"][t, g], expected.pvalue, rtol=1e-12)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("p_values", ["interpolated", "asymptotic"])
@pytest.mark.parametrize("variant", ["midrank", "right", "continuous"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # scipy's, on interpolated p-values
def test_anderson(variant, p_values, backend):
    values = logged()
    result, _ = run(
        screen(values),
        metric="anderson",
        variant=variant,
        p_values=p_values,
        backend=backend,
        comparison="rest",
    )
    for t, genes in enumerate(pairs_of(values, comparison="rest")):
        for g, (x, y) in enumerate(genes):
            if np.ptp(np.concatenate([x, y])) == 0:
                assert math.isnan(result["statistic"][t, g])
                assert result["p_value"][t, g] == 1.0
                continue
            expected = stats.anderson_ksamp([x, y], variant=variant)
            # Worst seen: 1.2e-14, and 1.6e-15 of p-values.
            np.testing.assert_allclose(
                result["statistic"][t, g], expected.statistic, rtol=1e-12, atol=1e-12
            )
            p = result["p_value"][t, g]
            if p_values == "interpolated":
                np.testing.assert_allclose(p, expected.pvalue, rtol=1e-12)
            elif 0.002 < expected.pvalue < 0.24:
                # scipy's table is for few cells and interpolated by a parabola; worst seen 2.5 %.
                np.testing.assert_allclose(p, expected.pvalue, rtol=0.05)
            else:
                assert p < 0.0025 if expected.pvalue < 0.1 else p > 0.22


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("asked", ASKED)
def test_kolmogorov_smirnov(asked, alternative, backend):
    values = logged()
    result, _ = run(
        screen(values), metric="ks", p_values="asymptotic", alternative=alternative,
        backend=backend, **ASKED[asked]
    )  # fmt: skip
    for t, genes in enumerate(pairs_of(values, **ASKED[asked])):
        for g, (x, y) in enumerate(genes):
            expected = stats.ks_2samp(x, y, alternative, method="asymp")
            # scipy subtracts rounded distribution functions.
            np.testing.assert_allclose(
                result["statistic"][t, g], expected.statistic, rtol=0, atol=4e-16
            )
            p = expected.pvalue
            if alternative == "two-sided":  # scipy's is of one sample of that many cells
                size = len(x) * len(y) / (len(x) + len(y))
                p = special.kolmogorov(math.sqrt(size) * expected.statistic)
            # Worst seen: 1.4e-15.
            np.testing.assert_allclose(result["p_value"][t, g], p, rtol=1e-12)


# --- p-values below the smallest float -----------------------------------------------------------


@pytest.fixture(scope="module")
def extreme() -> tuple[Any, np.ndarray, np.ndarray]:
    """Two groups of 2,000 and 1,500 cells that hardly overlap, or not at all."""
    rng, n, m = np.random.default_rng(1), 2000, 1500
    obs = pd.DataFrame({"group": np.repeat(["t", "ctrl"], [n, m])}, index=range(n + m))
    obs.index = obs.index.astype(str)
    values = rng.normal(size=(n + m, 4))
    values[:n] += [20.0, -20.0, 0.1, 4.0]
    return screen(values, obs), values[:n], values[n:]


def log10_tail_of_a2(x: float) -> mpmath.mpf:
    """log10 P(A2 > x) in the limit, by Smirnov's formula (1937) for sums of weighted chi2.

    The integrals of ``exp(-x u / 2) / (u sqrt(abs(D(u)))) / pi`` over [2, 6], less that over
    [12, 20] and so on, with ``D(u) = -cos(pi sqrt(1/4 + u)) / (pi u)``; the second does not count.
    """

    def inside(u: mpmath.mpf) -> mpmath.mpf:
        d = -mpmath.cos(mpmath.pi * mpmath.sqrt(mpmath.mpf(1) / 4 + u)) / (mpmath.pi * u)
        return mpmath.exp(-x * (u - 2) / 2) / (u * mpmath.sqrt(abs(d)))

    steps = [2, *(2 + mpmath.mpf(k) / x for k in (1, 4, 16, 64)), 5, 6]
    return mpmath.log10(mpmath.quad(inside, steps) / mpmath.pi) - x / mpmath.log(10)


@pytest.mark.parametrize("backend", ["cpu"])
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "ks", "anderson"])
def test_log10_p(metric, backend, extreme):
    """Against 40 digits, where p-values underflow and where they do not."""
    data, target, reference = extreme
    options = {"p_values": "asymptotic", "columns": ["log10_p"]}
    result, _ = run(data, metric=metric, backend=backend, **options)
    p, logs, statistic = (result[name][0] for name in ("p_value", "log10_p", "statistic"))
    assert (p[:2] == 0).all()
    assert (logs[:2] < -308).all()
    with mpmath.workdps(40):
        n, m = len(target), len(reference)
        expected = []
        for g in range(4):
            s = mpmath.mpf(float(statistic[g]))
            if metric == "wilcoxon":
                z = (abs(s - n * m / 2) - 0.5) / mpmath.sqrt(mpmath.mpf(n * m) * (n + m + 1) / 12)
                tail = mpmath.erfc(z / mpmath.sqrt(2))
            elif metric == "t-test":
                df = n + m - 2
                tail = mpmath.betainc(df / 2, 0.5, 0, df / (df + s**2), regularized=True)
            elif metric == "ks":
                x = s * mpmath.sqrt(mpmath.mpf(n * m) / (n + m))
                tail = 2 * mpmath.nsum(
                    lambda k, x=x: (-1) ** (int(k) - 1) * mpmath.exp(-2 * k**2 * x**2), [1, 30]
                )
            else:
                x = 1 + mpmath.sqrt(2 * (mpmath.pi**2 - 9) / 3) * s
                expected.append(log10_tail_of_a2(x) if g != 2 else mpmath.mpf(np.log10(p[2])))
                continue
            expected.append(mpmath.log10(tail))
    # Worst seen: 4.0e-16.
    np.testing.assert_allclose(logs, [float(e) for e in expected], rtol=1e-12)
    np.testing.assert_allclose(p[2], 10 ** logs[2], rtol=1e-13)


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "ks", "anderson"])
@pytest.mark.parametrize("asked", ASKED)
def test_log10_p_is_of_the_p_value(asked, metric):
    result, _ = run(screen(logged()), metric=metric, columns=["log10_p"], **ASKED[asked])
    # Worst seen: 6.4e-14, where p is close to 1.
    with np.errstate(divide="ignore"):
        expected = np.log10(result["p_value"])
    np.testing.assert_allclose(result["log10_p"], expected, rtol=1e-12, atol=1e-13)


# --- what makes no sense -------------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], str]] = [
    ({"columns": ["aurok"]}, "Unknown column 'aurok'. Did you mean 'auroc'?"),
    ({"columns": "aurok"}, "Unknown column 'aurok'. Did you mean 'auroc'?"),
    ({"columns": ["log2fc"]}, "Unknown column 'log2fc'"),
    ({"columns": 5}, "columns=5 must be names of columns, such as ['auroc', 'log10_p'], or 'all'"),
    ({"columns": None}, "columns=None must be names of columns"),
    ({"columns": [5]}, "columns=[5] must be names of columns"),
    ({"columns": ["z"], "metric": "t-test"}, "Column 'z' does not exist for metric='t-test'"),
    (
        {"columns": ["log10_p"], "metric": "t-test", "trim": 0.1},
        "Column 'log10_p' is not available with these options (trim=0.1",
    ),
    ({"confidence": 95}, "confidence=95 must be a number between 0 and 1. For 95%, pass 0.95."),
    ({"confidence": -0.5}, "confidence=-0.5 must be a number between 0 and 1."),
    ({"confidence": None}, "confidence=None must be a number between 0 and 1."),
    ({"confidence": math.nan}, "confidence=nan must be a number between 0 and 1."),
    ({"confidence": True}, "confidence=True must be a number between 0 and 1."),
    ({"confidence": "0.95"}, "confidence='0.95' must be a number between 0 and 1."),
    ({"pseudocount": -1}, "pseudocount=-1 must be a number of at least 0."),
    ({"pseudocount": None}, "pseudocount=None must be a number of at least 0."),
    ({"pseudocount": math.nan}, "pseudocount=nan must be a number of at least 0."),
    ({"pseudocount": "1"}, "pseudocount='1' must be a number"),
    ({"metric": "Wilcoxon"}, "Unknown metric 'Wilcoxon'. Did you mean 'wilcoxon'?"),
    ({"alternative": "two.sided"}, "Unknown value for alternative: 'two.sided'. Did you mean"),
    ({"metric": "ks", "alternative": "up"}, "Unknown value for alternative: 'up'. Available (3)"),
    ({"metric": "t-test", "alternative": 1}, "Unknown value for alternative: '1'"),
    (
        {"metric": "t-test", "variance": "welsh"},
        "Unknown value for variance: 'welsh'. Did you mean",
    ),
    (
        {"metric": "t-test", "variance": "welch", "equal_var": False},
        "variance= and equal_var= are the same option; pass only one.",
    ),
    (
        {"metric": "anderson", "variant": "midrank", "midrank": True},
        "variant= and midrank= are the same option; pass only one.",
    ),
    ({"metric": "anderson", "variant": "left"}, "Unknown value for variant: 'left'"),
    ({"metric": "anderson", "p_values": "exact"}, "Unknown value for p_values: 'exact'"),
    ({"continuity": "yes"}, "Unknown value for continuity: 'yes'"),
    ({"tie_correction": None}, "Unknown value for tie_correction: 'None'"),
    ({"variance": "welch"}, "metric 'wilcoxon' has no option 'variance'. Its options are"),
    ({"metric": "anderson", "alternative": "less"}, "'anderson' has no option 'alternative'"),
]


@pytest.mark.parametrize(("options", "message"), BAD, ids=lambda v: str(v)[:50])
def test_what_makes_no_sense_is_refused(options, message):
    with pytest.raises(OptionError) as caught:
        run(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("options", [{"metric": "t-test"}, {"strata": "batch"}, {"trim": 0.1}])
def test_all_columns_are_all_that_there_are(options):
    if "trim" in options:
        options = options | {"metric": "t-test"}
    result, _ = run(columns="all", **options)
    lacking = {"z"} if options.get("metric") else {"auroc_low", "auroc_high"}
    lacking |= {"log10_p"} if "trim" in options else set()
    assert set(EXTRA) - set(result.columns) == lacking


def test_all_columns():
    result, _ = run(columns="all")
    names = tuple(EXTRA)
    assert result.columns[-len(names) :] == names
    assert tuple(result.to_pandas().columns[-len(names) :]) == names
    again, _ = run(columns=names[::-1])
    assert again.columns == result.columns
    for name in result.columns:
        np.testing.assert_array_equal(again[name], result[name])
        alone, _ = run(columns=name)
        np.testing.assert_array_equal(alone[name], result[name], err_msg=name)
