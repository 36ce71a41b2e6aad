"""From stored means and p-values to the columns of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from .arrays import nan_filled
from .backends.contract import KernelSet
from .fdr import Column
from .pools import Map
from .sinks.files import StoredResults
from .sinks.memory import MemorySink
from .stats.fold_change import expm1_in_place, fold_change, percent_change

_PAIRS_A_TASK = 1 << 15

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Scale:
    """How means are given, and changes made of them; see :func:`.api.differential_expression`."""

    is_log1p: bool
    exp_post_agg: bool
    clip_value: float | None

    @property
    def field(self) -> str:
        """Which of the stored means is the one to give."""
        return "mean_expm1" if self.is_log1p and not self.exp_post_agg else "mean"

    def rescale(self, means: np.ndarray) -> None:
        """Means of log1p values become those in count space, in place."""
        if self.is_log1p and self.exp_post_agg:
            expm1_in_place(means)

    def columns(self, means: np.ndarray, reference: np.ndarray, run: Map) -> dict[str, np.ndarray]:
        """Means and changes of targets, from stored means, which are rescaled where they stand.

        Parameters
        ----------
        means : numpy.ndarray, shape (n_targets, n_genes)
        reference : numpy.ndarray, shape (n_genes,)
            Means of the reference, rescaled before.
        run : callable
            Spreads the work.
        """
        n_targets, n_genes = means.shape
        percent, fold = nan_filled(means.shape, run), nan_filled(means.shape, run)

        def change(targets: slice) -> None:
            some = means[targets]
            self.rescale(some)
            percent_change(some, reference, out=percent[targets])
            fold_change(some, reference, self.clip_value, out=fold[targets])

        step = max(1, _PAIRS_A_TASK // max(1, n_genes))
        for _ in run(
            change, [slice(t, min(t + step, n_targets)) for t in range(0, n_targets, step)]
        ):
            pass
        return {
            "target_mean": means,
            "reference_mean": np.broadcast_to(reference, means.shape),
            "percent_change": percent,
            "fold_change": fold,
        }


def finish(
    sink: MemorySink,
    kernels: KernelSet,
    run: Map,
    *,
    is_log1p: bool,
    exp_post_agg: bool,
    clip_value: float | None,
) -> dict[str, np.ndarray]:
    """The value columns of the schema, each of shape (n_targets, n_genes), float64.

    Means of log1p values become those in count space where they stand: ``expm1`` of the mean if
    `exp_post_agg`, else the mean of ``expm1``.
    """
    scale = Scale(is_log1p, exp_post_agg, clip_value)
    means: np.ndarray = getattr(sink, scale.field)
    scale.rescale(means[:1])
    return {
        **scale.columns(means[1:], means[0], run),
        "p_value": sink.p_value,
        "statistic": sink.statistic,
        "fdr": kernels.benjamini_hochberg(sink.p_value, run),
    }


def finish_blocks(
    results: StoredResults, fdr: Column, scale: Scale, blocks: Iterable[slice], run: Map
) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
    """The same columns of a few targets at a time, from stored results.

    While the caller has a block, the next is made.

    Parameters
    ----------
    results : StoredResults
    fdr : Column
        Adjusted p-values in the order of the table.
    scale : Scale
    blocks : iterable of slice
        The targets of each block.
    run : callable
        Spreads the work.
    """
    reference = results.read(scale.field, slice(0, 1))
    scale.rescale(reference)

    def make(targets: slice) -> tuple[slice, dict[str, np.ndarray]]:
        groups = slice(targets.start + 1, targets.stop + 1)
        shape = (targets.stop - targets.start, results.n_genes)
        first, last = (t * results.n_genes for t in (targets.start, targets.stop))
        return targets, {
            **scale.columns(results.read(scale.field, groups, run), reference[0], run),
            "p_value": results.read("p_value", groups, run),
            "statistic": results.read("statistic", groups, run),
            "fdr": fdr.read(first, last).reshape(shape),
        }

    return _one_ahead(make, blocks)


def _one_ahead(function: Callable[[_Item], _Result], items: Iterable[_Item]) -> Iterator[_Result]:
    """``map``, a call ahead of the caller and no more: results are large."""
    with ThreadPoolExecutor(1, "pdex_gpu-ahead") as pool:
        ahead: Future[_Result] | None = None
        for item in items:
            following = pool.submit(function, item)
            if ahead is not None:
                yield ahead.result()
            ahead = following
        if ahead is not None:
            yield ahead.result()
