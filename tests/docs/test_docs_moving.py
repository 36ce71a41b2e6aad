"""What the pages about moving claim: names, defaults, and every difference in numbers.

Answers of the other packages are in ``tests/data/moving_NAME.npz`` (see ``make_moving.py`` there).
Seurat and rapids-singlecell were not run: their formulas are written here, from their sources.
"""

from __future__ import annotations

import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import tomllib
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from repository import DATA, ROOT
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.results import schema
from pdex_gpu.stats.two_sample.wilcoxon import Wilcoxon

PEERS = ("pdex-0.1", "pdex-0.3", "scanpy", "illico", "seurat", "rapids-singlecell")
PAGES = {
    peer: tomllib.loads((ROOT / "docs" / "data" / "moving" / f"{peer}.toml").read_text("utf-8"))
    for peer in PEERS
}
#: Where benchmarks have installed those that run here.
ENVIRONMENTS = {
    "pdex-0.1": "peers-", "scanpy": "peers-", "illico": "peers-", "pdex-0.3": "peers-pdex-0.3-",
}  # fmt: skip
ROWS = [(peer, row) for peer in PEERS for row in PAGES[peer]["parameter"]]

# p-values against the other packages': worst relative difference 2.9e-14.
CLOSE = {"rtol": 1e-12, "atol": 0}


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


# --- names and defaults ---------------------------------------------------------------------


def _ids(value: Any) -> str | None:
    return value["name"] if isinstance(value, dict) else None


@pytest.mark.parametrize("peer", [p for p in PEERS if "drop_in" in PAGES[p]["peer"]])
def test_the_drop_in_has_every_parameter(peer):
    """In their order, with their defaults; what is beside them comes last."""
    call = getattr(pdex_gpu, PAGES[peer]["peer"]["drop_in"])
    ours = list(inspect.signature(call).parameters.values())
    for row, parameter in zip(PAGES[peer]["parameter"], ours, strict=False):
        assert parameter.name == row["name"]
        default = "" if parameter.default is parameter.empty else repr(parameter.default)
        assert default == row.get("default", "")
    rest = {p.name for p in ours[len(PAGES[peer]["parameter"]) :]}
    assert rest <= {"backend", "engine", "normalize", "kwargs"}


@pytest.mark.parametrize(("peer", "row"), ROWS, ids=_ids)
def test_our_parameter_is_there_with_its_default(peer, row):
    if "ours" not in row:
        assert "ours_default" not in row
        assert row["note"]
        return
    known = {
        name: "" if p.default is p.empty else repr(p.default)
        for name, p in inspect.signature(pdex_gpu.differential_expression).parameters.items()
    }
    test = {name: repr(getattr(Wilcoxon(), name)) for name in Wilcoxon().__dataclass_fields__}
    assert (test | known)[row["ours"]] == row.get("ours_default", "")


@pytest.mark.parametrize("peer", PEERS)
def test_our_columns_exist(peer):
    names = {c.name for c in (*schema.COLUMNS, *schema.EXTRA_COLUMNS)}
    for row in PAGES[peer]["column"]:
        assert row["ours"] in names if "ours" in row else row["note"]


def test_columns_of_the_other_packages():
    kinds = {
        "pdex-0.1": {k.split("/")[1] for k in truth("pdex-0.1") if "/" in k},
        "pdex-0.3": {k.split("/")[1] for k in truth("pdex-0.3") if "/" in k},
        "illico": {k.split("/")[1] for k in truth("illico") if "/" in k},
        "scanpy": {"names", "scores", "pvals", "pvals_adj", "logfoldchanges", "pts", "pts_rest"},
        "seurat": set(markers(*two_groups())),
    }
    kinds["rapids-singlecell"] = kinds["scanpy"]  # as its docstring lists them
    for peer in PEERS:
        assert {row["name"] for row in PAGES[peer]["column"]} == kinds[peer]


