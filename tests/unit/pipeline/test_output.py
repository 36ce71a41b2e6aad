"""Results written as they are made: the same table as that of the call in memory."""

from __future__ import annotations

import json
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import sparse
from stored_screens import GENES, GROUPBY, REFERENCE, assert_same_bits, counts, logged, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.engines import serial
from pdex_gpu.results import table
from pdex_gpu.results.schema import LABELS, VALUES
from pdex_gpu.sinks.checkpoint import checkpoint_folder


def run(data: Any = None, **options: Any) -> Any:
    data = screen(sparse.csr_matrix(logged())) if data is None else data
    options = {"reference": REFERENCE, "progress": False} | options
    return pdex_gpu.differential_expression(data, GROUPBY, **options)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(params=["one block", "many blocks"])
def blocks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """How many targets a block has: large tables are written block by block."""
    if request.param == "one block":
        return 3
    monkeypatch.setattr(table, "ROWS_PER_GROUP", 10)
    return 1


SCREENS = {
    "log": lambda: screen(sparse.csr_matrix(logged())),
    "counts": lambda: screen(counts()),
    "repeated names": lambda: screen(logged(), genes=[*"abaq", 'q"', "c,", "a", "", "x"]),
    "integer labels": lambda: screen(labels=[0] * 24 + [11] * 14 + [7] * 12 + [3] * 5),
}  # fmt: skip


# --- the same table -------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test", "anderson"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"exp_post_agg": False},
        {"is_log1p": False},
        {"clip_value": None},
        {"groups": ["C", "A"]},
    ],
    ids=str,
)
def test_parquet_is_that_of_the_result_in_memory(tmp_path, blocks, metric, options):
    options = {"metric": metric} | options
    expected = run(**options)
    expected.to_parquet(tmp_path / "memory.parquet")
    result = run(out=tmp_path / "file.parquet", gene_chunk_size=2, **options)
    one, other = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("memory", "file"))
    assert one.schema == other.schema
    assert other.num_rows == result.n_rows == expected.n_rows
    for name in LABELS:
        assert pa.types.is_dictionary(other.schema.field(name).type)
        assert one[name].to_pylist() == other[name].to_pylist()
    for name in VALUES:
        a, b = (t[name].to_numpy().view(np.int64) for t in (one, other))
        np.testing.assert_array_equal(a, b, err_msg=name)
    assert_same_bits(result.load(), expected)
    files = [pq.ParquetFile(tmp_path / f"{n}.parquet") for n in ("memory", "file")]
    sizes = [[f.metadata.row_group(k).num_rows for k in range(f.num_row_groups)] for f in files]
    assert sizes[0] == sizes[1]
    assert sizes[1][0] == min(blocks, len(expected.targets)) * len(GENES)
    written = json.loads(other.schema.metadata[b"pdex_gpu"])
    assert written == result.provenance
    assert "seconds" not in written
    assert written == {k: v for k, v in expected.provenance.items() if k != "seconds"}


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", SCREENS)
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".CSV"])
def test_text_is_that_of_the_result_in_memory(tmp_path, blocks, kind, suffix):
    data = SCREENS[kind]()
    reference = 0 if kind == "integer labels" else REFERENCE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.DuplicateGeneWarning)
        expected = run(data, reference=reference)
        run(data, reference=reference, out=tmp_path / f"file{suffix}", gene_chunk_size=2)
    expected.to_csv(tmp_path / "memory", sep="\t" if suffix == ".tsv" else ",")
    assert (tmp_path / f"file{suffix}").read_bytes() == (tmp_path / "memory").read_bytes()


