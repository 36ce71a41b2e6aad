"""Unknown keywords of public calls: an error that names the closest parameter."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from typing import Any, TypeVar, cast

from ..errors import OptionError, UnknownOptionError, close_matches, listing, shown

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Class = TypeVar("_Class", bound=type)


def known_keywords(
    function: _Function, *, called: str | None = None, refused: Mapping[str, str] | None = None
) -> _Function:
    """Make a function refuse unknown keywords with an error that names the closest parameter.

    Python's own TypeError names the keyword, but no parameter that could be meant.

    Parameters
    ----------
    function : callable
        A function or method that does not take ``**kwargs``.
    called : str, optional
        Its name in the message; by default its own.
    refused : mapping of str to str, optional
        Keywords of other calls, and why this one does not take them.
    """
    code = function.__code__
    names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    known = frozenset(names)
    call = called or function.__name__

    @wraps(function)
    def checked(*args: Any, **kwargs: Any) -> Any:
        for name, why in (refused or {}).items():
            if kwargs.pop(name, None) is not None:
                raise OptionError(f"{call}() does not take {name}=: {why}.")
        if not known.issuperset(kwargs):
            raise _unknown_option(call, next(name for name in kwargs if name not in known), names)
        return function(*args, **kwargs)

    return cast(_Function, checked)


def known_keywords_of_init(cls: _Class) -> _Class:
    """Make the constructor of a class refuse unknown keywords as :func:`known_keywords` does."""
    cls.__init__ = known_keywords(cls.__init__, called=cls.__name__)  # type: ignore[misc]
    return cls


def _unknown_option(call: str, asked: str, names: tuple[str, ...]) -> UnknownOptionError:
    options = [name for name in names if name not in ("self", "cls")]
    close = close_matches(asked, options)
    hint = f" Did you mean {' or '.join(map(shown, close))}?" if close else ""
    return UnknownOptionError(
        f"Unknown option {shown(asked)} of {call}().{hint} Its options are: {listing(options)}."
    )
