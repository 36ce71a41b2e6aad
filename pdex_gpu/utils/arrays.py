"""Result arrays that hold NaN until they are written."""

from __future__ import annotations

import numpy as np

from .parallel import Map

_BYTES_PER_TASK = 4 << 20


def nan_filled(shape: tuple[int, int], parallel_map: Map = map) -> np.ndarray:
    """Return a float64 array of NaN, filled in parallel: first touching memory is slow."""
    array = np.empty(shape)
    step = max(1, _BYTES_PER_TASK // max(1, 8 * shape[1]))
    for _ in parallel_map(lambda i: array[i : i + step].fill(np.nan), range(0, shape[0], step)):
        pass
    return array