@pytest.mark.parametrize("kind", SCREENS)
def test_labels_are_those_of_the_result_in_memory(tmp_path, blocks, kind):
    data = SCREENS[kind]()
    reference = 0 if kind == "integer labels" else REFERENCE
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.DuplicateGeneWarning)
        expected = run(data, reference=reference)
        result = run(data, reference=reference, out=tmp_path / "file.parquet")
    expected.to_parquet(tmp_path / "memory.parquet")
    one, other = (pq.read_table(tmp_path / f"{n}.parquet") for n in ("memory", "file"))
    assert one.schema == other.schema
    assert one.select(LABELS).equals(other.select(LABELS))
    loaded = result.load()
    assert loaded.targets.tolist() == expected.targets.tolist()
    assert loaded.reference == expected.reference
    assert loaded.features.tolist() == expected.features.tolist()


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_bytes_do_not_depend_on_how_it_is_computed(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(table, "ROWS_PER_GROUP", 10)
    found = set()
    for k, options in enumerate(
        [{}, {"gene_chunk_size": 1}, {"gene_chunk_size": 4, "n_workers": 2}, {"n_threads": 1},
         {"memory": "1MB"}, {"memory": 1}, {"scratch": tmp_path}, {"progress": len}]
    ):  # fmt: skip
        if options.get("progress"):
            options = {"progress": lambda progress: None}
        out = tmp_path / f"de{k}.{suffix}"
        run(out=out, **options)
        found.add(out.read_bytes())
    assert len(found) == 1
    run(out=tmp_path / f"t.{suffix}", metric="t-test")
    assert (tmp_path / f"t.{suffix}").read_bytes() not in found


def test_the_engine_is_in_the_provenance_and_changes_nothing_else(tmp_path):
    one = run(out=tmp_path / "one.parquet")
    other = run(out=tmp_path / "other.parquet", engine="serial")
    assert {k for k in one.provenance if one.provenance[k] != other.provenance[k]} == {"engine"}
    assert_same_bits(one.load(), other.load())


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX")
def test_permissions_are_the_usual_ones(tmp_path):
    old = os.umask(0o027)
    try:
        run(out=tmp_path / "de.parquet")
    finally:
        os.umask(old)
    assert (tmp_path / "de.parquet").stat().st_mode & 0o777 == 0o640


# --- what is returned -----------------------------------------------------------------------


def test_a_result_file(tmp_path):
    out = tmp_path / "de.parquet"
    result = run(out=str(out))
    assert type(result) is pdex_gpu.ResultFile
    assert result.path == out
    assert result.targets.tolist() == ["A", "B", "C"]
    assert result.reference == REFERENCE
    assert result.features.tolist() == GENES
    assert result.n_rows == 27
    text = repr(result)
    for part in (f"ResultFile '{out}'", "wilcoxon", "3 targets", "'ctl'", "9 genes", "27 rows",
                 "backend cpu", "engine threads", "p_value"):  # fmt: skip
        assert part in text
    assert "\n" not in text
    assert type(result.load()) is pdex_gpu.DEResult
    assert result.load().provenance == result.provenance


def test_text_cannot_be_loaded(tmp_path):
    result = run(out=tmp_path / "de.csv")
    with pytest.raises(errors.OptionError, match="cannot be read in parts"):
        result.load()


def test_a_file_that_was_replaced_cannot_be_loaded(tmp_path):
    result = run(out=tmp_path / "de.parquet")
    run(out=tmp_path / "de.parquet", groups=["A"], force=True)
    with pytest.raises(errors.FileFormatError, match=r"has 9 rows, but 27 were written"):
        result.load()


def test_progress_counts_rows(tmp_path):
    seen: list[Any] = []
    run(out=tmp_path / "de.parquet", progress=seen.append)
    assert (seen[-1].n_rows, seen[-1].total_rows, seen[-1].fraction) == (27, 27, 1.0)
    run(progress=seen.append)
    assert seen[-1].total_rows == 0


def test_in_a_folder_that_is_not_named(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(out="de.parquet")
    assert result.path == Path("de.parquet")
    assert names(tmp_path) == ["de.parquet"]


# --- an output that cannot be used ----------------------------------------------------------


@pytest.mark.parametrize(
    ("out", "says"),
    [
        ("de.xlsx", r"Unknown output format '\.xlsx'.*\.parquet, \.csv, \.tsv"),
        ("de", "Unknown output format ''"),
        ("none/de.csv", "folder '.*none' does not exist. Create it first"),
        ("file.csv/de.csv", "does not exist"),
        ("folder.csv", "is a folder. Choose a file name"),
        ("file.csv", r"already exists.*--force \(in Python: force=True\)"),
    ],
)
def test_refused_before_anything_is_read(tmp_path, out, says):
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "file.csv").write_text("precious")
    with pytest.raises(errors.OptionError, match=says):
        run(tmp_path / "there is no such screen.h5ad", out=tmp_path / out)
    assert (tmp_path / "file.csv").read_text() == "precious"
    assert names(tmp_path) == ["file.csv", "folder.csv"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="the system has no pipes with a name")
@pytest.mark.parametrize("force", [False, True])
def test_what_is_no_file_is_not_replaced(tmp_path, force):
    """As root, a run would put its output in the place of /dev/null."""
    pipe = tmp_path / "pipe.csv"
    os.mkfifo(pipe)
    with pytest.raises(errors.OptionError, match=r"pipe\.csv' is a pipe\. Choose a file name"):
        run(tmp_path / "there is no such screen.h5ad", out=pipe, force=force)
    with pytest.raises(errors.OutputError, match=r"pipe\.csv' is a pipe\. Choose a file name"):
        run().to_csv(pipe)
    assert pipe.is_fifo()


@pytest.mark.parametrize("what", ["output", "scratch"])
def test_a_folder_that_is_not_writable(tmp_path, monkeypatch, what):
    """Root may write to all folders, so the system's answer is made up."""
    locked = tmp_path / "locked"
    locked.mkdir()
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != locked and real(path, mode))
    options = {"output": {"out": locked / "de.csv"}, "scratch": {"scratch": locked}}[what]
    with pytest.raises(errors.OptionError, match=f"The {what} folder '{locked}' is not writable"):
        run(**options)
    assert names(locked) == []


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("link", [False, True])
def test_the_input_is_not_replaced(tmp_path, force, link):
    path = tmp_path / "screen.csv"  # an h5ad file by another name
    screen().write_h5ad(tmp_path / "screen.h5ad")
    (tmp_path / "screen.h5ad").rename(path)
    before = path.read_bytes()
    out = path
    if link:
        out = tmp_path / "link.csv"
        out.symlink_to(path)
    with pytest.raises(errors.OptionError, match="is the input file"):
        run(path, out=out, force=force)
    assert path.read_bytes() == before


