"""The command-line program, assembled from its commands."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated, Any

import typer

from .._version import __version__
from ..utils.exit_codes import EXIT_CODES
from ..utils.formats import PROGRAM
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

#: The commands, in the order in which the help lists them: each is a module of its name.
COMMANDS = {
    "run": "Compare groups of cells gene by gene, and write a table.",
    "estimate": "Estimate memory, disk and time of a run, without reading X.",
    "top": "Show the strongest genes of a perturbation.",
    "plot": "Draw a figure of results.",
    "report": "Write results as one HTML page that opens offline.",
    "calibrate": "Use control cells to check whether p-values are calibrated.",
    "demo": "Simulate a screen, analyse it and show the strongest hits.",
    "backends": "List the backends, and why each can or cannot run here.",
    "doctor": "Check this machine or a results file, and suggest fixes.",
}


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


def _not_loaded() -> None:
    """Stand for a command that is only listed."""


def make_app(only: str | None = None) -> Any:
    """Build the command ``pdex-gpu`` as a Click command.

    Parameters
    ----------
    only : str, optional
        The command that will be called; the others are only listed, as they take time to import.
    """
    app = typer.Typer(
        cls=HelpfulGroup,
        help=_HELP,
        epilog=_EXAMPLES + EXIT_CODES,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_program)
    for name, summary in COMMANDS.items():
        if only in (None, name):
            module = import_module(f".commands.{name}", __package__)
            function, examples = module.command, module.EXAMPLES
        else:
            function, examples = _not_loaded, ""
        app.command(name, cls=HelpfulCommand, help=summary, epilog=f"{examples}\n{EXIT_CODES}")(
            function
        )
    command: Any = typer.main.get_command(app)
    for param in command.params:
        param.help = _COMPLETION.get(param.name, param.help)
    return command
