"""Pairs of groups that the caller lists."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ...errors import LabelError, OptionError, listing, shown, unknown_label
from ...utils.checks import check_label, listed
from ...utils.keywords import known_keywords_of_init
from .base import PAIRS_TOGETHER, Comparison
from .label_contrasts import LabelContrasts
from .selection import Selection


@known_keywords_of_init
class Pairs(Comparison):
    """Compare each target with the reference that a table names for it.

    Parameters
    ----------
    pairs : table or sequence of pairs, optional
        Columns target and reference, or rows of (target, reference); by default the option
        `pairs` of the call.
    """

    name = "pairs"
    title = "what the table says (columns `target` and `reference`), or a list of pairs"

    def __init__(self, pairs: Any = None) -> None:
        self.pairs = pairs

    def check(self, *, groups: object, pairs: object) -> None:
        if (self.pairs is None) == (pairs is None):
            raise OptionError(PAIRS_TOGETHER)
        if groups is not None:
            raise OptionError("groups= and pairs= both select the comparisons. Pass only one.")

    def contrasts(self, selection: Selection) -> LabelContrasts:
        asked = selection.pairs if self.pairs is None else self.pairs
        found = [_matched(selection, *pair) for pair in _rows(asked)]
        if not found:
            raise OptionError("pairs= is empty. Pass rows of (target, reference).")
        return LabelContrasts.of_pairs(list(dict.fromkeys(found)))

    def without_labels(self) -> Pairs:
        return _PairsElsewhere()

    @classmethod
    def examples(cls) -> Sequence[tuple[str, str]]:
        return [(f'comparison="{cls.name}", pairs=table', cls.title)]


class _PairsElsewhere(Pairs):
    """Pairs whose table stays with the process that makes the contrasts."""

    def check(self, *, groups: object, pairs: object) -> None:
        pass


def _matched(selection: Selection, target: Any, reference: Any) -> tuple[Any, Any]:
    """Return the labels of a pair as they stand in the column."""
    labels = selection.match(target), selection.match(reference)
    for role, label in zip(("target", "reference"), labels, strict=True):
        if label not in selection.sizes:
            what = f"group in column {selection.column!r}:"
            raise LabelError(
                f"The pair ({target!r}, {reference!r}) names a {role} that is no group: "
                + unknown_label(what, label, selection.sizes, control=False)
            )
    if labels[0] == labels[1]:
        raise LabelError(
            f"The pair ({target!r}, {reference!r}) compares a group with itself. Remove it, or "
            "name another reference."
        )
    return labels


def _rows(pairs: Any) -> Iterator[tuple[Any, Any]]:
    """Yield (target, reference) pairs from a frame with these columns or a sequence of pairs."""
    columns = getattr(pairs, "columns", None)
    if columns is not None:
        lacking = [name for name in ("target", "reference") if name not in list(columns)]
        if lacking:
            raise OptionError(
                f"pairs= has no column {lacking[0]!r}: it needs target and reference, but has "
                f"{listing(columns)}. Rename the columns."
            )
        rows = [*zip(*(_one_column(pairs, name) for name in ("target", "reference")), strict=True)]
    else:
        try:
            # `listed` refuses text: its letters are not labels.
            rows = [tuple(listed(row)) for row in listed(pairs)]
            if any(len(row) != 2 for row in rows):
                raise TypeError("a row does not have two labels")
            for label in (label for row in rows for label in row):
                check_label("pairs", label)
        except (TypeError, OptionError) as error:
            raise OptionError(
                f"pairs={shown(pairs)} must be rows of (target, reference): a list of pairs, or a "
                "table with these two columns."
            ) from error
    yield from rows


def _one_column(table: Any, name: str) -> list[Any]:
    column = table[name]
    if getattr(column, "ndim", 1) != 1:
        raise OptionError(f"pairs= has several columns named {name!r}. Rename all but one.")
    for label in column:
        check_label("pairs", label)
    return list(column)
