"""Each group against the other perturbed cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ...errors import LabelError, unknown_label
from .pool import PoolComparison
from .selection import Selection, reference_labels

if TYPE_CHECKING:
    import numpy as np


class Perturbed(PoolComparison):
    """Compare each group with all other cells except those of the reference."""

    name = "perturbed"
    title = "all other perturbed cells, without those of the reference"
    row_name = "other perturbed"
    pool_text = "the other perturbed cells"

    def left_out(self, selection: Selection) -> list[Any]:
        return selection.references()

    def guide_pool(
        self, guides: Mapping[str, np.ndarray], n_cells: int, reference: object
    ) -> np.ndarray:
        import numpy as np

        controls = {str(label) for label in reference_labels(reference)}
        absent = sorted(controls - set(guides))
        if absent:
            sizes = {name: len(cells) for name, cells in guides.items()}
            what = "reference among the guides:"
            raise LabelError(unknown_label(what, absent[0], sizes, control=True))
        carried = [cells for name, cells in guides.items() if name not in controls]
        return np.unique(np.concatenate([np.empty(0, np.int64), *carried]))

    @classmethod
    def examples(cls) -> Sequence[tuple[str, str]]:
        return [(f'comparison="{cls.name}", reference="non-targeting"', cls.title)]
