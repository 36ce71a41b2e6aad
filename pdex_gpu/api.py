"""The main call, from a screen to its results: validate, plan, run, finish."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, overload

import numpy as np

from .analysis import Analysis, make_analysis
from .backends.contract import KernelSet, NonFiniteError
from .backends.registry import BackendInfo, backends, load_engine, load_kernels, n_devices
from .correction import StoredCorrection
from .design import Design
from .disk import writing
from .engines.base import Job
from .errors import (
    DataError,
    DuplicateGeneWarning,
    FileFormatError,
    UnsupportedDataError,
    listing,
    warn,
)
from .fdr import FileColumn
from .finish import Scale, StoredFinish, finish, read_stored
from .identity import run_identity
from .kept import Filters, find_kept
from .machine import cpu_count, memory_budget
from .naming import Within
from .on_target import own_genes
from .opening import design_of, open_screen
from .output import check_output, check_space, input_file, write_output
from .pools import Map, pool_map
from .progress import Progress, Tracker
from .provenance import make_provenance
from .result import DEResult
from .result_file import ResultFile
from .schedule import choose_backend_for, choose_engine, make_schedule
from .schema import HIT_FDR
from .settings import Settings, check_settings
from .sinks.checkpoint import Checkpoint, open_checkpoint
from .sinks.files import CheckpointSink, StoredResults
from .sinks.memory import MemorySink, check_result_size
from .sources.base import NotCanonicalError, Reading, Source, UnevenError
from .sources.dataset import Dataset
from .sources.sizes import left_for_plan
from .stats.base import StatisticalTest, make_test
from .table import Table
from .value_scale import ValueScale, doubt, value_scale
from .value_summary import ValueSummary

if TYPE_CHECKING:
    import anndata
    import pyarrow

    from .cluster.run import Cluster

logger = logging.getLogger("pdex_gpu")

_ABOUT_NAN = {
    True: " Or pass nan_policy='omit' (--nan-policy omit), which ignores NaN.",
    False: " Or use pdex_gpu.differential_expression with nan_policy='omit', which ignores NaN.",
}
VALUES_PER_GROUP = 3  # a mean, a statistic and a p-value


@overload
def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str | Sequence[str] | None = None,
    *,
    out: None = None,
    **options: Any,
) -> DEResult: ...


@overload
def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str | Sequence[str] | None = None,
    *,
    out: str | os.PathLike[str],
    **options: Any,
) -> ResultFile: ...


def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str | Sequence[str] | None = None,
    *,
    reference: object = "non-targeting",
    groups: Iterable[object] | None = None,
    comparison: str = "reference",
    pairs: Any = None,
    guides: str | None = None,
    on_target: str | None = None,
    strata: str | None = None,
    columns: str | Iterable[str] = (),
    confidence: float = 0.95,
    pseudocount: float = 1e-9,
    fdr_method: str = "benjamini-hochberg",
    fdr_scope: str = "all",
    min_cells: int = 1,
    min_fraction: float | None = None,
    min_cpm: float | None = None,
    metric: str = "wilcoxon",
    layer: str | None = None,
    allow: str | Collection[str] = (),
    out: str | os.PathLike[str] | None = None,
    force: bool = False,
    restart: bool = False,
    spreadsheet_safe: bool = False,
    backend: str = "auto",
    engine: str = "auto",
    client: Any = None,
    memory: str | float | int | None = None,
    scratch: str | os.PathLike[str] | None = None,
    device: int | Sequence[int] | str | None = None,
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
    """Compare groups of cells, gene by gene: with a reference, each other, or the rest.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike or file object
        A screen. Either an AnnData: in memory, backed, a view of a backed one, read by
        ``anndata.experimental.read_lazy``, or with a dask array in X or the layer. Or the path of
        an h5ad file, a zarr store (folder or .zip), or a modality in an h5mu file
        (``"screen.h5mu/mod/rna"``). Or an h5ad file opened with ``open(path, "rb")`` or the like,
        which stays open. X may be dense, CSR or CSC, of any integer or float dtype; integers up to
        64 bits are ranked exactly. Indices may be in any order; duplicate entries are summed.
    groupby : str or list of str
        Column of obs with the group of each cell. Cells without a label are left out. In a list,
        the first column has the groups, and cells are compared only with cells that have the same
        levels of the other columns: ``["perturbation", "cell_type"]``. These other columns are
        added to the result, so they must not have the name of one of its own columns.
    reference : object
        Group that the others are compared with, or a list of groups whose cells are pooled. With
        ``comparison="each_reference"``, the groups to compare with one by one; with
        ``"perturbed"``, the groups that are left out.
    groups : iterable, optional
        Groups to compare, in this order; by default all but the reference, sorted.
    comparison : {"reference", "each_reference", "rest", "perturbed", "pairs"}
        What each group is compared with: the reference; each of several references; all other
        cells that have a label; all of these except the reference's; or as given by `pairs`.
    pairs : pandas.DataFrame or list of pairs, optional
        Columns target and reference, for ``comparison="pairs"``.
    guides : str, optional
        Matrix in obsm, cells x perturbations, True where a cell carries a guide; used instead of
        `groupby`. A cell counts for each guide that it carries. ``comparison="rest"`` compares the
        cells that carry a guide with those that do not, ``"reference"`` with those that carry
        the reference guide (a cell that carries both counts on both sides). Guides are identified
        by column name in a data frame and by number in an array. Columns hold booleans, 1 and 0,
        or categories or text with these values. Where a value is missing, the cell is on neither
        side of that guide's comparisons; a MissingLabelWarning gives the number of such cells.
    on_target : str, optional
        Column of obs with the gene that each group targets: each group is tested only at its gene.
    strata : str, optional
        Column of obs, such as the batch: cells are compared within its levels, and these
        comparisons are combined (van Elteren's test for Wilcoxon, a fixed effect of the stratum
        for t, the sum of A2 for Anderson-Darling). Strata that lack one of the sides are skipped.
    columns : iterable of str or "all"
        Further columns of the result, see :data:`pdex_gpu.schema.EXTRA_COLUMNS`: numbers and
        fractions of cells, means, fold changes as in other tools, effect sizes with confidence
        intervals, ``z``, ``log10_p``.
    confidence : float
        Level of confidence intervals.
    pseudocount : float
        Pseudocount of ``log2_fold_change_geometric``.
    fdr_method : {"benjamini-hochberg", "benjamini-yekutieli", "bonferroni"}
        How the column fdr is computed from p-values.
    fdr_scope : {"all", "target", "gene"}
        Which tests are corrected together: all rows, those of each comparison, or of each gene.
    min_cells : int
        Comparisons with fewer cells on either side are left out.
    min_fraction : float, optional
        Rows are left out before correction unless at least this fraction of the cells of both
        sides together expresses the gene.
    min_cpm : float, optional
        Rows are left out before correction unless the counts per million of both sides together
        exceed this: the gene's mean count over the sum of all genes' means, times a million.
    metric : {"wilcoxon", "anderson", "t-test", "ks"}
        Wilcoxon rank-sum (Mann-Whitney U), two-sample Anderson-Darling, t-test, or two-sample
        Kolmogorov-Smirnov.
    layer : str, optional
        Layer to use instead of X.
    allow : {"external", "unwritten"} or list of these
        What may be read although it is not in the given file; refused otherwise. ``"external"``:
        other files that it refers to by a link out of its folder, as part of a virtual dataset,
        or as raw bytes. ``"unwritten"``: fill values for data never written or missing.
    out : str or os.PathLike, optional
        File that results are written to as they are computed: ``.parquet``, ``.csv`` or ``.tsv``.
        The table is never held in memory. Until the file is complete, intermediate results are
        kept next to it, in the folder ``.NAME.checkpoint``: after a crash, the same call continues
        from there, and the file has the same bytes. It gets its name when it is complete.
    force : bool
        Replace `out` if it exists; the old file stays until the new one is complete.
    restart : bool
        Discard what an earlier, unfinished call left next to `out`.
    spreadsheet_safe : bool
        In ``.csv`` and ``.tsv`` files, write an apostrophe before names that a spreadsheet would
        run as a formula: those that begin with ``=``, ``+``, ``-`` or ``@``. Other programs will
        read the apostrophe, too.
    backend : {"auto", "cpu", "reference", "cuda"}
        ``"auto"`` takes the first that can run here, or the one that ``PDEX_GPU_BACKEND`` names.
    engine : {"auto", "threads", "shared_memory", "serial", "dask"}
        How the work is distributed; ``"auto"`` is threads. ``"dask"`` runs it on the workers of a
        Dask cluster, each with the backend available there. Workers open the data from the path,
        so the path must lead to the same file or store on all of them.
    client : distributed.Client or str, optional
        With ``engine="dask"``: a client, or the address of a scheduler; the current client by
        default.
    memory : str, int or float, optional
        Memory to use, not counting an input that is already in memory: ``"4GB"``, bytes, or a
        fraction of the free memory (default 0.5). With ``engine="dask"``, memory per worker.
    scratch : str or os.PathLike, optional
        Folder for data that do not fit in memory while a file is read; by default the system's
        temporary folder. With ``engine="dask"``, a folder that all workers see, for the split rows
        of a matrix stored by rows; by default next to `out`, with the checkpoint.
    device : int, list of int or "all", optional
        CUDA device to use, by number; a list of several; or all usable ones. By default the first
        usable one. If given, ``backend="auto"`` takes CUDA or raises. Several devices share the
        ranges of genes and give bitwise the same results as one; if one is lost, the others
        continue. A matrix that is already on a device is used only by that one.
    device_memory : str, int or float, optional
        Memory to use on each CUDA device: a size as for `memory`, or a fraction of the free memory
        there; 0.9 by default.
    n_workers : int, optional
        Ranges of genes processed at once (with the shared-memory engine: processes; on CUDA: per
        device).
    n_threads : int, optional
        Threads per range. By default all processors that affinity and cgroups allow.
    gene_chunk_size : int, optional
        Largest number of genes in a range.
    is_log1p : bool, optional
        Whether values are ``log1p`` of counts, so that means are given in count space. By
        default true if any value of the compared cells has a fractional part above 0.001, unless
        one is above 25, too large for the logarithm of a count (a warning says so). Ignored if a
        value is negative: means are then those of the values as they are, and ratios are NaN, with
        a warning.
    exp_post_agg : bool
        If `is_log1p`: ``expm1`` of the mean (true) or mean of ``expm1`` (false).
    clip_value : float, optional
        Fold change where the reference mean is 0; its inverse is used where the target mean is 0.
        With None these are NaN and 0.
    progress : bool or callable
        Show a progress bar on long runs; or a function that is called now and then with a
        :class:`pdex_gpu.progress.Progress`.
    **test_options
        Options of the test. Wilcoxon: ``continuity``, ``tie_correction`` (both True),
        ``alternative``, ``method="auto"|"asymptotic"|"exact"``. t: ``variance="pooled"|"welch"|
        "overestimated"`` (or scipy's ``equal_var``), ``alternative``. Anderson-Darling:
        ``variant="midrank"|"right"|"continuous"``, ``p_values="asymptotic"|"interpolated"`` (the
        limiting distribution, or scipy's table). Kolmogorov-Smirnov: ``alternative``. All:
        ``nan_policy="raise"|"omit"|"propagate"``: NaN is refused (infinity always is); or left
        out, as if the cell did not exist at that gene, in all columns and filters; or the means
        and statistics that involve it are NaN, and p is 1. Other options, named as in scipy, run
        through scipy, pair by pair; a log line says so.

    Returns
    -------
    DEResult
        With `out`, a :class:`ResultFile` instead: where the table is, and its labels.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for any input that cannot be used; see :mod:`pdex_gpu.errors`.

    Examples
    --------
    >>> from pdex_gpu import differential_expression
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> result = differential_expression(adata, "target_gene", progress=False)
    >>> result["fold_change"].shape
    (4, 60)
    >>> [row["feature"] for row in result.top("GENE00031", 2)]
    ['GENE00044', 'GENE00031']

    Each group against all other cells, with a further column:

    >>> rest = differential_expression(
    ...     adata, "target_gene", comparison="rest", columns=["auroc"], progress=False
    ... )
    >>> rest["auroc"][rest.find("GENE00031"), rest.find_feature("GENE00044")].round(2).item()
    0.83

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
            comparison=comparison,
            pairs=pairs,
            guides=guides,
            on_target=on_target,
            strata=strata,
            columns=columns,
            confidence=confidence,
            pseudocount=pseudocount,
            fdr_method=fdr_method,
            fdr_scope=fdr_scope,
            min_cells=min_cells,
            min_fraction=min_fraction,
            min_cpm=min_cpm,
            metric=metric,
            layer=layer,
            allow=allow,
            out=out,
            force=force,
            restart=restart,
            spreadsheet_safe=spreadsheet_safe,
            backend=backend,
            engine=engine,
            client=client,
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
        levels, names = self.design.within, self.settings.within_columns
        return None if levels is None else (names[0] if len(names) == 1 else names, levels)

    def scale(self, values: ValueScale) -> Scale:
        settings = self.settings
        return Scale(
            values.is_log1p,
            settings.exp_post_agg,
            settings.clip_value,
            float(settings.pseudocount),
            values.negative,
        )

    def filters_on(self, values: ValueScale) -> Filters:
        """Return the filters that make sense for these values."""
        return replace(self.filters, min_cpm=None) if values.negative else self.filters

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
    """Run a comparison. Public calls use this directly: warnings are attributed to their caller."""
    started = time.perf_counter()
    check_settings(settings)
    if settings.out is not None:
        check_output(
            Path(settings.out),
            source=input_file(data),
            overwrite=settings.force,
            spreadsheet_safe=settings.spreadsheet_safe,
        )
    test = make_test(settings.metric, settings.test_options, settings.call)
    with _cluster_of(settings) as cluster:
        backend = (
            _finishing_backend() if cluster is not None else choose_backend_for(settings, test)
        )
        engine = choose_engine(settings, backend)
        if engine == "shared_memory" and settings.n_processes is not None:
            settings = replace(settings, n_workers=settings.n_processes)
        elif "shared_memory" in backend.engines and (settings.n_processes or 1) > 1:
            # Processes cannot be started here: use as many threads instead.
            assert settings.n_processes is not None
            n_threads = settings.n_processes * (settings.n_threads or 1)
            settings = replace(settings, n_threads=n_threads)
        if isinstance(settings.groups, Iterator):  # workers iterate over it again
            settings = replace(settings, groups=tuple(settings.groups))
        on_device = () if cluster is not None else (settings.device, settings.device_memory)
        kernels = load_kernels(backend.name, *on_device)
        analysis = make_analysis(
            test,
            settings.columns,
            is_log1p=settings.is_log1p,
            exp_post_agg=settings.exp_post_agg,
            stratified=settings.strata is not None,
            expressed=settings.min_fraction is not None,
            count_means=settings.min_cpm is not None,
            level=float(settings.confidence),
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
                settings.min_fraction,
                settings.min_cpm,
                settings.entry.filter_sides == "either",
                _own_genes(dataset, settings, design),
            )
            with ThreadPoolExecutor(settings.n_threads or cpu_count(), "pdex_gpu") as pool:
                allowed, run = memory_budget(settings.memory), pool_map(pool)
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
                if settings.out is not None:
                    result, values = _into_file(call, Path(settings.out))
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
    if settings.engine != "dask":
        yield None
        return
    from .cluster.connect import connected

    with connected(settings.client) as client:
        from .cluster.run import Cluster

        with Cluster(client) as cluster:
            yield cluster


def _finishing_backend() -> BackendInfo:
    """Return the backend that adjusts the workers' p-values; all give bitwise the same results."""
    found = {info.name: info for info in backends()}
    return found["cpu"] if found["cpu"].usable else found["reference"]


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
        out, identity, fields, n_genes, restart=settings.restart, run=call.run
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
            spreadsheet_safe=settings.spreadsheet_safe,
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
    if settings.on_target is None:
        return None
    return own_genes(
        dataset.labels,
        dataset.column(settings.on_target),
        dataset.genes,
        design,
        settings.group_column,
        settings.on_target,
    )


def _check_place(
    dataset: Dataset, test: StatisticalTest, backend: BackendInfo, settings: Settings
) -> None:
    """Raise UnsupportedDataError if the backend cannot read the memory that the matrix is in."""
    several = n_devices(backend) > 1
    if not dataset.source.on_device or (backend.name == "cuda" and not several):
        return
    layer = settings.layer
    what, place = ("X", "X") if layer is None else (f"layer {layer!r}", f"layers[{layer!r}]")
    if several:
        raise UnsupportedDataError(
            f"{what} is on one CUDA device ({dataset.source.description}) and is used there, but "
            f"device={settings.device!r} asks for {n_devices(backend)} devices. Pass the number of "
            f"that device as device=, or move the matrix: adata.{place} = adata.{place}.get()."
        )
    if test.why_reference is None:
        advice = f"({backend.reason}). Use backend='cuda'"
    else:  # the CUDA backend would also use the reference kernel set
        advice = f"({test.why_reference}). Leave that option out and use backend='cuda'"
    raise UnsupportedDataError(
        f"{what} is on a CUDA device ({dataset.source.description}), but backend "
        f"{backend.name!r} reads host memory {advice}, or move the matrix: "
        f"adata.{place} = adata.{place}.get()."
    )


def _run(call: _Call, source: Source, sink: MemorySink | CheckpointSink, tracker: Tracker) -> None:
    """Compute the genes that the sink does not have yet."""
    settings, dataset, design = call.settings, call.dataset, call.design
    scratch = None if settings.scratch is None else Path(settings.scratch)
    while True:
        if call.cluster is not None:
            plan = call.cluster.plan(source, _width(call), call.kernels, settings, sink, call.run)
        else:
            plan = make_schedule(
                source,
                _width(call),
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
            settings.metric, design.n_rows, str(design.reference), source.n_cells,
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
            what = "X" if settings.layer is None else f"layer {settings.layer!r}"
            text = (
                f"{what} is {error.value} in cell {dataset.cell_name(error.cell)!r} (row "
                f"{error.cell}), gene {str(dataset.genes[error.gene])!r} (column {error.gene}). "
                "Tests need finite values: replace the value, or remove the cell or the gene."
            )
            if np.isnan(error.value):
                text += _ABOUT_NAN[settings.entry.takes_nan_policy]
            raise DataError(text) from error
        return


def _width(call: _Call) -> int:
    """Return the number of groups whose results take as much memory per gene as this call's."""
    n_values = sum(call.analysis.fields(call.design).values())
    return max(call.design.n_groups, n_values // VALUES_PER_GROUP)
