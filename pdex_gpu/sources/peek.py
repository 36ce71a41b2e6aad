"""A look at the first values of a matrix, before it is read."""

from __future__ import annotations

import numpy as np

from ..errors import OptionError
from ..utils.resources import memory_budget
from .base import CscChunk, CsrChunk, Source
from .views.view import repeat


def leading_values(source: Source, n_rows: int) -> np.ndarray:
    """Return the values of the first rows (stored ones if sparse), in an array of any shape."""
    if source.on_device:
        raise OptionError(
            "The matrix is on a CUDA device, but is_log1p can only be detected in host memory. "
            "Pass is_log1p=True or False, or use pdex_gpu.differential_expression."
        )
    if n_rows < source.n_cells:
        source = repeat(source, np.arange(n_rows))
    with source.open([0, source.n_genes], memory_budget(None)) as reader:
        chunk = reader.read(0)
        if isinstance(chunk, CsrChunk):  # rows are contiguous and complete
            return chunk.data[chunk.starts[0] : chunk.stops[-1]]
        if isinstance(chunk, CscChunk):
            return chunk.data[chunk.indptr[0] : chunk.indptr[-1]]
        return chunk.values
