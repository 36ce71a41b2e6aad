"""What messages, docs and images tell people to type, so that packages are there, works."""

from __future__ import annotations

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from repository import ROOT

from pdex_gpu.utils.install_hints import EXTRAS, UPDATE, how_to_install

SKIPPED = {".git", ".venv", "_build", "shared", "tests"}

#: Where people read what to type.
KINDS = {".py", ".md", ".toml", ".ipynb", ".sh", ".yml", ".yaml", "", ".js", ".html"}


def texts() -> list[Path]:
    found = [path for path in ROOT.rglob("*") if path.is_file() and path.suffix in KINDS]
    return [path for path in found if not SKIPPED & set(path.relative_to(ROOT).parts)]


def declared() -> dict[str, list[str]]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    return dict(project["optional-dependencies"])


def name_of(requirement: str) -> str:
    """The package of a requirement, with its own extras."""
    found = re.match(r"[\w.-]+(\[[\w,]+\])?", requirement)
    assert found is not None
    return found[0]


@pytest.mark.skipif(not (ROOT / "pyproject.toml").exists(), reason="not run from a checkout")
@pytest.mark.parametrize("extra", EXTRAS)
def test_extras_are_those_of_the_project(extra: str):
    assert [name_of(text) for text in declared()[extra]] == list(EXTRAS[extra])


@pytest.mark.parametrize("extra", EXTRAS)
def test_the_command_names_packages_of_others(extra: str):
    command = how_to_install(extra)
    assert shlex.split(command) == ["pip", "install", *EXTRAS[extra]]
    assert "pdex" not in command
    for name in EXTRAS[extra]:  # brackets mean something to a shell
        assert (f'"{name}"' in command) == ("[" in name)


def test_nothing_says_to_install_this_package_by_name():
    """It is on no index: pip would install nothing, or what somebody else called so."""
    by_name = re.compile(r"pip3? install[^\n#`]*\bpdex[-_]gpu\b(?!/)|[\"'`]pdex[-_]gpu\[\w")
    said = [
        (str(path.relative_to(ROOT)), found[0])
        for path in texts()
        if path.name not in ("pyproject.toml", "installing.py")
        for found in by_name.finditer(path.read_text("utf-8", errors="replace"))
    ]
    assert said == []
    assert "pip install ." in UPDATE
