"""Who is compared with whom: every kind of comparison against a walk over the cells."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import brute_force
import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, GENES, assert_rows, counts, frame, rows_of, run, screen
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu.errors import LabelError, OptionError, PdexGpuError, SkippedWarning
from pdex_gpu.results.schema import EXTRA

N_CELLS_COLUMNS = ("target_n_cells", "reference_n_cells", "n_strata")

#: Every way to say what is compared with what.
ASKED: dict[str, dict[str, Any]] = {
    "reference": {},
    "groups, in order": {"groups": ["d", "a"]},
    "pooled references": {"reference": ["safe", "ctrl"]},
    "each of two": {"comparison": "each_reference", "reference": ["safe", "ctrl"]},
    "each, among themselves": {
        "comparison": "each_reference",
        "reference": ["safe", "ctrl"],
        "groups": ["ctrl", "b", "safe"],
    },
    "all against all": {
        "comparison": "each_reference",
        "reference": ["a", "b", "c", "ctrl", "d", "safe"],
        "groups": ["a", "b", "c", "ctrl", "d", "safe"],
    },
    "rest": {"comparison": "rest"},
    "rest of some": {"comparison": "rest", "groups": ["safe", "a"]},
    "rest of one": {"comparison": "rest", "groups": ["b"]},
    "perturbed": {"comparison": "perturbed"},
    "perturbed without two": {
        "comparison": "perturbed",
        "reference": ["ctrl", "safe"],
        "groups": ["c", "a"],
    },
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "d"), ("b", "a"), ("d", "safe")]},
    "pairs of one reference": {"comparison": "pairs", "pairs": [("d", "a"), ("b", "a")]},
    "one pair": {"comparison": "pairs", "pairs": [("ctrl", "a")]},
    "repeated pairs": {"comparison": "pairs", "pairs": [("b", "a"), ("d", "a"), ("b", "a")]},
}

LAYOUTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "within type": {"groupby": ["group", "type"]},
    "within type and batch": {"groupby": ["group", "type", "batch"]},
    "within batch": {"groupby": ["group", "batch"]},
    "strata": {"strata": "batch"},
    "strata within type": {"groupby": ["group", "type"], "strata": "batch"},
}


def assert_numbers(result: pdex_gpu.DEResult, rows: list[brute_force.Row]) -> None:
    """Cells, means and U are those of the cells of the rows."""
    values = counts()
    assert result["target_n_cells"][:, 0].tolist() == [row.n_target for row in rows]
    assert result["reference_n_cells"][:, 0].tolist() == [row.n_reference for row in rows]
    assert result["n_strata"][:, 0].tolist() == [len(row.strata) for row in rows]
    for t, row in enumerate(rows):
        for g in range(len(GENES)):
            x, y = row.pooled(values[:, g])
            # Worst seen: 1.4e-16 and 1.8e-16; sums of whole numbers are exact.
            np.testing.assert_allclose(result["target_mean"][t, g], x.mean(), rtol=1e-15)
            np.testing.assert_allclose(result["reference_mean"][t, g], y.mean(), rtol=1e-15)
            u = [
                (np.count_nonzero(x[:, None] > y) + np.count_nonzero(x[:, None] == y) / 2,
                 len(x) + len(y) + 1)
                for x, y in row.samples(values[:, g])
            ]  # fmt: skip
            if row.stratified:
                expected = sum(one / weight for one, weight in u)
                np.testing.assert_allclose(result["statistic"][t, g], expected, rtol=1e-15)
            else:
                assert result["statistic"][t, g] == u[0][0]


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("asked", ASKED)
def test_rows_are_those_of_the_cells(asked, layout, backend):
    options = ASKED[asked] | LAYOUTS[layout]
    rows, left_out = rows_of(frame(), **options)
    result, warned = run(backend=backend, columns=N_CELLS_COLUMNS, is_log1p=False, **options)
    assert_rows(result, rows)
    assert_numbers(result, rows)
    said = [str(w.message) for w in warned]
    assert [w.category for w in warned] == [SkippedWarning] * bool(left_out)
    if left_out:
        assert f"{len(left_out)} of {len(rows) + len(left_out)} comparisons are left out" in said[0]
        for row in left_out[:20]:
            level = ", ".join(row.level) if isinstance(row.level, tuple) else row.level
            label = row.target if level is None else f"{row.target} in {level}"
            assert repr(label) in said[0]


def test_the_cases_leave_out_rows_and_skip_strata():
    """Else the test above would see neither."""
    all_rows = [
        rows_of(frame(), **ASKED[asked] | LAYOUTS[layout]) for asked in ASKED for layout in LAYOUTS
    ]
    assert sum(bool(left_out) for _, left_out in all_rows) > 20
    assert sum(0 < len(row.strata) < 3 for rows, _ in all_rows for row in rows) > 50


# --- each test, on both sides that the cells are on --------------------------------------------

TESTS: dict[str, Any] = {
    "wilcoxon": ({"metric": "wilcoxon", "p_values": "asymptotic"}, stats.mannwhitneyu),
    "pooled": ({"metric": "t-test", "p_values": "asymptotic"}, stats.ttest_ind),
    "welch": (
        {"metric": "t-test", "variance": "welch"},
        lambda x, y: stats.ttest_ind(x, y, equal_var=False),
    ),
    "ks": (
        {"metric": "ks", "alternative": "less", "p_values": "asymptotic"},
        lambda x, y: stats.ks_2samp(x, y, "less", method="asymp"),
    ),
    "anderson": (
        {"metric": "anderson", "p_values": "interpolated"},
        lambda x, y: stats.anderson_ksamp([x, y], variant="midrank"),
    ),
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("asked", ["each, among themselves", "rest", "perturbed", "pairs"])
@pytest.mark.parametrize("test", TESTS)
@pytest.mark.filterwarnings("ignore::UserWarning")  # scipy's, on interpolated p-values
def test_tests_are_those_of_scipy(test, asked, backend):
    options, truth = TESTS[test]
    layout = ASKED[asked] | {"groupby": ["group", "type"]}
    rows, _ = rows_of(frame(), **layout)
    result, _ = run(backend=backend, **options, **layout)
    assert_rows(result, rows)
    for t, row in enumerate(rows):
        for g in (0, 1, 3, 4):
            expected = truth(*row.pooled(counts()[:, g]))
            # Worst seen: 1.2e-14 of the statistic, 4.4e-15 of the p-value, both relative.
            np.testing.assert_allclose(
                result["statistic"][t, g], expected.statistic, rtol=1e-13, atol=1e-14
            )
            np.testing.assert_allclose(result["p_value"][t, g], expected.pvalue, rtol=5e-14)


# --- how it is asked ---------------------------------------------------------------------------


def assert_same(one: pdex_gpu.DEResult, other: pdex_gpu.DEResult) -> None:
    """The same rows, and the same bits."""
    assert one.targets.astype(str).tolist() == other.targets.astype(str).tolist()
    assert one.references.astype(str).tolist() == other.references.astype(str).tolist()
    assert (one.within is None) == (other.within is None)
    if one.within is not None:
        assert one.within[1].astype(str).tolist() == other.within[1].astype(str).tolist()
    assert one.columns == other.columns
    for name in one.columns:
        a, b = (np.ascontiguousarray(r[name]).view(np.int64) for r in (one, other))
        np.testing.assert_array_equal(a, b, err_msg=name)


PAIRS = [("d", "a"), ("a", "d"), ("b", "a")]


@pytest.mark.parametrize(
    "pairs",
    [
        PAIRS,
        tuple(map(list, PAIRS)),
        np.array(PAIRS),
        iter(PAIRS),
        pd.DataFrame(PAIRS, columns=["target", "reference"], index=[7, 7, 2]),
        pd.DataFrame({"n": [1, 2, 3], "reference": ["a", "d", "a"], "target": ["d", "a", "b"]}),
        pd.DataFrame(PAIRS, columns=["target", "reference"]).astype("category"),
        [*PAIRS, ("a", "d")],
    ],
    ids=["list", "tuple", "array", "iterator", "frame", "frame+", "categories", "repeated"],
)
def test_pairs_may_be_a_table_or_a_list(pairs):
    result, _ = run(comparison="pairs", pairs=pairs)
    rows, _ = rows_of(frame(), "pairs", pairs=PAIRS)
    assert_rows(result, rows)
    assert_same(result, run(comparison="pairs", pairs=PAIRS)[0])


def relabelled(kind: str) -> tuple[pd.DataFrame, dict[Any, Any]]:
    """The labels as numbers or categories, and what each label became."""
    obs = frame().copy()
    labels = ["a", "b", "c", "ctrl", "d", "safe"]
    if kind == "categories":  # not in alphabetical order, and one that no cell has
        order = ["safe", "nobody", "a", "d", "ctrl", "c", "b"]
        obs["group"] = pd.Categorical(obs.group, categories=order)
        obs["type"] = pd.Categorical(obs.type, categories=["T", "nowhere", "B"])
        return obs, {label: label for label in labels}
    numbers: dict[Any, Any] = {"a": 2, "b": 3, "c": 7, "ctrl": 10, "d": 20, "safe": 100}
    if kind == "nullable":
        obs["group"] = obs.group.map(numbers).astype("Int64")
    else:  # missing ones make them floats
        obs["group"] = obs.group.map(numbers).astype(float)
    return obs, numbers


@pytest.mark.parametrize("kind", ["floats", "nullable", "categories"])
@pytest.mark.parametrize("asked", ["each, among themselves", "rest of some", "pairs"])
def test_labels_may_be_numbers_or_categories(asked, kind):
    obs, became = relabelled(kind)
    options = dict(ASKED[asked])
    translated = {
        name: [became[label] for label in options[name]]
        for name in ("groups", "reference")
        if name in options
    }
    if "pairs" in options:
        translated["pairs"] = [(became[t], became[r]) for t, r in options["pairs"]]
    layout = {"groupby": ["group", "type"]}
    result, _ = run(screen(obs=obs), **layout, **options | translated)
    expected, _ = run(**layout, **options)
    assert [became[t] for t in expected.targets] == result.targets.tolist()
    for name in expected.columns:
        np.testing.assert_array_equal(result[name], expected[name], err_msg=name)


def test_numbers_are_found_by_their_text_and_sorted_by_size():
    obs, _ = relabelled("nullable")
    result, _ = run(screen(obs=obs), reference="10")
    assert result.targets.tolist() == [2, 3, 7, 20, 100]
    result, _ = run(screen(obs=obs), comparison="pairs", pairs=[("2", "100")])
    assert (result.targets.tolist(), result.references.tolist()) == ([2], [100])


def test_levels_are_sorted_by_size_column_by_column():
    obs = frame().copy()
    obs["lane"] = np.array([2, 10, 1])[np.arange(len(obs)) % 3]
    result, _ = run(screen(obs=obs), ["group", "lane"], groups=["a"])
    assert result.within[0] == "lane"
    assert result.within[1].tolist() == [1, 2, 10]
    result, _ = run(screen(obs=obs), ["group", "lane", "type"], groups=["a"])
    assert result.within[0] == ("lane", "type")
    assert result.within[1].tolist() == [(n, kind) for n in (1, 2, 10) for kind in "BT"]
    table = result.to_pandas()[["lane", "type"]].drop_duplicates()
    assert list(table.itertuples(index=False, name=None)) == result.within[1].tolist()


def test_levels_without_a_cell_are_not_spoken_of():
    obs = frame().copy()
    obs["lane"] = pd.Categorical(np.where(np.arange(len(obs)) % 2, "l1", "l2"),
                                 categories=["l0", "l2", "l1", "l9"])  # fmt: skip
    data = screen(obs=obs)
    data.obs["lane"] = data.obs["lane"].cat.set_categories(["l0", "l2", "l1", "l9"])
    result, warned = run(data, ["group", "lane"], groups=["a", "b"])
    assert result.within[1].tolist() == ["l1", "l1", "l2", "l2"]
    assert not warned


def test_the_rest_is_all_labelled_cells_whatever_the_groups():
    one, _ = run(comparison="rest", columns=N_CELLS_COLUMNS, groups=["b"])
    all_, _ = run(comparison="rest", columns=N_CELLS_COLUMNS)
    b = all_.targets.tolist().index("b")
    n_labelled = np.count_nonzero(~frame().group.isna())
    assert one["reference_n_cells"][0, 0] + one["target_n_cells"][0, 0] == n_labelled
    for name in (n for n in one.columns if n != "fdr"):
        np.testing.assert_array_equal(one[name][0], all_[name][b], err_msg=name)


@given(
    labels=st.lists(st.sampled_from(["r", "s", "x", "y", None]), max_size=20),
    seed=st.integers(0, 99),
    asked=st.sampled_from(["reference", "each_reference", "rest", "perturbed"]),
    layout=st.sampled_from([{}, {"groupby": ["group", "type"]}, {"strata": "batch"}]),
    backend=st.sampled_from(BACKENDS),
)
@settings(max_examples=60)
def test_any_labels(labels, seed, asked, layout, backend):
    rng, labels = np.random.default_rng(seed), [*labels, "r", "s", "x", "y"]
    obs = pd.DataFrame(
        {
            "group": pd.Series(labels, dtype=object),
            "type": rng.choice(["T", "B"], len(labels)),
            "batch": rng.choice(["b1", "b2", "b3"], len(labels)),
        }
    )
    obs.index = obs.index.astype(str)
    values = rng.poisson(1.0, (len(labels), 2)).astype(float)
    reference = ["r", "s"] if asked == "each_reference" else "r"
    rows, left_out = rows_of(obs, asked, reference=reference, **layout)
    options = {"comparison": asked, "reference": reference, "backend": backend} | layout
    if not rows:
        with pytest.raises(LabelError, match="shares a level of"):
            run(screen(values, obs), **options)
        return
    result, warned = run(screen(values, obs), columns=N_CELLS_COLUMNS, is_log1p=False, **options)
    assert_rows(result, rows)
    assert len(warned) == bool(left_out)
    for t, row in enumerate(rows):
        assert result["n_strata"][t, 0] == len(row.strata)
        for g in range(2):
            x, y = row.pooled(values[:, g])
            # Worst seen: 2.3e-16; sums of whole numbers are exact.
            np.testing.assert_allclose(result["target_mean"][t, g], x.mean(), rtol=1e-15)
            np.testing.assert_allclose(result["reference_mean"][t, g], y.mean(), rtol=1e-15)


# --- what is left out --------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("layout", ["plain", "within type", "strata", "strata within type"])
@pytest.mark.parametrize("asked", ["reference", "all against all", "rest", "pairs"])
@pytest.mark.parametrize("min_cells", [4, 8])
def test_min_cells(asked, layout, min_cells):
    options = ASKED[asked] | LAYOUTS[layout]
    rows, left_out = rows_of(frame(), **options, min_cells=min_cells)
    without, absent = rows_of(frame(), **options)
    result, warned = run(min_cells=min_cells, columns=N_CELLS_COLUMNS, is_log1p=False, **options)
    assert_rows(result, rows)
    assert_numbers(result, rows)
    few = len(without) - len(rows)
    assert len(left_out) == few + len(absent)
    said = [str(w.message) for w in warned]
    assert len(said) == bool(few) + bool(absent)
    if few:
        assert f"{few} of {len(without)} comparisons are left out" in said[-1]
        assert f"fewer than {min_cells} cells" in said[-1]


def test_the_cases_of_min_cells_leave_out_some():
    for min_cells in (4, 8):
        rows, left_out = rows_of(frame(), groupby=["group", "type"], min_cells=min_cells)
        assert rows
        assert left_out


@pytest.mark.parametrize(
    "options",
    [
        {"groupby": ["group", "batch"]},  # the reference is in two of three batches
        {"reference": "safe", "min_cells": 18},
        {"groups": ["a", "nobody"]},
        {"groupby": ["group", "type"], "comparison": "pairs", "pairs": [("d", "a")]},
    ],
    ids=["levels", "min_cells", "groups", "pairs"],
)
def test_warnings_point_to_the_call(options):
    _, warned = run(**options)
    assert [Path(w.filename).name for w in warned] == ["brute_force.py"]


def test_strata_without_both_sides_are_logged(caplog):
    rows, _ = rows_of(frame(), strata="batch")
    skipped = sum(3 - len(row.strata) for row in rows)
    with caplog.at_level(logging.INFO, "pdex_gpu"):
        run(strata="batch")
    text = f"{skipped} of {3 * len(rows)} (row, stratum) pairs, in {len(rows)} rows"
    assert [text in message for message in caplog.messages].count(True) == 1


# --- what makes no sense -----------------------------------------------------------------------

_NO_PAIR = "must be rows of (target, reference): a list of pairs, or a table with these two columns"
_TOGETHER = "pairs= is only valid with comparison='pairs'"

BAD: list[tuple[dict[str, Any], type[PdexGpuError], str]] = [
    ({"comparison": "Rest"}, OptionError, "Unknown comparison 'Rest'. Did you mean 'rest'?"),
    ({"comparison": None}, OptionError, "comparison=None must be text, not NoneType"),
    (
        {"comparison": "each_reference"},
        OptionError,
        "needs several references, but reference='ctrl' is only one. Pass a list",
    ),
    (
        {"comparison": "each_reference", "reference": ["ctrl", "ctrl"]},
        OptionError,
        "needs several references, but reference=['ctrl', 'ctrl'] is only one",
    ),
    ({"comparison": "pairs"}, OptionError, _TOGETHER),
    ({"pairs": [("a", "b")]}, OptionError, _TOGETHER),
    ({"comparison": "rest", "pairs": [("a", "b")]}, OptionError, _TOGETHER),
    ({"comparison": "pairs", "pairs": []}, OptionError, "pairs= is empty"),
    (
        {"comparison": "pairs", "pairs": pd.DataFrame({"target": [], "reference": []})},
        OptionError,
        "pairs= is empty",
    ),
    (
        {"comparison": "pairs", "pairs": [("a", "b"), ("a", "Ctrl")]},
        LabelError,
        "The pair ('a', 'Ctrl') names a reference that is no group: Unknown group in column "
        "'group': 'Ctrl'. Did you mean 'ctrl'?",
    ),
    (
        {"comparison": "pairs", "pairs": [("x", "a")]},
        LabelError,
        "The pair ('x', 'a') names a target that is no group",
    ),
    (
        {"comparison": "pairs", "pairs": [("a", None)]},
        LabelError,
        "The pair ('a', None) names a reference that is no group",
    ),
    (
        {"comparison": "pairs", "pairs": [("a", "a")]},
        LabelError,
        "The pair ('a', 'a') compares a group with itself. Remove it",
    ),
    ({"comparison": "pairs", "pairs": "ab"}, OptionError, f"pairs='ab' {_NO_PAIR}"),
    ({"comparison": "pairs", "pairs": ["ab"]}, OptionError, _NO_PAIR),
    ({"comparison": "pairs", "pairs": [("a", "b", "c")]}, OptionError, _NO_PAIR),
    ({"comparison": "pairs", "pairs": [("a", ["b"])]}, OptionError, _NO_PAIR),
    ({"comparison": "pairs", "pairs": {"target": ["a"]}}, OptionError, _NO_PAIR),
    ({"comparison": "pairs", "pairs": 3}, OptionError, f"pairs=3 {_NO_PAIR}"),
    (
        {"comparison": "pairs", "pairs": pd.DataFrame({"target": ["a"], "ref": ["b"]})},
        OptionError,
        "pairs= has no column 'reference': it needs target and reference, but has 'target', 'ref'",
    ),
    (
        {"comparison": "pairs", "pairs": [("a", "b")], "groups": ["a"]},
        OptionError,
        "groups= and pairs= both select the comparisons",
    ),
    ({"groups": ["ctrl"]}, LabelError, "No target group is left to compare with 'ctrl'"),
    ({"groups": []}, LabelError, "No target group is left to compare with 'ctrl'"),
    ({"groups": ["B"]}, LabelError, "Unknown group in column 'group': 'B'. Did you mean 'b'?"),
    ({"groups": 3}, OptionError, "groups=3 must be labels of the column"),
    ({"groups": [["a"]]}, OptionError, "groups=[['a']] must be labels of the column"),
    ({"reference": "Ctrl"}, LabelError, "'Ctrl'. Did you mean 'ctrl'?"),
    ({"reference": ["ctrl", "x"]}, LabelError, "Unknown reference in column 'group': 'x'"),
    ({"reference": []}, OptionError, "reference=[] names no group"),
    (
        {"comparison": "perturbed", "reference": ["a", "b", "c", "d", "safe"]},
        LabelError,
        "No target group is left to compare with the other perturbed cells",
    ),
    (
        {"comparison": "perturbed", "groups": ["ctrl"]},
        LabelError,
        "No target group is left to compare with the other perturbed cells",
    ),
    ({"groupby": ["group", "group"]}, OptionError, "names a column twice"),
    (
        {"groupby": []},
        OptionError,
        "or a list of columns with that of the groups first",
    ),
    ({"groupby": ["group", 3]}, OptionError, "a column of obs, or a list of columns"),
    ({"groupby": {"group"}}, OptionError, "must be text, not set"),
    (
        {"groupby": ["group", "typo"]},
        pdex_gpu.errors.ColumnError,
        "Unknown column of obs 'typo'. Did you mean 'type'?",
    ),
    (
        {"groupby": ["group", "holes"]},
        LabelError,
        "21 cells of the compared groups have no value in column 'holes'. Fill in the values",
    ),
    ({"min_cells": 0}, OptionError, "min_cells=0 must be a whole number of at least 1."),
    ({"min_cells": None}, OptionError, "min_cells=None must be a whole number of at least 1."),
    ({"min_cells": 2.5}, OptionError, "min_cells=2.5 must be a whole number of at least 1."),
    (
        {"min_cells": 1000},
        LabelError,
        "min_cells=1000 leaves no comparison: the largest target has 31 cells, the largest "
        "reference 17. Lower min_cells.",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=lambda v: str(v)[:40])
def test_what_makes_no_sense_is_refused(options, kind, message):
    obs = frame().copy()
    obs["holes"] = obs.batch.where(np.arange(len(obs)) % 7 > 0)
    with pytest.raises(kind) as caught:
        run(screen(obs=obs), **options)
    assert message in str(caught.value)


def test_cells_that_are_not_compared_need_no_level():
    obs = frame().copy()
    obs["holes"] = obs.batch.where(~obs.group.isin(["a", "b", "c"]))
    result, _ = run(screen(obs=obs), ["group", "holes"], groups=["d", "safe"])
    rows, _ = rows_of(frame(), groupby=["group", "batch"], groups=["d", "safe"])
    assert_rows(result, rows)
    result, _ = run(screen(obs=obs), groups=["d", "safe"], strata="holes")
    assert_rows(result, rows_of(frame(), groups=["d", "safe"], strata="batch")[0])
    with pytest.raises(LabelError, match="cells of the compared groups have no value"):
        run(screen(obs=obs), ["group", "holes"], groups=["d"], comparison="rest")


# --- the same bits -----------------------------------------------------------------------------

DESIGNS: dict[str, dict[str, Any]] = {
    "strata": {"strata": "batch"},
    "pairs": ASKED["pairs"] | {"groupby": ["group", "type"]},
    "rest": {"comparison": "rest", "groups": ["safe", "a", "b"]},
}
#: Of the tests and columns that take every kernel.
METRICS: dict[str, dict[str, Any]] = {
    "wilcoxon": {"metric": "wilcoxon", "columns": tuple(EXTRA)},
    "t-test": {"metric": "t-test", "columns": ["log10_p", "hedges_g", "mean_difference_low"]},
    "anderson": {"metric": "anderson", "columns": ["log10_p", "auroc"]},
    "ks": {"metric": "ks", "columns": ["log10_p", "rank_biserial"]},
}


def logged() -> np.ndarray:
    """Log-normalised counts, float32, of more genes than one task takes."""
    values = np.tile(counts(), (1, 12)) + np.arange(72) % 5
    values[:, 2::12] = 0
    return np.log1p(values / (1 + values.sum(axis=1, keepdims=True)) * 300).astype(np.float32)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize(
    ("design", "metric"), [(d, m) for d in DESIGNS for m in METRICS if (d, m) != ("strata", "ks")]
)
def test_the_same_bits_however_it_runs(design, metric, tmp_path):
    options = DESIGNS[design] | METRICS[metric] | {"backend": "cpu", "fdr_scope": "target"}
    if design == "strata":
        options["columns"] = [c for c in options["columns"] if c not in ("auroc_low", "auroc_high")]
    values = logged()
    expected, _ = run(screen(values), **options, engine="serial", n_threads=1)
    assert np.isfinite(expected["p_value"]).all()
    stored = {
        "csr": screen(sparse.csr_matrix(values)),
        "csc": screen(sparse.csc_matrix(values)),
        "columns": screen(np.asfortranarray(values)),
        "file": tmp_path / "csr.h5ad",
        "file by genes": tmp_path / "csc.h5ad",
    }
    stored["csr"].write_h5ad(stored["file"])
    stored["csc"].write_h5ad(stored["file by genes"])
    ways: dict[str, tuple[str, dict[str, Any]]] = {
        "chunks": ("csr", {"gene_chunk_size": 7, "n_workers": 2, "engine": "threads"}),
        "threads": ("csr", {"n_threads": 3}),
        "one gene": ("csc", {"gene_chunk_size": 1, "engine": "serial"}),
        "columns": ("columns", {}),
        "file": ("file", {"gene_chunk_size": 10}),
        "file by genes": ("file by genes", {"gene_chunk_size": 31}),
    }
    for way, (name, how) in ways.items():
        found, _ = run(stored[name], **options, **how)
        try:
            assert_same(found, expected)
        except AssertionError as error:
            raise AssertionError(f"{way}: {error}") from error
    out = tmp_path / "out.parquet"
    run(stored["csr"], **options, gene_chunk_size=7, out=out)
    run(stored["file"], **options, out=tmp_path / "again.parquet")
    assert out.read_bytes()[:4] == b"PAR1"
    loaded = pd.read_parquet(out)
    again = pd.read_parquet(tmp_path / "again.parquet")
    for name in expected.columns:
        bits = np.ascontiguousarray(expected.flat(name)).view(np.int64)
        for table in (loaded, again):
            np.testing.assert_array_equal(table[name].to_numpy().view(np.int64), bits, name)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("design", "metric"),
    [
        ("strata", "wilcoxon"),
        pytest.param("pairs", "anderson", marks=pytest.mark.slow),
        pytest.param("rest", "t-test", marks=pytest.mark.slow),
    ],
)
def test_the_same_bits_in_processes(design, metric):
    data, options = screen(sparse.csr_matrix(logged())), DESIGNS[design] | {"metric": metric}
    expected, _ = run(data, **options, backend="cpu", engine="serial")
    found, _ = run(data, **options, backend="cpu", engine="shared_memory", n_workers=2)
    assert found.provenance["engine"] == "shared_memory"
    assert_same(found, expected)