def test_the_file_behind_a_backed_input_is_not_replaced(tmp_path):
    import anndata as ad

    path = tmp_path / "screen.csv"
    screen().write_h5ad(tmp_path / "screen.h5ad")
    (tmp_path / "screen.h5ad").rename(path)
    adata = ad.read_h5ad(path, backed="r")
    with pytest.raises(errors.OptionError, match="is the input file"):
        run(adata, out=path, force=True)
    adata.file.close()


def test_force(tmp_path):
    out = tmp_path / "de.parquet"
    out.write_text("precious")
    result = run(out=out, force=True)
    assert_same_bits(result.load(), run())
    assert names(tmp_path) == ["de.parquet"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"force": True}, "force=True requires an output file"),
        ({"restart": True}, "restart=True requires an output"),
        ({"spreadsheet_safe": True}, "spreadsheet_safe=True requires an output"),
        ({"out": "x.csv", "spreadsheet_safe": 1}, "spreadsheet_safe=1 must be True or False"),
        (
            {"out": "x.parquet", "spreadsheet_safe": True},
            "valid with .csv and .tsv files, but",
        ),
        ({"out": "x.csv", "force": 1}, "force=1 must be True or False"),
        ({"out": "x.csv", "restart": "yes"}, "restart='yes' must be True or False"),
        ({"out": 3}, "out=3 must be a path, not int"),
        ({"scratch": 3}, "scratch=3 must be a path, not int"),
        ({"scratch": "none"}, r"scratch folder 'none' does not exist\. Create it"),
        ({"scratch": "file"}, "scratch folder 'file' is a file, not a folder"),
        ({"progress": "yes"}, "progress='yes' must be"),
    ],
    ids=str,
)
def test_options_that_make_no_sense(tmp_path, monkeypatch, options, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(errors.OptionError, match=says):
        run(**options)
    assert names(tmp_path) == ["file"]


def test_scratch_reaches_the_source(tmp_path, monkeypatch):
    jobs = []
    real = serial.run
    monkeypatch.setattr(serial, "run", lambda job: (jobs.append(job), real(job)))
    for scratch in (None, str(tmp_path), tmp_path):
        run(engine="serial", scratch=scratch)
        assert jobs.pop().reading.scratch == (scratch and tmp_path)


def test_errors_of_the_data_leave_nothing(tmp_path):
    for options in ({"groups": ["NOPE"]}, {"layer": "none"}, {"reference": "none"}):
        with pytest.raises(errors.PdexGpuError):
            run(out=tmp_path / "de.csv", **options)
    assert names(tmp_path) == []


# --- how much is held -----------------------------------------------------------------------


def test_ranges_are_narrow_enough_to_be_kept_often(tmp_path, monkeypatch):
    monkeypatch.setattr("pdex_gpu.engines.memory_model.RESULTS_PER_RANGE", 4 * 2 + 3)  # 4 groups
    seen = []

    def look(progress: Any) -> None:
        folder = checkpoint_folder(tmp_path / "de.csv")
        seen.append(sorted(p.name[:21] for p in folder.glob("genes-*.npy")))

    run(out=tmp_path / "de.csv", progress=look, engine="serial")
    monkeypatch.setattr("pdex_gpu.utils.progress._INTERVAL", 0)
    widths = []
    real = serial.run
    monkeypatch.setattr(
        serial, "run", lambda job: (widths.extend(np.diff(job.plan.edges)), real(job))
    )
    run(out=tmp_path / "de2.csv", engine="serial")
    assert max(widths) == 2
    run(out=tmp_path / "de3.csv", engine="serial", gene_chunk_size=1)
    assert widths[-9:] == [1] * 9
    assert seen[0] == []


def test_a_block_at_a_time_is_made(tmp_path, monkeypatch):
    """One that is written, and one ahead of it."""
    monkeypatch.setattr(table, "ROWS_PER_GROUP", 9)
    from pdex_gpu.columns import finish
    from pdex_gpu.utils.progress import Tracker

    made, written, most = [], [], []
    real_columns, real_wrote = finish._columns, Tracker.wrote

    def columns(*args: Any) -> Any:
        made.append(1)
        most.append(len(made) - len(written))
        return real_columns(*args)

    def wrote(self: Any, n_rows: int) -> None:
        assert n_rows == 9
        written.append(1)
        real_wrote(self, n_rows)

    monkeypatch.setattr(finish, "_columns", columns)
    monkeypatch.setattr(Tracker, "wrote", wrote)
    labels = [REFERENCE] * 15 + [f"t{k:02d}" for k in range(40)]
    run(screen(labels=labels), out=tmp_path / "de.parquet")
    assert len(made) == len(written) == 40
    assert max(most) <= 3
