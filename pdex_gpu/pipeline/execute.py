"""One call, from a screen to its results: validate, plan, run, finish."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..backends.contract import KernelSet, NonFiniteError
from ..backends.registry import BackendInfo, find, load_engine, load_kernels, on_host
from ..columns.filters import Filters, find_kept
from ..columns.finish import Scale, StoredFinish, finish, read_stored
from ..columns.measure import Analysis, make_analysis
from ..design.contrasts import Design
from ..design.naming import Within
from ..design.own_genes import own_genes
from ..engines.base import Job
from ..engines.schedule import choose_backend_for, choose_engine, make_schedule
from ..errors import (
    DataError,
    DuplicateGeneWarning,
    FileFormatError,
    UnsupportedDataError,
    listing,
    warn,
)
from ..request.options import Settings
from ..request.screen import design_of, open_screen
from ..results.file import ResultFile
from ..results.memory import DEResult
from ..results.schema import HIT_FDR
from ..results.table import Table
from ..sinks.checkpoint import Checkpoint, open_checkpoint
from ..sinks.checkpoint_sink import CheckpointSink, StoredResults
from ..sinks.memory import MemorySink, check_result_size
from ..sources.base import NotCanonicalError, Reading, Source, UnevenError
from ..sources.dataset import Dataset
from ..sources.sizes import left_for_plan
from ..stats.multitest.correction import StoredCorrection
from ..stats.multitest.external_sort import FileColumn
from ..stats.registry import make_test
from ..stats.two_sample.base import StatisticalTest
from ..utils.atomic_files import writing
from ..utils.parallel import Map, pool_map
from ..utils.progress import Tracker
from ..utils.resources import cpu_count, memory_budget
from ..utils.value_summary import ValueSummary
from .identity import run_identity
from .output import check_output, check_space, input_file, write_output
from .provenance import make_provenance
from .value_scale import ValueScale, doubt, value_scale

if TYPE_CHECKING:
    import pyarrow

    from ..engines.dask.cluster import Cluster

logger = logging.getLogger("pdex_gpu")


_ABOUT_NAN = {
    True: " Or pass nan_policy='omit' (--nan-policy omit), which ignores NaN.",
    False: " Or use pdex_gpu.differential_expression with nan_policy='omit', which ignores NaN.",
}


@dataclass(frozen=True)
class _Call:
    """A call with its data open: everything that is decided before the computation starts."""

    settings: Settings
    dataset: Dataset
    design: Design
    analysis: Analysis
    filters: Filters
    backend: BackendInfo
    kernels: KernelSet
    engine: str
    budget: int
    run: Map
    cluster: Cluster | None

    @property
    def within(self) -> Within | None:
        """Return the label columns whose levels each row is compared within."""
        levels, names = self.design.within, self.settings.comparison.within_columns
        return None if levels is None else (names[0] if len(names) == 1 else names, levels)

    def scale(self, values: ValueScale) -> Scale:
        settings = self.settings
        return Scale(
            values.is_log1p,
            settings.columns.exp_post_agg,
            settings.columns.clip_value,
            float(settings.columns.pseudocount),
            values.negative,
        )

    def filters_on(self, values: ValueScale) -> Filters:
        """Return the filters that make sense for these values."""
        return replace(self.filters, min_cpm=None) if values.negative else self.filters

    def tracker(self, *, n_rows: int = 0, done_genes: int = 0) -> Tracker:
        source = self.dataset.source
        return Tracker(
            self.settings.output.progress,
            description=self.analysis.test.metric,
            total_bytes=source.n_bytes,
            total_genes=source.n_genes,
            total_rows=n_rows,
            done_genes=done_genes,
        )

    def provenance(self, values: ValueScale, removed: Mapping[str, int]) -> dict[str, Any]:
        return make_provenance(
            self.settings,
            self.dataset,
            self.design,
            self.analysis,
            self.backend,
            self.engine,
            values,
            removed,
            self.filters.own_gene,
        )


def compare(data: Any, settings: Settings) -> DEResult | ResultFile:
    """Run a comparison."""
    started = time.perf_counter()
    if settings.output.out is not None:
        check_output(
            Path(settings.output.out),
            source=input_file(data),
            overwrite=settings.output.force,
            spreadsheet_safe=settings.table.spreadsheet_safe,
        )
    test = make_test(settings.test.metric, settings.test.test_options, settings.call)
    with _cluster_of(settings) as cluster:
        # All backends adjust the workers' p-values to the same bits.
        backend = on_host() if cluster is not None else choose_backend_for(settings, test)
        engine = choose_engine(settings, backend)
        if engine == "shared_memory" and settings.execution.n_processes is not None:
            settings = settings.changed(n_workers=settings.execution.n_processes)
        elif "shared_memory" in backend.engines and (settings.execution.n_processes or 1) > 1:
            # Processes cannot be started here: use as many threads instead.
            assert settings.execution.n_processes is not None
            n_threads = settings.execution.n_processes * (settings.execution.n_threads or 1)
            settings = settings.changed(n_threads=n_threads)
        if isinstance(settings.comparison.groups, Iterator):  # workers iterate over it again
            settings = settings.changed(groups=tuple(settings.comparison.groups))
        on_device = (
            ()
            if cluster is not None
            else (settings.execution.device, settings.execution.device_memory)
        )
        kernels = load_kernels(backend.name, *on_device)
        analysis = make_analysis(
            test,
            settings.columns.columns,
            is_log1p=settings.columns.is_log1p,
            exp_post_agg=settings.columns.exp_post_agg,
            stratified=settings.comparison.strata is not None,
            expressed=settings.filters.min_fraction is not None,
            count_means=settings.filters.min_cpm is not None,
            level=float(settings.columns.confidence),
        )
        with open_screen(data, settings) as dataset:
            if cluster is not None:
                cluster.prepare(data, dataset, settings, test)
                backend = cluster.backend
            _check_place(dataset, test, backend, settings)
            repeated = [gene for gene, n in Counter(dataset.genes).items() if n > 1]
            if repeated:
                warn(
                    f"{len(repeated)} gene names occur more than once: {listing(repeated)}. Each "
                    "column is tested separately.",
                    DuplicateGeneWarning,
                )
            matrices = dataset.matrices()  # now: damage must show before the output is written
            design = design_of(dataset, settings)
            filters = Filters(
                settings.filters.min_fraction,
                settings.filters.min_cpm,
                settings.filters.filter_sides == "either",
                _own_genes(dataset, settings, design),
            )
            with ThreadPoolExecutor(
                settings.execution.n_threads or cpu_count(), "pdex_gpu"
            ) as pool:
                allowed, run = memory_budget(settings.execution.memory), pool_map(pool)
                budget = left_for_plan(allowed, dataset.source.n_cells)
                call = _Call(
                    settings,
                    dataset,
                    design,
                    analysis,
                    filters,
                    backend,
                    kernels,
                    engine,
                    budget,
                    run,
                    cluster,
                )
                result: DEResult | ResultFile
                if settings.output.out is not None:
                    result, values = _into_file(call, Path(settings.output.out))
                else:
                    result, values = _in_memory(call)
                    result.provenance["seconds"] = round(time.perf_counter() - started, 6)
            doubtful = doubt(values, settings, matrices)
            if doubtful is not None:
                warn(doubtful)
    return result


@contextmanager
def _cluster_of(settings: Settings) -> Iterator[Cluster | None]:
    """Connect to the Dask cluster that a call asks for; yield None if it asks for none."""
    if settings.execution.engine != "dask":
        yield None
        return
    from ..engines.dask.connect import connected

    with connected(settings.execution.client) as client:
        from ..engines.dask.cluster import Cluster

        with Cluster(client) as cluster:
            yield cluster


def _in_memory(call: _Call) -> tuple[DEResult, ValueScale]:
    settings, design, source = call.settings, call.design, call.dataset.source
    fields = call.analysis.fields(design)
    n_further = len(call.analysis.columns)
    check_result_size(fields, design.n_rows, n_further, source.n_genes, call.budget)
    sink = MemorySink(fields, source.n_genes, call.run)
    if call.cluster is not None:
        call.cluster.use(None)
    with call.tracker() as tracker:
        try:
            _run(call, source, sink, tracker)
        finally:
            if call.cluster is not None:
                call.cluster.remove_split()
        sink.check_complete()
        values = value_scale(sink.summary, settings)
        finished = finish(
            sink,
            design,
            call.kernels,
            call.run,
            scale=call.scale(values),
            columns=call.analysis.columns,
            correction=settings.correction,
            filters=call.filters_on(values),
        )
    result = DEResult(
        design.targets,
        design.references,
        call.dataset.genes,
        finished.columns,
        call.provenance(values, finished.removed),
        within=call.within,
        kept=finished.kept,
    )
    return result, values


def _into_file(call: _Call, out: Path) -> tuple[ResultFile, ValueScale]:
    """Compute what an earlier call did not, storing each range, then write the file."""
    settings, dataset, design = call.settings, call.dataset, call.design
    fields = call.analysis.fields(design)
    identity = run_identity(settings, dataset, design, call.analysis, call.backend)
    n_genes = dataset.source.n_genes
    with open_checkpoint(
        out, identity, fields, n_genes, restart=settings.output.restart, run=call.run
    ) as checkpoint:
        if call.cluster is not None:
            call.cluster.use(checkpoint)
        try:
            finished = checkpoint.finished(out)
            # Filters must be evaluated again, from the stored ranges.
            if finished is not None and (checkpoint.complete or not call.filters.any):
                logger.info("%s is complete; only its checkpoint had to be removed", out)
                summary = ValueSummary(**finished["values"])
                written = _kept(call, checkpoint, value_scale(summary, settings))
                n_hits = np.array(finished["n_hits"], dtype=np.int64)
            else:
                check_space(out, checkpoint)
                written, n_hits = _fill_file(call, checkpoint, out)
        except BaseException as error:
            if checkpoint.worth_keeping:
                error.add_note(
                    f"Finished results are kept in {str(checkpoint.folder)!r}; the same call "
                    "resumes from there."
                )
            else:
                checkpoint.remove()
            raise
        checkpoint.remove()
    result = ResultFile(
        out,
        design.targets,
        design.references,
        dataset.genes,
        call.provenance(written.values, written.removed),
        columns=call.analysis.columns,
        within=call.within,
        kept=written.kept,
        n_hits=n_hits,
    )
    return result, written.values


@dataclass(frozen=True)
class _Written:
    """The facts known once everything is stored: the scale, and which pairs are kept."""

    values: ValueScale
    kept: np.ndarray | None
    removed: dict[str, int]


def _kept(call: _Call, checkpoint: Checkpoint, values: ValueScale) -> _Written:
    results = StoredResults(checkpoint)

    read = read_stored(results, call.design, call.run)
    mean = call.scale(values).count_mean
    shape = call.design.n_rows, checkpoint.n_genes
    return _Written(values, *find_kept(call.filters_on(values), *shape, read, mean))


def _fill_file(call: _Call, checkpoint: Checkpoint, out: Path) -> tuple[_Written, np.ndarray]:
    """Compute, adjust and write; also return the number of hits per comparison."""
    settings, dataset, design = call.settings, call.dataset, call.design
    checkpoint.warn_of_damage()
    sink = CheckpointSink(checkpoint)
    n_done, n_genes = int(sink.stored.sum()), len(sink.stored)
    n_rows = design.n_rows * n_genes
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
                checkpoint.remove()  # these data give no table; changed data are a new run
                if call.cluster is not None:
                    call.cluster.remove_split()
                raise
        sink.check_complete()
        if call.cluster is not None:
            call.cluster.remove_split()
        found = _kept(call, checkpoint, value_scale(sink.summary, settings))
        table = Table(
            design.targets,
            design.references,
            dataset.genes,
            call.provenance(found.values, found.removed),
            columns=call.analysis.columns,
            within=call.within,
            kept=found.kept,
            spreadsheet_safe=settings.table.spreadsheet_safe,
        )
        n_kept = n_rows if found.kept is None else int(np.count_nonzero(found.kept))
        with (
            checkpoint.unnamed_file() as file,
            ThreadPoolExecutor(1, "pdex_gpu-ahead") as ahead,
        ):
            results = StoredResults(checkpoint)
            column = FileColumn(file, n_kept)
            fdr = StoredCorrection(results, found.kept, settings.correction, column)
            with writing("The false discovery rates of", out):
                fdr.prepare(call.kernels, call.run, call.budget // 2)
            scale = call.scale(found.values)
            made = StoredFinish(results, design, scale, call.analysis.columns, found.kept, fdr)
            n_hits = np.zeros(design.n_rows, dtype=np.int64)

            def parts() -> Iterator[pyarrow.Table]:
                for rows, columns in made.blocks(table.blocks(), call.run, ahead):
                    n_hits[rows] = np.count_nonzero(columns["fdr"] <= HIT_FDR, axis=1)
                    yield table.arrow(rows, columns)
                    tracker.wrote((rows.stop - rows.start) * n_genes)

            summary = asdict(found.values.summary)
            write_output(
                out, checkpoint, table, parts(),
                facts=lambda: {"values": summary, "n_hits": n_hits.tolist()},
            )  # fmt: skip
    return found, n_hits


def _own_genes(dataset: Dataset, settings: Settings, design: Design) -> np.ndarray | None:
    if settings.comparison.on_target is None:
        return None
    return own_genes(
        dataset.labels,
        dataset.column(settings.comparison.on_target),
        dataset.genes,
        design,
        settings.comparison.group_column,
        settings.comparison.on_target,
    )


def _check_place(
    dataset: Dataset, test: StatisticalTest, backend: BackendInfo, settings: Settings
) -> None:
    """Raise UnsupportedDataError if the backend cannot read the memory that the matrix is in."""
    if not dataset.source.on_device:
        return
    described = find(backend.name)
    several = settings.execution.device is not None and len(backend.devices) > 1
    if described is not None and described.reads_device_memory and not several:
        return
    layer = settings.data.layer
    what, place = ("X", "X") if layer is None else (f"layer {layer!r}", f"layers[{layer!r}]")
    if several:
        raise UnsupportedDataError(
            f"{what} is on one CUDA device ({dataset.source.description}) and is used there, but "
            f"device={settings.execution.device!r} asks for {len(backend.devices)} devices. Pass "
            f"the number of that device as device=, or move the matrix: adata.{place} = "
            f"adata.{place}.get()."
        )
    if test.why_numpy is None:
        advice = f"({backend.reason}). Use backend='cuda'"
    else:  # with that option, the CUDA backend would give way to numpy, too
        advice = f"({test.why_numpy}). Leave that option out and use backend='cuda'"
    raise UnsupportedDataError(
        f"{what} is on a CUDA device ({dataset.source.description}), but backend "
        f"{backend.name!r} reads host memory {advice}, or move the matrix: "
        f"adata.{place} = adata.{place}.get()."
    )


def _run(call: _Call, source: Source, sink: MemorySink | CheckpointSink, tracker: Tracker) -> None:
    """Compute the genes that the sink does not have yet."""
    settings, dataset, design = call.settings, call.dataset, call.design
    scratch = None if settings.execution.scratch is None else Path(settings.execution.scratch)
    while True:
        if call.cluster is not None:
            plan = call.cluster.plan(
                source, call.analysis.width(design), call.kernels, settings, sink, call.run
            )
        else:
            plan = make_schedule(
                source,
                call.analysis.width(design),
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
            call.analysis.test.metric, design.n_rows, str(design.reference), source.n_cells,
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
        job = Job(source, design, call.kernels, call.analysis, plan, sink, tracker.tested, reading,
                  call.cluster)  # fmt: skip
        try:
            load_engine(call.engine).run(job)
        except UnevenError as error:
            logger.info("%s: planning again from the counted values, then rereading", error)
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
            what = "X" if settings.data.layer is None else f"layer {settings.data.layer!r}"
            text = (
                f"{what} is {error.value} in cell {dataset.cell_name(error.cell)!r} (row "
                f"{error.cell}), gene {str(dataset.genes[error.gene])!r} (column {error.gene}). "
                "Tests need finite values: replace the value, or remove the cell or the gene."
            )
            if np.isnan(error.value):
                text += _ABOUT_NAN[settings.entry.takes_nan_policy]
            raise DataError(text) from error
        return
