"""Labels, names and matrix of an AnnData in a store, HDF5 or zarr, read without anndata.

Importing anndata takes seconds, too long for a command line. Only one column of obs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from ...design.labels import Labels, no_labels
from ...errors import ColumnError, FileFormatError, LayerError, UnsupportedDataError, unknown
from ..base import Source
from ..checks import no_matrix
from ..choice import MatrixChoice, X
from ..dataset import Dataset
from ..obs_columns import Values, as_labels, as_values
from ..sizes import BYTES_PER_CELL, BYTES_PER_TEXT, claim
from ..stored.sparse import SparseArrays
from .frames import Frame, StoredFrame, column_of, open_frame
from .multimodal import check_one_modality
from .nodes import encoding_of, from_node, is_array, members, sparse_arrays


@dataclass(frozen=True)
class Store:
    """An open file or store.

    Attributes
    ----------
    root : StoredGroup or StoredZarrGroup
    name : str
        Its path, as shown in messages.
    reading : callable
        Turns errors of the store's library into a FileFormatError that says what was being read.
    choice : MatrixChoice
        The matrix to read.
    """

    root: Any
    name: str
    reading: Callable[[str], AbstractContextManager[None]]
    choice: MatrixChoice = X


def read_dataset(store: Store, groupby: str | None) -> Dataset:
    """Return the dataset in a store; the caller closes the store.

    Raises
    ------
    FileFormatError
        The store is not laid out as anndata writes it.
    ColumnError, LayerError
        There is no such column or layer.
    DataError, UnsupportedDataError
        There is no matrix, or it is of a kind that is not supported.
    """
    with store.reading(store.name):
        check_one_modality(store.root, store.name)
        obs = open_frame(store.root, "obs", store.name)
        assert obs.n_rows is not None  # see open_frame
        claim(BYTES_PER_CELL * obs.n_rows, f"obs of {store.name} ({obs.n_rows:,} cells)")
        var = open_frame(store.root, "var", store.name) if "var" in store.root else None
        labels = _unlabelled(obs) if groupby is None else _labels(store, obs, groupby)
        source = _source(store)
        n_genes = source.n_genes if var is None else var.n_rows
        if (source.n_cells, source.n_genes) != (len(labels.codes), n_genes):
            raise FileFormatError(
                f"{store.name}: the matrix has {source.n_cells} cells x {source.n_genes} genes, "
                f"but obs has {len(labels.codes)} rows and var {n_genes}."
            )
        genes = _numbers(source.n_genes) if var is None else _names(store, var)

    def cell_name(row: int) -> str:
        with store.reading(f"The index of {obs.name}"):
            return obs.name_of(row)

    return Dataset(
        source=source,
        labels=labels,
        genes=genes,
        cell_name=cell_name,
        description=f"{store.name}, {store.choice.what}",
        column=lambda name: _labels(store, obs, name),
        matrix=lambda name: _obsm(store, name),
        matrices=lambda: _other_matrices(store),
        cell_names=lambda: _names(store, obs),
    )


def _names(store: Store, frame: StoredFrame) -> np.ndarray:
    """Return the names of the rows; if there are none, their numbers, as in anndata."""
    with store.reading(f"The index of {frame.name} in {store.name}"):
        found = frame.names()
    return _numbers(frame.n_rows or 0) if found is None else found


def _numbers(n: int) -> np.ndarray:
    claim(BYTES_PER_TEXT * n, f"{n:,} genes")
    return np.arange(n).astype(str).astype(object)


def _labels(store: Store, obs: StoredFrame, groupby: str) -> Labels:
    with store.reading(f"Column {groupby!r} of {obs.name} in {store.name}"):
        return as_labels(column_of(obs, groupby))


def _unlabelled(obs: StoredFrame) -> Labels:
    assert obs.n_rows is not None  # see open_frame
    return no_labels(obs.n_rows)


def _other_matrices(store: Store) -> list[str]:
    """See :attr:`.dataset.Dataset.matrices`."""
    root, layer = store.root, store.choice.layer
    what = f"The names of other matrices in {store.name}"
    with store.reading(what):
        found = [] if layer is None or "X" not in root else ["X"]
        found += [str(name) for name in members(root, "layers") if name != layer]
        raw = root.get("raw")
        return found + (["raw"] if raw is not None and encoding_of(raw) != "null" else [])


def _obsm(store: Store, name: str) -> tuple[Any, Sequence[object] | None]:
    """Return a matrix of obsm, and its column names if it is a frame: see `Dataset.matrix`."""
    with store.reading(f"obsm of {store.name}"):
        obsm = members(store.root, "obsm")
        if name not in obsm:
            raise ColumnError(unknown("matrix of obsm", name, list(obsm)))
    what = f"Matrix {name!r} of obsm"
    with store.reading(f"{what} in {store.name}"):
        node = obsm[name]
        if is_array(node):
            _claim_whole(node, what)
            return node[...], None
        encoding = encoding_of(node)
        if encoding in ("csr_matrix", "csc_matrix"):
            by_row = encoding == "csr_matrix"
            return _in_memory(sparse_arrays(node, by_row, what, store.choice.allow)), None
        if encoding in ("", "dataframe"):
            frame = Frame(node, f"matrix {name!r} of obsm")
            columns: list[Values] = [as_values(column_of(frame, c)) for c in frame.columns]
            return columns, list(frame.columns)
    raise UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}. Supported: arrays, csr_matrix, "
        "csc_matrix and dataframe."
    )


def _in_memory(arrays: SparseArrays) -> Any:
    """Read all entries into a scipy sparse matrix."""
    from scipy import sparse

    n_bytes = arrays.nnz * (arrays.dtype.itemsize + 2 * np.dtype(np.int64).itemsize)
    claim(n_bytes, f"{arrays.what} ({arrays.nnz:,} values)")
    data = np.empty(arrays.nnz, arrays.dtype)  # filled by read
    indices = np.empty(arrays.nnz, np.int64)
    arrays.read(0, arrays.nnz, data, indices)
    kind = sparse.csr_matrix if arrays.major == "row" else sparse.csc_matrix
    return kind((data, indices, arrays.indptr), shape=(arrays.n_cells, arrays.n_genes))


def _claim_whole(node: Any, what: str) -> None:
    """Claim the memory for an array that is read whole and for an integer array of its size."""
    n = prod(node.shape or ())
    claim(n * (node.dtype.itemsize + 8), f"{what} ({n:,} values)")


def _source(store: Store) -> Source:
    layer = store.choice.layer
    if layer is None:
        what, node = "X", store.root.get("X")
    else:
        layers = members(store.root, "layers")
        if layer not in layers:
            raise LayerError(unknown("layer", layer, list(layers)))
        what, node = f"layer {layer!r}", layers[layer]
    if node is None or encoding_of(node) == "null" or (is_array(node) and node.shape is None):
        raise no_matrix(what)
    return from_node(node, what=what, allow=store.choice.allow)
