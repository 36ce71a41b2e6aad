"""Opening of several files, or other data, as one dataset."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ...design.labels import Labels, object_array
from ...errors import (
    ColumnError,
    OptionError,
    PdexGpuError,
    UnsupportedDataError,
    listing,
)
from ...utils.checks import kind
from ..choice import MatrixChoice
from ..dataset import Dataset
from ..formats import code_for, supported
from ..sizes import BYTES_PER_TEXT, give_back
from .agreement import check_agreement
from .genes import join_genes
from .guides import stack_guides
from .labels import Matrix, join_labels, stack_labels, stack_matrices
from .rows import Part
from .source import StackedSource

logger = logging.getLogger("pdex_gpu")

_SHOWN = 3  # files that a description names


@dataclass(frozen=True)
class File:
    """An open file, or other data that are one of several.

    Attributes
    ----------
    name : str
    path : str
        What messages call it.
    dataset : Dataset
    """

    name: str
    path: str
    dataset: Dataset

    @contextmanager
    def told(self) -> Iterator[None]:
        """Name the file in errors that do not."""
        with naming(self.path):
            yield


def open_files(paths: Mapping[str, str], groupby: str | None, choice: MatrixChoice) -> Dataset:
    """Open several files as one dataset; a single file is opened as it is.

    Parameters
    ----------
    paths : mapping of str to str
        The path of each file by its name; at least one.
    groupby, choice
        See :func:`..open.open_dataset`.

    Raises
    ------
    OptionError
        A file has a column of the name that ``batch=`` gives to a new one.
    DataError
        Genes cannot be joined, or files are on different scales.
    PdexGpuError
        A file cannot be read; the message names it.
    """
    own = None if groupby is not None and groupby == choice.batch else groupby
    with ExitStack() as stack:
        files = [_open(name, path, own, choice, stack) for name, path in paths.items()]
        one = files[0].dataset if len(files) == 1 else _joined(files, choice)
        dataset = one if choice.batch is None else _with_batch(one, files, groupby, choice.batch)
        dataset.close = stack.pop_all().close
        return dataset


@contextmanager
def naming(path: str) -> Iterator[None]:
    """Name what was read in errors that do not."""
    try:
        yield
    except PdexGpuError as error:
        if path in str(error):
            raise
        raise type(error)(f"{path}: {error}") from error


def _open(
    name: str, path: str, groupby: str | None, choice: MatrixChoice, stack: ExitStack
) -> File:
    with naming(path):
        code = code_for(path)
        if code is None:  # only if no format is registered for paths
            raise UnsupportedDataError(f"Cannot read a {kind(path)}. Supported: {supported()}.")
        dataset = code.open(path, groupby, replace(choice, batch=None))
        stack.callback(dataset.close)
        return File(name, path, dataset)


def _joined(files: list[File], choice: MatrixChoice) -> Dataset:
    """Return the dataset of several files, and free the names of their own genes."""
    claimed = sum(
        BYTES_PER_TEXT + len(name) for file in files for name in file.dataset.genes.tolist()
    )
    dataset = stacked(files, choice)
    assert dataset.all_genes is not None  # those of all files
    _tell_left_out(len(dataset.all_genes), len(dataset.genes), len(files))
    for file in files:
        file.dataset.genes = dataset.all_genes
    give_back(claimed)
    if logger.isEnabledFor(logging.INFO):
        _tell_repeated(dataset)
    return dataset


def stacked(files: list[File], choice: MatrixChoice) -> Dataset:
    """Return the dataset of several others; it does not close them.

    Raises
    ------
    DataError
        Genes cannot be joined, or data are on different scales.
    """
    paths = [file.path for file in files]
    datasets = [file.dataset for file in files]
    genes = join_genes(paths, [dataset.genes for dataset in datasets], choice.join)
    sources = [dataset.source for dataset in datasets]
    check_agreement(paths, sources, choice.what)
    parts = [
        Part(file.name, source, place)
        for file, source, place in zip(files, sources, genes.places, strict=True)
    ]
    dtype = np.result_type(*(source.dtype for source in sources))
    labels = [dataset.labels for dataset in datasets]
    ends = np.cumsum([source.n_cells for source in sources])

    def of_cell(row: int) -> tuple[File, int]:
        i = int(np.searchsorted(ends, row, side="right"))
        return files[i], row - (int(ends[i - 1]) if i else 0)

    def cell_name(row: int) -> str:
        file, own = of_cell(row)
        return f"{file.dataset.cell_name(own)} of {file.path}"

    def column(name: str) -> Labels:
        return stack_labels(name, paths, _each(files, lambda dataset: dataset.column(name)))

    def var_column(name: str) -> Labels:
        found = _each(files, lambda dataset: dataset.var_column(name))
        return join_labels(name, paths, found, genes.places, len(genes.names), genes.n_genes)

    def matrix(name: str) -> Matrix:
        found = _each(files, lambda dataset: dataset.matrix(name))
        return stack_matrices(name, paths, [source.n_cells for source in sources], found)

    def matrices() -> list[str]:
        first, *others = (dataset.matrices() for dataset in datasets)
        return [name for name in first if all(name in names for names in others)]

    return Dataset(
        source=StackedSource(parts, genes.n_genes, len(genes.names), dtype),
        labels=stack_labels("of the groups", paths, labels),
        genes=genes.names[: genes.n_genes],
        cell_name=cell_name,
        description=f"{len(files):,} files ({listing(paths, limit=_SHOWN)}), {choice.what}",
        column=column,
        var_column=var_column,
        matrix=matrix,
        matrices=matrices,
        all_genes=genes.names,
        cell_names=lambda: np.concatenate(_each(files, lambda dataset: dataset.all_cell_names())),
        guide_counts=lambda: stack_guides(
            _each(files, lambda dataset: dataset.guide_counts and dataset.guide_counts()),
            [source.n_cells for source in sources],
        ),
    )


def _each(files: list[File], get: Callable[[Dataset], Any]) -> list[Any]:
    found = []
    for file in files:
        with file.told():
            found.append(get(file.dataset))
    return found


def _tell_left_out(n_all: int, n: int, n_files: int) -> None:
    if n < n_all:
        logger.info(
            "%d of %d genes are in all %d files; the others are left out (join='outer' keeps them)",
            n, n_all, n_files,
        )  # fmt: skip


def _tell_repeated(dataset: Dataset) -> None:
    """Log how many cells have a name that other cells have, too."""
    times = Counter(map(hash, dataset.all_cell_names().tolist()))
    n = sum(count for count in times.values() if count > 1)
    if n:
        logger.info(
            "%d of %d cells have a name that occurs more than once; they count as cells of their "
            "own", n, dataset.source.n_cells,
        )  # fmt: skip


def _with_batch(dataset: Dataset, files: list[File], groupby: str | None, batch: str) -> Dataset:
    """Return a dataset with the name of each cell's file as a further column."""
    for file in files:
        if _has_column(file.dataset, batch):
            raise OptionError(
                f"batch={batch!r} would be a new column of obs, but {file.path} has a column of "
                "that name. Use that column, or choose another name."
            )
    logger.info("the column %r holds %s", batch, listing(file.name for file in files))
    n_cells = [file.dataset.source.n_cells for file in files]
    codes = np.repeat(np.arange(len(files), dtype=np.int64), n_cells)
    labels = Labels(codes, object_array(file.name for file in files))
    inner = dataset.column

    def column(name: str) -> Labels:
        return labels if name == batch else inner(name)

    own = labels if groupby == batch else dataset.labels
    return replace(dataset, labels=own, column=column)


def _has_column(dataset: Dataset, name: str) -> bool:
    try:
        dataset.column(name)
    except ColumnError:
        return False
    except PdexGpuError:  # there is one, but it cannot be read
        return True
    return True
