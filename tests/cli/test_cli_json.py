"""``--json``: one document on stdout, whatever happens."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends import registry
from pdex_gpu.cli import main
from pdex_gpu.cli.json_output import plain, write_json
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.utils.exit_codes import Exit


@dataclass
class Point:
    x: float
    y: object


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (np.float64(0.1), 0.1),
        (np.float32(0.5), 0.5),
        (float("nan"), None),
        (float("inf"), None),
        (np.float64("-inf"), None),
        (np.int64(3), 3),
        (np.bool_(True), True),
        (True, True),
        (np.array([1.0, np.nan]), [1.0, None]),
        (np.array(["a", None], object), ["a", None]),
        (("a", {"b": Path("c/d")}), ["a", {"b": str(Path("c/d"))}]),
        ({1: {2}}, {"1": [2]}),
        (Point(math.nan, Point(1, "z")), {"x": None, "y": {"x": 1, "y": "z"}}),
        (3j, "3j"),
    ],
)
def test_plain(value: object, expected: object):
    got = plain(value)
    assert got == expected
    assert type(got) is type(expected)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False,
                                                             allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)  # fmt: skip
def test_what_json_knows_comes_back(value: object):
    assert json.loads(json.dumps(plain(value))) == value


def test_a_document_is_one_line_of_ascii(capsys):
    write_json({"name": "\U0001f9ec\n基因\x1b", "p": 5e-324})
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.index("\n") == len(out) - 1
    assert json.loads(out) == {"name": "\U0001f9ec\n基因\x1b", "p": 5e-324}


@pytest.fixture(scope="module")
def screen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("json") / "screen.h5ad"
    simulate_screen(300, 40, 4, mean_umi=200, seed=3).write_h5ad(path)
    return path


def document(capsys, *argv: str | Path, code: int = Exit.OK) -> dict:
    """The one document; nothing is on stderr."""
    assert main([*map(str, argv), "--json"]) == code
    out, err = capsys.readouterr()
    assert err == ""
    assert out.count("\n") == 1
    return json.loads(out)


def test_run(screen: Path, tmp_path: Path, capsys):
    out = tmp_path / "de.parquet"
    found = document(capsys, "run", screen, "--groupby", GROUPBY, "--columns", "auroc", "-o", out)
    result = pdex_gpu.open_result(out)
    assert found["output"] == str(out)
    assert (found["n_comparisons"], found["n_genes"], found["n_rows"]) == (4, 40, 160)
    assert found["columns"] == list(result.columns)
    assert found["seconds"] > 0
    assert found["provenance"]["backend"] == result.provenance["backend"]
    assert found["provenance"]["is_log1p"] is False


def test_json_is_what_was_asked_for_even_if_quiet(screen: Path, tmp_path: Path, capsys):
    found = document(
        capsys, "run", screen, "--groupby", GROUPBY, "-q", "-o", tmp_path / "de.parquet"
    )
    assert found["n_rows"] == 160


def test_demo(tmp_path: Path, capsys):
    argv = ["--cells", "200", "--genes", "30", "--perturbations", "2", "-o", tmp_path]
    found = document(capsys, "demo", *argv)
    result = pdex_gpu.open_result(found["results"])
    assert found["screen"] == str(tmp_path / "screen.h5ad")
    assert found["n_rows"] == result.n_rows == 60
    assert found["on_target"]["possible"] == 2
    smallest = np.sort(np.ravel(result.load()["p_value"]))[:10]
    assert [row["p_value"] for row in found["top"]] == smallest.tolist()


def test_backends(capsys):
    found = document(capsys, "backends")["backends"]
    for got, want in zip(found, pdex_gpu.backends(), strict=True):
        assert got == {
            "name": want.name,
            "usable": want.usable,
            "reason": want.reason,
            "device": want.device,
            "engines": list(want.engines),
            "devices": [
                {"number": d.number, "model": d.model, "memory": d.memory} for d in want.devices
            ],
        }


def test_compile(capsys, monkeypatch):
    monkeypatch.setattr(
        registry, "compile_kernels", lambda device, wanted: [("sort", "sm_90", True)]
    )
    found = document(capsys, "backends", "--compile", "--arch", "90")
    assert found["kernels"] == [{"source": "sort", "architecture": "sm_90", "compiled": True}]


def test_calibrate(screen: Path, tmp_path: Path, capsys):
    out = tmp_path / "c.json"
    found = document(capsys, "calibrate", screen, "--groupby", GROUPBY, "-o", out)
    want = pdex_gpu.Calibration.from_json(out).summary()
    assert found["output"] == str(out)
    assert found["plot"] is None
    assert found["summary"] == plain(want)
    assert found["kinds"] == [plain(want)]
    table = pdex_gpu.Calibration.from_json(out).excess_table()
    assert [row["n_0.001"] for row in found["excess"]] == table["n_0.001"].tolist()


# Errors


@pytest.mark.parametrize(
    ("argv", "code", "name", "says"),
    [
        (["run"], Exit.USAGE, "UsageError", "Missing argument 'FILE...'"),
        (["run", "--nonsense"], Exit.USAGE, "UsageError", "--nonsense"),
        (["nonsense"], Exit.USAGE, "UsageError", "'nonsense'"),
        (["run", "x.h5ad", "-o", "de.csv"], Exit.USAGE, "OptionError", "--groupby"),
        (["run", "x.h5ad", "--groupby", "g", "-o", "de.csv"], Exit.INPUT, None, "x.h5ad"),
        (["top", "x.parquet", "A"], Exit.INPUT, "MissingFileError", "'x.parquet'"),
        (["demo", "--cells", "3"], Exit.USAGE, "OptionError", "too few"),
        (["backends", "--arch", "90"], Exit.USAGE, "OptionError", "--compile"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_errors(tmp_path: Path, monkeypatch, capsys, argv, code: Exit, name, says: str):
    monkeypatch.chdir(tmp_path)
    error = document(capsys, *argv, code=code)["error"]
    assert set(error) == {"code", "class", "message"}
    assert error["code"] == code
    assert name in (None, error["class"])
    assert says in error["message"]


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (errors.DataError("NaN in cell"), Exit.INPUT, "NaN in cell\na note"),
        (ZeroDivisionError("a bug"), Exit.UNEXPECTED, "ZeroDivisionError: a bug\na note"),
        (KeyboardInterrupt(), Exit.INTERRUPTED, "interrupted\na note"),
    ],
    ids=["ours", "a bug", "interrupted"],
)
def test_errors_of_a_run(
    screen: Path, tmp_path: Path, capsys, monkeypatch, error: BaseException, code: int, message: str
):
    def fail(*_: object, **__: object) -> None:
        error.add_note("a note")
        raise error

    monkeypatch.setattr(pdex_gpu, "differential_expression", fail, raising=False)
    argv = ["run", screen, "--groupby", GROUPBY, "-o", tmp_path / "de.csv"]
    found = document(capsys, *argv, code=code)["error"]
    assert found == {"code": code, "class": type(error).__name__, "message": message}


def test_debug_shows_the_traceback_beside_the_document(tmp_path: Path, capsys):
    assert main(["top", str(tmp_path / "x.parquet"), "A", "--json", "--debug"]) == Exit.INPUT
    out, err = capsys.readouterr()
    assert json.loads(out)["error"]["class"] == "MissingFileError"
    assert "Traceback (most recent call last)" in err


def test_after_two_dashes_a_flag_is_a_name(tmp_path: Path, capsys):
    assert main(["top", "--", str(tmp_path / "x.parquet"), "--json"]) == Exit.INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pdex-gpu: error: ")


@pytest.mark.thorough
def test_warnings_stay_off_stdout(screen: Path, tmp_path: Path):
    import anndata

    adata = anndata.read_h5ad(screen)
    adata.var_names = ["gene"] * adata.n_vars
    adata.write_h5ad(tmp_path / "same.h5ad")
    done = subprocess.run(
        [sys.executable, "-m", "pdex_gpu", "run", tmp_path / "same.h5ad", "--groupby", GROUPBY,
         "-o", tmp_path / "de.csv", "--json"],
        capture_output=True,
        text=True,
        check=True,
    )  # fmt: skip
    assert json.loads(done.stdout)["n_rows"] == 160
    assert done.stderr.startswith("pdex-gpu: warning: ")
    assert done.stderr.count("\n") == 1
