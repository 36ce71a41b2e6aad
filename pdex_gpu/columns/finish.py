"""The last step of a run: from stored fields to the columns of the result."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from ..backends.contract import KernelSet
from ..design.contrasts import Design
from ..sinks.checkpoint_sink import StoredResults
from ..sinks.memory import MemorySink
from ..stats.fold_change import expm1_in_place
from ..stats.multitest.correction import StoredCorrection, correct
from ..stats.multitest.empirical import EmpiricalNull
from ..stats.options import CorrectionOptions
from ..utils.parallel import Map
from . import registry
from .at_end import EndValues, by_rows
from .filters import Filters, Read, find_kept, with_cells

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


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

    def rescaled(self, means: np.ndarray, parallel_map: Map) -> np.ndarray:
        """Convert means of log1p values to count space, in place, if the scale asks for it."""
        if self.is_log1p and self.exp_post_agg:
            by_rows(lambda rows: expm1_in_place(means[rows]), means.shape, parallel_map)
        return means


_ALWAYS = tuple(column.name for column in registry.ALWAYS if column.make is not None)


def _columns(
    read: Callable[[str], np.ndarray], scale: Scale, asked: tuple[str, ...], parallel_map: Map
) -> dict[str, np.ndarray]:
    """Compute all columns but FDR, for some rows; see :class:`.at_end.EndValues`."""
    names = (*_ALWAYS, *asked)
    values = EndValues(read, scale, names, parallel_map)
    return {name: values[name] for name in names}


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
    parallel_map: Map,
    *,
    scale: Scale,
    columns: tuple[str, ...],
    correction: CorrectionOptions,
    filters: Filters,
    null: EmpiricalNull | None = None,
) -> Finished:
    """Compute the columns of a result in memory. Stored means are rescaled in place."""
    arrays = sink.arrays
    p_values = arrays["p_value"]

    def stored(name: str, rows: slice) -> np.ndarray:
        return arrays[name] if len(arrays[name]) == 1 else arrays[name][rows]

    read = with_cells(stored, arrays, design)
    kept, removed = find_kept(filters, design.n_rows, p_values.shape[1], read, scale.count_mean)
    found = _columns(lambda name: read(name, slice(None)), scale, columns, parallel_map)
    found["fdr"] = correct(p_values, kept, correction, kernels, parallel_map, null)
    if kept is not None:
        found = {name: _only(values, kept, name) for name, values in found.items()}
    return Finished(found, kept, removed)


def judged_again(
    finished: Finished,
    p_values: np.ndarray,
    kernels: KernelSet,
    parallel_map: Map,
    correction: CorrectionOptions,
    null: EmpiricalNull | None = None,
) -> dict[str, np.ndarray]:
    """Return the columns of a result with other p-values, and the FDR of these."""
    fdr = correct(p_values, finished.kept, correction, kernels, parallel_map, null)
    found = {"p_value": p_values, "fdr": fdr}
    if finished.kept is not None:
        found = {name: _only(values, finished.kept, name) for name, values in found.items()}
    return finished.columns | found


def _only(values: np.ndarray, kept: np.ndarray, name: str) -> np.ndarray:
    """Return the values with NaN where a pair is not kept; integer columns stay unchanged."""
    return values if name in registry.INTEGERS else np.where(kept, values, np.nan)


def read_stored(results: StoredResults, design: Design, parallel_map: Map) -> Read:
    """Return a function that reads stored fields and numbers of cells for some rows."""
    return with_cells(
        lambda name, rows: results.read(name, rows, parallel_map), results.fields, design
    )


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
        self, rows: Iterable[slice], parallel_map: Map, ahead: ThreadPoolExecutor
    ) -> Iterator[tuple[slice, dict[str, np.ndarray]]]:
        """Yield the columns of a few rows at a time; `ahead` makes the next one meanwhile.

        The caller owns the pool. A generator that owned it would shut it down wherever it is
        garbage-collected. Inside a thread that is just starting, the shutdown never finishes.
        """
        read = read_stored(self.results, self.design, parallel_map)

        def make(some: slice) -> tuple[slice, dict[str, np.ndarray]]:
            found = _columns(lambda name: read(name, some), self.scale, self.columns, parallel_map)
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
