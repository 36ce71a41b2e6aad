"""The example notebooks run, and what is kept in them is what they give."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from notebooks import NOTEBOOKS, check_execution, code, kept, said

# In the order of the site.
NAMES = ("papalexi", "from_cell_ranger", "larger_than_memory", "from_pdex", "gpu")
# Needs scanpy, and is executed by tests/peers.
OF_PEERS = ("from_scanpy",)


def test_all_are_known():
    assert {path.stem for path in NOTEBOOKS.glob("*.ipynb")} == {*NAMES, *OF_PEERS}


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs_and_gives_what_it_shows(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    check_execution(name, tmp_path, monkeypatch)


def test_each_begins_with_a_table_or_a_picture():
    """Within the first three cells with code, so that the page shows it before one scrolls."""
    for name in (*NAMES, *OF_PEERS):
        shown = [output.get("data", {}) for cell in code(kept(name))[:3] for output in cell.outputs]
        assert any({"image/png", "text/html"} & data.keys() for data in shown), name


@pytest.mark.parametrize("name", [*NAMES, *OF_PEERS])
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
