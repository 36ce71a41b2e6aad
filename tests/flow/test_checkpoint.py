"""Checkpoints: a run that was stopped carries on, and ends with the bytes of an undisturbed one."""

from __future__ import annotations

import errno
import itertools
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from stopped_runs import Stop, interrupted, names, ranges, run, stop_at
from stored_screens import GENES, GROUPBY, LABELS, REFERENCE, counts, logged, screen

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends.cpu import kernel_set
from pdex_gpu.engines.plan import Plan, leave_out
from pdex_gpu.errors import CheckpointError, CoverageError, DataError, OutputError, ScaleWarning
from pdex_gpu.pipeline.output import WRITERS
from pdex_gpu.sinks.base import RangeResult
from pdex_gpu.sinks.checkpoint import Checkpoint, checkpoint_folder, open_checkpoint
from pdex_gpu.sinks.checkpoint_sink import CheckpointSink, StoredPValues, StoredResults
from pdex_gpu.sinks.identity_diff import differences
from pdex_gpu.stats.multitest import correction
from pdex_gpu.utils.progress import Tracker
from pdex_gpu.utils.value_summary import ValueSummary

FORMATS = ["parquet", "csv"]
N_RANGES = len(GENES)  # with one gene in each

posix = pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., bytes]:
    """The bytes of an undisturbed run."""
    known: dict[str, bytes] = {}

    def bytes_of(suffix: str = "parquet", data: Any = None, **options: Any) -> bytes:
        key = f"{suffix} {options} {None if data is None else data.X.tobytes()}"
        if key not in known:
            out = tmp_path_factory.mktemp("whole") / f"de.{suffix}"
            run(out, data, **options)
            known[key] = out.read_bytes()
        return known[key]

    return bytes_of


# --- carrying on ----------------------------------------------------------------------------


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("suffix", FORMATS)
@pytest.mark.parametrize("n_done", range(N_RANGES + 1))
def test_a_failure_in_any_range(tmp_path, monkeypatch, whole, suffix, n_done):
    out = tmp_path / f"de.{suffix}"
    expected = whole(suffix)
    with monkeypatch.context() as patch:
        stop_at(patch, kernel_set, "pack", n_done)
        if n_done < N_RANGES:
            with pytest.raises(Stop) as caught:
                run(out)
            notes = getattr(caught.value, "__notes__", [])
            if n_done:
                assert notes == [
                    f"Finished results are kept in '{tmp_path}/.de.{suffix}.checkpoint'; the same "
                    "call resumes from there."
                ]
                assert names(tmp_path) == [f".de.{suffix}.checkpoint"]
                assert len(ranges(out)) == n_done
            else:
                assert (notes, names(tmp_path)) == ([], [])
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    result = run(out)
    assert len(packed) == N_RANGES - n_done % N_RANGES
    assert out.read_bytes() == expected
    assert names(tmp_path) == [out.name]
    assert result.path == out


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("engine", ["threads", "shared_memory"])
def test_a_failure_in_any_engine(tmp_path, whole, engine):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3, engine=engine, n_workers=2)
    assert len(ranges(out)) == 3
    assert folder.is_dir()
    run(out, engine=engine, n_workers=2)
    assert out.read_bytes() == whole(engine=engine, n_workers=2)
    assert names(tmp_path) == ["de.parquet"]


@pytest.mark.parametrize(
    "options",
    [{"gene_chunk_size": 4}, {"gene_chunk_size": None}, {"n_threads": 3}, {"memory": "1MB"}],
    ids=str,
)
def test_another_cut_of_the_genes(tmp_path, whole, options):
    out = tmp_path / "de.parquet"
    with pytest.MonkeyPatch.context() as patch:  # a hole in the middle
        real = kernel_set.pack

        def pack(chunk, *args, **more):
            if chunk.gene_start == 5:
                raise Stop
            return real(chunk, *args, **more)

        patch.setattr(kernel_set, "pack", pack)
        with pytest.raises(Stop):
            run(out, gene_chunk_size=2, engine="threads", n_workers=1)
    assert ranges(out)
    run(out, **options)
    assert out.read_bytes() == whole()


