"""Comparisons within strata: each combined test against other formulas, R, and permutations."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, GENES, Row, assert_rows, counts, frame, rows_of, run, screen
from hypothesis import given
from hypothesis import strategies as st
from plain_intervals import mean_interval_over_strata
from r_truths import r_screen, r_truths
from scipy import stats

from pdex_gpu.errors import ColumnError, LabelError, OptionError

#: Who is compared, over the strata "batch".
ASKED: dict[str, dict[str, Any]] = {
    "reference": {},
    "each": {"comparison": "each_reference", "reference": ["ctrl", "safe"]},
    "rest": {"comparison": "rest"},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "safe")]},
    "within": {"groupby": ["group", "type"]},
}
ALTERNATIVES = ["two-sided", "less", "greater"]


def normal() -> np.ndarray:
    """Counts and their logarithms with noise: ties in some genes and none in others."""
    rng = np.random.default_rng(8)
    found = np.log1p(counts())
    found[:, ::2] += rng.normal(0.0, 0.3, found[:, ::2].shape)
    found[:, 4] = counts()[:, 4]
    found[:, 5] = 0.0
    return found


def tail(z: float, alternative: str) -> float:
    if alternative == "two-sided":
        return 2.0 * stats.norm.sf(abs(z))
    return stats.norm.sf(z) if alternative == "greater" else stats.norm.cdf(z)


# --- Wilcoxon: van Elteren -----------------------------------------------------------------------


def van_elteren(
    samples: list[tuple[np.ndarray, np.ndarray]], tie_correction: bool = True
) -> tuple[float, float]:
    """Sum of U / (N + 1), and z, from the sums of ranks within strata and their permutations.

    The sum of m of N ranks drawn without replacement has the variance m n / N times the ranks'
    variance with divisor N - 1; without ties that is m n (N + 1) / 12.
    """
    statistic = excess = variance = 0.0
    for x, y in samples:
        m, n = len(x), len(y)
        ranks, weight = stats.rankdata(np.concatenate([x, y])), 1.0 / (m + n + 1)
        statistic += weight * (ranks[:m].sum() - m * (m + 1) / 2)
        excess += weight * (ranks[:m].sum() - m * (m + n + 1) / 2)
        of_ranks = ranks.var(ddof=1) if tie_correction else (m + n) * (m + n + 1) / 12
        variance += weight**2 * m * n / (m + n) * of_ranks
    return statistic, excess / variance**0.5 if variance > 0 else 0.0


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("tie_correction", [True, False])
@pytest.mark.parametrize("asked", ASKED)
def test_van_elteren_from_rank_sums(asked, tie_correction, alternative, backend):
    values, layout = normal(), ASKED[asked] | {"strata": "batch"}
    options = {"tie_correction": tie_correction, "alternative": alternative}
    options["p_values"] = "asymptotic"
    rows, _ = rows_of(frame(), **layout)
    result, _ = run(screen(values), backend=backend, columns=["z"], **layout, **options)
    assert_rows(result, rows)
    for t, row in enumerate(rows):
        for g in range(len(GENES) - 1):  # the last is constant
            statistic, z = van_elteren(row.samples(values[:, g]), tie_correction)
            # Worst seen: 2.1e-16, 9.3e-15 (absolute, of z) and 1.1e-14 (relative).
            np.testing.assert_allclose(result["statistic"][t, g], statistic, rtol=1e-14)
            np.testing.assert_allclose(result["z"][t, g], z, rtol=1e-13, atol=1e-14)
            np.testing.assert_allclose(result["p_value"][t, g], tail(z, alternative), rtol=1e-12)


@pytest.mark.parametrize("gene", [1, 4])
def test_van_elteren_by_permuting_labels_within_strata(gene):
    """The p-value is that of 40,000 permutations, within their error."""
    rng, values = np.random.default_rng(5), normal()
    rows, _ = rows_of(frame(), strata="batch")
    result, _ = run(screen(values), strata="batch")
    for t, row in enumerate(rows):
        centred, spread = np.zeros(40_000), 0.0
        observed = 0.0
        for x, y in row.samples(values[:, gene]):
            m, n_cells = len(x), len(x) + len(y)
            ranks = stats.rankdata(np.concatenate([x, y])) / (n_cells + 1)
            shuffled = rng.permuted(np.tile(ranks, (len(centred), 1)), axis=1)
            centred += shuffled[:, :m].sum(axis=1) - m / 2
            observed += ranks[:m].sum() - m / 2
            spread += m * (n_cells - m) / n_cells * ranks.var(ddof=1)
        # The variance is exact, so that of 40,000 permutations differs by chance (1.4 %; worst
        # seen 1.1 %).
        np.testing.assert_allclose(centred.var(), spread, rtol=0.03)
        p = np.mean(np.abs(centred) >= abs(observed) - 1e-9)
        # Beyond chance (3 standard errors, 0.0075 at most) the normal approximation leaves 0.01
        # where there are some 15 cells a side; worst seen 0.0083.
        np.testing.assert_allclose(result["p_value"][t, gene] - p, 0.0, atol=0.0175)


@pytest.mark.parametrize("backend", BACKENDS)
def test_r_says_the_same(backend):
    """coin (van Elteren), lm (a fixed effect) and kSamples (Anderson-Darling, rounded)."""
    truth, (data, genes) = r_truths(), r_screen()
    asked = {"reference": "r", "strata": "batch", "backend": backend}
    for alternative in ALTERNATIVES:
        options = {"alternative": alternative, "p_values": "asymptotic"}
        result, _ = run(data, columns=["z"], **options, **asked)
        for g, gene in enumerate(genes):
            p = truth[gene, f"van_elteren_{alternative.replace('-', '.')}"]
            # Worst seen: 1.3e-15, of both.
            np.testing.assert_allclose(result["p_value"][0, g], p, rtol=1e-12)
            z = truth[gene, "van_elteren_z"]
            np.testing.assert_allclose(result["z"][0, g], z, rtol=1e-12)
    result, _ = run(
        data,
        metric="t-test",
        p_values="asymptotic",
        columns=["mean_difference", "cohens_d", "hedges_g"],
        **asked,
    )
    for g, gene in enumerate(genes):
        # Worst seen: 1.9e-15.
        expected = [truth[gene, f"linear_{name}"] for name in ("effect", "t", "p")]
        found = [result[name][0, g] for name in ("mean_difference", "statistic", "p_value")]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    for variant in ("midrank", "right"):
        result, _ = run(data, metric="anderson", variant=variant, p_values="asymptotic", **asked)
        for g, gene in enumerate(genes):
            # kSamples rounds the A2 of midranks to three digits, others to five, and interpolates
            # p in a table of its own; worst seen 1.3e-3, 2.5e-5 and 1.7e-3.
            statistic = truth[gene, f"anderson_statistic_{variant}"]
            digits = 5e-3 if variant == "midrank" else 5e-5
            np.testing.assert_allclose(result["statistic"][0, g], statistic, rtol=0, atol=digits)
            p = truth[gene, f"anderson_p_{variant}"]
            np.testing.assert_allclose(result["p_value"][0, g], p, rtol=2e-3)


# --- t: a fixed effect of the stratum ------------------------------------------------------------


def fixed_effect(row: Row, gene: np.ndarray) -> tuple[float, float, float, int]:
    """Effect, its standard error, the residual deviation and df of least squares on indicators."""
    x, target, strata = [], [], []
    for k, (a, b) in enumerate(row.samples(gene)):
        x += [*a, *b]
        target += [1.0] * len(a) + [0.0] * len(b)
        strata += [k] * (len(a) + len(b))
    matrix = np.column_stack([target, *(np.equal(strata, k) for k in set(strata))]).astype(float)
    solution = np.linalg.lstsq(matrix, x, rcond=None)[0]
    residual = x - matrix @ solution
    df = len(x) - matrix.shape[1]
    variance = residual @ residual / df
    error = np.sqrt(variance * np.linalg.inv(matrix.T @ matrix)[0, 0])
    return solution[0], error, variance**0.5, df


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("alternative", ALTERNATIVES)
@pytest.mark.parametrize("asked", ASKED)
def test_the_t_test_is_a_linear_model(asked, alternative, backend):
    values, layout = normal(), ASKED[asked] | {"strata": "batch"}
    rows, _ = rows_of(frame(), **layout)
    columns = ["mean_difference", "mean_difference_low", "mean_difference_high", "cohens_d"]
    result, _ = run(
        screen(values),
        metric="t-test",
        p_values="asymptotic",
        backend=backend,
        alternative=alternative,
        columns=columns,
        confidence=0.9,
        **layout,
    )
    assert_rows(result, rows)
    for t, row in enumerate(rows):
        for g in range(len(GENES)):
            effect, error, deviation, df = fixed_effect(row, values[:, g])
            if error < 1e-9:  # nothing but rounding errors, judged below
                continue
            student = stats.t(df)
            p = {
                "two-sided": 2 * student.sf(abs(effect / error)),
                "less": student.cdf(effect / error),
                "greater": student.sf(effect / error),
            }[alternative]
            signed = values[:, g].min() < 0
            low, high = mean_interval_over_strata(row.samples(values[:, g]), 0.9, signed)
            d = effect / deviation
            expected = [effect / error, effect, low, high, d]
            found = [result[name][t, g] for name in ("statistic", *columns)]
            # Worst seen, with what lstsq errs: 6.2e-13, and 4.7e-14 of the p-value.
            np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12)
            np.testing.assert_allclose(result["p_value"][t, g], p, rtol=1e-12)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", ["wilcoxon", "anderson"])
@pytest.mark.parametrize("asked", ASKED)
def test_the_mean_difference_alone(asked, metric):
    """It needs no squared deviations, which other tests than t leave out."""
    values, layout = normal(), ASKED[asked] | {"strata": "batch"}
    rows, _ = rows_of(frame(), **layout)
    result, _ = run(screen(values), metric=metric, columns=["mean_difference"], **layout)
    expected = [[fixed_effect(row, gene)[0] for gene in values.T] for row in rows]
    np.testing.assert_allclose(result["mean_difference"], expected, rtol=1e-11, atol=1e-12)


# --- Anderson-Darling: the sum of A2 -------------------------------------------------------------


def a2_and_variance(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """A2 and its variance (Scholz and Stephens, eq. 7 and 4), term by term."""
    pooled = np.concatenate([x, y])
    n, a2 = len(pooled), 0.0
    for sample in (x, y):
        for value in set(pooled.tolist()):
            ties = np.count_nonzero(pooled == value)
            b = np.count_nonzero(pooled < value) + ties / 2
            m = np.count_nonzero(sample < value) + np.count_nonzero(sample == value) / 2
            over = b * (n - b) - n * ties / 4
            a2 += (n - 1) / n * ties / n * (n * m - len(sample) * b) ** 2 / over / len(sample)
    k, both = 2, 1 / len(x) + 1 / len(y)
    h = sum(1 / i for i in range(1, n))
    g = sum(1 / ((n - i) * j) for i in range(1, n - 1) for j in range(i + 1, n))
    a = (4 * g - 6) * (k - 1) + (10 - 6 * g) * both
    b = (2 * g - 4) * k**2 + 8 * h * k + (2 * g - 14 * h - 4) * both - 8 * h + 4 * g - 6
    c = (6 * h + 2 * g - 2) * k**2 + (4 * h - 4 * g + 6) * k + (2 * h - 6) * both + 4 * h
    d = (2 * h + 6) * k**2 - 4 * h * k
    variance = (a * n**3 + b * n**2 + c * n + d) / ((n - 1) * (n - 2) * (n - 3))
    scipy = stats.anderson_ksamp([x, y], variant="midrank").statistic
    assert (a2 - 1) / variance**0.5 == pytest.approx(scipy, rel=1e-9, abs=1e-12)
    return a2, variance


@pytest.fixture(scope="module")
def simulated() -> np.ndarray:
    """Draws of A2 in the limit of large samples, chi2 of 1 df over j (j + 1) summed: (3, n)."""
    rng, found = np.random.default_rng(6), np.zeros((3, 200_000))
    for j in range(1, 41):
        found += rng.standard_normal(found.shape) ** 2 / (j * (j + 1))
    rest = sum(1 / (j * (j + 1)) ** 2 for j in range(41, 5000))  # mean 1 / 41 and twice this
    return found + 1 / 41 + (2 * rest) ** 0.5 * rng.standard_normal(found.shape)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", ["reference", "rest", "within"])
@pytest.mark.filterwarnings("ignore::UserWarning")  # scipy's, on interpolated p-values
def test_the_sum_of_a2(asked, backend, simulated):
    values, layout = normal(), ASKED[asked] | {"strata": "batch"}
    rows, _ = rows_of(frame(), **layout)
    result, _ = run(
        screen(values), metric="anderson", p_values="asymptotic", backend=backend, **layout
    )
    assert_rows(result, rows)
    limit = 2 * (np.pi**2 - 9) / 3  # variance of A2 in the limit
    judged = 0
    for t, row in enumerate(rows):
        for g in (0, 1, 3, 4):
            samples = row.samples(values[:, g])
            if min(len(x) + len(y) for x, y in samples) < 4 or any(
                np.ptp(np.concatenate(pair)) == 0 for pair in samples
            ):
                continue
            judged += 1
            a2, variance = np.transpose([a2_and_variance(x, y) for x, y in samples])
            statistic = (a2 - 1).sum() / np.sqrt(variance.sum())
            # Worst seen: 1.4e-14.
            np.testing.assert_allclose(result["statistic"][t, g], statistic, rtol=1e-12, atol=1e-13)
            n = len(samples)
            at = n + np.sqrt(n * limit) * statistic
            sums = simulated[:n].sum(axis=0)
            p = np.mean(sums >= at)
            error = np.sqrt(max(p * (1 - p), 1e-4) / len(sums))
            # Worst seen 2.3 standard errors of the some 50 p-values.
            np.testing.assert_allclose((result["p_value"][t, g] - p) / error, 0.0, atol=4.5)
    assert judged >= 12


# --- what strata cannot change -------------------------------------------------------------------

#: A test without strata that the stratified one becomes where there is one stratum.
PLAIN: dict[str, dict[str, Any]] = {
    "wilcoxon": {"metric": "wilcoxon"},
    "less": {"metric": "wilcoxon", "alternative": "less"},
    "greater": {"metric": "wilcoxon", "alternative": "greater", "tie_correction": False},
    "t": {"metric": "t-test"},
    "t less": {"metric": "t-test", "alternative": "less"},
    "anderson": {"metric": "anderson"},
    "anderson, right": {"metric": "anderson", "variant": "right"},
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", ASKED)
@pytest.mark.parametrize("test", PLAIN)
def test_one_stratum_is_none(test, asked, backend):
    obs = frame().copy()
    obs["one"] = "s"
    values = normal()
    values[:, 2] = np.where(obs.group == "a", 0.1, 0.3)  # no spread within groups
    data, options = screen(values, obs), PLAIN[test] | ASKED[asked] | {"backend": backend}
    options["p_values"] = "asymptotic"
    plain = {}
    columns = ["log10_p"]
    if options["metric"] == "wilcoxon":
        plain = {"continuity": False, "method": "asymptotic"}
        columns += ["z", "auroc", "rank_biserial"]
    if options["metric"] == "t-test":
        columns += ["mean_difference", "mean_difference_low", "cohens_d", "hedges_g"]
    columns += ["target_fraction", "target_n_cells", "reference_n_expressed", "n_strata"]
    expected, _ = run(data, columns=columns, **options, **plain)
    found, _ = run(data, columns=columns, strata="one", **options)
    assert found.targets.tolist() == expected.targets.tolist()
    for name in found.columns:
        if name == "statistic" and options["metric"] == "wilcoxon":
            continue  # U / (N + 1), tested above
        # Worst seen: 7.3e-15.
        np.testing.assert_allclose(
            found[name], expected[name], rtol=1e-12, atol=1e-14, err_msg=name
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_of_one_stratum_among_others(backend):
    """Its conditional p-values are those of the t-test without strata."""
    obs, values = frame(), np.abs(normal())
    only = (obs.group != "a") | (obs.batch == "b1")
    found, _ = run(screen(values[only], obs[only]), metric="t-test", strata="batch",
                   columns=["log10_p", "n_strata"], backend=backend)  # fmt: skip
    assert set(found["n_strata"][:, 0].tolist()) == {1, 2}
    of_one = obs.batch == "b1"
    expected, _ = run(screen(values[of_one], obs[of_one]), metric="t-test",
                      columns=["log10_p"], backend=backend)  # fmt: skip
    rows = [result.targets.tolist().index("a") for result in (found, expected)]
    assert expected["log10_p"][rows[1]].min() < -2.5  # is computed from values
    for name in ("p_value", "log10_p"):
        np.testing.assert_array_equal(found[name][rows[0]], expected[name][rows[1]])


@pytest.mark.thorough
@given(seed=st.integers(0, 10_000), metric=st.sampled_from(["wilcoxon", "t-test", "anderson"]))
def test_a_shift_of_a_stratum_changes_nothing(seed, metric):
    """Of its values, by a whole number; and a stratum with one side adds nothing."""
    rng = np.random.default_rng(seed)
    batch, group = rng.integers(0, 3, 40), rng.integers(0, 2, 40)
    group[batch == 2] = 1
    batch[:4], group[:4] = [0, 0, 1, 1], [0, 1, 0, 1]
    values = rng.poisson(2.0, (40, 3)).astype(float)
    obs = pd.DataFrame({"group": np.array(["ctrl", "t"])[group], "batch": batch.astype(str)})
    obs.index = obs.index.astype(str)
    options = {"metric": metric, "strata": "batch", "columns": ["n_strata", "target_n_cells"]}
    options["p_values"] = "asymptotic"  # zeros that are shifted are no zeros
    one, _ = run(screen(values, obs), **options)
    shifted = values + np.array([0.0, 32.0, 7.0])[batch][:, None]
    other, _ = run(screen(shifted, obs), **options)
    # Means of sums beside 32 are rounded, of t: worst seen 1.1e-14.
    rtol = 1e-10 if metric == "t-test" else 0.0
    np.testing.assert_allclose(other["p_value"], one["p_value"], rtol=rtol)
    assert (one["n_strata"] == 2).all()
    both = batch < 2
    without, _ = run(screen(values[both], obs[both]), **options)
    for name in ("p_value", "statistic", "n_strata", "target_n_cells", "target_mean"):
        np.testing.assert_array_equal(without[name], one[name], err_msg=name)


def test_what_cannot_be_judged():
    """A gene constant in every stratum has p-value 1 whatever the alternative."""
    values = counts().copy()
    values[:, 2] = frame().batch.map({"b1": 5.0, "b2": 0.0, "b3": 1.0})
    for metric in ("wilcoxon", "t-test", "anderson"):
        for alternative in ALTERNATIVES if metric != "anderson" else [None]:
            options = {} if alternative is None else {"alternative": alternative}
            columns = ["log10_p"]
            result, _ = run(
                screen(values), metric=metric, strata="batch", columns=columns, **options
            )
            assert result["p_value"][:, 2].tolist() == [1.0] * len(result.targets)
            assert result["log10_p"][:, 2].tolist() == [0.0] * len(result.targets)
            if metric != "wilcoxon":
                assert np.isnan(result["statistic"][:, 2]).all()


def test_columns_are_pooled_over_strata_with_both_sides():
    rows, _ = rows_of(frame(), strata="batch")
    names = ("target", "reference")
    kinds = ["n_cells", "n_expressed", "fraction", "count_mean", "log_mean", "geometric_mean"]
    columns = [f"{side}_{kind}" for side in names for kind in kinds]
    result, _ = run(strata="batch", columns=[*columns, "auroc", "rank_biserial"])
    for t, row in enumerate(rows):
        for g in range(len(GENES)):
            for side, x in zip(names, row.pooled(counts()[:, g]), strict=True):
                expected = [
                    len(x), np.count_nonzero(x), np.count_nonzero(x) / len(x), x.mean(),
                    np.log1p(x).mean(), np.expm1(np.log1p(x).mean()),
                ]  # fmt: skip
                found = [result[name][t, g] for name in columns if name.startswith(side)]
                # Worst seen: 1.4e-15.
                np.testing.assert_allclose(found, expected, rtol=1e-14)
            samples = row.samples(counts()[:, g])
            u = [stats.mannwhitneyu(x, y).statistic / (len(x) + len(y) + 1) for x, y in samples]
            most = [len(x) * len(y) / (len(x) + len(y) + 1) for x, y in samples]
            auroc = sum(u) / sum(most)
            np.testing.assert_allclose(result["auroc"][t, g], auroc, rtol=1e-14)
            np.testing.assert_allclose(
                result["rank_biserial"][t, g], 2 * auroc - 1, rtol=0, atol=1e-14
            )


# --- what makes no sense -----------------------------------------------------------------------

BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"strata": "group"}, OptionError, "strata='group' is a column of groupby"),
    (
        {"strata": "type", "groupby": ["group", "type"]},
        OptionError,
        "strata='type' is a column of groupby, so no stratum would contain cells of both sides",
    ),
    ({"strata": ["batch"]}, OptionError, "strata=['batch'] must be text, not list"),
    ({"strata": "batsh"}, ColumnError, "Unknown column of obs 'batsh'. Did you mean 'batch'?"),
    (
        {"strata": "holes"},
        LabelError,
        "cells of the compared groups have no value in column 'holes'. Fill in the values",
    ),
    ({"strata": "own"}, LabelError, "No target in column 'group' shares a level of 'own'"),
    (
        {"strata": "batch", "columns": ["auroc_low"]},
        OptionError,
        "Column 'auroc_low' is not defined over strata",
    ),
    ({"strata": "batch", "metric": "ks"}, OptionError, "metric='ks' has no stratified form"),
    (
        {"strata": "batch", "metric": "t-test", "trim": 0.1},
        OptionError,
        "metric='t-test' has no stratified form with these options",
    ),
    (
        {"strata": "batch", "metric": "t-test", "variance": "welch"},
        OptionError,
        "Pass variance='pooled', or no strata=",
    ),
    (
        {"strata": "batch", "metric": "anderson", "p_values": "interpolated"},
        OptionError,
        "With strata=, use p_values='asymptotic'",
    ),
    (
        {"strata": "batch", "method": "exact"},
        OptionError,
        "method='exact' does not exist for van Elteren's test",
    ),
    (
        {"strata": "batch", "continuity": True},
        OptionError,
        "continuity=True does not exist for van Elteren's test over strata. Leave it out.",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=lambda v: str(v)[:50])
def test_what_makes_no_sense_is_refused(options, kind, message):
    obs = frame().copy()
    obs["holes"] = obs.batch.where(np.arange(len(obs)) % 7 > 0)
    obs["own"] = obs.group.fillna("none")
    with pytest.raises(kind) as caught:
        run(screen(obs=obs), **options)
    assert message in str(caught.value)
