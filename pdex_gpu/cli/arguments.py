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


def test_options(
    *,
    alternative: str | None,
    method: str | None,
    no_continuity: bool,
    no_tie_correction: bool,
    variance: str | None,
    welch: bool,
    variant: str | None,
    p_values: str | None,
    nan_policy: str | None,
) -> dict[str, Any]:
    """Return the options of the test that were given."""
    if welch and variance not in (None, "welch"):
        raise OptionError(
            f"--welch and --variance {variance} contradict each other. Pass only one."
        )
    options: dict[str, Any] = {
        "alternative": alternative,
        "method": method,
        "continuity": False if no_continuity else None,
        "tie_correction": False if no_tie_correction else None,
        "variance": "welch" if welch else variance,
        "variant": variant,
        "p_values": p_values,
        "nan_policy": nan_policy,
    }
    return {name: value for name, value in options.items() if value is not None}
