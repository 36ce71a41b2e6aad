"""The screen that the GPU benchmark runs on: a billion nonzeros, drawn by all cores in seconds."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import sparse, special

from pdex_gpu.design.build import make_design
from pdex_gpu.design.contrasts import Design
from pdex_gpu.design.labels import Labels, object_array
from pdex_gpu.sources.dataset import Dataset
from pdex_gpu.sources.memory.open import from_array
from pdex_gpu.utils.resources import cpu_count

REFERENCE = "non-targeting"
GROUPBY = "target_gene"

# Of log-normal gene means and library sizes, and of negative binomial counts: 42 % of the values
# are not zero.
_MEAN_COUNT = 1.7
_GENE_SIGMA = 1.6
_LIBRARY_SIGMA = 0.35
_DISPERSION = 0.3
_CONTROL_FRACTION = 0.1
_KNOCKDOWN = 0.2
_AFFECTED_FRACTION = 0.03
_EFFECT_SIGMA = 0.7
_TARGET_SUM = 1e4

_VALUES_PER_BLOCK = 1 << 18  # arrays of a block stay in a core's cache
_MOST = np.iinfo(np.uint16).max
_STEP = 0.04  # between the logarithms of two means for which there are tables
_LOG_MEANS = (-11.0, 7.0)
_BITS = 12
_UPPERMOST = np.uint16((1 << _BITS) - 1)


@dataclass(frozen=True)
class Sizes:
    """The size of a screen, and its seed."""

    cells: int
    genes: int
    perturbations: int
    seed: int = 0

    def problem(self) -> str | None:
        """Why there is no such screen, if so."""
        if min(self.cells, self.genes, self.perturbations) < 1:
            return "cells, genes and perturbations must be at least 1"
        if self.perturbations > self.genes:
            return f"{self.perturbations} perturbations need as many genes, not {self.genes}"
        if self.cells - self.controls < self.perturbations:
            return f"{self.cells} cells are too few for {self.perturbations} perturbations"
        return None

    @property
    def controls(self) -> int:
        return max(1, round(self.cells * _CONTROL_FRACTION))


# What the targets are stated for.
FULL = Sizes(300_000, 8_000, 2_000)
QUICK = Sizes(20_000, 1_000, 100)


@dataclass
class Screen:
    """A screen in ordinary host memory.

    Attributes
    ----------
    sizes : Sizes
    log1p, counts : numpy.ndarray, shape (nnz,), float32
        Log-normalised values, and the counts they were made from; indices are shared.
    indices : numpy.ndarray, shape (nnz,), int32
    indptr : numpy.ndarray, shape (cells + 1,), int64
    codes : numpy.ndarray, shape (cells,), int64
        The reference is 0.
    names, genes : numpy.ndarray, object
        Of the groups and of the genes.
    entries : numpy.ndarray, shape (genes,), int64
        Nonzeros a gene.
    """

    sizes: Sizes
    log1p: np.ndarray
    counts: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    codes: np.ndarray
    names: np.ndarray
    genes: np.ndarray
    entries: np.ndarray

    @property
    def nnz(self) -> int:
        return len(self.indices)

    @property
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Data, indices and indptr of the log-normalised CSR matrix."""
        return self.log1p, self.indices, self.indptr

    @property
    def csr_bytes(self) -> int:
        return sum(array.nbytes for array in self.arrays)

    def matrix(self, values: str = "log1p", n_cells: int | None = None) -> sparse.csr_matrix:
        """The first cells as CSR over these very arrays."""
        n_cells = self.sizes.cells if n_cells is None else n_cells
        nnz = int(self.indptr[n_cells])
        # Not through the constructor, which would make indptr int32.
        found = sparse.csr_matrix((n_cells, self.sizes.genes), dtype=np.float32)
        found.data = getattr(self, values)[:nnz]
        found.indices = self.indices[:nnz]
        found.indptr = self.indptr[: n_cells + 1]
        return found

    def dataset(self, matrix: Any) -> Dataset:
        """A matrix of the first cells, as `differential_expression` takes it without AnnData."""
        labels = Labels(self.codes[: matrix.shape[0]], self.names)
        return Dataset(from_array(matrix, what="X"), labels, self.genes, str, "simulated")

    @property
    def design(self) -> Design:
        return make_design(self.codes, self.names, reference=REFERENCE)

    def columns(self, genes: np.ndarray) -> dict[str, np.ndarray]:
        """The values of some genes, dense, cells x genes; counts and log1p by name."""
        found = {
            name: np.zeros((self.sizes.cells, len(genes)), np.float32)
            for name in ("log1p", "counts")
        }
        place = np.full(self.sizes.genes, -1, np.int32)
        place[genes] = np.arange(len(genes))

        def copy(rows: slice) -> None:
            entries = slice(int(self.indptr[rows.start]), int(self.indptr[rows.stop]))
            gene = place[self.indices[entries]]
            wanted = np.flatnonzero(gene >= 0)
            row = np.repeat(
                np.arange(rows.start, rows.stop), np.diff(self.indptr[rows.start : rows.stop + 1])
            )[wanted]
            for name, dense in found.items():
                dense[row, gene[wanted]] = getattr(self, name)[entries][wanted]

        with ThreadPoolExecutor(cpu_count()) as pool:
            list(pool.map(copy, blocks_of(self.sizes)))
        return found


