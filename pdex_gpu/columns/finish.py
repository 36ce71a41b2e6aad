"""The last step of a run: from stored fields to the columns of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..backends.contract import KernelSet
from ..design.contrasts import Design
from ..results.schema import INTEGERS
from ..sinks.checkpoint_sink import StoredResults
from ..sinks.memory import MemorySink
from ..stats.fold_change import expm1_in_place, fold_change, log2_of, log2_ratio, percent_change
from ..stats.multitest.correction import Correction, StoredCorrection, correct
from ..utils.arrays import nan_filled
from ..utils.parallel import Map
from .filters import Filters, Read, find_kept, with_cells

_PAIRS_A_TASK = 1 << 15

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

#: Returns a field's values for some rows; one row if all rows share it.
_Read = Callable[[str], np.ndarray]


@dataclass(frozen=True)
class Scale:
    """The scale of means and of changes in them; see :func:`.api.differential_expression`."""

    is_log1p: bool
    exp_post_agg: bool
    clip_value: float | None
    pseudocount: float = 1e-9
    negative: bool = False  # ratios and means in count and log space are undefined

    @property
    def field(self) -> str:
        """Return the name of the stored mean that the result shows."""
        return "mean_expm1" if self.is_log1p and not self.exp_post_agg else "mean"

    @property
    def count_mean(self) -> str:
        """Return the name of the stored mean in count space."""
        return "mean_expm1" if self.is_log1p else "mean"

    @property
    def log_mean(self) -> str:
        """Return the name of the stored mean in log space."""
        return "mean" if self.is_log1p else "mean_log1p"

    def rescaled(self, means: np.ndarray, run: Map) -> np.ndarray:
        """Convert means of log1p values to count space, in place, if the scale asks for it."""
        if self.is_log1p and self.exp_post_agg:
            _by_rows(lambda rows: expm1_in_place(means[rows]), means.shape, run)
        return means


def _by_rows(function: Callable[[slice], None], shape: tuple[int, ...], run: Map) -> None:
    step = max(1, _PAIRS_A_TASK // max(1, shape[1]))
    for _ in run(function, [slice(r, min(r + step, shape[0])) for r in range(0, shape[0], step)]):
        pass


def _changes(
    target: np.ndarray, reference: np.ndarray, scale: Scale, run: Map
) -> dict[str, np.ndarray]:
    percent, fold = nan_filled(target.shape, run), nan_filled(target.shape, run)
    shared = len(reference) == 1

    def change(rows: slice) -> None:
        some, other = target[rows], reference if shared else reference[rows]
        percent_change(some, other, out=percent[rows])
        fold_change(some, other, scale.clip_value, out=fold[rows])

    if not scale.negative:
        _by_rows(change, target.shape, run)
    return {
        "target_mean": target,
        "reference_mean": np.broadcast_to(reference, target.shape),
        "percent_change": percent,
        "fold_change": fold,
    }


def _columns(
    read: _Read,
    scale: Scale,
    asked: tuple[str, ...],
    run: Map,
) -> dict[str, np.ndarray]:
    """Compute all columns but FDR, for some rows.

    Parameters
    ----------
    read : callable
        Returns stored fields and numbers of cells for these rows; means are overwritten.
    scale : Scale
    asked : tuple of str
        Requested additional columns.
    run : callable
        Spreads the work.
    """
    wanted = set(asked)
    found: dict[str, np.ndarray] = {"p_value": read("p_value"), "statistic": read("statistic")}
    shape = found["p_value"].shape
    if scale.negative:
        undefined = np.broadcast_to(np.nan, shape)
        found |= dict.fromkeys(_OF_COUNTS & wanted, undefined)
    else:
        found |= _further_means(read, scale, wanted, shape)
    sides = [read(f"{side}_{scale.field}") for side in ("target", "reference")]
    target, reference = (scale.rescaled(means, run) for means in sides)
    found |= _changes(target, reference, scale, run)
    if "log2_fold_change" in wanted and not scale.negative:
        found["log2_fold_change"] = log2_of(found["fold_change"], target, reference)
    for name in asked:
        if name not in found:
            values = np.broadcast_to(read(name), shape)
            found[name] = values.astype(np.int64) if name in INTEGERS else values
    return {name: values for name, values in found.items() if name in wanted or name in _ALWAYS}


_ALWAYS = frozenset(
    ("p_value", "statistic", "target_mean", "reference_mean", "percent_change", "fold_change")
)


#: Additional columns that only counts, or log1p of counts, have.
_OF_COUNTS = frozenset(
    f"{side}_{mean}_mean"
    for side in ("target", "reference")
    for mean in ("count", "log", "geometric")
) | {f"log2_fold_change{whose}" for whose in ("", "_scanpy", "_seurat", "_geometric")}


def _further_means(
    read: _Read, scale: Scale, wanted: set[str], shape: tuple[int, ...]
) -> dict[str, np.ndarray]:
    """Compute means in count and log space, and the changes that other tools derive from them."""
    found: dict[str, np.ndarray] = {}

    def both(mean: str) -> list[np.ndarray]:
        return [np.array(read(f"{side}_{mean}")) for side in ("target", "reference")]

    def give(name: str, means: list[np.ndarray]) -> None:
        for side, values in zip(("target", "reference"), means, strict=True):
            found[f"{side}_{name}"] = np.broadcast_to(values, shape)

    counts = {"target_count_mean", "reference_count_mean", "log2_fold_change_seurat"}
    if counts & wanted:
        means = both(scale.count_mean)
        give("count_mean", means)
        found["log2_fold_change_seurat"] = log2_ratio(means[0], means[1], 1.0)
    geometric = {"target_geometric_mean", "reference_geometric_mean"}
    changes = {"log2_fold_change_scanpy", "log2_fold_change_geometric"}
    if ({"target_log_mean", "reference_log_mean"} | geometric | changes) & wanted:
        means = both(scale.log_mean)
        give("log_mean", means)
        if (geometric | changes) & wanted:
            with np.errstate(over="ignore"):
                means = [np.expm1(values) for values in means]
            give("geometric_mean", means)
        if "log2_fold_change_scanpy" in wanted:
            found["log2_fold_change_scanpy"] = log2_ratio(means[0], means[1], 1e-9)
        if "log2_fold_change_geometric" in wanted:
            found["log2_fold_change_geometric"] = log2_ratio(means[0], means[1], scale.pseudocount)
    return found


@dataclass(frozen=True)
class Finished:
    """A result in memory.

    Attributes
    ----------
    columns : dict of str to numpy.ndarray, shape (n_rows, n_genes)
    kept : numpy.ndarray or None, shape (n_rows, n_genes), bool
        Whether each pair is in the result; None if all are.
    removed : dict of str to int
        Number of pairs that each filter left out.
    """

    columns: dict[str, np.ndarray]
    kept: np.ndarray | None
    removed: dict[str, int]


def finish(
    sink: MemorySink,
    design: Design,
    kernels: KernelSet,
    run: Map,
    *,
    scale: Scale,
    columns: tuple[str, ...],
    correction: Correction,
    filters: Filters,
) -> Finished:
    """Compute the columns of a result in memory. Stored means are rescaled in place."""
    arrays = sink.arrays
    p_values = arrays["p_value"]

    def stored(name: str, rows: slice) -> np.ndarray:
        return arrays[name] if len(arrays[name]) == 1 else arrays[name][rows]

    read = with_cells(stored, arrays, design)
    kept, removed = find_kept(filters, design.n_rows, p_values.shape[1], read, scale.count_mean)
    found = _columns(lambda name: read(name, slice(None)), scale, columns, run)
    found["fdr"] = correct(p_values, kept, correction, kernels, run)
    if kept is not None:
        found = {name: _only(values, kept, name) for name, values in found.items()}
    return Finished(found, kept, removed)


def _only(values: np.ndarray, kept: np.ndarray, name: str) -> np.ndarray:
    """Return the values with NaN where a pair is not kept; integer columns stay unchanged."""
    return values if name in INTEGERS else np.where(kept, values, np.nan)


def read_stored(results: StoredResults, design: Design, run: Map) -> Read:
    """Return a function that reads stored fields and numbers of cells for some rows."""
    return with_cells(lambda name, rows: results.read(name, rows, run), results.fields, design)


@dataclass(frozen=True)
class StoredFinish:
    """Stored results that are turned into blocks of the table; see :func:`finish`."""

    results: StoredResults
    design: Design
    scale: Scale
    columns: tuple[str, ...]
    kept: np.ndarray | None
    fdr: StoredCorrection

    def blocks(
        self, rows: Iterable[slice], run: Map, ahead: ThreadPoolExecutor
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Yield the columns of a few rows at a time; `ahead` makes the next one meanwhile.

        The caller owns the pool. A generator that owned it would shut it down wherever it is
        garbage-collected. Inside a thread that is just starting, the shutdown never finishes.
        """
        read = read_stored(self.results, self.design, run)

        def make(some: slice) -> tuple[slice, dict[str, np.ndarray]]:
            found = _columns(lambda name: read(name, some), self.scale, self.columns, run)
            found["fdr"] = self.fdr.read(some, found["p_value"])
            return some, found

        return _one_ahead(ahead, make, rows)


def _one_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """Map lazily, exactly one call ahead of the caller, because results are large."""
    ahead: Future[_Result] | None = None
    for item in items:
        following = pool.submit(function, item)
        if ahead is not None:
            yield ahead.result()
        ahead = following
    if ahead is not None:
        yield ahead.result()
