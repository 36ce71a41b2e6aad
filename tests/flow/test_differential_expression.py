"""The native call: provenance, detection, logging, views, layers, labels; input is left alone."""

from __future__ import annotations

import json
import logging
import platform
import subprocess
import sys
import warnings
from importlib import metadata

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from repository import SUPPORT
from scipy import sparse, stats
from stored_screens import (
    BACKED,
    GENES,
    GROUPBY,
    LABELS,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    counts,
    logged,
    screen,
    stored,
)

import pdex_gpu
from pdex_gpu.stats.registry import METRICS


@pytest.fixture(autouse=True)
def no_override(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)


def run(data=None, **options):
    data = screen() if data is None else data
    options = {"reference": REFERENCE, "progress": False} | options
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


def close(data) -> None:
    if getattr(data, "isbacked", False):
        data.file.close()


# --- the numbers ----------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("how", [*MEMORY, *BACKED, "path"])
def test_every_storage_gives_the_truth(how, tmp_path):
    values = logged().astype(np.float64)
    data = stored("backed csr" if how == "path" else how, values, tmp_path)
    labels = data.obs[GROUPBY].to_numpy().astype(str)
    result = run(data.filename if how == "path" else data, p_values="asymptotic")
    close(data)
    assert result.targets.tolist() == ["A", "B", "C"]
    assert result.features.tolist() == GENES
    for t, target in enumerate(result.targets):
        for g in range(len(GENES)):
            x, y = values[labels == target, g], values[labels == REFERENCE, g]
            with np.errstate(all="ignore"):
                expected = stats.mannwhitneyu(x, y)
            p = 1.0 if np.isnan(expected.pvalue) else expected.pvalue
            assert result["statistic"][t, g] == expected.statistic
            np.testing.assert_allclose(result["p_value"][t, g], p, rtol=1e-12, atol=0)
            mean, reference = np.expm1(x.mean()), np.expm1(y.mean())
            np.testing.assert_allclose(result["target_mean"][t, g], mean, rtol=1e-12)
            np.testing.assert_allclose(result["reference_mean"][t, g], reference, rtol=1e-12)
            if reference:
                fold, change = mean / reference, (mean - reference) / reference
                np.testing.assert_allclose(result["fold_change"][t, g], fold, rtol=1e-12)
                np.testing.assert_allclose(
                    result["percent_change"][t, g], change, rtol=1e-12, atol=1e-14
                )
    fdr = stats.false_discovery_control(result["p_value"].ravel())
    np.testing.assert_allclose(result["fdr"].ravel(), fdr, rtol=1e-12)


@pytest.mark.parametrize(
    ("clip_value", "expected"),
    [(20.0, [20.0, 1 / 20.0, 1.0]), (4, [4.0, 0.25, 1.0]), (None, [np.nan, 0.0, np.nan])],
)
def test_fold_change_where_a_mean_is_zero(clip_value, expected):
    labels = [REFERENCE] * 5 + ["A"] * 5
    adata = screen(np.ones((10, 3), np.float32), labels, ["no ref", "no target", "neither"])
    control = (adata.obs[GROUPBY] == REFERENCE).to_numpy()
    adata.X[control, 0] = adata.X[~control, 1] = adata.X[:, 2] = 0
    result = run(adata, clip_value=clip_value)
    np.testing.assert_array_equal(result["fold_change"][0], expected)
    np.testing.assert_array_equal(result["percent_change"][0], [np.nan, -1.0, np.nan])


# --- provenance -----------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["auto", "numpy"])
def test_provenance(backend, tmp_path):
    adata = screen(MEMORY["csr"](counts()))
    p = run(adata, backend=backend, groups=["B", "A"], clip_value=None, engine="serial").provenance
    name = "numpy" if backend == "numpy" else "cpu"
    expected = {
        "metric": "wilcoxon", "backend": name, "engine": "serial", "n_cells": len(LABELS),
        "n_genes": 9, "n_targets": 2, "groupby": GROUPBY, "reference": REFERENCE,
        "groups": "'B', 'A'", "layer": None, "allow": [], "is_log1p": False, "exp_post_agg": True,
        "clip_value": None, "test_options": {}, "data": "AnnData in memory, X",
        "matrix": "CSR float32 in memory",
    }  # fmt: skip
    assert {k: p[k] for k in expected} == expected
    assert p["device"].startswith("CPU")
    if backend == "auto":
        assert p["backend_reason"].startswith("auto: ")
        assert "cuda" in p["backend_reason"]
    else:
        assert p["backend_reason"] == "backend='numpy' was requested"
    versions = {"pdex_gpu": pdex_gpu.__version__, "python": platform.python_version()}
    versions |= {x: metadata.version(x) for x in ("numpy", "scipy")}
    if name == "cpu":
        versions["numba"] = metadata.version("numba")
    assert p["versions"] == versions
    assert 0 < p["seconds"] < 60
    assert json.loads(json.dumps(p)) == p


