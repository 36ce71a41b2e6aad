"""An estimate of what a run will take, from a screen's sizes, without reading its matrix."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np

from ..backends.registry import BackendInfo, describe, load_kernels
from ..engines.plan import Plan
from ..engines.schedule import choose_backend_for, choose_engine
from ..errors import OptionError
from ..pipeline.empirical import mock_groups_of
from ..pipeline.output import check_output, input_files
from ..request.analysis import analysis_of
from ..request.engines import DASK, Dask
from ..request.keywords import Options, full_signature
from ..request.options import Entry, Settings, all_names
from ..request.screen import design_of, open_screen
from ..sources.base import Source
from ..sources.sizes import left_for_plan
from ..stats.registry import make_test
from ..utils.checks import check_count, check_flag, check_number
from ..utils.keywords import known_keywords_of_init
from ..utils.resources import available_memory, memory_budget
from .model import IN_MEMORY, SPLIT, Crew, MachineRates, predict
from .workload import DENSE_SHARE, Counted

if TYPE_CHECKING:
    from ..request.keywords import Data
    from .benchmark import Sample

#: Seconds until the workers of a running cluster start work: assumed, not measured.
CLUSTER_START = 5.0

_FIRST = 1 << 16  # values that are looked at, approximately

_OWN_OPTIONS = ("workers", "density", "timing", "rates")
_UNITS = ("bytes", "kB", "MB", "GB", "TB", "PB")


@known_keywords_of_init
@dataclass(frozen=True)
class Estimate:
    """The memory, disk and time that a run will take; see :func:`estimate`.

    Attributes
    ----------
    matrix : str
        Description of the matrix: ``"CSR float32 in a file"``.
    n_cells, n_genes : int
    n_stored : int
        Stored entries: nonzeros of a sparse matrix, cells x genes of a dense one.
    density : float
        Nonzeros as a share of cells x genes; assumed for a dense matrix.
    n_groups : int
        Groups of cells that are packed, references included.
    n_targets : int
        Groups that are tested: perturbations.
    n_comparisons : int
        Comparisons: rows of the result per gene.
    n_rows : int
        Rows of the result: comparisons x genes.
    way : str
        How the matrix is read: ``"in memory"``, ``"by ranges"``, ``"front to back once"`` or
        ``"front to back once, split"``.
    n_ranges : int
        Ranges of genes; 0 if the allowed memory is too small for any plan.
    file_bytes, decoded_bytes : int
        Bytes of the matrix in its file, and decoded; 0 in memory.
    scratch_bytes : tuple of int
        Least and most bytes in the scratch folder.
    result_bytes : int
        Bytes of the result in memory, even if it goes to a file and takes none.
    output_bytes, checkpoint_bytes : int
        Approximate bytes of the file that ``out=`` names, and of the checkpoint next to it while
        it is made; 0 without ``out=``.
    memory_needed : int
        Smallest ``memory=`` that is accepted, in bytes; per worker, if there are workers.
    memory_allowed : int
        Bytes that ``memory=`` allows.
    memory_used : int
        Approximate bytes of it that are used; 0 if there are too few.
    workers : int or None
        Workers of a cluster; None for one process.
    n_threads : int
        Threads that work at the same time, in this process or in each worker.
    backend, engine : str
    phases : dict of str to float
        Seconds of each phase: start, reading (and decoding), splitting, testing, finishing,
        writing; empty if not estimated.
    rates : MachineRates or None
        Constants behind the estimate of seconds.
    lacks : tuple of str
        What would run out: ``"memory"``, ``"scratch"``, ``"output"``.
    problems : tuple of str
        Sentences on what is in `lacks`, with what to do.
    assumptions : tuple of str
        Assumptions made because the matrix was not read.
    """

    matrix: str
    n_cells: int
    n_genes: int
    n_stored: int
    density: float
    n_groups: int
    n_targets: int
    n_comparisons: int
    n_rows: int
    way: str
    n_ranges: int
    file_bytes: int
    decoded_bytes: int
    scratch_bytes: tuple[int, int]
    result_bytes: int
    output_bytes: int
    checkpoint_bytes: int
    memory_needed: int
    memory_allowed: int
    memory_used: int
    workers: int | None
    n_threads: int
    backend: str
    engine: str
    phases: dict[str, float]
    rates: MachineRates | None
    lacks: tuple[str, ...]
    problems: tuple[str, ...]
    assumptions: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """Return the total seconds; None if not estimated."""
        return sum(self.phases.values()) if self.phases else None


@full_signature()
def estimate(
    data: Data,
    groupby: str | Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    density: float | None = None,
    timing: bool = True,
    rates: MachineRates | None = None,
    **options: Unpack[Options],
) -> Estimate:
    """Estimate the memory, disk and time that :func:`differential_expression` would take.

    This reads labels, names, row pointers and chunk sizes, but not the values of a file: all genes
    are assumed to have equally many nonzeros where the file does not tell. Seconds come from
    constants that are measured on this machine with synthetic data, which takes some seconds. They
    hold for a file that is read as fast as it is decoded.

    Parameters
    ----------
    data, groupby, out
        As in :func:`differential_expression`.
    workers : int, optional
        Workers of a Dask cluster, each with `n_threads` (one by default) and `memory`. By default
        there is no cluster, only this process.
    density : float, optional
        Share of nonzeros of a dense matrix; 0.2 by default.
    timing : bool
        False to measure nothing and estimate no seconds.
    rates : MachineRates, optional
        Constants measured earlier, on this machine or another: ``rates`` of an estimate.
    **options
        As in :func:`differential_expression`. ``is_log1p=False`` stands for counts, which are
        faster to rank than fractions. By default the first values decide if the matrix is in
        memory, and fractions are assumed if it is in a file.

    Returns
    -------
    Estimate

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for anything that the call itself would refuse. But too little memory
        or disk space is reported in ``problems``.

    Examples
    --------
    >>> import pdex_gpu
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> found = pdex_gpu.estimate(adata, "target_gene", timing=False)
    >>> found.n_comparisons, found.n_rows, found.way
    (4, 240, 'in memory')
    >>> found.problems
    ()
    >>> pdex_gpu.estimate("screen.h5ad", "target_gene", memory="8GB").seconds  # doctest: +SKIP
    31.4
    """
    started = time.perf_counter()
    check_count("workers", workers)
    share = "a fraction above 0 and at most 1"
    if density is not None and not 0.0 < check_number("density", density, share) <= 1.0:
        raise OptionError(f"density={density!r} must be {share}.")
    check_flag("timing", timing)
    engine, n_workers = options.get("engine"), options.get("n_workers")
    on_cluster = isinstance(engine, Dask) or (isinstance(engine, str) and engine == DASK)
    if on_cluster and workers is None:
        raise OptionError(
            "The run time with engine='dask' cannot be estimated without the size of the cluster. "
            "Pass the number of Dask workers as workers= (--dask-workers)."
        )
    if workers is not None and n_workers is not None:
        raise OptionError(
            f"n_workers={n_workers} (--workers) sets the workers of one machine, and "
            f"workers={workers} (--dask-workers) those of a Dask cluster. Pass only one."
        )
    given = {"groupby": groupby, "out": out} | options | {"progress": False}
    if workers is not None:
        given["engine"] = "auto"
    settings = Settings.of(given, Entry("estimate", (*_OWN_OPTIONS, *all_names())))
    is_log1p = settings.columns.is_log1p
    if out is not None:
        check_output(Path(out), sources=input_files(data), overwrite=True)
    test = make_test(settings.test.metric, settings.test.test_options, settings.call)
    chosen = choose_backend_for(settings, test)
    analysis = analysis_of(settings, test)
    with open_screen(data, settings) as dataset:
        design = design_of(dataset, settings)
        counted = Counted(
            settings,
            dataset.source,
            design,
            analysis,
            load_kernels(chosen.name),
            choose_engine(settings, chosen),
            workers,
            density,
            mock_groups_of(design, settings, dataset.source),
        )
        opening = time.perf_counter() - started
        allowed = left_for_plan(memory_budget(settings.execution.memory), dataset.source.n_cells)
        plan = counted.plan(allowed) if counted.fits(allowed) else None
        found = _count(counted, plan, allowed, chosen, is_log1p)
        if plan is None or not timing or not describe(chosen.name).is_timed:
            return found
        if rates is None:
            from .benchmark import measure_rates

            files = input_files(data)  # the first stands for all
            sample = _sample(counted, plan, files[0] if files else None, is_log1p)
            rates = replace(measure_rates(sample, counted.kernels), start=opening)
        crew = Crew(counted.n_threads(plan), workers, plan.n_threads, CLUSTER_START)
        return replace(found, phases=predict(counted.work(plan), rates, crew), rates=rates)


def _count(
    counted: Counted,
    plan: Plan | None,
    allowed: int,
    backend: BackendInfo,
    is_log1p: bool | None,
) -> Estimate:
    """Estimate everything but seconds; if memory is too small, for the least that suffices."""
    source, design = counted.source, counted.design
    needed = counted.least_memory()
    shown = counted.plan(max(needed, allowed)) if plan is None else plan
    lacking = _lacking(counted, shown, needed, allowed, enough=plan is not None)
    return Estimate(
        matrix=source.description,
        n_cells=source.n_cells,
        n_genes=source.n_genes,
        n_stored=int(source.nnz),
        density=counted.n_nonzero / (source.n_cells * source.n_genes),
        n_groups=design.n_groups,
        n_targets=len(set(design.targets.tolist())),
        n_comparisons=design.n_rows,
        n_rows=counted.n_rows,
        way=counted.way(shown),
        n_ranges=shown.n_ranges,
        file_bytes=int(source.n_bytes),
        decoded_bytes=counted.decoded_bytes,
        scratch_bytes=counted.scratch_bytes(shown),
        result_bytes=counted.result_bytes,
        output_bytes=counted.output_bytes,
        checkpoint_bytes=counted.checkpoint_bytes,
        memory_needed=needed,
        memory_allowed=allowed,
        memory_used=0 if plan is None else counted.used_memory(plan),
        workers=counted.workers,
        n_threads=counted.n_threads(shown) if counted.workers is None else shown.n_threads,
        backend=backend.name,
        engine=DASK if counted.workers else counted.engine,
        phases={},
        rates=None,
        lacks=tuple(lacking),
        problems=tuple(lacking.values()),
        assumptions=_assumptions(counted, shown, backend, is_log1p),
    )


def size_text(n_bytes: float) -> str:
    """Format a size like ``"1.5 GB"``: three digits at most, powers of a thousand."""
    power = 0
    size = float(n_bytes)
    while size >= 999.5 and power < len(_UNITS) - 1:
        size, power = size / 1000.0, power + 1
    return f"{size:.0f} {_UNITS[power]}" if not power else f"{size:.3g} {_UNITS[power]}"


def _lacking(
    counted: Counted, plan: Plan, needed: int, allowed: int, *, enough: bool
) -> dict[str, str]:
    """Return what would run out, with the problem in words."""
    settings = counted.settings
    found = {}
    if not enough:
        whose = "" if counted.workers is None else " by each worker"
        result = settings.output.out is None and counted.workers is None
        most = f", {size_text(counted.result_bytes)} of them for the result" if result else ""
        advice = " Write the result to a file with out= (-o), or allow" if result else " Allow"
        found["memory"] = (
            f"memory= allows {size_text(allowed)}, but at least {size_text(needed)} are needed"
            f"{whose}{most}.{advice} more memory with memory= (--memory)."
        )
    free = available_memory()
    if counted.workers is None and enough and allowed > free:
        found["memory"] = (
            f"memory= allows {size_text(allowed)}, but this machine has {size_text(free)} free. "
            f"Lower memory=: {size_text(needed)} are enough."
        )
    scratch = counted.scratch_bytes(plan)[1]
    room = _free(counted.scratch_folder)
    if scratch > room:
        found["scratch"] = (
            f"The scratch folder {str(counted.scratch_folder)!r} has {size_text(room)} free, but "
            f"up to {size_text(scratch)} are needed for data that do not fit in memory. Set "
            "scratch= (--scratch) to a folder with more room, or allow more memory with memory=."
        )
    if settings.output.out is not None:
        out = Path(settings.output.out)
        beside = counted.output_bytes + counted.checkpoint_bytes
        room = _free(out.parent)
        if beside > room:
            found["output"] = (
                f"The folder {str(out.parent)!r} has {size_text(room)} free, but the output "
                f"{out.name!r} and its checkpoint need about {size_text(beside)} while it is "
                "written. Free up space there, or use another folder."
            )
    return found


def _free(folder: Path) -> int:
    return shutil.disk_usage(folder).free


def _assumptions(
    counted: Counted, plan: Plan, backend: BackendInfo, is_log1p: bool | None
) -> tuple[str, ...]:
    found = []
    source = counted.source
    if counted.is_dense and counted.density is None:
        found.append(f"{DENSE_SHARE:.0%} of a dense matrix are not zero")
    if not (counted.is_dense or source.in_memory) and plan.n_ranges > 1 and source.read_whole:
        found.append("all genes have the same number of nonzeros")
    if source.dtype.kind == "f" and is_log1p is not False:
        whole = _first_are_whole(source)
        if whole is None:
            found.append("values have fractions (X is not read); counts would take less time")
        elif whole:
            found.append("all values are whole numbers, like the first ones")
    if counted.way(plan) == SPLIT and not counted.is_dense:
        found.append("each cell has few distinct values, so each takes one byte while kept")
    if not describe(backend.name).is_timed:
        found.append(f"no run time: there is no time model for the backend {backend.name}")
    if counted.mock is not None:
        found.append(
            f"{len(counted.mock.model_rows):,} mock groups of {counted.mock.n_cells:,} cells are "
            "compared, too, in another reading of the data"
        )
    if counted.workers is not None:
        found.append(f"{CLUSTER_START:.0f} s until the workers of a running cluster start")
        if counted.way(plan) == IN_MEMORY:
            found.append("every worker already holds the matrix")
    return tuple(found)


def _fractional(source: Source, is_log1p: bool | None) -> bool:
    """Return whether values are assumed to have fractions."""
    return source.dtype.kind == "f" and is_log1p is not False and not _first_are_whole(source)


def _first_are_whole(source: Source) -> bool | None:
    """Return whether the first values are whole numbers; None if they are not in host memory."""
    state = source.state()
    arrays = {} if state is None else state.arrays
    if "data" in arrays:
        first = arrays["data"][:_FIRST]
    elif "values" in arrays:
        first = arrays["values"][: _FIRST >> 8]
    else:
        return None
    return bool(np.all(first == np.trunc(first)))


def _form(source: Source) -> str:
    """Return the layout of entries in the chunks that the kernels get."""
    return "dense" if source.nnz == source.n_cells * source.n_genes else source.layout


def _sample(counted: Counted, plan: Plan, path: Path | None, is_log1p: bool | None) -> Sample:
    """Describe the data that the constants should be measured with."""
    from .benchmark import Sample
    from .storage import storage_of

    source = counted.source
    in_file = not source.in_memory
    out = counted.settings.output.out
    return Sample(
        n_cells=source.n_cells,
        n_genes=source.n_genes,
        density=max(counted.n_nonzero, 1.0) / (source.n_cells * source.n_genes),
        dtype=source.dtype,
        fractional=_fractional(source, is_log1p),
        width=int(max(np.diff(plan.edges))),
        form=_form(source),
        design=counted.design,
        analysis=counted.analysis,
        n_threads=counted.n_threads(plan),
        suffix=None if out is None else Path(out).suffix.lower(),
        storage=storage_of(path, counted.settings.data.choice) if in_file else None,
        in_file=in_file,
        split=counted.way(plan) == SPLIT and not counted.is_dense,
    )
