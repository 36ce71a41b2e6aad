"""The wheel holds what an installed package needs, and nothing else."""

from __future__ import annotations

import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

import pdex_gpu

ROOT = Path(__file__).resolve().parents[1]

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
