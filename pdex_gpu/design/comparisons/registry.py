"""The comparisons by name."""

from __future__ import annotations

from typing import Literal, TypeVar

from ...errors import OptionError
from ...utils.checks import check_choice, check_text
from .base import Comparison
from .each_reference import EachReference
from .pairs import Pairs
from .perturbed import Perturbed
from .reference import Reference
from .rest import Rest

_Class = TypeVar("_Class", bound=type[Comparison])

# In the order that help and messages list them.
_REGISTERED: dict[str, type[Comparison]] = {
    comparison.name: comparison
    for comparison in (
        Reference,
        EachReference,
        Rest,
        Perturbed,
        Pairs,
    )
}

#: Their names, for type checkers.
ComparisonName = Literal["reference", "each_reference", "rest", "perturbed", "pairs"]


def comparison_names() -> tuple[str, ...]:
    """Return the values of ``comparison=``."""
    return tuple(_REGISTERED)


def comparison_classes() -> tuple[type[Comparison], ...]:
    """Return the registered classes."""
    return tuple(_REGISTERED.values())


def register(comparison: _Class) -> _Class:
    """Add a comparison, so that ``comparison=`` finds it by name. Works as a class decorator.

    A class of the same module and name is replaced, as when a notebook cell runs again.

    Raises
    ------
    OptionError
        If the class has no name or title, or if another comparison has this name.
    """
    for attribute in ("name", "title"):
        where = f"{comparison.__qualname__}.{attribute}"
        check_text(where, getattr(comparison, attribute, None))
    name = comparison.name
    taken = _REGISTERED.get(name)
    if taken is not None and (taken.__module__, taken.__qualname__) != (
        comparison.__module__,
        comparison.__qualname__,
    ):
        raise OptionError(
            f"comparison={name!r} is already registered, by {taken.__module__}."
            f"{taken.__qualname__}. Choose another name for {comparison.__qualname__}."
        )
    _REGISTERED[name] = comparison
    return comparison


def find_comparison(comparison: object) -> Comparison:
    """Return the comparison that a value of ``comparison=`` stands for: a name, or itself.

    Raises
    ------
    OptionError
        If there is no comparison of that name.
    """
    if isinstance(comparison, Comparison):
        return comparison
    check_text("comparison", comparison, may_be_none=False)
    check_choice("comparison", comparison, comparison_names())
    return _REGISTERED[str(comparison)]()
