"""The wheel and the sdist hold what an installed package needs, and nothing else."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest
from repository import ROOT

import pdex_gpu

pytestmark = pytest.mark.skipif(
    not (ROOT / "pyproject.toml").exists(), reason="not run from a checkout"
)


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    builder = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(ROOT))
    folder = tmp_path_factory.mktemp("wheel")
    (path,) = builder.build(directory=str(folder), versions=["standard"])
    return zipfile.ZipFile(path)


def test_contents(wheel: zipfile.ZipFile):
    names = set(wheel.namelist())
    sources = {str(p.relative_to(ROOT).as_posix()) for p in (ROOT / "pdex_gpu").rglob("*.py")}
    kernels = {
        f"pdex_gpu/{p.relative_to(ROOT).as_posix()}"
        for p in (ROOT / "kernels").rglob("*")
        if p.is_file()
    }
    assert kernels
    assert sources | kernels | {"pdex_gpu/py.typed"} <= names
    info = f"pdex_gpu-{pdex_gpu.__version__}.dist-info/"
    outside = {n for n in names if not n.startswith(("pdex_gpu/", info))}
    assert not outside
    assert not {n for n in names if Path(n).name.startswith(("test_", "conftest"))}
    assert not {n for n in names if {"tests", "benchmarks", "__pycache__"} & set(Path(n).parts)}


def test_the_cuda_sources_are_found_where_they_are(wheel: zipfile.ZipFile, tmp_path: Path):
    wheel.extractall(tmp_path)
    script = "from pdex_gpu.backends.cuda import sources as s; print(s.folder(), *s.names())"
    for root, expected in ((tmp_path, tmp_path / "pdex_gpu" / "kernels"), (ROOT, ROOT / "kernels")):
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=root
        )
        folder, *names = done.stdout.split()
        assert Path(folder) == expected
        assert names == sorted(path.stem for path in (ROOT / "kernels").glob("*.cu"))


def test_metadata(wheel: zipfile.ZipFile):
    info = f"pdex_gpu-{pdex_gpu.__version__}.dist-info"
    metadata = Parser().parsestr(wheel.read(f"{info}/METADATA").decode())
    assert metadata["Name"] == "pdex-gpu"
    assert metadata["Version"] == pdex_gpu.__version__
    extras = set(metadata.get_all("Provides-Extra"))
    assert {"polars", "plot", "cuda12", "cuda13", "test", "dev"} <= extras
    scripts = wheel.read(f"{info}/entry_points.txt").decode()
    assert "pdex-gpu = pdex_gpu.cli:main" in scripts
    assert f"{info}/licenses/LICENSE" in wheel.namelist()


MINORS = (11, 12, 13, 14)


def interpreter(minor: int) -> str | None:
    """A Python 3.minor of this machine: one of pyenv's, whose names on the path may be stubs."""
    installed = sorted(Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python"))
    return str(installed[-1]) if installed else shutil.which(f"python3.{minor}")


@pytest.mark.parametrize("minor", MINORS)
def test_every_python_takes_the_wheel(minor: int, wheel: zipfile.ZipFile, tmp_path: Path):
    """It compiles the sources and reads the metadata; the workflow of releases runs the demo."""
    python = interpreter(minor)
    if python is None:
        pytest.skip(f"there is no Python 3.{minor} here")
    wheel.extractall(tmp_path)
    script = (
        "import compileall, importlib.metadata as m, sys; "
        "print(m.version('pdex-gpu'), sys.version_info[1], "
        "compileall.compile_dir('pdex_gpu', quiet=1))"
    )
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, "-W", "error", "-c", script], capture_output=True, text=True, check=False,
        cwd=tmp_path, env=environment,
    )  # fmt: skip
    assert (done.stdout.split(), done.stderr) == ([pdex_gpu.__version__, str(minor), "True"], "")


def test_the_sdist_is_small_and_makes_the_same_wheel(wheel: zipfile.ZipFile, tmp_path: Path):
    builder = pytest.importorskip("hatchling.builders.sdist").SdistBuilder(str(ROOT))
    (path,) = builder.build(directory=str(tmp_path), versions=["standard"])
    assert Path(path).stat().st_size < 2_000_000
    with tarfile.open(path) as archive:
        archive.extractall(tmp_path, filter="data")
    (folder,) = (entry for entry in tmp_path.iterdir() if entry.is_dir())
    top = {entry.name for entry in folder.iterdir()}
    assert {"README.md", "LICENSE", "CHANGELOG.md", "CITATION.cff", "PKG-INFO"} <= top
    assert not {"tests", "docs", "benchmarks"} & top
    of_wheels = pytest.importorskip("hatchling.builders.wheel").WheelBuilder(str(folder))
    (made,) = of_wheels.build(directory=str(tmp_path / "made"), versions=["standard"])
    with zipfile.ZipFile(made) as again:
        assert {n: again.read(n) for n in again.namelist()} == {
            n: wheel.read(n) for n in wheel.namelist()
        }


def test_metadata_for_an_index():
    """Links, and classifiers in order; the table of PyPI is checked when a release is built."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    links = project["urls"]
    assert set(links) == {"Homepage", "Documentation", "Source", "Issues", "Changelog"}
    assert all(link.startswith(links["Source"]) for link in links.values())
    classifiers = project["classifiers"]
    assert len(set(classifiers)) == len(classifiers)
    assert [int(c.rpartition(".")[2]) for c in classifiers if ":: 3." in c] == list(MINORS)
    for topic in ("Operating System", "Topic", "Intended Audience", "Development Status"):
        assert any(c.startswith(f"{topic} :: ") for c in classifiers)
    assert not any(c.startswith("License ::") for c in classifiers)  # PEP 639: `license` says it


def test_the_same_versions_of_python_everywhere():
    import re

    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    first, beyond = map(int, re.findall(r"3\.(\d+)", project["requires-python"]))
    minors = [int(n) for n in re.findall(r":: 3\.(\d+)", "\n".join(project["classifiers"]))]
    assert minors == list(range(first, beyond))
    makefile = (ROOT / "Makefile").read_text("utf-8")
    candidates = re.search(r"^CANDIDATES := (.*)", makefile, re.MULTILINE)
    assert candidates is not None
    newest_first = [f"python3.{minor}" for minor in reversed(minors)]
    assert candidates[1].split() == [*newest_first, "python3", "python"]
    assert f"not (3, {first}) <= sys.version_info[:2] <= (3, {beyond - 1})" in makefile
    for name in ("Makefile", "README.md", "docs/install.md"):
        text = (ROOT / name).read_text("utf-8")
        assert f"Python 3.{first} to 3.{beyond - 1}" in text, name