def test_provenance_of_a_file_a_layer_and_options(tmp_path):
    path = tmp_path / "screen.h5ad"
    screen(layers={"raw": counts()}).write_h5ad(path)
    p = run(path, layer="raw", metric="t-test", equal_var=False).provenance
    assert p["data"] == f"{path}, layer 'raw'"
    assert p["matrix"] == "dense float32 in a file"
    assert p["layer"] == "raw"
    assert p["groups"] == "all"
    assert p["metric"] == "t-test"
    assert p["test_options"] == {"equal_var": "False"}


# --- is_log1p -------------------------------------------------------------------------------


@pytest.mark.parametrize("exp_post_agg", [True, False])
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("how", ["C", "csr", "backed csc"])
def test_is_log1p_is_detected(how, backend, exp_post_agg, tmp_path):
    for values, is_log1p in ((counts(), False), (logged(), True)):
        adata = stored(how, values, tmp_path)
        options = {"exp_post_agg": exp_post_agg, "backend": backend}
        detected = run(adata, **options)
        assert detected.provenance["is_log1p"] is is_log1p
        assert_same_bits(detected, run(adata, is_log1p=is_log1p, **options))
        labels = adata.obs[GROUPBY].to_numpy().astype(str)
        x = values[labels == "A"].astype(np.float64)
        expected = x.mean(axis=0)
        if is_log1p:
            expected = np.expm1(expected) if exp_post_agg else np.expm1(x).mean(axis=0)
        np.testing.assert_allclose(detected["target_mean"][0], expected, rtol=1e-12)
        close(adata)


@pytest.mark.parametrize("is_log1p", [True, False])
def test_is_log1p_is_believed(is_log1p):
    values = logged() if not is_log1p else counts()
    adata = screen(values)
    result = run(adata, is_log1p=is_log1p)
    x = values[(adata.obs[GROUPBY] == "A").to_numpy()].astype(np.float64).mean(axis=0)
    np.testing.assert_allclose(result["target_mean"][0], np.expm1(x) if is_log1p else x, rtol=1e-12)
    assert result.provenance["is_log1p"] is is_log1p


@pytest.mark.parametrize("fraction", [0.0009, 0.0011])
@pytest.mark.parametrize("gene", [0, 8])
def test_one_fractional_value_decides(gene, fraction):
    values = counts().astype(np.float64)
    values[5, gene] = 2 + fraction
    assert run(screen(values), gene_chunk_size=2).provenance["is_log1p"] is (fraction > 0.001)


@pytest.mark.parametrize("backend", ["cpu", "numpy"])
def test_counts_too_large_for_expm1_are_still_counts(backend):
    """Whether to take expm1 is known only at the end; by then it must not have warned."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result = run(screen(counts() * 1000), exp_post_agg=False, backend=backend)
    assert result.provenance["is_log1p"] is False
    assert np.isfinite(result["target_mean"]).all()


# --- backend from the environment -----------------------------------------------------------


def test_backend_from_the_environment(monkeypatch):
    monkeypatch.setenv("PDEX_GPU_BACKEND", "numpy")
    p = run().provenance
    assert p["backend"] == "numpy"
    assert p["backend_reason"] == "PDEX_GPU_BACKEND=numpy was requested"
    assert run(backend="cpu").provenance["backend"] == "cpu"


# --- logging and printing -------------------------------------------------------------------


def test_everything_is_logged_to_one_logger(caplog, capfd):
    with caplog.at_level(logging.DEBUG):
        run(screen(sparse.csr_matrix(logged())))
    ours = [r for r in caplog.records if r.name.startswith("pdex_gpu")]
    assert {r.name for r in ours} == {"pdex_gpu"}
    assert {r.levelno for r in ours} == {logging.INFO}
    text = "\n".join(r.getMessage() for r in ours)
    for part in ("backend cpu", "3 targets against 'ctl'", "55 cells x 9 genes", "engine threads",
                 "is_log1p=True"):  # fmt: skip
        assert part in text
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("progress", [True, False])
def test_nothing_is_printed(capfd, metric, progress, tmp_path):
    """A progress bar shows after half a second; this takes less, once it is compiled."""
    adata = stored("backed csr", counts(), tmp_path)
    run(adata, metric=metric)
    capfd.readouterr()
    run(adata, metric=metric, progress=progress)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert progress or captured.err == ""
    close(adata)


def test_the_progress_bar_goes_to_stderr_and_reaches_the_end(capfd, monkeypatch):
    from tqdm import auto

    real = auto.tqdm
    made = []

    def at_once(**options):
        made.append(options)
        return real(**options | {"delay": 0})

    monkeypatch.setattr(auto, "tqdm", at_once)
    run(progress=True, gene_chunk_size=2)
    captured = capfd.readouterr()
    assert captured.out == ""
    assert "wilcoxon: 100%" in captured.err
    assert "9/9" in captured.err
    run(progress=False)
    assert capfd.readouterr().err == ""
    assert len(made) == 1


@pytest.mark.thorough
def test_importing_and_running_configure_no_logging():
    script = """
