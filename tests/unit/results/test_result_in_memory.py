"""DEResult: what it says of itself, and exports that read back to the same bits."""

from __future__ import annotations

import json
import os
import stat
import sys

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stored_screens import assert_same_bits

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.results.memory import DEResult
from pdex_gpu.results.schema import COLUMNS, LABELS, VALUES
from pdex_gpu.results.table import METADATA_KEY

NAMES = [
    "target", "reference", "feature", "target_mean", "reference_mean", "percent_change",
    "fold_change", "p_value", "statistic", "fdr",
]  # fmt: skip
# Doubles that a careless format would change: the neighbours of a decimal, extremes, NaN.
AWKWARD = [0.1, np.nextafter(0.1, 1), 1 / 3, 5e-324, 1.7976931348623157e308, 1e-300, 2**53 + 2,
           np.nan, np.inf, -np.inf, -0.0, 1e22, 123456789.123456789]  # fmt: skip


def make(
    targets: tuple[object, ...] = ("B", "A", 'Ä,"q"\n\t\'x'),
    features: tuple[str, ...] = ("g1", "g 2", "g,3", "nan", ""),
    reference: object = "ctl",
) -> DEResult:
    rng = np.random.default_rng(0)
    shape = (len(targets), len(features))
    columns = {name: rng.normal(size=shape) for name in VALUES}
    columns["p_value"] = rng.random(shape)
    columns["fdr"] = rng.random(shape)
    columns["fold_change"] = np.exp(rng.normal(size=shape))
    columns["statistic"].flat[: len(AWKWARD)] = AWKWARD[: shape[0] * shape[1]]
    columns["reference_mean"] = np.broadcast_to(rng.random(shape[1]), shape)
    array = np.empty(len(targets), object)
    array[:] = targets
    provenance = {"metric": "wilcoxon", "backend": "cpu", "device": "CPU (x)", "engine": "threads",
                  "versions": {"numpy": "2"}, "odd": np.float64(1.5)}  # fmt: skip
    references = np.full(len(targets), reference, object)
    return DEResult(array, references, np.array(features, object), columns, provenance)


def rows_of(de: DEResult) -> list[tuple[str, str, str]]:
    """Labels of the rows: target by target, genes in matrix order."""
    return [(str(t), str(de.reference), f) for t in de.targets for f in de.features]


def assert_table(table: pd.DataFrame, de: DEResult) -> None:
    """Columns, row order, and the same bits."""
    assert list(table.columns) == NAMES
    labels = table[list(LABELS)].astype(str)
    assert list(labels.itertuples(index=False, name=None)) == rows_of(de)
    assert_same_bits({n: table[n].to_numpy() for n in VALUES}, {n: de[n].ravel() for n in VALUES})


def test_the_schema():
    assert [c.name for c in COLUMNS] == NAMES
    assert (*LABELS, *VALUES) == tuple(NAMES)


def test_repr_says_what_it_is():
    text = repr(make())
    for part in ("DEResult", "wilcoxon", "3 targets", "'ctl'", "5 genes", "15 rows", "backend cpu",
                 "CPU (x)", "engine threads", "p_value", "fdr"):  # fmt: skip
        assert part in text
    assert "\n" not in text


def test_columns_are_arrays_of_targets_by_genes():
    de = make()
    assert de.n_rows == 15
    for name in VALUES:
        assert de[name].shape == (3, 5)
        assert de[name].dtype == np.float64
    with pytest.raises(errors.OptionError, match=r"Unknown column 'pvalue'.*mean 'p_value'\?"):
        de["pvalue"]


@pytest.mark.parametrize("change", ["missing", "extra", "shape", "dtype"])
def test_columns_that_break_the_schema_are_refused(change):
    de = make()
    columns = {name: de[name] for name in VALUES}
    if change == "missing":
        del columns["fdr"]
    elif change == "extra":
        columns["more"] = columns["fdr"]
    elif change == "shape":
        columns["fdr"] = columns["fdr"][:, :-1]
    else:
        columns["fdr"] = columns["fdr"].astype(np.float32)
    with pytest.raises(ValueError, match="column"):
        DEResult(de.targets, de.references, de.features, columns, {})


# --- top ------------------------------------------------------------------------------------


