"""fdr_method="empirical": p-values judged against mock groups of controls."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from stopped_runs import Stop, run, stop_at
from stored_screens import (
    GROUPBY,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    logged,
    screen,
    stored,
)

from pdex_gpu import calibrate, differential_expression, estimate, rank_genes_groups
from pdex_gpu.cli import main
from pdex_gpu.design.build import make_design
from pdex_gpu.design.mock_groups import SEED, plan_mock_groups
from pdex_gpu.errors import MemoryBudgetError, OptionError
from pdex_gpu.pipeline import into_file
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.sinks.checkpoint import checkpoint_folder
from pdex_gpu.stats.multitest import external_sort

EMPIRICAL = {"fdr_method": "empirical", "reference": REFERENCE, "progress": False, "backend": "cpu"}


def compared(data: Any = None, groupby: Any = GROUPBY, **options: Any) -> Any:
    data = screen(sparse.csr_matrix(logged())) if data is None else data
    return differential_expression(data, groupby, **(EMPIRICAL | options))


# --- what it is -------------------------------------------------------------------------------


def by_hand(adata: ad.AnnData, scope: str, **options: Any) -> tuple[np.ndarray, np.ndarray]:
    """P-values and FDR from a call for each split of the controls, and counts, one by one."""
    real = differential_expression(
        adata, GROUPBY, **(EMPIRICAL | options | {"fdr_method": "bonferroni"})
    )
    labels = adata.obs[GROUPBY].to_numpy(dtype=object)
    names = [REFERENCE, *real.targets]
    codes = np.array([names.index(label) for label in labels])
    design = make_design(codes, names, reference=REFERENCE)
    plan = plan_mock_groups(design, adata.n_vars, SEED)
    cells, mock = plan.draw()
    n_control = np.count_nonzero(codes == 0)
    null: list[list[float]] = [[] for _ in plan.classes]
    done = 0
    for k in range(len(plan.splits)):
        some = slice(k * n_control, (k + 1) * n_control)
        part = adata[cells[some]].copy()
        part.obs[GROUPBY] = [f"group {code}" for code in mock.codes[some]]
        n = len(plan.splits[k])
        groups = [
            f"group {code}" for code in range(mock.codes[some][0], mock.codes[some].max() + 1)
        ]
        rest = differential_expression(
            part,
            GROUPBY,
            **(EMPIRICAL | options | {"fdr_method": "bonferroni"}),
            comparison="rest",
            groups=groups[:n],
        )
        for row in range(n):
            at = plan.class_of_row[plan.model_rows[done + row]]
            null[at] += (rest["p_value"][row] ** plan.powers[done + row]).tolist()
        done += n
    judged = np.full(real["p_value"].shape, np.nan)
    for row, gene in np.ndindex(judged.shape):
        of_class = np.array(null[plan.class_of_row[row]])
        judged[row, gene] = (1 + (of_class <= real["p_value"][row, gene]).sum()) / (
            1 + len(of_class)
        )
    families = {"all": [np.s_[:]], "target": list(range(len(judged))),
                "gene": [np.s_[:, j] for j in range(adata.n_vars)]}[scope]  # fmt: skip
    fdr = np.full(judged.shape, np.nan)
    for family in families:
        p = judged[family].ravel()
        order = np.argsort(-p, kind="stable")
        steps = p[order] * len(p) / np.arange(len(p), 0, -1)
        adjusted = np.empty(len(p))
        adjusted[order] = np.minimum.accumulate(np.minimum(steps, 1.0))
        fdr[family] = adjusted.reshape(judged[family].shape)
    return real["p_value"], fdr


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("scope", ["all", "target", "gene"])
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
def test_by_hand(scope: str, metric: str):
    adata = screen(sparse.csr_matrix(logged()))
    found = compared(adata, fdr_scope=scope, metric=metric)
    p_value, fdr = by_hand(adata, scope, metric=metric)
    np.testing.assert_array_equal(found["p_value"], p_value)
    np.testing.assert_allclose(found["fdr"], fdr, rtol=1e-14)  # worst seen: 2e-16
    assert len(np.unique(fdr)) > 4


def test_provenance_and_log(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.INFO, "pdex_gpu"):
        found = compared()
    assert found.provenance["fdr_method"] == "empirical"
    facts = found.provenance["empirical_null"]
    assert (facts["seed"], facts["splits"]) == (SEED, 12)
    assert [its["target_cells"] for its in facts["size_classes"]] == [[5, 5], [12, 14]]
    for its in facts["size_classes"]:
        assert its["null_tests"] == 9 * its["mock_groups"] >= 180
        assert set(its["excess"]) == {"0.05", "0.001"}
        assert its["excess"]["0.05"] < 2.0
    assert json.loads(json.dumps(facts)) == facts
    (line,) = [r.getMessage() for r in caplog.records if "empirical null" in r.getMessage()]
    assert "mock groups in 2 classes of sizes" in line
    assert "empirical_null" not in compared(fdr_method="bonferroni").provenance


# --- the same bits ----------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("how", [*MEMORY, "backed csr", "backed C"])
def test_any_storage(how: str, tmp_path: Path):
    assert_same_bits(compared(stored(how, logged(), tmp_path)), compared())


@pytest.mark.parametrize(
    "options",
    [
        {"gene_chunk_size": 2},
        {"n_threads": 1},
        {"n_workers": 2, "n_threads": 1},
        pytest.param({"engine": "shared_memory", "n_workers": 2}, marks=pytest.mark.thorough),
        {"backend": "numpy"},
        {"memory": "30MB"},
    ],
    ids=repr,
)
def test_any_engine(options: dict[str, Any]):
    assert_same_bits(compared(**options), compared())


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("scope", ["all", "target", "gene"])
@pytest.mark.parametrize("filters", [{}, {"min_fraction": 0.6}, {"min_cpm": 9e4}], ids=repr)
@pytest.mark.parametrize("pieces", [1 << 18, 5])
def test_files_have_the_same_bits(
    scope: str, filters: dict[str, Any], pieces: int, tmp_path: Path, monkeypatch: Any
):
    expected = compared(fdr_scope=scope, **filters)
    if pieces == 5:  # p-values do not fit in memory
        monkeypatch.setattr(external_sort, "_PIECE", pieces)
        monkeypatch.setattr(external_sort, "_BYTES", 1 << 26)
    out = tmp_path / "de.parquet"
    found = compared(fdr_scope=scope, **filters, out=out, gene_chunk_size=2, memory="1GB")
    assert_same_bits(found.load(), expected)
    assert found.provenance["empirical_null"] == expected.provenance["empirical_null"]
    assert bool(filters) == (expected.kept is not None)
    tests = sum(its["null_tests"] for its in found.provenance["empirical_null"]["size_classes"])
    groups = sum(its["mock_groups"] for its in found.provenance["empirical_null"]["size_classes"])
    assert (tests < 9 * groups) == bool(filters)


@pytest.mark.parametrize("out", [None, "de.parquet"])
def test_filters_that_leave_nothing_or_one_gene(out: str | None, tmp_path: Path):
    more = {} if out is None else {"out": tmp_path / out}
    found = compared(min_cpm=2e6, **more)
    assert found.n_rows == 0
    for its in found.provenance["empirical_null"]["size_classes"]:
        assert its["null_tests"] == 0
        assert its["excess"] == {"0.05": None, "0.001": None}
    adata = screen(sparse.csr_matrix(logged()))
    adata.obs["gene"] = adata.obs[GROUPBY].map({"A": "gene1", "B": "gene2", "C": "gene3"})
    more = {} if out is None else {"out": tmp_path / "own.parquet"}
    found = compared(adata, on_target="gene", **more)
    assert found.n_rows == 3  # judged by all genes of the mock groups
    for its in found.provenance["empirical_null"]["size_classes"]:
        assert its["null_tests"] == 9 * its["mock_groups"]


def test_unsorted_indices_are_sorted_for_both_readings():
    matrix = sparse.csr_matrix(logged())
    for start, stop in zip(matrix.indptr[:-1], matrix.indptr[1:], strict=True):
        matrix.indices[start:stop] = matrix.indices[start:stop][::-1].copy()
        matrix.data[start:stop] = matrix.data[start:stop][::-1].copy()
    matrix.has_sorted_indices = False
    assert_same_bits(compared(screen(matrix)), compared())


def test_a_run_stopped_before_its_null_resumes(tmp_path: Path):
    whole = tmp_path / "whole.parquet"
    run(whole, fdr_method="empirical")
    out = tmp_path / "de.parquet"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, into_file, "empirical_null", 0)
        with pytest.raises(Stop):
            run(out, fdr_method="empirical")
    found = run(out, fdr_method="empirical")
    assert out.read_bytes() == whole.read_bytes()
    assert found.provenance["empirical_null"]["splits"] == 12
    assert not checkpoint_folder(out).exists()


def test_a_file_that_only_lacked_its_name_keeps_the_facts(tmp_path: Path):
    whole = run(tmp_path / "whole.parquet", fdr_method="empirical")
    out = tmp_path / "de.parquet"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, into_file.Checkpoint, "remove", 0)
        with pytest.raises(Stop):
            run(out, fdr_method="empirical")
    found = run(out, fdr_method="empirical", force=True)
    assert found.provenance["empirical_null"] == whole.provenance["empirical_null"]


def test_another_method_does_not_resume_it(tmp_path: Path):
    from pdex_gpu.errors import CheckpointError

    out = tmp_path / "de.parquet"
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, into_file, "empirical_null", 0)
        with pytest.raises(Stop):
            run(out, fdr_method="empirical")
    with pytest.raises(CheckpointError, match="fdr_method"):
        run(out)


# --- whom it compares -------------------------------------------------------------------------


def larger(seed: int = 0) -> ad.AnnData:
    """Six groups in two batches with two kinds of controls; no effect."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(["ctl", "other", "A", "B", "C"], [150, 150, 30, 20, 10]))
    adata = ad.AnnData(sparse.csr_matrix(rng.poisson(0.3, (360, 40)).astype(np.float32)))
    adata.obs[GROUPBY] = labels
    adata.obs["batch"] = rng.choice(["x", "y"], 360)
    guides = pd.DataFrame({name: labels == name for name in np.unique(labels)})
    guides.index = adata.obs_names
    guides.loc[guides.index[:25], "A"] = True  # cells with two guides
    adata.obsm["guides"] = guides
    return adata


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    "options",
    [
        {"reference": ["ctl", "other"]},
        {"comparison": "each_reference", "reference": ["ctl", "other"]},
        {"strata": "batch", "metric": "t-test", "groups": ["A", "B", "C"]},
        {"groupby": [GROUPBY, "batch"]},
        {"comparison": "pairs", "pairs": [("A", "ctl"), ("B", "other")], "reference": "ctl"},
        {"groupby": None, "guides": "guides"},
        {"cells": "batch=x", "groups": ["A", "B", "C"]},
        {"metric": "anderson", "p_values": "conditional"},
        {"metric": "ks"},
        {"alternative": "less"},
        {"columns": ["auroc", "log10_p"]},
    ],
    ids=repr,
)
def test_every_comparison_with_references(options: dict[str, Any]):
    found = compared(larger(), **options)
    plain = compared(larger(), **(options | {"fdr_method": "benjamini-hochberg"}))
    np.testing.assert_array_equal(found["p_value"], plain["p_value"])
    assert ((found["fdr"] > 0) & (found["fdr"] <= 1)).all()
    assert (found["fdr"] != plain["fdr"]).any()
    for its in found.provenance["empirical_null"]["size_classes"]:
        assert its["null_tests"] == 40 * its["mock_groups"]
        assert its["excess"]["0.05"] < 4  # 3.0 of Anderson-Darling; others below 1.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"comparison": "rest"}, "compared with 'rest', not with a reference. Use comparison="),
        ({"comparison": "perturbed"}, "not with a reference"),
        ({"groupby": None, "guides": "guides", "comparison": "rest"}, "not with a reference"),
        (
            {"reference": "C"},
            "there are too few: 10 cells. The largest targets have 150 cells, for which it takes "
            "about 1..? reference cells. Pool several references",
        ),
    ],
)
def test_refused(options: dict[str, Any], message: str, tmp_path: Path):
    with pytest.raises(OptionError, match=message):
        compared(larger(), **options, out=tmp_path / "de.csv")
    assert not list(tmp_path.iterdir())


