"""What is read only if ``allow=`` names it: values that are not in the file that was given."""

from __future__ import annotations

from ..checks import check_choice, kind
from ..errors import FileFormatError, OptionError, shown

#: external: files elsewhere that the file refers to; unwritten: fill values for what is not there.
NAMES = ("external", "unwritten")

Allowed = frozenset[str]


def check_allow(allow: object) -> Allowed:
    """What is allowed, of one name or several; raises OptionError for others."""
    names = [allow] if isinstance(allow, str) else allow
    if not isinstance(names, list | tuple | set | frozenset):
        raise OptionError(
            f"allow={shown(allow)} must be {' or '.join(map(repr, NAMES))}, or a list of these, "
            f"not {kind(allow)}."
        )
    for name in names:
        check_choice("allow", name, NAMES)
    return frozenset(names)


def unwritten(found: str) -> FileFormatError:
    """The error for values that were never written, or were lost."""
    return FileFormatError(
        f"{found}. Values that were never written, or were lost, read as the fill value, which "
        "is not data. Copy the file again, or write it again. If this is intended, allow it: "
        "allow='unwritten' (--allow unwritten)."
    )


def external(found: str) -> FileFormatError:
    """The error for values that are to come from elsewhere."""
    return FileFormatError(
        f"{found}. In this way a file can have others read that nobody named. If this is "
        "intended, allow it: allow='external' (--allow external)."
    )