_ASK = """
import importlib, importlib.metadata, inspect, json, sys
module, name = sys.argv[1].rsplit(".", 1)
call = getattr(importlib.import_module(module), name)
found = [
    (p.name, "" if p.default is p.empty else repr(p.default))
    for p in inspect.signature(call).parameters.values() if p.kind is not p.VAR_KEYWORD
]
print(json.dumps([importlib.metadata.version(module.split(".")[0]), found]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("peer", ENVIRONMENTS)
def test_their_signature_is_what_is_installed(peer):
    found = sorted((ROOT / "benchmarks" / ".env").glob(f"{ENVIRONMENTS[peer]}3*/bin/python"))
    if not found:
        pytest.skip("benchmarks have installed no peers here")
    said = PAGES[peer]["peer"]
    done = subprocess.run(
        [str(found[0]), "-W", "ignore", "-c", _ASK, said["function"]],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    version, parameters = json.loads(done.stdout.splitlines()[-1])
    assert version == said["version"]
    rows = [[row["name"], row.get("default", "")] for row in PAGES[peer]["parameter"]]
    assert rows == parameters


#: As read on 2026-12-01: FindMarkers of Seurat 5, the methods for Seurat, Assay and default
#: together (R/differential_expression.R), and rank_genes_groups of the sdist of rapids-singlecell
#: 0.18.1, with the defaults of its preset for scanpy 1.
SIGNATURES = {
    "seurat": (
        "object ident.1=NULL ident.2=NULL latent.vars=NULL group.by=NULL subset.ident=NULL "
        "assay=NULL reduction=NULL slot='data' features=NULL test.use='wilcox' fc.slot='data' "
        "pseudocount.use=1 norm.method=NULL mean.fxn=NULL fc.name=NULL base=2 logfc.threshold=0.1 "
        "min.pct=0.01 min.diff.pct=-Inf verbose=TRUE only.pos=FALSE max.cells.per.ident=Inf "
        "random.seed=1 min.cells.feature=3 min.cells.group=3 densify=FALSE"
    ),
    "rapids-singlecell": (
        "adata groupby mask_var=None use_raw=None groups='all' reference='rest' n_genes=None "
        "rankby_abs=False pts=False key_added=None method='t-test' "
        "corr_method='benjamini-hochberg' tie_correct=False use_continuity=False "
        "return_u_values=False layer=None mean_in_log_space=True chunk_size=None multi_gpu=None "
        "n_bins=None bin_range=None skip_empty_groups=False"
    ),
}


@pytest.mark.parametrize("peer", SIGNATURES)
def test_every_parameter_of_a_package_that_does_not_run_here(peer):
    rows = PAGES[peer]["parameter"]
    found = [f"{r['name']}={r['default']}" if "default" in r else r["name"] for r in rows]
    assert sorted(found) == sorted(SIGNATURES[peer].split())
    page = (ROOT / "docs" / "moving" / f"{peer}.md").read_text("utf-8")
    assert "was not run" in page
    assert PAGES[peer]["peer"]["version"] in page


# --- differences in numbers -----------------------------------------------------------------


@cache
def truth(peer: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"moving_{peer}.npz") as stored:
        return dict(stored)


@cache
def made() -> ModuleType:
    """The module with the screens that the other packages were asked about."""
    spec = importlib.util.spec_from_file_location("make_moving", DATA / "make_moving.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(peer: str, table: str) -> pd.DataFrame:
    """A table of another package, by target and gene."""
    found = {k.split("/")[1]: v for k, v in truth(peer).items() if k.startswith(f"{table}/")}
    return by_pair(pd.DataFrame(found).rename(columns={"pert": "target"}))


def by_pair(frame: pd.DataFrame) -> pd.DataFrame:
    frame = frame.astype({"target": str, "feature": str})
    return frame.set_index(["target", "feature"]).sort_index()


def counts(dtype: str = "float64") -> ad.AnnData:
    return made().screen(*made().counts(), dtype)


def distinct() -> ad.AnnData:
    return made().screen(made().distinct(), made().counts()[1])


def native(adata: ad.AnnData, **options: Any) -> pd.DataFrame:
    options = {"reference": "ctl", "is_log1p": False, "progress": False, **options}
    return by_pair(pdex_gpu.differential_expression(adata, "group", **options).to_pandas())


def old(adata: ad.AnnData, metric: str = "wilcoxon", **options: Any) -> pd.DataFrame:
    return pdex_gpu.parallel_differential_expression(
        adata, reference="ctl", groupby_key="group", metric=metric, is_log1p=False,
        show_progress=False, **options,
    )  # fmt: skip


def new(adata: ad.AnnData, mode: str = "ref", **options: Any) -> pd.DataFrame:
    if mode == "ref":
        options["reference"] = "ctl"
    options = {"is_log1p": False, "geometric_mean": False, **options}
    return by_pair(pdex_gpu.pdex(adata, "group", mode, as_pandas=True, **options))


def ranked(adata: ad.AnnData, group: str = "a", **options: Any) -> dict[str, np.ndarray]:
    """What the drop-in for scanpy writes for a group, genes in the order of the matrix."""
    pdex_gpu.rank_genes_groups(adata, "group", **{"method": "wilcoxon", **options})
    found = adata.uns["rank_genes_groups"]
    order = np.argsort(found["names"][group])
    return {k: np.asarray(found[k][group])[order] for k in
            ("names", "scores", "pvals", "pvals_adj", "logfoldchanges")}  # fmt: skip


def logged() -> ad.AnnData:
    values, labels = made().counts()
    return made().screen(np.log1p(values), labels)


def close(found: Any, expected: Any, **tolerance: Any) -> None:
    np.testing.assert_allclose(np.asarray(found), np.asarray(expected), **CLOSE | tolerance)


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(np.asarray(found), np.asarray(expected))


def differ(found: Any, expected: Any, at_least: float) -> None:
    """The largest relative difference is at least so large: the claim is of something."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    with np.errstate(invalid="ignore", divide="ignore"):
        assert np.nanmax(np.abs(found - expected) / np.abs(expected)) >= at_least