@pytest.mark.thorough
def test_too_little_memory_for_the_null(tmp_path: Path):
    wide = ad.AnnData(sparse.csr_matrix((60, 400_000), dtype=np.float32))
    wide.obs[GROUPBY] = np.repeat(["ctl", "A"], [50, 10])
    out, some = tmp_path / "de.parquet", {"memory": "100MB", "reference": "ctl"}
    with pytest.raises(
        MemoryBudgetError, match=r"192,\d{3},\d{3} bytes for the p-values of mock g"
    ):
        compared(wide, **some, out=out)
    with pytest.raises(MemoryBudgetError, match=r"takes .* bytes in memory"):
        compared(wide, **some)
    found = estimate(wide, GROUPBY, fdr_method="empirical", timing=False, out=out, **some)
    assert found.lacks == ("memory",)
    assert not list(tmp_path.iterdir())


def test_drop_ins_do_not_take_it():
    adata = larger()
    with pytest.raises(OptionError, match="empirical"):
        rank_genes_groups(adata, GROUPBY, reference="ctl", corr_method="empirical")


# --- what it is good for ----------------------------------------------------------------------


def null_screen() -> ad.AnnData:
    """Controls of a sparse screen, 40 groups of 20 of them labelled at random."""
    made = simulate_screen(
        2400, 600, 1, control_fraction=0.9, mean_umi=250, gene_sigma=2.5, knockdown=1.0,
        affected_fraction=0.0, seed=3,
    )  # fmt: skip
    adata = made.to_anndata()
    adata = adata[adata.obs["target_gene"] == "non-targeting"].copy()
    labels = np.full(adata.n_obs, REFERENCE, object)
    labels[:800] = np.repeat([f"g{k}" for k in range(40)], 20)
    adata.obs[GROUPBY] = np.random.default_rng(5).permutation(labels)
    return adata


