"""Calibration: control cells split into mock perturbations, and what their p-values say."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu import Calibration, calibrate, differential_expression, pl
from pdex_gpu.calibration.distributions import LEVELS, distribution, quantiles
from pdex_gpu.calibration.mock_groups import CONTROL, LEFT_OUT, split_controls
from pdex_gpu.calibration.parts import Part
from pdex_gpu.errors import (
    ColumnError,
    LabelError,
    MissingDependencyError,
    OptionError,
    UnknownGroupWarning,
)
from pdex_gpu.report.calibration import calibration_part

PLOTS = (pl.calibration, pl.calibration_qq, pl.calibration_histogram)
SIZES = {"a": 30, "b": 12, "c": 55, "d": 8}
BELOW = [f"n_{level:g}" for level in LEVELS]


def screen(
    n_control: int = 220, sizes: dict[str, int] = SIZES, n_genes: int = 12, seed: int = 0
) -> anndata.AnnData:
    """Counts of every sparsity, a gene that is 0 and one that is 5, cells of three batches.

    Two cells have no label.
    """
    rng = np.random.default_rng(seed)
    labels = np.repeat(["non-targeting", *sizes, None], [n_control, *sizes.values(), 2])
    n_cells = len(labels)
    values = rng.poisson(rng.lognormal(-0.5, 1.5, n_genes), (n_cells, n_genes))
    values[:, 3], values[:, 7] = 0, 5
    obs = pd.DataFrame(
        {
            "gene": pd.Categorical(labels),
            "batch": rng.choice(["x", "y", "z"], n_cells, p=[0.5, 0.3, 0.2]),
            "lane": rng.choice([1, 2], n_cells),
            "guide": rng.choice([f"guide{i}" for i in range(40)], n_cells),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    shuffled = rng.permutation(n_cells)
    var = pd.DataFrame(index=[f"g{j}" for j in range(n_genes)])
    return anndata.AnnData(values[shuffled].astype(np.float32), obs.iloc[shuffled], var)


def run(data: Any, groupby: Any = "gene", **options: Any) -> Calibration:
    options = {"backend": "numpy", "progress": False} | options
    return calibrate(data, groupby, **options)


def same(one: Calibration, other: Calibration) -> None:
    pd.testing.assert_frame_equal(one.table(), other.table(), check_exact=True)
    np.testing.assert_array_equal(one.assignment, other.assignment)
    np.testing.assert_array_equal(one.of().quantiles.observed, other.of().quantiles.observed)
    assert one.summary() == other.summary()


# --- how cells are drawn ---------------------------------------------------------------------


@st.composite
def splits(draw: st.DrawFn, n_blocks: st.SearchStrategy[int]) -> tuple[Any, ...]:
    n = draw(n_blocks)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    blocks = rng.integers(0, n, draw(st.integers(4, 120)))
    most = draw(st.sampled_from([2, 10, 60]))
    wanted = rng.integers(0, most + 1, (draw(st.integers(1, 12)), n))
    wanted[:, 0] += wanted.sum(axis=1) == 0
    wanted[:, np.bincount(blocks, minlength=n) == 0] = 0
    wanted = wanted[wanted.sum(axis=1) > 0]
    if not len(wanted):
        wanted = np.bincount(blocks, minlength=n)[None]
    return rng, blocks, wanted


@given(case=splits(st.just(1)))
def test_groups_have_the_sizes_of_targets(case: tuple[Any, ...]):
    rng, blocks, wanted = case
    split = split_controls(rng, blocks, wanted)
    sizes, room = wanted[split.targets, 0], len(blocks) // 2
    assert len(set(split.targets)) == len(split.targets) >= 1
    assert (split.codes >= CONTROL).all()
    if (wanted > room).all():
        assert split.n_cells.tolist() == [room]
        return
    np.testing.assert_array_equal(split.n_cells, sizes)
    left = room - sizes.sum()
    assert left >= 0
    passed_over = np.delete(wanted[:, 0], split.targets)
    assert left == 0 or (passed_over > left).all()


@given(case=splits(st.integers(2, 4)), by_unit=st.booleans())
def test_half_of_each_stratum_stays_control(case: tuple[Any, ...], by_unit: bool):
    rng, blocks, wanted = case
    n_blocks = wanted.shape[1]
    units = rng.integers(0, 30, len(blocks)) if by_unit else None
    try:
        split = split_controls(rng, blocks, wanted, units)
    except LabelError:
        best = np.minimum(wanted, np.bincount(blocks, minlength=n_blocks) // 2).sum(axis=1)
        assert by_unit or best.max() < 2
        return
    n_groups = len(split.targets)
    place = blocks * (n_groups + 2) + split.codes + 2
    counts = np.bincount(place, minlength=n_blocks * (n_groups + 2)).reshape(n_blocks, -1)
    assert (counts[:, 1] >= counts.sum(axis=1) / 2).all()
    drawn, sizes = counts[:, 2:].T, wanted[split.targets]
    assert (drawn <= sizes).all()
    np.testing.assert_array_equal(drawn.sum(axis=1), split.n_cells)
    if n_groups > 1:
        assert (drawn.sum(axis=1) >= 0.9 * sizes.sum(axis=1)).all()
    if units is None:
        assert not counts[:, 0].any()
    else:
        mock, control = set(units[split.codes >= 0]), set(units[split.codes == CONTROL])
        assert not mock & control
        assert mock >= set(units[split.codes == LEFT_OUT])


def test_units_stay_whole():
    """Groups of 25 cells of units of 10: two units and a half, and the rest is left out."""
    units = np.random.default_rng(0).permutation(np.repeat(np.arange(40), 10))
    split = split_controls(
        np.random.default_rng(1), np.zeros(400, np.int64), np.full((3, 1), 25), units
    )
    assert split.n_cells.tolist() == [25, 25, 25]
    for group in range(3):
        assert len(set(units[split.codes == group])) <= 4
    n_units = len(set(units[split.codes >= 0]))
    assert n_units == 8
    assert np.count_nonzero(split.codes == LEFT_OUT) == 8 * 10 - 75
    assert np.count_nonzero(split.codes == CONTROL) == 320


def test_every_cell_and_every_size_has_its_chance():
    """A group of 16 of 40 cells has each of them, and the size of each of five targets."""
    counts, targets = np.zeros(40), np.zeros(5)
    rng = np.random.default_rng(3)
    for _ in range(4000):
        split = split_controls(rng, np.zeros(40, np.int64), np.full((5, 1), 16))
        counts[split.codes == 0] += 1
        targets[split.targets] += 1
    # Binomial counts; the worst deviation is 3.0 and 2.4 standard deviations.
    assert np.abs(counts - 1600).max() < 4 * np.sqrt(4000 * 0.4 * 0.6)
    assert np.abs(targets - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)


# --- what is reported ------------------------------------------------------------------------


def truth(adata: anndata.AnnData, found: Calibration, repeat: int, **options: Any) -> Any:
    """The comparison of one split, on its cells copied into a screen of their own."""
    codes = found.assignment[repeat]
    cells = adata[found.control_cells[codes != -2]].copy()
    codes = codes[codes != -2]
    names = np.append(found.groups, "rest")
    cells.obs["gene"] = pd.Categorical(names[codes])
    groups = found.groups[found.repeats == repeat].tolist()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return differential_expression(
            cells, options.pop("groupby", "gene"), reference="rest", groups=groups,
            backend="numpy", progress=False, **options
        )  # fmt: skip


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"metric": "t-test", "variance": "welch"},
        {"metric": "anderson", "min_fraction": 0.5},
        {"metric": "ks", "fdr_scope": "gene"},
        {"strata": "batch", "columns": ["auroc"]},
        {"groupby": ["gene", "lane"], "min_cells": 3},
        {"units": "guide", "alpha": 0.3},
    ],
    ids=lambda o: "-".join(map(str, o)) or "plain",
)
def test_numbers_are_those_of_the_comparison(options: dict[str, Any]):
    adata = screen(n_control=260)
    found = run(adata, n_repeats=2, alpha=options.get("alpha", 0.4), **_without(options, "alpha"))
    table, pooled, uninformative = found.table(), [], 0
    judged = found.of()
    for repeat in range(2):
        result = truth(adata, found, repeat, **_without(options, "units", "alpha"))
        frame = result.to_pandas()
        values = adata.X[found.control_cells[found.assignment[repeat] != LEFT_OUT]]
        constant = [g for g, x in zip(adata.var_names, values.T, strict=True) if np.ptp(x) == 0]
        assert constant == ["g3", "g7"]
        # Rare genes can be absent from a pair, too.
        with np.errstate(invalid="ignore"):
            absent = (frame["target_mean"] == 0) & (frame["reference_mean"] == 0)
        use = ~(absent | frame["feature"].isin(constant) | frame["statistic"].isna())
        for name, row in table[table["repeat"] == repeat].set_index("group").iterrows():
            own = frame["target"] == name
            p = frame["p_value"][own & use].to_numpy()
            pooled.append(p)
            uninformative += np.count_nonzero(own & ~use)
            assert row["n_tests"] == len(p)
            assert row["n_uninformative"] == np.count_nonzero(own & ~use)
            assert row["n_false_positives"] == np.count_nonzero(frame["fdr"][own] <= found.alpha)
            chi2 = np.median(stats.chi2.isf(p, 1)) / stats.chi2.median(1)
            # Another formula of the same quantile; the worst relative difference is 3e-15.
            assert row["lambda"] == pytest.approx(chi2, rel=1e-12, abs=1e-12)
            assert row["ks_distance"] == pytest.approx(
                stats.kstest(p, "uniform").statistic, abs=1e-15
            )
            assert row[BELOW].tolist() == [np.count_nonzero(p <= level) for level in LEVELS]
            own = judged.by_group[found.groups.tolist().index(name)]
            assert own.histogram.tolist() == np.histogram(p, 20, (0, 1))[0].tolist()
    every = np.concatenate(pooled)
    below = [np.count_nonzero(every <= level) for level in LEVELS]
    assert judged.total.n_tests == len(every) == judged.total.histogram.sum()
    assert judged.total.n_below.tolist() == below
    ratios = [n / (len(every) * level) for n, level in zip(below, LEVELS, strict=True)]
    np.testing.assert_allclose(judged.total.excess, ratios, rtol=1e-15)
    assert found.summary()["n_uninformative"] == uninformative > 0
    assert found.summary()["n_false_positives"] == table["n_false_positives"].sum()
    np.testing.assert_array_equal(judged.quantiles.ranks, np.arange(1, len(every) + 1))
    with np.errstate(divide="ignore"):
        np.testing.assert_array_equal(judged.quantiles.observed, -np.log10(np.sort(every)) + 0.0)
    assert sum(part.n_tests for part in judged.by_expression) == len(every)


def _without(options: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in options.items() if name not in names}


def test_bookkeeping():
    adata = screen()
    found = run(adata, n_repeats=3)
    controls = np.flatnonzero(adata.obs["gene"] == "non-targeting")
    np.testing.assert_array_equal(found.control_cells, controls)
    assert found.assignment.shape == (3, 220)
    assert found.n_targets == 4
    assert found.targets.tolist() == ["a", "b", "c", "d"] * 3  # 105 of 110 cells that may be taken
    assert found.groups.tolist() == [f"mock {k}" for k in range(1, 13)]
    assert found.repeats.tolist() == np.repeat([0, 1, 2], 4).tolist()
    assert found.n_cells.tolist() == [30, 12, 55, 8] * 3
    assert found.n_reference_cells.tolist() == [115] * 12
    for repeat, codes in enumerate(found.assignment):
        numbers, counts = np.unique(codes, return_counts=True)
        assert numbers.tolist() == [-1, *range(4 * repeat, 4 * repeat + 4)]
        assert counts.tolist() == [115, 30, 12, 55, 8]
    assert (found.assignment[0] != found.assignment[1] % 4).any()
    table = found.table()
    assert table["n_tests"].max() <= 10
    assert (table["n_tests"] + table["n_uninformative"]).tolist() == [12] * 12
    assert found.of().provenance["metric"] == "wilcoxon"


def test_too_few_controls_for_all_sizes():
    found = run(screen(n_control=80), n_repeats=6)
    assert found.n_targets == 4
    assert "c" not in found.targets  # 55 cells, where 40 may be taken
    for repeat in range(6):
        sizes = found.n_cells[found.repeats == repeat]
        assert set(sizes) in ({30, 8}, {12, 8})  # in either order; 30 and 12 are too many
    one = run(screen(n_control=80), groups=["c"])
    assert one.n_cells.tolist() == [40]
    assert one.n_target_cells.tolist() == [55]
    assert one.n_reference_cells.tolist() == [40]


def test_groups_name_the_sizes():
    found = run(screen(), groups=["d", "b"], min_cells=10)
    assert found.targets.tolist() == ["b"]
    assert found.n_targets == 1
    with pytest.warns(UnknownGroupWarning, match="zz") as caught:
        found = run(screen(), groups=["zz", "b"])
    assert found.n_targets == 1
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    ("options", "columns"),
    [
        ({"strata": "batch"}, ["batch"]),
        ({"groupby": ["gene", "lane"]}, ["lane"]),
        ({"groupby": ["gene", "lane"], "strata": "batch"}, ["lane", "batch"]),
    ],
    ids=["strata", "levels", "both"],
)
def test_strata_have_the_composition_of_targets(options: dict[str, Any], columns: list[str]):
    adata = screen(n_control=600)
    found = run(adata, **options)
    batch = adata.obs[columns].astype(str).sum(axis=1).to_numpy()
    for k, target in enumerate(found.targets):
        mock = batch[found.control_cells[found.assignment[0] == k]]
        real = batch[(adata.obs["gene"] == target).to_numpy()]
        assert sorted(mock) == sorted(real)
    assert found.n_cells.sum() == 105


def test_parts_of_the_tests():
    """Counts of every class of expression and size are those of the p-values themselves."""
    adata = screen(n_control=400, n_genes=60)
    found = run(adata, n_repeats=2, alpha=0.4, is_log1p=False)
    observed: dict[str, list[int]] = {}
    for repeat in range(2):
        result = truth(adata, found, repeat, is_log1p=False)
        cells = found.control_cells[found.assignment[repeat] == CONTROL]
        mean = adata.X[cells].mean(axis=0)
        classes = {
            "genes with mean below 0.1": mean < 0.1,
            "genes with mean 0.1 to 1": (mean >= 0.1) & (mean < 1),
            "genes with mean 1 or more": mean >= 1,
        }
        both = result["target_mean"] + result["reference_mean"] > 0
        for t, name in enumerate(result.targets):
            n = found.n_cells[found.groups.tolist().index(name)]
            size = "2 to 9" if n < 10 else "10 to 49" if n < 50 else "50 to 199"
            titles = {f"groups of {size} cells": np.ones(len(mean), bool), **classes}
            for title, genes in {"all tests": np.ones(len(mean), bool), **titles}.items():
                use = genes & both[t] & (np.ptp(adata.X, axis=0) > 0)
                p = result["p_value"][t][use]
                counts = [len(p), *(np.count_nonzero(p <= level) for level in LEVELS)]
                counts.append(np.count_nonzero(result["fdr"][t][genes] <= 0.4))
                observed[title] = np.add(observed.get(title, 0), counts).tolist()
    parts = found.parts()
    assert [part.title for part in parts] == [
        "all tests", *classes, "groups of 2 to 9 cells", "groups of 10 to 49 cells",
        "groups of 50 to 199 cells",
    ]  # fmt: skip
    assert min(part.n_tests for part in parts) > 50
    assert parts[0].n_false_positives > 0
    for part in parts:
        counts = [part.n_tests, *part.n_below, part.n_false_positives]
        assert counts == observed[part.title], part.title
    groups = {part.title: part.n_groups for part in parts}
    assert groups["all tests"] == groups["genes with mean below 0.1"] == 8
    assert [part.n_groups for part in parts[-3:]] == [2, 4, 2]
    assert parts[0].false_positives_per_group == parts[0].n_false_positives / 8
    table = found.excess_table()
    assert table["n_tests"].tolist() == [part.n_tests for part in parts]
    for k, level in enumerate(LEVELS):
        assert table[f"n_{level:g}"].tolist() == [part.n_below[k] for part in parts]
        expected = table["n_tests"] * level
        np.testing.assert_allclose(table[f"excess_{level:g}"], table[f"n_{level:g}"] / expected)
        assert table[f"few_{level:g}"].tolist() == (expected < 10).tolist()


@pytest.mark.parametrize(
    ("n_tests", "n_below", "few", "too_many"),
    [
        (100_000, (5000, 1000, 100, 10), (False,) * 4, (False,) * 4),
        (100_000, (6600, 1310, 134, 23), (False,) * 4, (True, True, True, True)),
        (100_000, (6400, 1290, 129, 22), (False,) * 4, (False,) * 4),
        (1000, (50, 10, 0, 5), (False, False, True, True), (False, False, False, True)),
        (1000, (50, 10, 6, 3), (False, False, True, True), (False, False, False, False)),
        (0, (0, 0, 0, 0), (True,) * 4, (False,) * 4),
    ],
)
def test_what_is_pointed_out(n_tests, n_below, few, too_many):
    part = Part("asymptotic", "all", "all", 3, n_tests, n_below, 6)
    assert part.few == few
    assert part.too_many == too_many
    assert part.false_positives_per_group == 2.0
    assert np.isnan(part.excess).all() == (n_tests == 0)


def test_dependence_of_highly_expressed_genes():
    """Only the genes with the largest means differ between guides."""
    rng = np.random.default_rng(5)
    adata = screen(n_control=400, n_genes=30)
    mean = rng.permutation(np.repeat([0.05, 0.5, 5.0], 10))
    adata.X = rng.normal(mean, 1e-3, adata.shape).astype(np.float32)
    level = pd.factorize(adata.obs["guide"])[0]
    adata.X[:, mean > 1] += rng.normal(0, 0.3, (40, 10)).astype(np.float32)[level]
    found = run(adata, units="guide", metric="t-test", n_repeats=20, is_log1p=False)
    low, middle, high = found.of().by_expression
    assert low.n_tests == middle.n_tests == high.n_tests == 10 * len(found.groups)
    # 0.95, 0.96 and 9.8 were seen.
    assert max(low.inflation, middle.inflation) < 1.3
    assert high.inflation > 5.0
    # 0.9, 0.9 and 300 were seen.
    assert max(low.excess[2], middle.excess[2]) < 3.0
    assert high.excess[2] > 100.0


def test_distribution_of_no_tests():
    none = distribution(np.empty(0))
    assert none.n_tests == 0
    assert np.isnan([none.inflation, none.ks_distance, *none.excess]).all()
    assert none.n_below.tolist() == [0] * 4
    assert none.histogram.tolist() == [0] * 20
    assert len(quantiles(np.empty(0)).ranks) == 0


def test_distribution_of_known_p_values():
    found = distribution(np.array([0.0, 0.001, 0.05, 0.5, 1.0, 1.0]))
    assert found.n_below.tolist() == [3, 2, 2, 1]
    np.testing.assert_allclose(found.excess, [0.5 / 0.05, 2 / 0.06, 2 / 0.006, 1 / 0.0006])
    assert found.histogram.tolist() == [2, 1, *[0] * 7, 0, 1, *[0] * 8, 2]
    assert found.ks_distance == pytest.approx(0.45)
    # Middle values 0.05 and 0.5: (3.841 + 0.4549) / 2 over 0.4549.
    assert found.inflation == pytest.approx((3.8414588 / 0.4549364 + 1) / 2, rel=1e-6)
    assert distribution(np.full(9, 1.0)).inflation == 0.0


def test_quantiles_are_thinned():
    p_values = (np.arange(100_000) + 0.5) / 100_000
    found = quantiles(p_values)
    assert found.ranks[0] == 1
    assert found.ranks[-1] == 100_000
    assert 200 < len(found.ranks) <= 400
    assert (np.diff(found.ranks) > 0).all()
    np.testing.assert_allclose(found.observed, found.expected, rtol=1e-12)
    low, high = found.band()
    assert ((low < found.expected) & (found.expected < high)).all()
    for rank, one, other in zip(found.ranks[::50], low[::50], high[::50], strict=True):
        beta = stats.beta(rank, 100_001 - rank)
        # The worst relative difference is 2e-15.
        assert 10.0**-one == pytest.approx(beta.ppf(0.975), rel=1e-9)
        assert 10.0**-other == pytest.approx(beta.ppf(0.025), rel=1e-9)
    # 0 is no logarithm.
    assert quantiles(np.array([0.0, 0.5])).observed[0] == pytest.approx(323.3, abs=0.1)


def test_repr_and_summary():
    found = run(screen())
    lines = repr(found).split("\n")
    assert len(lines) == 3
    assert "wilcoxon, 4 mock perturbations of 8-55 control cells against 115 others" in lines[0]
    assert "random splits" not in lines[0]
    part = found.parts()[0]
    ratios = "observed over expected p-values"
    assert lines[1].startswith(f"conditional: {ratios} {part.excess[0]:.3g} at 0.05 (few tests), ")
    assert lines[2] == found.checked
    assert "independence between cells (batches, guides, clones) was not checked" in found.checked
    by_guide = run(screen(), units="guide")
    assert "share a value of 'guide' (40 units) stayed together" in by_guide.checked
    assert by_guide.summary()["units"] == "guide"
    assert "in 3 random splits" in repr(run(screen(), n_repeats=3))
    assert {type(v) for v in found.summary().values()} <= {int, float, str}
    assert found.summary()["n_control_cells"] == 220


# --- null data, and data that are not --------------------------------------------------------


def null_screen(n_control: int, n_genes: int, seed: int) -> anndata.AnnData:
    """Counts without effects; 20 targets of 50 cells, whose values do not matter."""
    rng = np.random.default_rng(seed)
    n_cells = n_control + 1000
    mean = rng.lognormal(1.0, 0.5, n_genes)
    values = rng.poisson(rng.gamma(2.0, 0.5, (n_cells, n_genes)) * mean)
    labels = ["non-targeting"] * n_control + [f"t{k}" for k in np.arange(1000) % 20]
    obs = pd.DataFrame({"gene": pd.Categorical(labels)}, index=list(map(str, range(n_cells))))
    return anndata.AnnData(values.astype(np.float32), obs)


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
def test_null_screen_is_calibrated(metric: str):
    found = run(null_screen(2400, 400, seed=1), metric=metric, backend="cpu")
    total = found.of().total
    n = total.n_tests
    assert n == 20 * 400
    # Standard errors if tests were independent: 2.33 / sqrt(n) of lambda, sqrt(level / n) of rates.
    # The worst seen is 1.9 of them. The distance, times sqrt(n), is 0.82 and 1.01; independent
    # uniforms exceed 1.95 once in 1000.
    assert abs(total.inflation - 1) < 4 * 2.33 / np.sqrt(n)
    for n_below, level in zip(total.n_below, LEVELS, strict=True):
        assert abs(n_below / n - level) < 4 * np.sqrt(level / n)
    assert total.ks_distance < 1.95 / np.sqrt(n)
    assert found.of().n_false_positives.sum() == 0  # in 19 of 20 screens


def copied(adata: anndata.AnnData, times: int) -> anndata.AnnData:
    """Each cell several times over, with its own name in obs."""
    rows = np.tile(np.arange(adata.n_obs), times)
    obs = adata.obs.iloc[rows].assign(original=rows)
    return anndata.AnnData(adata.X[rows], obs.set_axis([f"cell{i}" for i in range(len(rows))]))


def test_copied_cells_inflate():
    """Four copies of a cell say as much as one: the variance of the test is four times too small.

    Splits cell by cell cannot see that, those that keep copies together do.
    """
    adata = copied(null_screen(900, 300, seed=2), 4)
    by_cell = run(adata, backend="cpu")
    by_unit = run(adata, backend="cpu", units="original")
    # 0.97 and 3.92 were seen; with 20 groups of 300 genes standard errors are 0.03 and 0.12.
    assert by_cell.of().total.inflation == pytest.approx(1.0, abs=0.12)
    assert by_unit.of().total.inflation == pytest.approx(4.0, abs=0.5)
    # P(|z| > 1.96 / 2) is 0.327; 0.319 was seen.
    assert by_unit.of().total.excess[0] == pytest.approx(0.327 / 0.05, abs=0.6)
    assert by_unit.of().n_false_positives.sum() > 300  # 523 were seen
    assert by_cell.of().n_false_positives.sum() == 0


def test_batches_of_different_depth_inflate():
    """Batches sequenced to different depth: mock perturbations of few batches seem to differ."""
    rng = np.random.default_rng(4)
    adata = null_screen(2000, 200, seed=3)
    batch = rng.integers(0, 24, adata.n_obs)
    adata.X = rng.poisson(adata.X * rng.lognormal(0, 0.6, 24)[batch][:, None]).astype(np.float32)
    adata.obs["batch"] = batch
    found = {units: run(adata, backend="cpu", units=units) for units in (None, "batch")}
    # 0.98 and 10.5 were seen. Depth moves all genes of a batch together.
    assert found[None].of().total.inflation < 1.2
    assert found["batch"].of().total.inflation > 5.0
    assert found["batch"].of().n_false_positives.sum() > 500  # 1839 were seen
    assert found[None].of().n_false_positives.sum() == 0


# --- the same, however the data are stored ---------------------------------------------------


def test_same_seed_same_numbers():
    adata = screen()
    one = run(adata, n_repeats=2, seed=7)
    same(one, run(adata, n_repeats=2, seed=7))
    # A split does not depend on how many follow.
    np.testing.assert_array_equal(run(adata, seed=7).assignment[0], one.assignment[0])
    assert (run(adata, seed=8).assignment[0] != one.assignment[0]).any()


def test_same_on_every_backend():
    adata = screen(n_control=300)
    found = [run(adata, backend=b, n_threads=n) for b, n in [("numpy", 1), ("cpu", 2)]]
    np.testing.assert_array_equal(found[0].assignment, found[1].assignment)
    one, other = (f.table() for f in found)
    # Tables are equal here, though backends may differ in the last bits of p-values.
    pd.testing.assert_frame_equal(one, other, rtol=1e-9)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", ["dense", "csr", "open", "backed", "csc", "view"])
def test_file_as_memory(kind: str, tmp_path: Path):
    adata = screen()
    expected = run(adata, n_repeats=2, strata="batch", units="guide")
    matrix = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}.get(kind, np.asarray)
    stored = anndata.AnnData(matrix(adata.X), adata.obs, adata.var)
    path = tmp_path / "screen.h5ad"
    stored.write_h5ad(path)
    options: dict[str, Any] = {"n_repeats": 2, "strata": "batch", "units": "guide"}
    if kind == "open":
        with path.open("rb") as file:
            same(run(file, **options), expected)
            assert not file.closed
    elif kind == "backed":
        backed = anndata.read_h5ad(path, backed="r")
        same(run(backed, **options), expected)
        backed.file.close()
    elif kind == "view":
        wider = anndata.concat([stored, screen(seed=9)[:20]], index_unique="-")
        same(run(wider[: adata.n_obs], **options), expected)
    else:
        same(run(path, **options), expected)


def test_matrix_is_neither_copied_nor_changed():
    adata = screen()
    before, obs = adata.X.copy(), adata.obs.copy()
    adata.X.flags.writeable = False
    run(adata)
    np.testing.assert_array_equal(adata.X, before)
    pd.testing.assert_frame_equal(adata.obs, obs)


def test_layer_and_pooled_reference():
    adata = screen()
    adata.layers["other"] = adata.X.copy()
    adata.X = np.zeros_like(adata.X)
    found = run(adata, layer="other", reference=["non-targeting", "c"])
    assert found.reference == "non-targeting + c"
    assert len(found.control_cells) == 275
    assert found.targets.tolist() == ["a", "b", "d"]
    assert found.of().total.n_tests > 0
    assert run(adata).of().total.n_tests == 0


def test_no_informative_test():
    adata = screen()
    adata.X = np.zeros_like(adata.X)
    found = run(adata, metric="t-test")
    assert found.summary()["n_uninformative"] == 48
    assert np.isnan(found.table()["lambda"]).all()
    assert "nan" not in repr(found)
    assert "observed over expected p-values - at 0.05" in repr(found)
    part = calibration_part(found)
    facts = dict(part["facts"])
    assert facts["lambda"].startswith("- (ideal: 1")
    texts = [*facts.values(), *(text for row in part["rows"] for text, _ in row)]
    assert not any("nan" in text for text in texts)


# --- pictures --------------------------------------------------------------------------------


@pytest.fixture
def pyplot() -> Any:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    yield plt
    plt.close("all")


def test_plot(pyplot: Any):
    found = run(screen(n_genes=60), n_repeats=3)
    judged = found.of()
    ax = pl.calibration(found)
    ax.figure.canvas.draw()
    drawn = [(x, marker.get_marker()) for marker in ax.lines[1:] for x in marker.get_xdata()]
    wanted = [
        (ratio, marker)
        for part in found.parts()
        for ratio, few, marker in zip(part.excess, part.few, "osD^", strict=True)
        if ratio or not few
    ]
    assert [x for x, _ in drawn] == pytest.approx([ratio for ratio, _ in wanted])
    assert [marker for _, marker in drawn] == [marker for _, marker in wanted]
    hollow = [marker.get_markerfacecolor() == "none" for marker in ax.lines[1:]]
    assert any(hollow)
    assert not all(hollow)
    rows = [text.get_text() for text in ax.get_yticklabels()]
    assert rows == [part.title for part in found.parts()]
    left = pl.calibration_qq(found)
    points = left.lines[-1].get_xydata()
    np.testing.assert_array_equal(points[:, 0], judged.quantiles.expected)
    np.testing.assert_array_equal(points[:, 1], judged.quantiles.observed)
    right = pl.calibration_histogram(found)
    assert right.figure is not left.figure
    assert right.patches[0].get_data().values.tolist() == judged.total.histogram.tolist()
    for plot in PLOTS:
        _, mine = pyplot.subplots()
        assert plot(found, mine) is mine
        with pytest.raises(OptionError, match="must be matplotlib axes"):
            plot(found, "here")


def test_plot_without_tests(pyplot: Any):
    adata = screen()
    adata.X = np.zeros_like(adata.X)
    found = run(adata)
    for plot in PLOTS:
        plot(found).figure.canvas.draw()


def test_plot_needs_matplotlib(monkeypatch: pytest.MonkeyPatch):
    found = run(screen())
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    for plot in PLOTS:
        with pytest.raises(MissingDependencyError, match=r"Run: pip install matplotlib textalloc"):
            plot(found)


# --- what cannot be done ---------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"units": "guide"}, {"strata": "batch"}])
def test_too_few_controls(options: dict[str, Any]):
    with pytest.raises(
        LabelError, match=r"reference has 3 cells.* too few to split into a mock group"
    ):
        run(screen(n_control=3), **options)
    if not options:
        assert run(screen(n_control=4)).n_cells.tolist() == [2]


def test_one_unit_is_too_few():
    adata = screen()
    adata.obs["guide"] = "the same"
    with pytest.raises(LabelError, match="220 cells of 1 units: too few"):
        run(adata, units="guide")


def test_strata_without_controls():
    adata = screen()
    adata.obs["batch"] = np.where(adata.obs["gene"] == "non-targeting", "one", "two")
    with pytest.raises(LabelError, match=r"No target .* the largest has 0"):
        run(adata, strata="batch")
    with pytest.raises(LabelError, match=r"min_cells=56 .* the largest has 55"):
        run(screen(), min_cells=56)


def test_strata_with_too_few_controls():
    """One cell of each target where controls are, and none elsewhere."""
    adata = screen(sizes={"a": 1, "b": 1})
    batch = np.where(adata.obs["gene"] == "non-targeting", "x", "y").astype(object)
    controls = np.flatnonzero(batch == "x")
    batch[controls[0]] = "y"  # half of one control cell is none
    batch[controls[1:5]] = "z"
    adata.obs["batch"] = batch
    with pytest.raises(LabelError, match="No mock group of 2 cells can be drawn"):
        run(adata, strata="batch")


def test_missing_strata_and_units():
    adata = screen()
    adata.obs["batch"] = np.where(adata.obs["gene"] == "a", None, "x")
    with pytest.raises(LabelError, match=r"30 of the 325 cells used have no value in .*batch"):
        run(adata, strata="batch")
    run(adata, units="lane")  # of the controls alone
    adata.obs["guide"] = np.where(adata.obs["gene"] == "non-targeting", None, "x")
    first = adata.obs_names[adata.obs["gene"] == "non-targeting"][:3].tolist()
    named = ", ".join(map(repr, first))
    words = f"220 of the 220 cells used have no value in column 'guide', such as {named}. Fill in"
    with pytest.raises(LabelError, match=words):
        run(adata, units="guide")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"alpha": 0.0}, "alpha=0.0 must be a number above 0 and below 1"),
        ({"alpha": 1}, "alpha=1 must be"),
        ({"alpha": float("nan")}, "alpha=nan must be"),
        ({"alpha": "0.1"}, "alpha='0.1' must be"),
        ({"alpha": True}, "alpha=True must be"),
        ({"n_repeats": 0}, "n_repeats=0 must be a whole number of at least 1"),
        ({"n_repeats": 1.5}, "n_repeats=1.5 must be"),
        ({"n_repeats": None}, "n_repeats=None must be"),
        ({"n_repeats": True}, "n_repeats=True must be"),
        ({"seed": -1}, "seed=-1 must be a whole number of at least 0"),
        ({"seed": "x"}, "seed='x' must be"),
        ({"units": 3}, "units=3 must be text"),
        ({"comparison": "rest"}, "comparison='rest' is not supported by calibrate. Mock perturb"),
        ({"comparison": "pairs", "pairs": [("a", "b")]}, "comparison='pairs' is not supported"),
        ({"pairs": [("a", "b")]}, "pairs= is only valid with comparison='pairs'"),
        ({"guides": "guides"}, "guides='guides' is not supported by calibrate"),
        ({"on_target": "gene"}, "on_target='gene' is not supported by calibrate"),
        ({"out": "table.csv"}, "out='table.csv' is not supported by calibrate"),
        ({"metric": "anderson", "p_values": "interpolated"}, "caps p-values"),
        ({"metric": "median"}, "Unknown metric 'median'"),
        ({"columns": "pvalue"}, "Unknown column 'pvalue'"),
        ({"metrik": "t-test"}, "metrik"),
        ({"test_options": {}}, "test_options"),
    ],
    ids=str,
)
def test_bad_options(options: dict[str, Any], says: str):
    with pytest.raises(OptionError, match=says):
        run(screen(n_control=10), **options)


def test_bad_labels_and_columns():
    with pytest.raises(LabelError, match=r"Unknown reference .*'control'"):
        run(screen(), reference="control")
    with pytest.raises(LabelError, match=r"Unknown group .*'zz'"):
        run(screen(), groups=["zz"])
    for options in ({"groupby": "gen"}, {"strata": "bach"}, {"units": "gide"}):
        with pytest.raises(ColumnError, match="Unknown column of obs"):
            run(screen(), **options)


def test_public_names():
    assert pdex_gpu.calibrate is calibrate
    assert pdex_gpu.Calibration is Calibration