CHECKS: dict[str, Callable[[], None]] = {}


def check(function: Callable[[], None]) -> Callable[[], None]:
    CHECKS[function.__name__] = function
    return function


@check
def pdex_1_standard():
    for name, metric in (("standard", "wilcoxon"), ("t-test", "t-test"), ("anderson", "anderson")):
        found, expected = by_pair(old(counts(), metric)), answer("pdex-0.1", name)
        assert set(found) == set(expected)
        for column in ("target_mean", "reference_mean", "percent_change", "fold_change"):
            same(found[column], expected[column])
        if metric == "wilcoxon":
            same(found["statistic"], expected["statistic"])
        else:
            close(found["statistic"], expected["statistic"])
        close(found["p_value"], expected["p_value"])
        close(found["fdr"], expected["fdr"])


@check
def pdex_1_low_memory():
    theirs, standard = answer("pdex-0.1", "low memory"), answer("pdex-0.1", "standard")
    many = [row for row in theirs.index if row[0] != "few"]
    # Theirs is the normal approximation without the correction ...
    close(theirs.loc[many, "p_value"], answer("pdex-0.1", "no correction").loc[many, "p_value"])
    differ(theirs["p_value"], standard["p_value"], 0.01)
    # ... and ours is the standard mode's.
    close(by_pair(old(counts(), low_memory=True))["p_value"], standard["p_value"])


@check
def pdex_1_low_memory_exact():
    few = [row for row in answer("pdex-0.1", "few").index if row[0] == "few"]
    standard = answer("pdex-0.1", "few").loc[few, "p_value"]
    differ(answer("pdex-0.1", "few low memory").loc[few, "p_value"], standard, 0.001)
    close(by_pair(old(distinct(), low_memory=True)).loc[few, "p_value"], standard)


@check
def pdex_1_low_memory_means():
    standard = answer("pdex-0.1", "standard")["target_mean"]
    theirs = answer("pdex-0.1", "low memory")["target_mean"]
    differ(theirs, standard, 1e-8)
    close(theirs, standard, rtol=1e-6)  # worst 5.6e-8
    same(by_pair(old(counts(), low_memory=True))["target_mean"], standard)


@check
def pdex_1_float32():
    values, labels = made().shifted()
    expected = answer("pdex-0.1", "t-test float64")["p_value"]
    assert answer("pdex-0.1", "t-test float32")["p_value"].iloc[0] == 0.0
    assert 1e-142 < expected.iloc[0] < 2e-142
    found = by_pair(old(made().screen(values, labels, "float32"), "t-test"))["p_value"]
    close(found, expected)


@check
def pdex_1_order():
    theirs = list(dict.fromkeys(truth("pdex-0.1")["standard/target"].tolist()))
    appear = list(dict.fromkeys(counts().obs["group"]))
    assert theirs == [group for group in appear if group != "ctl"]
    assert theirs != sorted(theirs)
    assert list(dict.fromkeys(old(counts())["target"])) == sorted(theirs)
    asked = ["few", "a", "b"]
    assert list(dict.fromkeys(old(counts(), groups=asked)["target"])) == asked


@check
def pdex_1_constant():
    for name in ("t-test", "anderson"):
        theirs = answer("pdex-0.1", name).xs("g5", level="feature")
        ours = by_pair(old(counts(), name)).xs("g5", level="feature")
        for table in (theirs, ours):
            same(table["p_value"], 1.0)
            assert table["statistic"].isna().all()


@check
def pdex_1_anderson():
    theirs = answer("pdex-0.1", "anderson")["p_value"]
    assert theirs[theirs < 1].min() == 0.001
    assert theirs[theirs < 1].max() == 0.25
    close(by_pair(old(counts(), "anderson"))["p_value"], theirs)
    ours = native(counts(), metric="anderson")["p_value"]
    assert ours.min() < 1e-10
    assert ours[ours < 1].max() > 0.5


