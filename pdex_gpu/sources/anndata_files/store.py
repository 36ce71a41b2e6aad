"""Labels, names and matrix of an AnnData in a store, HDF5 or zarr, read without anndata.

Importing anndata takes seconds, too long for a command line. Only one column of obs is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from ...design.labels import Labels, no_labels
from ...errors import ColumnError, FileFormatError, UnsupportedDataError, unknown
from ..base import Source
from ..choice import MatrixChoice, X
from ..dataset import Dataset
from ..obs_columns import Values, as_labels, as_values
from ..sizes import BYTES_PER_CELL, BYTES_PER_TEXT, claim
from ..stored.sparse import SparseArrays
from .frames import Frame, StoredFrame, column_of, open_frame
from .matrices import matrix_at, other_matrices, var_of
from .multimodal import chosen_modality, matched
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
        whole = store.root
        store = replace(store, root=chosen_modality(whole, store.choice.modality, store.name))
        shared = None if store.root is whole else open_frame(whole, "obs", store.name)
        obs = open_frame(store.root, "obs", store.name)
        assert obs.n_rows is not None  # see open_frame
        claim(BYTES_PER_CELL * obs.n_rows, f"obs of {store.name} ({obs.n_rows:,} cells)")
        labels = _unlabelled(obs) if groupby is None else _column(store, obs, shared, groupby)
        what, node = matrix_at(store.root, store.choice, store.name)
        source: Source = from_node(node, what=what, allow=store.choice.allow)
        var = var_of(store.root, store.choice, store.name)
        n_genes = source.n_genes if var is None else var.n_rows
        if (source.n_cells, source.n_genes) != (len(labels.codes), n_genes):
            raise FileFormatError(
                f"{store.name}: the matrix has {source.n_cells} cells x {source.n_genes} genes, "
                f"but obs has {len(labels.codes)} rows and var {n_genes}."
            )
        genes = _numbers(source.n_genes, "genes") if var is None else _names(store, var, "genes")

    def cell_name(row: int) -> str:
        with store.reading(f"The index of {obs.name}"):
            return obs.name_of(row)

    return Dataset(
        source=source,
        labels=labels,
        genes=genes,
        cell_name=cell_name,
        cell_names=lambda: _names(store, obs, "cells"),
        description=f"{store.name}, {store.choice.what}",
        column=lambda name: _column(store, obs, shared, name),
        var_column=lambda name: _var_labels(store, var, name),
        matrix=lambda name: _obsm(store, name),
        matrices=lambda: _other_matrices(store),
    )


def _names(store: Store, frame: StoredFrame, of: str) -> np.ndarray:
    """Return the names of the rows; if there are none, their numbers, as in anndata."""
    with store.reading(f"The index of {frame.name} in {store.name}"):
        found = frame.names()
    return _numbers(frame.n_rows or 0, of) if found is None else found


def _numbers(n: int, of: str) -> np.ndarray:
    claim(BYTES_PER_TEXT * n, f"{n:,} {of}")
    return np.arange(n).astype(str).astype(object)


def _column(store: Store, obs: StoredFrame, shared: StoredFrame | None, name: str) -> Labels:
    """Return a column of obs; of a modality that lacks it, the column of the MuData."""
    with store.reading(f"The columns of obs in {store.name}"):
        elsewhere = None if name in obs or shared is None or name not in shared else shared
    if elsewhere is None:
        return _labels(store, obs, name)
    names = _names(store, elsewhere, "cells")
    return matched(_labels(store, elsewhere, name), names, _names(store, obs, "cells"))


def _labels(store: Store, obs: StoredFrame, groupby: str) -> Labels:
    with store.reading(f"Column {groupby!r} of {obs.name} in {store.name}"):
        return as_labels(column_of(obs, groupby))


def _var_labels(store: Store, var: StoredFrame | None, name: str) -> Labels:
    if var is None:
        raise ColumnError(unknown("column of var", name, []))
    return _labels(store, var, name)


def _unlabelled(obs: StoredFrame) -> Labels:
    assert obs.n_rows is not None  # see open_frame
    return no_labels(obs.n_rows)


def _other_matrices(store: Store) -> list[str]:
    """See :attr:`.dataset.Dataset.matrices`."""
    with store.reading(f"The names of other matrices in {store.name}"):
        return other_matrices(store.root, store.choice)


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
