"""The storage of a matrix, and made-up entries stored the same way, to measure reading costs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..sources.anndata_files.matrices import matrix_at
from ..sources.anndata_files.nodes import encoding_of, from_node, is_array
from ..sources.base import Source
from ..sources.choice import MatrixChoice
from ..sources.formats import code_for, library_of, nodes_of
from ..sources.stored.layout import Storage, StoredLike


def storage_of(path: Path | None, choice: MatrixChoice) -> Storage | None:
    """Return how the chosen matrix of a file is stored.

    None without a path, or if the format of the file does not say.
    """
    code = None if path is None else code_for(str(path))
    opened = None if code is None else code.open_root(str(path), choice)
    if opened is None:
        return None
    with opened as root:
        return _describe(matrix_at(root, choice, str(path))[1])


def gzip_storage(dtype: np.dtype, index_dtype: np.dtype) -> Storage:
    """Return the storage of a CSR matrix in HDF5 that is compressed with gzip."""
    arrays = {"data": dtype, "indices": index_dtype}
    return Storage(
        "csr_matrix", "hdf5", {name: StoredLike(np.dtype(d), None) for name, d in arrays.items()}
    )


def _describe(matrix: Any) -> Storage:
    if is_array(matrix):
        form, arrays = "array", {"values": matrix}
    else:
        form, arrays = encoding_of(matrix), {name: matrix[name] for name in ("data", "indices")}
    kind = library_of(next(iter(arrays.values())))
    assert kind is not None  # see FormatCode.open_root
    nodes = nodes_of(kind)
    return Storage(form, kind, {name: nodes.layout(array) for name, array in arrays.items()})


@contextmanager
def stored_like(
    storage: Storage,
    folder: Path,
    arrays: dict[str, np.ndarray],
    indptr: np.ndarray | None,
    shape: tuple[int, int],
) -> Iterator[Source]:
    """Write arrays to `folder` as `storage` says, and yield a source over them.

    Parameters
    ----------
    storage : Storage
    folder : pathlib.Path
        Must be empty; is not cleared here.
    arrays : dict of str to numpy.ndarray
        Named as in :attr:`Storage.arrays`.
    indptr : numpy.ndarray, optional
        Row or column pointers of a sparse matrix.
    shape : (int, int)
        Cells and genes.

    Raises
    ------
    Exception
        Any error of the library or this package, if a filter is missing here.
    """
    with nodes_of(storage.kind).written(storage, folder, arrays, indptr, shape) as node:
        yield from_node(node, what="X")
