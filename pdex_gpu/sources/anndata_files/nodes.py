"""Sources for nodes of a store, HDF5 or zarr: matrices as anndata writes them."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from ...errors import FileFormatError, UnsupportedDataError
from ..allowed import Allowed
from ..base import Source
from ..checks import fault_of_indptr
from ..formats import Nodes, library_of, nodes_of
from ..stored.base import StoredArray
from ..stored.dense import StoredDense
from ..stored.sparse import SparseArrays, StoredCsc, StoredCsr
from ..stored.whole_numbers import WholeNumbers
from ..text import plain_text

_MOST_IN_ATTRIBUTE = 16  # an encoding, a name, a shape
SUPPORTED = "array, csr_matrix and csc_matrix"


class StoredMatrices:
    """Matrices in open files and stores: nodes, or anndata's wrappers around them."""

    def claims(self, matrix: Any) -> bool:
        """See :meth:`.formats.MatrixCode.claims`."""
        return is_stored(matrix)

    def open(self, matrix: Any, what: str, allow: Allowed) -> Source:
        """See :meth:`.formats.MatrixCode.open`."""
        return from_node(getattr(matrix, "group", matrix), what=what, allow=allow)


def is_stored(matrix: Any) -> bool:
    """Return whether this is in a file or store: a node, or anndata's wrapper around one."""
    return library_of(getattr(matrix, "group", matrix)) is not None


def is_array(node: Any) -> bool:
    """Return whether a node is an array; otherwise it is a group."""
    return hasattr(node, "dtype")


def members(root: Any, name: str) -> Any:
    """Return the group `name`, empty if it is missing; raise FileFormatError for an array."""
    found = root.get(name, {})
    if is_array(found):
        raise FileFormatError(
            f"{name} is an array instead of a group: it is not laid out as anndata writes it."
        )
    return found


def attribute(node: Any, name: str, most: int = _MOST_IN_ATTRIBUTE) -> Any:
    """Return an attribute as it is stored; None if there is none.

    Raises
    ------
    FileFormatError
        It holds more than `most` values: all of them may share one long text in the file.
    """
    attributes = node.attrs
    if hasattr(attributes, "get_id") and name in attributes:  # HDF5
        n = prod(attributes.get_id(name).shape or ())
        if n > most:
            raise FileFormatError(
                f"The attribute {name!r} of {node.name} is malformed: it holds {n:,} values, but "
                f"at most {most:,} are valid. Copy or download the file again."
            )
    return attributes.get(name)


def encoding_of(node: Any) -> str:
    """Return the node's encoding-type; "" if it has none.

    Sparse groups older than encoding types have ``h5sparse_format: csr`` instead.
    """
    old = attribute(node, "h5sparse_format")
    if old is not None:
        return f"{plain_text(old)}_matrix"
    found = attribute(node, "encoding-type")
    return "" if found is None else plain_text(found)


def texts(node: Any, what: str) -> np.ndarray | None:
    """Read the strings of an array as an object array; None if it holds something else."""
    return _nodes_of(node).texts(node, what)


def _nodes_of(node: Any) -> Nodes:
    library = library_of(node)
    assert library is not None  # only nodes of these libraries are opened
    return nodes_of(library)


def from_node(
    node: Any, *, what: str, allow: Allowed = frozenset()
) -> StoredCsr | StoredCsc | StoredDense:
    """Return the source that reads the matrix at `node`; its file must stay open.

    Parameters
    ----------
    node : h5py.Dataset, h5py.Group, StoredGroup, zarr.Array or zarr.Group
        A dense dataset, or a group with data, indices and indptr.
    what : str
        Name of the matrix in messages: ``"X"``, ``"layer 'counts'"``.
    allow : frozenset of str
        See :mod:`.allowed`.

    Raises
    ------
    FileFormatError
        Parts of the matrix are missing, were never written, or cannot be read.
    UnsupportedDataError
        The encoding is not one of array, csr_matrix and csc_matrix, or the values are not real
        numbers.
    """
    library = library_of(node)
    if library is not None:  # from a file that anndata opened
        node = nodes_of(library).checked(node, what, allow)
    encoding = encoding_of(node)
    if is_array(node):
        if encoding not in ("", "array"):
            raise _unsupported(encoding, what)
        values = open_array(node, what)
        return StoredDense(values, what, values.file)
    if encoding not in ("csr_matrix", "csc_matrix"):
        raise _unsupported(encoding, what)
    by_row = encoding == "csr_matrix"
    arrays = sparse_arrays(node, by_row, what, allow)
    return StoredCsr(arrays) if by_row else StoredCsc(arrays)


def sparse_arrays(
    group: Any,
    by_row: bool,
    what: str,
    allow: Allowed = frozenset(),
    shape: tuple[int, int] | None = None,
) -> SparseArrays:
    """Open and check the arrays of a sparse matrix; see :func:`from_node`.

    Its shape, cells x genes, is in an attribute unless it is given.
    """
    kinds = {"data": "buifcOSV", "indices": "iuf", "indptr": "iuf"}
    nodes = {name: group.get(name) for name in kinds}  # once: each get counts chunks
    unusable = [name for name in kinds if not _is_vector(nodes[name], kinds[name])]
    shape = shape_of(group) if shape is None else shape
    if unusable or shape is None:
        raise FileFormatError(
            f"{what} is a sparse matrix without usable {', '.join(unusable) or 'shape'}: it is not "
            "laid out as anndata writes it."
        )
    data = open_array(nodes["data"], f"{what}/data", sparse_data="unwritten" not in allow)
    indices = _whole_numbers(open_array(nodes["indices"], f"{what}/indices"))
    stored = _whole_numbers(open_array(nodes["indptr"], f"{what}/indptr"))
    n_major, n_stored = shape[0 if by_row else 1], min(data.shape[0], indices.shape[0])
    if stored.shape[0] != n_major + 1:
        found = f"it holds {stored.shape[0]}"
        raise FileFormatError(fault_of_indptr(stored.name, n_major, n_stored, found))
    indptr = np.empty(stored.shape, stored.dtype)  # filled by read
    if indptr.size:
        stored.read((slice(0, len(indptr)),), indptr)
    return SparseArrays(data, indices, indptr, shape, by_row, what, data.file)


def shape_of(group: Any) -> tuple[int, int] | None:
    """Return the shape of a sparse matrix; None if its attribute does not give it."""
    found = attribute(group, "shape")
    found = attribute(group, "h5sparse_shape") if found is None else found
    try:
        numbers = np.asarray(found).reshape(-1).tolist()
        whole = [int(n) for n in numbers]
    except (TypeError, ValueError, OverflowError):
        return None
    if len(whole) != 2 or whole != numbers or min(whole) < 0:
        return None
    return whole[0], whole[1]


def _whole_numbers(array: StoredArray) -> StoredArray:
    """Return the array as integers: some writers store all numbers as float64."""
    return WholeNumbers(array) if array.dtype.kind == "f" else array


def open_array(node: Any, what: str, *, sparse_data: bool = False) -> StoredArray:
    """Open the array at `node`; with `sparse_data`, zarr chunks that read as zeros were lost."""
    return _nodes_of(node).open_array(node, what, sparse_data=sparse_data)


def _is_vector(node: Any, kinds: str) -> bool:
    return node is not None and is_array(node) and node.ndim == 1 and node.dtype.kind in kinds


def _unsupported(encoding: str, what: str) -> UnsupportedDataError:
    return UnsupportedDataError(
        f"{what} has the encoding {encoding or 'none'!r}. Supported: {SUPPORTED}. Write the file "
        "again in one of these."
    )
