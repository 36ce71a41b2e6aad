"""The call of pdex 0.3.0: its signature, its table, its numbers, its errors."""

from __future__ import annotations

import inspect
import json
import re
import sys
import warnings
from contextlib import nullcontext
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import DATA
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.compat.pdex_0_3 import COLUMNS, MODES

TRUTH = DATA / "pdex_modes.npz"  # see make_pdex_modes.py there
CALLS = json.loads(str(np.load(TRUTH)["calls"]))
SCHEMA = {
    name: pl.String if name in ("target", "feature")
    else pl.Int64 if name.endswith("membership") else pl.Float64
    for name in COLUMNS
}  # fmt: skip

# pdex 0.3.0, and what this package adds.
SIGNATURE = [
    ("adata", inspect.Parameter.empty), ("groupby", inspect.Parameter.empty), ("mode", "ref"),
    ("threads", 0), ("is_log1p", None), ("geometric_mean", True), ("as_pandas", False),
    ("epsilon", 1e-9), ("cpm_filter", None),
]  # fmt: skip
ADDED = [("backend", "auto"), ("normalize", None)]

# Worst relative differences from pdex in these golden files: p_value and fdr 3.0e-14, means
# 2.1e-15. (Of the three real screens in full: 1.9e-13 and 9.8e-15.)
CLOSE = {"rtol": 1e-12, "atol": 0}
# Ratios of nearly equal means have lost digits to cancellation: worst absolute difference 5.4e-15.
RATIO = {"rtol": 1e-12, "atol": 1e-13}
UNSTABLE = ("ref_mean", "log2_fold_change", "percent_change")

pytestmark = pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(TRUTH) as stored:
        return dict(stored)


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


def screen(truth, matrix="counts", form=sparse.csr_matrix, dtype=np.float64) -> ad.AnnData:
    """A screen of the golden files; some of its cells have no label, others the empty one."""
    prefix = "real " if matrix == "real" else ""
    codes, labels = truth[f"{prefix}codes"], truth[f"{prefix}labels"].tolist()
    group = pd.Categorical.from_codes(codes, labels)
    obs = pd.DataFrame({"group": group}, index=[f"cell{i}" for i in range(len(codes))])
    own = json.loads(str(truth[f"{prefix}own"]))
    obs["gene"] = pd.Series(group).astype(object).map(own).to_numpy()
    genes = [f"g{j}" for j in range(truth[matrix].shape[1])]
    return ad.AnnData(form(truth[matrix].astype(dtype)), obs=obs, var=pd.DataFrame(index=genes))


def run(adata, mode="ref", **options):
    if mode != "all":
        options = {"reference": "ctl", **options}
    if mode == "on_target":
        options = {"gene_col": "gene", **options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.SkippedWarning)  # a gene is not there
        return pdex_gpu.pdex(adata, "group", mode, **{"is_log1p": False, **options})


# --- against pdex's answers -----------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("form", [sparse.csr_matrix, np.asarray])
@pytest.mark.parametrize("name", CALLS)
def test_the_numbers_are_pdexs(truth, name, form):
    matrix, options = CALLS[name]
    if matrix == "real" and options["mode"] != "all":
        options = {"reference": "non-targeting", **options}
    table = run(screen(truth, matrix, form), **options)
    assert table.schema == SCHEMA
    known = {column: truth[f"{name}/{column}"] for column in COLUMNS}
    exact = ("target", "feature", "target_membership", "ref_membership", "statistic")
    for column in exact:
        np.testing.assert_array_equal(table[column].to_numpy(), known[column], column)
    for column in ("target_mean", "p_value", "fdr"):
        np.testing.assert_allclose(table[column].to_numpy(), known[column], **CLOSE)
    # In mode all pdex subtracts, and what is left of a rest of zeros is no number to compare with.
    nothing = (table["ref_mean"].to_numpy() == 0.0) & (options["mode"] == "all")
    assert (known["ref_mean"][nothing] < 1e-15).all()
    for column in UNSTABLE:
        ours, theirs = table[column].to_numpy()[~nothing], known[column][~nothing]
        np.testing.assert_allclose(ours, theirs, **RATIO, err_msg=column)


