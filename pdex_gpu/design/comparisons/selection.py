"""The labels in the group column, and what the caller selects of them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ...errors import LabelError, OptionError, UnknownGroupWarning, listing, unknown_label, warn
from ...utils.checks import check_label, labels_of
from ..label_match import match_label


@dataclass(frozen=True)
class Selection:
    """The labels in the group column, and the options that select groups among them.

    Attributes
    ----------
    sizes : mapping
        Number of cells of each label that has any, sorted by label.
    column : str
        Name of the column, for messages.
    reference, groups, pairs : object
        The options of the call, as given.
    pools : mapping or None
        Given if groups may overlap and are compared with pools: the label of each group's pool.
    """

    sizes: Mapping[Any, int]
    column: str
    reference: object = None
    groups: Iterable[object] | None = None
    pairs: Any = None
    pools: Mapping[Any, str] | None = None

    @cached_property
    def _known(self) -> tuple[set[Any], dict[str, Any]]:
        return set(self.sizes), {str(label): label for label in self.sizes}

    def match(self, label: object) -> Any:
        """Return the label as it stands in the column, or itself if there is none such."""
        return match_label(label, *self._known)

    def references(self) -> list[Any]:
        """Return the labels of `reference`, one or several, as they stand in the column.

        Raises
        ------
        LabelError
            One of them does not exist.
        OptionError
            There is none, or one of them cannot be a label.
        """
        found = [self.match(label) for label in reference_labels(self.reference)]
        for label in found:
            if label is None or label not in self.sizes:
                asked = "None" if label is None else label
                what = f"reference in column {self.column!r}:"
                raise LabelError(unknown_label(what, asked, self.sizes, control=True))
        if not found:
            raise OptionError("reference=[] names no group. Pass the label of the reference.")
        return list(dict.fromkeys(found))

    def targets(self, excluded: Collection[Any] = ()) -> list[Any]:
        """Return the labels of `groups`, by default all, except the excluded ones.

        Labels that do not exist are left out with a warning.

        Raises
        ------
        LabelError
            None is left, and one of `groups` does not exist.
        """
        asked = labels_of("groups", self.groups)
        if asked is None:
            return [label for label in self.sizes if label not in excluded]
        matched = [self.match(label) for label in asked]
        absent = [label for label in matched if label not in self.sizes]
        targets = [
            label
            for label in dict.fromkeys(matched)
            if label in self.sizes and label not in excluded
        ]
        if absent and not targets:
            what = f"group in column {self.column!r}:"
            raise LabelError(unknown_label(what, absent[0], self.sizes, control=False))
        if absent:
            warn(
                f"Groups not found in column {self.column!r}, left out: {listing(absent)}.",
                UnknownGroupWarning,
            )
        return targets

    def no_target(self, compared_with: str) -> LabelError:
        """Make the error for a selection that leaves no target."""
        return LabelError(
            f"No target group is left to compare with {compared_with} in column "
            f"{self.column!r}: found {listing(self.sizes)}. Pass other groups or another "
            "reference."
        )


def reference_labels(reference: object) -> list[Any]:
    """List the labels, one or several, that a caller gave as the reference.

    Raises
    ------
    OptionError
        One of them cannot be a label, such as a list.
    """
    import numpy as np

    scalar = isinstance(reference, np.ndarray) and reference.ndim == 0
    if not scalar and isinstance(reference, list | tuple | set | frozenset | np.ndarray):
        return labels_of("reference", reference) or []
    check_label("reference", reference)
    return [reference]