import logging, sys
before = (logging.root.handlers[:], logging.root.level)
sys.path.insert(0, sys.argv[1])
import pdex_gpu, pdex_gpu.api, pdex_gpu.compat.pdex_0_1, pdex_gpu.cli
from stored_screens import GROUPBY, REFERENCE, screen
pdex_gpu.differential_expression(screen(), GROUPBY, reference=REFERENCE, progress=False)
assert (logging.root.handlers, logging.root.level) == before, logging.root.handlers
ours = logging.getLogger("pdex_gpu")
assert ours.handlers == [] and ours.level == logging.NOTSET and ours.propagate
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(SUPPORT)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("engine", ["threads", "serial"])
def test_warning_filters_are_left_as_they_were(engine):
    """Options that run through scipy silence its warnings; the caller's must come back."""
    values = np.random.default_rng(0).exponential(size=(len(LABELS), 200))
    adata = screen(values, genes=[f"g{j}" for j in range(200)])
    before = list(warnings.filters)
    run(
        adata, metric="t-test", trim=0.1, engine=engine, n_threads=None if engine == "serial" else 8
    )
    assert list(warnings.filters) == before


# --- which data -----------------------------------------------------------------------------


@pytest.mark.parametrize("how", [*MEMORY, "backed C", "backed csr"])
def test_views_of_cells_and_genes(how, tmp_path):
    """Reordered and cut: labels and names must follow the matrix."""
    rng = np.random.default_rng(3)
    cells, genes = rng.permutation(len(LABELS))[:45], rng.permutation(len(GENES))[:6]
    adata = stored(how, logged(), tmp_path)
    expected = run(screen(logged())[cells][:, genes].copy())
    view = adata[cells, genes] if adata.isbacked else adata[cells][:, genes]
    assert view.is_view
    result = run(view)
    assert view.is_view  # not turned into a copy on the way
    assert result.features.tolist() == [GENES[g] for g in genes]
    assert_same_bits(result, expected)
    close(adata)


@pytest.mark.parametrize("opened", ["memory", "backed", "path"])
def test_layer(opened, tmp_path):
    adata = screen(counts(), layers={"log": sparse.csr_matrix(logged())})
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    data = {"memory": adata, "path": path, "backed": None}[opened]
    if data is None:
        data = ad.read_h5ad(path, backed="r")
    assert_same_bits(run(data, layer="log"), run(screen(logged())))
    assert_same_bits(run(data), run(screen(counts())))
    close(data)


@pytest.mark.parametrize("kind", [str, lambda p: p], ids=["str", "Path"])
def test_a_path(kind, tmp_path):
    adata = stored("backed csr", counts(), tmp_path)
    path = adata.filename
    close(adata)
    result = run(kind(path))
    assert_same_bits(result, run(screen(counts())))
    assert result.features.tolist() == GENES


def test_groups_are_compared_in_the_order_asked_for():
    whole = run()
    result = run(groups=["C", "A", "C", REFERENCE])
    assert result.targets.tolist() == ["C", "A"]
    np.testing.assert_array_equal(result["p_value"], whole["p_value"][[2, 0]])
    np.testing.assert_array_equal(result["target_mean"], whole["target_mean"][[2, 0]])
    assert not np.array_equal(whole["p_value"][0], whole["p_value"][2])


@pytest.mark.parametrize("kind", [np.array, pd.Series, pd.Index, iter, tuple])
def test_groups_of_any_kind(kind):
    assert run(groups=kind(["B", "A"])).targets.tolist() == ["B", "A"]


