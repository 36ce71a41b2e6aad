"""scanpy's rank_genes_groups: its records, its numbers, its order, its errors."""

from __future__ import annotations

import inspect
import json
import warnings

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from repository import DATA
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu import errors

TRUTH = DATA / "scanpy_ranks.npz"  # see make_scanpy_ranks.py there
METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
KINDS = {"names": "O", "scores": "f4", "pvals": "f8", "pvals_adj": "f8", "logfoldchanges": "f4"}

# scanpy 1.12, then what this package adds.
SIGNATURE = [
    ("mask_var", None), ("use_raw", None), ("groups", "all"), ("reference", "rest"),
    ("n_genes", None), ("rankby_abs", False), ("pts", False), ("key_added", None), ("copy", False),
    ("method", None), ("corr_method", "benjamini-hochberg"), ("tie_correct", False),
    ("layer", None), ("backend", "auto"), ("normalize", None),
]  # fmt: skip

# p-values against scanpy's: worst relative difference 1.6e-13 (t), 5.7e-15 (Wilcoxon). Scores are
# float32, so compared to half a unit in its last place; before that step they differ by at most
# 5.3e-13 (t), 3.8e-16 (Wilcoxon).
CLOSE = {"rtol": 1e-12, "atol": 1e-13}


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(TRUTH) as stored:
        return dict(stored)


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


def screen(truth, matrix=sparse.csr_matrix, **more) -> ad.AnnData:
    """The screen of the golden files: X is 20 of the genes of raw, 8 cells have no label."""
    group = pd.Categorical.from_codes(truth["group"], ["b", "a", "c", "d", "e"])
    obs = pd.DataFrame({"group": group}, index=[f"cell{i}" for i in range(len(group))])
    genes = [f"G{j}" for j in range(24)]
    var = pd.DataFrame({"odd": np.arange(24) % 3 != 0}, index=genes)
    whole = ad.AnnData(matrix(truth["raw"]), obs=obs, var=var, **more)
    adata = whole[:, :20].copy()
    adata.layers["counts"] = matrix(truth["counts"].astype(np.float64))
    adata.raw = whole
    return adata


def ranked(adata: ad.AnnData, **options):
    """What the call writes; values of every group as rows in the order of the matrix."""
    pdex_gpu.rank_genes_groups(adata, "group", **options)
    written = adata.uns[options.get("key_added") or "rank_genes_groups"]
    names = written["names"].dtype.names
    order = np.argsort([[int(g[1:]) for g in written["names"][n]] for n in names], axis=1)
    table = {
        kind: np.take_along_axis(np.stack([written[kind][n] for n in names]), order, axis=1)
        for kind in KINDS
    }
    return written, table


CALLS = json.loads(str(np.load(TRUTH)["calls"]))
KEYS = list(dict.fromkeys(tuple(k.split("/")[:3]) for k in np.load(TRUTH) if "/" in k))


# --- against scanpy's answers ---------------------------------------------------------------


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(("name", "method", "base"), KEYS)
def test_the_numbers_are_scanpys(truth, name, method, base):
    adata = screen(truth)
    if base != "None":
        adata.uns["log1p"] = {"base": int(base)}
    options = {"use_raw": False, **CALLS[name]}
    options.pop("n_genes", None)  # all genes, so that none of equal score is missing
    written, table = ranked(adata, method=method, **options)
    known = {
        key.rsplit("/", 1)[1]: value
        for key, value in truth.items()
        if key.startswith(f"{name}/{method}/{base}/")
    }
    assert written["names"].dtype.names == tuple(known["groups"])
    genes = sorted(known["genes"].tolist(), key=lambda g: int(g[1:]))
    assert genes == known["genes"].tolist()
    assert sorted(written["names"]["d" if name == "masked" else known["groups"][0]]) == sorted(
        genes
    )
    np.testing.assert_allclose(table["scores"], known["scores"], rtol=6e-8, atol=1e-13)  # float32
    np.testing.assert_allclose(table["pvals"], known["pvals"], **CLOSE)
    np.testing.assert_allclose(table["pvals_adj"], known["pvals_adj"], **CLOSE)
    np.testing.assert_allclose(  # float32; fold changes near 0 have lost digits to cancellation
        table["logfoldchanges"], known["logfoldchanges"], rtol=6e-8, atol=1e-13
    )
    assert written["params"] == json.loads(str(known["params"]))
    assert list(written) == ["params", *(f for f in ("pts", "pts_rest") if f in known),
                             *KINDS]  # fmt: skip
    for frame in ("pts", "pts_rest"):
        if frame in known:
            assert list(written[frame].columns) == known[f"{frame} columns"].tolist()
            assert list(written[frame].index) == genes
            np.testing.assert_allclose(written[frame], known[frame], rtol=1e-15)


