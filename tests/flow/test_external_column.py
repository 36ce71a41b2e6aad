"""Columns that another package adds: each is registered in one line, and is then a column like any.

The column is requested, stored, shown and documented without a change to pdex_gpu.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from brute_force import BACKENDS, counts, frame, rows_of, run, screen

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.cli.kinds import _KINDS
from pdex_gpu.columns import registry
from pdex_gpu.columns.at_end import EndValues
from pdex_gpu.columns.base import AtEnd, Column, GeneByGene, Needs
from pdex_gpu.columns.inputs import PairValues, StrataValues, Values
from pdex_gpu.errors import FileFormatError, OptionError
from pdex_gpu.results import schema

DOCS = Path(__file__).resolve().parents[2] / "docs"


def _pct_difference(values: EndValues) -> np.ndarray:
    return 100.0 * (values["target_fraction"] - values["reference_fraction"])


def _n_silent(values: Values) -> np.ndarray:
    return values.shown.target.n - values.shown.target.n_expressed


def _sd_ratio(values: PairValues) -> np.ndarray:
    target, reference = values.sides.target, values.sides.reference
    with np.errstate(divide="ignore", invalid="ignore"):
        variances = [side.m2 / (side.n - 1.0) for side in (target, reference)]
        return np.sqrt(variances[0] / variances[1])


def _least_auroc(values: PairValues) -> np.ndarray:
    return values.u2 * 0.5 / (values.sides.target.n * values.sides.reference.n)


def _n_tested(values: StrataValues) -> np.ndarray:
    return np.broadcast_to(values.n_strata, values.shape)


#: Derived at the end, from columns that are then computed although nobody asked for them.
PCT = Column(
    "pct_difference",
    "float64",
    "100 (target_fraction - reference_fraction)",
    centre=0.0,
    make=AtEnd(_pct_difference, reads=("target_fraction", "reference_fraction")),
    formula=r"100 (f_t - f_r)",
    source="this test",
)
#: Gene by gene, in whole numbers.
SILENT = Column(
    "n_silent",
    "int64",
    "cells of the target with the value 0",
    make=GeneByGene(_n_silent, _n_silent, undefined=None),
)
#: From second moments, and not over strata.
RATIO = Column(
    "sd_ratio",
    "float64",
    "standard deviation of the target over that of the reference",
    "if a side has fewer than two cells",
    needs=Needs.SECOND_MOMENTS,
    centre=1.0,
    make=GeneByGene(_sd_ratio, why_no_strata="its variance is that of one pair of samples"),
)
#: From U, which the t-test does not measure itself.
AUROC = Column(
    "own_auroc", "float64", "as auroc", needs=Needs.U, make=GeneByGene(_least_auroc, _n_tested)
)
ADDED = (PCT, SILENT, RATIO, AUROC)
NAMES = [column.name for column in ADDED]


@pytest.fixture(autouse=True)
def added() -> Iterator[None]:
    """Register the columns for one test."""
    registry.register(*ADDED)
    yield
    for column in ADDED:
        del registry._extra[column.name]
        registry._integers.discard(column.name)


def expected(**asked: Any) -> dict[str, np.ndarray]:
    """The columns, from the values of the cells."""
    rows, _ = rows_of(frame(), **asked)
    values = counts()
    shape = len(rows), values.shape[1]
    found = {name: np.full(shape, np.nan) for name in NAMES}
    for t, row in enumerate(rows):
        for g in range(values.shape[1]):
            x, y = row.pooled(values[:, g])
            found["pct_difference"][t, g] = 100.0 * (np.mean(x != 0) - np.mean(y != 0))
            found["n_silent"][t, g] = np.sum(x == 0)
            with np.errstate(divide="ignore", invalid="ignore"):
                found["sd_ratio"][t, g] = np.std(x, ddof=1) / np.std(y, ddof=1)
            above = np.sign(np.subtract.outer(x, y))
            found["own_auroc"][t, g] = 0.5 + 0.5 * above.mean()
    return found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
@pytest.mark.parametrize("asked", [{}, {"comparison": "rest"}], ids=str)
def test_values(asked: dict[str, Any], metric: str, backend: str) -> None:
    result, _ = run(columns=NAMES, metric=metric, backend=backend, **asked)
    assert result.columns[-len(NAMES) :] == tuple(NAMES)
    for name, values in expected(**asked).items():
        np.testing.assert_allclose(result[name], values, rtol=1e-12, atol=1e-12, err_msg=name)
        assert result[name].dtype == ("int64" if name == "n_silent" else "float64")


def test_over_strata() -> None:
    result, _ = run(strata="batch", columns=["pct_difference", "n_silent", "own_auroc", "n_strata"])
    rows, _ = rows_of(frame(), strata="batch")
    values = counts()
    for t, row in enumerate(rows):
        for g in range(values.shape[1]):
            x, y = row.pooled(values[:, g])
            if len(x) and len(y):
                assert result["n_silent"][t, g] == np.sum(x == 0)
                change = 100.0 * (np.mean(x != 0) - np.mean(y != 0))
                assert result["pct_difference"][t, g] == pytest.approx(change)
    np.testing.assert_array_equal(result["own_auroc"], result["n_strata"])
    with pytest.raises(OptionError, match=r"'sd_ratio' is not defined over strata: its variance"):
        run(strata="batch", columns=["sd_ratio"])
    every, _ = run(strata="batch", columns="all")
    assert set(schema.EXTRA) - set(every.columns) == {"auroc_low", "auroc_high", "sd_ratio"}


def test_all_and_unknown_columns() -> None:
    every, _ = run(columns="all")
    assert set(NAMES) <= set(every.columns)
    few, _ = run(columns=NAMES)
    for name in NAMES:
        np.testing.assert_array_equal(every[name], few[name])
    with pytest.raises(OptionError, match="Did you mean 'pct_difference'"):
        run(columns=["pct_diference"])
    with pytest.raises(OptionError, match=rf"Available \({len(schema.EXTRA)}\)"):
        run(columns=["nothing_like_it"])


def test_missing_values() -> None:
    """With NaN left out, every gene has cells of its own."""
    values = counts().astype(np.float64)
    values[3:40, 2] = np.nan
    options: dict[str, Any] = {"metric": "t-test", "is_log1p": False}
    asked = [*NAMES, "target_n_cells", "target_n_expressed"]
    result, _ = run(screen(values), columns=asked, nan_policy="omit", **options)
    silent = result["target_n_cells"] - result["target_n_expressed"]
    np.testing.assert_array_equal(result["n_silent"], silent)
    plain, _ = run(columns=NAMES, **options)
    others = np.arange(values.shape[1]) != 2
    for name in NAMES:
        np.testing.assert_allclose(
            result[name][:, others], plain[name][:, others], rtol=1e-12, err_msg=name
        )


@pytest.mark.thorough
def test_in_worker_processes() -> None:
    """Workers get the columns themselves: they do not know what this process registered."""
    options: dict[str, Any] = {"columns": NAMES, "backend": "cpu"}
    result, _ = run(engine="shared_memory", n_workers=2, **options)
    known, _ = run(**options)
    for name in NAMES:
        np.testing.assert_array_equal(result[name], known[name], err_msg=name)


def test_files(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    known, _ = run(columns=NAMES)
    path, text = tmp_path / "de.parquet", tmp_path / "de.csv"
    run(columns=NAMES, out=path)
    run(columns=NAMES, out=text)
    types = pq.read_schema(path)
    for column in ADDED:
        wanted = pa.int64() if column.dtype == "int64" else pa.float64()
        assert types.field(column.name).type == wanted
    loaded, table = pdex_gpu.open_result(path).load(), pd.read_csv(text, keep_default_na=True)
    for name in NAMES:
        np.testing.assert_array_equal(loaded[name], known[name])
        np.testing.assert_allclose(table[name], known[name].ravel(), rtol=1e-12)
    assert known.to_pandas()["n_silent"].dtype == "int64"
    del registry._extra["sd_ratio"]
    with pytest.raises(FileFormatError, match=r"not known here: 'sd_ratio'\. Import"):
        pdex_gpu.open_result(path)
    registry.register(RATIO)
    assert pdex_gpu.open_result(path).columns[-4:] == ("pct_difference", "n_silent", "own_auroc",
                                                       "sd_ratio")  # fmt: skip


def test_schema_and_documentation() -> None:
    assert set(NAMES) <= set(schema.EXTRA)
    assert {c.name: c for c in schema.EXTRA_COLUMNS}["pct_difference"] is PCT
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        import tables
    finally:
        sys.path.remove(str(DOCS / "_ext"))
    lines = tables.columns("extra").splitlines()
    assert (
        "| `pct_difference` | 100 (target_fraction - reference_fraction) | $100 (f_t - f_r)$ "
        "| this test |"
    ) in lines
    assert any(line.startswith("| `n_silent` int64 | cells of the target") for line in lines)
    assert any("NaN if a side has fewer than two cells" in x for x in lines if "`sd_ratio`" in x)


def test_command_line(tmp_path: Path) -> None:
    assert _KINDS["columns"].complete("auroc,pct") == ["auroc,pct_difference"]
    data, out = tmp_path / "screen.h5ad", tmp_path / "de.parquet"
    screen().write_h5ad(data)
    argv = ["run", data, "--groupby", "group", "--reference", "ctrl", "-o", out,
            "--columns", "auroc,pct_difference", "--quiet"]  # fmt: skip
    assert main(list(map(str, argv))) == 0
    assert pdex_gpu.open_result(out).columns[-2:] == ("auroc", "pct_difference")


@pytest.mark.parametrize(("name", "centre"), [("pct_difference", 0.0), ("sd_ratio", 1.0)])
def test_heat_map(name: str, centre: float) -> None:
    pytest.importorskip("matplotlib", reason="needs the extra plot")
    result, _ = run(columns=NAMES)
    image = pdex_gpu.pl.heatmap(result, value=name).images[0]
    assert image.cmap.name == "RdBu_r"
    assert sum(image.get_clim()) == pytest.approx(2.0 * centre)
    assert pdex_gpu.pl.heatmap(result, value="n_silent").images[0].cmap.name == "cividis"


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ("auroc", "'auroc' is not a column. Register a pdex_gpu.columns.base.Column"),
        (Column("auroc", "float64", "mine", make=PCT.make), "column named 'auroc' already exists"),
        (Column("fdr", "float64", "mine", make=PCT.make), "column named 'fdr' already exists"),
        (Column("x", "float32", "mine", make=PCT.make), "Unknown dtype of column 'x': 'float32'"),
        (Column("x", "float64", "mine"), "'x' must be made by GeneByGene or AtEnd"),
        (
            Column("x", "float64", "mine", make=AtEnd(_pct_difference, reads=("aurok",))),
            "Column 'x' reads an unknown column. Unknown column 'aurok'. Did you mean 'auroc'",
        ),
    ],
)
def test_what_cannot_be_registered(column: Any, message: str) -> None:
    before = list(schema.EXTRA)
    with pytest.raises(OptionError) as caught:
        registry.register(column)
    assert message in str(caught.value)
    assert list(schema.EXTRA) == before
    registry.register(*ADDED)  # again, without effect
    assert list(schema.EXTRA) == before
