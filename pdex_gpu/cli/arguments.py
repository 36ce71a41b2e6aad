"""The options of commands that compare groups of cells: those of the library's own call."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import make_dataclass
from typing import Any

from ..errors import OptionError
from ..request.options import GROUPS
from ..stats.registry import all_options
from ..stats.two_sample.options import StatisticOption
from ..utils.options import option
from . import options as o

Command = Callable[..., None]


def takes_options(*, but: Collection[str] = ()) -> Callable[[Command], Command]:
    """Give a command all options of a comparison, except `but`; see :func:`.options.takes`."""
    groups: list[Any] = []
    for name, group in GROUPS.items():
        groups += [group, _tests()] if name == "test" else [group]
    return o.takes(groups, but=but)


def _tests() -> Any:
    """Return a group with the options of all tests that are registered."""
    members = [(name, Any, made) for one in all_options() for name, made in _of_test(one)]
    return make_dataclass("TestsOptions", members, namespace={"TITLE": o.TEST})


def _of_test(one: StatisticOption) -> Iterator[tuple[str, Any]]:
    """Yield an option of tests, and its shorthands."""
    choices = (lambda: one.choices) if one.choices else None
    kind = {"count": "whole"}.get(one.kind, one.kind)
    yield one.name, option(one.default, one.help, kind, one.metavar, choices=choices)
    for short in one.shorthands:
        yield short, option(False, f"short for --{one.name.replace('_', '-')} {short}", "flag")


def _spell_out(options: dict[str, Any]) -> None:
    """Replace shorthands by the options that they stand for."""
    for one in all_options():
        for short in one.shorthands:
            if options.pop(short, False) and options.setdefault(one.name, short) != short:
                raise OptionError(
                    f"--{short} and --{one.name.replace('_', '-')} {options[one.name]} contradict "
                    "each other. Pass only one."
                )


def need_groups(options: dict[str, Any], *, guides: bool = True) -> None:
    """Check the options that were given, and complete what they say in short.

    Raises
    ------
    OptionError
        Without groups of cells, or if a shorthand contradicts the option that it stands for.
    """
    if not {"groupby", "guides", "guide_calls", "min_umis"} & options.keys():
        matrix = "--guides NAME, a matrix in obsm, or " if guides else ""
        raise OptionError(
            "Missing option --groupby. Pass the obs column that holds the groups (or "
            f"{matrix}--guide-calls FILE, a table of Cell Ranger)."
        )
    if "pairs" in options:
        options.setdefault("comparison", "pairs")
    _spell_out(options)