def test_one_group_by_name():
    assert run(groups="B").targets.tolist() == ["B"]


def test_the_fdr_is_over_the_groups_compared():
    result = run(groups=["A"])
    expected = stats.false_discovery_control(result["p_value"].ravel())
    np.testing.assert_allclose(result["fdr"].ravel(), expected, rtol=1e-12)


@pytest.mark.parametrize("opened", ["memory", "path"])
def test_integer_labels_are_found_by_their_text(opened, tmp_path):
    """As a command line gives them; the result has the labels of the column."""
    labels = [{"ctl": 0, "A": 10, "B": 9, "C": 3}[name] for name in LABELS]
    adata = screen(labels=labels)
    assert adata.obs[GROUPBY].dtype.kind == "i"
    data = adata
    if opened == "path":
        data = tmp_path / "screen.h5ad"
        adata.write_h5ad(data)
    result = run(data, reference="0")
    assert result.targets.tolist() == [3, 9, 10]  # in the order of numbers, not of text
    assert result.reference == 0
    chosen = run(data, reference=0, groups=["10", 3])
    assert chosen.targets.tolist() == [10, 3]
    np.testing.assert_array_equal(chosen["p_value"], result["p_value"][[2, 0]])
    by_name = run()
    np.testing.assert_array_equal(result["p_value"], by_name["p_value"][[2, 1, 0]])
    assert result.to_pandas()["target"].tolist()[0] == 3


def test_a_categorical_column_is_sorted_by_label_not_by_category():
    adata = screen()
    adata.obs[GROUPBY] = pd.Categorical(adata.obs[GROUPBY], ["C", "ctl", "B", "A"])
    result = run(adata)
    assert result.targets.tolist() == ["A", "B", "C"]
    assert_same_bits(result, run())


# --- the user's matrix ----------------------------------------------------------------------


def arrays(matrix) -> list[np.ndarray]:
    if sparse.issparse(matrix):
        return [matrix.data, matrix.indices, matrix.indptr]
    return [matrix]


def messy(matrix):
    """Unsorted and repeated indices, explicit zeros, negative zeros."""
    part = slice(matrix.indptr[2], matrix.indptr[3])
    matrix.indices[part] = matrix.indices[part][::-1].copy()
    matrix.indices[part.stop - 1] = matrix.indices[part.stop - 2]
    matrix.data[matrix.indptr[5]] = 0.0
    matrix.data[matrix.indptr[6]] = -0.0
    matrix.has_sorted_indices = matrix.has_canonical_format = False
    return matrix


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("how", [*MEMORY, "messy csr", "messy csc", "view of csr"])
def test_the_matrix_is_not_modified(how, metric):
    matrix = MEMORY[how.split()[-1]](counts())
    if how.startswith("messy"):
        matrix = messy(matrix)
    adata = screen(matrix)
    before = [a.copy() for a in arrays(adata.X)]
    identity = [(a.dtype, a.strides, a.flags.writeable, a.ctypes.data) for a in arrays(adata.X)]
    sorted_flag = getattr(adata.X, "_has_sorted_indices", None)
    obs = adata.obs.copy()
    result = run(adata[::-1] if how.startswith("view") else adata, metric=metric)
    for array, old in zip(arrays(adata.X), before, strict=True):
        np.testing.assert_array_equal(array, old)
    assert [
        (a.dtype, a.strides, a.flags.writeable, a.ctypes.data) for a in arrays(adata.X)
    ] == identity
    assert getattr(adata.X, "_has_sorted_indices", None) == sorted_flag
    pd.testing.assert_frame_equal(adata.obs, obs)
    if how.startswith("messy"):
        dense = adata.X.toarray()
        expected = run(screen(dense), metric=metric)
        assert_same_bits(result, expected)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("backend", ["cpu", "numpy"])
@pytest.mark.parametrize("how", [*MEMORY, "messy csr", "messy csc"])
def test_read_only_arrays_are_accepted(how, backend):
    matrix = MEMORY[how.split()[-1]](counts())
    if how.startswith("messy"):
        matrix = messy(matrix)
    adata = screen(matrix)
    expected = run(adata, backend=backend)
    for array in arrays(adata.X):
        array.flags.writeable = False
    assert_same_bits(run(adata, backend=backend), expected)
    assert not any(a.flags.writeable for a in arrays(adata.X))


def test_labels_of_the_result_are_the_results_own():
    adata = screen()
    result = run(adata)
    adata.var_names = [f"new{j}" for j in range(len(GENES))]
    assert result.features.tolist() == GENES