def test_the_golden_files_hold_what_matters(truth):
    """Filters that leave rows out, changes that are infinite, zeros over zeros."""
    assert {options["mode"] for _, options in CALLS.values()} == set(MODES)
    ref = truth["counts ref geometric epsilon 0/log2_fold_change"]
    assert np.isposinf(ref).any()
    assert np.isneginf(ref).any()
    n_all = len(truth["counts ref arithmetic /target"])
    assert 0 < len(truth["counts ref arithmetic cpm/target"]) < n_all
    assert 0 < len(truth["counts on_target arithmetic cpm/target"]) <= 2
    both = (truth["counts all arithmetic /target_mean"] == 0) & (
        truth["counts all arithmetic /ref_mean"] == 0
    )
    assert both.any()
    assert (truth["codes"] == -1).any()
    assert (truth["codes"] == 5).any()  # the empty label


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("dtype", [np.float32, np.int64, np.uint8, np.int16])
@pytest.mark.parametrize("mode", MODES)
def test_means_do_not_depend_on_the_dtype(truth, mode, dtype):
    """pdex's do: sparse float32 is added up in float32, and integers are refused."""
    for form in (sparse.csr_matrix, np.asarray):
        expected = run(screen(truth, form=form), mode)
        assert run(screen(truth, form=form, dtype=dtype), mode).equals(expected)


@pytest.mark.parametrize("mode", ["ref", "all"])
def test_backends_agree(truth, mode):
    """The log of a mean may differ in its last bit, as the order of additions does."""
    one, other = (
        run(screen(truth, "log1p"), mode, is_log1p=True, backend=backend)
        for backend in ("cpu", "numpy")
    )
    for column in COLUMNS[2:]:
        np.testing.assert_allclose(one[column], other[column], **RATIO)


# --- against scipy, and by the formulas ------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.sampled_from(["ref", "all"]), st.booleans(), st.booleans())
def test_scipy_says_the_same(seed, mode, is_log1p, geometric):
    rng = np.random.default_rng(seed)
    labels = np.array(["ctl", "x", "y"])[np.append([0, 1, 2], rng.integers(0, 3, 27))]
    values = rng.poisson(1.2, (30, 3)) * rng.integers(0, 2, 3)  # some genes are silent
    values = np.log1p(values) if is_log1p else values.astype(float)
    obs = pd.DataFrame({"group": labels}, index=[f"c{i}" for i in range(30)])
    epsilon = float(rng.choice([1e-9, 0.0, 0.5]))
    table = run(ad.AnnData(values, obs=obs), mode, is_log1p=is_log1p, geometric_mean=geometric,
                epsilon=epsilon, as_pandas=True)  # fmt: skip
    logs, counts = (values, np.expm1(values)) if is_log1p else (np.log1p(values), values)
    groups = sorted(set(labels) - (set() if mode == "all" else {"ctl"}))
    assert table["target"].tolist() == np.repeat(groups, 3).tolist()
    for group, rows in table.groupby("target", sort=False):
        sides = labels == group, (labels != group) if mode == "all" else (labels == "ctl")
        p_values = []
        for j, row in enumerate(rows.itertuples()):
            x, y = (values[side, j] for side in sides)
            with np.errstate(all="ignore"):
                found = stats.mannwhitneyu(x, y, method="asymptotic")
            assert row.statistic == found.statistic
            # Worst seen: 3e-15.
            np.testing.assert_allclose(row.p_value, found.pvalue, rtol=1e-13)
            p_values.append(row.p_value)
            t, r = (np.expm1(logs[s, j].mean()) if geometric else counts[s, j].mean()
                    for s in sides)  # fmt: skip
            np.testing.assert_allclose([row.target_mean, row.ref_mean], [t, r], rtol=1e-13)
            assert (row.target_membership, row.ref_membership) == tuple(s.sum() for s in sides)
            t, r = row.target_mean, row.ref_mean
            if t + epsilon == 0 and r + epsilon == 0:
                assert (row.log2_fold_change, row.percent_change) == (0.0, 0.0)
            else:
                with np.errstate(divide="ignore"):
                    change = np.log2(np.float64(t + epsilon) / (r + epsilon))
                    percent = np.float64(t - r) / (r + epsilon)
                assert (row.log2_fold_change, row.percent_change) == (change, percent)
        fdr = stats.false_discovery_control(p_values)
        np.testing.assert_allclose(rows["fdr"], fdr, rtol=1e-13)


