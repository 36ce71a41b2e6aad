"""The result schema, which all calls and backends share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..errors import OptionError, unknown
from ..utils.checks import names_of

#: Version of the columns and of the metadata of files; recorded in each file.
SCHEMA_VERSION = 1

#: A row counts as a hit up to this FDR, unless another limit was asked for.
HIT_FDR = 0.05


@dataclass(frozen=True)
class Column:
    """A column of the result table.

    Attributes
    ----------
    name : str
    kind : str
        ``"label"``, ``"float64"`` or ``"int64"``.
    meaning : str
    missing : str
        When the column is NaN; labels and whole numbers never are. In addition, it is NaN with
        ``nan_policy="omit"`` where a side has no value left, and with ``"propagate"`` where a
        value is NaN.
    """

    name: str
    kind: str
    meaning: str
    missing: str = "never"


_NEGATIVE = "everywhere if some value of the matrix is negative"

#: Columns of every result.
COLUMNS = (
    Column("target", "label", "group that is tested"),
    Column("reference", "label", "group or groups it is compared with"),
    Column("feature", "label", "gene"),
    Column("target_mean", "float64", "mean of the target's cells, in count space if is_log1p"),
    Column("reference_mean", "float64", "the same for the reference"),
    Column(
        "percent_change",
        "float64",
        "(target_mean - reference_mean) / reference_mean",
        f"where reference_mean is 0; {_NEGATIVE}",
    ),
    Column(
        "fold_change",
        "float64",
        "target_mean / reference_mean, clipped where a mean is 0",
        f"where reference_mean is 0 and clip_value is None; {_NEGATIVE}",
    ),
    Column("p_value", "float64", "p-value of the test; 1 where the test is undefined"),
    Column(
        "statistic",
        "float64",
        "test statistic: U of the target, t, the normalised A2, or D",
        "where the test is undefined",
    ),
    Column("fdr", "float64", "adjusted p-value; by default Benjamini-Hochberg over all rows"),
)

_FEW_CELLS = "if a side has fewer than two cells"
_NO_VARIANCE = f"{_FEW_CELLS}, or with pooled variance fewer than three cells in total"
_NO_SPREAD = "if neither side has variance, or with fewer than three cells in total"

#: Columns that a call adds with ``columns=``.
EXTRA_COLUMNS = (
    Column("target_n_cells", "int64", "cells of the target"),
    Column("reference_n_cells", "int64", "cells of the reference"),
    Column("n_strata", "int64", "strata that contain both sides and contribute to the row"),
    Column("target_n_expressed", "int64", "cells of the target with a nonzero value"),
    Column("reference_n_expressed", "int64", "cells of the reference with a nonzero value"),
    Column("target_fraction", "float64", "target_n_expressed / target_n_cells"),
    Column("reference_fraction", "float64", "reference_n_expressed / reference_n_cells"),
    Column(
        "target_count_mean",
        "float64",
        "mean in count space: of expm1(x) if is_log1p, else of x",
        _NEGATIVE,
    ),
    Column("reference_count_mean", "float64", "the same for the reference", _NEGATIVE),
    Column(
        "target_log_mean",
        "float64",
        "mean in log space: of x if is_log1p, else of log1p(x)",
        _NEGATIVE,
    ),
    Column("reference_log_mean", "float64", "the same for the reference", _NEGATIVE),
    Column("target_geometric_mean", "float64", "expm1(target_log_mean), as in pdex 0.3", _NEGATIVE),
    Column(
        "reference_geometric_mean",
        "float64",
        "expm1(reference_log_mean), as in pdex 0.3",
        _NEGATIVE,
    ),
    Column(
        "log2_fold_change",
        "float64",
        "log2(fold_change), the ratio of pdex 0.1.28",
        "where fold_change is",
    ),
    Column(
        "log2_fold_change_scanpy",
        "float64",
        "log2 of (expm1(target_log_mean) + 1e-9) / (expm1(reference_log_mean) + 1e-9), as in "
        "scanpy",
        _NEGATIVE,
    ),
    Column(
        "log2_fold_change_seurat",
        "float64",
        "log2 of (target_count_mean + 1) / (reference_count_mean + 1), as in Seurat's FindMarkers",
        _NEGATIVE,
    ),
    Column(
        "log2_fold_change_geometric",
        "float64",
        "log2 of (target_geometric_mean + pseudocount) / (reference_geometric_mean + "
        "pseudocount), 0 where both are 0, as in pdex 0.3",
        _NEGATIVE,
    ),
    Column("auroc", "float64", "P(target > reference) + P(equal) / 2, which is U / (n m)"),
    Column("auroc_low", "float64", "lower limit of DeLong's confidence interval", _FEW_CELLS),
    Column("auroc_high", "float64", "upper limit of that interval", _FEW_CELLS),
    Column("rank_biserial", "float64", "rank-biserial correlation, 2 auroc - 1"),
    Column("mean_difference", "float64", "mean of x in the target minus that in the reference"),
    Column(
        "mean_difference_low",
        "float64",
        "lower limit of its confidence interval from Student's t",
        _NO_VARIANCE,
    ),
    Column("mean_difference_high", "float64", "upper limit of that interval", _NO_VARIANCE),
    Column("cohens_d", "float64", "mean_difference / pooled standard deviation of x", _NO_SPREAD),
    Column(
        "hedges_g",
        "float64",
        "cohens_d corrected for its bias in small samples",
        "if neither side has variance, or with fewer than four cells in total",
    ),
    Column("z", "float64", "signed standard normal deviate of U (Wilcoxon)"),
    Column("log10_p", "float64", "log10 of the p-value, exact where p_value underflows to 0"),
)

LABELS = tuple(c.name for c in COLUMNS if c.kind == "label")
VALUES = tuple(c.name for c in COLUMNS if c.kind == "float64")
EXTRA = tuple(c.name for c in EXTRA_COLUMNS)
INTEGERS = frozenset(c.name for c in EXTRA_COLUMNS if c.kind == "int64")


def extra_columns(asked: str | Iterable[str], lacking: Mapping[str, str]) -> tuple[str, ...]:
    """Return the further columns asked for, in schema order.

    Parameters
    ----------
    asked : str or iterable of str
        ``"all"`` stands for all columns that are not lacking.
    lacking : mapping
        Columns that the test does not have, and the reason as the end of a sentence.

    Raises
    ------
    OptionError
        If a column does not exist, or is lacking.
    """
    names = names_of("columns", asked, "columns", "['auroc', 'log10_p'], or 'all'")
    if names == ["all"]:
        return tuple(name for name in EXTRA if name not in lacking)
    for name in names:
        if name not in EXTRA and name not in VALUES and name not in LABELS:
            raise OptionError(unknown("column", name, EXTRA))
        if name in lacking:
            raise OptionError(f"Column {name!r} {lacking[name]}")
    return tuple(name for name in EXTRA if name in names)


def check_level_names(names: Iterable[str]) -> None:
    """Raise OptionError if a column of levels would have the name of another column.

    Names that differ only in case are different names, as in pandas, polars and Arrow.
    """
    for name in names:
        if name in LABELS or name in VALUES or name in EXTRA:
            raise OptionError(
                f"groupby= asks for comparisons within the levels of {name!r}, but the result "
                f"already has a column {name!r}. Rename the column of obs: "
                f"adata.obs = adata.obs.rename(columns={{{name!r}: {'obs_' + name!r}}})."
            )
