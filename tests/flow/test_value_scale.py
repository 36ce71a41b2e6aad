"""Values that are neither counts nor log1p of counts: what is NaN, what is said, and how often."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pytest
from emulated.build import needs_compiler
from scipy import sparse
from screens import backend_of
from stored_screens import (
    BACKED,
    GROUPBY,
    MEMORY,
    REFERENCE,
    assert_same_bits,
    counts,
    logged,
    screen,
    stored,
)

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.errors import DataError, ScaleWarning

OF_COUNTS = [
    f"{side}_{mean}_mean"
    for side in ("target", "reference")
    for mean in ("count", "log", "geometric")
] + [f"log2_fold_change{whose}" for whose in ("", "_scanpy", "_seurat", "_geometric")]
RATIOS = ["percent_change", "fold_change", *OF_COUNTS]
NEGATIVE = "negative values, down to .* mean_difference"


def scaled() -> np.ndarray:
    """As scanpy.pp.scale makes it, but for one gene."""
    values = logged()
    return ((values - values.mean(0)) / (values.std(0) + 0.1)).astype(np.float32)


def one_negative() -> np.ndarray:
    """Counts, but for one value."""
    values = counts()
    values[1, 8] = -2.5
    return values


def run(data: Any, groupby: str = GROUPBY, **options: Any) -> Any:
    options = {"reference": REFERENCE, "progress": False, **options}
    return pdex_gpu.differential_expression(data, groupby, **options)


def said(caught: Any) -> list[str]:
    assert {w.category for w in caught} <= {ScaleWarning}
    assert all(w.filename == __file__ for w in caught)
    return [str(w.message) for w in caught]


def warned(function: Any, *args: Any, **options: Any) -> tuple[Any, list[str]]:
    """What a call gives and warns of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = function(*args, **options)
    return found, [str(w.message) for w in caught if w.category is ScaleWarning]


# --- negative values -------------------------------------------------------------------------


@pytest.mark.parametrize("is_log1p", [None, False, True])
@pytest.mark.parametrize("exp_post_agg", [True, False])
def test_ratios_are_nan_and_means_are_of_the_values(is_log1p, exp_post_agg):
    values = scaled()
    with pytest.warns(ScaleWarning, match=NEGATIVE) as caught:
        result = run(screen(values), columns="all", is_log1p=is_log1p, exp_post_agg=exp_post_agg)
    assert len(said(caught)) == 1
    labels = screen(values).obs[GROUPBY].to_numpy()
    mean = {label: values[labels == label].astype(float).mean(axis=0) for label in set(labels)}
    targets = [mean[label] for label in result.targets]
    # Worst seen: 1e-16.
    np.testing.assert_allclose(result["target_mean"], targets, rtol=1e-12, atol=1e-15)
    difference = result["target_mean"] - result["reference_mean"]
    np.testing.assert_array_equal(result["mean_difference"], difference)
    assert result.provenance["negative_values"] is True
    assert result.provenance["raw_counts"] is False
    assert result.provenance["is_log1p"] is False
    for name in result.columns:
        assert np.isnan(result[name]).all() == (name in RATIOS), name


def test_one_value_in_another_gene_is_enough():
    plain, other = run(screen(counts())), screen(one_negative())
    result, texts = warned(run, other)
    assert len(texts) == 1
    assert np.isnan(result["fold_change"]).all()
    for name in ("target_mean", "reference_mean", "p_value", "statistic"):
        np.testing.assert_array_equal(result[name][:, :8], plain[name][:, :8])


def test_cells_that_take_no_part_do_not_count():
    values = counts()
    adata = screen(values)
    adata.X[(adata.obs[GROUPBY] == "A").to_numpy()] *= -1
    plain = run(screen(values), groups=["B", "C"])
    result = run(adata, groups=["B", "C"])  # no warning, or it would be an error
    assert_same_bits(result, plain)
    assert result.provenance["negative_values"] is False


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("how", [*MEMORY, *BACKED])
@pytest.mark.parametrize("engine", ["threads", "shared_memory"])
def test_neither_storage_nor_cut_matters(how, engine, tmp_path):
    if engine == "shared_memory" and how not in ("C", "csr"):
        pytest.skip("in memory alone, and the source is the same")
    expected, (text,) = warned(run, screen(one_negative()))
    for options in ({}, {"gene_chunk_size": 1}, {"gene_chunk_size": 4, "n_workers": 2}):
        data = stored(how, one_negative(), tmp_path)
        result, texts = warned(run, data, engine=engine, **options)
        assert texts == [text]
        assert_same_bits(result, expected)
        if data.isbacked:
            data.file.close()


