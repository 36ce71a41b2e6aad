"""The demonstration: simulate a screen, run differential expression on its file, show the hits."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..design.own_genes import own_genes_of
from ..results.effect import direction
from ..results.schema import HIT_FDR
from ..utils.atomic_files import writing
from ..utils.formats import number_text
from .console import describe_backend, describe_hits, format_table

if TYPE_CHECKING:
    from ..results.memory import DEResult
    from ..utils.progress import Progress

FDR = HIT_FDR
SCREEN = "screen.h5ad"
RESULTS = "results.parquet"
REPORT = "report.html"
TARGET_SUM = 10_000


def run_demo(
    folder: Path,
    *,
    n_cells: int = 10_000,
    n_genes: int = 2_000,
    n_perturbations: int = 50,
    seed: int = 0,
    backend: Any = "auto",
    progress: bool | Callable[[Progress], object] = False,
    say: Callable[[str], object],
    show: Callable[..., object] | None = None,
) -> DEResult:
    """Simulate a screen in `folder`, test it and report the outcome through `say`.

    Parameters
    ----------
    folder : Path
        Where ``screen.h5ad``, ``results.parquet`` and ``report.html`` go; created if missing.
    n_cells, n_genes, n_perturbations, seed : int
        The screen, as in :func:`pdex_gpu.simulate.simulate_screen`.
    backend : str
        As in :func:`pdex_gpu.differential_expression`.
    progress : bool or callable
        As in :func:`pdex_gpu.differential_expression`.
    say : callable
        Receives each piece of text.
    show : callable, optional
        Receives the table of hits: header, rows, and ``right=`` as
        :func:`.console.format_table` takes it. By default `say` receives it as text.

    Returns
    -------
    DEResult
    """
    from .. import differential_expression
    from ..simulate import GROUPBY, REFERENCE, simulate_screen

    screen_path, results_path = folder / SCREEN, folder / RESULTS
    say(f"Simulating {n_cells:,} cells x {n_genes:,} genes, {n_perturbations:,} perturbations ...")
    started = time.perf_counter()
    screen = simulate_screen(n_cells, n_genes, n_perturbations, seed=seed, annotated=True)
    with writing("The demo's screen", screen_path):
        folder.mkdir(parents=True, exist_ok=True)
        screen.write_h5ad(screen_path)
    say(
        f"  {screen_path}: {screen.counts.nnz:,} counts above zero, "
        f"{screen_path.stat().st_size / 1e6:.2f} MB, {time.perf_counter() - started:.1f} s"
    )

    say(f"Normalising cells to {TARGET_SUM:,} counts; Wilcoxon tests against {REFERENCE!r} ...")
    started = time.perf_counter()
    result = differential_expression(
        str(screen_path), GROUPBY, reference=REFERENCE, normalize=TARGET_SUM, backend=backend,
        progress=progress,
    )  # fmt: skip
    seconds = time.perf_counter() - started
    result.to_parquet(results_path)
    tests = len(result.targets) * len(result.features)
    for line in describe_backend(result.provenance, backend):
        say(f"  {line}")
    say(f"  {tests:,} tests in {seconds:.2f} s")

    say("\nStrongest hits:\n")
    if show is None:
        say(strongest_hits(result))
    else:
        show(_HEADER, _cells(strongest_rows(result)), right=_RIGHT)
    found, possible = on_target(result)
    say(f"\n{describe_hits(count_hits(result))}.")
    say(f"{found} of {possible} perturbations significantly reduce their own gene.\n")
    say(f"{results_path}: {tests:,} rows, {results_path.stat().st_size / 1e6:.2f} MB")
    report = result.report(folder / REPORT, title="A simulated screen", fdr=FDR, force=True)
    say(f"{report}: open it in a browser")
    return result


def strongest_rows(result: DEResult, n: int = 10) -> list[dict[str, Any]]:
    """Return the `n` (target, feature) pairs with the smallest p-values, as rows of `_COLUMNS`."""
    p_value = result["p_value"].ravel()
    own = own_genes_of(result)
    rows = []
    for pair in np.argsort(p_value, kind="stable")[:n]:
        t, f = divmod(int(pair), len(result.features))
        labels = {
            "target": str(result.targets[t]),
            "feature": str(result.features[f]),
            "own_gene": bool(own[t] == f),
        }
        rows.append(labels | {name: float(result[name][t, f]) for name in _COLUMNS})
    return rows


def strongest_hits(result: DEResult, n: int = 10) -> str:
    """Return the rows of :func:`strongest_rows` as a text table."""
    return format_table(_HEADER, _cells(strongest_rows(result, n)), right=_RIGHT)


_COLUMNS = ("target_mean", "reference_mean", "fold_change", "p_value", "fdr")
_HEADER = ["target", "feature", "target mean", "reference mean", "fold change", "p", "FDR"]
_RIGHT = "llrrrrr"


def _cells(rows: list[dict[str, Any]]) -> list[list[str]]:
    return [
        [
            row["target"],
            row["feature"] + (" (own)" if row["own_gene"] else ""),
            number_text(row["target_mean"], ".3f"),
            number_text(row["reference_mean"], ".3f"),
            number_text(row["fold_change"], ".3f"),
            number_text(row["p_value"], ".2e"),
            number_text(row["fdr"], ".2e"),
        ]
        for row in rows
    ]


def count_hits(result: DEResult) -> np.ndarray:
    """Return the number of hits per target, shape (n_targets,)."""
    hits: np.ndarray = (result["fdr"] <= FDR).sum(axis=1)
    return hits


def on_target(result: DEResult, fdr: float = FDR) -> tuple[int, int]:
    """Count the targets whose own gene is down at `fdr`, and those whose own gene is measured."""
    own = own_genes_of(result)
    t = np.flatnonzero(own >= 0)
    values = {name: result[name][t, own[t]] for name in ("fdr", "target_mean", "reference_mean")}
    down = (values["fdr"] <= fdr) & (direction(values) < 0)
    return int(np.count_nonzero(down)), len(t)
