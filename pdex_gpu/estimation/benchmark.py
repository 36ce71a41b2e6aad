"""The constants of the cost model, measured on this machine with made-up data in a few seconds.

The kernels, splitting, finishing and writing of a run are executed on a small matrix with the
design's groups. A temporary file is stored like the file that the run will read. Where two
constants contribute to one measurement, they are separated by measuring two kinds of data and
solving non-negative least squares.
"""

from __future__ import annotations

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.optimize import nnls

from ..backends.contract import KernelSet
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..engines.base import gene_tasks
from ..sinks.base import RangeResult
from ..sinks.memory import MemorySink
from ..sources.base import Chunk, Reading
from ..sources.rechunk.store import RowStore
from ..sources.stored.layout import Storage
from ..utils.leftovers import temporary_folder
from ..utils.parallel import Map, pool_map
from .model import MachineRates
from .storage import gzip_storage, stored_like
from .synthetic import MadeRows, made_chunk, made_entries, smaller_design
from .tables import measure_tables

logger = logging.getLogger("pdex_gpu")

_ENTRIES = 4_000_000  # of a made-up matrix
_ROWS = 2_000_000  # of a made-up table
_WARM_ENTRIES, _WARM_ROWS = 20_000, 2_000
_REPEATS = 3
_SPARSER = 0.25  # density of the second of two matrices, relative to the first
_TASKS_PER_THREAD = 4
_MOST_DENSE = 0.9
_LONGEST_LINE = 1 << 22  # most cells in a made-up column, or genes in a made-up row
_WORK = 1 << 27


@dataclass(frozen=True)
class Sample:
    """The properties that made-up data should have.

    Attributes
    ----------
    n_cells, n_genes : int
        Size of the matrix.
    density : float
        Share of nonzeros.
    dtype : numpy.dtype
        Dtype of the values.
    fractional : bool
        Whether values are log1p values rather than counts.
    width : int
        Number of genes in a range.
    form : {"csr", "csc", "dense"}
        Layout of the chunks that the kernels get.
    design : Design
    analysis : Analysis
    n_threads : int
        Threads that work in parallel.
    suffix : str or None
        Suffix of the output; None for a result in memory.
    storage : Storage or None
        How the file is stored; None if there is no file, or this is unknown.
    in_file, split : bool
        Whether the matrix is read from a file, and whether it is split.
    """

    n_cells: int
    n_genes: int
    density: float
    dtype: np.dtype
    fractional: bool
    width: int
    form: str
    design: Design
    analysis: Analysis
    n_threads: int
    suffix: str | None = None
    storage: Storage | None = None
    in_file: bool = False
    split: bool = False


def measure_rates(sample: Sample, kernels: KernelSet, folder: Path | None = None) -> MachineRates:
    """Measure the rates that a run on the sample needs; all others are 0.

    Parameters
    ----------
    sample : Sample
    kernels : KernelSet
    folder : pathlib.Path, optional
        Folder for temporary files.
    """
    with ThreadPoolExecutor(sample.n_threads, "pdex_gpu-cost") as pool:
        parallel_map = pool_map(pool)
        _measure(
            sample, kernels, parallel_map, folder, _WARM_ENTRIES, _WARM_ROWS, 1
        )  # compiles, imports
        return _measure(sample, kernels, parallel_map, folder, _ENTRIES, _ROWS, _REPEATS)


def _measure(
    sample: Sample,
    kernels: KernelSet,
    parallel_map: Map,
    folder: Path | None,
    n_entries: int,
    n_rows: int,
    repeats: int,
) -> MachineRates:
    rates = _kernel_rates(sample, kernels, parallel_map, n_entries, repeats)
    if sample.in_file:
        rates |= _reading_rates(sample, parallel_map, folder, n_entries, repeats)
    if sample.split:
        rates |= _splitting_rates(sample, parallel_map, folder, n_entries, repeats)
    n = sample.n_threads
    found = {name: n * seconds for name, seconds in rates.items()}
    tables = measure_tables(
        sample.analysis, kernels, parallel_map, n_rows=n_rows, suffix=sample.suffix, folder=folder
    )
    finish, store, write = (
        statistics.median(each) for each in zip(*(next(tables) for _ in range(repeats)),
                                                strict=True)
    )  # fmt: skip
    return MachineRates(**found, finish=n * finish, store=store, write=write)


