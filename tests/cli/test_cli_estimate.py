"""``pdex-gpu estimate``: every option reaches the library, what is shown, exit codes, JSON."""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import asdict, fields
from pathlib import Path

import numpy as np
import pytest

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.cli import main
from pdex_gpu.cli.app import make_app
from pdex_gpu.cli.commands.estimate import _duration
from pdex_gpu.engines import memory_model, plan
from pdex_gpu.estimation import benchmark, estimate
from pdex_gpu.estimation.model import PHASES, MachineRates
from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen
from pdex_gpu.utils.exit_codes import Exit


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("estimate") / "screen.h5ad"
    simulate_screen(400, 30, 4, mean_umi=60, seed=5).write_h5ad(path)
    return path


@pytest.fixture
def given(monkeypatch):
    """What `estimate` was called with; it does nothing."""
    calls = []

    def note(*args: object, **options: object) -> None:
        calls.append((args, options))
        raise errors.BackendError("enough")

    monkeypatch.setattr(pdex_gpu, "estimate", note, raising=False)

    def call(*argv: str) -> dict:
        assert main(["estimate", "screen.h5ad", *argv]) == Exit.BACKEND
        args, options = calls.pop()
        assert args == ("screen.h5ad",)
        return options

    return call


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants are measured, on next to nothing."""
    monkeypatch.setattr(benchmark, "_ENTRIES", 3_000)
    monkeypatch.setattr(benchmark, "_WARM_ENTRIES", 500)
    monkeypatch.setattr(benchmark, "_ROWS", 4_000)
    monkeypatch.setattr(benchmark, "_REPEATS", 1)


# --- options --------------------------------------------------------------------------------


def test_every_parameter_is_an_option():
    """Rates are no text, and nothing is shown or written."""
    known = inspect.signature(estimate.estimate).parameters
    params = {param.name for param in make_app().commands["estimate"].params}
    renamed = {"files": "data", "output": "out", "dask_workers": "workers", "no_timing": "timing"}
    without = {"rates", "client", "force", "restart", "progress", "test_options"}
    assert set(known) - without <= {renamed.get(name, name) for name in params}


def test_what_is_left_out_has_the_default_of_the_library(given):
    own = {"out": None, "workers": None, "density": None, "timing": True}
    assert given("--groupby", "g") == {"groupby": "g"} | own


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["--groupby", "b"], {"groupby": ["g", "b"]}),
        (["--comparison", "rest"], {"comparison": "rest"}),
        (["--pairs", "A:B"], {"comparison": "pairs", "pairs": [("A", "B")]}),
        (["--strata", "batch"], {"strata": "batch"}),
        (["--layer", "counts"], {"layer": "counts"}),
        (["--allow", "unwritten"], {"allow": ["unwritten"]}),
        (["--metric", "anderson"], {"metric": "anderson"}),
        (["--is-log1p", "no"], {"is_log1p": False}),
        (["--columns", "auroc,log10_p"], {"columns": ["auroc", "log10_p"]}),
        (["--min-cells", "3"], {"min_cells": 3}),
        (["--backend", "cpu"], {"backend": "cpu"}),
        (["--engine", "serial"], {"engine": "serial"}),
        (["--workers", "16"], {"n_workers": 16}),
        (["--dask-workers", "16"], {"workers": 16}),
        (["--threads", "3"], {"n_threads": 3}),
        (["--gene-chunk-size", "9"], {"gene_chunk_size": 9}),
        (["--memory", "4GB"], {"memory": 4 * 10**9}),
        (["--scratch", "/s"], {"scratch": Path("/s")}),
        (["--density", "0.3"], {"density": 0.3}),
        (["--no-timing"], {"timing": False}),
        (["-o", "de.csv"], {"out": Path("de.csv")}),
        (["--output", "de.csv"], {"out": Path("de.csv")}),
    ],
    ids=str,
)
def test_options(argv, expected, given):
    passed = given("--groupby", "g", *argv)
    assert {name: passed[name] for name in expected} == expected


# --- what is shown --------------------------------------------------------------------------


def shown(capsys, *argv: object, code: int = Exit.OK) -> tuple[dict[str, str], list[str]]:
    """The tables, and the lines after them; without their titles and rules."""
    assert main(["estimate", *map(str, argv)]) == code
    out, _ = capsys.readouterr()
    table, rest = {}, []
    for line in out.splitlines():
        match = re.fullmatch(r" *(\S.*?)  +(\S.*)", line)
        if line.startswith(("assumed  ", "problem  ")):
            rest.append(line)
        elif match is not None and not line.startswith("-"):
            table[match[1]] = match[2]
    return table, rest


def test_text(screen, capsys, tmp_path):
    """First what a biologist asks, without a word of the model."""
    out = tmp_path / "de.parquet"
    argv = [screen, "--groupby", GROUPBY, "-o", out, "--no-timing", "--is-log1p", "no"]
    found = pdex_gpu.estimate(screen, GROUPBY, out=out, timing=False, is_log1p=False)
    table, rest = shown(capsys, *argv)
    disk = estimate.size_text(found.output_bytes + found.checkpoint_bytes)
    used, allowed = map(estimate.size_text, (found.memory_used, found.memory_allowed))
    assert table == {
        "cells": "400",
        "genes": "30",
        "perturbations": "4",
        "p-values": "120",
        "time": "not estimated",
        "memory": f"about {used} of {allowed} allowed",
        "disk": f"up to {disk}",
        "fits": "yes",
    }
    assert rest == []


def test_comparisons_are_told_where_they_are_not_the_perturbations(capsys, tmp_path):
    path = tmp_path / "screen.h5ad"
    simulate_screen(400, 30, 4, mean_umi=60, seed=5, annotated=True).write_h5ad(path)
    table, _ = shown(capsys, path, "--groupby", f"{GROUPBY},batch", "--no-timing")
    assert (table["perturbations"], table["disk"]) == ("4", "none")
    assert int(table["comparisons"]) * 30 == int(table["p-values"].replace(",", "")) > 120


def test_verbose_adds_the_terms_of_the_model(screen, capsys, tmp_path):
    out = tmp_path / "de.parquet"
    found = pdex_gpu.estimate(screen, GROUPBY, out=out, timing=False)
    argv = [screen, "--groupby", GROUPBY, "-o", out, "--no-timing"]
    short, _ = shown(capsys, *argv)
    table, rest = shown(capsys, *argv, "--verbose")
    assert list(table)[: len(short)] == list(short)
    assert table["matrix"] == found.matrix
    assert table["nonzeros"] == f"{found.n_stored:,} ({found.density:.1%})"
    assert table["groups"] == "5"
    assert (table["read"], table["ranges of genes"]) == ("front to back once", "1")
    assert table["scratch"] == "none"
    assert table["least memory"] == estimate.size_text(found.memory_needed)
    assert table["result file"].endswith(" during the run")
    assert table["run by"].startswith("cpu, threads, ")
    assert any(line.startswith("assumed  values have fractions (X is not read)") for line in rest)


def test_text_with_seconds(screen, capsys, quick):
    table, _ = shown(capsys, screen, "--groupby", GROUPBY, "--dask-workers", 3, "-v")
    assert table["run by"] == "cpu, dask, 3 workers with 1 thread"
    assert "memory per worker" in table
    assert {"opening", "reading, decoding", "sorting, ranking, p-values"} <= set(table)
    assert re.fullmatch(r"about \S+ s", table["time"])


def test_quiet(screen, capsys):
    argv = ["estimate", str(screen), "--groupby", GROUPBY, "--no-timing", "-q"]
    assert main(argv) == Exit.OK
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0, "0 s"), (0.0312, "0.031 s"), (3.14, "3.1 s"), (12.4, "12 s"), (119.4, "119 s"),
     (185.0, "3 min 5 s"), (7199.4, "119 min 59 s"), (7800.0, "2 h 10 min"),
     (3.6e6, "1,000 h 0 min")],
)  # fmt: skip
def test_durations(seconds, text):
    assert _duration(seconds) == text


# --- documents and exit codes ---------------------------------------------------------------


def document(capsys, *argv: object, code: int = Exit.OK) -> dict:
    assert main(["estimate", *map(str, argv), "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


def test_json(screen, capsys, quick):
    found = document(capsys, screen, "--groupby", GROUPBY)
    names = {f.name for f in fields(pdex_gpu.Estimate)} - {"phases"} | {"seconds"}
    assert set(found) == names
    assert set(found["seconds"]) == {"total", *PHASES}
    total = sum(found["seconds"][phase] for phase in PHASES)
    np.testing.assert_allclose(found["seconds"]["total"], total)
    assert set(found["rates"]) == set(asdict(MachineRates()))
    assert found["problems"] == found["lacks"] == []


def test_json_without_seconds(screen, capsys):
    found = document(capsys, screen, "--groupby", GROUPBY, "--no-timing")
    want = pdex_gpu.estimate(screen, GROUPBY, timing=False)
    assert found["seconds"] is found["rates"] is None
    for name in ("n_cells", "n_stored", "n_rows", "file_bytes", "way", "result_bytes"):
        assert found[name] == getattr(want, name)
    assert found["scratch_bytes"] == [0, 0]


def test_too_little_memory_ends_with_5(screen, capsys, monkeypatch):
    monkeypatch.setattr(memory_model, "SPARE", 0)
    monkeypatch.setattr(plan, "SPARE", 0)
    argv = [screen, "--groupby", GROUPBY, "--memory", "10000"]
    found = document(capsys, *argv, code=Exit.MEMORY)
    assert found["lacks"] == ["memory"]
    assert found["seconds"] is None
    table, rest = shown(capsys, *argv, code=Exit.MEMORY)
    assert table["fits"] == "no: too little memory"
    assert rest[-1] == f"problem  {found['problems'][0]}"


def test_too_little_room_ends_with_6(screen, capsys, monkeypatch, tmp_path):
    import shutil
    from collections import namedtuple

    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 0, 10))
    found = document(
        capsys, screen, "--groupby", GROUPBY, "-o", tmp_path / "de.csv", "--no-timing",
        code=Exit.DISK,
    )  # fmt: skip
    assert found["lacks"] == ["output"]


@pytest.mark.parametrize(
    ("argv", "code", "name", "says"),
    [
        ([], Exit.USAGE, "OptionError", "Missing option --groupby"),
        (["--groupby", "nope"], Exit.INPUT, "ColumnError", "Unknown column of obs 'nope'"),
        (["--groupby", GROUPBY, "--reference", "x"], Exit.INPUT, "LabelError", REFERENCE),
        (["--groupby", GROUPBY, "--layer", "x"], Exit.INPUT, "LayerError", "'x'"),
        (["--groupby", GROUPBY, "-o", "x.xlsx"], Exit.USAGE, "OptionError", "'.xlsx'"),
        (["--groupby", GROUPBY, "--density", "2"], Exit.USAGE, "OptionError", "density=2.0"),
        (["--groupby", GROUPBY, "--workers", "0"], Exit.USAGE, "UsageError", "at least 1"),
        (["--groupby", GROUPBY, "--memory", "x"], Exit.USAGE, "UsageError", "not a size"),
    ],
    ids=str,
)
def test_errors(argv, code, name, says, screen, capsys):
    found = document(capsys, screen, *argv, code=code)["error"]
    assert (found["code"], found["class"]) == (code, name)
    assert says in found["message"]


def test_no_such_file(capsys):
    found = document(capsys, "nowhere.h5ad", "--groupby", "g", code=Exit.INPUT)
    assert "nowhere.h5ad" in found["error"]["message"]