def test_more_than_one_stop(tmp_path, whole):
    out = tmp_path / "de.parquet"
    for n_more in (2, 1, 3):
        interrupted(out, n_more)
    assert len(ranges(out)) == 6
    run(out)
    assert out.read_bytes() == whole()


def test_nothing_is_read_again_if_all_is_computed(tmp_path, monkeypatch, whole):
    out, expected = tmp_path / "de.parquet", whole()
    with monkeypatch.context() as patch:
        stop_at(patch, correction, "adjust", 0)
        with pytest.raises(Stop):
            run(out)
    assert len(ranges(out)) == N_RANGES
    stop_at(monkeypatch, kernel_set, "pack", 0)
    run(out)
    assert out.read_bytes() == expected


def test_what_is_left_out_is_not_wanted_of_the_source(tmp_path, monkeypatch):
    from pdex_gpu.engines import serial

    out = tmp_path / "de.parquet"
    interrupted(out, 4)
    jobs = []
    real = serial.run
    monkeypatch.setattr(serial, "run", lambda job: (jobs.append(job), real(job)))
    run(out)
    (job,) = jobs
    assert job.reading.wanted == frozenset(job.plan.todo)
    todo = [g for k in job.plan.todo for g in range(*job.plan.genes(k).indices(99))]
    assert todo == [4, 5, 6, 7, 8]


@pytest.mark.parametrize("fractional_gene", [0, 8])
@pytest.mark.parametrize("n_done", [1, 8])
@pytest.mark.parametrize("exp_post_agg", [True, False])
def test_whether_values_are_log1p_is_remembered(
    tmp_path, whole, fractional_gene, n_done, exp_post_agg
):
    values = counts().astype(np.float64)
    values[5, fractional_gene] = 2.5
    out = tmp_path / "de.parquet"
    options = {"data": screen(values), "exp_post_agg": exp_post_agg}
    folder = interrupted(out, n_done, **options)
    assert any("-fractional_" in name for name in names(folder)) is (fractional_gene < n_done)
    result = run(out, **options)
    assert result.provenance["is_log1p"] is True
    assert out.read_bytes() == whole(**options)


@pytest.mark.parametrize("gene", [0, 8])
@pytest.mark.parametrize("n_done", [1, 8])
@pytest.mark.parametrize("value", [-0.1, 1e6 + 0.1])
def test_extremes_are_remembered(tmp_path, value, gene, n_done):
    """Of a range that an earlier call made, and of a file whose checkpoint alone was left."""
    values = counts().astype(np.float64)
    values[5, 3], values[5, gene] = 2.5, value
    data = screen(values)
    with pytest.warns(ScaleWarning) as expected:
        run(tmp_path / "whole.parquet", data)
    out = tmp_path / "de.parquet"
    interrupted(out, n_done, data=data)
    with pytest.warns(ScaleWarning) as caught:
        result = run(out, data)
    assert [str(w.message) for w in caught] == [str(w.message) for w in expected]
    assert result.provenance["negative_values"] is (value < 0)
    assert result.provenance["is_log1p"] is False
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()


def test_a_matrix_that_is_not_canonical(tmp_path, monkeypatch):
    """Ranges computed before it was found out are thrown away; so is nothing after that."""
    matrix = sparse.csr_matrix(counts())
    row = slice(matrix.indptr[2], matrix.indptr[3])
    matrix.indices[row] = matrix.indices[row][::-1].copy()
    matrix.has_sorted_indices = matrix.has_canonical_format = False
    data = screen(matrix)
    run(tmp_path / "dense.parquet", screen(counts()))
    expected = pdex_gpu.differential_expression(data, GROUPBY, reference=REFERENCE, progress=False)
    out = tmp_path / "de.parquet"
    started_over = []
    real = Checkpoint.start_over
    monkeypatch.setattr(Checkpoint, "start_over", lambda self: (started_over.append(1), real(self)))
    real_commit, after = CheckpointSink.commit, []

    def commit(self, genes, summary):
        if started_over and len(after) == 4:
            raise Stop
        real_commit(self, genes, summary)
        if started_over:
            after.append(genes)

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointSink, "commit", commit)
        with pytest.raises(Stop):
            run(out, data)
    assert len(started_over) == 1
    assert len(ranges(out)) == 4
    assert json.loads((checkpoint_folder(out) / "run.json").read_text())["canonical"] is True
    packed = stop_at(monkeypatch, kernel_set, "pack", N_RANGES)
    result = run(out, data)
    assert len(packed) == N_RANGES - 4
    assert len(started_over) == 1
    for name in ("p_value", "target_mean"):
        np.testing.assert_array_equal(result.load()[name], expected[name])