@check
def pdex_1_nan():
    assert answer("pdex-0.1", "nan")["p_value"].isna().sum() == 0
    same(answer("pdex-0.1", "nan").loc["b"].loc["g0", "p_value"], 1.0)  # cell3 is one of b
    assert counts().obs["group"].iloc[3] == "b"
    hole = counts()
    hole.X[3, 0] = np.nan
    with pytest.raises(errors.DataError, match=r"in cell 'cell3' .* gene 'g0'"):
        old(hole)


@check
def pdex_3_same():
    found, expected = new(counts(), "all"), answer("pdex-0.3", "all")
    assert list(found) == list(expected)
    same(found["statistic"], expected["statistic"])
    for column in ("target_mean", "ref_mean", "p_value", "fdr"):
        close(found[column], expected[column])
    for column in ("log2_fold_change", "percent_change"):  # digits lost to cancellation
        close(found[column], expected[column], atol=1e-13)
    wanted = {"columns": ["target_count_mean", "reference_n_cells"], "comparison": "rest"}
    ours = native(counts(), reference=None, method="asymptotic", fdr_scope="target", **wanted)
    close(ours["p_value"], expected["p_value"])
    close(ours["fdr"], expected["fdr"])
    close(ours["target_count_mean"], expected["target_mean"])
    same(ours["reference_n_cells"], expected["ref_membership"])


@check
def pdex_3_exact():
    few = [row for row in answer("pdex-0.3", "few").index if row[0] == "few"]
    theirs = answer("pdex-0.3", "few").loc[few, "p_value"]
    close(new(distinct()).loc[few, "p_value"], theirs)
    close(native(distinct(), method="asymptotic").loc[few, "p_value"], theirs)
    differ(native(distinct()).loc[few, "p_value"], theirs, 0.001)


@check
def pdex_3_scope():
    theirs = answer("pdex-0.3", "few")["fdr"]
    close(new(distinct())["fdr"], theirs)
    options = {"method": "asymptotic"}
    close(native(distinct(), fdr_scope="target", **options)["fdr"], theirs)
    differ(native(distinct(), **options)["fdr"], theirs, 0.01)


@check
def pdex_3_float32():
    big, labels = truth("pdex-0.3")["big"], made().counts()[1]
    stored = made().screen(sparse.csr_matrix(big), labels, "float32")
    exact = new(made().screen(stored.X.toarray().astype(np.float64), labels))["target_mean"]
    theirs = answer("pdex-0.3", "float32")["target_mean"]
    differ(theirs, exact, 1e-9)
    close(theirs, exact, rtol=1e-6)  # worst 1.7e-7
    close(new(stored)["target_mean"], exact, rtol=1e-14)


@check
def pdex_3_log1p():
    values = np.full((40, 2), 3.0)
    values[:, 1] = np.arange(40) % 7
    small = made().screen(values, np.repeat(["ctl", "a"], 20))
    mean = {"geometric_mean": False, "is_log1p": None}
    guessed = new(small, **mean)["target_mean"]
    close(guessed, np.expm1(values[20:]).mean(axis=0))  # no value reaches 20
    assert not pdex_gpu.differential_expression(
        small, "group", reference="ctl", progress=False
    ).provenance["is_log1p"]  # and none has a fraction
    small.X[0, 0] = 20.0
    close(new(small, **mean)["target_mean"], values[20:].mean(axis=0))


@check
def pdex_3_zeros():
    assert "must not contain explicit zero entries" in str(truth("pdex-0.3")["explicit zeros"])
    matrix = sparse.csr_matrix(made().counts()[0])
    matrix.data[::5] = 0
    found = new(made().screen(matrix, made().counts()[1]))
    same(found, new(made().screen(matrix.toarray(), made().counts()[1])))


@check
def pdex_3_negative():
    assert "requires non-negative data" in str(truth("pdex-0.3")["negative"])
    values, labels = made().counts()
    with pytest.warns(errors.ScaleWarning):  # ratios are NaN
        found = new(made().screen(sparse.csr_matrix(values - 1.0), labels))
    same(found["p_value"], new(made().screen(values, labels))["p_value"])


@check
def pdex_3_category():
    assert "at least one row" in str(truth("pdex-0.3")["empty category"])
    empty = counts()
    labels = ["a", "b", "few", "ctl", "nobody"]
    empty.obs["group"] = pd.Categorical(empty.obs["group"], labels)
    same(new(empty), new(counts()))


def _scanpy(table: str, kind: str) -> np.ndarray:
    return truth("scanpy")[f"{table}/{kind}"]


