"""Computing the ranges of a call: plan, run, and plan again if the matrix is not as expected."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from ..backends.contract import NonFiniteError
from ..engines.base import Job
from ..engines.plan import Plan
from ..errors import DataError
from ..sinks.base import Sink
from ..sources.base import NotCanonicalError, Reading, Source, UnevenError
from ..utils.progress import Tracker
from .call import Call

logger = logging.getLogger("pdex_gpu")

_ABOUT_NAN = {
    True: " Or pass nan_policy='omit' (--nan-policy omit), which ignores NaN.",
    False: " Or use pdex_gpu.differential_expression with nan_policy='omit', which ignores NaN.",
}


def run_ranges(call: Call, source: Source, sink: Sink, tracker: Tracker) -> Source:
    """Compute the genes that the sink does not have yet.

    Parameters
    ----------
    call : Call
    source : Source
        The matrix of the call, or its canonical form.
    sink : Sink
    tracker : Tracker

    Returns
    -------
    Source
        The matrix that was read: the canonical form if that was needed.

    Raises
    ------
    DataError
        If a value is not finite, or the matrix cannot be made canonical.
    """
    while True:
        plan = call.executor.plan(
            source, call.analysis.width(call.design), sink, call.budget, call.parallel_map,
            measured=call.analysis.bytes_per_entry,
        )  # fmt: skip
        sink.expect(plan.edges)
        _log(call, source, plan)
        try:
            call.executor.run(_job(call, source, plan, sink, tracker))
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
            raise _not_finite(call, error) from error
        return source


def _job(call: Call, source: Source, plan: Plan, sink: Sink, tracker: Tracker) -> Job[Source]:
    scratch = call.settings.execution.scratch
    reading = Reading(
        advance=tracker.read,
        scratch=None if scratch is None else Path(scratch),
        wanted=frozenset(plan.todo),
        work=plan.work,
        most_entries=plan.most_entries,
        unscaled=call.executor.kernels.scales_rows,
    )
    return Job(
        call.design,
        call.executor.kernels,
        call.analysis,
        plan,
        tracker.tested,
        source,
        sink,
        reading,
        cells=call.cells,
    )


def _log(call: Call, source: Source, plan: Plan) -> None:
    design = call.design
    logger.info(
        "%s: %d targets against %r, %d cells x %d genes (%s), %d ranges, engine %s with "
        "%d workers x %d threads",
        call.analysis.test.metric, design.n_rows, str(design.reference), source.n_cells,
        source.n_genes, source.description, len(plan.todo), call.executor.engine, plan.n_workers,
        plan.n_threads,
    )  # fmt: skip


def _not_finite(call: Call, error: NonFiniteError) -> DataError:
    settings, dataset = call.settings, call.dataset
    what = settings.data.choice.what
    text = (
        f"{what} is {error.value} in cell {dataset.cell_name(error.cell)!r} (row "
        f"{error.cell}), gene {str(dataset.genes[error.gene])!r} (column {error.gene}). "
        "Tests need finite values: replace the value, or remove the cell or the gene."
    )
    if np.isnan(error.value):
        text += _ABOUT_NAN[settings.entry.takes_nan_policy]
    return DataError(text)
