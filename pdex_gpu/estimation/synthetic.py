"""Made-up matrices and designs for measurements, of any size and density."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from ..design.contrasts import Design, group_cells
from ..sources.base import Chunk, CscChunk, CsrChunk, DenseChunk, Reading

_SEED = 1
_MEAN_COUNT = 1.0  # in addition to the first count
_LIBRARY_SIGMA = 0.35
_TARGET = 4.0


def made_entries(
    n_rows: int, n_columns: int, density: float, dtype: np.dtype, *, fractional: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Make the entries of a CSR matrix with equally dense columns.

    Parameters
    ----------
    n_rows, n_columns : int
    density : float
        Share of nonzeros.
    dtype : numpy.dtype
        Dtype of the values.
    fractional : bool
        Whether to scale counts to a common sum and take log1p, which leaves few distinct values per
        row. Has no effect unless `dtype` is a float. Otherwise values are counts.

    Returns
    -------
    data : numpy.ndarray, shape (nnz,), `dtype`
    indices : numpy.ndarray, shape (nnz,), int32
    indptr : numpy.ndarray, shape (n_rows + 1,), int64
    """
    rng = np.random.default_rng(_SEED)
    places = _places(rng, n_rows * n_columns, density)
    rows, indices = np.divmod(places, n_columns)
    lengths = np.bincount(rows, minlength=n_rows)
    data = (1 + rng.poisson(_MEAN_COUNT, len(indices))).astype(np.float32)
    if fractional and dtype.kind == "f":
        depth = _TARGET * rng.lognormal(0.0, _LIBRARY_SIGMA, n_rows).astype(np.float32)
        data = np.log1p(data * np.repeat(depth, lengths))
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return data.astype(dtype), indices.astype(np.int32), indptr


def _places(rng: np.random.Generator, n: int, density: float) -> np.ndarray:
    """Draw ascending numbers below `n`, each with probability `density`, by their gaps.

    The gaps are geometric: exponential ones, rounded down.
    """
    scale = 0.0 if density >= 1.0 else -1.0 / np.log1p(-density)
    parts, last = [], -1
    while last < n:
        wanted = (n - last) * density
        gaps = rng.standard_exponential(int(wanted + 4 * np.sqrt(wanted)) + 8)
        parts.append(last + np.cumsum((gaps * scale).astype(np.int64) + 1))
        last = int(parts[-1][-1])
    places = np.concatenate(parts)
    return places[: np.searchsorted(places, n)]


def made_chunk(
    form: str,
    n_cells: int,
    n_genes: int,
    density: float,
    dtype: np.dtype,
    *,
    fractional: bool,
    narrow: bool,
) -> tuple[Chunk, int]:
    """Make a range of genes, and return it with its number of nonzeros.

    See :func:`made_entries` for the other parameters.

    Parameters
    ----------
    form : {"csr", "csc", "dense"}
    narrow : bool
        Whether indices take 16 bits where they fit, like those read from a file.
    """
    by_row = form != "csc"
    shape = (n_cells, n_genes) if by_row else (n_genes, n_cells)
    data, indices, indptr = made_entries(*shape, density, dtype, fractional=fractional)
    if narrow and shape[1] <= 1 << 16:
        indices = indices.astype(np.uint16)
    if form == "csr":
        return CsrChunk(data, indices, indptr[:-1], indptr[1:], 0, n_genes), len(data)
    if form == "csc":
        return CscChunk(data, indices, indptr, n_cells, 0), len(data)
    values = np.zeros(shape, dtype)
    values[np.repeat(np.arange(n_cells), np.diff(indptr)), indices] = data
    return DenseChunk(values, 0), len(data)


def smaller_design(design: Design, n_cells: int) -> Design:
    """Return a design of about `n_cells` cells with the same groups, at least one cell in each."""
    share = min(1.0, n_cells / max(1, len(design.order)))
    sizes = np.maximum(1, np.floor(share * design.n_cells).astype(np.int64))
    taken = np.concatenate(
        [design.order[a : a + n] for a, n in zip(design.offsets[:-1], sizes, strict=True)]
    )
    codes = np.repeat(np.arange(design.n_groups), sizes)[np.argsort(taken, kind="stable")]
    order, offsets = group_cells(codes, design.n_groups)
    contrasts = tuple(replace(c, n_cells=sizes[c.groups]) for c in design.contrasts)
    return replace(design, order=order, offsets=offsets, codes=codes, contrasts=contrasts)


class MadeRows:
    """Rows in memory, returned block by block; see :class:`.base.RowBlocks`."""

    exact = True

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, n_genes: int
    ) -> None:
        self._data, self._indptr = data, indptr
        self.n_cells, self.n_genes, self.nnz = len(indptr) - 1, n_genes, len(data)
        self.dtype = data.dtype
        self.index_dtype = np.dtype(np.uint16 if n_genes <= 1 << 16 else np.int32)
        self._indices = indices.astype(self.index_dtype)
        self.bytes_per_entry = self.dtype.itemsize + self.index_dtype.itemsize
        self.counted: np.ndarray | None = None

    def cut(self, length: int) -> list[slice]:
        """See :meth:`.base.RowBlocks.cut`."""
        ends = np.arange(length, self.nnz + length, length)
        cuts = np.searchsorted(self._indptr, ends, side="right") - 1
        cuts = np.unique(np.concatenate([[0], cuts, [self.n_cells]]))
        return [slice(int(a), int(b)) for a, b in itertools.pairwise(cuts)]

    def block(self, rows: slice, reading: Reading) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """See :meth:`.base.RowBlocks.block`."""
        bounds = self._indptr[rows.start : rows.stop + 1]
        part = slice(int(bounds[0]), int(bounds[-1]))
        return self._data[part], self._indices[part], bounds - bounds[0]

    def check_unchanged(self) -> None:
        """See :meth:`.base.RowBlocks.check_unchanged`: arrays in memory do not change."""
