"""The record of a campaign: what was run, on what, and what came of it."""

from __future__ import annotations

import json
import os
import platform
import time
from collections import Counter
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from .child import SLACK, Done
from .verdict import HANG_IN_HDF5, RIGHT, UNDETECTABLE, WRONG

_PACKAGES = (
    "pdex-gpu", "numpy", "scipy", "anndata", "pandas", "numba", "h5py", "zarr", "pyarrow",
    "polars", "dask", "distributed",
)  # fmt: skip


class Tally:
    """What came of the cases of a driver, counted."""

    def __init__(self, driver: str, numbers: range | list[int], jobs: int, budget: int) -> None:
        self._facts: dict[str, Any] = {
            "driver": driver,
            "cases": [numbers.start, numbers.stop] if isinstance(numbers, range) else numbers,
            "jobs": jobs,
            "memory_given_bytes": budget,
            "memory_allowed_beyond_bytes": SLACK,
        }
        self.started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._start = time.perf_counter()
        self.outcomes: Counter[str] = Counter()
        self.wrong: Counter[str] = Counter()
        self.failed: dict[int, list[str]] = {}
        self._peak, self._slowest = 0, 0.0

    def add(self, done: Done) -> None:
        if done.verdict.problems:
            self.wrong.update(done.verdict.kinds)
            self.failed[done.seed] = done.verdict.kinds
        else:
            self.outcomes[done.verdict.outcome] += 1
        self._peak = max(self._peak, done.peak)
        self._slowest = max(self._slowest, done.seconds)

    @property
    def n_cases(self) -> int:
        return self.outcomes.total() + len(self.failed)

    def content(self) -> dict[str, Any]:
        """All of it, for JSON."""
        named = {name: n for name, n in sorted(self.outcomes.items()) if name[0].isupper()}
        return {
            "started": self.started,
            **self._facts,
            "n_cases": self.n_cases,
            "right": self.outcomes[RIGHT],
            "undetectable_changes": self.outcomes[UNDETECTABLE],
            "hangs_in_hdf5": self.outcomes[HANG_IN_HDF5],
            "one_error": sum(named.values()),
            "errors": named,
            "wrong": {kind: self.wrong[kind] for kind in WRONG},
            "wrong_cases": {str(seed): kinds for seed, kinds in sorted(self.failed.items())},
            "worst_peak_bytes": self._peak,
            "slowest_seconds": round(self._slowest, 2),
            "seconds": round(time.perf_counter() - self._start, 1),
        }


def write(path: Path, tallies: Iterable[Tally]) -> None:
    """Write a record; drivers that the file has and this campaign has not are kept."""
    earlier = json.loads(path.read_text()) if path.exists() else {"drivers": {}}
    new = {tally._facts["driver"]: tally.content() for tally in tallies}
    content = {"machine": machine(), "versions": versions(), "drivers": earlier["drivers"] | new}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")


def machine() -> dict[str, Any]:
    """What the campaign ran on; nothing that names the machine or its user."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    return {
        "system": platform.system(),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "memory_bytes": pages * os.sysconf("SC_PAGE_SIZE") if pages else None,
    }


def versions() -> dict[str, str]:
    """Of the interpreter and of packages."""
    found = {"python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
