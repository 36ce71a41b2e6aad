"""The keywords of the public calls, typed, and their signatures as `help` shows them."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, TypeVar

from ..stats.registry import StatisticKeywords
from ..utils.options import keywords
from .options import GROUPS

if TYPE_CHECKING:
    import anndata

    from ..backends.options import BackendOptions
    from ..backends.registry import BackendName, EngineName
    from ..design.comparisons.base import Comparison
    from ..design.comparisons.registry import ComparisonName
    from ..stats.registry import MetricName
    from ..stats.two_sample.base import StatisticalTest
    from ..utils.progress import Progress
    from .engines import Dask

    OnePath = str | os.PathLike[str]
    #: The data of public calls; see :func:`pdex_gpu.differential_expression`.
    Data = anndata.AnnData | OnePath | BinaryIO | Sequence[OnePath] | Mapping[str, OnePath]

_Call = TypeVar("_Call", bound=Callable[..., Any])


class Options(StatisticKeywords, total=False):
    """The keywords of :func:`pdex_gpu.differential_expression` but `groupby` and `out`."""

    # who is compared with whom
    reference: object
    groups: Iterable[object] | None
    comparison: ComparisonName | Comparison
    pairs: Any
    guides: str | None
    guide_calls: str | os.PathLike[str] | None
    guide_targets: str | os.PathLike[str] | None
    min_umis: int | None
    multiplicity: Literal["low", "high"]
    on_target: str | None
    strata: str | None
    min_cells: int
    # which matrix
    layer: str | None
    raw: bool
    modality: str | None
    genes: str | os.PathLike[str] | Sequence[str] | None
    gene_symbols: str | None
    cells: str | None
    normalize: float | str | None
    log1p: bool | None
    totals: str | None
    allow: str | Collection[str]
    join: Literal["inner", "outer"]
    batch: str | None
    # columns
    columns: str | Iterable[str]
    confidence: float
    pseudocount: float
    is_log1p: bool | None
    exp_post_agg: bool
    clip_value: float | None
    # rows, and correction for multiple testing
    min_fraction: float | None
    min_cpm: float | None
    fdr_method: Literal["benjamini-hochberg", "benjamini-yekutieli", "bonferroni", "empirical"]
    fdr_scope: Literal["all", "target", "gene"]
    # where and how
    backend: BackendName | BackendOptions
    engine: EngineName | Dask
    client: Any
    memory: str | float | int | None
    scratch: str | os.PathLike[str] | None
    device: int | Sequence[int] | str | None
    device_memory: str | float | int | None
    n_workers: int | None
    n_threads: int | None
    gene_chunk_size: int | None
    # output
    force: bool
    restart: bool
    spreadsheet_safe: bool
    progress: bool | Callable[[Progress], object]
    # the test
    metric: MetricName | StatisticalTest


def full_signature(*, without: Collection[str] = ()) -> Callable[[_Call], _Call]:
    """Show the keywords of `Options` in the signature of a function that takes ``**options``."""

    def decorate(function: _Call) -> _Call:
        shown = inspect.signature(function)
        own = [p for p in shown.parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = {p.name for p in own} | set(without)
        further = [
            inspect.Parameter(f.name, inspect.Parameter.KEYWORD_ONLY, default=_default(f))
            for group in GROUPS.values()
            for f in keywords(group)
            if f.name not in names
        ]
        rest = inspect.Parameter("test_options", inspect.Parameter.VAR_KEYWORD)
        parameters = [*own, *further, rest]
        function.__signature__ = shown.replace(parameters=parameters)  # type: ignore[attr-defined]
        return function

    return decorate


def _default(field: Any) -> Any:
    return inspect.Parameter.empty if field.default is MISSING else field.default
