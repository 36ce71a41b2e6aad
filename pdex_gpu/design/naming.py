"""Several labels joined into one text, distinct for distinct lists of labels."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np

# numpy is imported where it is needed: the command line lists comparisons without it.

#: Names and levels of the columns that comparisons are made within: for one column its name and
#: its levels, shape (n_comparisons,); for several columns a tuple of names, and tuples of levels.
Within: TypeAlias = "tuple[str | tuple[str, ...], np.ndarray]"


def joined(labels: Iterable[object], sep: str) -> str:
    """Join the labels into one text; ambiguous labels are quoted.

    Parameters
    ----------
    labels : iterable, at least one
    sep : str
        Separator between two labels, such as ``" + "``.

    Returns
    -------
    str
        A text that no other list of labels gives, unless its labels have the same texts.
    """
    mark = sep.strip() or sep

    def part(label: object) -> str:
        text = str(label)
        plain = mark not in text and text == text.strip() and text[:1] not in ("'", '"')
        return text if plain else quoted(label)

    return sep.join(map(part, labels))


def quoted(label: object) -> str:
    """Return the text of a label in quotes, with quotes inside it escaped."""
    return repr(str(label))


def pool_name(labels: Sequence[object], others: Collection[object]) -> object:
    """Name a pool of groups: one label stays itself, several are joined by ``" + "``.

    No single group has that name: if one of `others` does, the labels are quoted.
    """
    if len(labels) == 1:
        return labels[0]
    name = joined(labels, " + ")
    if name in set(map(str, others)):
        name = " + ".join(map(quoted, labels))
    return unlike(name, others)


def unlike(name: str, others: Iterable[object]) -> str:
    """Return the name, quoted until none of `others` has it."""
    taken = set(map(str, others))
    while name in taken:
        name = quoted(name)
    return name


def level_columns(within: Within | None) -> dict[str, np.ndarray]:
    """Return the levels of all comparisons by column, each of shape (n_comparisons,)."""
    import numpy as np

    if within is None:
        return {}
    names, levels = within
    if isinstance(names, str):
        return {names: levels}
    return {
        name: np.fromiter((level[k] for level in levels), dtype=object, count=len(levels))
        for k, name in enumerate(names)
    }


def combined_levels(levels: Mapping[str, np.ndarray]) -> Within | None:
    """Combine levels by column into one value: the inverse of :func:`level_columns`."""
    import numpy as np

    if len(levels) < 2:
        return next(iter(levels.items()), None)
    tuples = zip(*levels.values(), strict=True)
    return tuple(levels), np.fromiter(tuples, dtype=object)


def level_text(level: object) -> str:
    """Return a level as text; levels of several columns are joined by ``", "``."""
    return joined(level, ", ") if isinstance(level, tuple) else str(level)


def of_one_type(labels: Iterable[object]) -> list[Any]:
    """Return labels for a column of one type: unchanged, or all as text if their types differ."""
    found = list(labels)
    return found if len(set(map(type, found))) < 2 else list(map(str, found))
