"""Every command line that docs, docstrings, messages and images show is one the program takes."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
from repository import ROOT

from pdex_gpu.cli import parsers
from pdex_gpu.cli.app import make_app
from pdex_gpu.errors import OptionError

# Of the Click that typer is made of, which may be one of its own.
USAGE_ERROR: Any = next(c for c in typer.BadParameter.__mro__ if c.__name__ == "UsageError")


_PAGES = ("README.md", "docs/**/*.md", "docs/**/*.toml", "docs/**/*.ipynb",
          "docker/*.md", "docker/Dockerfile", "pdex_gpu/**/*.py", "pdex_gpu/**/*.js",
          "pdex_gpu/**/*.html", "benchmarks/*.py", "benchmarks/*.md")  # fmt: skip

# The program, or one of its images; a command, and its arguments.
_PROGRAM = r"(?:[\w./-]*(?<![\w-])pdex-gpu|\bpdex-gpu:[\w-]+)"
_CALL = re.compile(rf"{_PROGRAM} +([a-z-].*)")

# Where a command ends: a pipe, a redirection, another command, a comment.
_END = re.compile(r"\s(?:\||>|2>|&&|#)\s?|;\s|\s&&?$")

# What stands for something else.
_ANYTHING = {"...", "…"}

pytestmark = pytest.mark.skipif(not (ROOT / "docs").exists(), reason="not run from a checkout")


def text_of(path: Path) -> str:
    """A page; of a notebook the cells, as people read them."""
    text = path.read_text("utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n\n".join("".join(cell["source"]) for cell in cells)
    return text


def blocks(text: str) -> list[str]:
    """Fenced blocks, lines that go on being joined."""
    found = re.findall(r"^ *```[^\n]*\n(.*?)^ *```", text, re.M | re.S)
    found += re.findall(r"^ *%%bash[^\n]*\n(.*?)(?:\n\n|\Z)", text, re.M | re.S)
    return [re.sub(r"\\\n\s*", " ", block) for block in found]


def shown(path: Path) -> list[tuple[str, bool]]:
    """Command lines of a page, without the program, and whether each is to be typed as it is."""
    text = text_of(path)
    found = [(call[1], True) for block in blocks(text) for call in _CALL.finditer(block)]
    text = re.sub(r"^```.*?^```", "", text, flags=re.M | re.S)
    for inline in re.findall(r"(?<!`)(`{1,2})(?!`)([^`]+?)\1(?!`)", text):
        words = " ".join(re.sub(r"\\\n", " ", inline[1]).split())
        found += [(call[1], False) for call in [_CALL.fullmatch(words)] if call]
    return found


def parsed(line: str) -> tuple[str, list[str]] | None:
    """The command and its arguments; None if the line has none of its own."""
    words = shlex.split(_END.split(line + " ")[0].strip())
    name, *arguments = [word for word in words if word not in _ANYTHING]
    return None if name.startswith("-") or "--help" in arguments else (name, arguments)


def wrong(line: str, whole: bool) -> str | None:
    """Why the program would not take a line; None if it would."""
    call = parsed(line)
    if call is None:
        return None
    name, arguments = call
    app = make_app()
    if name not in app.commands:
        return f"there is no command {name!r}"
    try:
        with app.make_context("pdex-gpu", ["--version"], resilient_parsing=True) as parent:
            context = app.commands[name].make_context(name, arguments, parent=parent)
        parsers.architectures(context.params.get("arch") or ())
    except (USAGE_ERROR, OptionError) as error:
        if type(error).__name__ == "MissingParameter" and not whole:
            return None  # a part of a line, in a sentence
        return error.format_message() if isinstance(error, USAGE_ERROR) else str(error)
    return None


CALLS = sorted(
    {
        (str(path.relative_to(ROOT)), line, whole)
        for pattern in _PAGES
        for path in ROOT.glob(pattern)
        if path.is_file() and "_build" not in path.parts
        for line, whole in shown(path)
    }
)


def test_commands_are_found():
    """The test sees what it is about."""
    assert len(CALLS) > 40
    pages = {path for path, _, _ in CALLS}
    assert {"README.md", "docs/backends.md", "docs/quickstart.md", "docker/README.md",
            "docs/notebooks/gpu.ipynb", "docs/cluster.md"} <= pages  # fmt: skip
    assert any(path.startswith("pdex_gpu/") for path in pages)


@pytest.mark.parametrize(("page", "line", "whole"), CALLS)
def test_the_program_takes_what_is_shown(page: str, line: str, whole: bool):
    if page == "docker/README.md" and line.startswith(("dask ", "jupyter ")):
        pytest.skip("another program of the image")
    assert wrong(line, whole) is None, f"{page}: pdex-gpu {line}"


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("backends --compile --arch sm_80 sm_90", "unexpected extra argument"),
        ("backends --compile --arch sm_80,volta", "is not a CUDA architecture"),
        ("top results.parquet", "Missing argument"),
        ("run screen.h5ad --grouby x -o y", "--grouby"),
        ("rum screen.h5ad", "no command"),
        ("top results.parquet STAT1 -n 0", "at least 1"),
    ],
)
def test_what_the_program_would_not_take_is_noticed(line: str, says: str):
    assert says in str(wrong(line, True))
    assert (wrong(line, False) is None) == ("Missing" in says)
