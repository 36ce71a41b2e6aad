"""Columns of values or categories, some missing, and their use as labels or as booleans."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ..design.labels import Labels, object_array

_TEXTS = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True)
class Values:
    """One value per cell.

    Attributes
    ----------
    values : numpy.ndarray, shape (n_cells,)
        Text is str, in an object array.
    missing : numpy.ndarray, shape (n_cells,), bool
        True where there is no value; `values` may hold anything there.
    """

    values: np.ndarray
    missing: np.ndarray


Column = Labels | Values


def native_labels(dtype: np.dtype) -> np.dtype:
    """Return the dtype for numbers used as labels: this machine's byte order, at most float64."""
    return np.dtype(np.float64) if dtype == np.longdouble else dtype.newbyteorder("=")


def as_labels(column: Column) -> Labels:
    """Return a column as labels; existing labels are returned unchanged.

    Values get codes in order of first appearance, as with pandas.factorize.
    """
    if isinstance(column, Labels):
        return column
    table: dict[Any, int] = {}
    codes = np.fromiter(
        (
            -1 if absent else table.setdefault(value, len(table))
            for value, absent in zip(column.values.tolist(), column.missing.tolist(), strict=True)
        ),
        dtype=np.int64,
        count=len(column.values),
    )
    return Labels(codes, object_array(table))


def as_values(column: Column) -> Values:
    """Return the value of each cell."""
    if isinstance(column, Values):
        return column
    missing = column.codes < 0
    categories = object_array([*column.categories.tolist(), None])  # the last one is for code -1
    return Values(categories[column.codes], missing)


def yes_or_no(column: Values) -> Values | None:
    """Return values as bool; None if any is not True, False, 1, 0 or text for one of these.

    NaN and None count as missing too.
    """
    values, missing = column.values, column.missing
    if values.dtype.kind not in "biuf":
        return _of_objects(values, missing)
    if values.dtype.kind == "f":
        missing = missing | np.isnan(values)
    flags = (values != 0) & ~missing
    told = missing | (values == flags)
    return Values(flags, missing) if told.all() else None


def _of_objects(values: np.ndarray, missing: np.ndarray) -> Values | None:
    there = values[~missing].tolist()
    try:
        distinct = set(there)
    except Exception:  # a value cannot be hashed
        return None
    absent = {value for value in distinct if _is_missing(value)}
    flags = {value: _flag(value) for value in distinct - absent}
    if None in flags.values():
        return None
    found, missing = np.zeros(len(values), bool), missing.copy()
    found[~missing] = np.fromiter((bool(flags.get(value)) for value in there), bool, len(there))
    if absent:
        missing[~missing] = np.fromiter((value in absent for value in there), bool, len(there))
    return Values(found, missing)


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _flag(value: Any) -> bool | None:
    if isinstance(value, str):
        return _TEXTS.get(value.strip().lower())
    real = bool | int | float | np.bool_ | np.integer | np.floating
    if isinstance(value, real) and value in (0, 1):
        return bool(value)
    return None