@check
def scanpy_wilcoxon():
    for table, options in (
        ("rest", {}),
        ("ties", {"tie_correct": True}),
        ("reference", {"reference": "ctl"}),
        ("t-test", {"method": "t-test"}),
    ):
        found = ranked(logged(), **options)
        close(found["pvals"], _scanpy(table, "pvals"))
        close(found["pvals_adj"], _scanpy(table, "pvals_adj"))
    options = {"comparison": "rest", "reference": None, "is_log1p": True}
    plain = {"continuity": False, "tie_correction": False, "method": "asymptotic"}
    more = {"fdr_scope": "target", "columns": ["z", "log2_fold_change_scanpy"]}
    ours = native(logged(), **options, **plain, **more).loc["a"]
    close(ours["p_value"], _scanpy("rest", "pvals"))
    close(ours["fdr"], _scanpy("rest", "pvals_adj"))
    close(ours["z"], _scanpy("rest", "scores"), rtol=1e-7)  # float32: worst 5e-8
    close(ours["log2_fold_change_scanpy"], _scanpy("rest", "logfoldchanges"), rtol=1e-6, atol=1e-6)
    differ(native(logged(), **options).loc["a", "p_value"], _scanpy("rest", "pvals"), 0.01)


@check
def scanpy_float32():
    assert _scanpy("rest", "scores").dtype == _scanpy("rest", "logfoldchanges").dtype == np.float32
    found = ranked(logged())
    assert found["scores"].dtype == found["logfoldchanges"].dtype == np.float32
    assert native(logged(), columns=["z"])["z"].dtype == np.float64


@check
def scanpy_scope():
    p_values = _scanpy("rest", "pvals")
    options = {"comparison": "rest", "reference": None, "continuity": False,
               "tie_correction": False, "method": "asymptotic"}  # fmt: skip
    close(native(logged(), **options).loc["a", "p_value"], p_values)
    differ(native(logged(), **options).loc["a", "fdr"], _scanpy("rest", "pvals_adj"), 0.01)


@check
def scanpy_unlabelled():
    adata = logged()
    kept = adata.obs["group"] != "few"
    adata.obs["group"] = pd.Categorical(adata.obs["group"].where(kept, None))
    same(_scanpy("unlabelled", "pvals"), _scanpy("rest", "pvals"))
    close(ranked(adata)["pvals"], _scanpy("rest", "pvals"))
    options = {"comparison": "rest", "reference": None}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.MissingLabelWarning)
        ours = native(adata, **options)
    pd.testing.assert_frame_equal(
        ours, native(adata[kept.to_numpy()].copy(), **options), check_exact=True
    )
    differ(ours.loc["a", "p_value"], native(logged(), **options).loc["a", "p_value"], 0.01)


@check
def scanpy_order():
    adata = logged()
    pdex_gpu.rank_genes_groups(adata, "group", method="wilcoxon")
    found = adata.uns["rank_genes_groups"]
    scores, names = found["scores"]["a"], found["names"]["a"]
    equal = [n for n, s in zip(names, scores, strict=True) if s == 0.0]
    assert equal == ["g4", "g5"]


@check
def scanpy_unchanged():
    before, after = truth("scanpy")["nnz"]
    assert after < before
    matrix = sparse.csr_matrix(logged().X)
    matrix.data[::5] = 0
    adata = made().screen(matrix, made().counts()[1])
    assert adata.X.nnz == before
    pdex_gpu.rank_genes_groups(adata, "group", method="wilcoxon")
    assert adata.X.nnz == before


@check
def scanpy_nan():
    assert np.isfinite(_scanpy("nan", "pvals")).all()
    assert np.isnan(_scanpy("nan", "logfoldchanges")[0])
    hole = logged()
    hole.X[3, 0] = np.nan
    with pytest.raises(errors.DataError, match=r"in cell 'cell3' .* gene 'g0'"):
        pdex_gpu.rank_genes_groups(hole, "group", method="wilcoxon")


@check
def scanpy_logreg():
    with pytest.raises(errors.OptionError, match="does not test single genes"):
        pdex_gpu.rank_genes_groups(logged(), "group", method="logreg")


def _illico(table: str) -> pd.DataFrame:
    return answer("illico", table)


