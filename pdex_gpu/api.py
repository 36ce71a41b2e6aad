"""One call from a screen to its results: validate, plan, run, finish."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from .backends.contract import KernelSet, NonFiniteError
from .backends.registry import BackendInfo, choose_backend, load_engine, load_kernels
from .design import Design, make_design
from .disk import writing
from .engines.base import Job
from .errors import (
    DataError,
    DuplicateGeneWarning,
    FileFormatError,
    UnsupportedDataError,
    listing,
)
from .fdr import FileColumn, adjust
from .finish import Scale, finish, finish_blocks
from .identity import run_identity
from .machine import cpu_count, memory_budget
from .output import check_output, check_space, input_file, write_output
from .pools import Map, pool_map
from .progress import Progress, Tracker
from .provenance import make_provenance
from .result import DEResult
from .result_file import ResultFile
from .schedule import choose_engine, make_schedule
from .settings import Settings, check_settings
from .sinks.checkpoint import Checkpoint, open_checkpoint
from .sinks.files import CheckpointSink, StoredPValues, StoredResults
from .sinks.memory import MemorySink, check_result_size
from .sources.base import NotCanonicalError, Reading, Source, UnevenError
from .sources.dataset import Dataset, open_dataset
from .stats.base import StatisticalTest, make_test
from .table import Table

if TYPE_CHECKING:
    import anndata
    import pyarrow

logger = logging.getLogger("pdex_gpu")


@overload
def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str,
    *,
    out: None = None,
    **options: Any,
) -> DEResult: ...


@overload
def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str,
    *,
    out: str | os.PathLike[str],
    **options: Any,
) -> ResultFile: ...


def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str,
    *,
    reference: object = "non-targeting",
    groups: Iterable[object] | None = None,
    metric: str = "wilcoxon",
    layer: str | None = None,
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    restart: bool = False,
    backend: str = "auto",
    engine: str = "auto",
    memory: str | float | int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    device: int | None = None,
    device_memory: str | float | int | None = None,
    n_workers: int | None = None,
    n_threads: int | None = None,
    gene_chunk_size: int | None = None,
    is_log1p: bool | None = None,
    exp_post_agg: bool = True,
    clip_value: float | None = 20.0,
    progress: bool | Callable[[Progress], object] = True,
    **test_options: Any,
) -> DEResult | ResultFile:
    """Compare groups of cells with a reference group, gene by gene.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike or file object
        A screen: an AnnData, in memory, backed, a view of a backed one, or with a dask array in X
        or the layer; the path of an h5ad file or a zarr store (folder or .zip); or an h5ad file
        opened with ``open(path, "rb")`` or the like, which stays open. X may be dense, CSR or CSC,
        of any integer or float dtype; integers up to 64 bits are ranked exactly.
    groupby : str
        Column of obs with the group of each cell. Cells without a label are left out.
    reference : object
        Group that the others are compared with.
    groups : iterable, optional
        Groups to compare, in this order; by default all but the reference, sorted.
    metric : {"wilcoxon", "anderson", "t-test"}
        Wilcoxon rank-sum (Mann-Whitney U), two-sample Anderson-Darling, or t-test.
    layer : str, optional
        Layer to use instead of X.
    out : str or os.PathLike, optional
        File to write the results to as they are made: ``.parquet``, ``.csv`` or ``.tsv``. The
        table is never held in memory. What is computed is kept beside the file, in the folder
        ``.NAME.checkpoint``, until the file is complete: after a crash the same call carries on,
        and the file has the same bytes. It gets its name when it is complete.
    force : bool
        Replace `out` if it exists; it stays as it is until the new one is complete.
    restart : bool
        Throw away what an earlier, unfinished call left beside `out`.
    backend : {"auto", "cpu", "reference", "cuda"}
        ``"auto"`` takes the first that can run here, or what ``PDEX_GPU_BACKEND`` names.
    engine : {"auto", "threads", "shared_memory", "serial"}
        How the work is spread; ``"auto"`` is threads.
    memory : str, int or float, optional
        Memory to use beyond an input that is in memory: ``"4GB"``, bytes, or a fraction of what
        is free. Half of what is free by default.
    scratch : str or os.PathLike, optional
        Folder for what does not fit in memory while a file is read; the system's temporary one by
        default.
    device : int, optional
        Number of the CUDA device to use; by default the first that can be used. Where it is
        given, ``backend="auto"`` takes CUDA or raises.
    device_memory : str, int or float, optional
        Memory to use on the CUDA device: a size as for `memory`, or a fraction of what is free
        there; 0.9 by default.
    n_workers : int, optional
        Ranges of genes worked on at once (in the shared-memory engine: processes).
    n_threads : int, optional
        Threads on each range. By default all processors that affinity and cgroups allow.
    gene_chunk_size : int, optional
        Most genes in a range.
    is_log1p : bool, optional
        Whether values are ``log1p`` of counts, so that means are given in count space. By
        default true if some value of the compared cells has a fractional part above 0.001.
    exp_post_agg : bool
        If `is_log1p`: ``expm1`` of the mean (true) or mean of ``expm1`` (false).
    clip_value : float, optional
        Fold change where the reference mean is 0, and its inverse where the target's is; None
        for NaN and 0.
    progress : bool or callable
        Show a progress bar on long runs; or a function that is given a
        :class:`pdex_gpu.progress.Progress` now and then.
    **test_options
        Options of the test as scipy names them: ``use_continuity``, ``alternative``, ``method``
        (`scipy.stats.mannwhitneyu`), ``equal_var``, ``alternative`` (`ttest_ind`), ... Those
        without a compiled kernel run through scipy, pair by pair; a log line says so.

    Returns
    -------
    DEResult
        Or a :class:`ResultFile`, with `out`: where the table is, and its labels.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for every input that cannot be used; see :mod:`pdex_gpu.errors`.

    Examples
    --------
    >>> result = differential_expression("screen.h5ad", "target_gene")  # doctest: +SKIP
    >>> result.to_parquet("results.parquet")  # doctest: +SKIP

    A table too large for memory:

    >>> differential_expression(  # doctest: +SKIP
    ...     "screen.h5ad", "target_gene", out="results.parquet", memory="8GB"
    ... )
    """
    return compare(
        data,
        Settings(
            groupby=groupby,
            reference=reference,
            groups=groups,
            metric=metric,
            layer=layer,
            out=out,
            force=force,
            restart=restart,
            backend=backend,
            engine=engine,
            memory=memory,
            scratch=scratch,
            device=device,
            device_memory=device_memory,
            n_workers=n_workers,
            n_threads=n_threads,
            gene_chunk_size=gene_chunk_size,
            is_log1p=is_log1p,
            exp_post_agg=exp_post_agg,
            clip_value=clip_value,
            progress=progress,
            test_options=test_options,
        ),
    )


@dataclass(frozen=True)
class _Call:
    """A call whose data are open: all that is settled before anything is computed."""

    settings: Settings
    dataset: Dataset
    design: Design
    test: StatisticalTest
    backend: BackendInfo
    kernels: KernelSet
    engine: str
    budget: int
    run: Map

    @property
    def expm1(self) -> bool:
        """Whether means of ``expm1(x)`` may be needed."""
        return not self.settings.exp_post_agg and self.settings.is_log1p is not False

    def tracker(self, *, n_rows: int = 0, done_genes: int = 0) -> Tracker:
        source = self.dataset.source
        return Tracker(
            self.settings.progress,
            description=self.settings.metric,
            total_bytes=source.n_bytes,
            total_genes=source.n_genes,
            total_rows=n_rows,
            done_genes=done_genes,
        )

    def provenance(self, is_log1p: bool) -> dict[str, Any]:
        return make_provenance(
            self.settings, self.dataset, self.design, self.test, self.backend, self.engine, is_log1p
        )


def compare(data: Any, settings: Settings) -> DEResult | ResultFile:
    """Run a comparison; both public calls end here, so warnings are attributed to their caller."""
    started = time.perf_counter()
    check_settings(settings)
    if settings.out is not None:
        check_output(Path(settings.out), source=input_file(data), overwrite=settings.force)
    test = make_test(settings.metric, settings.test_options)
    backend = _choose_backend(settings, test)
    engine = choose_engine(settings, backend)
    if engine == "shared_memory" and settings.n_processes is not None:
        settings = replace(settings, n_workers=settings.n_processes)
    kernels = load_kernels(backend.name, settings.device, settings.device_memory)
    with open_dataset(data, settings.groupby, settings.layer) as dataset:
        _check_matrix(dataset)
        _check_place(dataset, test, backend, settings.layer)
        repeated = [gene for gene, n in Counter(dataset.genes).items() if n > 1]
        if repeated:
            warnings.warn(
                f"{len(repeated)} gene names occur more than once: {listing(repeated)}; every "
                "column is tested on its own.",
                DuplicateGeneWarning,
                stacklevel=3,
            )
        design = make_design(
            dataset.labels.codes,
            dataset.labels.categories,
            reference=settings.reference,
            groups=settings.groups,
            column=settings.groupby,
        )
        with ThreadPoolExecutor(settings.n_threads or cpu_count(), "pdex_gpu") as pool:
            budget, run = memory_budget(settings.memory), pool_map(pool)
            call = _Call(settings, dataset, design, test, backend, kernels, engine, budget, run)
            if settings.out is not None:
                return _into_file(call, Path(settings.out))
            result = _in_memory(call)
    result.provenance["seconds"] = round(time.perf_counter() - started, 6)
    return result


def _in_memory(call: _Call) -> DEResult:
    settings, source = call.settings, call.dataset.source
    check_result_size(call.design.n_groups, source.n_genes, call.budget)
    sink = MemorySink(call.design.n_groups, source.n_genes, call.expm1, call.run)
    with call.tracker() as tracker:
        _run(call, source, sink, tracker)
        sink.check_complete()
        is_log1p = _is_log1p(sink.fractional, settings)
        columns = finish(
            sink,
            call.kernels,
            call.run,
            is_log1p=is_log1p,
            exp_post_agg=settings.exp_post_agg,
            clip_value=settings.clip_value,
        )
    design = call.design
    return DEResult(
        design.targets, design.reference, call.dataset.genes, columns, call.provenance(is_log1p)
    )


def _into_file(call: _Call, out: Path) -> ResultFile:
    """Compute what an earlier call has not, keeping each range, then write the file."""
    settings, dataset, design = call.settings, call.dataset, call.design
    fields = ("mean", "statistic", "p_value", *(("mean_expm1",) if call.expm1 else ()))
    identity = run_identity(settings, dataset, design, call.test, call.backend)
    shape = design.n_groups, dataset.source.n_genes
    with open_checkpoint(out, identity, fields, *shape, restart=settings.restart) as checkpoint:
        try:
            finished = checkpoint.finished(out)
            if finished is None:
                check_space(out, checkpoint)
                is_log1p = _fill_file(call, checkpoint, out)
            else:
                logger.info("%s is complete: only its checkpoint was left to remove", out)
                is_log1p = finished["is_log1p"]
        except BaseException as error:
            if checkpoint.ranges:
                error.add_note(
                    f"What was computed is kept in {str(checkpoint.folder)!r}; the same call "
                    "carries on with it."
                )
            else:
                checkpoint.remove()
            raise
        checkpoint.remove()
    return ResultFile(
        out, design.targets, design.reference, dataset.genes, call.provenance(is_log1p)
    )


def _fill_file(call: _Call, checkpoint: Checkpoint, out: Path) -> bool:
    """Compute, adjust and write; returns whether values were taken as log1p."""
    settings, dataset, design = call.settings, call.dataset, call.design
    sink = CheckpointSink(checkpoint)
    n_done, n_genes = int(sink.stored.sum()), len(sink.stored)
    n_rows = len(design.targets) * n_genes
    if n_done:
        logger.info(
            "resuming: %s of %s genes are done in %s", f"{n_done:,}", f"{n_genes:,}",
            checkpoint.folder, extra={"notice": True},
        )  # fmt: skip
    with call.tracker(n_rows=n_rows, done_genes=n_done) as tracker:
        if n_done < n_genes:
            source = dataset.source
            try:
                _run(call, source.canonical() if checkpoint.canonical else source, sink, tracker)
            except (DataError, FileFormatError):
                checkpoint.remove()  # these data give no table, and others are another run
                raise
        sink.check_complete()
        is_log1p = _is_log1p(sink.fractional, settings)
        scale = Scale(is_log1p, settings.exp_post_agg, settings.clip_value)
        results = StoredResults(checkpoint)
        table = Table(design.targets, design.reference, dataset.genes, call.provenance(is_log1p))
        with checkpoint.unnamed_file() as file:
            fdr = FileColumn(file, n_rows)
            with writing("The false discovery rates of", out):
                p_values = StoredPValues(results)
                adjust(p_values, fdr, call.kernels, call.run, budget=call.budget // 2)

            def parts() -> Iterator[pyarrow.Table]:
                for targets, columns in finish_blocks(
                    results, fdr, scale, table.blocks(), call.run
                ):
                    yield table.arrow(targets, columns)
                    tracker.wrote((targets.stop - targets.start) * n_genes)

            write_output(out, checkpoint, table, parts(), is_log1p=is_log1p)
    return is_log1p


def _check_matrix(dataset: Dataset) -> None:
    source = dataset.source
    if source.n_genes == 0 or source.n_cells == 0:
        raise DataError(
            f"The matrix is empty: {source.n_cells} cells x {source.n_genes} genes "
            f"({dataset.description}). Check the filters that were applied to it."
        )


def _check_place(
    dataset: Dataset, test: StatisticalTest, backend: BackendInfo, layer: str | None
) -> None:
    """Raise UnsupportedDataError if the matrix lies where the backend cannot read it."""
    if not dataset.source.on_device or backend.name == "cuda":
        return
    what, place = ("X", "X") if layer is None else (f"layer {layer!r}", f"layers[{layer!r}]")
    if test.why_reference is None:
        advice = f"({backend.reason}). Use backend='cuda'"
    else:  # the CUDA backend, too, hands over to the reference kernel set
        advice = f"({test.why_reference}). Leave that option out and use backend='cuda'"
    raise UnsupportedDataError(
        f"{what} is on a CUDA device ({dataset.source.description}), but backend "
        f"{backend.name!r} reads host memory {advice}, or move it: "
        f"adata.{place} = adata.{place}.get()."
    )


def _choose_backend(settings: Settings, test: StatisticalTest) -> BackendInfo:
    backend = choose_backend(settings.backend, settings.device)
    if test.why_reference is not None and backend.name != "reference":
        reference = choose_backend("reference")
        reason = f"{backend.name} cannot run {settings.metric} with {test.why_reference}"
        logger.warning("using the reference kernel set (one scipy call a pair, slow): %s", reason)
        backend = BackendInfo("reference", True, reason, reference.device, reference.engines)
    else:
        logger.info("backend %s (%s): %s", backend.name, backend.device, backend.reason)
    return backend


def _run(call: _Call, source: Source, sink: MemorySink | CheckpointSink, tracker: Tracker) -> None:
    """Compute the genes that the sink has not."""
    settings, dataset, design = call.settings, call.dataset, call.design
    scratch = None if settings.scratch is None else Path(settings.scratch)
    while True:
        plan = make_schedule(
            source,
            design.n_groups,
            call.kernels,
            call.engine,
            settings,
            sink,
            call.budget,
            call.run,
        )
        sink.expect(plan.edges)
        logger.info(
            "%s: %d targets against %r, %d cells x %d genes (%s), %d ranges, engine %s with "
            "%d workers x %d threads",
            settings.metric, len(design.targets), str(design.reference), source.n_cells,
            source.n_genes, source.description, len(plan.todo), call.engine, plan.n_workers,
            plan.n_threads,
        )  # fmt: skip
        reading = Reading(
            advance=tracker.read,
            scratch=scratch,
            wanted=frozenset(plan.todo),
            work=plan.work,
            most_entries=plan.most_entries,
        )
        job = Job(
            source, design, call.kernels, call.test, plan, call.expm1, sink, tracker.tested, reading
        )
        try:
            load_engine(call.engine).run(job)
        except UnevenError as error:
            logger.info("%s: planning anew from what was counted, and reading again", error)
            tracker.restart()
            continue
        except NotCanonicalError as error:
            logger.info("%s: sorting a copy and summing duplicates, then starting over", error)
            canonical = source.canonical()
            if canonical is source:
                raise
            source = canonical
            sink.start_over()
            tracker.restart()
            continue
        except NonFiniteError as error:
            what = "X" if settings.layer is None else f"layer {settings.layer!r}"
            text = (
                f"{what} is {error.value} in cell {dataset.cell_name(error.cell)!r} (row "
                f"{error.cell}), gene {str(dataset.genes[error.gene])!r} (column {error.gene}). "
                "Tests need finite values: replace it or remove the cell or gene."
            )
            if np.isnan(error.value) and settings.metric != "anderson":
                text += " Or give nan_policy='omit', which leaves NaN out."
            raise DataError(text) from error
        return


def _is_log1p(fractional: bool, settings: Settings) -> bool:
    if settings.is_log1p is not None:
        return bool(settings.is_log1p)
    found = "some values have fractional parts" if fractional else "values are whole numbers"
    logger.info("is_log1p=%s: %s", fractional, found)
    return fractional
