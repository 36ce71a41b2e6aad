"""Results in other shapes: AnnData, wide frames, ranked lists, and tables in pandas and polars."""

from __future__ import annotations

import csv
import json
from typing import Any

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pyarrow.parquet as pq
import pytest
from stored_screens import GENES, GROUPBY, REFERENCE, counts, logged, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.results.schema import INTEGERS, VALUES

AWKWARD = ["a,b", 'say "no"', "<script>", "🧬", "x" * 200, "g\nh", "$\\alpha$", "[red]", "plain"]


def run(data: Any = None, **options: Any) -> pdex_gpu.DEResult:
    data = screen(counts()) if data is None else data
    options = {"reference": REFERENCE, "progress": False} | options
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


# --- AnnData --------------------------------------------------------------------------------


def test_an_anndata_has_a_layer_a_column():
    result = run(columns=["log10_p", "target_n_cells"])
    adata = result.to_anndata()
    assert adata.X is None
    assert list(adata.layers) == list(result.columns)
    for name in result.columns:
        np.testing.assert_array_equal(adata.layers[name], result[name])
        assert adata.layers[name].dtype == result[name].dtype
    assert adata.obs_names.tolist() == ["A", "B", "C"]
    assert adata.obs["target"].tolist() == ["A", "B", "C"]
    assert set(adata.obs["reference"]) == {REFERENCE}
    assert adata.var_names.tolist() == GENES
    assert json.loads(adata.uns["pdex_gpu"])["metric"] == "wilcoxon"


def test_an_anndata_is_a_copy():
    result = run()
    result.to_anndata().layers["fdr"][:] = 7
    assert not (result["fdr"] == 7).any()


def test_an_anndata_of_filtered_levels_survives_a_file(tmp_path):
    import anndata as ad

    data = screen(counts())
    data.obs["level"] = np.where(np.arange(data.n_obs) % 2, "one", "two")
    result = pdex_gpu.differential_expression(
        data, [GROUPBY, "level"], reference=REFERENCE, progress=False, min_fraction=0.5,
        columns=["target_n_cells"],
    )  # fmt: skip
    assert result.kept is not None
    assert not result.kept.all()
    result.to_anndata().write_h5ad(tmp_path / "r.h5ad")
    adata = ad.read_h5ad(tmp_path / "r.h5ad")
    assert adata.obs_names.tolist()[:2] == ["A in one", "B in one"]
    assert adata.obs["level"].astype(str).tolist() == list(map(str, result.within[1]))
    for name in result.columns:
        there = ~np.isnan(adata.layers[name])
        if name in INTEGERS or name == "p_value":
            np.testing.assert_array_equal(there, result.kept)
        np.testing.assert_array_equal(adata.layers[name][there], result[name][there])


# --- wide frames and ranked lists -----------------------------------------------------------


def test_a_wide_frame_is_comparisons_by_genes():
    result = run()
    frame = result.to_wide("fold_change")
    assert frame.index.tolist() == ["A", "B", "C"]
    assert frame.columns.tolist() == GENES
    np.testing.assert_array_equal(frame.to_numpy(), result["fold_change"])


def test_signed_log10_p():
    result = run(columns=["log10_p"])
    wide = result.to_wide()
    wanted = -np.log10(result["p_value"]) * np.sign(
        result["target_mean"] - result["reference_mean"]
    )
    np.testing.assert_allclose(wide, wanted, rtol=1e-12, atol=1e-15)  # worst seen: 2e-16
    # without the column, the same from p_value
    np.testing.assert_allclose(run().to_wide(), wanted, rtol=1e-12, atol=1e-15)


def test_p_values_of_zero_without_their_logarithm():
    result = run()
    result["p_value"][0, 0] = 0.0
    found = result.to_wide().iloc[0, 0]
    assert abs(found) == pytest.approx(323.306, abs=1e-3)


# --- pertpy ---------------------------------------------------------------------------------


