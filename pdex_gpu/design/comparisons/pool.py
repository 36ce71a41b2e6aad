"""The common part of comparisons with a pool of all other cells."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from ..naming import unlike
from .base import Comparison
from .label_contrasts import LabelContrasts
from .selection import Selection

if TYPE_CHECKING:
    import numpy as np


class PoolComparison(Comparison):
    """Compare each group with all other cells of a pool.

    Attributes
    ----------
    row_name : str
        Name of the reference in the rows of the result.
    pool_text : str
        The pool without a group's own cells, for messages.
    """

    row_name: ClassVar[str]
    pool_text: ClassVar[str]

    def left_out(self, selection: Selection) -> list[Any]:
        """Return the labels that are neither targets nor in the pool."""
        return []

    def contrasts(self, selection: Selection) -> LabelContrasts:
        left_out = set(self.left_out(selection))
        targets = selection.targets(left_out)
        others = [label for label in selection.sizes if label not in left_out]
        # Among overlapping groups, the only one may still differ from its pool.
        if not targets or (selection.pools is None and len(others) < 2):
            raise selection.no_target(self.pool_text)
        name = unlike(self.row_name, selection.sizes)
        if selection.pools is None:
            return LabelContrasts.of_rest(targets, others, name)
        return LabelContrasts.of_complements(targets, selection.pools, name)

    @abstractmethod
    def guide_pool(
        self, guides: Mapping[str, np.ndarray], n_cells: int, reference: object
    ) -> np.ndarray:
        """Return the cells of the pool; the base class says more."""
