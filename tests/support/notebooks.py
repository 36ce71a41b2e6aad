"""Example notebooks: what is stored in them, and whether executing them gives it again."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from repository import ROOT

NOTEBOOKS = ROOT / "docs" / "notebooks"


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


def check_execution(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Execute a notebook in `folder` and compare its outputs with those stored."""
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.delenv("PDEX_GPU_BACKEND", raising=False)
    specification = importlib.util.spec_from_file_location("execute", NOTEBOOKS / "execute.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)

    done = module.execute(NOTEBOOKS / f"{name}.ipynb", folder)

    compared = 0
    for before, after in zip(code(kept(name)), code(done), strict=True):
        assert [o.output_type for o in after.outputs] == [o.output_type for o in before.outputs]
        if "deterministic" in before.metadata.get("tags", ()):
            assert said(after) == said(before)
            compared += bool(said(before))
    assert compared >= 1
    assert list((folder / "notebooks").iterdir()) == [], "a notebook leaves files behind"
