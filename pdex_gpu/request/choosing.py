"""Data of which only some cells and genes are read, as a call asks."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np

from ..design.labels import Labels, sizes_of
from ..errors import (
    ColumnError,
    DataError,
    DuplicateGeneWarning,
    GeneError,
    LabelError,
    MissingFileError,
    OptionError,
    UnsupportedDataError,
    listing,
    shown,
    unknown_genes,
    unknown_label,
    warn,
)
from ..sources.dataset import Dataset
from ..sources.obs_columns import Values
from ..sources.options import DataOptions
from ..sources.views.view import select
from ..sources.whole_numbers import for_scipy
from .names_in_files import names_in_file

logger = logging.getLogger("pdex_gpu")


def with_cells(dataset: Dataset, options: DataOptions) -> Dataset:
    """Return the data without the cells that ``cells=`` leaves out.

    Raises
    ------
    ColumnError
        There is no such column of obs.
    DataError
        The column is boolean, and has missing values.
    LabelError
        No cell has this label.
    OptionError
        The column is not boolean, or no cell is chosen.
    UnsupportedDataError
        The matrix cannot be read in part.
    """
    if options.cells is None:
        return dataset
    chosen = _chosen_cells(dataset, options.cells)
    if not chosen.any():
        raise OptionError(
            f"cells={options.cells!r} chooses none of {len(chosen):,} cells. Choose another column "
            "or label."
        )
    _check_in_host_memory(dataset, "cells", options)
    return _keep_cells(dataset, np.flatnonzero(chosen))


def with_genes(dataset: Dataset, options: DataOptions) -> Dataset:
    """Return the data with the genes that ``genes=`` chooses, in the order of the matrix.

    Raises
    ------
    ColumnError
        There is neither such a column of var nor such a file.
    DataError
        The column of var has missing values.
    FileFormatError, MissingFileError, UnreadableFileError
        The file cannot be read.
    GeneError
        A gene is not in the matrix, or there several times.
    OptionError
        The column of var is not boolean, or no gene is chosen.
    UnsupportedDataError
        The matrix cannot be read in part.
    """
    if options.genes is None:
        return dataset
    chosen = _chosen_genes(dataset, options.genes)
    if not len(chosen):
        raise OptionError(
            f"genes={shown(options.genes)} chooses none of {len(dataset.genes):,} genes. Choose "
            "at least one."
        )
    _check_in_host_memory(dataset, "genes", options)
    return keep_genes(dataset, chosen)


def keep_genes(dataset: Dataset, genes: np.ndarray) -> Dataset:
    """Return the data with some genes, given by their ascending positions."""

    def var() -> Any:
        frame = dataset.var()
        return None if frame is None else frame.iloc[genes]

    source = dataset.source
    return replace(
        dataset,
        source=select(source, np.arange(source.n_cells), genes),
        genes=dataset.genes[genes],
        symbols=None if dataset.symbols is None else dataset.symbols[genes],
        var=var,
        var_column=lambda name: _rows_of(dataset.var_column(name), genes),
    )


def names_for_workers(dataset: Dataset, options: DataOptions) -> Any:
    """Return ``genes=`` as other processes understand it: names in place of those in a file."""
    genes = options.genes
    if genes is None or isinstance(genes, tuple) or _column_of_var(dataset, genes) is not None:
        return genes
    return tuple(dataset.genes.tolist())


def _check_in_host_memory(dataset: Dataset, option: str, options: DataOptions) -> None:
    if dataset.source.on_device:
        part = "adata[cells]" if option == "cells" else "adata[:, genes]"
        raise UnsupportedDataError(
            f"{option}= works in host memory and in files, but {options.choice.what} is on a CUDA "
            f"device ({dataset.source.description}), where it is read whole. Select there first, "
            f"and pass {part}.copy()."
        )


# --- cells ----------------------------------------------------------------------------------------


def _chosen_cells(dataset: Dataset, asked: str) -> np.ndarray:
    """Return which cells are kept, shape (n_cells,), bool."""
    try:
        labels = dataset.column(asked)
    except ColumnError as error:
        for at in (i for i, letter in enumerate(asked) if letter == "="):
            found = _cells_with_label(dataset, asked[:at], asked[at + 1 :])
            if found is not None:
                return found
        raise ColumnError(
            f"cells={asked!r} must be a boolean column of obs, or 'column=value'. {error}"
        ) from error
    how = f"cells={asked!r}"
    example = next((str(label) for label in labels.categories), "value")
    keep = f"To keep the cells with one of its labels, pass cells={f'{asked}={example}'!r}"
    return _flags(labels, f"{how}: column {asked!r} of obs", keep)


def _cells_with_label(dataset: Dataset, column: str, text: str) -> np.ndarray | None:
    """Return which cells have a label, given as text; None if there is no such column."""
    try:
        labels = dataset.column(column)
    except ColumnError:
        return None
    like = [i for i, label in enumerate(labels.categories) if str(label) == text]
    if not like:
        what = f"label in column {column!r} of obs (cells={f'{column}={text}'!r}):"
        raise LabelError(unknown_label(what, text, sizes_of(labels), control=False))
    return np.isin(labels.codes, like)


def _keep_cells(dataset: Dataset, cells: np.ndarray) -> Dataset:
    """Return the data with some cells, given by their ascending rows."""
    source = dataset.source

    def matrix(name: str) -> tuple[Any, Sequence[object] | None]:
        found, names = dataset.matrix(name)
        return _rows_of_matrix(found, cells, source.n_cells, name), names

    return replace(
        dataset,
        source=select(source, cells, np.arange(source.n_genes)),
        labels=_rows_of(dataset.labels, cells),
        cell_name=lambda row: dataset.cell_name(int(cells[row])),
        cell_names=None,
        column=lambda name: _rows_of(dataset.column(name), cells),
        matrix=matrix,
    )


def _rows_of(labels: Labels, rows: np.ndarray) -> Labels:
    return replace(labels, codes=labels.codes[rows])


def _rows_of_matrix(matrix: Any, rows: np.ndarray, n_rows: int, name: str) -> Any:
    """Return some rows of a matrix of obsm; see `Dataset.matrix`."""
    if isinstance(matrix, list):
        return [_rows_of_values(column, rows, n_rows, name) for column in matrix]
    _check_rows((getattr(matrix, "shape", None) or (0,))[0], n_rows, name)
    if hasattr(matrix, "tocsr"):
        usable = for_scipy(matrix, name) if matrix.format in ("csr", "csc") else matrix
        return usable.tocsr()[rows]
    return matrix[rows]


def _rows_of_values(column: Values, rows: np.ndarray, n_rows: int, name: str) -> Values:
    _check_rows(len(column.values), n_rows, name)
    return Values(column.values[rows], column.missing[rows])


def _check_rows(found: int, n_rows: int, name: str) -> None:
    if found != n_rows:
        raise DataError(
            f"Matrix {name!r} of obsm has {found:,} rows, but there are {n_rows:,} cells."
        )


# --- genes ----------------------------------------------------------------------------------------


def _chosen_genes(dataset: Dataset, asked: Any) -> np.ndarray:
    """Return the positions of the genes that are kept, ascending."""
    if isinstance(asked, tuple):
        return _positions(dataset, asked, "genes=")
    labels = _column_of_var(dataset, asked)
    if labels is None:
        path = os.fspath(asked)
        if not os.path.exists(path):
            _raise_neither(dataset, asked)
        return _positions(dataset, names_in_file(path), f"the file {shown(path)} (genes=)")
    if os.path.isfile(asked):
        logger.info(
            "genes=%r: there are a column of var and a file of this name; the column is used "
            "(for the file, write genes=%r)",
            asked,
            os.path.join(".", asked),
        )
    advice = f"Convert it: adata.var[{asked!r}] = adata.var[{asked!r}].astype(bool)"
    flags = _flags(labels, f"genes={asked!r}: column {asked!r} of var", advice)
    return np.flatnonzero(flags)


def _column_of_var(dataset: Dataset, asked: Any) -> Labels | None:
    """Return a column of var; None if `asked` is not the name of one."""
    if not isinstance(asked, str):
        return None
    try:
        return dataset.var_column(asked)
    except ColumnError:
        return None


def _raise_neither(dataset: Dataset, asked: Any) -> NoReturn:
    """Raise the error for what is neither a column of var nor a file."""
    path = shown(os.fspath(asked))
    if not isinstance(asked, str):
        raise MissingFileError(f"genes={path}: there is no such file. Check the path.")
    try:
        dataset.var_column(asked)
    except ColumnError as error:
        raise ColumnError(
            f"genes={path} is neither a column of var nor a file. {error} To test a single gene, "
            f"pass a list: genes=[{path}]."
        ) from error
    raise AssertionError("there is no such column")


def _positions(dataset: Dataset, names: Sequence[str], what: str) -> np.ndarray:
    """Return the positions of genes, given by their names or symbols, ascending.

    A symbol that is the name of another gene stands for that gene, as in a result.
    """
    places: dict[str, list[int]] = {name: [] for name in names}
    if len(places) < len(names):
        seen: set[str] = set()
        twice = [name for name in names if name in seen or seen.add(name)]  # type: ignore[func-returns-value]
        warn(
            f"{len(names) - len(places)} names in {what} are repeated, such as {twice[0]!r}: each "
            "gene is tested once.",
            DuplicateGeneWarning,
        )
    genes = dataset.genes.tolist()
    symbols = genes if dataset.symbols is None else dataset.symbols.tolist()
    for known in (genes, symbols):
        wanted = {name for name, found in places.items() if not found}
        for place, name in enumerate(known):
            if name in wanted:
                places[name].append(place)
    missing = [name for name, found in places.items() if not found]
    if missing:
        every = list(dict.fromkeys([*symbols, *genes]))
        raise GeneError(unknown_genes(missing, len(places), symbols, every, what, "the matrix"))
    several = [name for name, found in places.items() if len(found) > 1]
    if several:
        advice = "Make names unique (adata.var_names_make_unique())"
        if several[0] not in genes:
            listed = listing(genes[place] for place in places[several[0]])
            advice = f"In place of symbols, pass names of var ({several[0]!r} is {listed})"
        raise GeneError(
            f"{len(several)} of {len(places)} names in {what} belong to several genes of the "
            f"matrix: {listing(several)}. {advice}, or choose genes with a boolean column of var."
        )
    return np.unique(np.array([found[0] for found in places.values()], np.int64))


# --- boolean columns ------------------------------------------------------------------------------


def _flags(labels: Labels, what: str, advice: str) -> np.ndarray:
    """Return the values of a boolean column; raise OptionError or DataError for another one."""
    others = [label for label in labels.categories if not isinstance(label, bool | np.bool_)]
    if others:
        kinds = sorted({type(label).__name__ for label in others})
        raise OptionError(
            f"{what} is not boolean: it holds {' and '.join(kinds)}, such as "
            f"{listing(others, limit=3)}. {advice}."
        )
    missing = int((labels.codes < 0).sum())
    if missing:
        raise DataError(
            f"{what} has missing values in {missing:,} of {len(labels.codes):,} rows. Fill them "
            "in, for instance with fillna(False)."
        )
    return np.array(labels.categories.tolist(), bool)[labels.codes]
