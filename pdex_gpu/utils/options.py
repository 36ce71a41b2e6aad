"""Groups of options: frozen dataclasses whose fields are the keywords of public calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import Field, field, fields
from typing import Any

_INTERNAL = "internal"


def internal(default: Any) -> Any:
    """Return a field that no keyword sets itself; a class as default is called for each group."""
    made = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**made, metadata={_INTERNAL: True})


def keywords(group: Any) -> Iterator[Field[Any]]:
    """Yield the fields of a group, or of its class, that are keywords of public calls."""
    return (one for one in fields(group) if _INTERNAL not in one.metadata)


def plain(value: Any) -> Any:
    """Convert an option's value to one that JSON accepts, the same for equal values.

    NumPy scalars become Python's, collections lists, and anything else its text.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item())
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)