def test_it_is_logged(tmp_path, caplog):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 4)
    with caplog.at_level("INFO"):
        run(out)
    assert f"resuming: 4 of 9 genes are done in {folder}" in caplog.messages


def test_progress_counts_what_was_done(tmp_path):
    out = tmp_path / "de.parquet"
    interrupted(out, 4)
    seen = []
    run(out, progress=seen.append)
    assert seen[0].n_genes == 4
    assert (seen[-1].n_genes, seen[-1].total_genes) == (9, 9)
    assert (seen[-1].n_rows, seen[-1].total_rows) == (27, 27)


# --- stopped while writing ------------------------------------------------------------------


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("error", [Stop(), KeyboardInterrupt(), SystemExit(143)], ids=repr)
@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("suffix", FORMATS)
def test_stopped_while_writing(tmp_path, monkeypatch, whole, suffix, there_before, error):
    out = tmp_path / f"de.{suffix}"
    if there_before:
        out.write_text("precious")
    monkeypatch.setattr("pdex_gpu.results.table.ROWS_PER_GROUP", 9)  # a block a target
    expected = tmp_path / "expected"
    expected.mkdir()
    run(expected / out.name)
    with monkeypatch.context() as patch:
        stop_at(patch, Tracker, "wrote", 2, error)
        with pytest.raises(type(error)) as caught:
            run(out, force=there_before)
    assert "the same call resumes" in caught.value.__notes__[0]
    assert (out.read_text() if there_before else not out.exists()) in ("precious", True)
    assert names(checkpoint_folder(out)) == [*ranges(out), "lock", "run.json"]
    run(out, force=there_before)
    assert out.read_bytes() == (expected / out.name).read_bytes()
    assert not checkpoint_folder(out).exists()


def test_stopped_while_cleaning_up(tmp_path, monkeypatch, whole):
    """The output is complete: the same call finds that out, and reads nothing."""
    out, expected = tmp_path / "de.parquet", whole()
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        run(out)
    (checkpoint_folder(out) / ranges(out)[2]).unlink()  # some are gone by then
    stop_at(monkeypatch, kernel_set, "pack", 0)
    before = out.stat()
    result = run(out)
    assert out.stat().st_ino == before.st_ino
    assert out.read_bytes() == expected
    assert names(tmp_path) == ["de.parquet"]
    assert result.provenance["is_log1p"] is True
    assert result.load()["p_value"].shape == (3, 9)


def test_another_file_in_place_of_the_output_is_not_taken_for_it(tmp_path, monkeypatch):
    out = tmp_path / "de.parquet"
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoint, "remove", lambda self: None)
        run(out)
    out.unlink()
    out.write_text("precious")
    with pytest.raises(errors.OptionError, match="already exists"):
        run(out)
    assert out.read_text() == "precious"


# --- killed ---------------------------------------------------------------------------------

CHILD = """
import os, random, signal, sys, threading
from pathlib import Path
import pdex_gpu, pdex_gpu.api, pdex_gpu.utils.atomic_files
path, out, how, amount = sys.argv[1:]
def kill(*_):
    os.kill(os.getpid(), signal.SIGKILL)
def call(out, **more):
    pdex_gpu.differential_expression(
        path, "perturbation", reference="ctl", progress=False, gene_chunk_size=1, out=out, **more)
if how == "step":
    left = int(amount)
    def counted(real):
        def step(*args):
            global left
            left -= 1
            if left < 0:
                kill()
            return real(*args)
        return step
    os.fsync, os.mkdir = counted(os.fsync), counted(os.mkdir)
    os.unlink, os.rmdir = counted(os.unlink), counted(os.rmdir)
    os.replace = counted(os.replace)
    Path.replace = counted(Path.replace)
    call(out, engine="serial")
else:
    call(out + ".warm.parquet")
    threading.Timer(float(amount), kill).start()
    call(out)
os._exit(0)
"""


