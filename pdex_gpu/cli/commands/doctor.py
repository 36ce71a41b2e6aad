"""``pdex-gpu doctor``: what was found, what is missing, and how to fix it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ...utils.exit_codes import Exit
from ...utils.formats import PROGRAM
from .. import options as o
from ..json_output import write_json
from ..tables import Cell, printable, show_entry, show_line

EXAMPLES = f"""\
examples:
  {PROGRAM} doctor
  {PROGRAM} doctor results.parquet
  {PROGRAM} doctor --json | jq '.checks[] | select(.status != "ok")'

The exit code is 4 if something that a run needs is broken, 3 if the file was
changed after it was written, and 0 otherwise.
"""

_STYLES = {"ok": "green", "note": "yellow", "problem": "bold red"}

Results = Annotated[
    Path | None, typer.Argument(metavar="RESULTS", help="a .parquet results file to check instead")
]


def command(
    results: Results = None,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Check this machine or a file of results."""
    from ...doctor import diagnose, healthy

    if results is None:
        checks = diagnose()
    else:
        from ...doctor.results import examine

        checks = examine(results)
    fine = healthy(checks)
    if json:
        write_json({"healthy": fine, "checks": checks})
    elif not quiet:
        width = max(len(check.name) for check in checks)
        topic = ""
        for check in checks:
            if check.topic != topic:
                show_line(*(["\n"] if topic else []), Cell(check.topic, "bold"))
                topic = check.topic
            status = Cell(f"{check.status:<7}", _STYLES[check.status])
            show_entry(["  ", status, f"  {check.name:<{width}}  "], printable(check.found))
            if check.fix:
                show_line(" " * (width + 13), "fix: ", Cell(check.fix, "cyan"))
        counts = {kind: sum(c.status == kind for c in checks) for kind in _STYLES}
        show_line("\n", ", ".join(_number(n, kind) for kind, n in counts.items()))
    if not fine:
        raise typer.Exit(Exit.BACKEND if results is None else Exit.INPUT)


def _number(n: int, status: str) -> str:
    return f"{n} {status}" if n == 1 or status == "ok" else f"{n} {status}s"
