"""Values from outside the given file, which are read only if ``allow=`` names their kind."""

from __future__ import annotations

from ..errors import FileFormatError, OptionError, shown
from ..utils.checks import check_choice, kind

#: external: other files that the file refers to; unwritten: fill values for missing data.
NAMES = ("external", "unwritten")

Allowed = frozenset[str]


def check_allow(allow: object) -> Allowed:
    """Return the allowed names as a set, from one name or several; raise OptionError for others."""
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
    """Return the error for values that were never written, or were lost."""
    return FileFormatError(
        f"{found}. Values that were never written or were lost are read as the fill value, which "
        "is not data. Copy or write the file again. If this is intended, pass allow='unwritten' "
        "(--allow unwritten)."
    )


def external(found: str) -> FileFormatError:
    """Return the error for values that would come from another file."""
    return FileFormatError(
        f"{found}. A file could use this to have other files read that you did not name. If this "
        "is intended, pass allow='external' (--allow external)."
    )