@pytest.mark.parametrize(
    "kernels", ["numpy", "cpu", pytest.param("emulated", marks=needs_compiler)]
)
@pytest.mark.parametrize("values", [one_negative, scaled])
def test_every_backend_tells(kernels, values, monkeypatch):
    backend = backend_of(kernels, monkeypatch)
    result, (text,) = warned(run, screen(sparse.csr_matrix(values())), backend=backend)
    assert f"down to {values().min():.6g}:" in text
    assert np.isnan(result["fold_change"]).all()


def test_nan_that_is_left_out_does_not_hide_it():
    values = one_negative()
    values[5, 3] = np.nan
    result, texts = warned(run, screen(values), nan_policy="omit")
    assert len(texts) == 1
    assert result.provenance["negative_values"] is True


def test_min_cpm_is_not_applied():
    result, (text,) = warned(run, screen(one_negative()), min_cpm=1e6)
    assert "min_cpm= (cpm_filter=) is not applied" in text
    assert result.kept is None
    with pytest.warns(ScaleWarning):
        both = run(screen(one_negative()), min_cpm=1e6, min_fraction=0.9)
    assert set(both.provenance["removed"]) == {"min_fraction"}


def test_other_matrices_are_listed(tmp_path):
    adata = screen(scaled(), layers={"counts": counts(), "logged": logged()})
    adata.raw = screen(counts())
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    for data in (adata, str(path), ad.read_h5ad(path, backed="r")):
        _, (text,) = warned(run, data)
        assert text.endswith("The data also have layers 'counts', 'logged'; raw (raw=True, --raw).")
    adata.layers["scaled"] = scaled()
    adata.X = counts()
    _, (text,) = warned(run, adata, layer="scaled")
    assert text.startswith("Layer 'scaled' has negative values")
    assert "have X; layers 'counts', 'logged'; raw (" in text
    _, (text,) = warned(run, screen(scaled()))
    assert text.endswith("The data have no other matrix.")


def test_a_file_says_the_same(tmp_path):
    out = tmp_path / "de.parquet"
    expected, texts = warned(run, screen(scaled()), columns=["mean_difference"])
    result, again = warned(run, screen(scaled()), columns=["mean_difference"], out=out)
    assert again == texts
    assert_same_bits(result.load(), expected)
    opened = pdex_gpu.open_result(out)
    assert opened.provenance["negative_values"] is True
    assert opened.provenance["raw_counts"] is False


def test_on_dask_workers():
    pytest.importorskip("distributed")
    from dask_clusters import cluster

    expected, texts = warned(run, screen(one_negative()))
    with cluster(2) as client:
        result, again = warned(
            run, screen(one_negative()), engine="dask", client=client, gene_chunk_size=3
        )
    assert again == texts
    assert_same_bits(result, expected)


# --- drop-ins and other calls ------------------------------------------------------------------


def test_drop_ins():
    adata = screen(scaled())
    adata.obs[GROUPBY] = adata.obs[GROUPBY].astype("category")
    table, texts = warned(
        pdex_gpu.parallel_differential_expression, adata, reference=REFERENCE,
        groupby_key=GROUPBY, num_workers=1, show_progress=False,
    )  # fmt: skip
    assert len(texts) == 1
    assert table[["fold_change", "percent_change"]].isna().all(axis=None)
    assert table[["target_mean", "p_value"]].notna().all(axis=None)
    _, texts = warned(pdex_gpu.rank_genes_groups, adata, GROUPBY)
    assert len(texts) == 1
    records = adata.uns["rank_genes_groups"]
    assert all(np.isnan(records["logfoldchanges"][name]).all() for name in "ABC")
    assert not any(np.isnan(records["scores"][name]).any() for name in "ABC")


def test_calibration_says_it_once():
    found, texts = warned(
        pdex_gpu.calibrate, screen(scaled()), GROUPBY, reference=REFERENCE, n_repeats=3,
        progress=False,
    )  # fmt: skip
    assert len(texts) == 1
    assert found.of().provenance["negative_values"] is True


def test_sums_of_negative_values():
    adata = screen(one_negative(), layers={"counts": counts()})
    _, (text,) = warned(pdex_gpu.pseudobulk, adata, GROUPBY)
    assert "down to -2.5: they are not counts, so their sums are not counts either" in text
    assert "layers 'counts" in text
    for method in ("mean", "median"):
        assert warned(pdex_gpu.pseudobulk, adata, GROUPBY, method=method)[1] == []
    assert warned(pdex_gpu.pseudobulk, adata, GROUPBY, layer="counts")[1] == []
    pytest.importorskip("pydeseq2")
    adata.obs["donor"] = ["d1", "d2"] * 27 + ["d1"]
    adata.X[1, 8] = -1.0  # sums are whole and above 0
    adata.X[2:, 8] += 3.0
    with pytest.raises(DataError, match=r"some cell has a negative value: -1\. .*layers 'counts"):
        pdex_gpu.pseudobulk_dex(adata, [GROUPBY, "donor"], test_col=GROUPBY, reference=REFERENCE)


