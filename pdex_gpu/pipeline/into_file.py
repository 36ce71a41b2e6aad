"""A call whose result goes to a file, through a checkpoint next to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..columns.filters import find_kept
from ..columns.finish import StoredFinish, read_stored
from ..design.mock_groups import EMPIRICAL_NULL
from ..engines.memory_model import check_null
from ..errors import DataError, FileFormatError
from ..results.file import ResultFile
from ..results.schema import HIT_FDR
from ..results.table import Table
from ..sinks.checkpoint import Checkpoint, open_checkpoint
from ..sinks.checkpoint_sink import CheckpointSink, StoredResults
from ..stats.multitest.correction import StoredCorrection
from ..stats.multitest.external_sort import FileColumn
from ..utils.atomic_files import writing
from ..utils.value_summary import ValueSummary
from .call import Call
from .empirical import empirical_null, facts_of
from .identity import run_identity
from .output import check_space, write_output
from .ranges import run_ranges
from .value_scale import ValueScale, value_scale

if TYPE_CHECKING:
    import pyarrow

logger = logging.getLogger("pdex_gpu")


def into_file(call: Call, out: Path) -> tuple[ResultFile, ValueScale]:
    """Compute what an earlier call did not, storing each range, then write the file."""
    settings, dataset, design = call.settings, call.dataset, call.design
    fields = call.analysis.fields(design)
    identity = run_identity(settings, dataset, design, call.analysis, call.executor.backend)
    n_genes = dataset.source.n_genes
    check_null(call.null_bytes, call.budget)
    with open_checkpoint(
        out,
        identity,
        fields,
        n_genes,
        restart=settings.output.restart,
        parallel_map=call.parallel_map,
    ) as checkpoint:
        call.executor.use(checkpoint)
        try:
            finished = checkpoint.finished(out)
            # Filters must be evaluated again, from the stored ranges.
            if finished is not None and (checkpoint.complete or not call.filters.any):
                logger.info("%s is complete; only its checkpoint had to be removed", out)
                summary = ValueSummary(**finished["values"])
                written = _kept(call, checkpoint, value_scale(summary, settings))
                n_hits = np.array(finished["n_hits"], dtype=np.int64)
                facts = finished[EMPIRICAL_NULL]
            else:
                check_space(out, checkpoint)
                written, n_hits, facts = _fill_file(call, checkpoint, out)
        except BaseException as error:
            if checkpoint.worth_keeping:
                error.add_note(
                    f"Finished results are kept in {str(checkpoint.folder)!r}; the same call "
                    "resumes from there."
                )
            else:
                checkpoint.remove()
            raise
        checkpoint.remove()
    result = ResultFile(
        out,
        design.targets,
        design.references,
        dataset.genes,
        call.provenance(written.values, written.removed, facts),
        columns=call.analysis.columns,
        within=call.within,
        kept=written.kept,
        symbols=dataset.symbols,
        n_hits=n_hits,
    )
    return result, written.values


@dataclass(frozen=True)
class _Written:
    """The facts known once everything is stored: the scale, and which pairs are kept."""

    values: ValueScale
    kept: np.ndarray | None
    removed: dict[str, int]


def _kept(call: Call, checkpoint: Checkpoint, values: ValueScale) -> _Written:
    results = StoredResults(checkpoint)

    read = read_stored(results, call.design, call.parallel_map)
    mean = call.scale(values).count_mean
    shape = call.design.n_rows, checkpoint.n_genes
    return _Written(values, *find_kept(call.filters_on(values), *shape, read, mean))


def _fill_file(
    call: Call, checkpoint: Checkpoint, out: Path
) -> tuple[_Written, np.ndarray, Mapping[str, Any] | None]:
    """Compute, adjust and write.

    Returns
    -------
    written : _Written
    n_hits : numpy.ndarray, shape (n_rows,), int64
        Number of hits per comparison.
    empirical : mapping or None
        Facts about the empirical null, if there is one.
    """
    settings, dataset, design = call.settings, call.dataset, call.design
    checkpoint.warn_of_damage()
    sink = CheckpointSink(checkpoint)
    n_done, n_genes = int(sink.stored.sum()), len(sink.stored)
    n_rows = design.n_rows * n_genes
    if n_done:
        logger.info(
            "resuming: %s of %s genes are done in %s", f"{n_done:,}", f"{n_genes:,}",
            checkpoint.folder, extra={"notice": True},
        )  # fmt: skip
    with call.tracker(n_rows=n_rows, done_genes=n_done) as tracker:
        source = dataset.source
        if checkpoint.canonical and (n_done < n_genes or call.mock is not None):
            source = source.canonical()
        try:
            if n_done < n_genes:
                source = run_ranges(call, source, sink, tracker)
            sink.check_complete()
            values = value_scale(sink.summary, settings)
            empirical = empirical_null(call, source, values, tracker)
        except (DataError, FileFormatError):
            checkpoint.remove()  # these data give no table; changed data are a new run
            call.executor.discard()
            raise
        call.executor.discard()
        found = _kept(call, checkpoint, values)
        facts = facts_of(empirical)
        table = Table(
            design.targets,
            design.references,
            dataset.genes,
            call.provenance(found.values, found.removed, facts),
            columns=call.analysis.columns,
            within=call.within,
            kept=found.kept,
            symbols=dataset.symbols,
            spreadsheet_safe=settings.table.spreadsheet_safe,
        )
        n_kept = n_rows if found.kept is None else int(np.count_nonzero(found.kept))
        with (
            checkpoint.unnamed_file() as file,
            ThreadPoolExecutor(1, "pdex_gpu-ahead") as ahead,
        ):
            results = StoredResults(checkpoint)
            column = FileColumn(file, n_kept)
            null = None if empirical is None else empirical.nulls["p_value"]
            fdr = StoredCorrection(results, found.kept, settings.correction, column, null)
            with writing("The false discovery rates of", out):
                fdr.prepare(call.executor.kernels, call.parallel_map, call.budget // 2)
            scale = call.scale(found.values)
            made = StoredFinish(results, design, scale, call.analysis.columns, found.kept, fdr)
            n_hits = np.zeros(design.n_rows, dtype=np.int64)

            def parts() -> Iterator[pyarrow.Table]:
                for rows, columns in made.blocks(table.blocks(), call.parallel_map, ahead):
                    n_hits[rows] = np.count_nonzero(columns["fdr"] <= HIT_FDR, axis=1)
                    yield table.arrow(rows, columns)
                    tracker.wrote((rows.stop - rows.start) * n_genes)

            summary = asdict(found.values.summary)
            write_output(
                out, checkpoint, table, parts(),
                facts=lambda: {
                    "values": summary, "n_hits": n_hits.tolist(), EMPIRICAL_NULL: facts,
                },
            )  # fmt: skip
    return found, n_hits, facts
