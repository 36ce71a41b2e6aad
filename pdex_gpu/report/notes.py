"""Notes to read before trusting a result; they state only what is certain from the result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..backends.registry import find
from ..calibration.result import Calibration
from ..results.base import Result
from ..results.plot_values import count
from .encode import label
from .payload import Carried

#: Fewer cells per side than this are pointed out.
FEW_CELLS = 10

#: Calibration inflation above this is pointed out.
INFLATED = 1.1


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


def notes(result: Result, data: Carried, calibration: Calibration | None) -> list[Note]:
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


def _of_rows(result: Result, data: Carried) -> Iterator[Note]:
    n_rows = int(data.comparisons.rows.sum())
    if not n_rows:
        yield Note("warning", "The result has no rows: there is nothing to show.")
        return
    totals = data.totals
    if totals.missing:
        yield Note(
            "warning",
            f"{count(totals.missing, 'row has', 'rows have')} no p-value (NaN). They are in no "
            "picture, and no hits.",
        )
    if totals.zeros:
        yield Note(
            "warning",
            f"{count(totals.zeros, 'p-value is', 'p-values are')} 0: smaller than a number can be. "
            "In volcanoes they stand at the upper edge, ringed. Run with columns=['log10_p'] "
            "(--columns log10_p) to tell them apart.",
        )
    if data.n_left_out:
        n = int(data.comparisons.hits.sum())
        most = int(data.rows.n_hits.max())
        yield Note(
            "warning",
            f"{count(n, 'hit')} are more than a page can carry: the {most:,} strongest of each "
            f"perturbation are here, {data.n_left_out:,} are not. All are counted, and in the "
            "results file.",
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
                    f"The filter {label(name)} left out {n:,} pairs of perturbation and gene "
                    f"({100 * n / n_pairs:.1f} %). They are in no "
                    "table, picture or correction.",
                )


def _of_values(result: Result, data: Carried) -> Iterator[Note]:
    if result.provenance.get("negative_values"):
        yield Note(
            "warning",
            "Some values are negative, as after scaling or centring. Ratios of means say nothing "
            "then and are left out: this page shows the difference of the means in place of fold "
            "changes. Run on counts or on log-normalised values to have fold changes.",
        )
    elif not data.effect.is_ratio:
        yield Note(
            "warning",
            "No row has a ratio of means: this page shows the difference of the means in place of "
            "fold changes.",
        )
    if result.provenance.get("raw_counts"):
        yield Note(
            "note",
            "Values are raw counts, so library size is not removed: cells with more counts in all "
            "seem to express more of every gene. Normalise the counts before the run unless that "
            "is meant.",
        )


def _of_test(result: Result) -> Iterator[Note]:
    provenance = result.provenance
    metric, backend = provenance.get("metric"), find(provenance.get("backend"))
    if backend is not None and backend.caveat:
        yield Note("warning", backend.caveat)
    options = provenance.get("test_options")
    options = options if isinstance(options, dict) else {}
    if metric == "anderson" and "interpolated" in str(options.get("p_values", "")):
        yield Note(
            "warning",
            "Anderson-Darling p-values are interpolated in a table that ends at 0.001 and 0.25: "
            "smaller and larger ones stand there. p_values='asymptotic' has no such limits.",
        )
    elif metric == "anderson":
        yield Note(
            "note",
            "Anderson-Darling supposes continuous values: where most are tied, as in genes seen in "
            "few cells, p-values are too small.",
        )
    if metric == "ks":
        yield Note(
            "note",
            "Kolmogorov-Smirnov p-values are asymptotic; ties, as among sparse counts, make them "
            "too large.",
        )


def _of_cells(result: Result, data: Carried) -> Iterator[Note]:
    for side, cells in data.n_cells.items():
        known = data.comparisons.rows > 0
        few = np.flatnonzero(known & (cells < FEW_CELLS))
        if len(few):
            least = int(few[np.argmin(cells[few])])
            yield Note(
                "warning",
                f"{count(len(few), 'comparison has', 'comparisons have')} fewer than {FEW_CELLS} "
                f"cells on the side of the {side}; the fewest, {cells[least]:,}, "
                f"{label(result.targets[least])}. Such p-values say little.",
            )


def _of_calibration(result: Result, calibration: Calibration | None) -> Iterator[Note]:
    if calibration is None:
        return
    total = calibration.total
    if total.inflation > INFLATED:
        yield Note(
            "warning",
            f"P-values of control cells against control cells are inflated: lambda is "
            f"{total.inflation:.3g}, where 1 is right. P-values of this screen are likely too "
            "small.",
        )
    known = {"metric": calibration.metric, "reference": calibration.reference}
    for name, asked in known.items():
        ran = result.provenance.get(name)
        said = str(ran).replace(" | ", " + ")
        if ran is not None and said != asked:
            yield Note(
                "warning",
                f"The calibration was made with another {name} ({label(asked)!r}) than this result "
                f"({label(ran)!r}): it may not apply.",
            )


def _of_design(result: Result, data: Carried) -> Iterator[Note]:
    repeated = len(result.features) - len({str(name) for name in result.features})
    if repeated:
        yield Note(
            "note",
            f"{count(repeated, 'gene has', 'genes have')} a name that another gene before has, "
            "too. Each is shown on its own, with its number among those of that name.",
        )
    by_reference = result.provenance.get("comparison") == "reference"
    shared = by_reference and result.reference is not None and result.within is None
    if shared and len(result.targets) > 1:
        yield Note(
            "note",
            "All comparisons share one reference, so their errors are not independent of each "
            "other: what is odd in its cells shows in every perturbation.",
        )
    undrawn = int(data.comparisons.undrawn.sum()) - data.totals.missing
    if undrawn > 0:
        yield Note(
            "note",
            f"{count(undrawn, 'row has', 'rows have')} no finite {data.effect.text} and no place "
            "in a volcano; tables show them.",
        )
