"""A call whose result stays in memory."""

from __future__ import annotations

from dataclasses import replace

from ..columns.finish import finish, judged_again
from ..results.memory import DEResult
from ..sinks.memory import MemorySink
from .call import Call
from .empirical import empirical_null, facts_of
from .ranges import run_ranges
from .value_scale import ValueScale, value_scale


def into_memory(call: Call) -> tuple[list[DEResult], ValueScale]:
    """Compute all genes, adjust, and return the results with the scale of their values.

    The first result is that of the call's test, the others those of tests that judge the same
    measurements.
    """
    settings, design, source = call.settings, call.design, call.dataset.source
    call.result_size.check(call.budget)
    sink = MemorySink(call.analysis.fields(design), source.n_genes, call.parallel_map)
    call.executor.use(None)
    with call.tracker() as tracker:
        try:
            source = run_ranges(call, source, sink, tracker)
            sink.check_complete()
            values = value_scale(sink.summary, settings)
            empirical = empirical_null(call, source, values, tracker, held=sink.n_bytes)
        finally:
            call.executor.discard()
        nulls = {} if empirical is None else empirical.nulls
        finished = finish(
            sink,
            design,
            call.executor.kernels,
            call.parallel_map,
            scale=call.scale(values),
            columns=call.analysis.columns,
            correction=settings.correction,
            filters=call.filters_on(values),
            null=nulls.get("p_value"),
        )
    found = [(call, finished.columns)]
    for name in call.analysis.others:
        other = call.analysis.of_other(name)
        columns = judged_again(
            finished,
            sink.arrays[name],
            call.executor.kernels,
            call.parallel_map,
            settings.correction,
            nulls.get(name),
        )
        found.append((replace(call, analysis=other), columns))
    results = [
        DEResult(
            design.targets,
            design.references,
            call.dataset.genes,
            columns,
            its.provenance(values, finished.removed, facts_of(empirical)),
            within=call.within,
            kept=finished.kept,
            symbols=call.dataset.symbols,
        )
        for its, columns in found
    ]
    return results, values
