"""Compiled functions that stack columns."""

from __future__ import annotations

import numpy as np

from ...utils.jit import jit


@jit
def copy_columns(data, cells, bounds, places, at, first, limit, out_data, out_cells):
    """Copy each column ``[bounds[j], bounds[j + 1])`` behind ``at[places[j]]``, which moves on.

    Cells are counted from `first`. Returns whether all of them are in ``[0, limit)``.
    """
    fine = True
    for j in range(bounds.size - 1):
        to = at[places[j]]
        for e in range(bounds[j], bounds[j + 1]):
            cell = np.int64(cells[e])
            if cell < 0 or cell >= limit:
                fine = False
            out_data[to] = data[e]
            out_cells[to] = first + cell
            to += 1
        at[places[j]] = to
    return fine
