"""The cost of correcting, finishing, keeping and writing results, measured on made-up p-values."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from ..backends.contract import KernelSet
from ..columns.filters import Filters
from ..columns.finish import Scale, StoredFinish, finish
from ..columns.measure import Analysis
from ..design.against import Against
from ..design.contrasts import Contrast, Design, labels_array
from ..pipeline.output import WRITERS
from ..results.table import Table
from ..sinks.base import RangeResult
from ..sinks.checkpoint import Checkpoint
from ..sinks.checkpoint_sink import CheckpointSink, StoredResults
from ..sinks.memory import MemorySink
from ..stats.multitest.correction import StoredCorrection
from ..stats.multitest.external_sort import FileColumn
from ..stats.options import CorrectionOptions
from ..utils.leftovers import temporary_folder
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary

_N_GENES = 2_000
_RANGES = 4
_SCALE = Scale(True, True, 20.0)
_CORRECTION = CorrectionOptions("benjamini-hochberg", "all")
_FILTERS = Filters()


def measure_tables(
    analysis: Analysis,
    kernels: KernelSet,
    parallel_map: Map,
    *,
    n_rows: int,
    suffix: str | None,
    folder: Path | None,
) -> Iterator[tuple[float, float, float]]:
    """Yield, repeatedly, the wall seconds to finish a row, keep a byte and write a value.

    Parameters
    ----------
    analysis : Analysis
    kernels : KernelSet
    parallel_map : callable
        Spreads the work.
    n_rows : int
        Approximate number of rows of the table.
    suffix : str or None
        Suffix of the file; None for a result in memory, which keeps no bytes and writes no values.
    folder : pathlib.Path, optional
        Folder for the files.
    """
    n_targets = max(1, n_rows // _N_GENES)
    design = _design(n_targets)
    rng = np.random.default_rng(3)
    results = {name: rng.random((n, _N_GENES)) for name, n in analysis.fields(design).items()}
    while True:
        if suffix is None:
            yield _in_memory(analysis, kernels, parallel_map, design, results), 0.0, 0.0
        else:
            yield _in_file(analysis, kernels, parallel_map, design, results, suffix, folder)


def _design(n_targets: int) -> Design:
    """Return a design with two cells per group, all groups compared with the first."""
    n_groups = n_targets + 1
    codes = np.repeat(np.arange(n_groups), 2)
    contrast = Contrast(
        np.arange(n_groups), np.full(n_groups, 2), Against.REFERENCE, np.arange(n_targets)
    )
    names = labels_array([f"target {k}" for k in range(n_targets)])
    offsets = 2 * np.arange(n_groups + 1)
    reference = labels_array(["reference"] * n_targets)
    return Design(np.arange(len(codes)), offsets, codes, (contrast,), names, reference)


def _in_memory(
    analysis: Analysis,
    kernels: KernelSet,
    parallel_map: Map,
    design: Design,
    results: dict[str, np.ndarray],
) -> float:
    started = time.perf_counter()
    sink = MemorySink(analysis.fields(design), _N_GENES, parallel_map)
    allocated = time.perf_counter() - started
    sink.store(RangeResult(0, results))
    started = time.perf_counter()
    finish(
        sink, design, kernels, parallel_map,
        scale=_SCALE, columns=analysis.columns, correction=_CORRECTION, filters=_FILTERS,
    )  # fmt: skip
    return (allocated + time.perf_counter() - started) / (design.n_rows * _N_GENES)


def _in_file(
    analysis: Analysis,
    kernels: KernelSet,
    parallel_map: Map,
    design: Design,
    results: dict[str, np.ndarray],
    suffix: str,
    folder: Path | None,
) -> tuple[float, float, float]:
    n_rows = design.n_rows * _N_GENES
    with temporary_folder(folder, "pdex_gpu-estimate-") as own:
        fields = analysis.fields(design)
        checkpoint = Checkpoint(own, {}, fields, _N_GENES)
        checkpoint.load(restart=False)
        sink = CheckpointSink(checkpoint)
        edges = [_N_GENES * k // _RANGES for k in range(_RANGES + 1)]
        sink.expect(edges)
        parts = [slice(a, b) for a, b in itertools.pairwise(edges)]
        for genes in parts:
            sink.store(RangeResult(genes.start, {k: v[:, genes] for k, v in results.items()}))
        started = time.perf_counter()
        for genes in parts:
            sink.commit(genes, ValueSummary())
        store = time.perf_counter() - started
        stored = StoredResults(checkpoint)
        with (
            checkpoint.unnamed_file() as file,
            ThreadPoolExecutor(1, "pdex_gpu-ahead") as ahead,
        ):
            column = FileColumn(file, n_rows)
            fdr = StoredCorrection(stored, None, _CORRECTION, column)
            started = time.perf_counter()
            fdr.prepare(kernels, parallel_map, 1 << 62)
            finished = time.perf_counter() - started
            made = StoredFinish(stored, design, _SCALE, analysis.columns, None, fdr)
            features = [f"gene {k}" for k in range(_N_GENES)]
            table = Table(design.targets, design.references, features, {}, columns=analysis.columns)
            started = time.perf_counter()
            found = made.blocks(table.blocks(), parallel_map, ahead)
            blocks = (table.arrow(*block) for block in found)
            WRITERS[suffix](own / f"table{suffix}", table, blocks)
            written = time.perf_counter() - started
    n_bytes = 8 * sum(fields.values()) * _N_GENES
    n_values = n_rows * len(table.values)
    return finished / n_rows, store / n_bytes, written / n_values
