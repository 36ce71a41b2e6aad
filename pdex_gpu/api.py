"""One call from a screen to its results: validate, plan, run, finish."""

from __future__ import annotations

import logging
import os
import platform
import sys
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from . import __version__
from .backends.contract import KernelSet, NonFiniteError, StreamedKernelSet
from .backends.registry import BackendInfo, choose_backend, load_engine, load_kernels
from .design import Design, make_design
from .engines.base import Job
from .errors import (
    DataError,
    DuplicateGeneWarning,
    OptionError,
    UnsupportedDataError,
    listing,
    unknown,
)
from .finish import finish
from .machine import cpu_count, memory_budget
from .plan import Plan, make_plan
from .pools import Map, pool_map
from .result import DEResult
from .sinks.memory import MemorySink
from .sources.base import NotCanonicalError, Reading, Source
from .sources.dataset import Dataset, open_dataset
from .stats.base import StatisticalTest, make_test

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger("pdex_gpu")

_RANGES_PER_PROCESS = 4
_RANGES_PER_DEVICE = 8


@dataclass(frozen=True)
class Settings:
    """A comparison as asked for; see :func:`differential_expression`."""

    groupby: str
    reference: object = "non-targeting"
    groups: Iterable[object] | None = None
    metric: str = "wilcoxon"
    layer: str | None = None
    backend: str = "auto"
    engine: str = "auto"
    memory: str | float | int | None = None
    device: int | None = None
    device_memory: str | float | int | None = None
    n_workers: int | None = None
    n_threads: int | None = None
    gene_chunk_size: int | None = None
    is_log1p: bool | None = None
    exp_post_agg: bool = True
    clip_value: float | None = 20.0
    progress: bool = True
    test_options: dict[str, Any] = field(default_factory=dict)
    n_processes: int | None = None  # worker processes, if `engine` is auto and the backend has them


def differential_expression(
    data: anndata.AnnData | str | os.PathLike[str],
    groupby: str,
    *,
    reference: object = "non-targeting",
    groups: Iterable[object] | None = None,
    metric: str = "wilcoxon",
    layer: str | None = None,
    backend: str = "auto",
    engine: str = "auto",
    memory: str | float | int | None = None,
    device: int | None = None,
    device_memory: str | float | int | None = None,
    n_workers: int | None = None,
    n_threads: int | None = None,
    gene_chunk_size: int | None = None,
    is_log1p: bool | None = None,
    exp_post_agg: bool = True,
    clip_value: float | None = 20.0,
    progress: bool = True,
    **test_options: Any,
) -> DEResult:
    """Compare groups of cells with a reference group, gene by gene.

    Parameters
    ----------
    data : anndata.AnnData, str or os.PathLike
        A screen: an AnnData, in memory or backed, or the path of an h5ad file. X may be dense,
        CSR or CSC, of any integer or float dtype; integers up to 64 bits are ranked exactly.
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
    backend : {"auto", "cpu", "reference", "cuda"}
        ``"auto"`` takes the first that can run here, or what ``PDEX_GPU_BACKEND`` names.
    engine : {"auto", "threads", "shared_memory", "serial"}
        How the work is spread; ``"auto"`` is threads.
    memory : str, int or float, optional
        Memory to use beyond an input that is in memory: ``"4GB"``, bytes, or a fraction of what
        is free. Half of what is free by default.
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
    progress : bool
        Show a progress bar on long runs.
    **test_options
        Options of the test as scipy names them: ``use_continuity``, ``alternative``, ``method``
        (`scipy.stats.mannwhitneyu`), ``equal_var``, ``alternative`` (`ttest_ind`), ... Those
        without a compiled kernel run through scipy, pair by pair; a log line says so.

    Returns
    -------
    DEResult

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for every input that cannot be used; see :mod:`pdex_gpu.errors`.

    Examples
    --------
    >>> result = differential_expression("screen.h5ad", "target_gene")  # doctest: +SKIP
    >>> result.to_parquet("results.parquet")  # doctest: +SKIP
    """
    return compare(
        data,
        Settings(
            groupby,
            reference,
            groups,
            metric,
            layer,
            backend,
            engine,
            memory,
            device,
            device_memory,
            n_workers,
            n_threads,
            gene_chunk_size,
            is_log1p,
            exp_post_agg,
            clip_value,
            progress,
            test_options,
        ),
    )