@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson"])
def test_no_hits_where_nothing_differs(metric: str):
    options = {"metric": metric, "p_values": "asymptotic", "fdr_scope": "target"}
    adata = null_screen()
    plain = compared(adata, **options, **{"fdr_method": "benjamini-hochberg"})
    assert np.count_nonzero(plain["fdr"] <= 0.05) > 100
    found = compared(adata, **options)
    # Expected: 2 of 40 groups with a hit.
    assert np.count_nonzero((found["fdr"] <= 0.05).any(axis=1)) <= 4
    assert np.count_nonzero(compared(adata, **(options | {"fdr_scope": "all"}))["fdr"] <= 0.05) == 0
    (its,) = found.provenance["empirical_null"]["size_classes"]
    assert its["excess"]["0.001"] > 4


@pytest.mark.parametrize("p_values", ["asymptotic", "conditional"])
def test_effects_are_still_found(p_values: str):
    adata = simulate_screen(5000, 300, 20, control_fraction=0.2, seed=1).to_anndata()
    options = {"reference": "non-targeting", "normalize": 1e4, "p_values": p_values}
    plain = compared(adata, "target_gene", **options, **{"fdr_method": "benjamini-hochberg"})
    found = compared(adata, "target_gene", **options)
    strong = plain["fdr"] < 1e-4
    assert np.count_nonzero(strong) > 80
    assert np.count_nonzero(strong & (found["fdr"] <= 0.05)) >= 0.98 * np.count_nonzero(strong)