def test_small_groups_without_ties_are_not_tested_exactly():
    values = np.random.default_rng(4).uniform(size=(20, 5))
    obs = pd.DataFrame({"group": ["x"] * 5 + ["ctl"] * 15}, index=[f"c{i}" for i in range(20)])
    table = run(ad.AnnData(values, obs=obs))
    expected = [stats.mannwhitneyu(values[:5], values[5:], method=m).pvalue
                for m in ("asymptotic", "exact")]  # fmt: skip
    np.testing.assert_allclose(table["p_value"], expected[0], rtol=1e-13)
    assert not np.allclose(*expected, rtol=1e-3)


def test_on_target_corrects_over_all_rows(truth):
    table = run(screen(truth), "on_target")
    assert table.height == 2
    fdr = stats.false_discovery_control(table["p_value"].to_numpy())
    np.testing.assert_allclose(table["fdr"], fdr, rtol=1e-15)


# --- the call -------------------------------------------------------------------------------


def test_the_signature_is_pdexs():
    *parameters, kwargs = inspect.signature(pdex_gpu.pdex).parameters.values()
    assert [(p.name, p.default) for p in parameters] == SIGNATURE + ADDED
    own, added = parameters[: len(SIGNATURE)], parameters[len(SIGNATURE) :]
    assert {p.kind for p in own} == {inspect.Parameter.POSITIONAL_OR_KEYWORD}
    assert {p.kind for p in added} == {inspect.Parameter.KEYWORD_ONLY}
    assert kwargs.kind == inspect.Parameter.VAR_KEYWORD


def test_as_pandas(truth):
    adata = screen(truth)
    frame, table = run(adata, as_pandas=True), run(adata)
    assert type(frame) is pd.DataFrame
    assert tuple(frame.columns) == COLUMNS
    for name in COLUMNS:
        assert frame[name].tolist() == table[name].to_list()
    assert frame["target_membership"].dtype == np.int64
    assert frame["p_value"].dtype == np.float64


def test_files_give_the_same(truth, tmp_path):
    """Backed, or by its path: then targets are sorted, as they are here."""
    for form in (sparse.csr_matrix, sparse.csc_matrix, np.asarray):
        adata = screen(truth, form=form)
        path = tmp_path / f"{form.__name__}.h5ad"
        adata.write_h5ad(path)
        expected = run(adata, is_log1p=None, cpm_filter=2e4)
        backed = ad.read_h5ad(path, backed="r")
        assert run(backed, is_log1p=None, cpm_filter=2e4).equals(expected)
        backed.file.close()
        assert run(path, is_log1p=None, cpm_filter=2e4).equals(expected)
        assert run(str(path), "on_target").equals(run(adata, "on_target"))


def test_labels_of_text_and_numbers_are_sorted(truth):
    adata = screen(truth)
    text = adata.obs["group"].astype(object)
    adata.obs["group"] = text
    table = run(adata)
    assert table["target"].unique(maintain_order=True).to_list() == ["a", "b", "c", "d"]
    adata.obs["group"] = text.map({"ctl": 10, "a": 2, "b": 1, "c": 33, "d": 4}).astype("Int64")
    numbered = run(adata, reference=10)
    assert numbered.schema["target"] == pl.Int64
    assert numbered["target"].unique(maintain_order=True).to_list() == [1, 2, 4, 33]
    assert run(adata, reference="10").equals(numbered)
    assert run(adata, reference=10, as_pandas=True)["target"].dtype.kind == "i"


@pytest.mark.parametrize("ordered", [False, True])
def test_the_order_of_categories(truth, ordered):
    """Removing "" sorts them in pandas, and so in pdex, unless they have an order."""
    adata = screen(truth)
    adata.obs["group"] = adata.obs["group"].cat.set_categories(
        ["c", "ctl", "b", "unused", "d", "a", ""], ordered=ordered
    )
    expected = ["c", "b", "d", "a"] if ordered else ["a", "b", "c", "d"]
    assert run(adata)["target"].unique(maintain_order=True).to_list() == expected
    adata = adata[adata.obs["group"] != ""].copy()
    adata.obs["group"] = adata.obs["group"].cat.set_categories(["c", "ctl", "b", "d", "a"])
    table = run(adata, "all")
    assert table["target"].unique(maintain_order=True).to_list() == ["c", "ctl", "b", "d", "a"]


