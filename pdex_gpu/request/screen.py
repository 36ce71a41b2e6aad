"""A screen, opened as a call asks: its data, and which groups are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from ..design.build import make_design
from ..design.contrasts import Design
from ..design.labels import Levels, combined
from ..design.lone_surrogates import warn_of_lone
from ..design.options import ComparisonOptions
from ..errors import DataError
from ..sources.dataset import Dataset
from ..sources.open import open_dataset
from ..sources.options import DataOptions
from ..sources.sizes import within
from .choosing import with_cells, with_genes
from .gene_symbols import symbols_of
from .guide_calls import with_guide_calls
from .guides import read_guides, with_guides
from .normalize import normalised
from .options import Settings


@contextmanager
def open_matrix(data: Any, settings: Settings, groupby: str | None) -> Iterator[Dataset]:
    """Open the data of a call as its options say.

    Labels are a column of obs, or the guides that Cell Ranger called if the options say so; none
    if `groupby` is None.

    Everything that opens the data of a call does it here, so that all see the same matrix.
    """
    by_guides = groupby is not None and settings.comparison.calls_guides
    with (
        within(settings.execution.memory),
        open_dataset(data, None if by_guides else groupby, settings.data.choice) as opened,
    ):
        yield _ready(opened, settings.data, settings.comparison if by_guides else None)


@contextmanager
def open_data(
    data: Any, groupby: str | None, options: DataOptions, memory: str | float | int | None
) -> Iterator[Dataset]:
    """Open data as the options for them say; see :func:`open_matrix`."""
    with within(memory), open_dataset(data, groupby, options.choice) as opened:
        yield _ready(opened, options, None)


def _ready(dataset: Dataset, options: DataOptions, by_guides: ComparisonOptions | None) -> Dataset:
    """Return the data with the labels, cells, values and genes that a call asks for."""
    if dataset.ready:
        return dataset
    if by_guides is not None:  # before cells are left out: a table has the barcodes of all
        dataset = with_guide_calls(dataset, by_guides)
    dataset = normalised(with_cells(dataset, options), options)
    dataset = replace(dataset, symbols=symbols_of(dataset, options.gene_symbols))
    return replace(with_genes(dataset, options), ready=True)


@contextmanager
def open_screen(data: Any, settings: Settings) -> Iterator[Dataset]:
    """Open the data of a call, with the groups that it compares; see :func:`open_matrix`.

    Raises
    ------
    DataError
        If the matrix is empty.
    """
    column = None if settings.comparison.guides is not None else settings.comparison.group_column
    with open_matrix(data, settings, column) as opened:
        dataset = _with_guides(opened, settings) if settings.comparison.groups_overlap else opened
        source = dataset.source
        if source.n_genes == 0 or source.n_cells == 0:
            raise DataError(
                f"The matrix is empty: {source.n_cells} cells x {source.n_genes} genes "
                f"({dataset.description}). Check the filters that were applied to it."
            )
        warn_of_lone("genes", dataset.genes)
        yield dataset


def design_of(dataset: Dataset, settings: Settings) -> Design:
    """Return the groups of cells and the contrasts between them that a call asks for."""

    def levels(names: tuple[str, ...]) -> Levels | None:
        return combined([dataset.column(name) for name in names], names) if names else None

    design = make_design(
        dataset.labels.codes,
        dataset.labels.categories,
        reference=settings.comparison.reference,
        groups=settings.comparison.groups,
        column=settings.comparison.group_column,
        comparison=settings.comparison.comparison,
        pairs=settings.comparison.pairs,
        within=levels(settings.comparison.within_columns),
        strata=levels(() if settings.comparison.strata is None else (settings.comparison.strata,)),
        min_cells=settings.comparison.min_cells,
        pools=dataset.pools,
        tells_missing=not settings.comparison.calls_guides,  # these were told
    )
    warn_of_lone("targets", design.targets)
    warn_of_lone("references", design.references)
    warn_of_lone("columns", settings.comparison.within_columns)
    if design.within is not None:
        warn_of_lone("levels", design.within)
    return design


def _with_guides(dataset: Dataset, settings: Settings) -> Dataset:
    name = settings.comparison.guide_matrix
    assert name is not None
    matrix, names = dataset.matrix(name)
    what = f"Matrix {name!r}" if settings.comparison.calls_guides else f"Matrix {name!r} of obsm"
    found = read_guides(matrix, names, dataset.source.n_cells, what)
    comparison = settings.comparison.chosen
    return with_guides(dataset, found, comparison, settings.comparison.reference)
