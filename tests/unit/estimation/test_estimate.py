"""What a run would take: counts equal the file's, X is not read, seconds follow from constants."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
import warnings
from collections import namedtuple
from dataclasses import asdict, fields, replace
from pathlib import Path

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.backends.registry import load_kernels
from pdex_gpu.columns.measure import make_analysis
from pdex_gpu.design.build import make_design
from pdex_gpu.design.labels import Levels
from pdex_gpu.estimation import benchmark as cost_calibration
from pdex_gpu.estimation import estimate as estimation
from pdex_gpu.estimation import tables as cost_tables
from pdex_gpu.estimation.benchmark import Sample, measure_rates, solve
from pdex_gpu.estimation.estimate import CLUSTER_START, estimate, size_text
from pdex_gpu.estimation.model import (
    BY_RANGES,
    IN_MEMORY,
    PHASES,
    SPLIT,
    WHOLE,
    Crew,
    MachineRates,
    Work,
    predict,
)
from pdex_gpu.estimation.storage import gzip_storage, storage_of, stored_like
from pdex_gpu.estimation.synthetic import made_chunk, made_entries, smaller_design
from pdex_gpu.simulate import GROUPBY, simulate_screen
from pdex_gpu.sinks import checkpoint as checkpoints
from pdex_gpu.sources.base import Reading
from pdex_gpu.sources.choice import X
from pdex_gpu.sources.rechunk.store import RowStore
from pdex_gpu.sources.stored import hdf5
from pdex_gpu.sources.stored.layout import StoredLike
from pdex_gpu.stats.registry import make_test
from pdex_gpu.utils.parallel import pool_map

N_CELLS, N_GENES, N_TARGETS = 600, 50, 5
FORMS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": lambda x: x.toarray()}
RATES = MachineRates(*(float(k + 1) for k in range(len(fields(MachineRates)))))


@pytest.fixture(scope="module")
def screen() -> ad.AnnData:
    adata = simulate_screen(N_CELLS, N_GENES, N_TARGETS, mean_umi=100, seed=4).to_anndata()
    adata.X = np.log1p(adata.X).astype(np.float32)
    adata.obs["batch"] = pd.Categorical(["b1", "b2", "b3"] * (N_CELLS // 3))
    return adata


@pytest.fixture(scope="module")
def files(screen: ad.AnnData, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The screen in every form."""
    folder = tmp_path_factory.mktemp("estimate")
    found = {}
    for form, convert in FORMS.items():
        for compression in ("gzip", None):
            name = f"{form}-{compression or 'plain'}"
            found[name] = folder / f"{name}.h5ad"
            ad.AnnData(convert(screen.X), obs=screen.obs, var=screen.var).write_h5ad(
                found[name], compression=compression
            )
    return found


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Constants are measured, on next to nothing."""
    monkeypatch.setattr(cost_calibration, "_ENTRIES", 3_000)
    monkeypatch.setattr(cost_calibration, "_WARM_ENTRIES", 500)
    monkeypatch.setattr(cost_calibration, "_ROWS", 4_000)
    monkeypatch.setattr(cost_calibration, "_REPEATS", 1)


def counted(data: object, groupby: object = GROUPBY, **options: object) -> pdex_gpu.Estimate:
    return estimate(data, groupby, timing=False, **options)


# --- counts ---------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("compression", ["gzip", "plain"])
def test_counts_are_those_of_the_file(form, compression, files, screen):
    path = files[f"{form}-{compression}"]
    found = counted(path)
    with h5py.File(path) as file:
        x = file["X"]
        arrays = [x] if form == "dense" else [x["data"], x["indices"]]
        assert found.file_bytes == sum(array.id.get_storage_size() for array in arrays)
        assert found.decoded_bytes == sum(array.size * array.dtype.itemsize for array in arrays)
    stored = N_CELLS * N_GENES if form == "dense" else screen.X.nnz
    assert (found.n_cells, found.n_genes, found.n_stored) == (N_CELLS, N_GENES, stored)
    density = 0.2 if form == "dense" else stored / (N_CELLS * N_GENES)
    assert found.density == density
    assert (found.n_groups, found.n_comparisons) == (N_TARGETS + 1, N_TARGETS)
    assert found.n_rows == N_TARGETS * N_GENES
    assert found.matrix.startswith("dense" if form == "dense" else form.upper())
    one_chunk = form == "dense" and compression == "plain"  # in one piece: whole rows
    assert found.way == (WHOLE if form == "csr" or one_chunk else BY_RANGES)
    assert (found.scratch_bytes, found.n_ranges) == ((0, 0), 1)
    assert (found.output_bytes, found.checkpoint_bytes, found.workers) == (0, 0, None)
    assert found.problems == found.lacks == ()
    assert found.phases == {}
    assert found.seconds is found.rates is None


def test_a_matrix_in_memory(screen):
    found = counted(screen)
    assert (found.way, found.file_bytes, found.decoded_bytes) == (IN_MEMORY, 0, 0)
    assert found.n_stored == screen.X.nnz


@pytest.mark.parametrize(
    ("options", "n_groups", "n_targets", "n_comparisons"),
    [
        ({}, 6, 5, 5),
        ({"comparison": "rest"}, 6, 6, 6),
        ({"comparison": "rest", "columns": "auroc"}, 6, 6, 6),
        ({"strata": "batch"}, 18, 5, 5),
        ({"groupby": [GROUPBY, "batch"]}, 18, 5, 15),
        ({"min_cells": 10**4}, None, None, None),
    ],
    ids=str,
)
def test_designs(options, n_groups, n_targets, n_comparisons, files):
    groupby = options.pop("groupby", GROUPBY)
    if n_groups is None:
        with pytest.raises(errors.LabelError, match="min_cells=10000"):
            counted(files["csr-gzip"], groupby, **options)
        return
    found = counted(files["csr-gzip"], groupby, **options)
    assert (found.n_groups, found.n_targets) == (n_groups, n_targets)
    assert found.n_comparisons == n_comparisons
    assert found.n_rows == n_comparisons * N_GENES


def test_pairs_and_groups(files, screen):
    names = sorted(set(screen.obs[GROUPBY]))
    found = counted(files["csr-gzip"], comparison="pairs", pairs=[names[:2], names[1:3]])
    assert found.n_comparisons == 2
    assert counted(files["csr-gzip"], groups=names[:2]).n_comparisons == 2


def test_the_result_takes_what_a_run_refuses_to_have_less_for(files, monkeypatch):
    """To the byte: a byte less is too little, but for what is spared."""
    from pdex_gpu.engines import memory_model

    monkeypatch.setattr(memory_model, "SPARE", 0)
    found = counted(files["csr-gzip"], columns=["auroc", "log10_p"])
    assert counted(files["csr-gzip"], columns=["auroc", "log10_p"],
                   memory=found.result_bytes).problems == ()  # fmt: skip
    with pytest.raises(errors.MemoryBudgetError, match=f"takes {found.result_bytes:,} bytes"):
        pdex_gpu.differential_expression(
            files["csr-gzip"], GROUPBY, columns=["auroc", "log10_p"],
            memory=found.result_bytes - 1, progress=False,
        )  # fmt: skip


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_ranges_and_files_are_those_of_the_run(form, files, tmp_path, monkeypatch):
    """So many files of ranges, so many bytes."""
    written = []
    write = checkpoints.Checkpoint.write

    def note(self, genes, fractional, values):
        written.append(values.nbytes)
        write(self, genes, fractional, values)

    monkeypatch.setattr(checkpoints.Checkpoint, "write", note)
    options = {"out": tmp_path / "de.parquet", "gene_chunk_size": 7, "metric": "t-test"}
    found = counted(files[f"{form}-gzip"], **options)
    result = pdex_gpu.differential_expression(
        files[f"{form}-gzip"], GROUPBY, progress=False, **options
    )
    assert found.n_ranges == len(written) > 3
    assert found.checkpoint_bytes == sum(written) + 8 * result.n_rows
    # Rows of so small a table cost more: names and provenance are most of it.
    assert found.output_bytes < options["out"].stat().st_size


def test_bytes_of_a_file_are_about_right(tmp_path):
    """Of 120,000 rows, of few cells, so of many equal values: 32 % (Parquet) too large, 0.5 %
    (CSV).

    Of 16 million rows, 0.1 % were seen.
    """
    adata = simulate_screen(4_000, 1_000, 120, seed=1).to_anndata()
    adata.X = np.log1p(adata.X)
    for suffix in (".parquet", ".csv"):
        out = tmp_path / f"de{suffix}"
        found = counted(adata, out=out)
        pdex_gpu.differential_expression(adata, GROUPBY, out=out, progress=False)
        assert found.output_bytes == pytest.approx(out.stat().st_size, rel=0.4)


@pytest.mark.parametrize("kind", ["log1p", "float64", "few entries", "uint16"])
def test_split_rows_take_what_is_said(kind, tmp_path):
    """In memory or in the scratch file: at least and at most."""
    few = kind == "few entries"
    adata = simulate_screen(300, 40 if few else 500, 3, mean_umi=50 if few else 1_000).to_anndata()
    adata.X = adata.X.astype(np.uint16) if kind == "uint16" else np.log1p(adata.X)
    if kind == "float64":
        adata.X = adata.X.astype(np.float64)
    if few:  # no two values alike
        adata.X.data += np.random.default_rng(0).random(adata.X.nnz, np.float32)
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    edges = sorted({0, 7, min(250, adata.n_vars), adata.n_vars})
    with (
        pdex_gpu.request.screen.open_dataset(str(path), GROUPBY) as dataset,
        RowStore(dataset.source.arrays, edges, 1 << 40, Reading()) as store,
    ):
        kept = sum(array.nbytes for block in store._blocks for array in block.arrays)
    plan = pdex_gpu.engines.plan.Plan(tuple(edges), 0, 1, 1)
    least, most = _counted(path).scratch_bytes(plan)
    # The store keeps a few numbers beside: where the table of each cell begins.
    tables = 0 if kind in ("uint16", "few entries") else 8 * 301
    assert least <= kept <= most + tables
    assert (adata.X.nnz < 200 * 300) is few


def _counted(path: Path, workers: int | None = None):
    """What `estimate` counts with."""
    from pdex_gpu.estimation.workload import Counted
    from pdex_gpu.request.options import Settings
    from pdex_gpu.request.screen import design_of, open_screen

    settings = Settings.of({"groupby": GROUPBY})
    with open_screen(str(path), settings) as dataset:
        analysis = make_analysis(
            make_test("wilcoxon", {}), (), is_log1p=None, exp_post_agg=True, stratified=False,
            expressed=False, count_means=False, level=0.95,
        )  # fmt: skip
        return Counted(
            settings, dataset.source, design_of(dataset, settings), analysis,
            load_kernels("cpu"), "threads", workers, None,
        )  # fmt: skip


def test_scratch_is_what_memory_does_not_hold(files):
    path = files["csr-gzip"]
    plans = [pdex_gpu.engines.plan.Plan((0, 25, 50), budget, 1, 1) for budget in (0, 1_000, 10**9)]
    nnz = counted(path).n_stored
    counts = 2 * N_CELLS * 2
    got = [_counted(path).scratch_bytes(plan) for plan in plans]
    assert got == [
        (2 * nnz + counts, 5 * nnz + counts),  # some cells' values may not repeat
        (2 * nnz + counts - 1_000, 5 * nnz + counts - 1_000),
        (0, 0),
    ]
    # All of it goes through files if workers share it.
    assert _counted(path, workers=3).scratch_bytes(plans[2]) == got[0]


# --- X is not read --------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["csr-gzip", "csc-gzip", "dense-gzip", "csr-plain"])
@pytest.mark.parametrize("options", [{}, {"gene_chunk_size": 7}, {"workers": 2}], ids=str)
def test_x_is_not_read(form, options, files, tmp_path, monkeypatch):
    """All bytes of the values are wrong, and no read of them is asked for."""
    path = tmp_path / "broken.h5ad"
    shutil.copy(files[form], path)
    with h5py.File(path) as file:
        x = file["X"]
        arrays = [x] if form.startswith("dense") else [x["data"], x["indices"]]
        places = []
        for array in arrays:
            if array.chunks is None:
                places.append((array.id.get_offset(), array.id.get_storage_size()))
            else:
                array.id.chunk_iter(lambda info: places.append((info.byte_offset, info.size)))
    with path.open("r+b") as file:
        for at, n in places:
            file.seek(at)
            file.write(b"\xff" * n)
    with pytest.raises(errors.PdexGpuError):
        pdex_gpu.differential_expression(path, GROUPBY, progress=False)
    names = []
    read = hdf5.Hdf5Array.read
    for kind in (hdf5._Chunked, hdf5._Contiguous, hdf5._Unfiltered, hdf5.Hdf5Array):

        def note(self, where, out, read=kind.read):
            names.append(self.name.split(" of ")[0])
            return read(self, where, out)

        monkeypatch.setattr(kind, "read", note)
    assert hdf5.Hdf5Array.read is not read
    want = counted(files[form], **options)
    assert replace(counted(path, **options), memory_allowed=want.memory_allowed) == want
    assert set(names) <= {"X/indptr", f"Column {GROUPBY!r}"}


def test_x_is_not_read_while_seconds_are_estimated(files, tmp_path, quick):
    path = tmp_path / "broken.h5ad"
    shutil.copy(files["csr-gzip"], path)
    with h5py.File(path, "r+") as file:
        array = file["X/data"]
        array.id.write_direct_chunk((0,), b"\xff" * 10)
    found = estimate(path, GROUPBY, out=tmp_path / "de.parquet", gene_chunk_size=10)
    assert found.seconds > 0


# --- problems -------------------------------------------------------------------------------

Usage = namedtuple("Usage", "total used free")


def small_disks(monkeypatch, **free: int) -> None:
    """Folders by name, and the bytes free there; all others have room."""

    def usage(path):
        return Usage(10**15, 0, free.get(Path(path).name, 10**15))

    monkeypatch.setattr(shutil, "disk_usage", usage)


def test_too_little_memory(files, monkeypatch):
    from pdex_gpu.engines import memory_model, plan

    monkeypatch.setattr(memory_model, "SPARE", 0)
    monkeypatch.setattr(plan, "SPARE", 0)
    found = counted(files["csr-gzip"], memory=10_000)
    assert found.lacks == ("memory",)
    assert found.memory_needed > 10_000 == found.memory_allowed
    assert found.problems == (
        f"memory= allows 10 kB, but at least {size_text(found.memory_needed)} are needed, "
        f"{size_text(found.result_bytes)} of them for the result. Write the result to a file with "
        "out= (-o), or allow more memory with memory= (--memory).",
    )
    with pytest.raises(errors.MemoryBudgetError):
        pdex_gpu.differential_expression(files["csr-gzip"], GROUPBY, memory=10_000, progress=False)
    # What is said to be needed is enough, and not by much too much.
    enough = counted(files["csr-gzip"], memory=found.memory_needed)
    assert enough.problems == ()
    assert counted(files["csr-gzip"], memory=found.memory_needed // 2).lacks == ("memory",)
    pdex_gpu.differential_expression(
        files["csr-gzip"], GROUPBY, memory=found.memory_needed, progress=False
    )


def test_too_little_memory_of_workers(files, monkeypatch, tmp_path):
    from pdex_gpu.engines import plan

    monkeypatch.setattr(plan, "SPARE", 0)
    found = counted(files["csr-gzip"], memory=10_000, workers=2, out=tmp_path / "de.parquet")
    assert found.problems == (
        f"memory= allows 10 kB, but at least {size_text(found.memory_needed)} are needed by each "
        "worker. Allow more memory with memory= (--memory).",
    )


def test_more_memory_than_there_is(files, monkeypatch):
    monkeypatch.setattr(estimation, "available_memory", lambda: 3 * 10**9)
    found = counted(files["csr-gzip"], memory="4GB")
    assert found.lacks == ("memory",)
    assert found.problems[0].startswith("memory= allows 4 GB, but this machine has 3 GB free. ")
    assert counted(files["csr-gzip"], memory="4GB", workers=2).problems == ()


def test_too_little_room(files, tmp_path, monkeypatch):
    (tmp_path / "scratch").mkdir()
    (tmp_path / "out").mkdir()
    out, scratch = tmp_path / "out" / "de.parquet", tmp_path / "scratch"
    options = {"out": out, "scratch": scratch, "workers": 4, "memory": "1GB"}
    found = counted(files["csr-gzip"], **options)
    beside = found.output_bytes + found.checkpoint_bytes
    small_disks(monkeypatch, scratch=found.scratch_bytes[1], out=beside)
    assert counted(files["csr-gzip"], **options).problems == ()
    small_disks(monkeypatch, scratch=found.scratch_bytes[1] - 1, out=beside - 1)
    got = counted(files["csr-gzip"], **options)
    assert got.lacks == ("scratch", "output")
    assert got.problems == (
        f"The scratch folder {str(scratch)!r} has {size_text(found.scratch_bytes[1] - 1)} free, "
        f"but up to {size_text(found.scratch_bytes[1])} are needed for data that do not fit in "
        "memory. Set scratch= (--scratch) to a folder with more room, or allow more memory with "
        "memory=.",
        f"The folder {str(out.parent)!r} has {size_text(beside - 1)} free, but the output "
        f"'de.parquet' and its checkpoint need about {size_text(beside)} while it is written. "
        "Free up space there, or use another folder.",
    )


@pytest.mark.parametrize(
    ("options", "kind", "says"),
    [
        ({"groupby": "nope"}, errors.ColumnError, "Unknown column of obs 'nope'"),
        ({"reference": "nope"}, errors.LabelError, "nope"),
        ({"layer": "nope"}, errors.LayerError, "nope"),
        ({"density": 0.0}, errors.OptionError, "density=0.0 must be a fraction"),
        ({"density": 1.5}, errors.OptionError, "density=1.5 must be a fraction"),
        ({"workers": 0}, errors.OptionError, "workers=0 must be a whole number"),
        ({"engine": "dask"}, errors.OptionError, "Pass the number of Dask workers as workers="),
        ({"engine": "nope"}, errors.OptionError, "nope"),
        ({"metric": "nope"}, errors.OptionError, "nope"),
        ({"memory": "nope"}, errors.OptionError, "memory='nope' is not a size"),
        ({"out": "nope/de.parquet"}, errors.OptionError, "'nope' does not exist"),
        ({"out": "de.xlsx"}, errors.OptionError, "Unknown output format '.xlsx'"),
        ({"nope": 1}, errors.OptionError, "nope"),
    ],
    ids=str,
)
def test_what_the_call_would_refuse_is_refused(options, kind, says, files):
    groupby = options.pop("groupby", GROUPBY)
    with pytest.raises(kind, match=says):
        counted(files["csr-gzip"], groupby, **options)


def test_no_file():
    with pytest.raises(FileNotFoundError, match=r"nowhere\.h5ad"):
        counted("nowhere.h5ad")


def test_what_is_assumed_is_said(files, screen, tmp_path):
    texts = {
        "dense": "20% of a dense matrix are not zero",
        "unseen": "values have fractions (X is not read); counts would take less time",
        "whole": "all values are whole numbers, like the first ones",
        "even": "all genes have the same number of nonzeros",
        "byte": "each cell has few distinct values, so each takes one byte while kept",
        "start": f"{CLUSTER_START:.0f} s until the workers of a running cluster start",
        "sent": "every worker already holds the matrix",
    }

    def of(data, **options):
        known = {text: name for name, text in texts.items()}
        return [known[text] for text in counted(data, **options).assumptions]

    assert of(files["dense-gzip"]) == ["dense", "unseen"]
    assert of(files["dense-gzip"], density=0.5, is_log1p=False) == []
    assert counted(files["dense-gzip"], density=0.5).density == 0.5
    assert of(files["csr-gzip"], is_log1p=False) == []
    assert of(files["csr-gzip"], gene_chunk_size=7) == ["even", "unseen", "byte"]
    assert of(files["csc-gzip"], gene_chunk_size=7) == ["unseen"]
    assert of(screen, workers=2) == ["start", "sent"]
    counts = screen.copy()
    counts.X = counts.X.expm1().rint()
    for form, convert in FORMS.items():
        dense = ["dense"] if form == "dense" else []
        counts.X = convert(counts.X)
        assert of(counts) == [*dense, "whole"]
        assert of(counts, is_log1p=False) == dense
        assert of(counts[::2]) == [*dense, "whole"]
        counts.X = sparse.csr_matrix(counts.X)
    found = counted(files["csr-gzip"], backend="numpy")
    assert "no run time: there is no time model for the backend numpy" in found.assumptions
    assert estimate(files["csr-gzip"], GROUPBY, backend="numpy", rates=RATES).seconds is None


# --- the model ------------------------------------------------------------------------------

WORK = Work(
    n_cells=10, n_genes=4, n_stored=20.0, n_nonzero=15.0, n_pairs=8.0, n_rows=6.0, n_ranges=2,
    file_bytes=100.0, decoded_bytes=160.0, scratch_bytes=50.0, stored_bytes=30.0, n_values=42.0,
)  # fmt: skip
# start, read_stored, read_decoded, split, gather, pack, visit, rank, judge, scratch, store, finish,
# write
EXACT = MachineRates(0.5, 1.0, 2.0, 3.0, 5.0, 7.0, 11.0, 13.0, 17.0, 19.0, 23.0, 29.0, 31.0)


def test_the_model_in_one_process():
    work = replace(WORK, way=SPLIT)
    assert predict(work, EXACT, Crew(2)) == {
        "start": 0.5,
        "reading": (100.0 + 2 * 160.0) / 2,
        "splitting": 3 * 20.0 / 2 + 19 * 50.0,
        "testing": (5 * 20.0 + 7 * 20.0 + 11 * 10 * 2 + 13 * 15.0 + 17 * 8.0) / 2,
        "finishing": 29 * 6.0 / 2,
        "writing": 23 * 30.0 + 31 * 42.0,
    }
    whole = predict(replace(WORK, way=WHOLE, scratch_bytes=0.0), EXACT, Crew(2))
    assert whole["splitting"] == 0.0
    assert whole["testing"] == (7 * 20.0 + 11 * 10 * 2 + 13 * 15.0 + 17 * 8.0) / 2


def test_the_model_of_a_cluster():
    """Three workers of two threads; of two ranges, one worker has none."""
    work = replace(WORK, way=SPLIT)
    got = predict(work, EXACT, Crew(4, 3, 2, cluster_start=6.0))
    assert got == {
        "start": 6.5,
        "reading": (100.0 + 2 * 160.0) / 6,
        "splitting": 3 * 20.0 / 6 + 19 * 50.0 / 3,
        "testing": (5 * 20.0 + 7 * 20.0 + 11 * 10 * 2 + 13 * 15.0 + 17 * 8.0) * 1.5 / 6,
        "finishing": 29 * 6.0 / 4,
        "writing": 23 * 30.0 + 31 * 42.0,
    }
    by_range = predict(replace(WORK, way=BY_RANGES), EXACT, Crew(4, 3, 2))
    assert by_range["reading"] == (100.0 + 2 * 160.0) * 1.5 / 6


def test_a_disk_that_is_slower_than_decoding():
    work = replace(WORK, way=SPLIT)
    for crew in (Crew(2, bytes_per_second=0.1), Crew(2, 3, bytes_per_second=0.1)):
        assert predict(work, EXACT, crew)["reading"] == (100.0 + 2 * 50.0) / 0.1


_SIZES = [f.name for f in fields(Work) if f.name != "way"]


@given(
    st.sampled_from([IN_MEMORY, BY_RANGES, WHOLE, SPLIT]),
    st.lists(st.integers(1, 1000), min_size=len(_SIZES), max_size=len(_SIZES)),
    st.sampled_from(_SIZES),
    st.integers(1, 5),
    st.none() | st.integers(1, 9),
)
def test_more_work_never_takes_less_time(way, sizes, grown, times, workers):
    work = Work(way=way, **dict(zip(_SIZES, sizes, strict=True)))
    # With workers, ranges that can be dealt evenly may take less than fewer that cannot.
    if grown == "n_ranges" and workers is not None:
        return
    more = replace(work, **{grown: getattr(work, grown) * times})
    crew = Crew(2, workers)
    one, other = predict(work, EXACT, crew), predict(more, EXACT, crew)
    assert list(one) == list(PHASES)
    assert all(other[phase] >= one[phase] for phase in PHASES)
    assert all(math.isfinite(seconds) and seconds >= 0 for seconds in other.values())


@pytest.mark.parametrize("options", [{}, {"workers": 3}, {"gene_chunk_size": 20}], ids=str)
def test_estimates_rise_with_size(options, tmp_path):
    """Twice the cells and genes: more of everything."""
    got = []
    for n_cells, n_genes in ((300, 60), (600, 120)):
        path = tmp_path / f"{n_cells}.h5ad"
        simulate_screen(n_cells, n_genes, 3, mean_umi=5 * n_genes, seed=1).write_h5ad(path)
        out = tmp_path / "de.parquet"
        got.append(estimate(path, GROUPBY, rates=RATES, out=out, **options))
    small, large = got
    for name in ("n_stored", "n_rows", "file_bytes", "decoded_bytes", "result_bytes",
                 "output_bytes", "checkpoint_bytes", "memory_used", "seconds"):  # fmt: skip
        assert getattr(large, name) > getattr(small, name), name
    assert large.scratch_bytes >= small.scratch_bytes


def test_given_rates_are_used_and_nothing_is_measured(files, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("measured")

    monkeypatch.setattr(cost_calibration, "measure_rates", refuse)
    found = estimate(files["csr-gzip"], GROUPBY, rates=RATES)
    assert found.rates is RATES
    assert found.seconds == sum(found.phases.values())
    assert list(found.phases) == list(PHASES)
    with pytest.raises(AssertionError, match="measured"):
        estimate(files["csr-gzip"], GROUPBY)


def test_workers_share_the_work(files, tmp_path):
    out = tmp_path / "de.parquet"
    one, four = (
        estimate(files["csr-gzip"], GROUPBY, rates=RATES, out=out, workers=n, n_threads=2)
        for n in (1, 4)
    )
    assert (four.workers, four.n_threads, four.engine, four.way) == (4, 2, "dask", SPLIT)
    assert four.phases["reading"] == one.phases["reading"] / 4
    assert four.phases["start"] == RATES.start + CLUSTER_START
    assert four.phases["finishing"] == one.phases["finishing"]
    assert four.phases["writing"] == one.phases["writing"]
    assert four.n_ranges >= 16


# --- constants ------------------------------------------------------------------------------


@given(
    st.lists(st.floats(0.0, 1e-6), min_size=2, max_size=2),
    st.lists(st.tuples(st.integers(1, 10**6), st.integers(1, 10**6)), min_size=2, max_size=4),
)
def test_constants_are_solved_for(rates, units):
    """Exact measurements give the constants back, as far as they can be told apart."""
    seconds = [float(np.dot(unit, rates)) for unit in units]
    if min(seconds) < 1e-8:
        return
    found = solve(units, seconds)
    assert min(found) >= 0.0
    # nnls stops at 1e-9 or so of what is left; 2e-9 was seen.
    np.testing.assert_allclose(np.asarray(units) @ found, seconds, rtol=1e-7)


def test_constants_are_not_negative():
    assert solve([(1.0, 0.0), (1.0, 1.0)], [2.0, 1.0])[1] == 0.0


def test_constants_that_differ_by_powers_of_ten():
    found = solve([(1e6, 1.0), (2e6, 1.0), (1e6, 5.0)], [1e-3 + 1.0, 2e-3 + 1.0, 1e-3 + 5.0])
    np.testing.assert_allclose(found, [1e-9, 1.0], rtol=1e-9)


STEPS = {
    "read": {"read_stored", "read_decoded"},
    "split": {"split", "gather"},
    "kernels": {"pack", "visit", "rank", "judge"},
    "table": {"store", "write"},
}


@pytest.mark.parametrize("form", ["csr-gzip", "csc-gzip", "dense-gzip", "csr-plain", "csc-plain",
                                  "dense-plain"])  # fmt: skip
def test_constants_are_measured(form, files, tmp_path, quick):
    """Of what the run does, and of nothing else."""
    found = estimate(files[form], GROUPBY, out=tmp_path / "de.parquet", gene_chunk_size=10)
    rates = asdict(found.rates)
    split = found.way == SPLIT and not form.startswith("dense")
    wanted = {"read", "kernels", "table"} | ({"split"} if split else set())
    for name, kinds in STEPS.items():
        assert any(rates[kind] > 0 for kind in kinds) is (name in wanted), name
    assert min(rates.values()) >= 0.0
    assert rates["start"] > 0
    assert rates["finish"] > 0
    assert found.seconds == pytest.approx(sum(found.phases.values()))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("metric", ["wilcoxon", "anderson", "t-test", "ks"])
def test_constants_are_measured_with_the_test(metric, screen, quick):
    found = estimate(screen, GROUPBY, metric=metric, columns=["auroc"], strata=None)
    rates = asdict(found.rates)
    assert rates["rank"] + rates["judge"] > 0
    assert rates["finish"] > 0
    for name in ("read_stored", "read_decoded", "split", "gather", "scratch", "store", "write"):
        assert rates[name] == 0.0


@pytest.mark.parametrize("comparison", ["rest", "perturbed"])
def test_constants_are_measured_with_the_design(comparison, screen, quick):
    options = {"comparison": comparison, "columns": ["auroc"]}
    assert estimate(screen, GROUPBY, **options).seconds > 0
    assert estimate(screen, [GROUPBY, "batch"], **options).seconds > 0
    assert estimate(screen, GROUPBY, strata="batch", **options).seconds > 0


def test_a_device_has_no_seconds(files, emulated_cuda):
    found = estimate(files["csr-gzip"], GROUPBY, backend="cuda")
    assert (found.backend, found.engine) == ("cuda", "streams")
    assert found.seconds is None
    assert "no run time: there is no time model for the backend cuda" in found.assumptions


@pytest.mark.parametrize("n_groups", [5, 400])
def test_made_up_data_stay_small(n_groups, monkeypatch):
    """Wide ranges of many groups make no more pairs than entries, and few more entries."""
    sizes = []
    made = cost_calibration.made_chunk

    def note(form, n_cells, n_genes, density, dtype, **more):
        chunk, nnz = made(form, n_cells, n_genes, density, dtype, **more)
        sizes.append((nnz, n_genes))
        return chunk, nnz

    monkeypatch.setattr(cost_calibration, "made_chunk", note)
    design = make_design(np.arange(4 * n_groups) % n_groups, list(range(n_groups)), reference=0)
    sample = _sample(design=design, n_cells=4 * n_groups, n_genes=20_000, width=20_000)
    cost_calibration._kernel_rates(sample, load_kernels("cpu"), map, 10_000, 1)
    assert len(sizes) == 4
    for nnz, n_genes in sizes:
        assert n_genes * n_groups <= 10_000
        assert nnz <= 20_000  # 10,000 and what one more cell a group brings


def test_zarr(screen, tmp_path, quick):
    pytest.importorskip("zarr")
    path = tmp_path / "screen.zarr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, about the format of zarr
        screen.write_zarr(path)
    found = estimate(path, GROUPBY)
    assert (found.n_stored, found.way) == (screen.X.nnz, WHOLE)
    assert found.rates.read_stored + found.rates.read_decoded > 0


def _sample(**more: object) -> Sample:
    design = make_design(np.arange(40) % 4, list("abcd"), reference="a")
    analysis = make_analysis(
        make_test("wilcoxon", {}), (), is_log1p=True, exp_post_agg=True, stratified=False,
        expressed=False, count_means=False, level=0.95,
    )  # fmt: skip
    given: dict[str, object] = {
        "n_cells": 40, "n_genes": 20, "density": 0.4, "dtype": np.dtype(np.float32),
        "fractional": True, "width": 20, "form": "csr", "design": design, "analysis": analysis,
        "n_threads": 1, "in_file": True,
    }  # fmt: skip
    return Sample(**given | more)


def test_storage_that_cannot_be_written_here_is_taken_for_gzip(quick, tmp_path, caplog):
    broken = replace(
        gzip_storage(np.dtype(np.float32), np.dtype(np.int32)),
        arrays={"data": StoredLike(np.dtype(np.float32), (100,), "no property list"),
                "indices": StoredLike(np.dtype(np.int32), (100,), "no property list")},
    )  # fmt: skip
    with caplog.at_level("INFO", "pdex_gpu"):
        rates = measure_rates(_sample(storage=broken), load_kernels("cpu"), tmp_path)
    assert rates.read_stored + rates.read_decoded > 0
    assert "using gzip" in caplog.text
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("form", ["csr-gzip", "csc-gzip", "dense-gzip", "csr-plain"])
def test_made_up_files_are_stored_as_the_file_is(form, files, tmp_path):
    storage = storage_of(files[form], X)
    if storage.form == "array":
        arrays, indptr = {"values": np.ones((30, 40), np.float32)}, None
    else:
        data, indices, indptr = made_entries(30, 40, 0.5, np.dtype(np.float32), fractional=True)
        kind = storage.arrays["indices"].dtype
        arrays = {"data": data, "indices": indices.astype(kind)}
    shape = (40, 30) if storage.form == "csc_matrix" else (30, 40)
    with stored_like(storage, tmp_path, arrays, indptr, shape) as source:
        assert (source.n_cells, source.n_genes) == shape
    with h5py.File(files[form]) as one, h5py.File(tmp_path / "like.h5") as other:
        for name in arrays:
            node = "X" if indptr is None else f"X/{name}"
            a, b = one[node], other[node]
            assert (a.dtype, a.chunks, a.compression, a.compression_opts, a.shuffle) == (
                b.dtype, b.chunks, b.compression, b.compression_opts, b.shuffle
            )  # fmt: skip
            assert a.compression == (None if "plain" in form else "gzip")


@given(
    st.integers(1, 50), st.integers(1, 60), st.floats(0.01, 1.0),
    st.sampled_from(["float32", "float64", "int32", "uint16"]), st.booleans(),
)  # fmt: skip
def test_made_up_entries_are_canonical(n_rows, n_columns, density, dtype, fractional):
    data, indices, indptr = made_entries(
        n_rows, n_columns, density, np.dtype(dtype), fractional=fractional
    )
    matrix = sparse.csr_matrix((data, indices, indptr), (n_rows, n_columns))
    assert matrix.has_canonical_format
    assert data.dtype == dtype
    assert (data > 0).all()
    whole = not fractional or np.dtype(dtype).kind != "f"
    assert not len(data) or (data == np.round(data)).all() == whole


def test_made_up_entries_are_as_dense_as_asked():
    data, *_ = made_entries(2_000, 500, 0.3, np.dtype(np.float32), fractional=True)
    assert len(data) / 1e6 == pytest.approx(0.3, abs=0.005)  # 5 standard deviations are 0.0023


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_made_up_chunks_can_be_packed(form):
    design = make_design(np.arange(40) % 4, list("abcd"), reference="a")
    chunk, nnz = made_chunk(
        form, 40, 30, 0.5, np.dtype(np.float32), fractional=True, narrow=form == "csr"
    )
    kernels = load_kernels("cpu")
    block = kernels.pack(chunk, design, map)
    moments = kernels.moments(block, slice(0, 30), design, centred=False, expm1=False)
    assert moments.n_expressed.sum() == nnz
    assert block.summary.fractional


def test_a_smaller_design_has_the_same_groups():
    rng = np.random.default_rng(0)
    codes = rng.choice(6, 3_000, p=[0.5, 0.2, 0.1, 0.1, 0.098, 0.002])
    strata = Levels(rng.choice(2, 3_000), ["x", "y"], "batch")
    design = make_design(codes, list("abcdef"), reference="a", strata=strata)
    small = smaller_design(design, 300)
    assert small.n_groups == design.n_groups
    assert len(small.codes) == len(small.order) == small.offsets[-1]
    np.testing.assert_array_equal(
        small.n_cells, np.maximum(1, np.floor(design.n_cells * 300 / 3_000))
    )
    np.testing.assert_array_equal(np.bincount(small.codes), small.n_cells)
    for one, other in zip(design.contrasts, small.contrasts, strict=True):
        np.testing.assert_array_equal(one.groups, other.groups)
        np.testing.assert_array_equal(other.n_cells, small.n_cells[other.groups])
    assert smaller_design(design, 10**9).n_cells.tolist() == design.n_cells.tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", None])
def test_tables_leave_nothing_behind(suffix, tmp_path):
    times = cost_tables.measure_tables(
        _sample().analysis, load_kernels("cpu"), map, n_rows=4_000, suffix=suffix, folder=tmp_path
    )
    finish, store, write = next(times)
    assert finish > 0
    assert (store > 0) == (write > 0) == (suffix is not None)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("n_bytes", "text"),
    [(0, "0 bytes"), (999, "999 bytes"), (1_000, "1 kB"), (1_234, "1.23 kB"), (99_960, "100 kB"),
     (999_600, "1 MB"), (2.144e9, "2.14 GB"), (1.5e12, "1.5 TB"), (2e18, "2e+03 PB")],
)  # fmt: skip
def test_sizes_in_words(n_bytes, text):
    assert size_text(n_bytes) == text


def test_threads_spread_the_measuring():
    """The map of a pool is used: a call that needs all threads at once ends."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        rates = cost_calibration._measure(
            _sample(n_threads=2, split=True), load_kernels("cpu"), pool_map(pool),
            Path(tempfile.gettempdir()), 2_000, 2_000, 1,
        )  # fmt: skip
    assert rates.split > 0
    assert rates.gather > 0
