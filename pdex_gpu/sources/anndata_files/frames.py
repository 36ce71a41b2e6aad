"""Data frames in a store, as written by any anndata version, read one column at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np

from ...design.labels import Labels, object_array
from ...errors import ColumnError, FileFormatError, UnsupportedDataError, unknown
from ..obs_columns import Column, Values, as_labels, as_values, native_labels
from ..sizes import BYTES_PER_TEXT, claim
from ..stored.base import unchanged
from ..text import decode_texts, plain_text, plain_texts, shown_name, stored_name
from .nodes import attribute, encoding_of, is_array, open_array, texts

# Where anndata 0.7 stored the categories of all categorical columns of a data frame.
_OLD_CATEGORIES = "__categories"
# Possible names of the index if no attribute names it.
_INDEX_NAMES = {
    "obs": ("_index", "index", "obs_names", "row_names"),
    "var": ("_index", "index", "var_names", "col_names"),
}
_NUMERIC = "buif"


class Frame:
    """A data frame in a store: a group with a dataset for each column.

    Parameters
    ----------
    node : h5py.Group or zarr.Group
    name : str
        Its name in the store: ``"obs"``.
    """

    def __init__(self, node: Any, name: str) -> None:
        self._node, self.name = node, name
        given = attribute(node, "_index")
        names = _INDEX_NAMES.get(name, ("_index",)) if given is None else (plain_text(given),)
        self._index = next((n for n in names if stored_name(n) in node), None)
        # A dictionary of columns needs no index.
        self._needs_index = given is not None or encoding_of(node) == "dataframe"

    @property
    def n_rows(self) -> int | None:
        """Return the number of rows; None if it cannot be known or a required index is missing."""
        name = self._index
        if name is None and not self._needs_index:
            name = next(iter(self.columns), None)
        if name is None:
            return None
        return self.length(name)

    def length(self, name: str) -> int | None:
        """Return the number of values that a column declares; None if it declares none."""
        node = self._node[self._key(name)]
        if not is_array(node):
            part = next((part for part in ("codes", "values") if part in node), None)
            if part is None or not is_array(node[part]):
                return None
            node = node[part]
        return int(node.shape[0]) if node.shape else None

    def __contains__(self, name: str) -> bool:
        """Return whether `name` is in `columns`, usually without reading their order."""
        if name == (self._index and shown_name(self._index)) or name == _OLD_CATEGORIES:
            return name in self.columns
        return any(shown_name(key) == name for key in self._node)

    @property
    def columns(self) -> Sequence[str]:
        """Return the names of the columns, without the index unless it is also a column."""
        keys = [shown_name(key) for key in self._node]
        order = attribute(self._node, "column-order", len(keys) + 1)
        listed = [shown_name(name) for name in plain_texts(order, f"column-order of {self.name}")]
        listed = [name for name in listed if name in keys]
        hidden = {self._index and shown_name(self._index), _OLD_CATEGORIES}
        return listed + [key for key in keys if key not in hidden and key not in listed]

    def names(self) -> np.ndarray | None:
        """Return the index as str, shape (n_rows,), object; None if there is none."""
        return None if self._index is None else _as_names(self._read(self._index))

    def name_of(self, row: int) -> str:
        """Return the name of one row; its number if rows have no names."""
        if self._index is None:
            return str(row)
        node = self._node[self._key(self._index)]
        if not is_array(node) or node.ndim != 1:
            return str(_as_names(self._read(self._index))[row])
        value = np.asarray(node[row : row + 1])
        value = value.astype(object) if value.dtype.kind == "T" else value  # zarr's text dtype
        return str(_native(value, _what(self._index, self.name)).tolist()[0])

    def column(self, name: str) -> Column:
        """Read a column in any encoding that anndata has written.

        Raises
        ------
        FileFormatError
            It is malformed.
        UnsupportedDataError
            It holds something other than labels.
        """
        return self._read(name)

    def _key(self, name: str) -> str | bytes:
        """Return the key under which a column is stored."""
        key = stored_name(name)
        if key in self._node:
            return key
        return next((stored_name(key) for key in self._node if shown_name(key) == name), name)

    def _read(self, name: str) -> Column:
        what = _what(name, self.name)
        node = self._node[self._key(name)]
        if not is_array(node):
            return read_column(node, what)
        old = attribute(node, "categories")
        if old is None:
            return read_column(node, what)
        # anndata 0.7 stored a name in the frame, or an HDF5 reference.
        categories = self._node[old if not isinstance(old, bytes) else plain_text(old)]
        return _categorical(read_column(node, what), read_column(categories, what), what)


class CompoundFrame:
    """A data frame as stored by anndata before 0.7: one dataset with one field per column.

    Parameters
    ----------
    node : h5py.Dataset or zarr.Array
    name : str
    find_categories : callable
        Returns the categories of a column, or None if it has none.
    """

    def __init__(
        self, node: Any, name: str, find_categories: Callable[[str], np.ndarray | None]
    ) -> None:
        self._node, self.name, self._find_categories = node, name, find_categories
        self._fields = list(node.dtype.names)

    @property
    def n_rows(self) -> int:
        """Return the number of rows."""
        return int(self._node.shape[0])

    @property
    def columns(self) -> Sequence[str]:
        """Return the names of the columns: all fields but the first, which is the index."""
        return self._fields[1:]

    def length(self, name: str) -> int:
        """See :meth:`Frame.length`; it is the number of rows."""
        return self.n_rows

    def __contains__(self, name: str) -> bool:
        return name in self.columns

    def names(self) -> np.ndarray:
        """Return the index as str, shape (n_rows,), object."""
        return _as_names(self._field(self._fields[0]))

    def name_of(self, row: int) -> str:
        """See :meth:`Frame.name_of`."""
        values = np.asarray(self._node[row : row + 1][self._fields[0]])
        return str(_native(values, _what(self._fields[0], self.name)).tolist()[0])

    def column(self, name: str) -> Column:
        """See :meth:`Frame.column`."""
        found = self._field(name)
        categories = self._find_categories(name)
        # Found only by name: they may belong to a column of var and not fit these codes.
        if categories is None or found.values.dtype.kind not in "iu":
            return found
        if found.values.max(initial=-1) >= len(categories):
            return found
        kept = Values(categories, np.zeros(len(categories), bool))
        return _categorical(found, kept, _what(name, self.name))

    def _field(self, name: str) -> Values:
        what = _what(name, self.name)
        claim(self.n_rows * self._node.dtype[name].itemsize, f"{what} ({self.n_rows:,} values)")
        values = self._node[:][name] if not hasattr(self._node, "fields") else (
            self._node.fields(name)[:]
        )  # fmt: skip
        return _checked(_native(values, what), what)


StoredFrame = Frame | CompoundFrame


def open_frame(root: Any, name: str, store: str) -> StoredFrame:
    """Open the data frame `name` of a store.

    Raises
    ------
    FileFormatError
        There is none, or its number of rows cannot be determined.
    """
    node = root.get(name)
    frame: StoredFrame
    if node is not None and is_array(node) and node.dtype.names and len(node.shape) == 1:
        frame = CompoundFrame(node, name, lambda column: _categories_in_uns(root, column))
    elif node is not None and not is_array(node):
        frame = Frame(node, name)
    else:
        raise _no_frame(store, name)
    if frame.n_rows is None:
        raise _no_frame(store, name)
    return frame


def _no_frame(store: str, name: str) -> FileFormatError:
    return FileFormatError(
        f"{store} is not laid out as anndata writes it: it has no {name} with an index."
    )


def column_of(frame: StoredFrame, name: str) -> Column:
    """Return the column of a given name; raise ColumnError if there is none.

    Raises
    ------
    FileFormatError
        It does not have one value per row.
    """
    if name not in frame:
        raise ColumnError(unknown(f"column of {frame.name}", name, frame.columns))
    n = frame.length(name)
    if n is not None and n != frame.n_rows:
        raise FileFormatError(
            f"{_what(name, frame.name)} is malformed: it has {n} values, but {frame.name} has "
            f"{frame.n_rows} rows."
        )
    return frame.column(name)


def read_column(node: Any, what: str) -> Column:
    """Read the column at a node, in any supported encoding.

    Raises
    ------
    FileFormatError
        It is malformed.
    UnsupportedDataError
        It has another encoding.
    """
    encoding = encoding_of(node)
    if not is_array(node):
        if encoding == "categorical" or (not encoding and _has(node, ("codes", "categories"))):
            codes, categories = (read_column(node[part], what) for part in ("codes", "categories"))
            return _categorical(codes, categories, what)
        if encoding.startswith("nullable-") or (not encoding and _has(node, ("values", "mask"))):
            parts = node["values"], node["mask"]
            if all(is_array(part) and part.shape for part in parts):
                _check_mask(parts[0].shape, parts[1], what)
            values, mask = (as_values(read_column(part, what)) for part in parts)
            return _masked(values.values, mask.values, what)
    elif node.ndim == 1:
        strings = texts(node, what)
        if strings is not None:
            return Values(strings, np.zeros(len(strings), bool))
        if node.dtype.kind in _NUMERIC:
            return _checked(_numbers(node, what), what)
    raise UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}. Supported: categorical, string-array, "
        "numeric and bool arrays, and the nullable ones."
    )


def _has(node: Any, members: Iterable[str]) -> bool:
    return all(member in node for member in members)


def _numbers(node: Any, what: str) -> np.ndarray:
    """Read the numbers of a one-dimensional array, in this machine's byte order."""
    dtype, n = node.dtype, int(node.shape[0])
    claim(n * (dtype.itemsize + 8), f"{what} ({n:,} values)")
    if not n or dtype.itemsize > 8 or dtype == np.float16:  # dtypes that matrices do not have
        return _native(node[:], what)
    array = open_array(node, what)
    values = np.empty(n, array.dtype)  # filled by read
    with unchanged(array.file):
        array.read((slice(0, n),), values)
    return values


