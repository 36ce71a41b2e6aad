"""The kinds of options: how a text on the command line becomes a value of the library."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..utils.options import Description
from . import parsers


@dataclass(frozen=True)
class Kind:
    """The type of an option on the command line.

    Attributes
    ----------
    annotation : type
        What Typer sees. A list may be given several times, and each text may list several names;
        see :func:`.parsers.names`.
    parser : callable, optional
        Parses each text.
    convert : callable, optional
        Makes the library's value of what was given.
    complete : callable, optional
        Returns completions of an incomplete text.
    """

    annotation: Any
    parser: Callable[[Any], Any] | None = None
    convert: Callable[[Any], Any] | None = None
    complete: Callable[[str], list[str]] | None = None


_YES_NO = {"auto": None, "yes": True, "no": False}


def _one_or_list(texts: Sequence[str]) -> Any:
    found = parsers.names(texts)
    return found[0] if len(found) == 1 else found


def _columns() -> Sequence[str]:
    from ..results.schema import EXTRA

    return ("all", *EXTRA)


def completer(
    choices: Callable[[], Sequence[str]], *, several: bool = False
) -> Callable[[str], list[str]]:
    """Return a function that completes one of a few words, those that `choices` returns then.

    With `several`, it completes the last word of a list.
    """

    def complete(incomplete: str) -> list[str]:
        done, comma, begun = incomplete.rpartition(",") if several else ("", "", incomplete)
        return [done + comma + name for name in choices() if name.startswith(begun)]

    return complete


_KINDS = {
    "text": Kind(str),
    "one or several": Kind(list[str], convert=_one_or_list),
    "several": Kind(list[str], convert=parsers.names),
    "columns": Kind(list[str], convert=parsers.names, complete=completer(_columns, several=True)),
    "pairs": Kind(list[str], convert=parsers.pairs),
    "path": Kind(Path),
    "count": Kind(int, parsers.at_least_one),
    "whole": Kind(int, parsers.at_least_zero),
    "number": Kind(float, parsers.number),
    "number or none": Kind(Any, parsers.number_or_none_text, parsers.number_or_none),
    "number or name": Kind(str, convert=parsers.number_or_name),
    "size": Kind(int, parsers.memory_size),
    "devices": Kind(list[str], parsers.devices_text, parsers.devices),
    "yes or no": Kind(str, parsers.one_of(lambda: tuple(_YES_NO)), _YES_NO.__getitem__),
}


def kind_of(option: Description) -> Kind:
    """Return the kind of an option that takes a value."""
    if option.choices is None:
        return _KINDS[option.kind]
    if option.kind == "choices":
        complete = completer(option.choices, several=True)
        return Kind(list[str], parsers.some_of(option.choices), parsers.names, complete)
    return Kind(str, parsers.one_of(option.choices), complete=completer(option.choices))
