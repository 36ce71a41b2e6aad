"""The notebook that hands results to scanpy, executed with scanpy."""

from __future__ import annotations

from pathlib import Path

import pytest
from notebooks import check_execution

pytest.importorskip("scanpy", reason="needs scanpy: make test-peers")


def test_the_notebook_runs_and_gives_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    check_execution("from_scanpy", tmp_path, monkeypatch)