def _native(values: np.ndarray, what: str) -> np.ndarray:
    """Return values in this machine's byte order, text as str."""
    if values.dtype.kind in "OSU":
        return decode_texts(values.astype(object), what)
    return values.astype(native_labels(values.dtype), copy=False)


def _checked(values: np.ndarray, what: str) -> Values:
    if values.dtype.kind == "O":
        return Values(values, np.zeros(len(values), bool))
    if values.dtype.kind not in _NUMERIC:
        raise UnsupportedDataError(
            f"{what} has dtype {values.dtype}. Supported: text, categories, numbers and bool."
        )
    return Values(values, values != values)  # only NaN differs from itself


def _masked(values: np.ndarray, mask: np.ndarray, what: str) -> Values:
    _check_mask(values.shape, mask, what)
    return Values(values, mask != 0)


def _check_mask(shape: tuple[int, ...], mask: Any, what: str) -> None:
    if mask.dtype.kind not in "bui" or mask.shape != shape:
        raise FileFormatError(
            f"{what} is malformed: it has {prod(shape)} values, but its mask has "
            f"{prod(mask.shape)} values of type {mask.dtype}. Write it again."
        )


def _categorical(codes: Column, categories: Column, what: str) -> Labels:
    numbers, found = as_values(codes).values, as_values(categories)
    if numbers.dtype.kind not in "iu":
        raise FileFormatError(f"{what} is malformed: its codes have dtype {numbers.dtype}.")
    names = object_array(found.values.tolist())
    labels = Labels(numbers.astype(np.int64), names)
    if labels.codes.max(initial=-1) >= len(names) or labels.codes.min(initial=-1) < -1:
        raise FileFormatError(f"{what} is malformed: a code has no category.")
    if found.missing.any() or len(as_labels(found).categories) < len(names):
        raise FileFormatError(f"{what} is malformed: a category is missing or repeated.")
    return labels


def _as_names(column: Column) -> np.ndarray:
    found = as_values(column)
    return object_array(
        "nan" if absent else str(value)
        for value, absent in zip(found.values.tolist(), found.missing.tolist(), strict=True)
    )


def _categories_in_uns(root: Any, column: str) -> np.ndarray | None:
    """Return the categories of a column from uns, where anndata before 0.7 stored them."""
    uns: Mapping[str, Any] = root.get("uns", {})
    node = uns.get(f"{column}_categories") if not is_array(uns) else None
    if node is None or not is_array(node) or node.shape is None:
        return None
    n = prod(node.shape)
    claim(n * (node.dtype.itemsize + BYTES_PER_TEXT), f"uns/{column}_categories ({n:,} values)")
    values = np.atleast_1d(np.asarray(node[()]))
    return object_array(_native(values, _what(f"{column}_categories", "uns")).tolist())


def _what(name: str, frame: str) -> str:
    return f"Column {name!r} of {frame}"
