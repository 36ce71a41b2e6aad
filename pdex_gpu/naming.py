"""Several labels in one text, so that no two lists of labels share one."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

#: Names and levels of the columns that comparisons are made within: of one column its name and
#: its levels, shape (n_comparisons,); of several columns a tuple of names, and tuples of levels.
Within = tuple[str | tuple[str, ...], np.ndarray]


def joined(labels: Iterable[object], sep: str) -> str:
    """The labels in one text; those that could be read otherwise are quoted.

    Parameters
    ----------
    labels : iterable, at least one
    sep : str
        What stands between two labels, such as ``" + "``.

    Returns
    -------
    str
        A text that no other list of labels gives, unless these have the same texts.
    """
    mark = sep.strip() or sep

    def part(label: object) -> str:
        text = str(label)
        plain = mark not in text and text == text.strip() and text[:1] not in ("'", '"')
        return text if plain else quoted(label)

    return sep.join(map(part, labels))


def quoted(label: object) -> str:
    """The text of a label in quotes, with those inside it escaped."""
    return repr(str(label))


def pool_name(labels: Sequence[object], others: Collection[object]) -> object:
    """What to call groups that are pooled: one is itself, several are joined by ``" + "``.

    The name is that of no single group: where one of `others` has it, it is quoted.
    """
    if len(labels) == 1:
        return labels[0]
    name = joined(labels, " + ")
    if name in set(map(str, others)):
        name = " + ".join(map(quoted, labels))
    return unlike(name, others)


def unlike(name: str, others: Iterable[object]) -> str:
    """The name, quoted until none of `others` has it."""
    taken = set(map(str, others))
    while name in taken:
        name = quoted(name)
    return name


def level_columns(within: Within | None) -> dict[str, np.ndarray]:
    """The levels of every comparison, column by column, each of shape (n_comparisons,)."""
    if within is None:
        return {}
    names, levels = within
    if isinstance(names, str):
        return {names: levels}
    return {
        name: np.fromiter((level[k] for level in levels), dtype=object, count=len(levels))
        for k, name in enumerate(names)
    }


def made_within(levels: Mapping[str, np.ndarray]) -> Within | None:
    """The opposite of :func:`level_columns`."""
    if len(levels) < 2:
        return next(iter(levels.items()), None)
    tuples = zip(*levels.values(), strict=True)
    return tuple(levels), np.fromiter(tuples, dtype=object)


def level_text(level: object) -> str:
    """A level as text; those of several columns joined by ``", "``."""
    return joined(level, ", ") if isinstance(level, tuple) else str(level)


def of_one_type(labels: Iterable[object]) -> list[Any]:
    """The labels for a column that holds one type: as they are, or all as text if types differ."""
    found = list(labels)
    return found if len(set(map(type, found))) < 2 else list(map(str, found))
