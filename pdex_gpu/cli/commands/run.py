"""``pdex-gpu run``: a screen in, a table of results out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

from ...utils.formats import PROGRAM
from .. import options as o
from ..arguments import need_groups, takes_options
from ..console import on_terminal
from ..json_output import write_json
from ..progress_bar import progress_bar

EXAMPLES = f"""\
examples:
  {PROGRAM} run screen.h5ad --groupby gene --reference NT -o results.parquet
  {PROGRAM} run screen.h5ad --groupby gene --reference NT \\
      --groups STAT1,IRF1 --metric t-test --welch -o results.tsv
  {PROGRAM} run screen.h5ad --groupby gene,cell_type \\
      --strata batch --columns auroc,log10_p -o results.parquet
  {PROGRAM} run screen.h5ad --groupby gene --pairs STAT1:NT,IRF1:STAT1 \\
      -o pairs.csv
  {PROGRAM} run big.h5ad --groupby gene --memory 8GB --scratch /local \\
      -o results.parquet
  {PROGRAM} run plate*.h5ad --groupby gene --batch plate --strata plate \\
      -o results.parquet

To resume an interrupted run, run the same command again.
"""

Output = Annotated[
    Path,
    o.option("--output -o", "FILE", "results file: .parquet, .csv or .tsv", o.OUTPUT),
]


@takes_options(but=("out", "progress"))
def command(
    files: o.Screen,
    output: Output,
    options: dict[str, Any],
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """Compare the groups of a file and write the results."""
    started = time.perf_counter()
    need_groups(options)
    shown = on_terminal(sys.stderr) and not quiet

    from ... import differential_expression

    with progress_bar(options.get("metric", "wilcoxon"), shown=shown) as progress:
        result = differential_expression(
            o.of_files(files), out=output, progress=progress, **options
        )
    seconds = time.perf_counter() - started
    if json:
        write_json(
            {
                "output": result.path,
                "n_comparisons": len(result.targets),
                "n_genes": len(result.features),
                "n_rows": result.n_rows,
                "columns": result.columns,
                "n_hits": None if result.n_hits is None else int(result.n_hits.sum()),
                "seconds": seconds,
                "provenance": result.provenance,
            }
        )
    elif shown:
        from ..ending import end_of_run

        sys.stderr.write(
            "".join(
                f"{line}\n" for line in end_of_run(result, seconds, options.get("backend", "auto"))
            )
        )
