"""cell-eval scores the same with our tables as with those that its own pdex makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import pdex_gpu
from pdex_gpu.simulate import GROUPBY, REFERENCE

cell_eval = pytest.importorskip("cell_eval", reason="needs cell-eval: make test-peers")
evaluator = pytest.importorskip("cell_eval._evaluator")

from importlib.metadata import version  # noqa: E402

OLD = version("cell_eval").startswith("0.6")  # with pdex 0.1.28; later ones with pdex 0.3


def ours(adata: Any) -> pl.DataFrame:
    """What a user would write instead of pdex."""
    if OLD:
        return pdex_gpu.differential_expression(
            adata, GROUPBY, reference=REFERENCE, progress=False, is_log1p=True,
            p_values="asymptotic",
        ).to_polars().drop("log2_fold_change")  # fmt: skip
    return pdex_gpu.pdex(adata, GROUPBY, mode="ref", is_log1p=True, epsilon=0.0)


def scores(folder: Path, screen: Any, prediction: Any, **tables: Any) -> pl.DataFrame:
    evaluate = cell_eval.MetricsEvaluator(
        prediction.copy(), screen.copy(), control_pert=REFERENCE, pert_col=GROUPBY,
        num_threads=1, outdir=str(folder), **tables,
    )  # fmt: skip
    found, _ = evaluate.compute(profile="de", write_csv=False, break_on_error=True)
    return found.sort("perturbation")


def assert_equal_scores(found: pl.DataFrame, wanted: pl.DataFrame) -> None:
    assert found.columns == wanted.columns
    assert found.height == wanted.height == 5
    for name in wanted.columns:
        if name == "perturbation":
            assert found[name].to_list() == wanted[name].to_list()
            continue
        # The worst seen is 0: pdex computes p-values in float32 nowhere on these data.
        np.testing.assert_allclose(
            found[name].cast(pl.Float64).to_numpy(),
            wanted[name].cast(pl.Float64).to_numpy(),
            rtol=1e-6, err_msg=name,
        )  # fmt: skip


@pytest.fixture(scope="module")
def wanted(screen: Any, prediction: Any, tmp_path_factory: pytest.TempPathFactory) -> pl.DataFrame:
    """The scores with its own pdex, which must say something."""
    found = scores(tmp_path_factory.mktemp("own"), screen, prediction)
    assert found["overlap_at_N"].cast(pl.Float64).mean() > 0
    return found


def test_tables_in_place_of_those_of_pdex(screen, prediction, wanted, tmp_path):
    found = scores(tmp_path, screen, prediction, de_real=ours(screen), de_pred=ours(prediction))
    assert_equal_scores(found, wanted)


def test_files_in_place_of_those_of_pdex(screen, prediction, wanted, tmp_path):
    ours(screen).with_columns(pl.col(pl.Categorical).cast(pl.Utf8)).write_csv(tmp_path / "r.csv")
    ours(prediction).with_columns(pl.col(pl.Categorical).cast(pl.Utf8)).write_csv(
        tmp_path / "p.csv"
    )
    tables = {"de_real": str(tmp_path / "r.csv"), "de_pred": str(tmp_path / "p.csv")}
    assert_equal_scores(scores(tmp_path, screen, prediction, **tables), wanted)


def test_a_table_of_the_native_call(screen, prediction, tmp_path):
    """The usual columns; 0.6 must make log2_fold_change itself, with its absolute values."""
    tables = {
        name: pdex_gpu.differential_expression(
            data, GROUPBY, reference=REFERENCE, progress=False
        ).to_polars()
        for name, data in (("de_real", screen), ("de_pred", prediction))
    }
    if OLD:
        tables = {name: table.drop("log2_fold_change") for name, table in tables.items()}
    found = scores(tmp_path, screen, prediction, **tables)
    assert found.height == 5
    assert found["overlap_at_N"].cast(pl.Float64).mean() > 0


def test_the_function_in_place_of_pdexs(screen, prediction, wanted, tmp_path, monkeypatch):
    name = "parallel_differential_expression" if OLD else "pdex"
    monkeypatch.setattr(evaluator, name, getattr(pdex_gpu, name))
    assert_equal_scores(scores(tmp_path, screen, prediction), wanted)
