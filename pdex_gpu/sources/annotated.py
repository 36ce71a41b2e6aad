"""Labels, names and matrix of an AnnData in a store, HDF5 or zarr, read without anndata.

Importing anndata takes seconds that a command line has not. Of obs one column is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import ColumnError, FileFormatError, LayerError, UnsupportedDataError, unknown
from .base import Source
from .dataset import Dataset, Labels, no_labels, object_array
from .memory import no_matrix
from .nodes import encoding_of, from_node, is_array, texts

_NULLABLE = ("nullable-integer", "nullable-boolean", "nullable-string-array")
# Where anndata 0.7 kept the categories of all categorical columns of a data frame.
_OLD_CATEGORIES = "__categories"


@dataclass(frozen=True)
class Store:
    """An open file or store.

    Attributes
    ----------
    root : h5py.Group or zarr.Group
    name : str
        What it is called in messages: its path.
    reading : callable
        Turns the errors of its library into a FileFormatError that says what was being read.
    """

    root: Any
    name: str
    reading: Callable[[str], AbstractContextManager[None]]


def read_dataset(store: Store, groupby: str | None, layer: str | None) -> Dataset:
    """The dataset in a store; closing the store is left to the caller.

    Raises
    ------
    FileFormatError
        The store is not laid out as anndata writes it.
    ColumnError, LayerError
        There is no such column or layer.
    DataError, UnsupportedDataError
        There is no matrix, or it is of a kind that is not supported.
    """
    obs, var = _frame(store, "obs"), _frame(store, "var")
    labels = _unlabelled(store, obs) if groupby is None else _labels(store, obs, groupby)
    genes = _names(store, var)
    n_cells = len(labels.codes)
    source = _source(store, layer)
    if (source.n_cells, source.n_genes) != (n_cells, len(genes)):
        raise FileFormatError(
            f"{store.name}: the matrix has {source.n_cells} cells x {source.n_genes} genes, but "
            f"obs has {n_cells} rows and var {len(genes)}."
        )
    return Dataset(
        source=source,
        labels=labels,
        genes=genes,
        cell_name=lambda row: str(_names(store, obs)[row]),
        description=f"{store.name}, {'X' if layer is None else f'layer {layer!r}'}",
        column=lambda name: _labels(store, obs, name),
        matrix=lambda name: _obsm(store, name),
        matrices=lambda: _other_matrices(store, layer),
    )


def _other_matrices(store: Store, layer: str | None) -> list[str]:
    """See :attr:`.dataset.Dataset.matrices`."""
    root, what = store.root, "The names of other matrices"
    with store.reading(what):
        found = [] if layer is None or "X" not in root else ["X"]
        found += [str(name) for name in root.get("layers", {}) if name != layer]
        raw = root.get("raw")
        return found + (["raw"] if raw is not None and encoding_of(raw) != "null" else [])


def _unlabelled(store: Store, obs: Any) -> Labels:
    return no_labels(len(_column(store, obs, _index_name(obs)).codes))


def _obsm(store: Store, name: str) -> tuple[Any, Sequence[object] | None]:
    """A matrix of obsm, dense or scipy sparse, and the names of its columns if it is a frame."""
    obsm = store.root.get("obsm", {})
    if name not in obsm:
        raise ColumnError(unknown("matrix of obsm", name, list(obsm)))
    node, what = obsm[name], f"Matrix {name!r} of obsm"
    with store.reading(what):
        if is_array(node):
            return node[...], None
        encoding = encoding_of(node)
        if encoding in ("csr_matrix", "csc_matrix"):
            from scipy import sparse

            kind = sparse.csr_matrix if encoding == "csr_matrix" else sparse.csc_matrix
            arrays = tuple(node[part][...] for part in ("data", "indices", "indptr"))
            return kind(arrays, shape=tuple(int(n) for n in node.attrs["shape"])), None
        if encoding == "dataframe":
            columns = _columns(node)
            values = [_values(node[column], what)[0] for column in columns]
            return np.stack(values, axis=1) if columns else np.zeros((0, 0), bool), columns
    raise UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}; supported are arrays, csr_matrix, "
        "csc_matrix and dataframe."
    )


def _source(store: Store, layer: str | None) -> Source:
    if layer is None:
        what, node = "X", store.root.get("X")
    else:
        layers = store.root.get("layers", {})
        if layer not in layers:
            raise LayerError(unknown("layer", layer, list(layers)))
        what, node = f"layer {layer!r}", layers[layer]
    if node is None or encoding_of(node) == "null":
        raise no_matrix(what)
    return from_node(node, what=what)


def _frame(store: Store, name: str) -> Any:
    """The group of a data frame, with its index there."""
    frame = store.root.get(name)
    if frame is not None and is_array(frame):
        raise FileFormatError(
            f"{store.name}: {name} is a compound dataset, as anndata before 0.7 wrote it. Read the "
            f"file with anndata and write it again."
        )
    if frame is None or _index_name(frame) not in frame:
        raise FileFormatError(
            f"{store.name} is not laid out as anndata writes it: no {name} with an index."
        )
    return frame


def _index_name(frame: Any) -> str:
    return str(frame.attrs.get("_index", "_index"))


def _columns(frame: Any) -> Sequence[str]:
    """Names of the columns, the index left out unless it is a column too."""
    listed = [str(name) for name in frame.attrs.get("column-order", ()) if str(name) in frame]
    hidden = {_index_name(frame), _OLD_CATEGORIES}
    return listed + [key for key in frame if key not in hidden and key not in listed]


def _names(store: Store, frame: Any) -> np.ndarray:
    """The index of a data frame, as str."""
    index = _column(store, frame, _index_name(frame))
    return object_array(str(index.categories[code]) if code >= 0 else "nan" for code in index.codes)


def _labels(store: Store, obs: Any, groupby: str) -> Labels:
    if groupby not in (columns := _columns(obs)):
        raise ColumnError(unknown("column of obs", groupby, columns))
    return _column(store, obs, groupby)


def _column(store: Store, frame: Any, name: str) -> Labels:
    """A column of any encoding that anndata has written since 0.7."""
    what = f"Column {name!r} of {frame.name.strip('/')}"
    with store.reading(what):
        node = frame[name]
        if is_array(node):
            old = frame.get(f"{_OLD_CATEGORIES}/{name}")
            if old is None:
                return _factorize(*_values(node, what))
            return _categorical(node, old, what)
        if encoding_of(node) == "categorical":
            return _categorical(node["codes"], node["categories"], what)
        return _factorize(*_values(node, what))


def _categorical(codes: Any, categories: Any, what: str) -> Labels:
    values, _ = _values(categories, what)
    numbers, _ = _values(codes, what)
    labels = Labels(numbers.astype(np.int64), object_array(values.tolist()))
    if labels.codes.max(initial=-1) >= len(values) or labels.codes.min(initial=-1) < -1:
        raise FileFormatError(f"{what} is malformed: a code has no category.")
    return labels


def _values(node: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """The values at `node`, strings as object array, and which of them are missing."""
    encoding = encoding_of(node)
    if not is_array(node) and encoding in _NULLABLE:
        values, _ = _values(node["values"], what)
        missing, _ = _values(node["mask"], what)
        return values, missing
    if is_array(node) and node.ndim == 1:
        strings = texts(node, what)
        if strings is not None:
            return strings, np.zeros(len(strings), bool)
        if node.dtype.kind in "buif":
            values = node[:]
            return values, values != values  # NaN alone differs from itself
    raise UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}; supported are categorical, string-array, "
        f"numeric and bool arrays, and the nullable ones."
    )


def _factorize(values: np.ndarray, missing: np.ndarray) -> Labels:
    """Codes in order of first appearance, as pandas.factorize gives them."""
    table: dict[Any, int] = {}
    codes = np.fromiter(
        (
            -1 if absent else table.setdefault(value, len(table))
            for value, absent in zip(values.tolist(), missing.tolist(), strict=True)
        ),
        dtype=np.int64,
        count=len(values),
    )
    return Labels(codes, object_array(table))
