"""Each group against each of several references."""

from __future__ import annotations

from collections.abc import Sequence

from ...errors import OptionError, shown
from .base import Comparison, joined_labels
from .label_contrasts import LabelContrasts
from .selection import Selection


class EachReference(Comparison):
    """Compare each group with each of several references, one row for each.

    References named in ``groups=`` are targets, too, and are compared with the other references.
    """

    name = "each_reference"
    title = "each of several references, with one row for each"

    def contrasts(self, selection: Selection) -> LabelContrasts:
        references = selection.references()
        if len(references) < 2:
            raise OptionError(
                f"comparison={self.name!r} needs several references, but reference="
                f"{shown(selection.reference)} is only one. Pass a list, or comparison='reference'."
            )
        targets = selection.targets(set(references) if selection.groups is None else ())
        if not targets:
            raise selection.no_target(joined_labels(references))
        pairs = [(t, reference) for t in targets for reference in references if t != reference]
        return LabelContrasts.of_pairs(pairs, references)

    @classmethod
    def examples(cls) -> Sequence[tuple[str, str]]:
        return [(f'comparison="{cls.name}", reference=["ctrl-1", "ctrl-2"]', cls.title)]
