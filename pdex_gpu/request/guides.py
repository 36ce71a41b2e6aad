"""Cells that carry several guides, given as a boolean matrix of cells x perturbations in obsm."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..design.comparisons.base import Comparison
from ..design.labels import Labels, object_array
from ..errors import (
    DataError,
    LabelError,
    MissingLabelWarning,
    UnsupportedDataError,
    listing,
    warn,
)
from ..sources.dataset import Dataset
from ..sources.obs_columns import Values, yes_or_no
from ..sources.views.view import repeat
from ..sources.whole_numbers import for_scipy

#: Prefix that distinguishes labels of pools of cells from labels of guides.
POOL = "\0pool"

#: Most cells in all pools together: guides that lack different cells have separate pools.
_MOST_POOLED = 1 << 30


@dataclass(frozen=True)
class Guides:
    """The cells that carry each guide.

    Attributes
    ----------
    names : list of str
    cells : list of numpy.ndarray
        Cells of each guide, ascending.
    unknown : list of numpy.ndarray
        Cells for which it is unknown whether they carry the guide, ascending.
    """

    names: list[str]
    cells: list[np.ndarray]
    unknown: list[np.ndarray]


def read_guides(matrix: Any, names: Sequence[object] | None, n_cells: int, what: str) -> Guides:
    """Read the guides in a matrix; without names, its columns are numbered.

    Parameters
    ----------
    matrix : numpy.ndarray, scipy sparse matrix or list of Values
        Cells x guides, holding True and False, 1 and 0, or text for these; for a data frame, the
        list of its columns. NaN, None and pandas' NA are missing: it is unknown whether these
        cells carry the guide. A warning gives their number.
    names : sequence, optional
    n_cells : int
    what : str
        Name of the matrix in messages.

    Raises
    ------
    DataError
        The matrix has other values, or does not have one row per cell.
    """
    columns = matrix if isinstance(matrix, list) else None
    n_rows = n_cells if columns == [] else len(columns[0].values) if columns else None
    shape: tuple[Any, ...] = getattr(matrix, "shape", None) or ()
    if columns is not None:
        shape = n_rows, len(columns)
    if len(shape) != 2 or shape[0] != n_cells:
        raise DataError(
            f"{what} has shape {shape}; a boolean matrix of {n_cells} cells x perturbations is "
            "needed: a row for each cell, a column for each guide or target."
        )
    if names is not None and len(names) != shape[1]:
        raise DataError(f"{what} has {shape[1]} columns, but {len(names)} names.")
    if hasattr(matrix, "tocsc"):
        if matrix.format in ("csr", "csc"):
            matrix = for_scipy(matrix, what)
        cells, unknown = _of_sparse(matrix.tocsc(copy=True), what)
    else:
        cells, unknown = [], []
        for column in _columns(matrix) if columns is None else columns:
            flags = _flags(column, what)
            cells.append(np.flatnonzero(flags.values))
            unknown.append(np.flatnonzero(flags.missing))
    found = [str(j) for j in range(shape[1])] if names is None else [str(n) for n in names]
    repeated = [name for name, n in Counter(found).items() if n > 1]
    if repeated:
        raise DataError(f"{what} has several columns named {repeated[0]!r}. Rename all but one.")
    _say_missing(found, unknown, n_cells, what)
    return Guides(found, cells, unknown)


def _columns(matrix: Any) -> Iterator[Values]:
    """Yield the columns of a dense matrix; masked values are missing."""
    masked = np.ma.getmaskarray(matrix) if isinstance(matrix, np.ma.MaskedArray) else None
    dense = np.asarray(matrix)
    for j in range(dense.shape[1]):
        missing = np.zeros(len(dense), bool) if masked is None else masked[:, j]
        yield Values(dense[:, j], missing)


def _of_sparse(columns: Any, what: str) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Return the cells with each guide, and the unknown ones; modifies the CSC matrix."""
    columns.sum_duplicates()
    found = _flags(Values(columns.data, np.zeros(len(columns.data), bool)), what)
    guide = np.repeat(np.arange(columns.shape[1]), np.diff(columns.indptr))

    def cells(chosen: np.ndarray) -> list[np.ndarray]:
        ends = np.cumsum(np.bincount(guide[chosen], minlength=columns.shape[1]))
        return np.split(columns.indices[chosen].astype(np.int64), ends[:-1])

    return cells(found.values), cells(found.missing)


def _flags(column: Values, what: str) -> Values:
    found = yes_or_no(column)
    if found is None:
        raise DataError(
            f"{what} holds values other than True and False (or 1 and 0). Threshold it first: a "
            "cell either carries a guide or does not."
        )
    return found


def _say_missing(
    names: Sequence[str], unknown: Sequence[np.ndarray], n_cells: int, what: str
) -> None:
    lacking = [
        f"{name} ({len(rows)})" for name, rows in zip(names, unknown, strict=True) if len(rows)
    ]
    if not lacking:
        return
    n = len(np.unique(np.concatenate(list(unknown))))
    warn(
        f"{what} has missing values for {n} of {n_cells} cells, in {listing(lacking)}. Where the "
        "value for a guide is missing, the cell is counted neither among the cells with that guide "
        "nor among those without it.",
        MissingLabelWarning,
    )


def with_guides(
    dataset: Dataset, guides: Guides, comparison: Comparison, reference: object
) -> Dataset:
    """Return the dataset with each cell once for every guide that it carries.

    A label that begins with :data:`POOL` stands for a pool of cells, each once: those that
    :meth:`.Comparison.guide_pool` gives, if any. If it is unknown whether a cell carries a guide,
    the cell is not in that guide's pool: it counts on neither side.
    """
    if dataset.source.on_device:
        raise UnsupportedDataError(
            "guides= does not work with a matrix on a CUDA device: move it with adata.X.get()."
        )
    rows, names = list(guides.cells), list(guides.names)
    pools: dict[object, str] = {}
    carried = dict(zip(guides.names, guides.cells, strict=True))
    pool = comparison.guide_pool(carried, dataset.source.n_cells, reference)
    if pool is not None:
        pools = _add_pools(pool, guides, rows, names)
    codes = list(range(len(names)))
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
        cell_names=None,
        column=column,
        close=dataset.close,
        pools=pools or None,
    )


def _add_pools(
    pool: np.ndarray, guides: Guides, rows: list[np.ndarray], names: list[str]
) -> dict[object, str]:
    """Add each pool to `rows` and `names`, and return the pool of each guide.

    Guides that lack the same cells share a pool; usually nothing is missing, and all share one.
    """
    pools: dict[object, str] = {}
    known: dict[bytes, str] = {}
    n_pooled = 0
    for name, lacking in zip(guides.names, guides.unknown, strict=True):
        key = lacking.tobytes()
        if key not in known:
            known[key] = f"{POOL}{len(known)}"
            names.append(known[key])
            rows.append(np.setdiff1d(pool, lacking, assume_unique=True) if len(lacking) else pool)
            n_pooled += len(rows[-1])
            if n_pooled > _MOST_POOLED:
                raise DataError(
                    f"At least {len(known)} guides have missing values in different cells, so each "
                    "is compared with a different set of cells. That is too many sets. Fill in the "
                    "missing values (fillna(False)), or remove these cells."
                )
        pools[name] = known[key]
    return pools
