"""Labels with lone surrogates: escapes in every export, told before anything is computed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.design.lone_surrogates import writable, writable_labels
from pdex_gpu.errors import LabelError, TextEncodingWarning
from pdex_gpu.utils.exit_codes import Exit

LONE, ESCAPE = "\udcff", "\\udcff"
N = 60


def screen(**names: str) -> ad.AnnData:
    """Each name of what is given has a lone surrogate at its end."""
    ends = dict.fromkeys(("target", "reference", "level", "column", "gene"), "") | names
    k = np.arange(N)
    obs = {
        "pert": np.where(k % 3 == 0, "ctl" + ends["reference"], "A" + ends["target"]),
        "batch" + ends["column"]: np.where(k % 2, "x" + ends["level"], "y"),
    }
    x = np.random.default_rng(0).poisson(2.0, (N, 4)).astype(np.float32)
    frame = pd.DataFrame({name: labels.astype(object) for name, labels in obs.items()})
    frame.index = frame.index.map(str)
    var = pd.DataFrame(index=pd.Index([*"abc", "d" + ends["gene"]], dtype=object))
    return ad.AnnData(x, obs=frame, var=var)


CASES = ["target", "reference", "level", "column", "gene"]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")
def test_every_export_has_the_escape(case: str, tmp_path: Path, capsys: Any):
    pl = pytest.importorskip("polars")
    data = screen(**{case: LONE})
    by, reference = ["pert", data.obs.columns[1]], data.obs["pert"].iloc[0]
    options: dict[str, Any] = {"reference": reference, "progress": False}
    plain = pdex_gpu.differential_expression(
        screen(), ["pert", "batch"], reference="ctl", progress=False
    )

    def text(name: str) -> str:
        return name + ESCAPE

    expected = plain.to_pandas().astype(
        dict.fromkeys(("target", "reference", "feature", "batch"), str)
    )
    change = {"target": ("target", "A"), "reference": ("reference", "ctl"), "level": ("batch", "x"),
              "gene": ("feature", "d")}  # fmt: skip
    if case == "column":
        expected = expected.rename(columns={"batch": text("batch")})
    else:
        column, label = change[case]
        expected[column] = expected[column].replace(label, text(label))

    def same(table: pd.DataFrame) -> None:
        found = table.astype(dict.fromkeys(expected.columns[:4], str))
        order = list(expected.columns[:4])
        pd.testing.assert_frame_equal(
            found.sort_values(order, ignore_index=True),
            expected.sort_values(order, ignore_index=True),
        )

    with pytest.warns(TextEncodingWarning, match="are written as escapes"):
        result = pdex_gpu.differential_expression(data, by, **options)
    same(result.to_pandas())
    same(result.to_arrow().to_pandas())
    same(pl.DataFrame(result.to_polars()).to_pandas())
    result.to_parquet(tmp_path / "r.parquet")
    same(pq.read_table(tmp_path / "r.parquet").to_pandas())
    same(pdex_gpu.open_result(tmp_path / "r.parquet").load().to_pandas())
    result.to_csv(tmp_path / "r.csv")
    same(pd.read_csv(tmp_path / "r.csv", float_precision="round_trip"))
    for suffix in (".parquet", ".csv"):
        with pytest.warns(TextEncodingWarning):
            file = pdex_gpu.differential_expression(
                data, by, out=tmp_path / f"o{suffix}", **options
            )
        assert file.targets.tolist() == result.targets.tolist()
    same(pdex_gpu.open_result(tmp_path / "o.parquet").load().to_pandas())
    assert (tmp_path / "o.csv").read_bytes() == (tmp_path / "r.csv").read_bytes()
    result.to_anndata().write_h5ad(tmp_path / "r.h5ad")
    assert ad.read_h5ad(tmp_path / "r.h5ad").shape == (len(result.targets), 4)
    result.report(tmp_path / "r.html")
    result.to_wide("p_value").to_csv(tmp_path / "wide.csv")
    pdex_gpu.pseudobulk(data, by).write_h5ad(tmp_path / "bulk.h5ad")
    target, level = (
        "A" + (LONE if case == "target" else ""),
        "x" + (LONE if case == "level" else ""),
    )
    t = result.find(target, within=level)  # the label as it was is found, too
    assert result.find(writable(target), within=writable(level)) == t
    capsys.readouterr()
    argv = ["top", str(tmp_path / "r.parquet"), writable(target), "--within", writable(level)]
    assert main([*argv, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["target"] == writable(target)


def test_labels_that_would_be_written_alike():
    data = screen()
    data.obs["pert"] = np.array(["ctl", "A" + LONE, "A" + ESCAPE], object)[np.arange(N) % 3]
    with pytest.raises(LabelError, match="would both be written as"):
        pdex_gpu.differential_expression(data, "pert", reference="ctl", progress=False)
    data = screen()
    data.var_names = pd.Index(["a" + LONE, "a" + ESCAPE, "b", "c"], dtype=object)
    with pytest.raises(LabelError, match="would both be written as"):
        pdex_gpu.differential_expression(data, "pert", reference="ctl", progress=False)


def test_what_can_be_written_stays():
    labels = np.array(["a", "\U0001f9ec", "\\ud800", 3, None, ("x", 1)], dtype=object)
    assert writable_labels(labels) is labels
    assert writable(("a\ud800", 1)) == ("a\\ud800", 1)
    twice = np.array(["a" + LONE, "a" + LONE], object)
    assert writable_labels(twice).tolist() == ["a" + ESCAPE] * 2
