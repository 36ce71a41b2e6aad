"""Labels with lone surrogates, which no file can hold: results hold escapes instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ..errors import LabelError, TextEncodingWarning, shown, warn
from .naming import Within

_LONE = re.compile("[\ud800-\udfff]")


def writable(label: Any) -> Any:
    r"""Return a label with lone surrogates replaced by their escapes, ``"TP53\udcff"``.

    Everything else stays as it is. In a tuple, each part is treated.
    """
    if isinstance(label, tuple):
        return tuple(map(writable, label))
    if not isinstance(label, str) or label.isascii() or not _LONE.search(label):
        return label
    return label.encode("utf-8", "backslashreplace").decode()


def writable_labels(labels: np.ndarray) -> np.ndarray:
    """Return the labels in writable form; the same array if they already are writable.

    Raises
    ------
    LabelError
        Two labels would be written as the same text.
    """
    if not _lone(labels):
        return labels
    found = np.full(len(labels), None)
    found[:] = _each_its_own(labels)
    return found


def writable_within(within: Within | None) -> Within | None:
    """Return names and levels in writable form."""
    if within is None:
        return None
    names, levels = within
    return writable(names), writable_labels(levels)


def warn_of_lone(what: str, labels: Iterable[object]) -> None:
    """Warn, before anything is computed, if labels will be written in another form.

    Parameters
    ----------
    what : str
        What is labelled: ``"genes"``.
    labels : iterable

    Raises
    ------
    LabelError
        Two of them would be written as the same text.
    """
    labels = list(labels)
    lone = _lone(labels)
    if not lone:
        return
    _each_its_own(labels)
    warn(
        f"Names of {what} hold lone surrogates, which are not characters: "
        f"{shown(lone[0])}{f' and {len(lone) - 1} more' if len(lone) > 1 else ''}. In results they "
        f"are written as escapes: {shown(writable(lone[0]))}. Rename them if you do not want that.",
        TextEncodingWarning,
    )


def _lone(labels: Sequence[object] | np.ndarray) -> list[Any]:
    """Return the distinct labels that hold a lone surrogate."""
    found: list[Any] = [label for label in labels if isinstance(label, str | tuple)]
    try:  # check all at once, as there is hardly ever a lone surrogate
        "".join(found).encode()
    except (TypeError, UnicodeEncodeError):  # there are tuples, or a lone surrogate
        return list(dict.fromkeys(label for label in found if writable(label) != label))
    return []


def _each_its_own(labels: Sequence[object] | np.ndarray) -> list[Any]:
    of_text: dict[Any, Any] = {}
    found = [writable(label) for label in labels]
    for label, text in zip(labels, found, strict=True):
        other = of_text.setdefault(text, label)
        if other != label:
            raise LabelError(
                f"The labels {shown(other)} and {shown(label)} would both be written as "
                f"{shown(text)}: lone surrogates are written as escapes. Rename one."
            )
    return found
