"""The input of columns that are derived when all genes are computed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np

from ..utils.parallel import Map
from . import registry
from .base import AtEnd, Needs

if TYPE_CHECKING:
    from .finish import Scale

_PAIRS_PER_TASK = 1 << 15

_T = TypeVar("_T")


class EndValues:
    """Columns, and what they are derived from, for some rows of a result.

    Parameters
    ----------
    read : callable
        Returns stored fields and numbers of cells for these rows; shown means are overwritten.
    scale : Scale
    asked : tuple of str
        The columns that will be made.
    run : callable
        Spreads the work.
    """

    def __init__(
        self,
        read: Callable[[str], np.ndarray],
        scale: Scale,
        asked: tuple[str, ...],
        parallel_map: Map,
    ) -> None:
        self.scale = scale
        self.parallel_map = parallel_map
        self._read = read
        self.shape: tuple[int, int] = read("p_value").shape
        needs = registry.needs_of(asked)
        self._made: dict[str, np.ndarray] = {}
        self._known: dict[Any, Any] = {}
        # Copies, made before the shown means are rescaled in place.
        self._means = {
            which: [np.array(read(f"{side}_{mean}")) for side in ("target", "reference")]
            for which, mean in (
                (Needs.COUNT_MEANS, scale.count_mean),
                (Needs.LOG_MEANS, scale.log_mean),
            )
            if which & needs and not scale.negative
        }

    def __getitem__(self, name: str) -> np.ndarray:
        """Return the values of a column, shape (n_rows, n_genes)."""
        if name not in self._made:
            self._made[name] = self._make(name)
        return self._made[name]

    def _make(self, name: str) -> np.ndarray:
        column = registry.find(name)
        if not isinstance(column.make, AtEnd):
            values = self._read(name)
        elif column.make.counts_only and self.scale.negative:
            return np.broadcast_to(np.nan, self.shape)
        else:
            values = column.make.values(self)
        if values.shape != self.shape:
            values = np.broadcast_to(values, self.shape)
        return values.astype(column.dtype, copy=False)

    def once(self, formula: Callable[[Self], _T]) -> _T:
        """Return ``formula(self)``, computed once for all columns that share it."""
        if formula not in self._known:
            self._known[formula] = formula(self)
        found: _T = self._known[formula]
        return found

    @property
    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the means that the result shows; the reference may have a single row."""
        return self.once(_shown_means)

    @property
    def count_means(self) -> list[np.ndarray]:
        """Return means in count space, as `means`; the column needs ``Needs.COUNT_MEANS``."""
        return self._means[Needs.COUNT_MEANS]

    @property
    def log_means(self) -> list[np.ndarray]:
        """Return means in log space, as `means`; the column needs ``Needs.LOG_MEANS``."""
        return self._means[Needs.LOG_MEANS]

    def by_rows(self, function: Callable[[slice], None]) -> None:
        """Call a function for a few rows at a time, in parallel."""
        by_rows(function, self.shape, self.parallel_map)


def by_rows(function: Callable[[slice], None], shape: tuple[int, ...], parallel_map: Map) -> None:
    """Call a function for a few rows at a time, as many as fit in a cache."""
    step = max(1, _PAIRS_PER_TASK // max(1, shape[1]))
    for _ in parallel_map(
        function, [slice(r, min(r + step, shape[0])) for r in range(0, shape[0], step)]
    ):
        pass


def _shown_means(values: EndValues) -> tuple[np.ndarray, np.ndarray]:
    scale = values.scale
    target, reference = (
        scale.rescaled(values._read(f"{side}_{scale.field}"), values.parallel_map)
        for side in ("target", "reference")
    )
    return target, reference
