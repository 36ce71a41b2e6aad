"""The command-line program, assembled from its commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from .._version import __version__
from ..utils.exit_codes import EXIT_CODES
from ..utils.formats import PROGRAM
from .commands import backends, calibrate, demo, doctor, plan, plot, report, run, top
from .help import HelpfulCommand, HelpfulGroup

_HELP = "Differential expression for single-cell perturbation screens."

_EXAMPLES = f"""\
examples:
  {PROGRAM} run screen.h5ad --groupby gene --reference NT -o results.parquet
  {PROGRAM} report results.parquet -o report.html
"""

# Shorter than Typer's help texts, so that each fits on one line.
_COMPLETION = {
    "install_completion": "Install completion for the current shell.",
    "show_completion": "Show the completion script.",
}

#: The commands, in the order in which the help lists them.
_COMMANDS: tuple[tuple[str, Callable[..., None], str, str], ...] = tuple(
    (name, module.command, module.HELP, module.EXAMPLES)
    for name, module in (
        ("run", run),
        ("plan", plan),
        ("top", top),
        ("plot", plot),
        ("report", report),
        ("calibrate", calibrate),
        ("demo", demo),
        ("backends", backends),
        ("doctor", doctor),
    )
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"{PROGRAM} {__version__}")
        raise typer.Exit


def _program(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """The program itself does nothing; its commands do."""


def make_app() -> Any:
    """Build the command ``pdex-gpu`` as a Click command."""
    app = typer.Typer(cls=HelpfulGroup, help=_HELP, epilog=_EXAMPLES + EXIT_CODES)
    app.callback()(_program)
    for name, function, summary, examples in _COMMANDS:
        app.command(name, cls=HelpfulCommand, help=summary, epilog=f"{examples}\n{EXIT_CODES}")(
            function
        )
    command: Any = typer.main.get_command(app)
    for param in command.params:
        param.help = _COMPLETION.get(param.name, param.help)
    return command
