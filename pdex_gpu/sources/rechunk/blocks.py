"""Numbers that all matrices that arrive in blocks of rows have in common."""

from __future__ import annotations

import numpy as np

# Factor on estimates of entries: a choice. Too high costs some width of ranges, too low a new plan.
MARGIN = 1.2


def index_dtype_for(n: int) -> np.dtype:
    """Return the dtype for indices below `n`: 16 bits where they fit.

    Half of a float32 matrix consists of indices.
    """
    return np.dtype(np.uint16 if n <= 1 << 16 else np.int32 if n < 1 << 31 else np.int64)
