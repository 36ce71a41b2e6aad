"""Results made of numbers, without cells: as small, as odd or as large as a test needs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from pdex_gpu.results.base import Result
from pdex_gpu.results.memory import DEResult
from pdex_gpu.results.schema import VALUES

PROVENANCE: dict[str, Any] = {
    "metric": "wilcoxon",
    "backend": "cpu",
    "backend_reason": "asked for",
    "engine": "threads",
    "device": "CPU",
    "data": "screen.h5ad, X",
    "n_cells": 1234,
    "comparison": "reference",
    "reference": "ctrl",
    "clip_value": 20.0,
    "fdr_method": "benjamini-hochberg",
    "fdr_scope": "all",
    "removed": {},
    "test_options": {},
    "versions": {"pdex_gpu": "0.1.0", "numpy": "2"},
}

#: Names that a page could stumble over.
ODD_NAMES = (
    "plain",
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "a,b;c\td",
    'say "no"',
    "two\nlines",
    "=1+1",
    "\U0001f9ec dna \U0001f469\u200d\U0001f52c",
    "&amp; {{meta}} $1 %41",
    "x" * 200,
    "\u2028 \u2029 \x00 \x7f",
    "",
    "nth=2&gene=plain#",
)


def objects(labels: Iterable[object]) -> np.ndarray:
    """Labels as an array of objects."""
    labels = list(labels)
    found = np.full(len(labels), None)
    found[:] = labels
    return found


def made(
    n: int = 6,
    n_genes: int = 40,
    *,
    seed: int = 0,
    targets: Sequence[object] | None = None,
    references: Sequence[object] | None = None,
    features: Sequence[object] | None = None,
    within: tuple[str, Sequence[object]] | None = None,
    kept: np.ndarray | None = None,
    hits: float = 0.2,
    extra: Iterable[str] = ("log10_p",),
    provenance: dict[str, Any] | None = None,
    **columns: np.ndarray,
) -> DEResult:
    """A result of random numbers; `columns` replace columns by others."""
    n = n if targets is None else len(targets)
    n_genes = n_genes if features is None else len(features)
    rng = np.random.default_rng(seed)
    shape = (n, n_genes)
    reference = np.broadcast_to(rng.lognormal(0, 1.5, n_genes), shape)
    hit = rng.random(shape) < hits
    change = rng.normal(0, 0.3, shape) + hit * rng.normal(0, 2, shape)
    log10_p = np.where(hit, -3 - rng.exponential(30, shape), np.log10(1 - rng.random(shape)))
    values: dict[str, np.ndarray] = {
        "target_mean": reference * 2**change,
        "reference_mean": reference,
        "percent_change": 2**change - 1,
        "fold_change": 2**change,
        "p_value": 10**log10_p,
        "statistic": rng.integers(0, 10**6, shape) / 2,
        "fdr": np.where(hit, 10 ** (0.9 * log10_p), np.maximum(10**log10_p, 0.06)),
        "log10_p": log10_p,
        "target_n_cells": np.broadcast_to(np.arange(20, 20 + n)[:, None], shape),
        "reference_n_cells": np.full(shape, 500),
    } | columns
    values = {
        name: np.array(column, np.int64 if name.endswith("n_cells") else np.float64)
        for name, column in values.items()
        if name in VALUES or name in extra or name in columns
    }
    if kept is not None:
        for name, column in values.items():
            if column.dtype == np.float64:
                values[name] = np.where(kept, column, np.nan)
    return DEResult(
        objects(targets if targets is not None else [f"P{i:03d}" for i in range(n)]),
        objects(references if references is not None else ["ctrl"] * n),
        objects(features if features is not None else [f"G{i:03d}" for i in range(n_genes)]),
        values,
        PROVENANCE if provenance is None else provenance,
        within=None if within is None else (within[0], objects(within[1])),
        kept=kept,
    )


class Streamed(Result):
    """A large result that is made block by block and never held.

    Parameters
    ----------
    n, n_genes : int
    hits : float
        Share of the rows that are hits.
    """

    def __init__(self, n: int, n_genes: int, hits: float) -> None:
        super().__init__(
            objects(f"PERT{i:05d}" for i in range(n)),
            objects(["ctrl"] * n),
            objects(f"GENE{i:05d}" for i in range(n_genes)),
            (*VALUES, "log10_p"),
            PROVENANCE,
            None,
            None,
            None,
        )
        self._hits = hits

    def row(self, t: int, names: Iterable[str]) -> dict[str, np.ndarray]:
        raise NotImplementedError

    def blocks(self, names: Iterable[str]) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        asked = list(names)
        for t in range(0, len(self.targets), 100):
            part = slice(t, min(t + 100, len(self.targets)))
            block = made(
                part.stop - t, len(self.features), seed=t, hits=self._hits, extra=("log10_p",)
            )
            yield part, {name: block[name] for name in asked}
