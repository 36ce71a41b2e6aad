"""What a damaged screen holds, read with h5py, zarr and scipy alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
from scipy import sparse

from .made import GROUP

_MOST = 10**7


class UnusableError(Exception):
    """No table can be made of the file."""


def read_screen(path: Path, inner: str, matrix: str) -> ad.AnnData:
    """The screen of a file.

    Raises
    ------
    UnusableError
        It contradicts itself, or holds no data where there should be some.
    """
    try:
        if path.is_dir():
            return _screen(_zarr_group(path), matrix)
        if path.suffix == ".zip":
            from zarr.storage import ZipStore

            with ZipStore(path, mode="r") as store:
                return _screen(_zarr_group(store), matrix)
        with h5py.File(path, "r") as file:
            return _screen(file[inner or "/"], matrix)
    except UnusableError:
        raise
    except Exception as error:  # of any library
        raise UnusableError(f"{type(error).__name__}: {error}") from error


def _zarr_group(store: Any) -> Any:
    import zarr

    return zarr.open_group(store, mode="r")


def _screen(root: Any, matrix: str) -> ad.AnnData:
    x = _matrix(_get(root, matrix))
    labels = _column(_get(_get(root, "obs"), GROUP))
    # As anndata names genes where a file does not.
    genes = _names(_get(root, "var")) if "var" in root else [str(j) for j in range(x.shape[1])]
    if len(labels) != x.shape[0] or len(genes) != x.shape[1]:
        raise UnusableError(f"{len(labels)} labels and {len(genes)} genes for {x.shape}")
    frame = pd.DataFrame({GROUP: pd.Series(labels, dtype=object)})
    frame.index = [f"c{i}" for i in range(len(labels))]
    return ad.AnnData(x, frame, pd.DataFrame(index=genes))


def _get(root: Any, name: str) -> Any:
    """A node; none whose link leads to another file."""
    for part in name.split("/"):
        if isinstance(root, h5py.Group) and isinstance(
            root.get(part, getlink=True), h5py.ExternalLink
        ):
            raise UnusableError(f"{part} is in another file")
        root = root[part]
    return root


def _read(node: Any) -> np.ndarray:
    """The values of an array, all of them written."""
    if math.prod(node.shape) > _MOST:
        raise UnusableError(f"{node.shape} values")
    if isinstance(node, h5py.Dataset):
        _check_stored(node)
        if h5py.check_string_dtype(node.dtype):
            return np.array([_text(x) for x in node[...].ravel()], object).reshape(node.shape)
    return np.asarray(node[...])


def _check_stored(node: h5py.Dataset) -> None:
    if node.external or node.is_virtual:
        raise UnusableError(f"{node.name} is stored elsewhere")
    if not node.size:
        return
    if node.chunks is None:
        if node.id.get_storage_size() == 0:
            raise UnusableError(f"{node.name} was never written")
        return
    needed = math.prod(-(-n // c) for n, c in zip(node.shape, node.chunks, strict=True))
    if node.id.get_num_chunks() < needed:
        raise UnusableError(f"{node.name} was never written")


def _text(value: Any) -> str:
    if not isinstance(value, bytes):
        return str(value)
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _attribute(node: Any, name: str) -> Any:
    found = node.attrs.get(name)
    if isinstance(found, np.ndarray) and found.size == 1:
        found = found.reshape(-1)[0]
    return _text(found) if isinstance(found, bytes) else found


def _matrix(node: Any) -> Any:
    if hasattr(node, "dtype"):
        if node.dtype.kind not in "buif" or len(node.shape) != 2:
            raise UnusableError("no matrix of numbers")
        return _read(node)
    kind = _attribute(node, "h5sparse_format") or _attribute(node, "encoding-type")
    make = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}[str(kind).removesuffix("_matrix")]
    data, indices, indptr = (_read(_get(node, name)) for name in ("data", "indices", "indptr"))
    shape = node.attrs.get("shape", node.attrs.get("h5sparse_shape"))
    lines, other = np.asarray(shape).reshape(-1).tolist()
    n_rows, n_columns = int(lines), int(other)
    if kind == "csc" or kind == "csc_matrix":
        lines, other = other, lines
    indices, indptr = _whole(indices), _whole(indptr)
    if data.ndim != 1 or data.dtype.kind not in "buif" or len(data) != len(indices):
        raise UnusableError("data and indices do not go together")
    if (
        len(indptr) != lines + 1
        or indptr[0]
        or indptr[-1] != len(data)
        or (np.diff(indptr) < 0).any()
    ):
        raise UnusableError("indptr is malformed")
    if len(indices) and (indices.min() < 0 or indices.max() >= other):
        raise UnusableError("indices are out of range")
    return make((data, indices, indptr), (n_rows, n_columns))


def _whole(values: np.ndarray) -> np.ndarray:
    if values.ndim != 1 or values.dtype.kind not in "iuf":
        raise UnusableError("no indices")
    found = values.astype("i8")
    if (found != values).any():
        raise UnusableError("no whole numbers")
    return found


def _names(frame: Any) -> list[str]:
    given = _attribute(frame, "_index")
    found = _column(_get(frame, "_index" if given is None else str(given)))
    return [str(x) for x in found]


def _column(node: Any) -> list[Any]:
    """The labels of a column, None where they are missing."""
    if hasattr(node, "dtype"):
        values = _read(node)
        if values.ndim != 1:
            raise UnusableError("no column")
        return [_label(x) for x in values.tolist()]
    parts = list(node)
    if "codes" in parts:
        codes, categories = _read(_get(node, "codes")), _column(_get(node, "categories"))
        if codes.ndim != 1 or codes.dtype.kind not in "iu":
            raise UnusableError("no codes")
        if len(codes) and (int(codes.min()) < -1 or int(codes.max()) >= len(categories)):
            raise UnusableError("codes are out of range")
        return [None if c < 0 else categories[c] for c in codes.tolist()]
    values, mask = _column(_get(node, "values")), _read(_get(node, "mask"))
    if len(mask) != len(values):
        raise UnusableError("a mask of another length")
    return [None if m else v for v, m in zip(values, mask.tolist(), strict=True)]


def _label(value: Any) -> Any:
    if isinstance(value, bytes):
        return _text(value)
    return None if isinstance(value, float) and math.isnan(value) else value
