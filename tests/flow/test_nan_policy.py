"""NaN that is left out: every column and filter is that of the matrix without these cells."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import frame, rows_of, run, screen
from scipy import stats

import pdex_gpu
from pdex_gpu.errors import DataError, OptionError
from pdex_gpu.results.schema import INTEGERS

N_GENES = 7
#: Of one gene nothing was measured in group "a", of another only in one cell of it.
EMPTY, ALMOST = 4, 5
DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {},
    "each": {"comparison": "each_reference", "reference": ["ctrl", "safe"]},
    "rest": {"comparison": "rest"},
    "perturbed": {"comparison": "perturbed"},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "d"), ("b", "ctrl")]},
    "levels": {"groupby": ["group", "type"]},
    "strata": {"strata": "batch"},
}
TESTS: list[dict[str, Any]] = [
    {},
    {"metric": "t-test"},
    {"metric": "t-test", "variance": "welch"},
    {"metric": "anderson"},
    {"metric": "ks"},
    {"method": "exact"},
]
TESTS_OVER_STRATA = [{}, {"metric": "t-test"}, {"metric": "anderson"}]


@functools.cache
def values() -> np.ndarray:
    rng, group = np.random.default_rng(8), frame()["group"].to_numpy()
    found = np.round(rng.gamma(1.0, 2.0, (len(group), N_GENES)), 1) * rng.integers(
        0, 2, (len(group), N_GENES)
    )
    found[rng.random(found.shape) < 0.2] = np.nan
    found[:, 0] = rng.permutation(len(group))  # no ties, nothing missing
    a = np.flatnonzero(group == "a")
    found[a, EMPTY] = np.nan
    found[a[1:], ALMOST], found[a[0], ALMOST] = np.nan, 3.0
    return found


def one_gene(j: int) -> Any:
    """The screen of a gene, without the cells that have no value."""
    there = ~np.isnan(values()[:, j])
    return screen(values()[there][:, [j]], frame()[there])


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("options", TESTS, ids=str)
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.SkippedWarning")
def test_every_column_is_that_of_the_cells_with_a_value(design, options):
    asked = DESIGNS[design] | options
    if design == "strata" and options not in TESTS_OVER_STRATA:
        pytest.skip("has no form over strata")
    asked |= {"is_log1p": False, "columns": "all"}
    result, _ = run(screen(values()), nan_policy="omit", **asked)
    assert result.provenance["backend"] == "numpy"
    lost = 0
    for j in range(N_GENES):
        data = one_gene(j)
        if "pairs" in asked:  # of groups with a cell
            groups = set(data.obs["group"])
            there = [pair for pair in asked["pairs"] if groups.issuperset(pair)]
            one, _ = run(data, backend="cpu", **asked | {"pairs": there})
        else:
            one, _ = run(data, backend="cpu", **asked)
        levels = [None] * len(one.targets) if one.within is None else one.within[1]
        keys = zip(one.targets, one.references, levels, strict=True)
        place = {key: at for at, key in enumerate(keys)}
        own = [None] * len(result.targets) if result.within is None else result.within[1]
        assert set(one.columns) == set(result.columns)
        for t, key in enumerate(zip(result.targets, result.references, own, strict=True)):
            for name in set(result.columns) - {"fdr"}:
                found = result[name][t, j]
                if key in place:
                    # Sums of kernel sets differ by rounding. Worst seen: log10 p near 0 1.1e-11.
                    np.testing.assert_allclose(
                        found,
                        one[name][place[key], 0],
                        rtol=1e-9,
                        atol=1e-10 if name == "log10_p" else 1e-12,
                        err_msg=f"{name} {key}",
                    )
                elif name in ("p_value", "log10_p"):
                    assert found == (name == "p_value")
                elif name.startswith(("statistic", "auroc", "mean_difference")):
                    assert np.isnan(found), name
                elif name == "n_strata":
                    assert found == 0
            lost += key not in place
    assert lost > 0


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "ks"])
def test_scipy_says_the_same(metric):
    function = {"wilcoxon": stats.mannwhitneyu, "t-test": stats.ttest_ind, "ks": stats.ks_2samp}
    options = {"wilcoxon": {"method": "asymptotic"}, "ks": {"method": "asymp"}}.get(metric, {})
    ours = {"wilcoxon": options, "t-test": {"p_values": "asymptotic"}}.get(metric, {})
    result, _ = run(screen(values()), metric=metric, nan_policy="omit", **ours)
    rows, _ = rows_of(frame())
    for t, row in enumerate(rows):
        for j in range(N_GENES):
            x, y = (side[~np.isnan(side)] for side in row.pooled(values()[:, j]))
            if min(len(x), len(y)) < 2:
                continue
            truth = function[metric](x, y, **options)
            np.testing.assert_allclose(result["statistic"][t, j], truth.statistic, rtol=1e-11)
            if metric != "ks":  # whose p-values are asymptotic here, exact in part there
                np.testing.assert_allclose(result["p_value"][t, j], truth.pvalue, rtol=1e-9)


def test_what_scipy_runs_is_given_the_cells_with_a_value():
    options = {"metric": "t-test", "trim": 0.2}
    result, _ = run(screen(values()), nan_policy="omit", **options, columns=["target_n_cells"])
    spoiled, _ = run(screen(values()), nan_policy="propagate", **options)
    rows, _ = rows_of(frame())
    for t, row in enumerate(rows):
        for j in range(N_GENES):
            both = row.pooled(values()[:, j])
            x, y = (side[~np.isnan(side)] for side in both)
            assert result["target_n_cells"][t, j] == len(x)
            if min(len(x), len(y)) > 1:
                truth = stats.ttest_ind(x, y, trim=0.2)
                np.testing.assert_allclose(result["p_value"][t, j], truth.pvalue, rtol=1e-12)
            complete = len(x) + len(y) == len(both[0]) + len(both[1])
            expected = result["statistic"][t, j] if complete else np.nan
            np.testing.assert_equal(spoiled["statistic"][t, j], expected)
    with pytest.raises(OptionError, match="'log10_p' is not available"):
        run(screen(values()), nan_policy="omit", **options, columns=["log10_p"])


def test_extreme_values_and_nan_together():
    tiny = values() * 2.0**-700
    result, _ = run(
        screen(tiny), nan_policy="omit", metric="t-test", is_log1p=False, p_values="asymptotic"
    )
    expected, _ = run(
        screen(values()), nan_policy="omit", metric="t-test", is_log1p=False, p_values="asymptotic"
    )
    np.testing.assert_allclose(result["p_value"], expected["p_value"], rtol=1e-13)
    np.testing.assert_allclose(
        result["target_mean"], expected["target_mean"] * 2.0**-700, rtol=1e-15
    )


def carriers() -> Any:
    rng = np.random.default_rng(2)
    data = screen(values())
    guides = rng.random((data.n_obs, 3)) < 0.4
    data.obsm["guides"] = pd.DataFrame(guides, columns=["x", "y", "z"], index=data.obs_names)
    return data


@pytest.mark.parametrize("comparison", ["rest", "reference"])
def test_guides_that_overlap(comparison):
    asked = {"guides": "guides", "comparison": comparison, "reference": "x", "is_log1p": False,
             "columns": "all"}  # fmt: skip
    result, _ = run(carriers(), None, nan_policy="omit", **asked)
    for j in range(N_GENES):
        data = carriers()[~np.isnan(values()[:, j])][:, [j]].copy()
        one, _ = run(data, None, backend="cpu", **asked)
        for name in set(one.columns) - {"fdr"}:
            np.testing.assert_allclose(
                result[name][:, [j]], one[name], rtol=1e-9, atol=1e-12, err_msg=name
            )


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("filtered", [{"min_fraction": 0.515}, {"min_cpm": 120_000.0}], ids=str)
@pytest.mark.parametrize("design", ["reference", "rest", "strata", "levels"])
def test_filters_count_the_cells_with_a_value(design, filtered, tmp_path):
    asked = DESIGNS[design] | {"is_log1p": False, "nan_policy": "omit", "columns": ["n_strata"]}
    result, _ = run(screen(values()), **asked, **filtered)
    rows, _ = rows_of(frame(), **DESIGNS[design])
    expected = np.zeros((len(rows), N_GENES), bool)
    for t, row in enumerate(rows):
        means = []
        for j in range(N_GENES):
            strata = [[s[~np.isnan(s)] for s in pair] for pair in row.samples(values()[:, j])]
            if design == "strata":
                strata = [pair for pair in strata if min(map(len, pair)) > 0]
            cells = np.concatenate([np.empty(0), *(s for pair in strata for s in pair)])
            means.append(cells.mean() if len(cells) else np.nan)
            if "min_fraction" in filtered:
                expected[t, j] = len(cells) > 0 and (cells != 0).mean() >= 0.515
        if "min_cpm" in filtered:
            expected[t] = np.array(means) / np.nansum(means) * 1e6 > 120_000.0
    assert 0.1 < expected.mean() < 0.95
    np.testing.assert_array_equal(result.kept, expected)
    file, _ = run(screen(values()), **asked, **filtered, out=tmp_path / "de.parquet",
                  gene_chunk_size=2)  # fmt: skip
    pd.testing.assert_frame_equal(
        file.load().to_pandas(), result.to_pandas(), check_categorical=False, check_exact=True
    )
    assert ((result.to_pandas()["n_strata"] > 0) | (design != "strata")).all()


@pytest.mark.parametrize("how", ["csr", "csc", "h5ad", "float32"])
def test_storages_and_engines(how, tmp_path):
    from scipy import sparse

    matrix = values().astype(np.float32)
    expected, _ = run(screen(matrix), nan_policy="omit", columns="all")
    data = screen(matrix if "cs" not in how else getattr(sparse, f"{how}_matrix")(matrix))
    if how == "h5ad":
        data.write_h5ad(tmp_path / "x.h5ad")
        data = tmp_path / "x.h5ad"
    more = {"gene_chunk_size": 3, "engine": "serial"} if how == "h5ad" else {}
    result, _ = run(data, nan_policy="omit", columns="all", **more)
    for name in expected.columns:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


PROPAGATED = [*TESTS[:2], {"metric": "anderson"}, {"metric": "ks"}, {"comparison": "rest"}]


@pytest.mark.parametrize("options", PROPAGATED, ids=str)
def test_propagated_nan_leaves_no_number(options):
    columns = ["auroc", "log10_p", "cohens_d", "mean_difference_low", "target_n_cells",
               "target_fraction", "target_n_expressed", "target_log_mean"]  # fmt: skip
    result, _ = run(screen(values()), nan_policy="propagate", columns=columns, is_log1p=False,
                    **options)  # fmt: skip
    filled = np.nan_to_num(values())
    plain, _ = run(screen(filled), columns=columns, is_log1p=False, **options)
    rows, _ = rows_of(frame(), **{k: v for k, v in options.items() if k == "comparison"})
    for t, row in enumerate(rows):
        for j in range(N_GENES):
            target, reference = (np.isnan(side).any() for side in row.pooled(values()[:, j]))
            for name in result.columns:
                if name == "fdr":
                    continue
                found, truth = result[name][t, j], plain[name][t, j]
                spoiled = {"target_mean": target, "target_log_mean": target,
                           "reference_mean": reference}.get(name, target or reference)  # fmt: skip
                if name in INTEGERS or name == "target_fraction" or not spoiled:
                    np.testing.assert_allclose(found, truth, rtol=1e-9, err_msg=name)
                elif name in ("p_value", "log10_p"):
                    assert found == (name == "p_value")
                else:
                    assert np.isnan(found), name


@pytest.mark.parametrize("policy", ["raise", "omit", "propagate"])
def test_infinity_is_refused_whatever_the_policy(policy):
    matrix = values().copy()
    matrix[:, 0] = 1.0
    matrix[20, 0] = -np.inf
    with pytest.raises(DataError, match=r"X is (-inf in cell 'cell20'|nan in cell)"):
        run(screen(matrix), nan_policy=policy)
    matrix = np.nan_to_num(matrix, neginf=-np.inf)
    with pytest.raises(DataError, match="X is -inf in cell 'cell20'") as caught:
        run(screen(matrix), nan_policy=policy)
    assert "nan_policy" not in str(caught.value)


def test_a_policy_that_refuses_runs_on_any_kernels():
    result, _ = run(nan_policy="raise", backend="cpu")
    assert result.provenance["backend"] == "cpu"
    with pytest.raises(DataError, match="nan_policy='omit'"):
        run(screen(values()), nan_policy="raise")
    with pytest.raises(OptionError, match="nan_policy"):
        run(nan_policy="drop")


def frames(data: Any, **options: Any) -> pd.DataFrame:
    return pdex_gpu.parallel_differential_expression(
        data, groupby_key="group", reference="ctrl", show_progress=False, is_log1p=False, **options
    )


def test_who_gives_the_advice_takes_it(tmp_path):
    from pdex_gpu.cli import main

    obs = frame().dropna(subset=["group"])
    obs = obs.astype({"group": "category"})
    data = screen(values()[frame()["group"].notna()], obs)
    for call in (functools.partial(run, data, is_log1p=False), functools.partial(frames, data)):
        for metric in ("wilcoxon", "t-test", "anderson"):
            with pytest.raises(DataError, match=r"Or pass nan_policy='omit' \(--nan-policy omit\)"):
                call(metric=metric)
            call(metric=metric, nan_policy="omit")
    controls = functools.partial(
        pdex_gpu.calibrate, data, "group", reference="ctrl", n_repeats=2, is_log1p=False,
        progress=False,
    )  # fmt: skip
    with pytest.raises(DataError, match="Or pass nan_policy='omit'"):
        controls()
    assert controls(nan_policy="omit").of().total.n_tests > 0
    for call in (
        lambda: pdex_gpu.rank_genes_groups(data, "group"),
        lambda: pdex_gpu.pdex(data, "group", reference="ctrl", is_log1p=False, as_pandas=True),
    ):
        with pytest.raises(DataError) as caught:
            call()
        text = str(caught.value)
        assert "Or use pdex_gpu.differential_expression with nan_policy='omit'" in text
    path, out = tmp_path / "x.h5ad", tmp_path / "de.parquet"
    data.write_h5ad(path)
    command = ["run", str(path), "--groupby", "group", "--reference", "ctrl", "-o", str(out)]
    assert main(command) != 0
    assert main([*command, "--nan-policy", "omit", "--columns", "target_n_cells"]) == 0
    cells = pdex_gpu.open_result(out).load()["target_n_cells"]
    assert len(np.unique(cells, axis=1).T) > 1