def _without_reference(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[frame.index.get_level_values("target") != "ctl"]


@check
def illico_reference():
    theirs = _without_reference(_illico("reference"))
    ours = native(counts(), method="asymptotic", columns=["z"])
    same(ours["statistic"], theirs["statistic"])
    close(ours["p_value"], theirs["p_value"])
    close(np.abs(ours["z"]), np.abs(theirs["z_score"]))


@check
def illico_rest():
    theirs = _illico("rest")
    ours = native(counts(), reference=None, comparison="rest", method="asymptotic", columns=["z"])
    same(ours["statistic"], theirs["statistic"])
    close(ours["p_value"], theirs["p_value"])


@check
def illico_exact():
    theirs = _illico("few").loc["few", "p_value"]
    close(native(distinct(), method="asymptotic").loc["few", "p_value"], theirs)
    differ(native(distinct()).loc["few", "p_value"], theirs, 0.001)


@check
def illico_plain():
    theirs = _without_reference(_illico("plain"))
    options = {"continuity": False, "tie_correction": False, "method": "asymptotic"}
    close(native(counts(), **options)["p_value"], theirs["p_value"])


@check
def illico_excluded():
    theirs = _illico("excluded")
    options = {"reference": "few", "comparison": "perturbed", "method": "asymptotic"}
    ours = native(counts(), **options)
    assert ours.index.equals(theirs.index)
    same(ours["statistic"], theirs["statistic"])
    close(ours["p_value"], theirs["p_value"])


@check
def illico_rows():
    assert set(_illico("reference").index.get_level_values("target")) == {"a", "b", "few", "ctl"}
    assert set(native(counts()).index.get_level_values("target")) == {"a", "b", "few"}


@check
def illico_fold_change():
    theirs = _without_reference(_illico("reference"))["fold_change"]
    ours = native(counts())["fold_change"]
    nothing = native(counts())["reference_mean"] == 0
    assert (theirs[nothing & (ours != 1)] > 1e8).all()
    assert 1.8e9 < theirs["a", "g6"] < 2e9
    assert set(ours[nothing]) == {1.0, 20.0}
    close(ours[~nothing], theirs[~nothing], rtol=1e-8)  # worst 5.9e-10: their 1e-9


@check
def illico_means():
    for table, after in (("log1p", False), ("log1p after", True)):
        theirs = _without_reference(_illico(table))["fold_change"]
        ours = native(logged(), is_log1p=True, exp_post_agg=after)
        kept = ours["reference_mean"] > 0
        close(ours.loc[kept, "fold_change"], theirs[kept], rtol=1e-8)  # worst 8.5e-10: their 1e-9
        other = native(logged(), is_log1p=True, exp_post_agg=not after)
        differ(other.loc[kept, "fold_change"], theirs[kept], 0.01)
    default = inspect.signature(pdex_gpu.differential_expression).parameters["exp_post_agg"].default
    assert default is True


@check
def illico_fdr():
    assert "fdr" not in _illico("reference")
    found = native(counts())
    n = len(found)
    order = found["p_value"].sort_values()
    adjusted = (order * n / np.arange(1, n + 1))[::-1].cummin()[::-1].clip(upper=1.0)
    close(found["fdr"], adjusted.loc[found.index])


# --- Seurat, by its formulas ----------------------------------------------------------------


def two_groups() -> tuple[np.ndarray, np.ndarray]:
    """Log-normalised values of the groups "a" and "ctl", cells x genes."""
    adata = logged()
    return tuple(adata.X[(adata.obs["group"] == name).to_numpy()] for name in ("a", "ctl"))


def presto(one: np.ndarray, two: np.ndarray) -> np.ndarray:
    """`compute_pval` of presto 1.0.0, which Seurat's `WilcoxDETest` calls."""
    n, m = len(one), len(two)
    pooled = np.concatenate([one, two])
    u = stats.rankdata(pooled, axis=0)[:n].sum(axis=0) - n * (n + 1) / 2
    z = u - 0.5 * n * m
    z -= np.sign(z) * 0.5
    total = n + m
    ties = [(c**3 - c).sum() for c in (np.unique(g, return_counts=True)[1] for g in pooled.T)]
    sigma = np.sqrt(n * m * (total**3 - total - np.array(ties)) / (12 * (total**2 - total)))
    with np.errstate(invalid="ignore"):
        return 2 * stats.norm.cdf(-np.abs(z / sigma))


def markers(one: np.ndarray, two: np.ndarray) -> dict[str, np.ndarray]:
    """`FindMarkers` of Seurat 5 without its thresholds: columns, genes in their order."""

    def mean(x: np.ndarray) -> np.ndarray:  # of FoldChange.Assay, for log-normalised data
        return np.log2((np.expm1(x).sum(axis=0) + 1) / len(x))

    p_val = presto(one, two)
    return {
        "p_val": p_val,
        "avg_log2FC": mean(one) - mean(two),
        "pct.1": np.round((one > 0).sum(axis=0) / len(one), 3),
        "pct.2": np.round((two > 0).sum(axis=0) / len(two), 3),
        "p_val_adj": np.minimum(1, p_val * one.shape[1]),
    }


SEURAT = {
    "is_log1p": True, "method": "asymptotic", "fdr_method": "bonferroni", "fdr_scope": "target",
    "columns": ["log2_fold_change_seurat", "target_fraction", "reference_fraction"],
}  # fmt: skip


def ours(**options: Any) -> pd.DataFrame:
    """Our rows of the group "a", with the options of the page about Seurat."""
    return native(logged(), **SEURAT | options).loc["a"]


@check
def seurat_presto():
    theirs = markers(*two_groups())["p_val"]
    varied = ~np.isnan(theirs)
    assert varied.sum() == 7
    close(ours()["p_value"][varied], theirs[varied])
    differ(ours(method="auto")["p_value"][varied], theirs[varied], 0.01)


@check
def seurat_exact():
    few, rest = (distinct().X[(distinct().obs["group"] == g).to_numpy()] for g in ("few", "b"))
    assert max(len(few), len(rest)) < 50  # where R's wilcox.test is exact, unless there are ties
    theirs = stats.mannwhitneyu(few, rest, method="exact").pvalue
    found = native(distinct(), reference="b", method="exact").loc["few", "p_value"]
    close(found, theirs)


@check
def seurat_t():
    one, two = two_groups()
    kept = np.ptp(np.concatenate([one, two]), axis=0) > 0
    kept &= one.var(axis=0) + two.var(axis=0) > 0
    theirs = stats.ttest_ind(one[:, kept], two[:, kept], equal_var=False).pvalue
    options = {"metric": "t-test", "method": None}
    options = {k: v for k, v in (SEURAT | options).items() if v is not None}
    found = native(logged(), **options, variance="welch", p_values="asymptotic").loc["a"]
    close(found["p_value"][kept], theirs)
    students = native(logged(), **options, p_values="asymptotic").loc["a"]
    differ(students["p_value"][kept], theirs, 0.01)


@check
def seurat_constant():
    constant = np.isnan(markers(*two_groups())["p_val"])
    assert constant.tolist() == [g in ("g4", "g5") for g in ours().index]
    same(ours()["p_value"][constant], 1.0)


@check
def seurat_change():
    theirs = markers(*two_groups())["avg_log2FC"]
    close(ours()["log2_fold_change_seurat"], theirs, rtol=1e-12, atol=1e-14)
    close(theirs[4], np.log2(60 / 35))  # never expressed, in 35 and 60 cells
    differ(ours(columns=["log2_fold_change"])["log2_fold_change"], theirs, 0.01)


@check
def seurat_4():
    one, two = (np.expm1(x).mean(axis=0) + 1 for x in two_groups())
    theirs = np.log2(one / two)
    found = ours(columns=["target_count_mean", "reference_count_mean"])
    one, two = found["target_count_mean"] + 1, found["reference_count_mean"] + 1
    close(np.log2(one / two), theirs, rtol=1e-12, atol=1e-14)
    differ(ours()["log2_fold_change_seurat"], theirs, 0.01)


@check
def seurat_fraction():
    theirs = markers(*two_groups())
    for column, name in (("target_fraction", "pct.1"), ("reference_fraction", "pct.2")):
        same(ours()[column].round(3), theirs[name])
    assert not ours()["target_fraction"].isin(theirs["pct.1"]).all()


@check
def seurat_adjusted():
    theirs = markers(*two_groups())["p_val_adj"]
    varied = ~np.isnan(theirs)
    close(ours()["fdr"][varied], theirs[varied])
    defaults = inspect.signature(pdex_gpu.differential_expression).parameters
    assert defaults["fdr_method"].default == "benjamini-hochberg"
    assert defaults["fdr_scope"].default == "all"


@check
def seurat_prefilter():
    theirs = markers(*two_groups())
    tested = np.maximum(theirs["pct.1"], theirs["pct.2"]) >= 0.01
    tested &= np.abs(theirs["avg_log2FC"]) >= 0.1
    assert not tested[4]  # never expressed
    assert len(ours()) == len(tested) > tested.sum()
    kept = ours(min_fraction=0.01)
    assert kept.index.tolist() == [g for g in ours().index if g != "g4"]
    close(kept["fdr"], np.minimum(1, 8 * kept["p_value"]))


@check
def seurat_order():
    result = pdex_gpu.differential_expression(
        logged(), "group", reference="ctl", progress=False, **SEURAT
    )
    table = result.to_pandas()
    assert table[table["target"] == "a"]["feature"].tolist() == [f"g{j}" for j in range(9)]
    assert result.top("a", 9)["p_value"].is_monotonic_increasing


@pytest.fixture
def block_for_r(tmp_path: Path) -> str:
    """The block of the page, which makes markers of "a" from the file in the folder."""
    page = (ROOT / "docs" / "moving" / "seurat.md").read_text("utf-8")
    assert all(f'"{name}"' in page for name in SEURAT["columns"])
    result = pdex_gpu.differential_expression(
        logged(), "group", reference="ctl", progress=False, **SEURAT
    )
    result.to_csv(tmp_path / "results.csv")
    return page.split("```r\n")[1].split("```")[0].replace('"STAT1"', '"a"')


def test_the_columns_that_r_reads_are_in_the_file(tmp_path, block_for_r):
    """The block for R names columns of the table that the block for Python writes."""
    with (tmp_path / "results.csv").open() as file:
        head = file.readline().strip().split(",")
    block, made = block_for_r, SEURAT["columns"]
    read = set(re.findall(r"(?:stat1|results)\$(\w+)", block))
    assert {"target", "feature", "p_value", "fdr", *made} == read <= set(head)
    written = re.findall(r"^  ([\w.]+) = ", block, re.MULTILINE)
    assert written == [row["name"] for row in PAGES["seurat"]["column"]] + ["row.names"]


@pytest.mark.skipif(shutil.which("Rscript") is None, reason="there is no R here")
def test_r_makes_the_columns_of_find_markers(tmp_path, block_for_r):
    script = tmp_path / "block.R"
    script.write_text(f'{block_for_r}\nwrite.csv(markers, "markers.csv")\n')
    subprocess.run(["Rscript", str(script)], cwd=tmp_path, check=True, capture_output=True)
    found = pd.read_csv(tmp_path / "markers.csv", index_col=0)
    assert found["p_val"].is_monotonic_increasing
    expected = pd.DataFrame(markers(*two_groups()), [f"g{j}" for j in range(9)])
    assert list(found) == list(expected)
    expected = expected.fillna({"p_val": 1.0, "p_val_adj": 1.0})  # genes of one value
    close(found.sort_index(), expected, rtol=1e-12, atol=1e-14)


# --- rapids-singlecell, by its formulas and by scanpy's results -----------------------------


@check
def rapids_wilcoxon():
    scanpy_wilcoxon()


@check
def rapids_continuity():
    one, two = two_groups()
    n, m = len(one), len(two)
    ranks = stats.rankdata(np.concatenate([one, two]), axis=0)[:n].sum(axis=0)
    off = np.maximum(np.abs(ranks - n * (n + m + 1) / 2) - 0.5, 0.0)
    z = off / np.sqrt(n * m * (n + m + 1) / 12)
    found = ours(tie_correction=False)["p_value"]
    varied = [f"g{j}" for j in range(9) if j not in (4, 5)]
    close(found[varied], pd.Series(2 * stats.norm.sf(z), found.index)[varied])
    differ(ours(tie_correction=False, continuity=False)["p_value"], found, 0.001)


@check
def rapids_u():
    theirs = stats.mannwhitneyu(*two_groups()).statistic
    same(ours()["statistic"], theirs)


@check
def rapids_float32():
    values = np.tile([1.0, 1.0 + 1e-9], 10)[:, None]  # float32 holds no value between
    screen = made().screen(values, np.tile(["a", "ctl"], 10))
    assert native(screen)["p_value"].iloc[0] < 1e-3
    assert native(made().screen(values.astype(np.float32), screen.obs["group"].to_numpy()))[
        "p_value"
    ].iloc[0] == 1.0  # fmt: skip


@check
def rapids_means():
    one, two = (np.expm1(x).mean(axis=0) + 1e-9 for x in two_groups())
    found = ours(columns=["log2_fold_change"], exp_post_agg=False)["log2_fold_change"]
    expressed = two > 1e-6
    assert expressed.sum() == 7
    close(found[expressed], np.log2(one / two)[expressed], rtol=1e-7, atol=1e-8)


@check
def rapids_methods():
    for method in ("wilcoxon_binned", "logreg"):
        with pytest.raises(errors.OptionError):
            pdex_gpu.rank_genes_groups(logged(), "group", method=method)


@check
def rapids_dtype():
    scanpy_float32()


CLAIMS = [(peer, row["check"]) for peer in PEERS for row in PAGES[peer]["difference"]]


@pytest.mark.parametrize(("peer", "name"), CLAIMS)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.MissingLabelWarning")
def test_every_difference_holds(peer, name):
    CHECKS[name]()


def test_every_check_is_of_a_row():
    names = [name for _, name in CLAIMS]
    assert sorted(names) == sorted(CHECKS)
    assert len(set(names)) == len(names) > 30


def test_the_screens_are_those_that_were_asked_about():
    """Means tell: the stream of random numbers is the same here."""
    close(native(counts())["target_mean"], answer("pdex-0.1", "standard")["target_mean"])
    close(native(distinct())["target_mean"], answer("pdex-0.1", "few")["target_mean"])