def compare(data: Any, settings: Settings) -> DEResult:
    """Run a comparison; both public calls end here, so warnings are attributed to their caller."""
    started = time.perf_counter()
    _check(settings)
    test = make_test(settings.metric, settings.test_options)
    backend = _choose_backend(settings, test)
    engine = _choose_engine(settings, backend)
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
            run = pool_map(pool)
            sink = _run(dataset, design, test, kernels, engine, settings, run)
            is_log1p = _is_log1p(sink, settings)
            columns = finish(
                sink,
                kernels,
                run,
                is_log1p=is_log1p,
                exp_post_agg=settings.exp_post_agg,
                clip_value=settings.clip_value,
            )
    provenance = _provenance(settings, dataset, design, test, backend, engine, is_log1p)
    provenance["seconds"] = round(time.perf_counter() - started, 6)
    return DEResult(design.targets, design.reference, dataset.genes, columns, provenance)


def _check(settings: Settings) -> None:
    for name in ("groupby", "metric", "backend", "engine", "layer"):
        value = getattr(settings, name)
        if not isinstance(value, str) and not (name == "layer" and value is None):
            raise OptionError(f"{name}={value!r} must be text, not {type(value).__name__}.")
    if not isinstance(settings.exp_post_agg, bool | np.bool_):
        raise OptionError(f"exp_post_agg={settings.exp_post_agg!r} must be True or False.")
    for name in ("n_workers", "n_threads", "gene_chunk_size"):
        check_count(name, getattr(settings, name))
    clip = settings.clip_value
    if clip is not None and not (isinstance(clip, (int, float, np.number)) and clip > 0):
        raise OptionError(f"clip_value={clip!r} must be a number above 0, or None for no clipping.")
    if settings.is_log1p is not None and not isinstance(settings.is_log1p, bool | np.bool_):
        raise OptionError(f"is_log1p={settings.is_log1p!r} must be True, False or None.")
    memory_budget(settings.memory)
    memory_budget(settings.device_memory, option="device_memory")


def check_count(name: str, value: Any) -> None:
    """Raise OptionError unless `value` is a whole number above 0, or None."""
    whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if value is not None and (not whole or value < 1):
        raise OptionError(f"{name}={value!r} must be a whole number of at least 1, or None.")


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


def _run(
    dataset: Dataset,
    design: Design,
    test: StatisticalTest,
    kernels: KernelSet,
    engine: str,
    settings: Settings,
    spread: Map,
) -> MemorySink:
    source = dataset.source
    expm1 = not settings.exp_post_agg and settings.is_log1p is not False
    while True:
        plan = _plan(source, design, kernels, engine, settings)
        sink = MemorySink(design.n_groups, source.n_genes, expm1, spread)
        logger.info(
            "%s: %d targets against %r, %d cells x %d genes (%s), %d ranges, engine %s with "
            "%d workers x %d threads",
            settings.metric, len(design.targets), str(design.reference), source.n_cells,
            source.n_genes, source.description, plan.n_ranges, engine, plan.n_workers,
            plan.n_threads,
        )  # fmt: skip
        try:
            with _progress_bar(source.n_genes, settings) as bar:
                load_engine(engine).run(
                    Job(source, design, kernels, test, plan, expm1, sink, bar.update, Reading())
                )
        except NotCanonicalError as error:
            logger.info("%s: sorting a copy and summing duplicates, then starting over", error)
            canonical = source.canonical()
            if canonical is source:
                raise
            source = canonical
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
        sink.check_complete()
        return sink