def blocks_of(sizes: Sizes) -> Iterator[slice]:
    """Rows that are drawn at a time: the same whatever the number of threads."""
    step = max(1, _VALUES_PER_BLOCK // sizes.genes)
    for start in range(0, sizes.cells, step):
        yield slice(start, min(start + step, sizes.cells))


@dataclass
class _Model:
    """Tables that counts are drawn from: levels are logarithms of means, in steps of `_STEP`."""

    levels: np.ndarray  # (perturbations + 1, genes), int16
    library: np.ndarray  # (cells,), int16: added to the levels, from the first of the tables on
    tables: np.ndarray  # (2, number of levels, 1 << _BITS), uint16: see _quantiles
    codes: np.ndarray
    own: np.ndarray  # the gene that each perturbation silences


def _model(sizes: Sizes) -> _Model:
    rng = np.random.default_rng(sizes.seed)
    gene = rng.normal(0.0, _GENE_SIGMA, sizes.genes)
    gene += np.log(_MEAN_COUNT * sizes.genes / np.exp(gene).sum())
    levels = np.tile(gene.astype(np.float32), (sizes.perturbations + 1, 1))
    hit = rng.random((sizes.perturbations, sizes.genes), dtype=np.float32) < _AFFECTED_FRACTION
    levels[1:][hit] += rng.normal(0.0, _EFFECT_SIGMA, int(hit.sum())).astype(np.float32)
    own = np.sort(rng.choice(sizes.genes, sizes.perturbations, replace=False))
    levels[1 + np.arange(sizes.perturbations), own] = gene[own] + np.log(_KNOCKDOWN)
    library = rng.normal(-0.5 * _LIBRARY_SIGMA**2, _LIBRARY_SIGMA, sizes.cells)
    np.clip(library, -5 * _LIBRARY_SIGMA, 5 * _LIBRARY_SIGMA, out=library)
    treated = 1 + np.arange(sizes.cells - sizes.controls) % sizes.perturbations
    codes = np.concatenate([np.zeros(sizes.controls, np.int64), treated])
    rng.shuffle(codes)

    np.clip(levels, *_LOG_MEANS, out=levels)
    level, of_cell = (np.rint(x / _STEP).astype(np.int16) for x in (levels, library))
    first, last = int(level.min()) + int(of_cell.min()), int(level.max()) + int(of_cell.max())
    tables = np.stack([_quantiles(np.exp(k * _STEP)) for k in range(first, last + 1)], axis=1)
    return _Model(level, of_cell - np.int16(first), tables, codes, own)


def _quantiles(mean: float) -> np.ndarray:
    """Quantiles of the negative binomial: of all of it, and of its upper 1 / 4,096 alone."""
    shape = 1.0 / _DISPERSION
    count = np.arange(int(12 * mean) + 64)
    cdf = np.exp(
        special.gammaln(count + shape)
        - special.gammaln(shape)
        - special.gammaln(count + 1)
        + shape * np.log(shape / (shape + mean))
        + count * np.log(mean / (shape + mean))
    ).cumsum()
    share = (np.arange(1 << _BITS) + 0.5) / (1 << _BITS)
    upper = 1.0 - (1.0 - share) / (1 << _BITS)
    return np.searchsorted(cdf, [share, upper]).clip(0, _MOST).astype(np.uint16)


def _draw(model: _Model, rows: slice, rng: np.random.Generator) -> np.ndarray:
    """Counts of some cells, cells x genes, uint16.

    Looked up by twelve random bits, which costs a tenth of a gamma and a Poisson draw. Twelve more
    tell the uppermost quantiles apart: rare genes are expressed nowhere else.
    """
    level = model.levels[model.codes[rows]]
    level += model.library[rows, None]
    bits = rng.integers(0, 1 << 16, level.shape, dtype=np.uint16)
    bits &= _UPPERMOST
    place = level.astype(np.int64)
    place <<= _BITS
    place |= bits
    whole, upper = model.tables.reshape(2, -1)
    counts = whole.take(place)
    rare = np.flatnonzero(bits == _UPPERMOST)
    again = place.reshape(-1)[rare] & ~np.int64(_UPPERMOST)
    again |= rng.integers(0, 1 << _BITS, len(rare))
    counts.reshape(-1)[rare] = upper.take(again)
    return counts


@dataclass
class Piece:
    """Some rows as drawn; as small as can be, for `simulate` keeps all of them until the end."""

    genes: np.ndarray
    counts: np.ndarray  # uint16
    row_entries: np.ndarray

    def log1p(self, out: np.ndarray | None = None) -> np.ndarray:
        """``log1p`` of the counts scaled to 10,000 a cell."""
        row = np.repeat(np.arange(len(self.row_entries)), self.row_entries)
        total = np.bincount(row, weights=self.counts, minlength=len(self.row_entries))
        scale = (_TARGET_SUM / np.maximum(total, 1.0)).astype(np.float32)
        return np.log1p(self.counts.astype(np.float32) * scale[row], out=out)


class Drawing:
    """Draws a screen block by block, each with a generator of its own: in any order, by any thread.

    Parameters
    ----------
    sizes : Sizes

    Attributes
    ----------
    rows : list of slice
        Of the blocks.
    codes, names, genes : numpy.ndarray
        As in `Screen`.
    """

    def __init__(self, sizes: Sizes) -> None:
        self._seed, self._model = sizes.seed, _model(sizes)
        self.rows = list(blocks_of(sizes))
        gene = np.arange(sizes.genes, dtype=np.uint16 if sizes.genes <= _MOST else np.int32)
        self._gene_of = np.tile(gene, max(r.stop - r.start for r in self.rows))
        self.codes = self._model.codes
        self.genes = object_array(f"GENE{i:05d}" for i in range(sizes.genes))
        self.names = object_array([REFERENCE, *self.genes[self._model.own]])

    def counts(self, block: int) -> np.ndarray:
        """Counts of one block, cells x genes."""
        rng = np.random.Generator(np.random.SFC64([self._seed, block]))
        return _draw(self._model, self.rows[block], rng)

    def piece(self, block: int) -> tuple[Piece, np.ndarray]:
        """One block without its zeros, and its entries a gene."""
        counts = self.counts(block)
        expressed = counts != 0
        places = np.flatnonzero(expressed)
        piece = Piece(
            self._gene_of.take(places), counts.reshape(-1).take(places), expressed.sum(axis=1)
        )
        return piece, expressed.sum(axis=0)


def simulate(sizes: Sizes, n_threads: int | None = None) -> Screen:
    """Simulate a screen: negative binomial counts with known effects, and their log1p.

    Each block of rows has a generator of its own, so that the matrix does not depend on the number
    of threads.

    Parameters
    ----------
    sizes : Sizes
    n_threads : int, optional
        All processors by default.
    """
    drawing = Drawing(sizes)
    rows = drawing.rows
    with ThreadPoolExecutor(n_threads or cpu_count()) as pool:
        pieces: list[Piece | None] = []
        entries = np.zeros(sizes.genes, np.int64)
        for piece, of_gene in pool.map(drawing.piece, range(len(rows))):
            pieces.append(piece)
            entries += of_gene
        indptr = np.zeros(sizes.cells + 1, np.int64)
        np.cumsum(np.concatenate([p.row_entries for p in pieces if p]), out=indptr[1:])
        nnz = int(indptr[-1])
        log1p, counts = (np.empty(nnz, np.float32) for _ in range(2))
        indices = np.empty(nnz, np.int32)

        def place(k: int) -> None:
            piece, pieces[k] = pieces[k], None
            assert piece is not None
            to = slice(int(indptr[rows[k].start]), int(indptr[rows[k].stop]))
            indices[to] = piece.genes
            counts[to] = piece.counts
            piece.log1p(out=log1p[to])

        list(pool.map(place, range(len(rows))))
    return Screen(
        sizes, log1p, counts, indices, indptr, drawing.codes, drawing.names, drawing.genes, entries
    )
