"""The layout of ``--help``: options in panels of two columns, then examples to copy.

Typer's own page has five columns, too many for 80 characters.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from typer.core import TyperCommand, TyperGroup

from ..utils.formats import PROGRAM
from .console import messages, on_terminal

_MOST_COLUMNS = 100  # longer lines are hard to read

# These panels come last, because every command has them.
_LAST = ("Output", "Messages")


class HelpfulCommand(TyperCommand):
    """A command with this help layout that prints log messages and warnings as single lines."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_page(self, ctx))

    def invoke(self, ctx: Any) -> Any:
        import sys

        given = ctx.params
        with messages(
            verbose=given["verbose"],
            notices=on_terminal(sys.stderr),
            quiet=given["quiet"],
        ):
            return super().invoke(ctx)


class HelpfulGroup(TyperGroup):
    """A group of commands with this help layout."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        formatter.write(_page(self, ctx))


def _page(command: Any, ctx: Any) -> str:
    from .tables import open_console

    console = open_console()
    console.width = min(console.width, _MOST_COLUMNS)
    with console.capture() as captured:
        for part in _parts(command, ctx):
            console.print(part)
    return captured.get().rstrip("\n")


def _parts(command: Any, ctx: Any) -> Iterator[Any]:
    from rich.text import Text

    commands = isinstance(command, TyperGroup)
    params = [p for p in command.get_params(ctx) if not getattr(p, "hidden", False)]
    arguments = [p for p in params if p.param_type_name == "argument"]
    named = (p.metavar if p.required else f"[{p.metavar}]" for p in arguments)
    usage = [ctx.command_path, *named, "[OPTIONS]"]
    if commands:
        usage.insert(1, "COMMAND")
    yield Text.assemble(("Usage: ", "yellow"), (" ".join(usage), "bold"))
    yield Text(command.help or "")
    if commands:
        yield _panel("Commands", [(n, "", c.help or "") for n, c in command.commands.items()])
    panels: dict[str, list[tuple[str, str, str]]] = {}
    for param in params:
        is_option = param.param_type_name == "option"
        usual = "Arguments" if not is_option else "Options" if commands else _LAST[-1]
        panel = getattr(param, "rich_help_panel", None) or usual
        panels.setdefault(panel, []).append(_entry(param))
    for title in sorted(panels, key=lambda title: title in _LAST and 1 + _LAST.index(title)):
        yield _panel(title, panels[title])
    for line in (command.epilog or "").splitlines():
        is_example = line.startswith((f"  {PROGRAM} ", "      "))
        yield Text(line, "green" if is_example else "")


def _entry(param: Any) -> tuple[str, str, str]:
    """Return the name, metavar and help of a parameter."""
    text = param.help or ""
    if param.param_type_name == "argument":
        return param.metavar, "", text
    names = ", ".join(sorted((*param.opts, *param.secondary_opts), key=len))
    default = param.default
    if param.required:
        text += " [required]"
    elif isinstance(default, str | int | float) and not isinstance(default, bool):
        text += f" [{default:g}]" if isinstance(default, float) else f" [{default}]"
    return names, "" if param.is_flag else param.metavar or "", text


def _panel(title: str, entries: Sequence[tuple[str, str, str]]) -> Any:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    terms = [
        Text.assemble((name, "bold cyan"), (f" {metavar}" if metavar else "", "yellow"))
        for name, metavar, _ in entries
    ]
    table = Table.grid(padding=(0, 2, 0, 0), expand=True)
    table.add_column(width=max(term.cell_len for term in terms), overflow="fold")
    table.add_column(ratio=1, overflow="fold")
    for term, (_, _, text) in zip(terms, entries, strict=True):
        table.add_row(term, Text(text))
    return Panel(table, title=Text(title), title_align="left", border_style="dim")
