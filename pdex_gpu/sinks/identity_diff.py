"""Comparison of two descriptions of a run, in words."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..errors import SHOWN_LETTERS, listing, shown

#: Prefix of values that only tell whether something is the same.
HASH = "sha256:"
_LONGEST = 80  # characters of a name


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return one line for each difference between two runs, with both values."""
    return [
        _line(name, earlier.get(name), now.get(name))
        for name in dict.fromkeys([*earlier, *now])
        if earlier.get(name) != now.get(name)
    ]


def _line(name: str, earlier: Any, now: Any) -> str:
    if not name.isprintable() or len(name) > _LONGEST:  # of unknown origin
        name = shown(name, _LONGEST)
    if _is_hash(earlier) and _is_hash(now) and "," not in name:
        return f"the {name} differ ({_short(earlier)} then, {_short(now)} now)"
    return f"{name}: {_short(earlier)} then, {_short(now)} now"


def _is_hash(value: Any) -> bool:
    bare = isinstance(value, str) and re.fullmatch("[0-9a-f]{32,}", value)
    return isinstance(value, str) and (value.startswith(HASH) or bool(bare))


def _short(value: Any) -> str:
    if _is_hash(value):
        return str(value).removeprefix(HASH)[:8]
    if isinstance(value, list):
        return listing(value, limit=5)
    if isinstance(value, dict):
        text = ", ".join(f"{name}={text}" for name, text in value.items()) or "none"
        return text if text.isprintable() and len(text) <= SHOWN_LETTERS else shown(text)
    return shown(value)
