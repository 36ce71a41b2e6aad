"""Labels of cells, and matrices of obsm, of several files as one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...design.labels import Labels, object_array
from ...errors import DataError, LabelError, shown
from ..obs_columns import Values

_KINDS = {bool: "True or False", int: "numbers", float: "numbers", str: "text"}

#: A matrix of obsm, and the names of its columns; see :attr:`..dataset.Dataset.matrix`.
Matrix = tuple[Any, Sequence[object] | None]


def stack_labels(
    name: str, files: Sequence[str], labels: Sequence[Labels], frame: str = "obs"
) -> Labels:
    """Return the labels of all cells, or genes; categories are in order of appearance.

    Whole numbers become floats if some file has floats, as pandas does where a value is missing.

    Raises
    ------
    LabelError
        Files hold labels of different types, such as 1 and "1".
    """
    _check_kinds(name, files, labels, frame)
    floats = any(isinstance(x, float) for one in labels for x in one.categories.tolist())
    table: dict[Any, int] = {}
    codes = []
    for one in labels:
        places = np.full(len(one.categories) + 1, -1, np.int64)  # the last one is for code -1
        for i, label in enumerate(one.categories.tolist()):
            whole = floats and type(label) is int
            places[i] = table.setdefault(float(label) if whole else label, len(table))
        codes.append(places[one.codes])
    return Labels(np.concatenate(codes), object_array(table))


def join_labels(
    name: str,
    files: Sequence[str],
    labels: Sequence[Labels],
    places: Sequence[np.ndarray],
    n_all: int,
    n_genes: int,
) -> Labels:
    """Return the labels of joined genes, of which all files must give the same.

    Parameters
    ----------
    name : str
        Of the column of var.
    files, labels
        As for :func:`stack_labels`; labels are those of the genes of each file.
    places : sequence of numpy.ndarray
        The position of each gene of each file among all `n_all` of them.
    n_all, n_genes : int
        The joined genes are the first `n_genes`.

    Raises
    ------
    DataError
        Files have different labels for the same gene.
    """
    every = stack_labels(name, files, labels, "var")
    unknown = -2
    codes = np.full(n_all, unknown, np.int64)
    first = 0
    for file, place in zip(files, places, strict=True):
        mine = every.codes[first : first + len(place)]
        first += len(place)
        differs = (codes[place] != mine) & (codes[place] != unknown) & (place < n_genes)
        if differs.any():
            raise DataError(
                f"Column {name!r} of var is not the same in all files: {int(differs.sum()):,} of "
                f"{len(place):,} genes of {file} have other values than in the files before it. "
                "Write the same column in all of them, or, to choose genes, pass their names "
                "(genes=)."
            )
        codes[place] = mine
    return Labels(codes[:n_genes], every.categories)


def _check_kinds(name: str, files: Sequence[str], labels: Sequence[Labels], frame: str) -> None:
    seen: dict[str, tuple[str, object]] = {}
    for file, one in zip(files, labels, strict=True):
        for label in one.categories.tolist():
            kind = _KINDS.get(type(label))
            if kind is not None:
                seen.setdefault(kind, (file, label))
    if len(seen) > 1 and len({file for file, _ in seen.values()}) > 1:
        told = " and ".join(
            f"{kind} in {file} (such as {shown(label)})" for kind, (file, label) in seen.items()
        )
        raise LabelError(
            f"Column {name!r} of {frame} holds {told}. Write it in one type in all files, for "
            f"instance with adata.{frame}[{name!r}] = adata.{frame}[{name!r}].astype(str)."
        )


def stack_matrices(
    name: str, files: Sequence[str], n_cells: Sequence[int], found: Sequence[Matrix]
) -> Matrix:
    """Stack matrices of obsm, joining named columns by name.

    A column that a file lacks is False, or 0, for its cells: they do not carry what it stands for.

    Raises
    ------
    DataError
        Matrices without names have different numbers of columns, or only some have names.
    """
    what = f"Matrix {name!r} of obsm"
    matrices = [matrix for matrix, _ in found]
    for file, n, matrix in zip(files, n_cells, matrices, strict=True):
        rows = _n_rows(matrix, n)
        if rows != n:
            raise DataError(f"{what} of {file} has {rows} rows, but there are {n} cells.")
    named = [names is not None for _, names in found]
    if all(named):
        tables = [_by_name(what, file, one) for file, one in zip(files, found, strict=True)]
        names = list(dict.fromkeys(column for table in tables for column in table))
        columns = [
            _stack_values([t.get(c) or _no(n) for t, n in zip(tables, n_cells, strict=True)])
            for c in names
        ]
        return columns, names
    if any(named):
        raise DataError(
            f"{what} is a data frame in {files[named.index(True)]}, whose columns have names, but "
            f"an array in {files[named.index(False)]}. Write data frames in all files."
        )
    widths = [matrix.shape[1] if len(matrix.shape) == 2 else -1 for matrix in matrices]
    if len(set(widths)) > 1:
        other = next(i for i, width in enumerate(widths) if width != widths[0])
        raise DataError(
            f"{what} has shape {matrices[0].shape} in {files[0]}, but {matrices[other].shape} in "
            f"{files[other]}: without names of the columns, all files need the same ones. Write "
            "data frames, whose columns are joined by name."
        )
    if any(hasattr(matrix, "tocsr") for matrix in matrices):
        from scipy import sparse

        return sparse.vstack([sparse.csr_matrix(matrix) for matrix in matrices], "csr"), None
    return np.concatenate([np.asarray(matrix) for matrix in matrices]), None


def _n_rows(matrix: Any, n_cells: int) -> int:
    if isinstance(matrix, list):
        return len(matrix[0].values) if matrix else n_cells
    return int(matrix.shape[0]) if matrix.shape else -1


def _by_name(what: str, file: str, found: Matrix) -> dict[str, Values]:
    matrix, names = found
    assert names is not None
    columns = matrix if isinstance(matrix, list) else [
        Values(column, np.zeros(len(column), bool)) for column in np.asarray(matrix).T
    ]  # fmt: skip
    table = dict(zip(map(str, names), columns, strict=True))
    if len(table) < len(columns):
        raise DataError(
            f"{what} of {file} has several columns of the same name. Rename all but one."
        )
    return table


def _no(n_cells: int) -> Values:
    """Return False for each cell."""
    return Values(np.zeros(n_cells, bool), np.zeros(n_cells, bool))


def _stack_values(parts: Sequence[Values]) -> Values:
    kinds = {part.values.dtype.kind in "biuf" for part in parts}
    values = [part.values if kinds == {True} else part.values.astype(object) for part in parts]
    return Values(np.concatenate(values), np.concatenate([part.missing for part in parts]))
