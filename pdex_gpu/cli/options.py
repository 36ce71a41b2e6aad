"""The options of commands: those that commands share, and those made from groups of options.

Help texts stay within 50 characters, because terminals wrap longer ones.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import Field
from pathlib import Path
from typing import Annotated, Any

import typer

from ..errors import ColumnError, LabelError
from ..sources.formats import short_names
from ..utils.options import description, keywords
from . import parsers
from .kinds import completer, kind_of

TEST, ROWS, RUN, OUTPUT, SHOW = (
    "Test",
    "Columns, correction, filters",
    "Where to run",
    "Output",
    "Messages",
)


_LISTS_OF_NAMES = ("one or several", "several")


def option(names: str, metavar: str, help: str, panel: str, **more: Any) -> Any:
    """Make an option with a value; `names` are separated by spaces."""
    return typer.Option(
        *names.split(),
        metavar=metavar,
        help=help,
        rich_help_panel=panel,
        show_default=False,
        **more,
    )


def flag(names: str, help: str, panel: str) -> Any:
    """Make an option without a value."""
    return typer.Option(*names.split(), help=help, rich_help_panel=panel, show_default=False)


def choice(names: str, choices: Callable[[], Sequence[str]], help: str, panel: str) -> Any:
    """Make an option with one of a few values, which shells complete.

    `choices` returns them; it is called when they are needed, as more can be registered.
    """
    return option(
        names,
        "NAME",
        help,
        panel,
        parser=parsers.one_of(choices),
        autocompletion=completer(choices),
    )


def of_files(files: list[str]) -> str | list[str]:
    """Return the data that the library gets for the files of a command."""
    return files[0] if len(files) == 1 else files


def takes(
    groups: Collection[Any], *, but: Collection[str] = ()
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Give a command the options of groups, in place of its parameter `options`.

    The command receives the options that were given, by the names of the library and with its
    values: what is left out has the library's default.

    Parameters
    ----------
    groups : collection of group classes
        See :mod:`pdex_gpu.utils.options`.
    but : collection of str
        Fields that are no options of this command.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        taken = {f.name: f for group in groups for f in keywords(group) if f.name not in but}
        titles = {f.name: group.TITLE for group in groups for f in keywords(group)}
        made = [_parameter(f, titles[f.name]) for f in taken.values()]
        shown = inspect.signature(command, eval_str=True)
        parameters = [
            one.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for own in shown.parameters.values()
            for one in (made if own.name == "options" else [own])
        ]

        @functools.wraps(command)
        def wrapper(**given: Any) -> None:
            options = {name: given.pop(name) for name in taken}
            with _explained_lists(taken, options):
                command(**given, options=_of_library(taken, options))

        wrapper.__signature__ = shown.replace(parameters=parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {one.name: one.annotation for one in parameters}
        return wrapper

    return decorate


@contextmanager
def _explained_lists(taken: Mapping[str, Field[Any]], given: Mapping[str, Any]) -> Iterator[None]:
    """Tell how a name that contains commas is passed, if one was perhaps taken for a list."""
    try:
        yield
    except (ColumnError, LabelError) as error:
        for name, field in taken.items():
            if description(field).kind not in _LISTS_OF_NAMES:
                continue
            listing = next(filter(parsers.lists_by_comma, given[name] or ()), None)
            if listing is not None:
                option = f"--{name.replace('_', '-')}"
                error.add_note(
                    f"{option} {listing} lists several names, as commas separate names. If it is "
                    f"one, put it in double quotes inside single ones: {option} '\"{listing}\"'"
                )
                break
        raise


def _parameter(field: Field[Any], panel: str) -> inspect.Parameter:
    """Return the parameter of a command for a field of a group."""
    told = description(field)
    name = field.name.replace("_", "-")
    if told.kind == "flag":
        names = f"--no-{name}" if field.default else f"--{name}"
        made = flag(told.names or names, told.shown_help, panel)
        annotation, default = Annotated[bool, made], False
    else:
        kind = kind_of(told)
        more: dict[str, Any] = {"parser": kind.parser} if kind.parser else {}
        if kind.complete is not None:
            more["autocompletion"] = kind.complete
        made = option(told.names or f"--{name}", told.metavar, told.shown_help, panel, **more)
        annotation, default = Annotated[kind.annotation | None, made], None
    return inspect.Parameter(
        field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )


def _of_library(taken: Mapping[str, Field[Any]], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were given, with the library's values."""
    found = {}
    for name, field in taken.items():
        told, value = description(field), given[name]
        if told.kind == "flag":
            if value:
                found[name] = not field.default
        elif value is not None and value != []:
            convert = kind_of(told).convert
            found[name] = value if convert is None else convert(value)
    return found


Screen = Annotated[
    list[str],  # paths, or URLs, which Path would corrupt
    typer.Argument(metavar="FILE...", help=f"the screen: {short_names()}; one or several"),
]
Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="results that `run` wrote: .parquet, .csv or .tsv")
]

Fdr = Annotated[
    float, option("--fdr", "X", "FDR threshold for hits", SHOW, parser=parsers.fraction)
]
Force = Annotated[bool, flag("--force", "replace an existing output", OUTPUT)]

# Output to the terminal; `help.HelpfulCommand` and `main` handle --verbose and --debug.
Quiet = Annotated[bool, flag("--quiet -q", "show only errors", SHOW)]
Verbose = Annotated[bool, flag("--verbose -v", "log each step to stderr", SHOW)]
Json = Annotated[bool, flag("--json", "one JSON document on stdout, also for errors", SHOW)]
Debug = Annotated[bool, flag("--debug", "show the traceback of an error", SHOW)]
