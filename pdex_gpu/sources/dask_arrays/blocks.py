"""The blocks of a dask array, computed on request and converted to CSR matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...errors import DataError, UnsupportedDataError
from ...utils.digest import digest
from ..checks import check_indices, check_indptr, check_two_dimensional, native_dtype
from ..order import in_order
from ..whole_numbers import for_scipy

_SAMPLED = 8  # one in 8 lines of blocks is computed to estimate what all of them hold,
_MOST_SAMPLED = 4  # but at most 4 lines


class DaskBlocks:
    """A grid of blocks, each a numpy array or a scipy sparse matrix.

    Parameters
    ----------
    array : dask.array.Array
        Cells x genes.
    what : str
        Name of the matrix in messages.

    Raises
    ------
    DataError
        Its chunk sizes are not known.
    UnsupportedDataError
        Its values are not real numbers.
    """

    def __init__(self, array: Any, what: str) -> None:
        check_two_dimensional(array.shape, what)
        sizes = np.array([n for along in array.chunks for n in along], np.float64)
        if np.isnan(sizes).any():
            raise DataError(
                f"{what} is a dask array whose chunk sizes are unknown. Call compute_chunk_sizes() "
                "on it first."
            )
        self.array, self.what = array, what
        self.dtype = native_dtype(array.dtype, what)
        self.n_cells, self.n_genes = (int(n) for n in array.shape)
        self.row_edges, self.column_edges = (
            np.concatenate([[0], np.cumsum(along)]).astype(np.int64) for along in array.chunks
        )
        self.n_bytes = self.n_cells * self.n_genes * self.dtype.itemsize

    def part(self, rows: slice, columns: slice) -> tuple[BlockPart, list[Any]]:
        """Return the layout and the delayed values of the blocks covering `rows` and `columns`."""
        i, j = _covering(self.row_edges, rows), _covering(self.column_edges, columns)
        part = BlockPart(
            self.what,
            self.dtype,
            str(self.array.dtype),
            (i.start, j.start),
            int(self.column_edges[j.start]),
            np.diff(self.row_edges[i.start : i.stop + 1]),
            np.diff(self.column_edges[j.start : j.stop + 1]),
        )
        return part, list(self.array.blocks[i, j].to_delayed().ravel())

    def compute(self, rows: slice, columns: slice) -> Any:
        """Compute the blocks covering `rows` and `columns`: one CSR matrix with sorted indices.

        The calling thread computes them, unless a dask scheduler was chosen elsewhere.
        """
        import dask

        part, blocks = self.part(rows, columns)
        return part.join(dask.compute(*blocks, scheduler=_scheduler(), traverse=False))

    def sample(self, axis: int) -> tuple[np.ndarray, str]:
        """Compute a sample of the lines of blocks, which are rows (`axis` 0) or columns (1).

        Returns
        -------
        entries : numpy.ndarray, shape (n_genes,), float64
            Estimated entries per gene.
        values : str
            Digests of the computed values.
        """
        edges = (self.row_edges, self.column_edges)[axis]
        filled = np.flatnonzero(np.diff(edges))
        if len(filled) == 0:
            return np.zeros(self.n_genes), ""
        n = max(1, min(_MOST_SAMPLED, len(filled) // _SAMPLED))
        some = filled[((np.arange(n) + 0.5) * len(filled) / n).astype(np.int64)]
        entries = np.zeros(self.n_genes)
        parts = [slice(int(edges[line]), int(edges[line + 1])) for line in some.tolist()]
        seen, hashes = 0, []
        for part, (counts, found) in zip(parts, self._statistics(parts, axis), strict=True):
            hashes.append(found)
            if axis == 0:
                entries += counts
                seen += part.stop - part.start
            else:
                entries[part] = counts
                seen = max(seen, int(-(-counts.sum() // len(counts))))
        if axis == 0:
            return entries * (self.n_cells / max(1, seen)), " ".join(hashes)
        unknown = np.ones(self.n_genes, bool)
        for line in some.tolist():
            unknown[edges[line] : edges[line + 1]] = False
        entries[unknown] = seen  # as in the fullest of the sampled blocks
        return entries, " ".join(hashes)

    def _statistics(self, parts: list[slice], axis: int) -> list[tuple[np.ndarray, str]]:
        """Return entries per gene and a digest for each line; blocks stay where dask has them."""
        import dask

        every = slice(0, self.n_genes if axis == 0 else self.n_cells)
        measured = dask.delayed(_measure, traverse=False)
        lines = []
        for along in parts:
            part, blocks = self.part(along, every) if axis == 0 else self.part(every, along)
            lines.append(measured(part, *blocks))
        return list(dask.compute(*lines, scheduler=_scheduler(), traverse=False))


@dataclass(frozen=True)
class BlockPart:
    """The layout of some neighbouring blocks of a dask array, without their values.

    Attributes
    ----------
    what : str
        Name of the matrix in messages.
    dtype : numpy.dtype
        Dtype of the values in the joined matrix.
    stated : str
        The dtype that the dask array declares.
    first : (int, int)
        Number of the first block along each axis.
    start : int
        The first column.
    heights, widths : numpy.ndarray
        Heights of the rows of blocks, widths of the columns of blocks.
    """

    what: str
    dtype: np.dtype
    stated: str
    first: tuple[int, int]
    start: int
    heights: np.ndarray
    widths: np.ndarray

    def join(self, blocks: Sequence[Any]) -> Any:
        """Join the blocks, given line by line, into one CSR matrix with sorted indices.

        Raises
        ------
        DataError, UnsupportedDataError
            A block differs from what the dask array declares, or is of an unsupported kind.
        """
        from scipy import sparse

        n = len(self.widths)
        joined = []
        for a in range(len(self.heights)):
            line = [self._as_csr(blocks[a * n + b], a, b) for b in range(n)]
            joined.append(line[0] if n == 1 else sparse.hstack(line, "csr"))
        return joined[0] if len(joined) == 1 else sparse.vstack(joined, "csr")

    def _as_csr(self, block: Any, a: int, b: int) -> Any:
        from scipy import sparse

        where = f"block ({self.first[0] + a}, {self.first[1] + b}) of {self.what}"
        if type(block).__module__.partition(".")[0] in ("cupy", "cupyx"):
            block = block.get()  # to the host, where rows are split
        kind = type(block)
        is_sparse = sparse.issparse(block)
        if not is_sparse and (kind not in (np.ndarray, np.matrix)):
            raise UnsupportedDataError(
                f"{where}, a dask array, is a {kind.__module__}.{kind.__qualname__}. Supported: "
                "numpy arrays, scipy sparse matrices or arrays, and their cupy and cupyx "
                "counterparts. Convert it with map_blocks."
            )
        shape = int(self.heights[a]), int(self.widths[b])
        if block.shape != shape:
            raise DataError(
                f"{where} has shape {block.shape}, but the chunks of the dask array declare "
                f"{shape}. Call compute_chunk_sizes() on it."
            )
        if not np.can_cast(block.dtype, self.dtype, "safe"):
            raise DataError(
                f"{where} has dtype {block.dtype}, but the dask array declares {self.stated}. "
                "Convert the array to one dtype with astype."
            )
        if not is_sparse:
            return sparse.csr_matrix(np.asarray(block).astype(self.dtype, copy=False))
        if block.format in ("csr", "csc"):
            block = for_scipy(block, where)
            major, limit = ("row", shape[1]) if block.format == "csr" else ("column", shape[0])
            n_major = len(block.indptr) - 1
            n_stored = min(len(block.data), len(block.indices))
            check_indptr(block.indptr, n_major, n_stored, where)
            check_indices(block.indices[: block.indptr[-1]], block.indptr, limit, where, major)
        matrix = sparse.csr_matrix(block.tocsr().astype(self.dtype, copy=False))
        if not matrix.has_canonical_format:
            matrix = matrix.copy()  # dask may keep the block
            parts = in_order(matrix.data, matrix.indices, matrix.indptr.astype(np.int64))
            matrix = sparse.csr_matrix(parts, shape=shape)
        return matrix


def _measure(part: BlockPart, *blocks: Any) -> tuple[np.ndarray, str]:
    matrix = part.join(blocks)
    counts = np.bincount(matrix.indices, minlength=matrix.shape[1])
    return counts, digest(matrix.data, matrix.indices, matrix.indptr)


def _scheduler() -> Any:
    from dask.base import get_scheduler

    return get_scheduler() or "synchronous"


def _covering(edges: np.ndarray, part: slice) -> slice:
    """Return the numbers of the blocks that cover a part."""
    first = int(np.searchsorted(edges, part.start, side="right")) - 1
    last = int(np.searchsorted(edges, part.stop, side="left"))
    return slice(first, max(last, first + 1))
