"""The result schema, which all calls and backends share, made of the columns registered."""

from __future__ import annotations

from collections.abc import Iterable, ValuesView

from ..columns import registry
from ..columns.base import Column
from ..columns.registry import EXTRA, INTEGERS, LABELS, VALUES
from ..errors import OptionError

__all__ = [
    "COLUMNS",
    "EXTRA",
    "EXTRA_COLUMNS",
    "HIT_FDR",
    "INTEGERS",
    "LABELS",
    "SCHEMA_VERSION",
    "VALUES",
    "Column",
    "check_level_names",
]

#: Version of the columns and of the metadata of files; recorded in each file.
SCHEMA_VERSION = 1

#: A row counts as a hit up to this FDR, unless another limit was asked for.
HIT_FDR = 0.05

#: Columns of every result.
COLUMNS: tuple[Column, ...] = registry.ALWAYS

#: Columns that a call adds with ``columns=``, also those that other packages have registered.
EXTRA_COLUMNS: ValuesView[Column] = registry.EXTRA_COLUMNS


def check_level_names(names: Iterable[str]) -> None:
    """Raise OptionError if a column of levels would have the name of another column.

    Names that differ only in case are different names, as in pandas, polars and Arrow.
    """
    for name in names:
        if name == "symbol" or name in LABELS or name in VALUES or name in EXTRA:
            raise OptionError(
                f"groupby= asks for comparisons within the levels of {name!r}, but the result "
                f"already has a column {name!r}. Rename the column of obs: "
                f"adata.obs = adata.obs.rename(columns={{{name!r}: {'obs_' + name!r}}})."
            )