def test_the_order_is_scanpys_where_scores_differ(truth):
    for name in ("top", "top absolute"):
        for method in ("t-test", "wilcoxon"):
            key = f"{name}/{method}/None"
            adata = screen(truth)
            written, _ = ranked_only(adata, method=method, use_raw=False, **CALLS[name])
            for row, group in enumerate(truth[f"{key}/groups"]):
                scores = np.abs(truth[f"{key}/scores"][row]).round(10)
                assert len(set(np.sort(scores)[-8:])) == 8, "ties among the first"
                assert written["names"][group].tolist() == truth[f"{key}/first"][row].tolist()
                assert len(written["scores"]) == 7


def ranked_only(adata: ad.AnnData, **options):
    pdex_gpu.rank_genes_groups(adata, "group", **options)
    return adata.uns["rank_genes_groups"], None


@pytest.mark.parametrize("rankby_abs", [False, True])
def test_genes_are_in_descending_order_and_ties_in_that_of_the_matrix(truth, rankby_abs):
    adata = screen(truth)
    x = adata.X.toarray()
    x[:, 9] = x[:, 2]  # equal scores
    x[:, 13] = x[:, 5]  # and zeros
    adata.X = x
    written, _ = ranked(adata, use_raw=False, rankby_abs=rankby_abs)
    for group in written["names"].dtype.names:
        scores, names = written["scores"][group], written["names"][group].tolist()
        keys = np.abs(scores) if rankby_abs else scores
        assert (np.diff(keys) <= 0).all()
        for first, second in (("G2", "G9"), ("G5", "G13")):
            assert names.index(first) < names.index(second)
        assert names.index("G9") == names.index("G2") + 1
    if rankby_abs:
        assert any((written["scores"][g] < 0).any() for g in written["names"].dtype.names)


# --- against scipy ---------------------------------------------------------------------------


