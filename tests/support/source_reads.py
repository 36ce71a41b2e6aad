"""A small matrix, and how tests of sources read it back, range by range."""

import numpy as np

from pdex_gpu.sources.base import CscChunk, CsrChunk, DenseChunk

DTYPES = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
N_CELLS, N_GENES = 23, 11
EDGES = [
    [0, N_GENES],
    [0, 1, N_GENES],
    [0, N_GENES - 1, N_GENES],
    [0, 4, 7, N_GENES],
    list(range(N_GENES + 1)),
]


def example(dtype="f4"):
    """A matrix with an empty cell, an empty gene, and a full cell."""
    rng = np.random.default_rng(1)
    values = rng.integers(-3, 4, (N_CELLS, N_GENES)).clip(0 if dtype[0] in "?u" else -3)
    values[rng.random(values.shape) < 0.6] = 0
    values[5], values[7, :] = 0, 1
    values[:, 3] = 0
    return values.astype(dtype)


def dense_of(chunk, n_cells):
    """The values of a chunk as a dense matrix; entries must lie in the chunk, once each."""
    if isinstance(chunk, DenseChunk):
        return chunk.values
    out = np.zeros((n_cells, chunk.n_genes), chunk.data.dtype)
    seen = np.zeros(out.shape, bool)
    if isinstance(chunk, CsrChunk):
        assert chunk.starts.dtype == chunk.stops.dtype == np.int64
        pieces = list(zip(chunk.starts, chunk.stops, strict=True))
        assert len(pieces) == n_cells
    else:
        assert isinstance(chunk, CscChunk)
        assert chunk.indptr.dtype == np.int64
        assert chunk.n_cells == n_cells
        pieces = list(zip(chunk.indptr[:-1], chunk.indptr[1:], strict=True))
    for line, (start, stop) in enumerate(pieces):
        for at in range(start, stop):
            index = int(chunk.indices[at])
            where = (
                (line, index - chunk.gene_start) if isinstance(chunk, CsrChunk) else (index, line)
            )
            assert 0 <= where[1] < chunk.n_genes
            assert not seen[where]
            seen[where] = True
            out[where] = chunk.data[at]
    return out


def read_back(source, edges, budget=1 << 30):
    """The whole matrix, read range by range; the ranges must be those asked for."""
    parts = []
    with source.open(edges, budget) as reader:
        for k in range(len(edges) - 1):
            chunk = reader.read(k)
            assert (chunk.gene_start, chunk.n_genes) == (edges[k], edges[k + 1] - edges[k])
            parts.append(dense_of(chunk, source.n_cells))
    return np.hstack(parts)