def test_calibrate_counts_its_false_hits():
    adata = null_screen()
    options = {"reference": REFERENCE, "p_values": ["asymptotic", "conditional"], "progress": False,
               "backend": "cpu", "fdr_scope": "target"}  # fmt: skip
    plain = calibrate(adata, GROUPBY, **options)
    found = calibrate(adata, GROUPBY, fdr_method="empirical", **options)
    assert plain.of("asymptotic").n_false_positives.sum() > 50
    for kind in options["p_values"]:
        assert (found.of(kind).n_false_positives.sum(axis=1) > 0).sum() <= 5


# --- cost and command line --------------------------------------------------------------------


def test_estimate_counts_the_second_reading(tmp_path: Path):
    path = tmp_path / "screen.h5ad"
    larger().write_h5ad(path)
    options = {"reference": "ctl", "timing": False, "memory": "1GB"}
    plain = estimate(str(path), GROUPBY, **options)
    found = estimate(str(path), GROUPBY, fdr_method="empirical", **options)
    assert found.result_bytes > plain.result_bytes
    assert any("mock groups" in text for text in found.assumptions)
    with pytest.raises(OptionError, match="not with a reference"):
        estimate(str(path), GROUPBY, fdr_method="empirical", **options, comparison="rest")


def test_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path, out = tmp_path / "screen.h5ad", tmp_path / "de.parquet"
    screen(sparse.csr_matrix(logged())).write_h5ad(path)
    argv = ["run", str(path), "--groupby", GROUPBY, "--reference", REFERENCE, "--backend", "cpu"]
    assert main([*argv, "--fdr-method", "empirical", "-o", str(out)]) == 0
    assert_same_bits(pd.read_parquet(out), compared().to_pandas())
    argv += ["--fdr-method", "empirical", "-o", str(tmp_path / "rest.csv")]
    assert main([*argv, "--comparison", "rest"]) != 0
    assert "not with a reference" in capsys.readouterr().err