def test_pertpys_table_has_its_names_and_our_values():
    result = run()
    table = result.to_pertpy()
    names = ["variable", "p_value", "statistic", "log_fc", "adj_p_value", "contrast"]
    assert list(table) == names
    assert table.index.tolist() == list(range(result.n_rows))
    ours = result.to_pandas().set_index(["target", "feature"])
    for name, own in {**dict.fromkeys(names[1:3]), "log_fc": "log2_fold_change",
                      "adj_p_value": "fdr"}.items():  # fmt: skip
        found = table.set_index(["contrast", "variable"])[name]
        wanted = ours[own or name].loc[list(found.index)]
        np.testing.assert_array_equal(found, wanted)
    assert list(dict.fromkeys(table["contrast"])) == ["A", "B", "C"]
    for _, part in table.groupby("contrast", observed=True):
        assert part["p_value"].is_monotonic_increasing
        assert sorted(part["variable"]) == sorted(GENES)


def test_pertpys_table_lists_equal_p_values_in_the_order_of_genes_and_nan_last():
    result = run()
    result["p_value"][:] = 1.0
    result["p_value"][0, 0] = np.nan
    table = result.to_pertpy()
    assert table["variable"].tolist() == [*GENES[1:], GENES[0], *GENES, *GENES]


def test_pertpys_table_leaves_out_what_is_not_kept():
    result = run(min_fraction=0.5)
    assert result.kept is not None
    table = result.to_pertpy()
    assert len(table) == result.n_rows == int(result.kept.sum()) < result.kept.size
    of_a = table[table["contrast"] == "A"]["variable"]
    assert sorted(of_a) == sorted(result.features[result.kept[0]])


def test_pertpys_table_has_symbols_too():
    data = screen(counts())
    data.var["symbol"] = [f"S{g}" for g in range(len(GENES))]
    table = run(data, gene_symbols="symbol").to_pertpy()
    assert list(table)[-1] == "symbol"
    assert dict(zip(table["variable"], table["symbol"], strict=True)) == dict(
        zip(GENES, data.var["symbol"], strict=True)
    )


def test_pertpys_table_needs_a_fold_change():
    result = run()
    bare = pdex_gpu.DEResult(
        result.targets, result.references, result.features,
        {name: result[name] for name in VALUES}, {},
    )  # fmt: skip
    with pytest.raises(errors.OptionError, match=r"no log2_fold_change.*columns=\['log2_fold"):
        bare.to_pertpy()


def test_a_ranking_descends_and_leaves_out_what_is_not_there():
    result = run(min_fraction=0.5)
    assert result.kept is not None
    ranking = result.ranking("A")
    assert ranking.is_monotonic_decreasing
    assert sorted(ranking.index) == sorted(result.features[result.kept[0]])
    wide = result.to_wide().loc["A"]
    assert all(ranking[gene] == wide[gene] for gene in ranking.index)
    assert ranking.name == "signed_log10_p"


def test_equal_values_of_a_ranking_are_ordered_by_the_change():
    result = run()
    result["p_value"][:] = 1.0
    change = result["target_mean"][1] - result["reference_mean"][1]
    wanted = [GENES[g] for g in np.argsort(-change, kind="stable")]
    assert result.ranking("B").index.tolist() == wanted


def test_a_ranking_by_a_column():
    result = run(columns=["z"])
    ranking = result.ranking("B", by="z")
    assert ranking.tolist() == sorted(result["z"][1], reverse=True)


def test_nan_everywhere_is_an_empty_ranking():
    result = run()
    nothing = {name: np.full((3, 9), np.nan) for name in VALUES}
    result = pdex_gpu.DEResult(result.targets, result.references, result.features, nothing, {})
    assert len(result.ranking("A")) == 0
    assert result.to_wide().isna().all(axis=None)
    assert result.to_anndata().shape == (3, 9)


@pytest.mark.parametrize("call", ["to_wide", "ranking"])
def test_an_unknown_column(call: str):
    more = [] if call == "to_wide" else ["A"]
    with pytest.raises(errors.OptionError, match="fold_change"):
        getattr(run(), call)(*more, "fold_chang")


def test_an_unknown_target():
    with pytest.raises(errors.LabelError, match=r"nobody.*A"):
        run().ranking("nobody")


# --- tables ---------------------------------------------------------------------------------