# --- logarithms --------------------------------------------------------------------------------


def cpm() -> np.ndarray:
    values = counts().astype(float)
    return values / np.maximum(values.sum(axis=1, keepdims=True), 1.0) * 1e6


@pytest.mark.parametrize("how", [*MEMORY, "backed csr"])
def test_fractions_too_large_for_logarithms(how, tmp_path):
    plain = run(screen(cpm()), is_log1p=False, columns=["log2_fold_change"])
    for options in ({}, {"gene_chunk_size": 1}):
        data = stored(how, cpm(), tmp_path)
        result, (text,) = warned(run, data, columns=["log2_fold_change"], **options)
        assert f"its values reach {cpm().max():,.6g}" in text
        assert "is_log1p=False" in text
        assert result.provenance["is_log1p"] is False
        assert result.provenance["raw_counts"] is False
        assert_same_bits(result, plain)
        if data.isbacked:
            data.file.close()


@pytest.mark.parametrize(("largest", "expected"), [(25.0, True), (25.01, False)])
def test_the_limit(largest, expected):
    values = logged()
    values[3, 3] = largest
    result, texts = warned(run, screen(values))
    assert result.provenance["is_log1p"] is expected
    assert len(texts) == (not expected)


def test_what_was_asked_is_done_and_doubted():
    with np.errstate(over="ignore"):
        result, (text,) = warned(run, screen(cpm()), is_log1p=True)
    assert text.startswith("X is treated as log1p of counts, but its values reach")
    assert "expm1 of more than 709 is infinite" in text
    assert result.provenance["is_log1p"] is True
    values = logged()
    values[3, 3] = 30.0
    _, (text,) = warned(run, screen(values), is_log1p=True)
    assert "infinite" not in text
    assert warned(run, screen(cpm()), is_log1p=False)[1] == []


def test_the_drop_in_keeps_the_rule_of_pdex():
    values = logged()
    values[3, 3] = 30.0
    options = {"reference": REFERENCE, "groupby_key": GROUPBY, "num_workers": 1}
    asked, _ = warned(
        pdex_gpu.parallel_differential_expression, screen(values), is_log1p=True, **options
    )
    found, (text,) = warned(pdex_gpu.parallel_differential_expression, screen(values), **options)
    assert "is treated as log1p of counts" in text
    assert_same_bits(found, asked)


def test_rank_genes_groups_doubts_fractions_that_are_no_logarithms():
    adata = screen(cpm())
    adata.obs[GROUPBY] = adata.obs[GROUPBY].astype("category")
    with np.errstate(over="ignore"):
        _, (text,) = warned(pdex_gpu.rank_genes_groups, adata, GROUPBY)
    assert "is_log1p" not in text
    assert "If these are counts, have them normalised on the way with normalize=1e4" in text


def test_raw_counts_are_noted(tmp_path, monkeypatch, capsys):
    assert run(screen(counts())).provenance["raw_counts"] is True
    assert run(screen(counts()), is_log1p=True).provenance["raw_counts"] is False
    assert run(screen(logged())).provenance["raw_counts"] is False
    assert run(screen(logged()), is_log1p=False).provenance["raw_counts"] is False
    monkeypatch.setattr("pdex_gpu.cli.commands.run.on_terminal", lambda stream: True)
    for values, line in ((counts(), True), (logged(), False)):
        path = tmp_path / "screen.h5ad"
        screen(values).write_h5ad(path)
        assert shown(path, tmp_path / "de.csv", capsys).count(
            "\nvalues: raw counts (library size not removed)\n"
        ) == line  # fmt: skip


def test_the_command_line_warns_in_its_style(tmp_path, capsys):
    path = tmp_path / "screen.h5ad"
    screen(scaled()).write_h5ad(path)
    text = shown(path, tmp_path / "de.csv", capsys)
    assert text.count("pdex-gpu: warning: X has negative values, down to") == 1


def shown(path: Path, out: Path, capsys: Any) -> str:
    argv = ["run", str(path), "--groupby", GROUPBY, "--reference", REFERENCE, "-o", str(out)]
    assert main([*argv, "--force"]) == 0
    return capsys.readouterr().err