@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(METHODS),
    st.sampled_from(["rest", "x"]),
    st.booleans(),
)
def test_scipy_says_the_same(seed, method, reference, tie_correct):
    rng = np.random.default_rng(seed)
    labels = np.array(["x", "y", "z", None], object)[
        np.append([0, 0, 1, 1, 2, 2], rng.integers(0, 4, 24))
    ]
    values = np.log1p(rng.poisson(1.5, (30, 4)).astype(float))
    obs = pd.DataFrame({"group": pd.Categorical(labels)}, index=[f"c{i}" for i in range(30)])
    adata = ad.AnnData(values, obs=obs, var=pd.DataFrame(index=[f"G{j}" for j in range(4)]))
    written, table = ranked(
        adata, method=method, reference=reference, tie_correct=tie_correct, pts=True,
        corr_method="bonferroni",
    )  # fmt: skip
    assert written["names"].dtype.names == (("x", "y", "z") if reference == "rest" else ("y", "z"))
    for row, group in enumerate(written["names"].dtype.names):
        of_group = labels == group
        others = ~of_group if reference == "rest" else labels == reference
        for j in range(4):
            x, y = values[of_group, j], values[others, j]
            if method == "wilcoxon":
                n, m = len(x), len(y)
                u = stats.mannwhitneyu(x, y).statistic
                _, ties = np.unique(np.append(x, y), return_counts=True)
                variance = n * m * (n + m + 1) / 12.0
                if tie_correct:
                    variance *= 1 - (ties**3 - ties).sum() / ((n + m) ** 3 - (n + m))
                score = 0.0 if variance <= 0 else (u - n * m / 2) / np.sqrt(variance)
                p_value = 2 * stats.norm.sf(abs(score))
            else:
                n_other = len(x) if method == "t-test_overestim_var" else len(y)
                with np.errstate(all="ignore"):
                    score, p_value = stats.ttest_ind_from_stats(
                        x.mean(), x.std(ddof=1), len(x), y.mean(), y.std(ddof=1), n_other,
                        equal_var=False,
                    )  # fmt: skip
                if x.std() < 1e-15 and y.std() < 1e-15:
                    continue  # rounding alone makes scipy's variance
            np.testing.assert_allclose(table["scores"][row, j], score, rtol=6e-8, atol=1e-13)
            np.testing.assert_allclose(table["pvals"][row, j], p_value, rtol=1e-11)  # worst: 7e-13
            change = np.log2((np.expm1(x.mean()) + 1e-9) / (np.expm1(y.mean()) + 1e-9))
            np.testing.assert_allclose(
                table["logfoldchanges"][row, j], change, rtol=6e-8, atol=1e-13
            )
            assert written["pts"][group].iloc[j] == (x != 0).mean()
            if reference == "rest":
                assert written["pts_rest"][group].iloc[j] == (y != 0).mean()
        adjusted = np.minimum(table["pvals"][row] * 4, 1.0)
        np.testing.assert_array_equal(table["pvals_adj"][row], adjusted)


# --- the call, and where the result goes -----------------------------------------------------


def test_the_signature_is_scanpys():
    adata, groupby, *parameters = inspect.signature(pdex_gpu.rank_genes_groups).parameters.values()
    assert (adata.name, groupby.name) == ("adata", "groupby")
    assert [(p.name, p.default) for p in parameters] == SIGNATURE
    assert {p.kind for p in parameters} == {inspect.Parameter.KEYWORD_ONLY}


def test_what_is_written(truth):
    adata = screen(truth)
    assert pdex_gpu.rank_genes_groups(adata, "group", use_raw=False, n_genes=9) is None
    written = adata.uns["rank_genes_groups"]
    assert written["params"]["method"] == "t-test"
    assert list(written) == ["params", *KINDS]
    for kind, dtype in KINDS.items():
        assert type(written[kind]) is np.recarray
        assert written[kind].dtype.names == ("b", "a", "c", "d", "e")
        assert {written[kind].dtype[name] for name in "abcde"} == {np.dtype(dtype)}
        assert written[kind].shape == (9,)
    assert all(type(name) is str for name in written["names"]["a"])


def test_copies_and_keys(truth):
    adata = screen(truth)
    copied = pdex_gpu.rank_genes_groups(adata, "group", copy=True, key_added="markers")
    assert "markers" not in adata.uns
    assert list(copied.uns) == ["markers"]
    pdex_gpu.rank_genes_groups(adata, "group", key_added="markers")
    for kind in KINDS:
        np.testing.assert_array_equal(copied.uns["markers"][kind], adata.uns["markers"][kind])


def test_more_genes_than_there_are(truth):
    assert len(ranked_only(screen(truth), n_genes=1000)[0]["names"]) == 24


def test_the_result_can_be_written_to_a_file(truth, tmp_path):
    adata = screen(truth)
    pdex_gpu.rank_genes_groups(adata, "group", pts=True)
    adata.write_h5ad(tmp_path / "x.h5ad")
    found = ad.read_h5ad(tmp_path / "x.h5ad").uns["rank_genes_groups"]
    for kind in KINDS:
        for group in "abcde":
            expected = adata.uns["rank_genes_groups"][kind][group]
            np.testing.assert_array_equal(found[kind][group], expected)


