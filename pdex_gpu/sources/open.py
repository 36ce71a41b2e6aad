"""Datasets, opened from the data that users pass: objects, open files, and paths."""

from __future__ import annotations

import os
import sys
from typing import Any

import numpy as np

from ..design.labels import no_labels
from ..errors import LayerError, UnsupportedDataError, unknown
from ..utils.checks import check_path, kind
from .allowed import Allowed
from .anndata_files.multimodal import is_multimodal, many_modalities
from .anndata_files.nodes import StoredSource, from_node, is_node
from .base import Source
from .checks import no_matrix
from .dataset import Dataset
from .detect import is_backed, is_dask
from .memory.open import from_array
from .pandas_frames import names_of, obs_labels, obsm_matrix, other_matrices
from .whole_numbers import for_scipy


def open_dataset(
    data: Any, groupby: str | None, layer: str | None = None, allow: Allowed = frozenset()
) -> Dataset:
    """Find the matrix, labels and names in the data that a user passed.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike, binary file or Dataset
        An AnnData, in memory or backed, or a view of one; the path of an h5ad file or a zarr
        store; an h5ad file opened with ``open(path, "rb")`` or the like, which stays open. A
        Dataset is returned as it is.
    groupby : str or None
        Column of obs that holds the label of each cell; None to leave cells without labels.
    layer : str, optional
        Layer to read instead of X.
    allow : frozenset of str
        See :mod:`.allowed`.

    Raises
    ------
    ColumnError, LayerError
        There is no such column or layer.
    DataError, FileFormatError, MissingFileError, UnsupportedDataError
        The data cannot be read; see :mod:`pdex_gpu.errors`.
    """
    if isinstance(data, Dataset):
        return data
    if isinstance(data, str | os.PathLike):
        check_path("data", data)
        return _open_path(os.fspath(data), groupby, layer, allow)  # not as a Path: it may be a URL
    if hasattr(data, "read") and hasattr(data, "seek"):
        from .anndata_files.h5ad import open_h5ad

        return open_h5ad(data, groupby, layer, allow)
    # A caller with an AnnData has imported anndata; importing it here would cost seconds.
    anndata = sys.modules.get("anndata")
    if anndata is not None and isinstance(data, anndata.AnnData):
        return _from_anndata(data, groupby, layer, allow)
    if is_multimodal(data):
        raise many_modalities(data)
    raise UnsupportedDataError(
        f"Cannot read a {kind(data)}. Supported: AnnData objects, and h5ad files and zarr stores "
        "as paths or open files."
    )


def _open_path(path: str, groupby: str | None, layer: str | None, allow: Allowed) -> Dataset:
    from .anndata_files.zarr import is_zarr_path, open_zarr

    if is_zarr_path(path):
        return open_zarr(path, groupby, layer, allow)
    from .anndata_files.h5ad import open_h5ad

    return open_h5ad(path, groupby, layer, allow)


def _from_anndata(adata: Any, groupby: str | None, layer: str | None, allow: Allowed) -> Dataset:
    labels = no_labels(adata.n_obs) if groupby is None else obs_labels(adata, groupby)
    if layer is not None and layer not in adata.layers:
        # anndata 0.13 lists X among the layers, under None.
        names = [name for name in adata.layers if name is not None]
        raise LayerError(unknown("layer", layer, names))
    where = f"backed by {adata.filename}" if is_backed(adata) else "in memory"
    return Dataset(
        source=_anndata_source(adata, layer, allow),
        labels=labels,
        genes=names_of(adata.var),
        cell_name=lambda row: str(names_of(adata.obs)[row]),
        description=f"AnnData {where}, {'X' if layer is None else f'layer {layer!r}'}",
        column=lambda name: obs_labels(adata, name),
        matrix=lambda name: obsm_matrix(adata, name),
        matrices=lambda: other_matrices(adata, layer),
    )


def _anndata_source(adata: Any, layer: str | None, allow: Allowed) -> Source:
    what = "X" if layer is None else f"layer {layer!r}"
    whole = adata._adata_ref if adata.is_view else adata
    matrix = _matrix(whole, layer)
    if layer is None and is_backed(whole):
        _check_backed(whole, allow)
    if not adata.is_view:
        return source_of(matrix, what, allow)
    if not _is_stored(matrix):
        return source_of(_selected(adata, matrix, layer, what), what)
    from .views.view import select

    return select(_from_stored(matrix, what, allow), *_selection(adata))


def _check_backed(adata: Any, allow: Allowed) -> None:
    """Raise FileFormatError if X is not in the file, though anndata has opened it."""
    from .stored.hdf5 import reading
    from .stored.hdf5_group import StoredGroup

    with reading(f"X of {adata.filename}"):
        StoredGroup(adata.file["/"], allow).get("X")


def _selection(adata: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows and columns of the first AnnData that a view shows."""
    # Private attributes, but without them anndata loads all that is selected. Views of views also
    # refer to the first AnnData.
    whole = adata._adata_ref
    return np.arange(whole.n_obs)[adata._oidx], np.arange(whole.n_vars)[adata._vidx]


def _selected(adata: Any, matrix: Any, layer: str | None, what: str) -> Any:
    """Return the part of `matrix`, which is in memory, that a view shows."""
    if getattr(matrix, "format", None) in ("csr", "csc"):
        usable = for_scipy(matrix, what)
        if usable is not matrix:  # anndata would let scipy slice the unusable one
            rows, columns = _selection(adata)
            return usable[rows][:, columns]
    return _matrix(adata, layer)


def _matrix(adata: Any, layer: str | None) -> Any:
    """Return X or a layer, without loading it if it is in a file."""
    if layer is not None:
        return adata.layers[layer]
    if not is_backed(adata) or adata.is_view:
        return adata.X
    if not adata.file.is_open:
        adata.file.open()
    if "X" not in adata.file:
        raise no_matrix("X")
    return adata.file["X"]


def _is_stored(matrix: Any) -> bool:
    """Return whether this is in a file or store: a node, or anndata's wrapper around one."""
    return is_node(getattr(matrix, "group", matrix))


def _from_stored(matrix: Any, what: str, allow: Allowed) -> StoredSource:
    return from_node(getattr(matrix, "group", matrix), what=what, allow=allow)


def source_of(matrix: Any, what: str, allow: Allowed = frozenset()) -> Source:
    """Return a source over an array, or over the node of a matrix that anndata left in a file."""
    if _is_stored(matrix):
        return _from_stored(matrix, what, allow)
    if is_dask(matrix):
        from .dask_arrays.array import from_dask

        return from_dask(matrix, what=what)
    return from_array(matrix, what=what)
