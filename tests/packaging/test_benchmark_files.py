"""benchmarks/files.py and the big screens that it reads, on tiny ones."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from repository import ROOT

BENCHMARKS = ROOT / "benchmarks"
if not BENCHMARKS.is_dir():  # an sdist has none
    pytest.skip("no benchmarks here", allow_module_level=True)
sys.path.insert(0, str(BENCHMARKS))

import big_screen  # noqa: E402
import data  # noqa: E402
import files  # noqa: E402
import gpu_screen  # noqa: E402
from files_record import TARGETS, FilesRecord  # noqa: E402
from files_stored import FORMS  # noqa: E402
from files_tasks import TASKS  # noqa: E402

SMALL = gpu_screen.Sizes(4_000, 300, 20)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> big_screen.BigScreen:
    return big_screen.write(SMALL, tmp_path_factory.mktemp("big") / "screen.h5ad", n_threads=1)


def test_the_file_does_not_depend_on_threads(made: big_screen.BigScreen, tmp_path: Path) -> None:
    for n_threads in (2, 5):
        again = big_screen.write(SMALL, tmp_path / f"{n_threads}.h5ad", n_threads)
        assert (again.nnz, again.chunk) == (made.nnz, made.chunk)
        with h5py.File(made.path) as one, h5py.File(again.path) as other:
            for name in ("X/data", "X/indices", "X/indptr", "obs/target_gene/codes"):
                np.testing.assert_array_equal(one[name][:], other[name][:])


def test_the_file_is_the_screen_drawn_in_memory(made: big_screen.BigScreen) -> None:
    screen = gpu_screen.simulate(SMALL)
    adata = anndata.read_h5ad(made.path)
    assert adata.X.dtype == np.float32
    assert adata.X.indices.dtype == adata.X.indptr.dtype == np.int32
    np.testing.assert_array_equal(adata.X.data, screen.log1p)
    np.testing.assert_array_equal(adata.X.indices, screen.indices)
    np.testing.assert_array_equal(adata.X.indptr, screen.indptr)
    assert adata.obs["target_gene"].dtype == "category"
    assert adata.obs["target_gene"].tolist() == screen.names[screen.codes].tolist()
    assert adata.var_names.tolist() == screen.genes.tolist()
    np.testing.assert_allclose(
        np.expm1(adata.X.toarray().astype(float)).sum(axis=1), 1e4, rtol=1e-5
    )


def test_the_counts_have_the_means_of_the_model() -> None:
    drawing = big_screen.Drawing(SMALL)
    counts = np.concatenate([drawing.counts(k) for k in range(len(drawing.rows))])
    model = drawing._model
    level = model.levels[model.codes] + model.library[:, None]
    mean = model.tables[0].astype(np.float64).mean(axis=1)
    expected = mean[level].sum(axis=0)
    often = expected > 2_000
    assert often.sum() > 100
    # 4,000 cells of variance mu + 0.3 mu**2: a standard error of at most 2.5 %.
    np.testing.assert_allclose(counts.sum(axis=0)[often], expected[often], rtol=0.1)


def test_chunks_and_filter_are_those_of_anndata(made: big_screen.BigScreen, tmp_path: Path) -> None:
    anndata.read_h5ad(made.path).write_h5ad(tmp_path / "again.h5ad", compression="gzip")
    with h5py.File(made.path) as one, h5py.File(tmp_path / "again.h5ad") as other:
        for name in ("data", "indices", "indptr"):
            a, b = one["X"][name], other["X"][name]
            for what in ("chunks", "compression", "compression_opts", "maxshape", "dtype"):
                assert getattr(a, what) == getattr(b, what), (name, what)
        assert one["X"]["data"].id.get_num_chunks() > 10


def test_positions_beyond_31_bits_get_64(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big_screen, "_MOST_POSITIONS", 1_000)
    made = big_screen.write(gpu_screen.Sizes(200, 50, 5), tmp_path / "screen.h5ad")
    with h5py.File(made.path) as file:
        assert file["X/indptr"].dtype == np.int64
        assert file["X/indices"].dtype == np.int32
        assert file["X/indptr"][-1] == made.nnz == len(file["X/data"])


def test_the_cache_holds_complete_files_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(big_screen, "CACHE", tmp_path)
    sizes = gpu_screen.Sizes(200, 50, 5)
    usage = namedtuple("usage", "total used free")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda folder: usage(9, 9, 0))
        with pytest.raises(big_screen.DiskFullError, match="nonzeros take about"):
            big_screen.ensure(sizes)
    assert list(tmp_path.iterdir()) == []
    made = big_screen.ensure(sizes)
    monkeypatch.setattr(big_screen, "write", None)  # not made again
    assert big_screen.ensure(sizes) == made
    big_screen.remove(sizes)
    assert list(tmp_path.iterdir()) == []


def test_a_child_reads_all_of_x(made: big_screen.BigScreen) -> None:
    for whole in (False, True):
        done = subprocess.run(
            [sys.executable, str(BENCHMARKS / "files_child.py"), "read",
             json.dumps({"path": str(made.path), "whole": whole})],
            capture_output=True, text=True, check=True,
        )  # fmt: skip
        ready, answer = done.stdout.splitlines()
        assert ready == "ready"
        assert json.loads(answer)["bytes"] == made.nnz * 8 + (SMALL.cells + 1) * 4
        assert json.loads(answer)["peak_bytes"] > 1e7


def test_options() -> None:
    every = [task for task in TASKS if task != "triple"]
    assert files.parse([]).only == every
    assert files.parse(["--triple"]).only == list(TASKS)
    assert "peers" not in files.parse(["--no-peers"]).only
    assert files.parse(["--only", "triple"]).only == ["triple"]
    full, quick = (files.settings_of(files.parse(argv)) for argv in ([], ["--quick"]))
    assert (full.rounds, full.kills, full.tight, full.roomy) == (5, 30, "2GB", "8GB")
    assert (full.big, full.triple.cells) == (gpu_screen.FULL, 900_000)
    assert (quick.rounds, quick.kills, quick.big) == (2, 3, gpu_screen.QUICK)
    assert files.settings_of(files.parse(["--quick", "--kills", "7"])).kills == 7


@pytest.mark.parametrize("argv", [["--rounds", "0"], ["--kills", "-1"], ["--only", "nothing"]])
def test_wrong_options(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        files.parse(argv)
    assert stop.value.code == 2
    assert argv[0] in capsys.readouterr().err


def test_targets() -> None:
    for matrix, compression in FORMS:
        against = "memory" if compression == "plain" else "h5py"
        assert TARGETS[f"{matrix}_{compression}_vs_{against}"].text == "<= 1.3 x"
    for peer in ("illico", "pdex-0.3", "pdex"):
        assert TARGETS[f"vs_{peer}"].text == ">= 20 x"
    assert TARGETS["big_tight_vs_h5py"].met(1.5)
    assert not TARGETS["big_roomy_vs_h5py"].met(1.21)
    assert TARGETS["big_tight_peak"].text == TARGETS["triple_tight_peak"].text == "<= 2.5 GB"
    assert not TARGETS["kills_different"].met(1)
    assert len(TARGETS) == 18


def test_a_record_is_judged_at_full_size_only() -> None:
    for full_size in (True, False):
        record = FilesRecord({}, full_size=full_size)
        record.figure("vs_illico", 19.0)
        record.figure("bits_different", 0, sized=False)
        figures = record.content["figures"]
        assert figures["vs_illico"]["met"] is (False if full_size else None)
        assert figures["bits_different"]["met"] is True
        assert record.unmet == (["vs_illico"] if full_size else [])
        assert TARGETS["vs_illico"].of in record.table()


@pytest.mark.thorough
def test_from_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data, "CACHE", tmp_path / "cache")
    monkeypatch.setattr(data, "QUICK", data.ScreenParameters(200, 30, 3))
    path = tmp_path / "record.json"
    assert files.main(["--quick", "--only", "small", "--rounds", "1", "--record", str(path)]) == 0
    record = json.loads(path.read_text())
    assert record["errors"] == []
    assert record["tasks"].keys() == {f"{m}_{c}" for m, c in FORMS}
    assert record["parameters"]["threads"] == 2
    assert {"pdex_gpu", "h5py"} <= record["versions"].keys()
    plain = record["tasks"]["csc_plain"]["seconds"]
    assert plain.keys() == {"h5py", "pdex_gpu", "pdex_gpu, in memory"}
    figure = record["figures"]["csc_plain_vs_memory"]
    above, below = (plain[k]["times"][0] for k in ("pdex_gpu", "pdex_gpu, in memory"))
    assert figure["value"] == figure["ratios"][0] == above / below
    assert figure["met"] is None
    assert "csc, not compressed" in capsys.readouterr().out
