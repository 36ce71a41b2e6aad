"""The options ``--metric`` and those of the tests, made from the tests that are registered."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Annotated, Any

from ..errors import OptionError
from ..stats.registry import METRICS, all_options
from ..stats.two_sample.options import StatisticOption, words
from . import parsers
from .options import TEST, choice, flag, option

#: Parameters of a command that are filled in here.
_METRIC, _REST = "metric", "statistic_options"


def with_statistics(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command with the options of all tests.

    They take the place of its parameters ``metric`` and ``**statistic_options``, if it has these.
    """
    signature = inspect.signature(command, eval_str=True)
    if _METRIC not in signature.parameters:
        return command
    found: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        if parameter.name == _METRIC:
            shown = choice("--metric", tuple(METRICS), words(tuple(METRICS)), TEST)
            found.append(parameter.replace(annotation=Annotated[str, shown]))
            if _REST in signature.parameters:
                found += (made for one in all_options() for made in _parameters(one))
        elif parameter.name != _REST:
            found.append(parameter)
    names = [parameter.name for parameter in found]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise OptionError(
            f"A test that was registered has an option {double!r}, which is already an option of "
            "the command. Give the option of the test another name."
        )

    @functools.wraps(command)
    def complete(**given: Any) -> None:
        command(**given)

    complete.__signature__ = signature.replace(parameters=found)  # type: ignore[attr-defined]
    complete.__annotations__ = {p.name: p.annotation for p in found}
    return complete


def chosen_options(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of the test that were given, by their names in the library.

    Raises
    ------
    OptionError
        If a shorthand contradicts the option that it stands for.
    """
    found: dict[str, Any] = {}
    for one in all_options():
        if one.kind == "flag":
            if given[_flag_name(one)]:
                found[one.name] = not one.default
            continue
        value = given[one.name]
        for short in one.shorthands:
            if not given[short]:
                continue
            if value not in (None, short):
                raise OptionError(
                    f"--{short} and {_dashed(one.name)} {value} contradict each other. Pass only "
                    "one."
                )
            value = short
        if value is not None:
            found[one.name] = value
    return found


def _parameters(one: StatisticOption) -> Iterator[inspect.Parameter]:
    if one.kind == "flag":
        name = _flag_name(one)
        yield _parameter(name, bool, flag(_dashed(name), one.help, TEST), False)
        return
    if one.kind == "choice":
        shown = choice(_dashed(one.name), one.choices, one.help, TEST)
    else:
        parse = {"number": parsers.number, "count": parsers.at_least_zero}.get(one.kind)
        shown = option(_dashed(one.name), one.metavar, one.help, TEST, parser=parse)
    kind: Any = {"number": float, "count": int}.get(one.kind, str)
    yield _parameter(one.name, kind | None, shown, None)
    for short in one.shorthands:
        text = f"short for {_dashed(one.name)} {short}"
        yield _parameter(short, bool, flag(_dashed(short), text, TEST), False)


def _parameter(name: str, kind: Any, shown: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name,
        inspect.Parameter.POSITIONAL_OR_KEYWORD,
        default=default,
        annotation=Annotated[kind, shown],
    )


def _flag_name(one: StatisticOption) -> str:
    return f"no_{one.name}" if one.default else one.name


def _dashed(name: str) -> str:
    return f"--{name.replace('_', '-')}"
