"""The call of pdex 0.1.28, on top of this package's own."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ..errors import LowMemoryError, OptionError
from ..pipeline.execute import compare
from ..request.options import PDEX_ENTRY, Entry, Settings
from ..results.memory import DEResult
from ..results.schema import LABELS, VALUES
from ..sources.detect import is_backed
from ..stats.registry import METRICS
from ..utils.checks import check_choice, check_count, check_flag, check_text

if TYPE_CHECKING:
    import anndata
    import pandas
    import polars


def parallel_differential_expression(
    adata: anndata.AnnData,
    groups: Iterable[object] | None = None,
    reference: str = "non-targeting",
    groupby_key: str = "target_gene",
    num_workers: int | None = None,
    batch_size: int = 100,
    num_threads: int | None = None,
    metric: str = "wilcoxon",
    tie_correct: bool = True,
    is_log1p: bool | None = None,
    exp_post_agg: bool = True,
    clip_value: float | int | None = 20.0,
    as_polars: bool = False,
    low_memory: bool | None = None,
    gene_chunk_size: int = 1000,
    show_progress: bool = True,
    *,
    backend: str = "auto",
    engine: str = "auto",
    normalize: float | str | None = None,
    **kwargs: Any,
) -> pandas.DataFrame | polars.DataFrame:
    """Compare groups of cells with a reference group, with pdex 0.1.28's call and columns.

    Parameters
    ----------
    adata : anndata.AnnData
        In memory or backed.
    groups : iterable, optional
        Groups to compare; all by default.
    reference : str
        Group they are compared with.
    groupby_key : str
        Column of obs with the groups.
    num_workers : int, optional
        In memory: worker processes with shared memory if more than 1, else threads. Backed or
        with `low_memory`: ranges of genes in flight at once, each with `num_threads` threads.
        None chooses by the available processors; 1 turns it off.
    batch_size : int
        Accepted for compatibility; the work is not split into batches of pairs.
    num_threads : int, optional
        Threads per worker. None chooses; 1 turns threading off.
    metric : {"wilcoxon", "anderson", "t-test"}
    tie_correct : bool
        Continuity correction of the Wilcoxon test, as pdex's option of this name does. Ties are
        always corrected for.
    is_log1p, exp_post_agg, clip_value
        See :func:`pdex_gpu.differential_expression`.
    as_polars : bool
        Return a polars frame. Needs the extra ``polars``.
    low_memory : bool, optional
        Process `gene_chunk_size` genes at a time; by default if `adata` is backed.
    gene_chunk_size : int
        Number of genes at a time in that case.
    show_progress : bool
        Show a progress bar on long runs.
    backend, engine, normalize : str
        See :func:`pdex_gpu.differential_expression`.
    **kwargs
        Options of the test, as scipy names them.

    Returns
    -------
    pandas.DataFrame or polars.DataFrame
        Columns target, reference, feature, target_mean, reference_mean, percent_change,
        fold_change, p_value, statistic, fdr. Rows are ordered by target, then in matrix order of
        genes.

    Raises
    ------
    LowMemoryError
        ``low_memory=False`` with backed data; a TypeError, as in pdex.
    pdex_gpu.errors.PdexGpuError
        Another of its subclasses, a ValueError or KeyError where pdex raises one.

    Notes
    -----
    pdex 0.1.28 gives different numbers in its low-memory mode (no continuity correction, never
    exact, float32). Here every mode gives the same numbers: those of pdex's standard mode.

    Examples
    --------
    >>> from pdex_gpu import parallel_differential_expression
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> table = parallel_differential_expression(adata, show_progress=False)
    >>> table.loc[table["target"] == "GENE00031", ["feature", "statistic"]].head(2)
         feature  statistic
    0  GENE00000    16822.0
    1  GENE00001    16904.0
    """
    backed = is_backed(adata)
    if backed and low_memory is False:
        raise LowMemoryError(
            "adata is backed: its matrix is in a file, but low_memory=False requires it in memory. "
            "Either use low_memory=None or True, which streams the file in ranges of genes, or "
            "load the matrix first: adata = adata.to_memory()."
        )
    if "use_continuity" in kwargs:
        raise OptionError(
            "As in pdex, tie_correct also sets use_continuity: tie_correct=True turns on the "
            "continuity correction. Pass only tie_correct."
        )
    check_flag("tie_correct", tie_correct)
    check_flag("as_polars", as_polars)
    check_flag("low_memory", low_memory, may_be_none=True)
    check_count("num_workers", num_workers)
    check_count("num_threads", num_threads)
    check_count("gene_chunk_size", gene_chunk_size)
    options = dict(kwargs)
    check_choice("metric", metric, tuple(METRICS))
    check_text("engine", engine)
    if metric == "wilcoxon":
        options["continuity"] = bool(tie_correct)
    if METRICS[metric].from_options(options) is not None:  # otherwise scipy runs it
        in_scipy = "interpolated" if metric == "anderson" else "asymptotic"
        options.setdefault("p_values", in_scipy)
    chunked = backed if low_memory is None else bool(low_memory)
    processes = None
    if not chunked and engine == "auto":
        processes, num_workers = num_workers, None
    elif not chunked and engine != "shared_memory":
        num_workers = None  # a matrix in memory needs no ranges in flight
    result = compare(
        adata,
        Settings.of(
            {
                "groupby": groupby_key,
                "reference": reference,
                "groups": groups,
                "metric": metric,
                "backend": backend,
                "normalize": normalize,
                "engine": engine,
                "n_workers": num_workers,
                "n_threads": num_threads,
                "gene_chunk_size": gene_chunk_size if chunked else None,
                "is_log1p": is_log1p,
                "exp_post_agg": exp_post_agg,
                "clip_value": clip_value,
                "progress": show_progress,
            },
            Entry(
                PDEX_ENTRY, tuple(inspect.signature(parallel_differential_expression).parameters)
            ),
            default_columns=False,
            n_processes=processes,
            test_options=options,
        ),
    )
    return _as_pdex(cast(DEResult, result), as_polars)


def _as_pdex(result: DEResult, as_polars: bool) -> pandas.DataFrame | polars.DataFrame:
    """Make the table with plain instead of categorical labels, as in pdex."""
    if as_polars:
        import polars as pl

        return result.to_polars().with_columns(pl.col(LABELS).cast(pl.String))
    import pandas as pd

    n_targets, n_genes = len(result.targets), len(result.features)
    labels = {
        "target": np.repeat(result.targets, n_genes),
        "reference": np.full(n_targets * n_genes, result.reference, dtype=object),
        "feature": np.tile(result.features, n_targets),
    }
    return pd.DataFrame(labels | {name: result[name].ravel() for name in VALUES})
