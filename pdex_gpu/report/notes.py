"""Notes to read before trusting a result; they state only what is certain from the result."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..backends.registry import find
from ..calibration.distributions import LEVELS
from ..calibration.result import Calibration
from ..design.comparisons.registry import comparison_names, find_comparison
from ..results.base import Result
from ..results.plot_values import count
from ..stats.registry import METRICS
from .encode import label
from .nouns import noun_of
from .payload import ReportData

#: Fewer cells per side than this are pointed out.
FEW_CELLS = 10


@dataclass(frozen=True)
class Note:
    """A note for the reader.

    Attributes
    ----------
    level : str
        ``"warning"`` or ``"note"``.
    text : str
    """

    level: str
    text: str


def notes(result: Result, data: ReportData, calibration: Calibration | None) -> list[Note]:
    """Return the warnings on a result, then the other notes."""
    found = [
        *_of_rows(result, data),
        *_of_values(result, data),
        *_of_test(result),
        *_of_cells(result, data),
        *_of_calibration(result, calibration),
        *_of_design(result, data),
    ]
    return sorted(found, key=lambda note: note.level != "warning")


def _of_rows(result: Result, data: ReportData) -> Iterator[Note]:
    n_rows = int(data.comparisons.rows.sum())
    if not n_rows:
        yield Note("warning", "The result has no rows, so there is nothing to show.")
        return
    totals, noun = data.totals, noun_of(result.provenance)
    if totals.missing:
        yield Note(
            "warning",
            f"{count(totals.missing, 'row has', 'rows have')} no p-value (NaN). They are not "
            "drawn, and are not hits.",
        )
    if totals.zeros:
        yield Note(
            "warning",
            f"{count(totals.zeros, 'p-value is', 'p-values are')} 0 (too small for a "
            "floating-point number). Volcano plots show them at the upper edge, in a ring. To "
            "distinguish them, run with columns=['log10_p'] (--columns log10_p).",
        )
    if data.n_left_out:
        n = int(data.comparisons.hits.sum())
        most = int(data.rows.n_hits.max())
        yield Note(
            "warning",
            f"{count(n, 'hit')} are more than a page can hold: it has the {most:,} strongest of "
            f"each {noun.one}, and {data.n_left_out:,} are left out. Counts include all hits, "
            "and the results file has all of them.",
        )
    if totals.missing < n_rows and not data.comparisons.hits.any():
        yield Note("note", f"No row has an FDR of {data.fdr:g} or less.")
    removed = result.provenance.get("removed")
    if isinstance(removed, dict):
        n_pairs = max(result.n_rows + sum(removed.values()), 1)
        for name, n in removed.items():
            if isinstance(n, int) and n:
                yield Note(
                    "note",
                    f"The filter {label(name)} removed {n:,} pairs of {noun.one} and gene "
                    f"({100 * n / n_pairs:.1f} %). They are not shown, and were not part of the "
                    "correction.",
                )


def _of_values(result: Result, data: ReportData) -> Iterator[Note]:
    if result.provenance.get("negative_values"):
        yield Note(
            "warning",
            "Some values are negative, as after scaling or centring. Ratios of means are then "
            "meaningless, so this page shows differences of means instead of fold changes. For "
            "fold changes, run on counts or on log-normalised values.",
        )
    elif not data.effect.is_ratio:
        yield Note(
            "warning",
            "No row has a ratio of means, so this page shows differences of means instead of "
            "fold changes.",
        )
    if result.provenance.get("raw_counts"):
        yield Note(
            "note",
            "Values are raw counts, not normalised for library size: cells with more total counts "
            "seem to express more of every gene. Unless this is intended, normalise the counts "
            "before the run.",
        )


def _of_test(result: Result) -> Iterator[Note]:
    provenance = result.provenance
    if not provenance:
        yield Note(
            "note",
            "These results have no record of how they were made, so the test, the correction and "
            "all settings are unknown. Text files (.csv, .tsv) keep no record; .parquet files do.",
        )
    metric, backend = str(provenance.get("metric")), find(provenance.get("backend"))
    if backend is not None and backend.caveat:
        yield Note("warning", backend.caveat)
    options = provenance.get("test_options")
    options = options if isinstance(options, dict) else {}
    if metric in METRICS:
        recorded = options | {"p_values": repr(_kind_of_p_values(provenance))}
        for caveat in METRICS[metric].caveats_of(recorded):
            yield Note(caveat.level, caveat.text)


def _kind_of_p_values(provenance: Mapping[str, Any]) -> str:
    """Return the kind of most p-values; old results have it among their options, if at all."""
    if "p_values" in provenance:
        return str(provenance["p_values"]).split(";")[0]
    options = provenance.get("test_options")
    recorded = options.get("p_values") if isinstance(options, dict) else None
    return str(recorded).strip("'") if recorded is not None else "asymptotic"


def _of_cells(result: Result, data: ReportData) -> Iterator[Note]:
    for side, cells in data.n_cells.items():
        known = data.comparisons.rows > 0
        few = np.flatnonzero(known & (cells < FEW_CELLS))
        if len(few):
            least = int(few[np.argmin(cells[few])])
            yield Note(
                "warning",
                f"{count(len(few), 'comparison has', 'comparisons have')} fewer than {FEW_CELLS} "
                f"{side} cells; {label(result.targets[least])} has the fewest, {cells[least]:,}. "
                "Such p-values say little.",
            )


def _of_calibration(result: Result, calibration: Calibration | None) -> Iterator[Note]:
    if calibration is None:
        return
    ran = _kind_of_p_values(result.provenance)
    kinds = [judged.kind for judged in calibration.kinds]
    kind = ran if ran in kinds else kinds[0]
    parts = [part for part in calibration.parts() if part.kind == kind]
    off = [
        (part.excess[k], level, part.title)
        for part in parts
        for k, level in enumerate(LEVELS)
        if part.too_many[k]
    ]
    if off:
        excess, level, title = max(off, key=lambda one: one[0])
        yield Note(
            "warning",
            f"Control cells compared with control cells give too many small p-values: of {title}, "
            f"p ≤ {level:g} is {excess:.3g} times as frequent as it should be. Such p-values of "
            "this screen are probably too small.",
        )
    known = {
        "metric": calibration.metric,
        "p_values": kind,
        "reference": calibration.reference,
    }
    for name, asked in known.items():
        its = result.provenance.get(name)
        said = str(its).split(";")[0].replace(" | ", " + ")
        if its is not None and said != asked:
            yield Note(
                "warning",
                f"The calibration used the {name} {label(asked)!r}, but this result used "
                f"{label(its)!r}, so the calibration may not apply.",
            )


def _has_one_reference(result: Result) -> bool:
    """Return whether the comparison, if it is known here, is with one reference."""
    name = result.provenance.get("comparison")
    return name in comparison_names() and find_comparison(name).one_reference


def _of_design(result: Result, data: ReportData) -> Iterator[Note]:
    repeated = len(result.features) - len({str(name) for name in result.features})
    if repeated:
        yield Note(
            "note",
            f"{count(repeated, 'gene has', 'genes have')} the same name as an earlier gene. Genes "
            "with the same name are shown separately and numbered.",
        )
    shared = _has_one_reference(result) and result.reference is not None and result.within is None
    if shared and len(result.targets) > 1:
        yield Note(
            "note",
            "All comparisons share one reference, so their errors are not independent: anything "
            f"unusual about its cells affects every {noun_of(result.provenance).one}.",
        )
    undrawn = int(data.comparisons.undrawn.sum()) - data.totals.missing
    if undrawn > 0:
        yield Note(
            "note",
            f"{count(undrawn, 'row has', 'rows have')} no finite {data.effect.text}, so volcano "
            "plots leave them out; tables show them.",
        )
