"""The scale of a matrix's values: counts, log1p of counts, or neither; and warnings about it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ScaleWarning, listing
from ..request.options import PDEX_ENTRY, SCANPY_ENTRY, Settings
from ..utils.value_summary import ValueSummary

logger = logging.getLogger("pdex_gpu")

#: log1p of counts stays below this, which is the log1p of 7e10.
LARGEST_LOG1P = 25.0
_EXPM1_OVERFLOWS = 709.0

_NORMALISE = "have them normalised on the way with normalize=1e4 (--normalize 1e4)"


@dataclass(frozen=True)
class ValueScale:
    """The scale that values are assumed to be on.

    Attributes
    ----------
    summary : ValueSummary
        Facts about the values.
    is_log1p : bool
        Whether they are taken for ``log1p`` of counts; never if some are negative.
    """

    summary: ValueSummary
    is_log1p: bool

    @property
    def negative(self) -> bool:
        """Return whether some value is negative: neither counts nor ``log1p`` of counts."""
        return self.summary.minimum < 0.0

    @property
    def raw_counts(self) -> bool:
        """Return whether all values are whole, none is negative, and they are taken as counts."""
        return not (self.summary.fractional or self.negative or self.is_log1p)

    @property
    def too_large(self) -> bool:
        """Return whether some value is too large for ``log1p`` of counts."""
        return self.summary.maximum > LARGEST_LOG1P


def value_scale(summary: ValueSummary, settings: Settings) -> ValueScale:
    """Decide the scale of the values, from the facts about them and the settings.

    If the settings leave `is_log1p` open, values with fractions are logarithms unless they are too
    large for that. The drop-in for pdex 0.1.28 still takes those for logarithms, as pdex does.
    """
    asked = settings.columns.is_log1p
    if settings.data.normalize is not None:
        return ValueScale(summary, settings.data.takes_log1p)
    found = ValueScale(summary, bool(summary.fractional if asked is None else asked))
    if found.negative or (found.too_large and asked is None and settings.entry.name != PDEX_ENTRY):
        found = ValueScale(summary, False)
    if asked is None:
        kind = "some values have fractional parts" if summary.fractional else "all are whole"
        logger.info(
            "is_log1p=%s: %s, from %g to %g",
            found.is_log1p, kind, summary.minimum, summary.maximum,
        )  # fmt: skip
    return found


def doubt(scale: ValueScale, settings: Settings, matrices: Sequence[str]) -> ScaleWarning | None:
    """Return a warning about columns that mean nothing on this scale, with a remedy, or None.

    Parameters
    ----------
    scale : ValueScale
    settings : Settings
    matrices : sequence of str
        The other matrices of the data, which may hold counts; see :class:`.dataset.Dataset`.
    """
    if settings.data.normalize is not None:
        return None
    what = settings.data.choice.title
    largest, limit = f"{scale.summary.maximum:,.6g}", f"{LARGEST_LOG1P:g}"
    if scale.negative:
        unfiltered = (
            "" if settings.filters.min_cpm is None else " min_cpm= (cpm_filter=) is not applied."
        )
        return ScaleWarning(
            f"{what} has negative values, down to {scale.summary.minimum:.6g}: they are neither "
            "counts nor log1p of counts (perhaps scaled, centred or residuals), so ratios of their "
            "means are meaningless. Fold changes, percent changes and means of counts are "
            f"NaN.{unfiltered} Use the column mean_difference of differential_expression "
            "(columns=['mean_difference'], --columns mean_difference), or pass counts or log1p of "
            f"counts in X or with layer= (--layer). {elsewhere(matrices)}"
        )
    if not scale.too_large:
        return None
    if scale.is_log1p:
        of_scanpy = settings.entry.name == SCANPY_ENTRY
        if of_scanpy and not scale.summary.fractional:
            return None  # raw counts: a log line says so, as in scanpy
        infinite = ""
        if scale.summary.maximum > _EXPM1_OVERFLOWS:
            infinite = f", and expm1 of more than {_EXPM1_OVERFLOWS:g} is infinite"
        advice = "" if of_scanpy else "pass is_log1p=False (--is-log1p no), or "
        return ScaleWarning(
            f"{what} is treated as log1p of counts, but its values reach {largest}: log1p of "
            f"counts stays below {limit}{infinite}. Fold changes and means in count space use "
            f"expm1 of the values and are meaningless. If these are counts, {advice}{_NORMALISE}."
        )
    if settings.columns.is_log1p is None and scale.summary.fractional:
        return ScaleWarning(
            f"{what} has fractions, like logarithms, but its values reach {largest}: log1p of "
            f"counts stays below {limit}. They are therefore treated as normalised or corrected "
            "counts, as with is_log1p=False. If they are, pass is_log1p=False (--is-log1p no); "
            f"otherwise {_NORMALISE}."
        )
    return None


def elsewhere(matrices: Sequence[str]) -> str:
    """Return a sentence that names the other matrices of the data, where counts may be."""
    layers = [name for name in matrices if name not in ("X", "raw")]
    parts = ["X"] if "X" in matrices else []
    if layers:
        parts.append(f"layers {listing(layers)}")
    if "raw" in matrices:
        parts.append("raw (raw=True, --raw)")
    return f"The data also have {'; '.join(parts)}." if parts else "The data have no other matrix."
