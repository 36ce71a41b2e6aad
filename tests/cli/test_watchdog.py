"""Files on which HDF5 loops for ever: the command line says so and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pdex_gpu.cli import main
from pdex_gpu.errors import OptionError
from pdex_gpu.simulate import simulate_screen
from pdex_gpu.utils import watchdog
from pdex_gpu.utils.exit_codes import Exit
from pdex_gpu.utils.watchdog import STUCK_SECONDS, Watchdog, stuck_seconds, watched

A_HEAP, HEADER, ENTRY = b"GCOL", 16, 16


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "sound.h5ad"
    simulate_screen(60, 12, 3, seed=1).to_anndata().write_h5ad(path)
    return path


def entries(content: bytes) -> tuple[list[int], int]:
    """Where the strings of the first heap begin, and the free space behind them."""
    at = content.index(A_HEAP) + HEADER
    found = []
    while int.from_bytes(content[at : at + 2], "little"):
        found.append(at)
        size = int.from_bytes(content[at + 8 : at + 16], "little")
        at += ENTRY + (size + 7) // 8 * 8
    return found, at


def free_space_of_size_0(content: bytearray) -> None:
    _, at = entries(content)
    content[at + 8 : at + 16] = bytes(8)


def string_of_which_the_next_is_itself(content: bytearray) -> None:
    """Its size and that of its header add up to 0, in 64 bits."""
    (at, *_), _ = entries(content)
    content[at + 8 : at + 16] = (2**64 - ENTRY).to_bytes(8, "little")


LOOPS = [free_space_of_size_0, string_of_which_the_next_is_itself]


def command_line(*arguments: object, seconds: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pdex_gpu", *map(str, arguments)],
        env=os.environ | {STUCK_SECONDS: seconds},
        capture_output=True,
        text=True,
        timeout=600,
    )


def message(path: Path) -> str:
    return (
        f"{path} cannot be read: HDF5 has computed for 0.5 seconds without finishing, as happens "
        "with some damaged files. Copy or download the file again. If it is intact but very large, "
        f"set {STUCK_SECONDS} to more seconds, or to 0 for no limit."
    )


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("loop", LOOPS)
def test_a_file_on_which_hdf5_loops(
    sound: Path, tmp_path: Path, loop: Callable[[bytearray], None]
) -> None:
    path, folder = tmp_path / "loop.h5ad", tmp_path / "out"
    content = bytearray(sound.read_bytes())
    loop(content)
    path.write_bytes(content)
    folder.mkdir()
    end = command_line(
        "run", path, "--groupby", "target_gene", "-o", folder / "r.parquet", seconds="0.5"
    )
    assert (end.returncode, end.stdout) == (Exit.INPUT, "")
    assert end.stderr == f"pdex-gpu: error: {message(path)}\n"
    assert list(folder.iterdir()) == []


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("command", ["run", "estimate", "calibrate"])
def test_the_message_as_a_document(sound: Path, tmp_path: Path, command: str) -> None:
    path = tmp_path / "loop.h5ad"
    content = bytearray(sound.read_bytes())
    free_space_of_size_0(content)
    path.write_bytes(content)
    output = ["-o", tmp_path / "r.parquet"] if command == "run" else []
    end = command_line(command, path, "--groupby", "target_gene", "--json", *output, seconds="0.5")
    assert (end.returncode, end.stderr) == (Exit.INPUT, "")
    expected = {"code": 3, "class": "FileFormatError", "message": message(path)}
    assert json.loads(end.stdout) == {"error": expected}
    assert list(tmp_path.iterdir()) == [path]


def test_waiting_is_not_computing(tmp_path: Path) -> None:
    """Storage may be as slow as it likes: a block that sleeps goes on."""
    code = """
import time
from pdex_gpu.utils.watchdog import Watchdog, watched
with Watchdog(lambda text: (text.encode(), True)):
    with watched("a slow file"):
        time.sleep(1.5)
print("done")
"""
    end = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {STUCK_SECONDS: "0.5"},
        capture_output=True,
        text=True,
    )
    assert (end.returncode, end.stdout, end.stderr) == (0, "done\n", "")


def test_what_is_read_last_is_named() -> None:
    """Each call that ends is progress; the clock starts again for the one around it."""
    code = """
from pdex_gpu.utils.watchdog import Watchdog, watched
with Watchdog(lambda text: (text.encode(), True)), watched("the file"):
    with watched("X"):
        pass
    with watched("obs"):
        while True:
            pass
"""
    end = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {STUCK_SECONDS: "0.3"},
        capture_output=True,
        text=True,
    )
    assert end.returncode == Exit.INPUT
    assert end.stderr.startswith("obs cannot be read: HDF5 has computed for 0.3 seconds")


def test_it_ends_with_what_it_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(STUCK_SECONDS, raising=False)
    with Watchdog(lambda text: (b"-", True)) as dog:
        assert dog._process is None  # nothing is started unless HDF5 is called
        with watched("a file"):
            process = dog._process
            assert process is not None
            assert process.poll() is None
        with watched("the next"):
            assert dog._process is process
    assert process.returncode == 0
    with watched("a file without a watchdog"):
        assert watchdog._active is None


def test_it_can_be_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command goes on without it."""
    monkeypatch.delenv(STUCK_SECONDS, raising=False)
    with Watchdog(lambda text: (b"-", True)) as dog, watched("a file"):
        process = dog._process
        assert process is not None
        process.kill()
        process.wait()
        with watched("X"):
            pass
        assert dog._process is None


@pytest.mark.parametrize(
    ("given", "expected"), [({}, 300.0), ({STUCK_SECONDS: " 2.5 "}, 2.5), ({STUCK_SECONDS: "0"}, 0)]
)
def test_the_limit(given: dict[str, str], expected: float) -> None:
    assert stuck_seconds(given) == expected


@pytest.mark.parametrize("given", ["soon", "-1", "inf", "nan"])
def test_a_limit_that_is_none(given: str) -> None:
    with pytest.raises(OptionError, match=f"{STUCK_SECONDS}='{given}' is not a number of seconds"):
        stuck_seconds({STUCK_SECONDS: given})


def test_no_watchdog(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(STUCK_SECONDS, "0")
    with Watchdog(lambda text: (b"-", True)) as dog, watched("a file"):
        assert dog._process is None


def test_a_wrong_limit_is_said(
    sound: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(STUCK_SECONDS, "soon")
    assert main(["estimate", str(sound), "--groupby", "target_gene"]) == Exit.USAGE
    assert "PDEX_GPU_STUCK_SECONDS='soon' is not a number of seconds" in capsys.readouterr().err
