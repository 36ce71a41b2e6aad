"""A call whose result stays in memory."""

from __future__ import annotations

from ..columns.finish import finish
from ..results.memory import DEResult
from ..sinks.memory import MemorySink
from .call import Call
from .ranges import run_ranges
from .value_scale import ValueScale, value_scale


def into_memory(call: Call) -> tuple[DEResult, ValueScale]:
    """Compute all genes, adjust, and return the result with the scale of its values."""
    settings, design, source = call.settings, call.design, call.dataset.source
    call.result_size.check(call.budget)
    sink = MemorySink(call.analysis.fields(design), source.n_genes, call.parallel_map)
    call.executor.use(None)
    with call.tracker() as tracker:
        try:
            run_ranges(call, source, sink, tracker)
        finally:
            call.executor.discard()
        sink.check_complete()
        values = value_scale(sink.summary, settings)
        finished = finish(
            sink,
            design,
            call.executor.kernels,
            call.parallel_map,
            scale=call.scale(values),
            columns=call.analysis.columns,
            correction=settings.correction,
            filters=call.filters_on(values),
        )
    result = DEResult(
        design.targets,
        design.references,
        call.dataset.genes,
        finished.columns,
        call.provenance(values, finished.removed),
        within=call.within,
        kept=finished.kept,
    )
    return result, values