def test_awkward_names_reach_every_table(tmp_path):
    result = run(screen(logged(), genes=AWKWARD))
    result.to_parquet(tmp_path / "r.parquet")
    result.to_csv(tmp_path / "r.csv")
    wanted = AWKWARD * 3
    assert result.to_pandas()["feature"].tolist() == wanted
    assert result.to_polars()["feature"].cast(pl.Utf8).to_list() == wanted
    assert result.to_arrow()["feature"].to_pylist() == wanted
    assert pq.read_table(tmp_path / "r.parquet")["feature"].to_pylist() == wanted
    assert pd.read_parquet(tmp_path / "r.parquet")["feature"].tolist() == wanted
    assert pl.read_parquet(tmp_path / "r.parquet")["feature"].cast(pl.Utf8).to_list() == wanted
    assert pd.read_csv(tmp_path / "r.csv")["feature"].tolist() == wanted
    assert pl.read_csv(tmp_path / "r.csv")["feature"].to_list() == wanted
    assert result.to_anndata().var_names.tolist() == AWKWARD


FORMULAS = [
    "=1+1",
    "+A1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r1",
    " =1",
    '"=1',
    "'-A1",
    "\uff1d1+1",
    "\uff20A",
]
HARMLESS = ["-1", "+2.5", "A=1", "CD4+", "a@b", "", "x-1"]


def test_names_that_spreadsheets_would_run(tmp_path):
    names = [*FORMULAS, *HARMLESS]
    labels = np.repeat([*names, "ctrl"], 4)
    obs = pd.DataFrame({"group": labels, "=level": "@all"}, index=[f"c{i}" for i in range(76)])
    values = np.random.default_rng(1).poisson(2.0, (76, len(names))).astype(float)
    data = anndata.AnnData(values, obs, pd.DataFrame(index=names))
    asked = {"reference": "ctrl", "metric": "t-test", "is_log1p": False, "progress": False}
    asked |= {"columns": ["mean_difference"]}
    result = pdex_gpu.differential_expression(data, ["group", "=level"], **asked)
    written = [f"'{name}" for name in FORMULAS] + HARMLESS
    for sep, suffix in ((",", "csv"), ("\t", "tsv")):
        path, out = tmp_path / f"r.{suffix}", tmp_path / f"out.{suffix}"
        result.to_csv(path, sep, spreadsheet_safe=True)
        pdex_gpu.differential_expression(
            data, ["group", "=level"], out=out, spreadsheet_safe=True, **asked
        )
        assert out.read_bytes() == path.read_bytes()
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=sep))
        assert {row["target"] for row in rows} == set(written)
        assert [row["feature"] for row in rows[: len(names)]] == written
        assert {row["'=level"] for row in rows} == {"'@all"}
        # Numbers stay numbers.
        found = [float(row["mean_difference"]) for row in rows]
        np.testing.assert_array_equal(found, result["mean_difference"].ravel())
        assert min(found) < 0.0
        result.to_csv(path, sep)
        with path.open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=sep))
        assert [row["feature"] for row in rows[: len(names)]] == names


@pytest.mark.skipif("not __import__('shutil').which('Rscript')", reason="R is not installed")
def test_r_reads_parquet(tmp_path):
    """With the package arrow or nanoparquet, whichever R has."""
    import subprocess

    result = run(columns=["target_n_cells"])
    result.to_parquet(tmp_path / "r.parquet")
    script = """
      path <- commandArgs(TRUE)[1]
      if (requireNamespace("arrow", quietly = TRUE)) {
        found <- arrow::read_parquet(path)
      } else if (requireNamespace("nanoparquet", quietly = TRUE)) {
        found <- nanoparquet::read_parquet(path)
      } else quit(status = 77)
      cat(as.character(found$target), "", sep = "\\n")
      cat(sprintf("%.17g", found$p_value), sep = "\\n")
    """
    done = subprocess.run(
        ["Rscript", "--vanilla", "-e", script, str(tmp_path / "r.parquet")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 77:
        pytest.skip("R has neither the package arrow nor nanoparquet")
    assert done.returncode == 0, done.stderr
    labels, numbers = done.stdout.split("\n\n")
    assert labels.split("\n") == result.to_pandas()["target"].tolist()
    np.testing.assert_array_equal(list(map(float, numbers.split())), result.flat("p_value"))