def test_unlabelled_cells_are_left_out(truth):
    """Neither missing nor empty labels are in anybody's rest; the package says so, as elsewhere."""
    adata = screen(truth)
    with pytest.warns(errors.MissingLabelWarning) as caught:
        table = pdex_gpu.pdex(adata, "group", "all", is_log1p=False)
    assert caught[0].filename == __file__
    labelled = adata[adata.obs["group"].isin(["a", "b", "c", "d", "ctl"]).to_numpy()].copy()
    other = run(labelled, "all").sort("target", maintain_order=True)  # its "" is no category
    for column in COLUMNS[2:]:  # the rest is added up in another order
        np.testing.assert_allclose(other[column], table[column], **RATIO)
    assert other[["target", "feature"]].equals(table[["target", "feature"]])
    assert set(table["target_membership"] + table["ref_membership"]) == {labelled.n_obs}


@pytest.mark.parametrize("form", [sparse.csr_matrix, np.asarray, sparse.csc_matrix])
def test_logarithms_are_found_by_the_first_500_cells(form, caplog):
    values = np.ones((600, 3))
    values[499, 1] = 20.0
    obs = pd.DataFrame({"group": ["ctl", "x"] * 300}, index=[f"c{i}" for i in range(600)])
    for row, largest, expected in ((499, 20.0, False), (499, 19.9, True), (500, 99.0, True)):
        values = np.ones((600, 3))
        values[row, 1] = largest
        caplog.clear()
        # What is found among the later cells does not change it, but is told.
        told: Any = nullcontext()
        if row == 500:
            told = pytest.warns(errors.ScaleWarning, match="its values reach 99")
        with caplog.at_level("WARNING", logger="pdex_gpu"), told:
            table = run(ad.AnnData(form(values), obs=obs), is_log1p=None)
        (line,) = (r.getMessage() for r in caplog.records)
        assert f"auto-detected {expected}" in line
        # A mean of logarithms is taken back, one of counts is not: exactly 1 either way round.
        mean = table["target_mean"][0]
        np.testing.assert_allclose(mean, np.expm1(1.0) if expected else 1.0, rtol=1e-14)
    caplog.clear()
    with pytest.warns(errors.ScaleWarning, match="its values reach 99"):
        run(ad.AnnData(form(values), obs=obs), is_log1p=True)
    assert not caplog.records


def test_cpm_counts_all_genes(truth):
    """One gene a million times over: with it, no other passes."""
    adata = screen(truth, form=np.asarray)
    assert len(set(run(adata, cpm_filter=10.0)["feature"])) > 5
    kept = run(adata, cpm_filter=-1.0)
    assert kept.equals(run(adata))
    adata.X[:, 0] = 1e9
    assert set(run(adata, cpm_filter=10.0)["feature"]) == {"g0"}
    assert run(adata, "on_target", cpm_filter=10.0).height == 0
    assert run(adata, "on_target", cpm_filter=10.0).schema == SCHEMA


@pytest.mark.parametrize("threads", [1, 2, 10_000])
def test_threads(truth, threads):
    assert run(screen(truth), threads=threads).equals(run(screen(truth)))


