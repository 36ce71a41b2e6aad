"""Groups of options: frozen dataclasses whose fields are the keywords of public calls.

A group has a `TITLE`, under which the command line lists its options. It is checked when it is
made. Its module imports nothing heavy, as the command line reads it to show its help.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields
from typing import Any

_DESCRIPTION = "description"


@dataclass(frozen=True)
class Description:
    """The form in which the command line takes an option.

    Attributes
    ----------
    help : str or callable
        One line of at most 50 characters, or what makes it when it is shown.
    kind : str
        How a text becomes a value: a parser in :mod:`pdex_gpu.cli.kinds`.
    metavar : str
    names : str
        Names of the option, separated by spaces; empty for the name of the field.
    choices : callable, optional
        Returns the values that an option of kind ``"choice"`` or ``"choices"`` can have.
    """

    help: str | Callable[[], str]
    kind: str = "text"
    metavar: str = "NAME"
    names: str = ""
    choices: Callable[[], Sequence[str]] | None = None

    @property
    def shown_help(self) -> str:
        """Return the help as it is now."""
        return self.help if isinstance(self.help, str) else self.help()


def option(
    default: Any,
    help: str | Callable[[], str],
    kind: str = "text",
    metavar: str = "NAME",
    **more: Any,
) -> Any:
    """Return the field of an option; see :class:`Description`."""
    return field(default=default, metadata={_DESCRIPTION: Description(help, kind, metavar, **more)})


def internal(default: Any) -> Any:
    """Return a field that no keyword sets; a class as default is called for each group."""
    made = {"default_factory": default} if isinstance(default, type) else {"default": default}
    return field(**made)


def keywords(group: Any) -> Iterator[Field[Any]]:
    """Yield the fields of a group, or of its class, that are keywords of public calls."""
    return (one for one in fields(group) if _DESCRIPTION in one.metadata)


def description(one: Field[Any]) -> Description:
    """Return how the command line takes an option, given its field."""
    found: Description = one.metadata[_DESCRIPTION]
    return found


def plain(value: Any) -> Any:
    """Convert an option's value to one that JSON accepts, the same for equal values.

    NumPy scalars become Python's, collections lists or objects, and anything else its text.
    """
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if hasattr(value, "item") and getattr(value, "ndim", 1) == 0:
        return plain(value.item())
    if isinstance(value, dict):
        return {str(name): plain(one) for name, one in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, value))
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return str(value)
