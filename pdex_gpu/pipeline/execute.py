"""One call, from a screen to its results: validate, plan, run, finish."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from ..columns.filters import Filters
from ..columns.measure import Analysis
from ..design.contrasts import Design
from ..design.own_genes import own_genes
from ..engines.executor import Executor, open_executor
from ..errors import DuplicateGeneWarning, listing, warn
from ..request.analysis import analysis_of
from ..request.normalize import warn_of_empty_cells
from ..request.options import Settings
from ..request.screen import design_of, open_screen
from ..results.file import ResultFile
from ..results.memory import DEResult
from ..sources.dataset import Dataset
from ..sources.sizes import left_for_plan
from ..stats.registry import make_test
from ..stats.two_sample.base import StatisticalTest
from ..utils.parallel import pool_map
from ..utils.resources import cpu_count, memory_budget
from .call import Call
from .empirical import mock_groups_of
from .in_memory import into_memory
from .into_file import into_file
from .output import check_output, input_files
from .value_scale import ValueScale, doubt

logger = logging.getLogger("pdex_gpu")


def compare(data: Any, settings: Settings) -> DEResult | ResultFile:
    """Run a comparison."""
    return _compare(data, settings, ())[0]


def compare_kinds(
    data: Any, settings: Settings, others: Sequence[StatisticalTest]
) -> list[DEResult]:
    """Run a comparison once, and judge what was measured by other tests as well.

    Parameters
    ----------
    data, settings
        As in :func:`compare`; the result stays in memory.
    others : sequence of StatisticalTest
        Tests that measure the same as that of `settings`, such as tests with other p-values.

    Returns
    -------
    list of DEResult
        The result of `settings`, then those of `others`.
    """
    found = _compare(data, settings, others)
    return [result for result in found if isinstance(result, DEResult)]


def _compare(
    data: Any, settings: Settings, others: Sequence[StatisticalTest]
) -> Sequence[DEResult | ResultFile]:
    started = time.perf_counter()
    if settings.output.out is not None:
        check_output(
            Path(settings.output.out),
            sources=input_files(data),
            overwrite=settings.output.force,
            spreadsheet_safe=settings.table.spreadsheet_safe,
        )
    test = make_test(settings.test.metric, settings.test.test_options, settings.call)
    with closing(open_executor(settings, test)) as executor:
        settings = executor.settings
        if isinstance(settings.comparison.groups, Iterator):  # workers iterate over it again
            settings = settings.changed(groups=tuple(settings.comparison.groups))
        analysis = analysis_of(settings, test)
        why = test.why_asymptotic()
        if why is not None:
            logger.warning(
                "p-values of metric=%r are asymptotic: %s. To choose them, pass "
                "p_values='asymptotic' (--p-values asymptotic)", test.metric, why,
            )  # fmt: skip
        if others:
            analysis = analysis.judged_also(others)
        with open_screen(data, settings) as dataset:
            executor.prepare(data, dataset, settings, test)
            _warn_of_repeated_genes(dataset)
            matrices = dataset.matrices()  # now: damage must show before the output is written
            results, values = _computed(settings, dataset, analysis, executor)
            for result in results:
                if isinstance(result, DEResult):
                    result.provenance["seconds"] = round(time.perf_counter() - started, 6)
            warn_of_empty_cells(dataset)
            if values.negative and analysis.p_value_kind == "conditional":
                logger.warning(
                    "p-values of genes with negative values are asymptotic, those of other genes "
                    "conditional"
                )
            doubtful = doubt(values, settings, matrices)
            if doubtful is not None:
                warn(doubtful)
    return results


def _warn_of_repeated_genes(dataset: Dataset) -> None:
    repeated = [gene for gene, n in Counter(dataset.genes).items() if n > 1]
    if repeated:
        warn(
            f"{len(repeated)} gene names occur more than once: {listing(repeated)}. Each "
            "column is tested separately.",
            DuplicateGeneWarning,
        )


def _computed(
    settings: Settings, dataset: Dataset, analysis: Analysis, executor: Executor
) -> tuple[Sequence[DEResult | ResultFile], ValueScale]:
    design = design_of(dataset, settings)
    filters = Filters(
        settings.filters.min_fraction,
        settings.filters.min_cpm,
        settings.filters.filter_sides == "either",
        _own_genes(dataset, settings, design),
    )
    with ThreadPoolExecutor(settings.execution.n_threads or cpu_count(), "pdex_gpu") as pool:
        budget = left_for_plan(memory_budget(settings.execution.memory), dataset.source.n_cells)
        mock = mock_groups_of(design, settings, dataset.source)
        its_map = pool_map(pool)
        call = Call(settings, dataset, design, analysis, filters, executor, budget, its_map, mock)
        if settings.output.out is None:
            return into_memory(call)
        result, values = into_file(call, Path(settings.output.out))
        return [result], values


def _own_genes(dataset: Dataset, settings: Settings, design: Design) -> np.ndarray | None:
    if settings.comparison.on_target is None:
        return None
    return own_genes(
        dataset.labels,
        dataset.column(settings.comparison.on_target),
        dataset.genes,
        dataset.symbols,
        design,
        settings.comparison.group_column,
        settings.comparison.on_target,
    )
