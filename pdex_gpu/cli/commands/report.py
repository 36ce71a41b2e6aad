"""``pdex-gpu report``: results as a page for the browser."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..console import on_terminal
from ..files import check_new_file
from ..json_output import write_json

EXAMPLES = f"""\
examples:
  {PROGRAM} report results.parquet -o report.html
  {PROGRAM} report results.parquet --calibration calibration.json \\
      --title "Interferon screen" --fdr 0.01 -o report.html
"""

_PAGE = "Page"

Output = Annotated[Path, o.option("--output -o", "FILE", "report file, .html", o.OUTPUT)]
Calibration = Annotated[
    Path | None,
    o.option("--calibration", "FILE", "calibration to show, a .json file of `calibrate`", _PAGE),
]
Title = Annotated[str | None, o.option("--title", "TEXT", "title of the page", _PAGE)]
Fdr = Annotated[
    float,
    o.option("--fdr", "X", "FDR threshold for hits", _PAGE, parser=parsers.fraction),
]


def command(
    results: o.Results,
    output: Output,
    calibration: Calibration = None,
    title: Title = None,
    fdr: Fdr = 0.05,
    force: o.Force = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Results in, a page out."""
    started = time.perf_counter()
    check_new_file(output, (".html", ".htm"), force=force)

    from ... import open_result
    from ...report import write_report

    write_report(
        open_result(results),
        output,
        calibration=calibration,
        title=title,
        fdr=fdr,
        force=force,
    )
    seconds, size = time.perf_counter() - started, output.stat().st_size
    if json:
        write_json({"output": output, "n_bytes": size, "seconds": seconds})
    elif on_terminal(sys.stderr) and not quiet:
        sys.stderr.write(f"{output}: {size / 1e6:.1f} MB in {seconds:.1f} s\n")
