"""Pseudobulk: cells are aggregated into samples, one per combination of levels of obs columns."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from ..backends.contract import NonFiniteError
from ..design.labels import object_array
from ..design.lone_surrogates import writable, writable_labels
from ..design.naming import quoted
from ..engines.memory_model import MemoryModel
from ..engines.plan import Plan, Schedule, make_plan
from ..errors import (
    DataError,
    FileFormatError,
    LabelError,
    MemoryBudgetError,
    MissingLabelWarning,
    OptionError,
    ScaleWarning,
    UnsupportedDataError,
    listing,
    shown,
    warn,
)
from ..pipeline.value_scale import elsewhere
from ..request.screen import open_data
from ..sources.base import Chunk, NotCanonicalError, Reading, Source, UnevenError
from ..sources.options import DataOptions
from ..sources.sizes import left_for_plan
from ..utils.arrays import nan_filled
from ..utils.checks import check_choice, listed
from ..utils.keywords import known_keywords
from ..utils.parallel import Map, pool_map
from ..utils.resources import cpu_count, memory_budget
from .sample_values import MEDIAN_BYTES_PER_ENTRY, medians, sums

if TYPE_CHECKING:
    import anndata

logger = logging.getLogger("pdex_gpu")

METHODS = ("sum", "mean", "median")

#: Options that make no sense for samples, and why.
REFUSED = {
    "normalize": "pseudobulk sums raw counts, and what follows normalises the samples. Leave it "
    "out",
    "gene_symbols": "its result has the names of genes only. Take symbols from var, such as "
    "adata.var[column]; differential_expression takes gene_symbols=, also for samples",
}
N_CELLS = "n_cells"  # a column of obs in the result


@partial(known_keywords, refused=REFUSED)
def pseudobulk(
    data: anndata.AnnData | str | os.PathLike[str] | BinaryIO,
    groupby: str | Iterable[str],
    *,
    layer: str | None = None,
    raw: bool = False,
    modality: str | None = None,
    genes: str | os.PathLike[str] | Sequence[str] | None = None,
    cells: str | None = None,
    allow: str | Collection[str] = (),
    method: str = "sum",
    memory: str | float | int | None = None,
) -> anndata.AnnData:
    """Aggregate cells into samples: one observation for each combination of levels that occurs.

    Parameters
    ----------
    data : anndata.AnnData, str, os.PathLike or file object
        As in :func:`pdex_gpu.differential_expression`: an AnnData in memory or backed, or a view
        of one; the path of an h5ad file or a zarr store; an open h5ad file. Files are read in
        ranges of genes and may be larger than memory.
    groupby : str or iterable of str
        Columns of obs. Cells that lack a label in any of them are left out.
    layer : str, optional
        Layer to use instead of X.
    raw : bool
    modality : str, optional
        Matrix to use, as in :func:`pdex_gpu.differential_expression`.
    genes : list of str, str or os.PathLike, optional
    cells : str, optional
        Genes and cells to aggregate, as in :func:`pdex_gpu.differential_expression`.
    allow : {"external", "unwritten"} or list of these
        As in :func:`pdex_gpu.differential_expression`.
    method : {"sum", "mean", "median"}
        How the values of a sample's cells are combined, zeros included. Medians are those of
        `numpy.median`: for an even number of cells, the mean of the two middle values.
    memory : str, int or float, optional
        Memory to use, not counting an input that is already in memory: ``"4GB"``, bytes, or a
        fraction of the free memory (default 0.5). The result must fit in it.

    Returns
    -------
    anndata.AnnData
        X is dense float64 of shape (n_samples, n_genes); sums of whole numbers are exact up to
        2**53 for every input dtype. obs has the columns of `groupby` as categoricals, in
        alphabetical order, and ``n_cells``. var is that of the input (for files, only the names).

        Samples are sorted by the levels of the first column, then of the second and so on, with
        columns in alphabetical order and levels sorted by value (not by category order). They are
        named ``column.level-column.level``: ``"donor.d1-target_gene.MYC"``. Order and names are
        those of ADPBulk 0.1.4. If two samples would share a name, all levels are quoted.

    Raises
    ------
    pdex_gpu.errors.PdexGpuError
        One of its subclasses, for any input that cannot be used; see :mod:`pdex_gpu.errors`.

    Examples
    --------
    >>> from pdex_gpu import pseudobulk
    >>> from pdex_gpu.simulate import simulate_screen
    >>> adata = simulate_screen(1200, 60, 4, seed=1).to_anndata()
    >>> adata.obs["donor"] = [f"d{i % 3}" for i in range(adata.n_obs)]
    >>> bulk = pseudobulk(adata, ["donor", "target_gene"])
    >>> bulk.shape
    (15, 60)
    >>> bulk.obs_names[0], int(bulk.obs["n_cells"].iloc[0])
    ('donor.d0-target_gene.GENE00031', 99)
    """
    columns = sorted(sample_columns(groupby))
    check_choice("method:", method, METHODS)
    if N_CELLS in columns:
        raise OptionError(
            f"groupby has the column {N_CELLS!r}, which is also the number of cells in the result. "
            "Rename the column of obs."
        )
    options = DataOptions(
        layer=layer, raw=raw, modality=modality, genes=genes, cells=cells, allow=allow
    )
    samples = find_samples(data, columns, options, memory)
    found = aggregate(data, samples, options, method=method, memory=memory)
    levels = {writable(name): writable_labels(of_name) for name, of_name in samples.levels.items()}
    samples = replace(samples, levels=levels)
    if method == "sum" and found.minimum < 0.0:
        what = options.choice.title
        warn(
            f"{what} has negative values, down to {found.minimum:.6g}: they are not counts, so "
            "their sums are not counts either. Pass counts in X or with layer= or raw=, or "
            f"use method='mean'. {elsewhere(found.matrices)}",
            ScaleWarning,
        )

    import anndata
    import pandas as pd

    obs: dict[str, Any] = {
        column: pd.Categorical(
            levels, categories=pd.Index(in_order(set(levels)), tupleize_cols=False)
        )
        for column, levels in samples.levels.items()
    }
    obs[N_CELLS] = samples.n_cells
    var = pd.DataFrame(index=found.genes) if found.var is None else found.var.copy()
    names = var.index.to_numpy(object)
    written = writable_labels(names)
    if written is not names:
        var.index = pd.Index(written, name=var.index.name)
    return anndata.AnnData(X=found.values, obs=pd.DataFrame(obs, index=samples.names), var=var)


@dataclass(frozen=True)
class Samples:
    """The sample that each cell belongs to. Samples are in the order of :func:`pseudobulk`.

    Attributes
    ----------
    codes : numpy.ndarray, shape (n_cells,), int64
        Sample of each cell, -1 if a label is missing.
    levels : dict of str to numpy.ndarray, shape (n_samples,), object
        For each column, in alphabetical order, the level of each sample.
    n_cells : numpy.ndarray, shape (n_samples,), int64
    first_cell : numpy.ndarray, shape (n_samples,), int64
        Row of the first cell of each sample.
    """

    codes: np.ndarray
    levels: dict[str, np.ndarray]
    n_cells: np.ndarray
    first_cell: np.ndarray

    @property
    def names(self) -> list[str]:
        """Return ``column.level-column.level`` per sample; levels are quoted if two names clash."""
        names = self._names(str)
        return names if len(set(names)) == len(names) else self._names(quoted)

    def _names(self, text: Callable[[object], str]) -> list[str]:
        parts = [[f"{column}.{text(level)}" for level in ls] for column, ls in self.levels.items()]
        return ["-".join(sample) for sample in zip(*parts, strict=True)]

    def __len__(self) -> int:
        return len(self.n_cells)


def sample_columns(groupby: str | Iterable[str]) -> list[str]:
    """Return the requested columns, each once; raise OptionError if they are not names."""
    try:
        columns = [groupby] if isinstance(groupby, str) else listed(groupby)
    except TypeError:
        columns = []
    if not columns or not all(isinstance(column, str) for column in columns):
        raise OptionError(
            f"groupby={shown(groupby)} must be the name of a column of obs, or a list of such "
            "names."
        )
    return list(dict.fromkeys(columns))


def find_samples(
    data: Any,
    columns: Sequence[str],
    options: DataOptions,
    memory: str | float | int | None,
) -> Samples:
    """Find the samples from columns of obs, without reading the rest of the data.

    Public functions must call this directly: warnings are attributed to their callers.

    Raises
    ------
    ColumnError, LayerError
        The column or layer does not exist.
    DataError
        The matrix has no cells or no genes.
    LabelError
        No cell has a label in all columns.
    """
    options = replace(options, genes=None)  # only obs is read
    codes = np.zeros(0, np.int64)
    ranked: dict[str, tuple[np.ndarray, list[Any]]] = {}
    for column in columns:
        with open_data(data, column, options, memory) as dataset:
            source, labels = dataset.source, dataset.labels
            if source.n_genes == 0 or source.n_cells == 0:
                raise DataError(
                    f"The matrix is empty: {source.n_cells} cells x {source.n_genes} genes "
                    f"({dataset.description}). Check the filters that were applied to it."
                )
        used = np.unique(labels.codes[labels.codes >= 0])
        names = labels.categories[used].tolist()
        ordered = in_order(set(names))
        position = {label: i for i, label in enumerate(ordered)}
        rank = np.full(len(labels.categories) + 1, -1, np.int64)  # the last one is for code -1
        rank[used] = [position[label] for label in names]
        ranks = rank[labels.codes]
        if not ranked:
            codes = np.zeros(len(ranks), np.int64)
        missing = (codes < 0) | (ranks < 0)
        codes = np.where(missing, -1, codes * len(ordered) + ranks)
        # Renumbered for each column, so that products over many columns stay small.
        codes[~missing] = np.unique(codes[~missing], return_inverse=True)[1]
        ranked[column] = ranks, ordered

    labelled = np.flatnonzero(codes >= 0)
    if len(labelled) < len(codes):
        warn(
            f"{len(codes) - len(labelled)} of {len(codes)} cells have no label in "
            f"{listing(columns)} and are left out.",
            MissingLabelWarning,
        )
    if not len(labelled):
        raise LabelError(f"No cell has a label in {listing(columns)}, so there are no samples.")
    _, first, n_cells = np.unique(codes[labelled], return_index=True, return_counts=True)
    first_cell = labelled[first].astype(np.int64)
    levels = {
        column: object_array(ordered[rank] for rank in ranks[first_cell])
        for column, (ranks, ordered) in ranked.items()
    }
    return Samples(codes, levels, n_cells.astype(np.int64), first_cell)


def in_order(labels: Iterable[Any]) -> list[Any]:
    """Sort labels by value, or by their text if they are of mixed types."""
    labels = list(labels)
    try:
        return sorted(labels)
    except TypeError:  # labels of mixed types
        return sorted(labels, key=str)


@dataclass(frozen=True)
class Aggregated:
    """Cells aggregated into samples.

    Attributes
    ----------
    values : numpy.ndarray, shape (n_samples, n_genes), float64
    genes : numpy.ndarray, shape (n_genes,), object
        Names.
    minimum : float
        The smallest value among the cells of all samples, or 0 if none is negative.
    matrices : list of str
        The other matrices of the data; see :class:`.dataset.Dataset`.
    var : pandas.DataFrame or None
        The description of the genes, if it is in memory.
    """

    values: np.ndarray
    genes: np.ndarray
    minimum: float
    matrices: list[str]
    var: Any


def aggregate(
    data: Any,
    samples: Samples,
    options: DataOptions,
    *,
    method: str,
    memory: str | float | int | None,
) -> Aggregated:
    """Read the matrix and aggregate it into samples.

    Raises
    ------
    DataError
        A cell of a sample holds NaN or infinity, a sum exceeds the range of float64, or the
        matrix is malformed.
    MemoryBudgetError
        The result, or the memory needed for reading, does not fit in `memory`.
    UnsupportedDataError
        The matrix is on a device.
    """
    budget = memory_budget(memory)
    column = next(iter(samples.levels))
    with (
        open_data(data, column, options, memory) as dataset,
        ThreadPoolExecutor(cpu_count()) as pool,
    ):
        source = dataset.source
        what, place = options.choice.what, options.choice.place
        if source.on_device:
            raise UnsupportedDataError(
                f"{what} is on a CUDA device ({source.description}), but pseudobulk runs in host "
                f"memory. Move the matrix: adata.{place} = adata.{place}.get()."
            )
        if source.n_cells != len(samples.codes):
            raise FileFormatError(
                f"{dataset.description} has {source.n_cells} cells, but had {len(samples.codes)} "
                "when obs was read. Run again when nothing is writing to it."
            )
        try:
            left = left_for_plan(budget, source.n_cells)
            values, minimum = _read(source, samples, method, left, pool_map(pool))
        except NonFiniteError as error:
            raise DataError(
                f"{what} is {error.value} in cell {dataset.cell_name(error.cell)!r} (row "
                f"{error.cell}), gene {str(dataset.genes[error.gene])!r} (column {error.gene}). "
                "Samples need finite values: replace the value, or remove the cell or the gene."
            ) from error
        if np.isinf(values).any():
            i, j = np.argwhere(np.isinf(values))[0]
            raise DataError(
                f"The sum of sample {samples.names[i]!r} in gene {str(dataset.genes[j])!r} (column "
                f"{j}) exceeds the largest float64 (1.8e308). Values that large are not counts. "
                "Check the matrix, or use method='mean'."
            )
        return Aggregated(values, dataset.genes, minimum, dataset.matrices(), dataset.var())


def _read(
    source: Source, samples: Samples, method: str, budget: int, parallel_map: Map
) -> tuple[np.ndarray, float]:
    """Aggregate range by range; return the values of samples and the smallest value of a cell."""

    def reduce(chunk: Chunk) -> tuple[np.ndarray, float]:
        if method == "median":
            return medians(chunk, samples.codes, samples.n_cells)
        return sums(chunk, samples.codes, samples.n_cells, mean=method == "mean")

    tidy = False
    while True:
        plan = _plan(source, samples, method, budget, parallel_map)
        logger.info(
            "pseudobulk: %s of %d samples, %d cells x %d genes (%s), %d ranges",
            method, len(samples), source.n_cells, source.n_genes, source.description,
            plan.n_ranges,
        )  # fmt: skip
        reading = Reading(
            parallel_map=parallel_map,
            n_threads=plan.n_threads,
            work=plan.work,
            most_entries=plan.most_entries,
        )
        values, minimum = nan_filled((len(samples), source.n_genes), parallel_map), 0.0
        try:
            with source.open(plan.edges, plan.budget, reading) as reader:
                for k in plan.todo:
                    values[:, plan.genes(k)], smallest = reduce(reader.read(k))
                    minimum = min(minimum, smallest)
        except UnevenError as error:
            logger.info("%s: planning again from the counted values, then rereading", error)
            continue
        except NotCanonicalError as error:
            if tidy:
                raise
            logger.info("%s: sorting a copy and summing duplicates, then starting over", error)
            source, tidy = source.canonical(), True
            continue
        return values, minimum


def _plan(source: Source, samples: Samples, method: str, budget: int, parallel_map: Map) -> Plan:
    """Plan ranges of genes that are read one at a time, with the result held in memory."""

    def packed_bytes(n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        return MEDIAN_BYTES_PER_ENTRY * n_entries if method == "median" else 0.0

    needed = 8 * len(samples) * source.n_genes
    try:
        return make_plan(
            MemoryModel.of(source, len(samples), packed_bytes),
            Schedule(processors=cpu_count()),
            budget,
            reserved=needed,
            parallel_map=parallel_map,
        )
    except MemoryBudgetError as error:
        raise MemoryBudgetError(
            f"memory= allows {budget:,} bytes, too few for the {method} of {source.n_cells:,} "
            f"cells x {source.n_genes:,} genes in {len(samples):,} samples: the result by itself "
            f"takes {needed:,}. Allow more with memory=."
        ) from error
