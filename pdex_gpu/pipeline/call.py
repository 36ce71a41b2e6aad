"""The decisions about a call that are made before it computes anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..columns.filters import Filters
from ..columns.finish import Scale
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..design.mock_groups import MockGroups
from ..design.naming import Within
from ..engines.executor import Executor
from ..engines.memory_model import ResultSize, null_bytes
from ..request.options import Settings
from ..sources.dataset import Dataset
from ..utils.parallel import Map
from ..utils.progress import Tracker
from .provenance import make_provenance
from .value_scale import ValueScale


@dataclass(frozen=True)
class Call:
    """A call with its data open: everything that is decided before the computation starts.

    Attributes
    ----------
    settings : Settings
    dataset : Dataset
    design : Design
    analysis : Analysis
    filters : Filters
    executor : Executor
        Prepared for the data.
    budget : int
        Bytes that this process may use.
    parallel_map : callable
        A map over the threads of this process.
    mock : MockGroups, optional
        The mock groups that p-values are judged against.
    cells : numpy.ndarray, optional
        Cells of the data in the order of the design, if it is not that of their labels.
    """

    settings: Settings
    dataset: Dataset
    design: Design
    analysis: Analysis
    filters: Filters
    executor: Executor
    budget: int
    parallel_map: Map
    mock: MockGroups | None = None
    cells: np.ndarray | None = None

    @property
    def within(self) -> Within | None:
        """Return the label columns whose levels each row is compared within."""
        levels, names = self.design.within, self.settings.comparison.within_columns
        return None if levels is None else (names[0] if len(names) == 1 else names, levels)

    @property
    def result_size(self) -> ResultSize:
        """Return the size of the result."""
        return ResultSize(
            self.analysis.fields(self.design),
            self.design.n_rows,
            len(self.analysis.columns),
            self.dataset.source.n_genes,
            self.null_bytes,
        )

    @property
    def null_bytes(self) -> int:
        """Return the bytes that null p-values take."""
        if self.mock is None:
            return 0
        n_fields = len(self.analysis.fields(self.design)) if self.filters.of_values else 1
        return null_bytes(len(self.mock.model_rows), self.dataset.source.n_genes, n_fields)

    @property
    def n_readings(self) -> int:
        """Return how often the data are read."""
        return 1 if self.mock is None else 2

    def scale(self, values: ValueScale) -> Scale:
        """Return the scale of means and changes for these values."""
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
        """Return what shows the progress of the call."""
        source = self.dataset.source
        return Tracker(
            self.settings.output.progress,
            description=self.analysis.test.metric,
            total_bytes=source.n_bytes * self.n_readings,
            total_genes=source.n_genes * self.n_readings,
            total_rows=n_rows,
            done_genes=done_genes,
        )

    def provenance(
        self,
        values: ValueScale,
        removed: Mapping[str, int],
        empirical: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Return where the result comes from, the facts about an empirical null included."""
        return make_provenance(
            self.settings,
            self.dataset,
            self.design,
            self.analysis,
            self.executor.backend,
            self.executor.engine,
            values,
            removed,
            self.filters.own_gene,
            empirical,
        )
