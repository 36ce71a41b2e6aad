"""All columns: the families, and what other packages add."""

from __future__ import annotations

from collections.abc import Iterable, KeysView, Mapping, Set, ValuesView

from ..errors import OptionError, shown, unknown
from ..utils.checks import names_of
from . import (
    auroc,
    counts_of_cells,
    effect_sizes,
    expression,
    fold_changes,
    labels,
    means,
    significance,
)
from .base import AtEnd, Column, GeneByGene, Needs

#: The families of columns; those of a result are in this order.
FAMILIES = (
    labels,
    counts_of_cells,
    expression,
    means,
    fold_changes,
    auroc,
    effect_sizes,
    significance,
)

_DTYPES = ("float64", "int64")

_declared = [column for family in FAMILIES for column in family.COLUMNS]
_extra = {column.name: column for column in _declared if not column.always}
_integers = {name for name, column in _extra.items() if column.dtype == "int64"}

#: Columns of every result.
ALWAYS = tuple(column for column in _declared if column.always)

#: Names of the columns that results have in addition, unless a drop-in makes them.
DEFAULT = tuple(column.name for column in _declared if column.default)

LABELS = tuple(column.name for column in ALWAYS if column.dtype == "label")
VALUES = tuple(column.name for column in ALWAYS if column.dtype != "label")

# These show what is registered, also later on.

#: Columns that a call adds with ``columns=``.
EXTRA_COLUMNS: ValuesView[Column] = _extra.values()

EXTRA: KeysView[str] = _extra.keys()
INTEGERS: Set[str] = _integers

_always = {column.name: column for column in ALWAYS}


def register(*columns: Column) -> None:
    """Add columns that calls can ask for with ``columns=``.

    Registering a column again has no effect.

    Raises
    ------
    OptionError
        If another column has the name, or a column cannot be computed.
    """
    for column in columns:
        if not isinstance(column, Column):
            raise OptionError(
                f"{shown(column)} is not a column. Register a pdex_gpu.columns.base.Column."
            )
        if column.name in _always or _extra.get(column.name, column) != column:
            raise OptionError(
                f"A column named {column.name!r} already exists. Choose a different name."
            )
        if column.dtype not in _DTYPES:
            raise OptionError(unknown(f"dtype of column {column.name!r}:", column.dtype, _DTYPES))
        unasked = column.always or column.default
        if unasked or not isinstance(column.make, GeneByGene | AtEnd):
            raise OptionError(
                f"Column {column.name!r} must be made by GeneByGene or AtEnd, and cannot be in "
                "results that did not ask for it (always=True, default=True)."
            )
        for name in column.make.reads if isinstance(column.make, AtEnd) else ():
            if name not in _extra and name not in VALUES:
                raise OptionError(
                    f"Column {column.name!r} reads an unknown column. "
                    f"{unknown('column', name, (*VALUES, *_extra))}"
                )
        _extra[column.name] = column
        if column.dtype == "int64":
            _integers.add(column.name)


def find(name: str) -> Column:
    """Return a column by its name, which must exist."""
    return _always[name] if name in _always else _extra[name]


def with_reads(names: Iterable[str]) -> set[str]:
    """Return the names of columns and of all that these are derived from."""
    found: set[str] = set()
    left = list(names)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            make = find(name).make
            left += make.reads if isinstance(make, AtEnd) else ()
    return found


def needs_of(names: Iterable[str]) -> Needs:
    """Return what columns need, and those that they are derived from."""
    found = Needs.NOTHING
    for name in with_reads(names):
        found |= find(name).needs
    return found


def centre_of(name: str) -> float | None:
    """Return the value of a column that means no change; None if there is none."""
    return find(name).centre if name in _always or name in _extra else None


def extra_columns(
    asked: str | Iterable[str], lacking: Mapping[str, str], *, default: bool = True
) -> tuple[str, ...]:
    """Return the further columns of a result, in schema order.

    Parameters
    ----------
    asked : str or iterable of str
        ``"all"`` stands for all columns that are not lacking.
    lacking : mapping
        Columns that the test does not have, and the reason as the end of a sentence.
    default : bool
        Whether those of :data:`DEFAULT` are among them, as far as they are not lacking.

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
            raise OptionError(unknown("column", name, tuple(EXTRA)))
        if name in lacking:
            raise OptionError(f"Column {name!r} {lacking[name]}")
    if default:
        names = [*names, *(name for name in DEFAULT if name not in lacking)]
    return tuple(name for name in EXTRA if name in names)
