"""The examples of README.md, one after another, as someone pastes them after the demo."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from repository import ROOT

README = ROOT / "README.md"

pytestmark = pytest.mark.skipif(not README.exists(), reason="not run from a checkout")

#: What a block contains that cannot run here, and why.
CANNOT_RUN = {
    "tcp://scheduler:8786": "needs a cluster",
    "backends --compile": "needs a CUDA device",
    "plates/*.h5ad": "needs a screen in several files",
    "filtered_feature_bc_matrix.h5 ": "needs Cell Ranger's output",
}

#: Programs that do less here.
STAND_INS = {
    # The environment is the one of the tests, and the screen smaller.
    "make": '[ "$*" = demo ] && exec pdex-gpu demo --cells 2000 --genes 300 --perturbations 10',
    # What is installed stays as it is.
    "pip": '[ "$1" = install ]',
    "pdex-gpu": f'exec "{sys.executable}" -m pdex_gpu "$@"',
}

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def blocks() -> list[tuple[str, str]]:
    """Language and text of each block."""
    return _BLOCK.findall(README.read_text("utf-8"))


def why_not(text: str) -> list[str]:
    return [part for part in CANNOT_RUN if part in text]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with an environment to activate, and nothing else."""
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    programs = tmp_path / "programs"
    programs.mkdir()
    for name, script in STAND_INS.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(README.parent))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    checkout = tmp_path / "checkout"
    checkout.mkdir()
    (tmp_path / ".venv").rename(checkout / ".venv")
    monkeypatch.chdir(checkout)
    return checkout


def run_shell(text: str) -> None:
    """Run a block, and stay in the folder that it leads to."""
    script = f"set -e\n{text}\npwd >&3\n"
    reader, writer = os.pipe()
    try:
        done = subprocess.run(
            ["bash", "-c", f"exec 3>&{writer}\n{script}"], pass_fds=[writer],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        )  # fmt: skip
        os.close(writer)
        where = os.read(reader, 4096).decode().strip()
    finally:
        os.close(reader)
    assert done.returncode == 0, f"{text}\n{done.stdout}"
    os.chdir(where)


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # of pydeseq2, on few cells
def test_the_examples_run_as_they_stand(folder: Path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pytest.importorskip("pydeseq2")
    names: dict[str, object] = {"__name__": "readme"}
    n_run = 0
    for language, text in blocks():
        if why_not(text):
            continue
        if language == "sh":
            run_shell(text)
        else:
            exec(compile(text, str(README), "exec"), names)
        n_run += 1
    pyplot.close("all")
    assert n_run > 8
    made = {path.name for path in Path.cwd().iterdir()}
    assert {"hits.png", "stat1.png", "calibration.json", "new.html", "page.html"} <= made


def test_all_blocks_are_shell_or_python():
    assert {language for language, _ in blocks()} == {"sh", "python"}


def test_what_cannot_run_is_there():
    found = [part for _, text in blocks() for part in why_not(text)]
    assert sorted(found) == sorted(CANNOT_RUN)