# --- what cannot be used --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "options", "message"),
    [
        ("refs", {}, "Unknown mode 'refs'. Did you mean 'ref'"),
        ("ref", {"epsilon": -1e-9}, "epsilon must be non-negative, got -1e-09"),
        ("ref", {"epsilon": float("nan")}, "epsilon must be non-negative"),
        ("ref", {"epsilon": None}, "epsilon=None must be a number"),
        ("ref", {"cpm_filter": "5"}, "cpm_filter='5' must be a number"),
        ("ref", {"threads": -1}, "threads=-1 must be"),
        ("ref", {"threads": 1.5}, "threads=1.5 must be"),
        ("ref", {"geometric_mean": "yes"}, "geometric_mean='yes' must be"),
        ("ref", {"is_log1p": 1}, "is_log1p=1 must be"),
        ("ref", {"reference": "nobody"}, "Unknown reference in column 'group': 'nobody'"),
        ("ref", {"reference": ""}, "Unknown reference in column 'group': ''"),
        ("ref", {"reference": ["ctl"]}, "must be one label"),
        ("on_target", {"reference": "nobody"}, "Unknown reference in column 'group': 'nobody'"),
        ("on_target", {"gene_col": None}, "'gene_col' is required for mode='on_target'"),
        ("on_target", {"gene_col": "genes"}, "Unknown column of obs 'genes'"),
        ("ref", {"backend": "gpu"}, "Unknown backend 'gpu'"),
    ],
)
def test_misuse_is_a_value_error(truth, mode, options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        run(screen(truth), mode, **options)


def test_a_missing_column_is_a_value_error(truth):
    with pytest.raises(errors.OptionError, match="Unknown column of obs 'groups'"):
        pdex_gpu.pdex(screen(truth), "groups")
    with pytest.raises(errors.OptionError, match="groupby=3 must be text"):
        pdex_gpu.pdex(screen(truth), 3)


@pytest.mark.parametrize("mode", ["ref", "all"])
def test_nothing_to_compare(truth, mode):
    adata = screen(truth)
    adata = adata[(adata.obs["group"] == "ctl").to_numpy()].copy()
    with pytest.raises(errors.LabelError, match="No target group is left"):
        run(adata, mode)


@pytest.mark.parametrize("genes", [["g0", "g1"], ["gone", "lost"]])
def test_a_group_of_several_genes(truth, genes):
    adata = screen(truth)
    cells = np.flatnonzero(adata.obs["group"] == "a")
    adata.obs.iloc[cells, adata.obs.columns.get_loc("gene")] = genes[0]
    adata.obs.iloc[cells[3], adata.obs.columns.get_loc("gene")] = genes[1]
    with pytest.raises(errors.LabelError, match="Group 'a' of column 'group' has several genes"):
        run(adata, "on_target")


def test_genes_that_are_not_there(truth):
    adata = screen(truth)
    with pytest.warns(UserWarning, match=r"^Found 1 groups .*: c \(no such gene\)$") as caught:
        table = pdex_gpu.pdex(
            adata, "group", "on_target", is_log1p=False, reference="ctl", gene_col="gene"
        )
    assert caught[0].filename == __file__
    assert table["target"].to_list() == ["a", "b"]  # d has no gene, which is nothing to say
    adata.obs["gene"] = "no such gene"
    for as_pandas in (False, True):
        empty = run(adata, "on_target", as_pandas=as_pandas)
        assert tuple(empty.columns) == COLUMNS
        assert len(empty) == 0
    assert run(adata, "on_target").schema == SCHEMA


@pytest.mark.parametrize(
    ("mode", "options", "ignored"),
    [("all", {"reference": "ctl"}, "reference"), ("ref", {"gene_col": "gene"}, "gene_col"),
     ("ref", {"num_workers": 3, "groups": 1}, "num_workers, groups")],
)  # fmt: skip
def test_unexpected_options_are_ignored_with_a_warning(truth, mode, options, ignored):
    given = {"reference": "ctl"} if mode == "ref" else {}
    with pytest.warns(UserWarning, match=f"mode='{mode}' .ignored.: {ignored}$") as caught:
        table = pdex_gpu.pdex(screen(truth), "group", mode, is_log1p=False, **given, **options)
    assert caught[0].filename == __file__
    assert table.equals(run(screen(truth), mode))


@pytest.mark.parametrize("how", ["memory", "backed"])
def test_counts_below_zero(truth, how, tmp_path):
    adata = screen(truth, form=np.asarray)
    adata.X[-1, -1] = -1.0
    if how == "backed":
        adata.write_h5ad(tmp_path / "x.h5ad")
        adata = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    for options in ({}, {"cpm_filter": 1e6}, {"geometric_mean": False}):
        with pytest.warns(errors.ScaleWarning, match="mean_difference") as caught:
            table = run(adata, **options)
        (said,) = (w for w in caught if w.category is errors.ScaleWarning)
        assert said.filename == __file__
        unfiltered = "cpm_filter=) is not applied" in str(said.message)
        assert unfiltered is ("cpm_filter" in options)
        assert table["log2_fold_change"].is_nan().all()
        assert table["percent_change"].is_nan().all()
        plain = run(screen(truth), is_log1p=False, geometric_mean=False)
        assert len(table) == len(plain)
        other = table["feature"] != adata.var_names[-1]
        for column in ("target_mean", "ref_mean", "p_value", "statistic"):
            np.testing.assert_array_equal(
                table.filter(other)[column], plain.filter(other)[column], column
            )


def test_without_polars(truth, monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(errors.MissingDependencyError, match="or pass as_pandas=True"):
        run(screen(truth))
    assert len(run(screen(truth), as_pandas=True)) == 48