def test_top_orders_by_p_then_by_change_then_by_gene():
    de = make(("A", "B"), ("g0", "g1", "g2", "g3", "g4", "g5"))
    de["p_value"][1] = [0.5, 0.1, 0.1, 0.1, 0.01, 0.1]
    de["fold_change"][1] = [9.0, 2.0, 0.25, 2.0, 1.0, np.nan]
    frame = de.top("B", 6)
    assert frame["feature"].tolist() == ["g4", "g2", "g1", "g3", "g5", "g0"]
    first = ["target", "reference", "feature", "log2_fold_change", "p_value", "fdr"]
    assert frame.columns.tolist() == first + [name for name in NAMES if name not in first]
    assert frame["target"].tolist() == ["B"] * 6
    assert frame["reference"].tolist() == ["ctl"] * 6
    genes = [de.features.tolist().index(name) for name in frame["feature"]]
    for name in VALUES:
        np.testing.assert_array_equal(frame[name], de[name][1, genes])
        assert frame[name].dtype == np.float64
    np.testing.assert_array_equal(frame["log2_fold_change"], np.log2(frame["fold_change"]))


def test_top_puts_an_infinite_change_first():
    de = make(("A",), ("g0", "g1", "g2"))
    de["p_value"][0] = 0.1
    de["fold_change"][0] = [4.0, 0.0, 2.0]
    assert de.top("A")["feature"].tolist() == ["g1", "g0", "g2"]


@pytest.mark.parametrize(("n", "rows"), [(0, 0), (2, 2), (99, 5)])
def test_top_gives_so_many(n, rows):
    assert len(make().top("A", n)) == rows
    assert len(make(features=tuple(f"g{j}" for j in range(30))).top("A")) == 10


def test_top_finds_integer_labels_by_their_text():
    de = make((10, 9), ("g0", "g1"), 0)
    assert de.top("9").equals(de.top(9))
    assert de.top(9)["target"].tolist() == [9, 9]


def test_top_of_an_unknown_target():
    with pytest.raises(errors.LabelError, match=r"Unknown target 'C'\..*'B', 'A'"):
        make().top("C")


# --- frames ---------------------------------------------------------------------------------


def test_to_pandas():
    de = make()
    frame = de.to_pandas()
    assert_table(frame, de)
    for name in LABELS:
        assert isinstance(frame[name].dtype, pd.CategoricalDtype)
    assert frame["target"].cat.categories.tolist() == de.targets.tolist()
    assert frame["feature"].cat.categories.tolist() == de.features.tolist()
    assert frame.index.equals(pd.RangeIndex(15))
    frame["p_value"] = 7.0  # the frame is the user's own
    assert not (de["p_value"] == 7.0).any()


def test_to_pandas_keeps_integer_labels():
    frame = make((3, 1), ("g",), 0).to_pandas()
    assert frame["target"].tolist() == [3, 1]
    assert frame["reference"].tolist() == [0, 0]


def test_to_polars():
    de = make()
    frame = de.to_polars()
    assert [frame.schema[n] for n in VALUES] == [pl.Float64] * len(VALUES)
    for name in LABELS:
        assert frame.schema[name] in (pl.Categorical, pl.Enum)
    columns = {n: frame[n].cast(pl.String) if n in LABELS else frame[n] for n in frame.columns}
    assert_table(pd.DataFrame({n: c.to_list() for n, c in columns.items()}), de)


def test_to_polars_without_polars(monkeypatch):
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(errors.MissingDependencyError, match=r"Run: pip install polars$"):
        make().to_polars()


def test_to_arrow():
    de = make()
    table = de.to_arrow()
    for name in LABELS:
        assert pa.types.is_dictionary(table.schema.field(name).type)
    for name in VALUES:
        assert table.schema.field(name).type == pa.float64()
        assert table[name].null_count == 0  # NaN is a number here
    assert_table(table.to_pandas(), de)
    assert json.loads(table.schema.metadata[METADATA_KEY])["backend"] == "cpu"


def test_repeated_gene_names_keep_their_rows():
    de = make(features=("a", "b", "a", "a", "c"))
    for table in (de.to_pandas(), de.to_arrow().to_pandas()):
        assert_table(table, de)
        assert table["feature"].cat.categories.tolist() == ["a", "b", "c"]