@pytest.fixture(scope="module")
def stored_screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("killed") / "screen.h5ad"
    screen(sparse.csr_matrix(logged())).write_h5ad(path)
    return path


def child(path: Path, out: Path, how: str, amount: float) -> bool:
    """Whether the child was killed; else it ended well."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(path), str(out), how, str(amount)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    Path(f"{out}.warm.parquet").unlink(missing_ok=True)
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode != 0


def carry_on(path: Path, out: Path, engine: str) -> bytes:
    """The same call again, whatever is there; nothing may be left beside the output."""
    assert not out.exists() or checkpoint_folder(out).exists()
    run(out, path, engine=engine)
    assert names(out.parent) == [out.name]
    return out.read_bytes()


def undisturbed(path: Path, folder: Path, engine: str) -> bytes:
    folder.mkdir()
    run(folder / "de.parquet", path, engine=engine)
    return (folder / "de.parquet").read_bytes()


@pytest.mark.thorough
@posix
@pytest.mark.parametrize(
    "steps",
    [
        pytest.param(range(0, 90, 13), id="some"),
        pytest.param(range(90), id="all", marks=pytest.mark.slow),
    ],
)
def test_killed_at_a_step(tmp_path, stored_screen, steps):
    """Before every folder made, file synced, renamed or removed."""
    expected = undisturbed(stored_screen, tmp_path / "whole", "serial")
    killed = 0
    for step in steps:
        out = tmp_path / f"step{step}" / "de.parquet"
        out.parent.mkdir()
        if not child(stored_screen, out, "step", step):
            assert names(out.parent) == ["de.parquet"]
            assert out.read_bytes() == expected
            continue
        killed += 1
        if out.exists():
            assert out.read_bytes() == expected  # whole, or not there
        assert carry_on(stored_screen, out, "serial") == expected
    assert killed >= len(steps) // 2


@posix
@pytest.mark.thorough
@pytest.mark.parametrize(
    "n", [pytest.param(4, id="4"), pytest.param(30, id="30", marks=pytest.mark.slow)]
)
def test_killed_at_random_moments(tmp_path, stored_screen, n):
    expected = undisturbed(stored_screen, tmp_path / "whole", "threads")
    started = time.perf_counter()
    undisturbed(stored_screen, tmp_path / "again", "threads")
    seconds = time.perf_counter() - started
    moments = random.Random(n)
    for k in range(n):
        out = tmp_path / f"kill{k}" / "de.parquet"
        out.parent.mkdir()
        if child(stored_screen, out, "time", moments.uniform(0, seconds)):
            if out.exists():
                assert out.read_bytes() == expected
                if not checkpoint_folder(out).exists():  # killed when all was done
                    continue
            assert carry_on(stored_screen, out, "threads") == expected
        else:
            assert out.read_bytes() == expected


# --- what is left in the folder -------------------------------------------------------------


def test_torn_temporary_files_are_removed(tmp_path, whole):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3)
    for name in ("genes-000000003-000000004-whole.npy.tmp", "output.parquet.tmp", "x.tmp"):
        (folder / name).write_bytes(b"torn")
    run(out)
    assert out.read_bytes() == whole()
    assert names(tmp_path) == ["de.parquet"]


def test_ranges_without_a_run_are_of_nobody(tmp_path, whole):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3)
    (folder / "run.json").unlink()
    run(out)
    assert out.read_bytes() == whole()


def test_a_file_of_somebody_else_is_left_alone(tmp_path):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3)
    (folder / "notes.txt").write_text("precious")
    run(out)
    assert names(folder) == ["notes.txt"]


def test_a_range_that_vanishes_while_it_is_needed(tmp_path, monkeypatch):
    out = tmp_path / "de.parquet"
    real = correction.adjust

    def adjust(*args, **options):
        next(checkpoint_folder(out).glob("genes-*")).unlink()
        return real(*args, **options)

    monkeypatch.setattr(correction, "adjust", adjust)
    with pytest.raises(CheckpointError, match=r"genes-.*cannot be read back.*Call again:"):
        run(out)
    monkeypatch.undo()
    run(out)


# --- a checkpoint of another run ------------------------------------------------------------


def relabelled():
    adata = screen(sparse.csr_matrix(logged()))
    adata.obs[GROUPBY] = adata.obs[GROUPBY].to_numpy()[::-1]
    return adata


def other_layer():
    return screen(sparse.csr_matrix(logged()), layers={"other": logged()})


OTHERS = [
    ({"metric": "t-test"}, "metric: 'wilcoxon' then, 't-test' now"),
    ({"groups": ["A", "B"]}, "groups: None then, 'A', 'B' now"),
    ({"groups": ["B", "A", "C"]}, "groups: None then, 'B', 'A', 'C' now"),
    ({"reference": "A"}, "reference: 'ctl' then, 'A' now"),
    ({"is_log1p": True}, "is_log1p: None then, True now"),
    ({"exp_post_agg": False}, "exp_post_agg: True then, False now"),
    ({"clip_value": None}, "clip_value: 20.0 then, None now"),
    ({"use_continuity": False}, "test_options: none then, use_continuity=False now"),
    ({"backend": "numpy"}, "backend: 'cpu' then, 'numpy' now"),
    ({"data": other_layer(), "layer": "other"}, "layer: None then, 'other' now"),
    ({"data": relabelled()}, "the labels of the cells differ ("),
    ({"data": screen(sparse.csr_matrix(logged()), genes=[f"h{j}" for j in range(9)])},
     "the names of the genes differ ("),
    ({"data": screen(sparse.csr_matrix(logged(1)))}, "data, "),
    ({"data": screen(logged())}, "data, "),
]  # fmt: skip


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("options", "says"), OTHERS, ids=[says for _, says in OTHERS])
@pytest.mark.parametrize("there_before", [False, True])
def test_another_call_is_refused(tmp_path, whole, options, says, there_before):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3)
    if there_before:
        out.write_text("precious")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(CheckpointError) as caught:
        run(out, force=there_before, **options)
    text = str(caught.value)
    assert text.startswith(f"The checkpoint '{folder}' belongs to a different run:\n  ")
    assert f"\n  {says}" in text
    for advice in ("Repeat the original call", "restart=True (--restart)", "another output."):
        assert advice in text
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    if there_before:
        assert out.read_text() == "precious"
    run(out, force=True)  # as before: it carries on
    assert out.read_bytes() == whole()


@pytest.mark.parametrize(
    ("place", "name", "says"),
    [
        ("pdex_gpu.pipeline.identity.__version__", "9.9", "version of pdex_gpu: "),
        ("pdex_gpu.pipeline.identity.version", lambda package: "0.1", "version of numpy: "),
        (
            "pdex_gpu.pipeline.identity.compilers",
            lambda backend: {"numba": "0"},
            "version of numba: ",
        ),
        (platform.machine, "riscv", "machine: "),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_another_version_is_refused(tmp_path, monkeypatch, place, name, says):
    out = tmp_path / "de.parquet"
    interrupted(out, 3)
    if place is platform.machine:
        monkeypatch.setattr(platform, "machine", lambda: name)
    else:
        monkeypatch.setattr(place, name)
    with pytest.raises(CheckpointError) as caught:
        run(out)
    assert f"\n  {says}" in str(caught.value)


def test_a_file_that_was_changed_is_refused(tmp_path, stored_screen):
    path = tmp_path / "screen.h5ad"
    shutil.copy(stored_screen, path)
    out = tmp_path / "de.parquet"
    interrupted(out, 3, path)
    os.utime(path, ns=(1, 1))
    with pytest.raises(CheckpointError, match=r"data, .* then, .* now"):
        run(out, path)


def test_all_that_differs_is_said(tmp_path):
    out = tmp_path / "de.parquet"
    interrupted(out, 3)
    with pytest.raises(CheckpointError) as caught:
        run(out, metric="t-test", clip_value=3, exp_post_agg=False)
    lines = str(caught.value).splitlines()[1:-1]
    assert lines == [
        "  metric: 'wilcoxon' then, 't-test' now",
        "  exp_post_agg: True then, False now",
        "  clip_value: 20.0 then, 3 now",
    ]


def test_a_run_whose_filters_counted_either_side_is_not_continued(tmp_path):
    """What filters count was not written down when they took the side that had more."""
    out = tmp_path / "de.parquet"
    path = interrupted(out, 3, min_fraction=0.1) / "run.json"
    earlier = json.loads(path.read_text())
    assert earlier["run"].pop("filter_sides") == "pooled"
    path.write_text(json.dumps(earlier))
    with pytest.raises(CheckpointError, match="filter_sides: None then, 'pooled' now"):
        run(out, min_fraction=0.1)


def test_differences_of_hashes_are_short():
    one, other = "sha256:" + "a" * 64, "sha256:" + "b" * 64
    assert differences({"x": one, "same": 1}, {"x": other, "same": 1, "new": None}) == [
        "the x differ (aaaaaaaa then, bbbbbbbb now)"
    ]


@pytest.mark.parametrize("content", ["", "{", "[]"])
def test_an_unreadable_checkpoint_is_refused(tmp_path, whole, content):
    out = tmp_path / "de.parquet"
    folder = interrupted(out, 3)
    (folder / "run.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"cannot be read.*restart=True \(--restart\)"):
        run(out)
    assert len(ranges(out)) == 3
    run(out, restart=True)
    assert out.read_bytes() == whole()


def test_restart(tmp_path, monkeypatch, whole):
    out = tmp_path / "de.parquet"
    interrupted(out, 3, metric="t-test")
    with monkeypatch.context() as patch:
        packed = stop_at(patch, kernel_set, "pack", N_RANGES)
        run(out, restart=True)
    assert len(packed) == N_RANGES
    assert out.read_bytes() == whole()
    assert names(tmp_path) == ["de.parquet"]
    run(out, restart=True, force=True)  # there is nothing to throw away
    assert out.read_bytes() == whole()


# --- two at once ----------------------------------------------------------------------------


@posix
def test_a_second_run_is_refused(tmp_path, stored_screen):
    out = tmp_path / "de.parquet"
    seen = []

    def second(progress: Any) -> None:
        if not seen:
            for more in ({}, {"restart": True}):
                with pytest.raises(CheckpointError) as caught:
                    run(out, **more)
                seen.append(str(caught.value))

    run(out, progress=second)
    assert len(seen) == 2
    for text in seen:
        assert text.startswith("Another run is writing the same output")
        assert str(checkpoint_folder(out)) in text
    assert names(tmp_path) == ["de.parquet"]


@posix
def test_a_run_in_another_process(tmp_path):
    import fcntl  # noqa: F401

    out = tmp_path / "de.parquet"
    folder = interrupted(out, 2)
    holder = subprocess.Popen(
        [sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'r+'); "
         "fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.read()",
         str(folder / "lock")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(CheckpointError, match="Another run"):
            run(out)
        holder.communicate()
    run(out)


# --- errors ---------------------------------------------------------------------------------


def test_bad_values_leave_nothing(tmp_path):
    """Whatever is done to the data, it will be another run."""
    values = logged()
    values[7, 8] = np.nan
    out = tmp_path / "de.parquet"
    out.write_text("precious")
    with pytest.raises(DataError, match="gene8") as caught:
        run(out, screen(values), force=True)
    assert not hasattr(caught.value, "__notes__")
    assert names(tmp_path) == ["de.parquet"]
    assert out.read_text() == "precious"


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("there_before", [False, True])
@pytest.mark.parametrize("step", [0, 1, 2, 3, 7, 19, 20, 21, 22])
def test_a_disk_that_fails(tmp_path, monkeypatch, whole, number, there_before, step):
    out = tmp_path / "de.parquet"
    if there_before:
        out.write_text("precious")
    with monkeypatch.context() as patch:
        stop_at(patch, os, "fsync", step, OSError(number, os.strerror(number)))
        with pytest.raises(OutputError) as caught:
            run(out, force=there_before)
    text = str(caught.value)
    assert str(tmp_path) in text
    assert {errno.ENOSPC: "is full", errno.EDQUOT: "is full", errno.EACCES: "permission denied",
            errno.EIO: os.strerror(errno.EIO)}[number] in text  # fmt: skip
    assert caught.value.errno == number
    if there_before:
        assert out.read_text() == "precious"
    else:
        assert not out.exists()
    folder = checkpoint_folder(out)
    if folder.exists():
        assert "the same call resumes" in caught.value.__notes__[0]
        assert not list(folder.glob("*.tmp"))
    run(out, force=there_before)
    assert out.read_bytes() == whole()
    assert names(tmp_path) == ["de.parquet"]


@pytest.mark.parametrize("engine", ["serial", "threads"])
def test_an_error_while_writing_leaves_no_thread(tmp_path, monkeypatch, engine):
    """Not even while the error is held, whose traceback holds all frames.

    A generator that owns a pool would wait for the pool's threads wherever it is collected; in a
    thread that has not quite started, it waits for a lock which that thread holds.
    """

    def write(path: Path, table: Any, parts: Any) -> None:
        next(parts)
        raise Stop

    monkeypatch.setitem(WRITERS, ".csv", write)
    before = set(threading.enumerate())
    with pytest.raises(Stop) as caught:
        run(tmp_path / "de.csv", engine=engine)
    assert caught.traceback
    assert not set(threading.enumerate()) - before


@posix
@pytest.mark.parametrize("suffix", FORMATS)
def test_a_disk_that_is_full(tmp_path, suffix):
    """A real one, small, in which something else takes the room meanwhile."""
    mount = tmp_path / "small"
    mount.mkdir()
    try:
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", mount],
                              capture_output=True, check=False)  # fmt: skip
    except FileNotFoundError:
        pytest.skip("no mount")
    if made.returncode:
        pytest.skip("no file system can be mounted here")
    try:
        values = np.random.default_rng(0).poisson(2.0, (24, 3000)).astype(np.float32)
        labels = [REFERENCE] * 8 + ["A"] * 4 + ["B"] * 4 + ["C"] * 8
        data = screen(values, labels, [f"g{j}" for j in range(3000)])
        options: dict[str, Any] = {"gene_chunk_size": 500}
        run(tmp_path / f"de.{suffix}", data, **options)
        expected = (tmp_path / f"de.{suffix}").read_bytes()
        out = mount / f"de.{suffix}"
        filler = mount / "filler"
        failed = []
        for rest in itertools.count(20_000, 20_000):
            free = shutil.disk_usage(mount).free

            def fill(progress: Any, size: int = max(0, free - rest)) -> None:
                if not filler.exists():
                    filler.write_bytes(bytes(size))

            try:
                run(out, data, progress=fill, **options)
                break
            except OutputError as error:
                failed.append(str(error))
            assert not out.exists()
            filler.unlink(missing_ok=True)
        text = "\n".join(failed)
        assert text.count("is full") >= 3
        for what in ("The checkpoint of the output", "The output"):
            assert f"{what} '{mount}" in text
        filler.unlink(missing_ok=True)
        assert out.read_bytes() == expected
        assert names(mount) == [out.name]
    finally:
        subprocess.run(["umount", mount], check=True)


def test_too_little_room_is_found_before_work(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    packed = stop_at(monkeypatch, kernel_set, "pack", 0)
    with pytest.raises(OutputError) as caught:
        run(tmp_path / "de.parquet")
    # 9 genes: means, statistics and p-values of 3 targets, the mean of the reference; 27 rows
    assert f"need at least {9 * 10 * 8 + 27 * 16:,} while" in str(caught.value)
    assert not packed
    assert names(tmp_path) == []


# --- the parts ------------------------------------------------------------------------------


@given(
    stored=st.lists(st.booleans(), min_size=1, max_size=12),
    cuts=st.sets(st.integers(1, 11)),
)
def test_left_out_of_a_plan(stored, cuts):
    n_genes = len(stored)
    edges = (0, *sorted(cut for cut in cuts if cut < n_genes), n_genes)
    plan = leave_out(Plan(edges, 7, 2, 3), np.array(stored, np.uint8))
    assert (plan.budget, plan.n_workers, plan.n_threads) == (7, 2, 3)
    assert (plan.edges[0], plan.edges[-1]) == (0, n_genes)
    assert all(a < b for a, b in zip(plan.edges[:-1], plan.edges[1:], strict=True))
    for k in range(plan.n_ranges):
        assert set(stored[plan.genes(k)]) == {k in plan.done}
    # What is to do is cut as planned, what is done is not cut.
    todo = {plan.edges[k] for k in plan.todo}
    assert todo >= {edge for edge in edges[:-1] if not stored[edge]}
    assert len(plan.done) == sum(
        here and not before for before, here in zip([False, *stored], stored, strict=False)
    )


FIELDS = {"target_mean": 2, "reference_mean": 1, "statistic": 2, "p_value": 2}


def result_of(genes: slice, seed: int = 0) -> RangeResult:
    rng = np.random.default_rng(seed)
    width = genes.stop - genes.start
    return RangeResult(genes.start, {name: rng.random((n, width)) for name, n in FIELDS.items()})


@pytest.fixture
def checkpoint(tmp_path):
    with open_checkpoint(tmp_path / "de.csv", {"x": 1}, FIELDS, n_genes=7, restart=False) as opened:
        yield opened


def test_what_is_stored_is_read_back(checkpoint):
    sink = CheckpointSink(checkpoint)
    sink.expect((0, 4, 7))
    pieces = [result_of(slice(a, b), a) for a, b in ((0, 1), (4, 7), (1, 4))]
    for piece in pieces:
        sink.store(piece)
    sink.commit(slice(4, 7), ValueSummary(False, -0.1, 2.0))
    assert not sink.summary.fractional
    sink.commit(slice(0, 4), ValueSummary(True, 0.0, 7e22))
    assert sink.summary == checkpoint.summary == ValueSummary(True, -0.1, 7e22)
    sink.check_complete()
    assert [found.genes for found in checkpoint.ranges] == [slice(0, 4), slice(4, 7)]
    stored = StoredResults(checkpoint)
    ordered = [pieces[0], pieces[2], pieces[1]]
    for field, n in FIELDS.items():
        expected = np.concatenate([p.values[field] for p in ordered], axis=1)
        np.testing.assert_array_equal(stored.read(field, slice(0, 2)), expected)
        if n > 1:
            np.testing.assert_array_equal(stored.read(field, slice(1, 2)), expected[1:2])
        else:  # all rows share it
            np.testing.assert_array_equal(stored.read(field, slice(1, 2)), expected)
        np.testing.assert_array_equal(stored.read_range(field, 1), expected[:, 4:7])
    kept = np.array([[0, 1, 1, 0, 0, 1, 0], [0, 0, 0, 1, 1, 1, 1]], bool)
    some = StoredPValues(stored, kept)
    assert some.n == 7
    for first in range(7):
        for last in range(first + 1, 8):
            np.testing.assert_array_equal(some.read(first, last), expected[kept][first:last])
    p_values = StoredPValues(stored)
    flat = expected.ravel()
    assert p_values.n == 14
    for first in range(14):
        for last in range(first + 1, 15):
            np.testing.assert_array_equal(p_values.read(first, last), flat[first:last])


def test_only_ranges_in_work_are_held(checkpoint):
    sink = CheckpointSink(checkpoint)
    sink.expect((0, 4, 7))
    sink.store(result_of(slice(0, 4)))
    sink.store(result_of(slice(4, 5)))
    assert {start: a.shape for start, a in sink._in_work.items()} == {0: (7, 4), 4: (7, 3)}
    sink.commit(slice(0, 4), ValueSummary())
    assert list(sink._in_work) == [4]


def test_coverage_is_checked(checkpoint):
    sink = CheckpointSink(checkpoint)
    sink.expect((0, 4, 7))
    sink.store(result_of(slice(0, 3)))
    with pytest.raises(CoverageError, match="never computed"):
        sink.commit(slice(0, 4), ValueSummary())
    with pytest.raises(CoverageError, match="twice"):
        sink.store(result_of(slice(2, 4)))
    with pytest.raises(CoverageError, match="4 of 7"):
        sink.check_complete()
    assert checkpoint.ranges == []


def test_labels_are_told_apart_by_more_than_their_text(tmp_path):
    codes = [{"ctl": 0, "A": 1, "B": 2, "C": 3}[name] for name in LABELS]
    out = tmp_path / "de.parquet"
    interrupted(out, 3, screen(labels=codes), reference=0)
    with pytest.raises(CheckpointError, match="labels of the cells differ"):
        run(out, screen(labels=[str(code) for code in codes]), reference="0")
