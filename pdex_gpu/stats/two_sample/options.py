"""The options of tests as data: one description serves checks, messages, help and documentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ...errors import OptionError
from ...utils.checks import check_choice, check_count, check_number, check_text

ALTERNATIVES = ("two-sided", "less", "greater")

NAN_POLICIES = ("raise", "omit", "propagate")

_METADATA = "statistic option"


@dataclass(frozen=True)
class StatisticOption:
    """An option of a test.

    Attributes
    ----------
    name : str
    default : bool, str, float or int
        It determines the kind of the option, if there are no `choices`.
    help : str
        At most 50 characters, for terminals.
    doc : str
        For documentation, where there is more room.
    choices : tuple
        The values of an option with a few values.
    least : float, optional
        The smallest value of a number.
    scipy_name : str, optional
        Another name of the option, which scipy uses.
    scipy_values : mapping, optional
        Values under that name and what they mean here, where they differ.
    objects_run_in_scipy : bool
        Whether values other than text are passed on to scipy.
    shorthands : tuple of str
        Choices that are also flags of the command line.
    asymptotic_only : bool
        Whether values other than the default belong to asymptotic p-values: they choose these,
        and are refused together with conditional ones that were named.
    """

    name: str
    default: Any
    help: str
    doc: str
    choices: tuple[Any, ...] = ()
    least: float | None = None
    scipy_name: str | None = None
    scipy_values: Mapping[Any, Any] | None = None
    objects_run_in_scipy: bool = False
    shorthands: tuple[str, ...] = ()
    asymptotic_only: bool = False

    @property
    def kind(self) -> str:
        """Return ``"flag"``, ``"choice"``, ``"number"``, ``"count"`` or ``"text"``."""
        if self.choices:
            return "choice"
        kinds = {bool: "flag", float: "number", int: "count"}
        return kinds.get(type(self.default), "text")

    @property
    def metavar(self) -> str:
        """Return what stands for the value in help texts; empty for flags."""
        return {"flag": "", "number": "X", "count": "N"}.get(self.kind, "NAME")

    @property
    def values(self) -> tuple[Any, ...]:
        """Return all values that the option can have, if they are few."""
        return (True, False) if self.kind == "flag" else self.choices

    def check(self, value: object) -> None:
        """Raise OptionError if the option cannot have this value."""
        if self.values:
            check_choice(f"value for {self.name}:", value, self.values)
        elif self.kind == "number":
            words = "a number" if self.least is None else f"a number of at least {self.least:g}"
            number = check_number(self.name, value, words)
            if self.least is not None and number < self.least:
                raise OptionError(f"{self.name}={value!r} must be {words}.")
        elif self.kind == "count":
            check_count(self.name, value, least=int(self.least or 0), may_be_none=False)
        else:
            check_text(self.name, value)

    def in_scipy(self, given: Mapping[str, Any]) -> bool:
        """Return whether scipy must run the test because of the value that was given."""
        value = given.get(self.name, "")
        return self.objects_run_in_scipy and not isinstance(value, str)

    def value_of(self, given: Mapping[str, Any]) -> Any:
        """Return the value among the options that were given, under either name, or the default.

        Raises
        ------
        OptionError
            If it was given under both names, or if scipy's name has a value that scipy refuses.
        """
        if self.scipy_name is None or self.scipy_name not in given:
            return given.get(self.name, self.default)
        value = given[self.scipy_name]
        meanings = self.scipy_values or {known: known for known in self.values}
        check_choice(f"value for {self.scipy_name}:", value, tuple(meanings))
        if self.name in given:
            raise OptionError(
                f"{self.name}= and {self.scipy_name}= are the same option; pass only one."
            )
        return meanings[value]


def option(default: Any, help: str, doc: str = "", **more: Any) -> Any:
    """Return a field of a test's dataclass that is an option: see :class:`StatisticOption`."""
    described = StatisticOption("", default, help, doc or help, **more)
    return field(default=default, metadata={_METADATA: described})


def options_of(test: Any) -> tuple[StatisticOption, ...]:
    """Return the options that a test's dataclass declares, in order."""
    return tuple(
        replace(found.metadata[_METADATA], name=found.name)
        for found in fields(test)
        if _METADATA in found.metadata
    )


def alternative_option() -> Any:
    """Return the option ``alternative``, as in scipy."""
    return option(
        "two-sided",
        "two-sided, less or greater",
        "The alternative hypothesis, as in scipy's function.",
        choices=ALTERNATIVES,
    )


def nan_policy_option() -> Any:
    """Return the option ``nan_policy``, with scipy's values."""
    return option(
        "raise",
        "NaN: raise, omit or propagate",
        "NaN is refused; or left out, as if the cell did not exist at that gene; or what involves "
        "it is NaN, and p is 1.",
        choices=NAN_POLICIES,
    )


def p_values_option(
    *others: str,
    doc: str = "",
) -> Any:
    """Return the option ``p_values``; `others` are kinds in addition to those of every test."""
    kinds = ("conditional", "asymptotic", *others)
    return option(
        "conditional",
        words(kinds),
        "Conditional on the pooled values of both samples, which holds for sparse genes and small "
        "groups, too; or by the limit for large samples, as in scipy." + doc,
        choices=kinds,
    )


def words(names: Sequence[str], last: str = "or") -> str:
    """Join names to a phrase: ``"a, b or c"``."""
    head = ", ".join(names[:-1])
    return f"{head} {last} {names[-1]}" if head else "".join(names)