def _choose_engine(settings: Settings, backend: BackendInfo) -> str:
    if settings.engine == "auto":
        processes = "shared_memory" in backend.engines and (settings.n_processes or 1) > 1
        return "shared_memory" if processes else backend.engines[0]
    if settings.engine not in backend.engines:
        available = ["auto", *backend.engines]
        raise OptionError(
            unknown(f"engine for backend {backend.name!r}:", settings.engine, available)
        )
    return settings.engine


def _plan(
    source: Source, design: Design, kernels: KernelSet, engine: str, settings: Settings
) -> Plan:
    processors = cpu_count()
    n_workers, n_threads = settings.n_workers, settings.n_threads
    gene_chunk_size, at_least = settings.gene_chunk_size, 1
    if engine == "serial":
        n_workers = n_threads = 1
    elif engine == "shared_memory":
        n_workers = n_workers or max(1, processors // (n_threads or 1))
        n_threads = n_threads or 1
        at_least = _RANGES_PER_PROCESS * n_workers
    elif engine == "streams":
        if source.on_device:
            return Plan((0, source.n_genes), 0, 1, n_threads or processors)
        n_workers = n_workers or (1 if source.costly_to_cut else 2)
        n_threads = n_threads or processors
        streamed = cast(StreamedKernelSet, kernels)
        most = streamed.most_genes(source, n_workers)
        gene_chunk_size = min(most, gene_chunk_size or most)
        if n_workers > 1:  # one range is read and uploaded while another is computed
            at_least = _RANGES_PER_DEVICE
    else:
        # One range is read while another is computed, unless nothing has to be read.
        n_workers = n_workers or (1 if source.in_memory or processors == 1 else 2)
        n_threads = n_threads or max(1, processors // n_workers)
    return make_plan(
        source,
        design.n_groups,
        packed_bytes=kernels.packed_bytes,
        budget=memory_budget(settings.memory),
        n_workers=n_workers,
        n_threads=n_threads,
        gene_chunk_size=gene_chunk_size,
        at_least=at_least,
    )


def _progress_bar(n_genes: int, settings: Settings) -> Any:
    if not settings.progress:
        return nullcontext(SimpleNamespace(update=lambda n: None))
    from tqdm.auto import tqdm

    return tqdm(total=n_genes, desc=settings.metric, unit="gene", delay=0.5)


def _is_log1p(sink: MemorySink, settings: Settings) -> bool:
    if settings.is_log1p is not None:
        return settings.is_log1p
    found = "some values have fractional parts" if sink.fractional else "values are whole numbers"
    logger.info("is_log1p=%s: %s", sink.fractional, found)
    return sink.fractional


@cache
def _version(package: str) -> str:
    return metadata.version(package)  # reads and parses a file


def _provenance(
    settings: Settings,
    dataset: Dataset,
    design: Design,
    test: StatisticalTest,
    backend: BackendInfo,
    engine: str,
    is_log1p: bool,
) -> dict[str, Any]:
    compiler = sys.modules.get({"cpu": "numba", "cuda": "cupy"}.get(backend.name, ""))
    return {
        "metric": settings.metric,
        "backend": backend.name,
        "backend_reason": backend.reason,
        "device": backend.device,
        "engine": engine,
        "data": dataset.description,
        "matrix": dataset.source.description,
        "n_cells": dataset.source.n_cells,
        "n_genes": dataset.source.n_genes,
        "n_targets": len(design.targets),
        "groupby": settings.groupby,
        "reference": str(design.reference),
        "groups": "all" if settings.groups is None else listing(design.targets),
        "layer": settings.layer,
        "is_log1p": bool(is_log1p),
        "exp_post_agg": settings.exp_post_agg,
        "clip_value": settings.clip_value,
        "test_options": {k: repr(v) for k, v in test.options.items()},
        "versions": {
            "pdex_gpu": __version__,
            "python": platform.python_version(),
            **{package: _version(package) for package in ("numpy", "scipy")},
            **({compiler.__name__: compiler.__version__} if compiler else {}),
        },
    }