def assert_same(one, other):
    assert list(one) == list(other)
    for kind in KINDS:
        np.testing.assert_array_equal(one[kind], other[kind])
    for frame in ("pts", "pts_rest"):
        if frame in one:
            pd.testing.assert_frame_equal(one[frame], other[frame])


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
@pytest.mark.parametrize("what", ["X", "raw", "layer", "masked", "raw masked"])
def test_where_the_matrix_is_does_not_matter(truth, matrix, what, tmp_path):
    """Backed data too, which scanpy refuses; the same for a view in memory."""
    options = {
        "X": {"use_raw": False, "pts": True},
        "raw": {"use_raw": True},
        "layer": {"use_raw": False, "layer": "counts"},
        "masked": {"use_raw": False, "mask_var": "odd"},
        "raw masked": {"use_raw": True, "mask_var": np.arange(24) % 4 == 1},
    }[what]
    adata = screen(truth, matrix)
    if what == "raw masked":  # as many genes as raw has
        adata = adata.raw.to_adata()
        adata.raw = adata
    adata.write_h5ad(tmp_path / "x.h5ad")
    backed = ad.read_h5ad(tmp_path / "x.h5ad", backed="r")
    expected = ranked(screen_like(adata), method="wilcoxon", **options)[0]
    assert_same(ranked(backed, method="wilcoxon", **options)[0], expected)
    assert backed.isbacked
    backed.file.close()


def screen_like(adata: ad.AnnData) -> ad.AnnData:
    """The same with dense matrices, which are the plainest."""
    dense = adata.copy()
    dense.X = adata.X.toarray() if sparse.issparse(adata.X) else adata.X
    return dense


def test_a_view_becomes_an_anndata_as_in_scanpy(truth):
    adata = screen(truth)
    rows = (adata.obs["group"] != "e").to_numpy()
    view = adata[rows]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own: that it does
        found, _ = ranked(view, use_raw=False)
    assert "rank_genes_groups" not in adata.uns
    assert found["names"].dtype.names == ("b", "a", "c", "d")
    assert_same(found, ranked(adata[rows].copy(), use_raw=False)[0])


def test_text_becomes_categories_and_numbers_are_found_by_their_text(truth):
    adata = screen(truth)
    expected, _ = ranked(adata, use_raw=False)
    adata.obs["group"] = adata.obs["group"].astype(object).fillna("f")
    found, _ = ranked(adata, use_raw=False, groups=["c", "e", "c"])
    assert adata.obs["group"].dtype == "category"
    assert found["names"].dtype.names == ("c", "e")
    np.testing.assert_allclose(found["pvals"]["c"], expected["pvals"]["c"], **CLOSE)
    adata.obs["group"] = adata.obs["group"].cat.rename_categories(
        dict(zip("abcdef", "012345", strict=True))
    )
    found, _ = ranked(adata, use_raw=False, groups=[2, 4], reference="0")
    assert found["names"].dtype.names == ("2", "4")


def test_the_matrix_is_not_changed(truth):
    """scanpy drops explicit zeros from the caller's matrix."""
    adata = screen(truth)
    adata.X.data[::7] = 0.0
    before = adata.X.copy()
    found, _ = ranked(adata, use_raw=False, pts=True)
    for part in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(adata.X, part), getattr(before, part))
    adata.X.eliminate_zeros()
    assert_same(found, ranked(adata, use_raw=False, pts=True)[0])


def test_counts_are_pointed_out(truth, caplog):
    adata = screen(truth)
    with caplog.at_level("WARNING", logger="pdex_gpu"):
        ranked(adata, use_raw=False)
        assert not caplog.records
        ranked(adata, use_raw=False, layer="counts")
    (line,) = caplog.records
    assert "raw counts" in line.getMessage()


