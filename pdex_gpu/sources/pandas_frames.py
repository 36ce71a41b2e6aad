"""Labels, names and matrices in the data frames of an AnnData object."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..design.labels import Labels, object_array, sizes_of
from ..errors import ColumnError, DataError, LabelError, OptionError, shown, unknown
from ..utils.checks import check_label, kind
from .detect import is_dask
from .obs_columns import Column, Values, as_labels, as_values, native_labels
from .text import decode_texts


def names_of(frame: Any) -> np.ndarray:
    """Return the names of the rows of obs or var as str, shape (n_rows,), object.

    A frame of ``anndata.experimental.read_lazy`` may have left them in its file, with numbers as
    its index instead.
    """
    index = frame.index if is_frame(frame) else frame.true_index
    return object_array(str(name) for name in index)


def is_frame(frame: Any) -> bool:
    """Return whether this is a pandas data frame; otherwise it is one that was read lazily."""
    pandas = sys.modules["pandas"]  # anndata imports it
    return isinstance(frame, pandas.DataFrame)


def frame_in_memory(frame: Any) -> Any:
    """Return a pandas data frame; a lazy one is read whole."""
    return frame if is_frame(frame) else frame.to_memory()


def column_in_memory(frame: Any, name: str, called: str = "obs") -> Any:
    """Return a column of obs or var as a pandas Series; of a lazy frame, read only this one.

    Raises
    ------
    ColumnError
        There are several of that name.
    """
    found = frame[name] if is_frame(frame) else frame[[name]].to_memory()[name]
    if found.ndim != 1:
        raise ColumnError(f"{called} has several columns named {name!r}. Rename all but one.")
    return found


def other_matrices(adata: Any, used: str | None) -> list[str]:
    """See :attr:`Dataset.matrices`; `used` is a layer, ``"raw"``, or None for X."""
    found = [] if used is None else ["X"]
    found += [name for name in adata.layers if name is not None and name != used]
    return found + (["raw"] if used != "raw" and adata.raw is not None else [])


def obsm_matrix(adata: Any, name: str) -> tuple[Any, Sequence[object] | None]:
    if name not in adata.obsm:
        raise ColumnError(unknown("matrix of obsm", name, list(adata.obsm)))
    found = adata.obsm[name]
    if hasattr(found, "columns"):
        frame = frame_in_memory(found)
        columns = [frame.iloc[:, j] for j in range(frame.shape[1])]
        return [as_values(_pandas_column(column)) for column in columns], list(frame.columns)
    if is_dask(found):
        return found.compute(), None
    return found.to_memory() if hasattr(found, "to_memory") else found, None


def obs_labels(adata: Any, name: str) -> Labels:
    """Return the labels in a column of obs of an AnnData; see :func:`frame_labels`."""
    return frame_labels(adata.obs, "obs", name)


def frame_labels(frame: Any, called: str, name: str) -> Labels:
    """Return the labels in a column of obs or var, as messages call it.

    Raises
    ------
    ColumnError
        There is no such column, or several.
    LabelError
        Labels differ only in type.
    """
    if name not in frame.columns:
        raise ColumnError(unknown(f"column of {called}", name, list(frame.columns)))
    column = column_in_memory(frame, name, called)
    labels = _pandas_labels(column, called)
    _check_texts(column, labels, called)
    return labels


def _check_texts(column: Any, labels: Labels, called: str) -> None:
    """Raise LabelError if labels of different types can be confused.

    Tables and files hold labels as text, where 1 and "1" would be one group. True, 1 and 1.0 are
    equal, so pandas has put them into one group.
    """
    categorical = hasattr(column.dtype, "categories")
    if not categorical and column.dtype != object:
        return  # all are of one type
    if all(isinstance(label, str) for label in labels.categories):
        return
    found = list(sizes_of(labels)) if categorical else column.to_numpy()[labels.codes >= 0]
    by_text: dict[str, object] = {}
    texts: dict[object, tuple[str, object]] = {}
    for label in {(type(label), label): label for label in found}.values():
        text = str(label)
        like = by_text.setdefault(text, label)
        if like == label:
            known, like = texts.setdefault(label, (text, label))
            if known == text:
                continue
        raise LabelError(
            f"Column {column.name!r} of {called} has labels that differ only in type: {like!r} "
            f"({type(like).__name__}) and {label!r} ({type(label).__name__}). Convert them to one "
            f"type: adata.{called}[{column.name!r}] = adata.{called}[{column.name!r}].astype(str)."
        )


def _pandas_labels(column: Any, called: str) -> Labels:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        found = as_labels(_pandas_column(column))
    else:
        if isinstance(column.dtype, np.dtype):  # pandas knows only this machine's byte order
            column = column.astype(native_labels(column.dtype))
        try:
            codes, uniques = pd.factorize(column)
        except Exception as error:  # values that cannot be hashed or compared
            raise _no_labels(column.name, called, column.iloc[0], error) from error
        found = Labels(codes.astype(np.int64), object_array(pd.Index(uniques).tolist()))
    if any(isinstance(label, bytes) for label in found.categories):
        found = _decoded(found, f"Column {column.name!r} of {called}")
    for label in found.categories:
        try:
            check_label("label", label)
        except OptionError as error:
            raise _no_labels(column.name, called, label, error) from error
    return found


def _decoded(labels: Labels, what: str) -> Labels:
    """Return labels with bytes decoded to text, as when files are read."""
    names = decode_texts(labels.categories, what)
    found = as_labels(Values(names, np.zeros(len(names), bool)))
    return Labels(np.append(found.codes, -1)[labels.codes], found.categories)


def _no_labels(name: object, called: str, value: object, error: Exception) -> DataError:
    return DataError(
        f"Column {name!r} of {called} holds values that cannot be used as labels, such as "
        f"{shown(value)} ({kind(value)}): {shown(error)}. Convert it, for instance with "
        "astype(str)."
    )


def _pandas_column(column: Any) -> Column:
    import pandas as pd

    if isinstance(column.dtype, pd.CategoricalDtype):
        categories = object_array(column.cat.categories.tolist())
        return Labels(column.cat.codes.to_numpy().astype(np.int64), categories)
    missing = column.isna().to_numpy()
    if isinstance(column.dtype, np.dtype):
        return Values(column.to_numpy(), missing)
    numpy_dtype = getattr(column.dtype, "numpy_dtype", None)  # nullable numbers and booleans
    if numpy_dtype is not None and numpy_dtype.kind in "biuf":
        return Values(column.to_numpy(numpy_dtype, na_value=numpy_dtype.type(0)), missing)
    return Values(column.to_numpy(dtype=object), missing)
