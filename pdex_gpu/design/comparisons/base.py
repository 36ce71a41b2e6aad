"""The base class of comparisons: how one describes itself, and what it must define."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import OptionError
from .label_contrasts import LabelContrasts
from .selection import Selection

if TYPE_CHECKING:
    import numpy as np

PAIRS_TOGETHER = (
    "pairs= is only valid with comparison='pairs', which requires it. Pass both or neither."
)


class Comparison(ABC):
    """The cells that each group is compared with.

    Attributes
    ----------
    name : str
        Value of ``comparison=``.
    title : str
        The cells that a group is compared with, in words: ``"all other cells that have a label"``.
    one_reference : bool
        Whether all rows are compared with the same cells, those of ``reference=``. Such a
        comparison can be calibrated, and a report says that its rows depend on each other.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    one_reference: ClassVar[bool] = False

    @abstractmethod
    def contrasts(self, selection: Selection) -> LabelContrasts:
        """Return the rows of the result and the groups that they compare.

        Raises
        ------
        LabelError
            If a label does not exist, or no target is left.
        OptionError
            If an option makes no sense for these labels.
        """

    def check(self, *, groups: object, pairs: object) -> None:
        """Raise OptionError for options that do not go with this comparison; no data are read."""
        if pairs is not None:
            raise OptionError(PAIRS_TOGETHER)

    def guide_pool(
        self, guides: Mapping[str, np.ndarray], n_cells: int, reference: object
    ) -> np.ndarray | None:
        """Return the cells of the pool that guides are compared with, ascending.

        Groups overlap if cells carry several guides. A comparison with a pool then gets the pool
        of each group in `Selection.pools`. By default there is no pool: a cell counts
        once for each group that it is in.

        Parameters
        ----------
        guides : mapping
            Cells that carry each guide, ascending.
        n_cells : int
        reference : object
            The option of the call.
        """
        return None

    def without_labels(self) -> Comparison:
        """Return this without what only :meth:`contrasts` needs, to send it to many workers."""
        return self

    @classmethod
    def examples(cls) -> Sequence[tuple[str, str]]:
        """Return arguments that ask for this, with what groups are then compared with.

        The documentation shows them in a table.
        """
        return [(f'comparison="{cls.name}"', cls.title)]


def joined_labels(labels: Sequence[Any]) -> str:
    """Name several references in a message."""
    return " + ".join(repr(str(label)) for label in labels)
