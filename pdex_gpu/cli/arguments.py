"""Conversion of the options of a comparison to the library's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..errors import OptionError

_LOG1P = {"auto": None, "yes": True, "no": False}


def groups_of_cells(
    groupby: Sequence[str] | None, reference: Sequence[str] | None, groups: Sequence[str] | None
) -> dict[str, Any]:
    """Return `groupby`, `reference` and `groups`, those that were given.

    One value is text, several are a list. The library's defaults apply to those left out.
    """
    found: dict[str, Any] = {}
    for name, given in (("groupby", groupby), ("reference", reference)):
        if given:
            found[name] = given[0] if len(given) == 1 else list(given)
    if groups:
        found["groups"] = list(groups)
    return found


def need_groupby(groupby: Sequence[str] | None, *, otherwise: str = "") -> None:
    """Raise OptionError if ``--groupby`` was not given."""
    if not groupby:
        raise OptionError(
            f"Missing option --groupby. Pass the obs column that holds the groups{otherwise}."
        )


def is_log1p(text: str) -> bool | None:
    """Return the value of ``is_log1p=`` for a word of ``--is-log1p``."""
    return _LOG1P[text]
