"""Cells that carry several guides: a boolean matrix of cells x perturbations in obsm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..comparisons import reference_labels
from ..errors import DataError, LabelError, UnsupportedDataError, unknown_label
from .dataset import Dataset, Labels, object_array
from .view import repeat

#: Stands for a pool of cells among guides.
POOL = "\0pool"


@dataclass(frozen=True)
class Guides:
    """Which cells carry which guide.

    Attributes
    ----------
    names : list of str
    cells : list of numpy.ndarray
        Cells of each guide, ascending.
    """

    names: list[str]
    cells: list[np.ndarray]


def read_guides(matrix: Any, names: Sequence[object] | None, n_cells: int, what: str) -> Guides:
    """The guides in a matrix, dense or scipy sparse; its columns are numbered without names.

    Raises
    ------
    DataError
        If it is not a matrix of 0 and 1 with a row for each cell.
    """
    shape = tuple(matrix.shape)
    if len(shape) != 2 or shape[0] != n_cells:
        raise DataError(
            f"{what} has shape {shape}; a boolean matrix of {n_cells} cells x perturbations is "
            "needed: a row for each cell, a column for each guide or target."
        )
    if names is not None and len(names) != shape[1]:
        raise DataError(f"{what} has {shape[1]} columns, but {len(names)} names.")
    stored = matrix.data if hasattr(matrix, "tocsc") else np.asarray(matrix)
    if stored.dtype.kind not in "buif" or not np.isin(stored, (0, 1)).all():
        raise DataError(
            f"{what} holds values other than True and False (or 1 and 0). Threshold it first: "
            "which cells carry which guide is a matter of yes or no."
        )
    if hasattr(matrix, "tocsc"):
        columns = matrix.tocsc()
        columns.eliminate_zeros()
        columns.sort_indices()
        cells = np.split(columns.indices.astype(np.int64), columns.indptr[1:-1])
    else:
        dense = np.asarray(matrix).astype(bool)
        cells = [np.flatnonzero(dense[:, j]) for j in range(shape[1])]
    found = [str(j) for j in range(shape[1])] if names is None else [str(n) for n in names]
    repeated = [name for name in dict.fromkeys(found) if found.count(name) > 1]
    if repeated:
        raise DataError(f"{what} has several columns named {repeated[0]!r}. Rename all but one.")
    return Guides(found, cells)


def with_guides(dataset: Dataset, guides: Guides, comparison: str, reference: object) -> Dataset:
    """The dataset with each cell once for every guide that it carries.

    For ``comparison="rest"`` and ``"perturbed"`` the label :data:`POOL` stands for every cell, or
    for those that carry a guide other than the reference's, each once.
    """
    if dataset.source.on_device:
        raise UnsupportedDataError(
            "guides= does not work with a matrix on a CUDA device: move it with adata.X.get()."
        )
    rows, codes = list(guides.cells), list(range(len(guides.names)))
    names = list(guides.names)
    if comparison == "rest":
        rows.append(np.arange(dataset.source.n_cells))
    elif comparison == "perturbed":
        controls = {str(label) for label in reference_labels(reference)}
        absent = sorted(controls - set(names))
        if absent:
            sizes = dict(zip(names, map(len, guides.cells), strict=True))
            what = "reference among the guides:"
            raise LabelError(unknown_label(what, absent[0], sizes, control=True))
        carried = [c for name, c in zip(names, rows, strict=True) if name not in controls]
        rows.append(np.unique(np.concatenate([np.empty(0, np.int64), *carried])))
    if len(rows) > len(codes):
        names.append(POOL)
        codes.append(len(codes))
    cells = np.concatenate([np.empty(0, np.int64), *rows])
    if not len(cells):
        raise LabelError("No cell carries a guide: the boolean matrix holds no True.")
    labels = Labels(np.repeat(codes, [len(r) for r in rows]).astype(np.int64), object_array(names))

    def column(name: str) -> Labels:
        found = dataset.column(name)
        return replace(found, codes=found.codes[cells])

    return replace(
        dataset,
        source=repeat(dataset.source, cells),
        labels=labels,
        cell_name=lambda row: dataset.cell_name(int(cells[row])),
        column=column,
        close=dataset.close,
    )