# --- what cannot be used ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"method": "logreg"}, ValueError, "method='logreg' is not supported"),
        ({"method": "t_test"}, ValueError, "Unknown method 't_test'. Did you mean 't-test'"),
        ({"corr_method": "fdr"}, ValueError, "Unknown corr_method 'fdr'"),
        ({"groups": "a"}, ValueError, "must be a sequence of groups"),
        ({"groups": []}, ValueError, r"groups=\[\] names no group"),
        ({"groups": ["a", "x"]}, ValueError, "Unknown group in column 'group': 'x'"),
        ({"groups": ["a"], "reference": "a"}, ValueError, "No target group is left"),
        ({"reference": "x"}, ValueError, "Unknown reference in column 'group': 'x'"),
        ({"layer": "counts"}, ValueError, "Cannot specify layer='counts' and have use_raw=True"),
        ({"layer": "c", "use_raw": False}, KeyError, "Unknown layer 'c'"),
        ({"use_raw": 1}, ValueError, "use_raw=1 must be"),
        ({"n_genes": 0}, ValueError, "n_genes=0 must be"),
        ({"tie_correct": "yes"}, ValueError, "tie_correct='yes' must be"),
        ({"mask_var": "even"}, ValueError, "mask_var: Unknown column of var 'even'"),
        ({"mask_var": [1] * 20}, ValueError, "mask_var must be boolean"),
        ({"mask_var": np.ones(24, bool)}, ValueError, "one value for each of 20 genes"),
        ({"mask_var": np.zeros(20, bool)}, ValueError, "mask_var selects no gene"),
        ({"mask_var": "odd"}, ValueError, "20 genes of adata, but adata.raw has 24"),
    ],
)
def test_misuse(truth, options, kind, message):
    adata = screen(truth)
    with pytest.raises(kind, match=message) as caught:
        pdex_gpu.rank_genes_groups(adata, "group", **options)
    assert isinstance(caught.value, errors.PdexGpuError)
    assert not adata.uns  # nothing half done


def test_raw_that_is_not_there(truth):
    adata = screen(truth)
    adata.raw = None
    with pytest.raises(errors.OptionError, match=r"adata\.raw is empty"):
        ranked(adata, use_raw=True)


@pytest.mark.parametrize("n_cells", [0, 1])
def test_groups_of_one_cell_are_refused_if_they_take_part(truth, n_cells):
    adata = screen(truth)
    group = adata.obs["group"].cat.add_categories("lonely")
    group.iloc[:n_cells] = "lonely"
    adata.obs["group"] = group
    with pytest.raises(errors.LabelError, match="for groups 'lonely' of column 'group'"):
        ranked(adata)
    found, _ = ranked(adata, groups=["a", "b"])
    assert found["names"].dtype.names == ("a", "b")


def test_columns_that_are_no_groups(truth):
    adata = screen(truth)
    adata.obs["number"] = np.arange(adata.n_obs)
    with pytest.raises(errors.OptionError, match=r"is int64, not categorical. Convert it"):
        pdex_gpu.rank_genes_groups(adata, "number")
    with pytest.raises(errors.ColumnError, match="Unknown column of obs 'groups'"):
        pdex_gpu.rank_genes_groups(adata, "groups")


def test_results_need_an_anndata(truth, tmp_path):
    path = tmp_path / "x.h5ad"
    screen(truth).write_h5ad(path)
    with pytest.raises(errors.UnsupportedDataError, match=r"not a pathlib\.\w*Path"):
        pdex_gpu.rank_genes_groups(path, "group")
    backed = ad.read_h5ad(path, backed="r")
    with pytest.raises(errors.OptionError, match=r"copy=True would copy a file.*to_memory"):
        pdex_gpu.rank_genes_groups(backed, "group", copy=True)
    with pytest.raises(errors.OptionError, match=r"view: adata is backed by .*to_memory"):
        pdex_gpu.rank_genes_groups(backed[:50], "group")
    backed.file.close()
