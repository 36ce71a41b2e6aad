"""Recognition of objects of other packages, without importing these."""

from __future__ import annotations

import sys
from typing import Any


def is_backed(adata: Any) -> bool:
    """Return whether `adata` is an AnnData whose X stays in a file."""
    return bool(getattr(adata, "isbacked", False))


def is_dask(matrix: Any) -> bool:
    """Return whether this is a dask array, without importing dask."""
    module = sys.modules.get("dask.array")
    return module is not None and isinstance(matrix, module.Array)
