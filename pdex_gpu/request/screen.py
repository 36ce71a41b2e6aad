"""A screen, opened as a call asks: its data, and which groups are compared."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..design.build import make_design
from ..design.comparisons.registry import find_comparison
from ..design.contrasts import Design
from ..design.labels import Levels, combined
from ..design.lone_surrogates import warn_of_lone
from ..errors import DataError
from ..sources.dataset import Dataset
from ..sources.open import open_dataset
from ..sources.sizes import within
from .guides import read_guides, with_guides
from .options import Settings


@contextmanager
def open_screen(data: Any, settings: Settings) -> Iterator[Dataset]:
    """Open the data of a call; see :func:`.sources.open.open_dataset`.

    Raises
    ------
    DataError
        If the matrix is empty.
    """
    column = None if settings.guides is not None else settings.group_column
    layer, allow = settings.layer, settings.allowed
    with within(settings.memory), open_dataset(data, column, layer, allow) as opened:
        dataset = opened if settings.guides is None else _with_guides(opened, settings)
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
        reference=settings.reference,
        groups=settings.groups,
        column=settings.group_column,
        comparison=settings.comparison,
        pairs=settings.pairs,
        within=levels(settings.within_columns),
        strata=levels(() if settings.strata is None else (settings.strata,)),
        min_cells=settings.min_cells,
        pools=dataset.pools,
    )
    warn_of_lone("targets", design.targets)
    warn_of_lone("references", design.references)
    warn_of_lone("columns", settings.within_columns)
    if design.within is not None:
        warn_of_lone("levels", design.within)
    return design


def _with_guides(dataset: Dataset, settings: Settings) -> Dataset:
    assert settings.guides is not None
    matrix, names = dataset.matrix(settings.guides)
    what = f"Matrix {settings.guides!r} of obsm"
    found = read_guides(matrix, names, dataset.source.n_cells, what)
    comparison = find_comparison(settings.comparison)
    return with_guides(dataset, found, comparison, settings.reference)
