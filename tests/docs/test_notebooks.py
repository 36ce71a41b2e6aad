"""The example notebooks run, and what is kept in them is what they give."""

from __future__ import annotations

import importlib.util
import os
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from repository import ROOT

NOTEBOOKS = ROOT / "docs" / "notebooks"
NAMES = ("quickstart", "from_cell_ranger", "from_scanpy", "larger_than_memory", "gpu", "from_pdex")


def kept(name: str) -> Any:
    return nbformat.read(NOTEBOOKS / f"{name}.ipynb", as_version=4)


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: Any) -> list[str]:
    """Text of a cell's outputs, without that of figures."""
    texts = []
    for output in cell.outputs:
        if output.output_type == "stream":
            texts.append(output.text)
        elif "image/png" not in output.get("data", {}):
            texts.append(output.get("data", {}).get("text/plain", ""))
    return texts


def test_all_are_known():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == set(NAMES)


@pytest.mark.sampled(every=6)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_gives_what_it_shows(name: str, tmp_path: Path, monkeypatch: Any):
    root = str(NOTEBOOKS.parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    specification = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    done = module.execute(NOTEBOOKS / f"{name}.ipynb", tmp_path)

    compared = 0
    for before, after in zip(code(kept(name)), code(done), strict=True):
        assert [o.output_type for o in after.outputs] == [o.output_type for o in before.outputs]
        if "deterministic" in before.metadata.get("tags", ()):
            assert said(after) == said(before)
            compared += bool(said(before))
    assert compared >= 1
    assert list(tmp_path.iterdir()) == [], "a notebook leaves files behind"


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_fit_to_be_read(name: str):
    cells = code(kept(name))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        for output in cell.outputs:
            assert output.output_type != "error"
            assert output.get("name") != "stderr", output.text
        text = "".join(said(cell)) + cell.source
        assert not re.search(r"/(tmp|root|home|work|Users)/", text), text
        assert all(len(line) <= 100 for line in cell.source.split("\n")), cell.source
    assert (NOTEBOOKS / f"{name}.ipynb").stat().st_size < 600_000
