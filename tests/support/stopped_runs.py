"""Runs into files that are stopped on their way, and what they leave."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from scipy import sparse
from stored_screens import GROUPBY, REFERENCE, logged, screen

import pdex_gpu
from pdex_gpu.sinks.checkpoint import checkpoint_folder
from pdex_gpu.sinks.checkpoint_sink import CheckpointSink


def run(out: Path, data: Any = None, **options: Any):
    data = screen(sparse.csr_matrix(logged())) if data is None else data
    options = {"reference": REFERENCE, "progress": False, "gene_chunk_size": 1,
               "engine": "serial"} | options  # fmt: skip
    return pdex_gpu.differential_expression(data, GROUPBY, out=out, **options)


class Stop(Exception):
    """What a test stops a run with."""


def stop_at(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int, error: Any = Stop):
    """Let the call number `call` of a function fail, and all after it; gives the calls counted."""
    real, calls = getattr(owner, name), []

    def fail(*args: Any, **options: Any) -> Any:
        calls.append(args)
        if len(calls) > call:
            raise error() if isinstance(error, type) else error
        return real(*args, **options)

    monkeypatch.setattr(owner, name, fail)
    return calls


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def ranges(out: Path) -> list[str]:
    return [name for name in names(checkpoint_folder(out)) if name.startswith("genes-")]


def interrupted(out: Path, n_ranges: int, data: Any = None, **options: Any) -> Path:
    """A run stopped once `n_ranges` ranges were kept; gives its checkpoint."""
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, CheckpointSink, "commit", n_ranges)
        with pytest.raises(Stop):
            run(out, data, **options)
    return checkpoint_folder(out)
