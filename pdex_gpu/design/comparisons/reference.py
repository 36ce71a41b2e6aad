"""Each group against the reference."""

from __future__ import annotations

from collections.abc import Sequence

from ..naming import pool_name
from .base import Comparison, joined_labels
from .label_contrasts import LabelContrasts
from .selection import Selection


class Reference(Comparison):
    """Compare each group with the reference; several references are pooled."""

    name = "reference"
    title = "the reference"
    one_reference = True

    def contrasts(self, selection: Selection) -> LabelContrasts:
        references = selection.references()
        targets = selection.targets(set(references))
        if not targets:
            raise selection.no_target(joined_labels(references))
        name = pool_name(references, selection.sizes)
        return LabelContrasts.of_pooled_reference(targets, references, name)

    @classmethod
    def examples(cls) -> Sequence[tuple[str, str]]:
        return [
            ('reference="non-targeting"', "one reference group"),
            ('reference=["ctrl-1", "ctrl-2"]', "the pooled cells of several references"),
        ]
