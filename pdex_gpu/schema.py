"""The one result schema, behind both calls and every backend."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Column:
    """A column of the result table.

    Attributes
    ----------
    name : str
    kind : str
        ``"label"`` or ``"float64"``.
    meaning : str
    missing : str
        When it is NaN; labels never are.
    """

    name: str
    kind: str
    meaning: str
    missing: str = "never"


COLUMNS = (
    Column("target", "label", "group that is compared"),
    Column("reference", "label", "group it is compared with"),
    Column("feature", "label", "gene"),
    Column("target_mean", "float64", "mean of the target's cells, in count space if is_log1p"),
    Column("reference_mean", "float64", "mean of the reference's cells, likewise"),
    Column(
        "percent_change",
        "float64",
        "(target_mean - reference_mean) / reference_mean",
        "where reference_mean is 0",
    ),
    Column(
        "fold_change",
        "float64",
        "target_mean / reference_mean, clipped where a mean is 0",
        "where reference_mean is 0 and clip_value is None",
    ),
    Column("p_value", "float64", "p-value of the test; 1 where the test cannot judge"),
    Column(
        "statistic",
        "float64",
        "U of the target, t, or the normalised A2",
        "where the test cannot judge",
    ),
    Column("fdr", "float64", "Benjamini-Hochberg adjusted p-value over all rows"),
)

LABELS = tuple(c.name for c in COLUMNS if c.kind == "label")
VALUES = tuple(c.name for c in COLUMNS if c.kind == "float64")
