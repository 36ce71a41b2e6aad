"""Columns of values and of categories, some missing: as labels of cells, or as yes and no."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

_TEXTS = {"true": True, "false": False, "1": True, "0": False}


@dataclass
class Labels:
    """A label for each cell.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_cells,), int64
        Position in `categories`, -1 where the label is missing.
    categories : numpy.ndarray, shape (n,), object
        Labels as Python objects: those of a categorical column in its order, unused ones
        included; of any other column in order of first appearance.
    """

    codes: np.ndarray
    categories: np.ndarray


@dataclass(frozen=True)
class Values:
    """A value for each cell.

    Attributes
    ----------
    values : numpy.ndarray, shape (n_cells,)
        Text as str, in an object array.
    missing : numpy.ndarray, shape (n_cells,), bool
        Where there is none, whatever `values` holds there.
    """

    values: np.ndarray
    missing: np.ndarray


Column = Labels | Values


def object_array(values: Iterable[Any]) -> np.ndarray:
    """One-dimensional object array of `values`, also where these are sequences themselves."""
    return np.fromiter(values, dtype=object)


def native_labels(dtype: np.dtype) -> np.dtype:
    """The dtype in which numbers are labels: this machine's byte order, at most float64."""
    return np.dtype(np.float64) if dtype == np.longdouble else dtype.newbyteorder("=")


def as_labels(column: Column) -> Labels:
    """Codes in order of first appearance, as pandas.factorize gives them; labels as they are."""
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
    """The value of each cell."""
    if isinstance(column, Values):
        return column
    missing = column.codes < 0
    categories = object_array([*column.categories.tolist(), None])  # the last is that of code -1
    return Values(categories[column.codes], missing)


def yes_or_no(column: Values) -> Values | None:
    """Values as bool; None if some are neither True nor False, 1 nor 0, nor text for these.

    NaN and None are missing, too.
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
    except Exception:  # of what cannot be hashed
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
    """None, NaN and pandas' NA and NaT."""
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
