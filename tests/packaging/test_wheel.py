"""The wheel holds what an installed package needs, and nothing else."""

from __future__ import annotations

import subprocess
import sys
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


def test_the_same_versions_of_python_everywhere():
    import re
    import tomllib

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
