"""A screen as an h5ad file, written with h5py alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gpu_screen import GROUPBY, Screen


def write_h5ad(screen: Screen, matrix: Any, path: Path) -> None:
    """Write a CSR matrix of the first cells of the screen, not compressed."""
    with h5py.File(path, "w") as file:
        x = start_h5ad(file, matrix.shape, screen.codes, screen.names, screen.genes)
        for name in ("data", "indices", "indptr"):
            x.create_dataset(name, data=getattr(matrix, name), chunks=True)


def start_h5ad(
    file: h5py.File, shape: tuple[int, int], codes: np.ndarray, names: Any, genes: Any
) -> h5py.Group:
    """Write all of a file of the first cells but the arrays of its CSR matrix; returns X."""
    _mark(file, "anndata", "0.1.0")
    x = file.create_group("X")
    _mark(x, "csr_matrix", "0.1.0")
    x.attrs["shape"] = shape
    n_cells = shape[0]
    obs = _frame(file, "obs", [f"cell_{i}" for i in range(n_cells)], [GROUPBY])
    column = obs.create_group(GROUPBY)
    _mark(column, "categorical", "0.2.0")
    column.attrs["ordered"] = False
    _mark(column.create_dataset("codes", data=codes[:n_cells].astype(np.int16)), "array", "0.2.0")
    _strings(column, "categories", names)
    _frame(file, "var", genes, [])
    return x


def _frame(file: h5py.File, name: str, index: Any, columns: list[str]) -> h5py.Group:
    frame = file.create_group(name)
    _mark(frame, "dataframe", "0.2.0")
    frame.attrs["_index"] = "_index"
    frame.attrs.create("column-order", np.array(columns, dtype=h5py.string_dtype()))
    _strings(frame, "_index", index)
    return frame


def _strings(group: h5py.Group, name: str, values: Any) -> None:
    made = group.create_dataset(name, data=np.array(list(values), dtype=h5py.string_dtype()))
    _mark(made, "string-array", "0.2.0")


def _mark(node: Any, encoding: str, version: str) -> None:
    node.attrs["encoding-type"], node.attrs["encoding-version"] = encoding, version