def _median(work: Callable[[], object], repeats: int) -> float:
    """Return the median seconds that a call takes."""
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def solve(units: Sequence[Sequence[float]], seconds: Sequence[float]) -> list[float]:
    """Return non-negative seconds per unit that minimise the squared relative errors.

    Parameters
    ----------
    units : sequence of sequences of float, shape (n_measurements, n_constants)
    seconds : sequence of float, shape (n_measurements,)
    """
    matrix, measured = np.asarray(units, np.float64), np.asarray(seconds, np.float64)
    measured = np.maximum(measured, 1e-9)
    scaled = matrix / measured[:, None]
    size = np.maximum(np.abs(scaled).max(axis=0), 1e-300)  # constants differ by powers of ten
    found, _ = nnls(scaled / size, np.ones(len(measured)))
    return (found / size).tolist()


# --- kernels ---------------------------------------------------------------------------------


def _kernel_rates(
    sample: Sample, kernels: KernelSet, parallel_map: Map, n_entries: int, repeats: int
) -> dict[str, float]:
    """Measure ``pack``, ``visit``, ``rank`` and ``judge``, in wall seconds of all threads."""
    packing: list[tuple[list[float], float]] = []
    testing: list[tuple[list[float], float]] = []
    n_groups = sample.design.n_groups
    # As wide as a range, but with no more pairs than entries: each group has at least one cell.
    wide = min(sample.width, max(1, n_entries // max(n_groups, sample.design.n_rows)))
    task = gene_tasks(wide, n_groups, sample.n_threads)[0].stop
    narrow = min(wide, task * sample.n_threads * _TASKS_PER_THREAD)
    for width, used in ((wide, packing), (narrow, testing)):
        for share in (1.0, _SPARSER):
            density = min(_MOST_DENSE, sample.density) * share
            n_cells = int(n_entries / (density / share * width)) + 1
            design = smaller_design(sample.design, min(n_cells, sample.n_cells))
            n_cells = len(design.codes)
            chunk, nnz = made_chunk(
                sample.form, n_cells, width, density, sample.dtype,
                fractional=sample.fractional, narrow=sample.in_file,
            )  # fmt: skip
            pack, test = _run_kernels(sample, kernels, parallel_map, chunk, design, task, repeats)
            if used is packing:
                stored = n_cells * width if sample.form == "dense" else nnz
                used.append(([float(stored), float(n_cells)], pack))
            else:
                n_pairs = sum(c.n_targets for c in design.contrasts) * width
                used.append(([float(nnz), float(n_pairs)], test))
    pack_rate, visit = solve(*zip(*packing, strict=True))
    rank, judge = solve(*zip(*testing, strict=True))
    return {"pack": pack_rate, "visit": visit, "rank": rank, "judge": judge}


def _run_kernels(
    sample: Sample,
    kernels: KernelSet,
    parallel_map: Map,
    chunk: Chunk,
    design: Design,
    task: int,
    repeats: int,
) -> tuple[float, float]:
    """Return the seconds for packing a chunk, and for testing its genes."""
    analysis = sample.analysis
    finite = analysis.test.refuses_nan
    pack = _median(lambda: kernels.pack(chunk, design, parallel_map, finite=finite), repeats)
    block = kernels.pack(chunk, design, parallel_map, finite=finite)
    sink = MemorySink(analysis.fields(design), chunk.n_genes, parallel_map)

    def compute(genes: slice) -> None:
        moments = kernels.moments(
            block, genes, design,
            centred=analysis.centred, expm1=analysis.expm1, log1p=analysis.log1p,
            higher=analysis.higher,
        )  # fmt: skip
        measured = analysis.measure(kernels, block, genes, design)
        sink.store(RangeResult(genes.start, analysis.evaluate(measured, moments, design)))

    n_genes = chunk.n_genes
    tasks = [slice(i, min(i + task, n_genes)) for i in range(0, n_genes, task)]

    def test() -> None:
        sink.start_over()
        for _ in parallel_map(compute, tasks):
            pass

    return pack, _median(test, repeats)


# --- files -----------------------------------------------------------------------------------


def _reading_rates(
    sample: Sample, parallel_map: Map, folder: Path | None, n_entries: int, repeats: int
) -> dict[str, float]:
    """Measure ``read_stored`` and ``read_decoded``, in wall seconds of all threads."""
    storage = sample.storage or gzip_storage(sample.dtype, np.dtype(np.int32))
    try:
        measured = [
            _read(sample, storage, parallel_map, folder, n_entries, repeats, noisy)
            for noisy in (0, 1)
        ]
    except Exception as error:  # a filter that cannot be written here, or a rare layout
        if sample.storage is None:
            raise
        logger.info("entries cannot be stored as in the file (%s); using gzip instead", error)
        return _reading_rates(
            replace(sample, storage=None), parallel_map, folder, n_entries, repeats
        )
    stored, decoded = solve([m[:2] for m in measured], [m[2] for m in measured])
    return {"read_stored": stored, "read_decoded": decoded}


def _read(
    sample: Sample,
    storage: Storage,
    parallel_map: Map,
    folder: Path | None,
    n_entries: int,
    repeats: int,
    noisy: int,
) -> tuple[float, float, float]:
    """Read a matrix whole, and return its bytes in the file, decoded bytes and seconds."""
    chunk_items = max(like.n_items for like in storage.arrays.values())
    n_entries = max(n_entries, min(chunk_items, 2 * _ENTRIES) if n_entries > _WARM_ENTRIES else 0)
    values = next(iter(storage.arrays.values())).dtype
    with temporary_folder(folder, "pdex_gpu-estimate-") as own:
        if storage.form == "array":
            n_genes = sample.n_genes
            rows = max(1, n_entries // n_genes)
            shape = rows, n_genes
            data, columns, indptr_of = made_entries(
                rows, n_genes, sample.density, values, fractional=sample.fractional
            )
            dense = np.zeros(shape, values)
            dense[np.repeat(np.arange(rows), np.diff(indptr_of)), columns] = (
                _noisy(data) if noisy else data
            )
            arrays, indptr = {"values": dense}, None
        else:
            by_row = storage.form == "csr_matrix"
            minor, major = sample.n_genes, sample.n_cells
            if not by_row:
                minor, major = major, minor
            minor = min(minor, _LONGEST_LINE)
            rows = max(1, min(major, int(n_entries / (minor * sample.density)) + 1))
            data, indices, indptr = made_entries(
                rows, minor, sample.density, values, fractional=sample.fractional
            )
            shape = (rows, minor) if by_row else (minor, rows)
            kind = storage.arrays["indices"].dtype
            data = _noisy(data) if noisy else data
            arrays = {"data": data, "indices": indices.astype(kind)}
        with stored_like(storage, own, arrays, indptr, shape) as source:
            reading = Reading(parallel_map=parallel_map, n_threads=sample.n_threads)
            edges = (0, source.n_genes)

            def read() -> None:
                with source.open(edges, 1 << 62, reading) as reader:
                    reader.read(0)

            decoded = sum(array.nbytes for array in arrays.values())
            return float(source.n_bytes), float(decoded), _median(read, repeats)


def _noisy(values: np.ndarray) -> np.ndarray:
    """Return values that hardly compress."""
    rng = np.random.default_rng(2)
    if values.dtype.kind == "f":
        return (values * rng.uniform(1.0, 2.0, values.shape)).astype(values.dtype)
    return rng.integers(0, 100, values.shape).astype(values.dtype)


def _splitting_rates(
    sample: Sample, parallel_map: Map, folder: Path | None, n_entries: int, repeats: int
) -> dict[str, float]:
    """Measure ``split``, ``gather`` and ``scratch``, the last divided by the number of threads."""
    n_rows = max(1, min(sample.n_cells, int(n_entries / (sample.n_genes * sample.density)) + 1))
    rows = MadeRows(
        *made_entries(
            n_rows, sample.n_genes, sample.density, sample.dtype, fractional=sample.fractional
        ),
        sample.n_genes,
    )
    width = min(sample.width, sample.n_genes)
    edges = [*range(0, sample.n_genes, width), sample.n_genes]
    with temporary_folder(folder, "pdex_gpu-estimate-") as own:
        reading = Reading(
            parallel_map=parallel_map, n_threads=sample.n_threads, work=_WORK, scratch=own
        )
        times: dict[str, list[float]] = {"split": [], "gather": [], "to_disk": [], "from_disk": []}
        for budget, put, get in ((1 << 62, "split", "gather"), (0, "to_disk", "from_disk")):
            for _ in range(repeats):
                started = time.perf_counter()
                with RowStore(rows, edges, budget, reading) as store:
                    times[put].append(time.perf_counter() - started)
                    started = time.perf_counter()
                    for k in range(len(edges) - 1):
                        store.read(k)
                    times[get].append(time.perf_counter() - started)
    seconds = {name: statistics.median(each) for name, each in times.items()}
    extra = (
        seconds["to_disk"] - seconds["split"] + seconds["from_disk"] - seconds["gather"]
    )  # fmt: skip
    n_bytes = 2.5 * rows.nnz
    return {
        "split": seconds["split"] / rows.nnz,
        "gather": seconds["gather"] / rows.nnz,
        "scratch": max(0.0, extra) / n_bytes / sample.n_threads,
    }
