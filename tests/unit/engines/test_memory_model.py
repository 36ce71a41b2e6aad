"""The memory model counts what is allocated, and each engine says what it wants of a plan."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from screens import as_chunk, design_of

from pdex_gpu.backends.cpu import kernel_set as cpu
from pdex_gpu.backends.outputs import GeneValues
from pdex_gpu.backends.registry import ENGINES, load_engine
from pdex_gpu.design.against import Against
from pdex_gpu.engines import local
from pdex_gpu.engines.memory_model import (
    RESULTS_PER_RANGE,
    MemoryModel,
    ResultSize,
    most_genes_stored_together,
)
from pdex_gpu.engines.plan import Plan, Resources, Schedule, make_plan
from pdex_gpu.errors import MemoryBudgetError
from pdex_gpu.sinks.memory import MemorySink
from pdex_gpu.sources.sizes import SPARE
from pdex_gpu.stats.registry import make_test


def matrix(**facts: Any) -> Any:
    known = {
        "n_cells": 1_000, "n_genes": 50, "nnz": 10_000, "bytes_per_entry": 8,
        "dtype": np.dtype("f4"), "in_memory": False, "read_whole": False, "on_device": False,
        "costly_to_cut": False, "gene_step": 1,
    }  # fmt: skip
    return SimpleNamespace(**known | facts)


def model(source: Any, **options: Any) -> MemoryModel:
    return MemoryModel(source, 12, lambda cells, n, dtype: 4.0 * n + 100.0, lambda _: None)


# --- what is counted ---------------------------------------------------------------------------


def test_a_gene_is_stored_and_packed():
    entries = np.array([0.0, 10.0])
    assert model(matrix()).genes(entries).tolist() == [100 + 64 * 12, 100 + 64 * 12 + 120]
    in_memory = model(matrix(in_memory=True)).genes(entries)  # stored in what was given
    assert in_memory.tolist() == [100 + 64 * 12, 100 + 64 * 12 + 40]


def test_what_a_test_measures_is_counted():
    entries = np.array([0.0, 10.0])
    plain, measured = model(matrix()), replace(model(matrix()), measured=16)
    assert (measured.genes(entries) - plain.genes(entries)).tolist() == [16 * 12, 16 * (12 + 10)]


@pytest.mark.parametrize("against", [Against.REFERENCE, Against.REST, Against.COMPLEMENT])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_distinct_values_take_no_more_than_is_counted(against, dtype):
    rng, n_groups, n_genes = np.random.default_rng(0), 5, 7
    design = design_of(np.arange(400) % n_groups, n_groups)
    contrast = replace(design.contrasts[0], against=against)
    if against is Against.REST:
        contrast = replace(contrast, rows=np.arange(n_groups))
    values = (rng.random((400, n_genes)) * 1000 * rng.integers(0, 2, (400, n_genes))).astype(dtype)
    packed = cpu.pack(as_chunk(values, "csr-int32"), design, map)
    found = cpu.kolmogorov_smirnov(packed, slice(0, n_genes), contrast, values=True).values[0]
    arrays = {
        id(array.base): array.base
        for its in found
        for array in (its.cells, its.target, its.place, its.count)
    }
    allocated = sum(array.nbytes for array in arrays.values())
    counted = GeneValues.BYTES_PER_ENTRY * (np.count_nonzero(values) + n_groups * n_genes)
    assert len(arrays) == 4
    assert 0.2 * counted < allocated <= counted


def test_a_test_says_what_it_measures():
    test = make_test("ks", {"p_values": "conditional"})
    assert test.bytes_per_entry == GeneValues.BYTES_PER_ENTRY == 16
    assert make_test("ks", {"p_values": "asymptotic"}).bytes_per_entry == 0
    assert make_test("wilcoxon", {"p_values": "conditional"}).bytes_per_entry == 0


def test_all_genes_take_what_one_takes_on_average():
    memory = model(matrix())
    assert memory.mean_genes().tolist() == [memory.mean_gene()] * 50
    assert memory.mean_gene() == memory.genes(np.array([200.0]))[0]
    assert memory.counted_genes(map) is None


def test_buffers_are_an_eighth_of_the_budget_at_most():
    assert model(matrix()).buffers(8_000) == 1_000
    assert model(matrix()).buffers(1 << 40) == 1 << 27
    assert model(matrix(in_memory=True)).buffers(1 << 40) == 0


def test_the_stored_part_of_a_result_is_what_the_sink_holds():
    fields = {"p_value": 3, "statistic": 3, "reference_mean": 1}
    size = ResultSize(fields, 3, 2, 11)
    assert size.stored == MemorySink(fields, 11).n_bytes == 8 * 7 * 11
    assert size.in_memory == size.stored + 3 * 11 * (3 * 8 + 12 + 2 * 8)
    size.check(size.in_memory - SPARE)
    with pytest.raises(MemoryBudgetError, match=f"takes {size.in_memory:,} bytes"):
        size.check(size.in_memory - SPARE - 1)


def test_results_are_stored_in_ranges_that_a_crash_may_cost():
    assert RESULTS_PER_RANGE == 2_666_666
    assert most_genes_stored_together(None, RESULTS_PER_RANGE // 5) == 5
    assert most_genes_stored_together(3, RESULTS_PER_RANGE // 5) == 3
    assert most_genes_stored_together(None, 10 * RESULTS_PER_RANGE) == 1


@pytest.mark.parametrize(
    ("dtype", "n_entries", "least", "most"),
    [("f4", 10_000, 2, 5), ("f4", 200_000, 2, 3), ("f8", 10_000, 2, 9), ("u1", 10_000, 2, 2),
     ("u2", 200_000, 3, 3)],
)  # fmt: skip
def test_what_a_split_matrix_takes(dtype, n_entries, least, most):
    memory = model(matrix(dtype=np.dtype(dtype), nnz=n_entries, n_genes=500))
    counts = 2 * 1_000 * 4
    assert memory.kept_bytes(4) == (least * n_entries + counts, most * n_entries + counts)


def test_a_dense_matrix_is_kept_as_it_is():
    memory = model(matrix(nnz=50_000))
    assert memory.kept_bytes(4) == (200_000, 200_000)


# --- what engines want -------------------------------------------------------------------------


def wanted(engine: str, source: Any = None, kernels: Any = None, **given: Any) -> Schedule:
    asked = {"n_workers": None, "n_threads": None, "gene_chunk_size": None, "processors": 6}
    resources = Resources(**asked | given)
    return load_engine(engine).schedule(source or matrix(in_memory=True), kernels, resources)


def test_serial_wants_one_thread_whatever_there_is():
    found = wanted("serial", n_workers=4, n_threads=3, gene_chunk_size=7)
    assert found == Schedule(n_workers=1, n_threads=1, gene_chunk_size=7)


def test_threads_want_two_ranges_in_flight_where_ranges_are_read():
    assert wanted("threads").n_workers == 1
    assert wanted("threads", matrix()).n_workers == 2
    assert wanted("threads", matrix(), processors=1).n_workers == 1
    assert wanted("threads", matrix(), n_workers=5).n_workers == 5
    assert wanted("threads", matrix(nnz=10**9)).at_least == 20
    assert wanted("threads", matrix(nnz=10**11)).at_least == 64
    assert wanted("threads", matrix(nnz=10**9, read_whole=True)).at_least == 1
    assert wanted("threads", matrix(), n_threads=3).n_threads == 3


def test_processes_share_the_processors():
    assert wanted("shared_memory") == Schedule(n_workers=6, n_threads=1, at_least=24)
    assert wanted("shared_memory", n_threads=4).n_workers == 1
    assert wanted("shared_memory", n_workers=2, n_threads=2) == Schedule(
        n_workers=2, n_threads=2, at_least=8
    )


def test_devices_want_what_fits_there():
    asked = []

    def most_genes(source: Any, n_ranges: int) -> int:
        asked.append(n_ranges)
        return 9

    kernels = SimpleNamespace(devices=["one", "other"], most_genes=most_genes)
    found = wanted("streams", matrix(), kernels)
    assert found == Schedule(n_workers=4, n_threads=6, gene_chunk_size=9, at_least=16)
    assert wanted("streams", matrix(costly_to_cut=True), kernels, gene_chunk_size=3) == Schedule(
        n_workers=2, n_threads=6, gene_chunk_size=3, at_least=16
    )
    assert asked == [2, 1]
    on_device = wanted("streams", matrix(on_device=True), kernels)
    assert make_plan(model(matrix(on_device=True)), on_device, 1) == Plan((0, 50), 0, 1, 6)


@pytest.mark.parametrize("engine", sorted(set(ENGINES) - {"dask"}))
def test_an_engine_schedules_and_runs(engine):
    module = load_engine(engine)
    assert callable(module.schedule)
    assert callable(module.run)


def test_an_executor_takes_the_engine_as_it_is(monkeypatch: pytest.MonkeyPatch):
    """Nothing in the pipeline or the executor knows the engines by name."""
    import pdex_gpu
    from pdex_gpu.engines import schedule, serial
    from pdex_gpu.simulate import simulate_screen

    ran = []

    def run(job: Any) -> None:
        ran.append(job.plan.n_ranges)
        serial.run(job)

    mine = SimpleNamespace(schedule=serial.schedule, run=run)
    for module in (local, schedule):
        monkeypatch.setattr(module, "load_engine", lambda name: mine)
    adata = simulate_screen(300, 20, 3, seed=1).to_anndata()
    pdex_gpu.differential_expression(adata, "target_gene", gene_chunk_size=5, progress=False)
    assert ran == [4]
