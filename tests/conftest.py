"""Settings and fixtures shared by all tests."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nvrtc
import pytest
from browser import browser
from emulated.backend import EmulatedCuda
from emulated.build import compiler
from hypothesis import HealthCheck, settings

__all__ = ["browser"]  # a fixture, of which there may only be one

# Bounded, and the same examples in every run.
settings.register_profile(
    "pdex_gpu",
    derandomize=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("pdex_gpu")

#: Folder with `data` and `golden`, each described by a README of its own, and `tools`.
_SHARED = Path(os.environ.get("PDEX_GPU_TEST_DATA", Path(__file__).resolve().parents[2] / "shared"))


def _find(folder: str) -> Callable[[str], Path]:
    def find(name: str) -> Path:
        path = _SHARED / folder / name
        if not path.exists():
            pytest.skip(f"{path} is missing; PDEX_GPU_TEST_DATA names the folder it is looked for")
        return path

    return find


@pytest.hookimpl(tryfirst=True)  # before items are selected by their marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as thorough the cases of a sampled test that are not part of the sample."""
    seen: Counter[str] = Counter()
    for item in items:
        sampled = item.get_closest_marker("sampled")
        if sampled and not item.get_closest_marker("gpu"):
            test = item.nodeid.partition("[")[0]
            if seen[test] % sampled.kwargs["every"]:
                item.add_marker(pytest.mark.thorough)
            seen[test] += 1


@pytest.fixture(scope="module", autouse=True)
def _quick_collection() -> None:
    """Spare collections, of which some tests make hundreds, a look at what is there already."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """The path of a real data set by its file name; skips the test where it is missing."""
    return _find("data")


@pytest.fixture(scope="session")
def golden() -> Callable[[str], Path]:
    """The path of a table of known results by its file name; skips the test likewise."""
    return _find("golden")


@pytest.fixture(scope="session")
def tools() -> Callable[[str], Path]:
    """The path of a program for tests by its file name; skips the test likewise."""
    return _find("tools")


@pytest.fixture
def emulated_cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    """Makes ``backend="cuda"`` run on an emulated device; skips the test without a compiler."""
    if compiler() is None:
        pytest.skip("no C++ compiler")
    cuda = EmulatedCuda()
    cuda.install(monkeypatch)
    return cuda


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Print registers and spills of the CUDA kernels that were compiled."""
    rows = [
        (source, architecture, nvrtc.Function(**facts))
        for report in terminalreporter.stats.get("passed", [])
        for name, found in report.user_properties
        if name == nvrtc.PROPERTY
        for source, architecture, facts in found
    ]
    if rows:
        terminalreporter.section("CUDA kernels: registers, bytes of spill stores + loads")
        for line in nvrtc.table(rows):
            terminalreporter.line(line)
