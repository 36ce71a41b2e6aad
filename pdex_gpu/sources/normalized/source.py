"""Sources whose counts are scaled while they are read."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ...utils.digest import digest
from ...utils.parallel import Map, pool_map
from ...utils.resources import cpu_count
from ..base import (
    Chunk,
    CsrChunk,
    Layout,
    Reader,
    Reading,
    RowBlocks,
    RowScale,
    Selection,
    Source,
    SourceDefaults,
    State,
)
from ..rechunk.store import RowStore
from ..rechunk.whole import OneChunk, read_whole, unchanged_rows
from .chunks import add_totals, scale
from .rows import ScaledGenes, ScaledRows
from .scaling import Scaling

_FLOAT = 8
_BLOCK = 1 << 21  # approximate entries that a thread reads at a time

# The least ratio of a count and a total is 2**-53; scaled to this, it is far from underflow.
_LEAST_TARGET = 1e-200

# Held while totals are added up in a pass of their own, so that threads do not do it twice.
_adding = threading.Lock()


def scaled(source: Source, scaling: Scaling) -> Source:
    """Return a source of float64 in place of the counts of another.

    Parameters
    ----------
    source : Source
        The counts, in host memory or in a file; it must not be a view.
    scaling : Scaling
        For the cells of `source`. Totals are filled in as they become known.
    """
    whole = source.all_genes()
    if whole.rows() is not None:
        genes = None if whole is source else np.arange(source.n_genes)
        return ScaledRowsSource(whole, scaling, genes)
    found = ScaledSource(source, scaling, whole)
    if source.in_memory:  # a look at the values costs little, and later calls need no second one
        found.find_totals_now()
    return found


def _identity(source: Source, scaling: Scaling) -> Mapping[str, int | str]:
    """Return the identity of counts and of the divisors that are not made of them."""
    given = {} if scaling.column is None else {"divisors": digest(scaling.divisors)}
    return {**source.identity(), **given}


class _Scaled(SourceDefaults):
    """The attributes that scaled counts share with the counts themselves."""

    in_memory = False
    on_device = False
    layout: Layout

    def __init__(self, counts: Source, scaling: Scaling) -> None:
        self.counts, self.scaling = counts, scaling
        self.n_cells, self.n_genes = counts.n_cells, counts.n_genes
        self.dtype = np.dtype(np.float64)
        self.costly_to_cut, self.gene_step = counts.costly_to_cut, counts.gene_step
        self.knows_density, self.sorts = counts.knows_density, counts.sorts
        self.reopens = counts.reopens
        self.description = f"{counts.description}, normalised"

    @property
    def decoded_bytes(self) -> int:
        """See :class:`.base.Source`."""
        return self.counts.decoded_bytes

    @property
    def form(self) -> int:
        """Return what is made of ratios: see :mod:`.kernels`."""
        from .kernels import LOG1P, SCALED

        return LOG1P if self.scaling.log1p else SCALED

    def _later(self, reader: Reader, reading: Reading) -> Reader:
        """Return a reader of scaled chunks, or of counts that may be scaled when they are packed.

        Counts that were not seen are scaled now: one may be refused.
        """
        verified = self.scaling.column is None and self.scaling.known
        if (
            reading.unscaled and self.layout == "csr" and verified
            and self.scaling.find_target() >= _LEAST_TARGET
        ):  # fmt: skip
            return _WithScale(reader, self.scaling, self.form)
        return _Scaling(reader, self.scaling, self.form, reading.parallel_map)

    def identity(self) -> Mapping[str, int | str]:
        """See :meth:`.base.Source.identity`."""
        return _identity(self.counts, self.scaling)


class ScaledSource(_Scaled):
    """Counts that are read in ranges of genes, and scaled range by range.

    Unless they are given, the totals are added up in a pass over all genes before the first range.
    """

    read_whole = False

    def __init__(self, counts: Source, scaling: Scaling, totals_of: Source | None = None) -> None:
        super().__init__(counts, scaling)
        self.layout: Layout = counts.layout
        self._totals_of = counts if totals_of is None else totals_of
        # Scaled values are a copy. So are the indices of a part of each row.
        copied = _FLOAT + (
            counts.bytes_per_entry - counts.dtype.itemsize if counts.layout == "csr" else 0
        )
        self.bytes_per_entry = copied + (0 if counts.in_memory else counts.bytes_per_entry)
        self.n_bytes = counts.n_bytes + (0 if scaling.known else self._totals_of.n_bytes)

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return self.counts.nnz

    def find_totals(self, reading: Reading) -> None:
        """Add up the totals of all cells, unless they are known."""
        with _adding:
            if self.scaling.known:
                return
            source = self._totals_of
            totals = np.zeros(source.n_cells)
            edges = _steps(source, reading)
            with source.open(edges, reading.work, replace(reading, wanted=None)) as reader:
                for k in range(len(edges) - 1):
                    add_totals(reader.read(k), self.scaling, totals, reading.parallel_map)
            self.scaling.set_totals(slice(None), totals)

    def find_totals_now(self) -> None:
        """Add up the totals of all cells on all threads, unless they are known."""
        with ThreadPoolExecutor(cpu_count()) as pool:
            self.find_totals(Reading(pool_map(pool)))

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.base.Source.open`."""
        reading = replace(reading, lazy=False)
        self.find_totals(reading)
        with self.counts.open(edges, budget, reading) as reader:
            yield self._later(reader, reading)

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        return self.counts.density(parallel_map)

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`."""
        counts = self.counts.canonical()
        if counts is self.counts:
            return self
        return ScaledSource(counts, self.scaling, self._totals_of)

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        found = self.counts.select(cells, genes)
        if found is None:
            return None
        if np.array_equal(cells, np.arange(self.n_cells)):
            chosen = ScaledSource(found.source, self.scaling, self._totals_of)
            return Selection(chosen, found.order)
        self.find_totals_now()
        self.scaling.find_target()
        scaling = self.scaling.of_cells(_stored_cells(cells, found))
        return Selection(ScaledSource(found.source, scaling), found.order)

    def state(self) -> State | None:
        """See :meth:`.base.Source.state`."""
        state = self.counts.state()
        if state is None:
            return None
        self.find_totals_now()  # those of all genes, which the state need not have
        arrays = {f"counts_{name}": array for name, array in state.arrays.items()}
        facts = {
            "make": state.make,
            "facts": state.facts,
            "target": self.scaling.find_target(),
            "log1p": self.scaling.log1p,
        }
        return State(_from_state, arrays | {"divisors": self.scaling.divisors}, facts)


def _from_state(
    *, make: Any, facts: dict[str, Any], target: float, log1p: bool, **arrays: np.ndarray
) -> ScaledSource:
    """Make a source again from its state."""
    divisors = arrays.pop("divisors")
    counts = make(**{name.removeprefix("counts_"): a for name, a in arrays.items()}, **facts)
    return ScaledSource(counts, Scaling(divisors, target, log1p))


def _steps(source: Source, reading: Reading) -> list[int]:
    """Cut all genes into ranges that fit in the buffers for reading."""
    per_gene = max(1.0, source.nnz / max(1, source.n_genes))
    each = int(reading.work / (per_gene * (source.bytes_per_entry + _FLOAT)))
    if source.in_memory:
        each = source.n_genes  # nothing is copied as a whole
    step = max(source.gene_step, each - each % source.gene_step)
    return [*range(0, source.n_genes, step), source.n_genes]


def _stored_cells(cells: np.ndarray, found: Selection) -> np.ndarray:
    """Return the cell, before the selection, of each cell of the selected source."""
    if found.order is None:
        return cells
    stored = np.full(found.source.n_cells, -1, np.int64)
    stored[found.order] = cells
    return stored


class _Scaling:
    """A reader that scales each chunk."""

    def __init__(self, reader: Reader, scaling: Scaling, form: int, parallel_map: Map) -> None:
        self._reader, self._scaling, self._form = reader, scaling, form
        self._parallel_map = parallel_map

    def read(self, k: int) -> Chunk:
        """See :meth:`.base.Reader.read`."""
        return scale(self._reader.read(k), self._scaling, self._form, self._parallel_map)


class _WithScale:
    """A reader whose chunks hold counts, and say how they are scaled."""

    def __init__(self, reader: Reader, scaling: Scaling, form: int) -> None:
        self._reader, self._form = reader, form
        self._divisors, self._target = scaling.divisors, scaling.find_target()

    def read(self, k: int) -> Chunk:
        """See :meth:`.base.Reader.read`."""
        chunk = self._reader.read(k)
        assert isinstance(chunk, CsrChunk)
        return replace(chunk, scale=RowScale(self._divisors, self._target, self._form))


class ScaledRowsSource(_Scaled):
    """Counts that are read once, row by row: totals become known on the way.

    If the target is the median of the totals, it is known only at the end. Until then rows are
    kept as ratios of counts and totals.

    Parameters
    ----------
    counts : Source
        It is read whole.
    scaling : Scaling
    genes : numpy.ndarray, int64, optional
        The genes that are chosen after scaling, in any order; all by default.
    """

    layout: Layout = "csr"
    read_whole = True

    def __init__(self, counts: Source, scaling: Scaling, genes: np.ndarray | None = None) -> None:
        super().__init__(counts, scaling)
        rows = counts.rows()
        assert rows is not None  # see `scaled`
        self._all_genes = ScaledRows(rows, scaling, self.form)
        self._genes = genes
        self._rows: ScaledRows | ScaledGenes = self._all_genes
        if genes is not None:
            self._rows = ScaledGenes(self._all_genes, genes, lambda _: self._sampled)
            self.n_genes, self.gene_step, self.knows_density = len(genes), 1, False
        self.bytes_per_entry = self._rows.bytes_per_entry
        self.n_bytes = counts.n_bytes

    @property
    def nnz(self) -> int:
        """See :class:`.base.Source`."""
        return self._rows.nnz

    @cached_property
    def _sampled(self) -> np.ndarray:
        """Return estimates of the entries of the chosen genes."""
        found = self.counts.density(map)
        if found is None:  # all have equally many
            found = np.full(self.counts.n_genes, float(self.n_cells))
        return found if self._genes is None else found[self._genes]

    def density(self, parallel_map: Map) -> np.ndarray | None:
        """See :meth:`.base.Source.density`."""
        if self._genes is None:
            return self.counts.density(parallel_map)
        counted = self._rows.counted
        return self._sampled if counted is None else counted.astype(np.float64)

    def rows(self) -> RowBlocks:
        """See :meth:`.base.Source.rows`; a median is found in a pass of its own."""
        self._find_target()
        self._all_genes.form = self.form
        return self._rows

    def _find_target(self) -> None:
        """Add up the totals in a pass of their own, if the median of all of them is needed."""
        with _adding:
            if self.scaling.target is not None:
                return
            if not self.scaling.known:
                rows = self._all_genes
                with ThreadPoolExecutor(cpu_count()) as pool, unchanged_rows(rows):
                    parallel_map = pool_map(pool)
                    reading = Reading(parallel_map)
                    parts = rows.cut(_BLOCK)
                    for _ in parallel_map(lambda part: rows.add_up(part, reading), parts):
                        pass
            self.scaling.find_target()

    @contextmanager
    def open(
        self, edges: Sequence[int], budget: int, reading: Reading = Reading()
    ) -> Iterator[Reader]:
        """See :meth:`.base.Source.open`."""
        from .kernels import RATIO

        reading = replace(reading, lazy=False)
        rows, waits = self._rows, self.scaling.target is None and not self.scaling.known
        self._all_genes.form = RATIO if waits else self.form
        fits = rows.exact and rows.nnz * rows.bytes_per_entry <= budget
        whole = fits and tuple(edges) == (0, self.n_genes)
        by_totals = self._genes is None and self.scaling.column is None
        if whole and reading.unscaled and by_totals and self.counts.layout == "csr":
            with self.counts.open(edges, budget, reading) as counts:
                yield self._later(self._added_up(counts, reading), reading)
            return
        with unchanged_rows(rows):
            if whole:
                reader: Reader = OneChunk(read_whole(rows, reading))
                yield _Finishing(reader, self.scaling, self.form) if waits else reader
                return
            with RowStore(rows, edges, budget, reading) as store:
                yield _Finishing(store, self.scaling, self.form) if waits else store

    def _added_up(self, counts: Reader, reading: Reading) -> Reader:
        """Return a reader of all counts, which are in memory now, with their totals known."""
        chunk = counts.read(0)
        assert isinstance(chunk, CsrChunk)
        totals = np.zeros(self.n_cells)
        add_totals(chunk, self.scaling, totals, reading.parallel_map)
        self.scaling.set_totals(slice(None), totals)
        return OneChunk(chunk)

    def canonical(self) -> Source:
        """See :meth:`.base.Source.canonical`: rows are put in order before they are scaled."""
        counts = self.counts.canonical()
        if counts is self.counts:
            return self
        return ScaledRowsSource(counts, self.scaling, self._genes)

    def select(self, cells: np.ndarray, genes: np.ndarray) -> Selection | None:
        """See :meth:`.base.Source.select`."""
        chosen = genes if self._genes is None else self._genes[genes]
        every = np.arange(self.counts.n_genes)
        final = None if np.array_equal(chosen, every) else chosen
        if np.array_equal(cells, np.arange(self.n_cells)):
            return Selection(ScaledRowsSource(self.counts, self.scaling, final), None)
        found = self.counts.select(cells, every)
        if found is None:
            return None
        self._find_target()  # the median is that of all cells
        scaling = self.scaling.of_cells(_stored_cells(cells, found))
        return Selection(ScaledRowsSource(found.source, scaling, final), found.order)


class _Finishing:
    """A reader whose chunks hold ratios, which it scales now that the target is known."""

    def __init__(self, reader: Reader, scaling: Scaling, form: int) -> None:
        self._reader, self._form = reader, form
        self._target = scaling.find_target()

    def read(self, k: int) -> Chunk:
        """See :meth:`.base.Reader.read`."""
        from .kernels import finish_ratios

        chunk = self._reader.read(k)
        assert isinstance(chunk, CsrChunk)
        finish_ratios(chunk.data, self._target, self._form)
        return chunk