# --- files ----------------------------------------------------------------------------------


@pytest.fixture(params=["one part", "many parts"])
def parts(request, monkeypatch):
    """Large results are written part by part: made to happen to small ones."""
    if request.param == "many parts":
        monkeypatch.setattr("pdex_gpu.results.table.ROWS_PER_GROUP", 5)
    return request.param


@pytest.mark.parametrize("features", [("g1", "g 2", "g,3", "nan", ""), ("a", "b", "a", "a", "c")])
def test_parquet_reads_back_to_the_same_bits(tmp_path, parts, features):
    de = make(features=features)
    path = tmp_path / "de.parquet"
    de.to_parquet(path)
    assert_table(pd.read_parquet(path), de)
    assert_table(pl.read_parquet(path).to_pandas(), de)
    assert pq.ParquetFile(path).num_row_groups == (1 if parts == "one part" else 3)


def test_provenance_is_in_the_parquet_file(tmp_path):
    path = tmp_path / "de.parquet"
    de = make()
    de.to_parquet(path)
    read = json.loads(pq.read_schema(path).metadata[b"pdex_gpu"])
    assert read["versions"] == {"numpy": "2"}
    assert read == json.loads(json.dumps(de.provenance, default=str))


@pytest.mark.parametrize(("suffix", "sep"), [("csv", ","), ("tsv", "\t")])
def test_text_reads_back_to_the_same_bits(tmp_path, parts, suffix, sep):
    de = make()
    path = tmp_path / f"de.{suffix}"
    de.to_csv(path, sep=sep)
    table = pd.read_csv(path, sep=sep, dtype=str, keep_default_na=False)
    for name in VALUES:  # Python reads a number's text back to the same bits
        table[name] = [float(text) for text in table[name]]
    assert_table(table, de)
    assert path.read_text(encoding="utf-8").count("fold_change") == 1  # one header


def test_text_is_read_by_polars_too(tmp_path):
    de = make(("A",), ("g1", "g2", "g3"))
    de.to_csv(tmp_path / "de.csv")
    frame = pl.read_csv(tmp_path / "de.csv")
    assert_table(pd.DataFrame({n: frame[n].to_list() for n in frame.columns}), de)


def test_paths_of_every_kind(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    de = make()
    de.to_parquet("bare.parquet")
    de.to_parquet(str(tmp_path / "text.parquet"))
    de.to_csv(tmp_path / "no suffix")
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "bare.parquet", "no suffix", "text.parquet",
    ]  # fmt: skip


def test_a_file_is_replaced(tmp_path):
    path = tmp_path / "de.parquet"
    make(("A",)).to_parquet(path)
    make().to_parquet(path)
    assert len(pd.read_parquet(path)) == 15


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_permissions_are_the_usual_ones(tmp_path):
    old = os.umask(0o027)
    try:
        make().to_parquet(tmp_path / "de.parquet")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "de.parquet").stat().st_mode) == 0o640


class Broken(DEResult):
    """Fails when the second part is made: the first is in the file by then."""

    def _arrow_parts(self, table):
        yield self._arrow(table, slice(0, 1))
        raise self.error


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()], ids=repr)
@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("method", ["to_parquet", "to_csv"])
def test_a_failure_leaves_nothing_and_changes_nothing(tmp_path, method, there_before, error):
    path = tmp_path / "de.out"
    if there_before:
        path.write_text("precious")
    de = make()
    broken = Broken(
        de.targets, de.references, de.features, {n: de[n] for n in VALUES}, de.provenance
    )
    broken.error = error
    with pytest.raises(type(error)):
        getattr(broken, method)(path)
    assert [p.name for p in tmp_path.iterdir()] == (["de.out"] if there_before else [])
    if there_before:
        assert path.read_text() == "precious"


@pytest.mark.parametrize("method", ["to_parquet", "to_csv"])
def test_a_target_that_is_a_folder(tmp_path, method):
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError, match="folder"):
        getattr(make(), method)(tmp_path / "folder")
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError):
        make().to_parquet(tmp_path / "none" / "de.parquet")
    assert list(tmp_path.iterdir()) == []


def test_it_is_public():
    assert pdex_gpu.DEResult is DEResult
