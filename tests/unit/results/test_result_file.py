"""open_result: what was written is what is opened, and what is refused says why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_screens import GROUPBY, REFERENCE, counts, logged, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.results import base, table
from pdex_gpu.results.schema import INTEGERS, VALUES
from pdex_gpu.results.table import LAYOUT_KEY

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "extra columns": {"columns": ["auroc", "log10_p", "target_n_cells"]},
    "filtered": {"min_fraction": 0.45, "columns": ["target_n_cells"]},
    "several references": {"comparison": "pairs", "pairs": [("B", "A"), ("A", "C"), ("C", "ctl")]},
    "a pair twice": {
        "comparison": "pairs",
        "pairs": [("B", "A"), ("B", "A"), ("C", "A")],
        "min_fraction": 0.45,
    },
}


def run(data: Any = None, **options: Any) -> pdex_gpu.DEResult:
    data = screen(counts()) if data is None else data
    if "pairs" not in options:
        options = {"reference": REFERENCE} | options
    options = {"progress": False} | options
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


def assert_same(opened: Any, result: pdex_gpu.DEResult) -> None:
    assert opened.columns == result.columns
    for name in ("targets", "references", "features"):
        assert list(getattr(opened, name)) == list(map(str, getattr(result, name)))
    assert (opened.kept is None) == (result.kept is None)
    if result.kept is not None:
        np.testing.assert_array_equal(opened.kept, result.kept)
    assert opened.n_rows == result.n_rows
    loaded = opened.load()
    there = np.full((), True) if result.kept is None else result.kept
    for name in result.columns:
        if name in INTEGERS:  # mean nothing where there is no row
            np.testing.assert_array_equal(loaded[name] * there, result[name] * there)
        else:
            np.testing.assert_array_equal(loaded[name], result[name])
    assert json.loads(json.dumps(result.provenance, default=str)) == opened.provenance


@pytest.fixture(params=["one block", "many blocks"])
def small(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many blocks":
        monkeypatch.setattr(table, "ROWS_PER_GROUP", 10)
        monkeypatch.setattr(base, "_BLOCK_VALUES", 30)


@pytest.mark.parametrize("case", CASES)
def test_what_was_written_is_what_is_opened(case: str, small: None, tmp_path: Path):
    result = run(**CASES[case])
    result.to_parquet(tmp_path / "r.parquet")
    opened = pdex_gpu.open_result(tmp_path / "r.parquet")
    assert_same(opened, result)
    for t in range(len(result.targets)):
        for name, values in opened.row(t, VALUES).items():
            np.testing.assert_array_equal(values, result[name][t])
            np.testing.assert_array_equal(result.row(t, [name])[name], values)
    for found in (opened, result):
        seen = [(part, values) for part, values in found.blocks(["fdr", "p_value"])]
        np.testing.assert_array_equal(np.concatenate([v["fdr"] for _, v in seen]), result["fdr"])
        rows = [t for part, _ in seen for t in range(part.start, part.stop)]
        assert rows == list(range(len(result.targets)))
    label = result.targets[0]
    pd.testing.assert_frame_equal(opened.top(label, 3), result.top(label, 3))


def test_a_filter_that_keeps_nothing_of_a_target(tmp_path: Path, small: None):
    result = run(min_fraction=0.45)
    kept = np.array(result.kept)
    kept[1] = False
    kept[0, :2] = False
    columns = {n: np.where(kept, result[n], np.nan) for n in VALUES}
    cut = pdex_gpu.DEResult(
        result.targets, result.references, result.features, columns, result.provenance, kept=kept
    )
    cut.to_parquet(tmp_path / "r.parquet")
    assert_same(pdex_gpu.open_result(tmp_path / "r.parquet"), cut)


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.DuplicateGeneWarning")
def test_names_that_repeat_are_told_apart_by_order(tmp_path: Path, small: None):
    result = run(screen(logged(), genes=[*"abaq", 'q"', "c,", "a", "", "x"]), min_fraction=0.3)
    assert result.kept is not None
    kept = np.array(result.kept)
    kept[:, [0, 2]] = True  # two of the three genes called "a": which one is left out is not told
    kept[:, 7] = False
    columns = {n: np.where(kept, np.nan_to_num(result[n]), np.nan) for n in VALUES}
    cut = pdex_gpu.DEResult(
        result.targets, result.references, result.features, columns, result.provenance, kept=kept
    )
    cut.to_parquet(tmp_path / "r.parquet")
    assert_same(pdex_gpu.open_result(tmp_path / "r.parquet"), cut)


def test_levels(tmp_path: Path):
    data = screen(counts())
    data.obs["level"] = np.where(np.arange(data.n_obs) % 2, "one", "two")
    result = pdex_gpu.differential_expression(
        data, [GROUPBY, "level"], reference=REFERENCE, progress=False
    )
    result.to_parquet(tmp_path / "r.parquet")
    opened = pdex_gpu.open_result(tmp_path / "r.parquet")
    assert_same(opened, result)
    assert opened.within is not None
    assert result.within is not None
    assert opened.within[0] == "level"
    assert list(opened.within[1]) == list(result.within[1])
    target = opened.targets[0]
    with pytest.raises(errors.LabelError, match="was compared 2 times"):
        opened.find(target)
    t = opened.find(target, within="two")
    assert opened.name(t) == f"{target} in two"


def test_a_file_written_with_out(tmp_path: Path):
    written = pdex_gpu.differential_expression(
        screen(counts()), GROUPBY, reference=REFERENCE, progress=False, out=tmp_path / "r.parquet"
    )
    assert_same(pdex_gpu.open_result(tmp_path / "r.parquet"), written.load())


def test_an_empty_result(tmp_path: Path):
    none = np.full(0, None)
    columns = {n: np.full((0, 3), np.nan) for n in VALUES}
    empty = pdex_gpu.DEResult(none, none, np.array(["a", "b", "c"], object), columns, {})
    empty.to_parquet(tmp_path / "r.parquet")
    opened = pdex_gpu.open_result(str(tmp_path / "r.parquet"))
    assert opened.n_rows == 0
    assert list(opened.blocks(["fdr"])) == []
    assert opened.load().n_rows == 0


@pytest.mark.parametrize(
    "name", ["a,b", 'say "no"', "<script>alert(1)</script>", "🧬", "x" * 200, "a\tb\nc"]
)
def test_awkward_names(name: str, tmp_path: Path):
    result = run(screen(logged(), genes=[name, *"bcdefghi"]))
    result.to_parquet(tmp_path / "r.parquet")
    opened = pdex_gpu.open_result(tmp_path / "r.parquet")
    assert opened.find_feature(name) == 0


# --- what is refused ------------------------------------------------------------------------


def rewrite(path: Path, change: Any) -> None:
    """The file with other metadata, or with other rows."""
    pq.write_table(change(pq.read_table(path)), path)


def with_layout(found: pa.Table, **changes: Any) -> pa.Table:
    metadata = dict(found.schema.metadata)
    metadata[LAYOUT_KEY] = json.dumps(json.loads(metadata[LAYOUT_KEY]) | changes)
    return found.replace_schema_metadata(metadata)


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    run(min_fraction=0.45).to_parquet(tmp_path / "r.parquet")
    return tmp_path / "r.parquet"


def test_a_file_of_another_program(tmp_path: Path):
    pq.write_table(pa.table({"gene": ["a"], "p": [0.5]}), tmp_path / "r.parquet")
    with pytest.raises(errors.FileFormatError, match=r"was not written by pdex_gpu.*gene, p"):
        pdex_gpu.open_result(tmp_path / "r.parquet")


def test_a_newer_schema(stored: Path):
    rewrite(stored, lambda found: with_layout(found, schema=2))
    with pytest.raises(
        errors.FileFormatError,
        match=r"schema 2 \(written by .*reads schemas up to 1.*git pull",
    ):
        pdex_gpu.open_result(stored)


def test_a_folder_and_a_missing_file(tmp_path: Path):
    with pytest.raises(errors.OptionError, match=r"is a folder\. Pass the file"):
        pdex_gpu.open_result(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"results file .* does not exist"):
        pdex_gpu.open_result(tmp_path / "none.parquet")


@pytest.mark.parametrize("keep", [0, 10, 3000])
def test_a_damaged_file(keep: int, stored: Path):
    stored.write_bytes(stored.read_bytes()[:keep])
    with pytest.raises(errors.FileFormatError, match="is not a Parquet file, or it is damaged"):
        pdex_gpu.open_result(stored)


def test_rows_that_another_program_took_out(tmp_path: Path):
    run().to_parquet(tmp_path / "r.parquet")
    rewrite(tmp_path / "r.parquet", lambda found: found.slice(3))
    with pytest.raises(errors.FileFormatError, match="nother program may have changed it"):
        pdex_gpu.open_result(tmp_path / "r.parquet")


def test_rows_in_another_order(stored: Path):
    rewrite(stored, lambda found: found.take(np.arange(found.num_rows)[::-1]))
    with pytest.raises(errors.FileFormatError, match="nother program may have changed it"):
        pdex_gpu.open_result(stored)


def test_labels_that_the_file_does_not_list(stored: Path):
    rewrite(stored, lambda found: with_layout(found, features=[f"x{i}" for i in range(9)]))
    with pytest.raises(errors.FileFormatError, match="nother program may have changed it"):
        pdex_gpu.open_result(stored)


def test_a_column_that_is_gone(stored: Path):
    rewrite(stored, lambda found: found.drop_columns(["fdr"]))
    with pytest.raises(errors.FileFormatError, match=r"lacks the columns \['fdr'\]"):
        pdex_gpu.open_result(stored)


def test_a_file_replaced_meanwhile(stored: Path):
    opened = pdex_gpu.open_result(stored)
    rewrite(stored, lambda found: found.slice(3))
    with pytest.raises(errors.FileFormatError, match="it was replaced"):
        opened.row(0, ["fdr"])


def test_unknown_names_have_close_matches(stored: Path):
    opened = pdex_gpu.open_result(stored)
    target, gene = str(opened.targets[0]), str(opened.features[0])
    with pytest.raises(errors.LabelError, match=target):
        opened.find(target + "x")
    with pytest.raises(errors.LabelError, match=gene):
        opened.find_feature(gene + "x")
    with pytest.raises(errors.OptionError, match="p_value"):
        opened.row(0, ["p_valu"])
    with pytest.raises(errors.OptionError, match="fold_change"):
        run().row(0, ["fold_chang"])
