"""Matching of the labels that a caller gives to the labels that stand in a column."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any


def sorted_labels(labels: Iterable[Any]) -> list[Any]:
    """Sort labels; if their types cannot be compared, by their text."""
    found = list(labels)
    try:
        return sorted(found)
    except TypeError:  # labels of mixed types
        return sorted(found, key=str)


def match_label(label: object, known: set[Any], by_text: dict[str, Any]) -> object:
    """Return the label as it stands in the column: ``"3"`` finds the integer 3, as in a shell.

    It also finds the number 3.0: columns in which a value is missing store integers as floats.
    Bytes find the text that they encode. A value equal to a label but of another type, as True and
    1.0 are equal to 1, gives the column's own label.
    """
    label = label.decode("utf-8", "replace") if isinstance(label, bytes) else label
    own = by_text.get(str(label))
    if label in known:
        return own if own == label else next(one for one in known if one == label)
    if own is not None:
        return own
    try:
        found = by_text.get(str(float(str(label))))
    except ValueError:
        return label
    return found if isinstance(found, float) else label
