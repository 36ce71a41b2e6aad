"""Each group against the rest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .pool import PoolComparison

if TYPE_CHECKING:
    import numpy as np


class Rest(PoolComparison):
    """Compare each group with all other cells that have a label; with guides, all other cells."""

    name = "rest"
    title = "all other cells that have a label (one-vs-rest)"
    row_name = "rest"
    pool_text = "the rest"

    def guide_pool(
        self, guides: Mapping[str, np.ndarray], n_cells: int, reference: object
    ) -> np.ndarray:
        import numpy as np

        return np.arange(n_cells)
