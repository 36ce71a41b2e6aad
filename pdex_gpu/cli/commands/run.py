"""``pdex-gpu run``: a screen in, a table of results out."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated

from ...utils.formats import PROGRAM
from .. import options as o
from .. import parsers
from ..arguments import groups_of_cells, is_log1p, need_groupby, test_options
from ..console import on_terminal
from ..json_output import write_json
from ..progress_bar import progress_bar

HELP = "Compare groups of cells gene by gene, and write a table."

EXAMPLES = f"""\
examples:
  {PROGRAM} run screen.h5ad --groupby gene --reference NT -o results.parquet
  {PROGRAM} run screen.h5ad --groupby gene --reference NT \\
      --groups STAT1 --groups IRF1 --metric t-test --welch -o results.tsv
  {PROGRAM} run screen.h5ad --groupby gene --groupby cell_type \\
      --strata batch --columns auroc,log10_p -o results.parquet
  {PROGRAM} run screen.h5ad --groupby gene --pairs STAT1:NT --pairs IRF1:STAT1 \\
      -o pairs.csv
  {PROGRAM} run big.h5ad --groupby gene --memory 8GB --scratch /local \\
      -o results.parquet

To resume an interrupted run, run the same command again.
"""

Output = Annotated[
    Path,
    o.option("--output -o", "FILE", "results file: .parquet, .csv or .tsv", o.OUTPUT),
]
Restart = Annotated[
    bool, o.flag("--restart", "discard the progress of an unfinished run", o.OUTPUT)
]

SpreadsheetSafe = Annotated[
    bool,
    o.flag("--spreadsheet-safe", "escape names that a spreadsheet reads as formulas", o.OUTPUT),
]


def command(
    file: o.Screen,
    output: Output,
    groupby: o.Groupby = None,
    reference: o.Reference = None,
    groups: o.Groups = None,
    comparison: o.Comparison = None,
    pairs: o.Pairs = None,
    strata: o.Strata = None,
    guides: o.Guides = None,
    on_target: o.OnTarget = None,
    layer: o.Layer = None,
    allow: o.Allow = None,
    metric: o.Metric = "wilcoxon",
    alternative: o.Alternative = None,
    is_log1p_: o.IsLog1p = "auto",
    method: o.Method = None,
    no_continuity: o.NoContinuity = False,
    no_tie_correction: o.NoTieCorrection = False,
    variance: o.Variance = None,
    welch: o.Welch = False,
    variant: o.Variant = None,
    p_values: o.PValues = None,
    nan_policy: o.NanPolicy = None,
    no_exp_post_agg: o.NoExpPostAgg = False,
    clip_value: o.ClipValue = 20.0,
    columns: o.Columns = None,
    confidence: o.Confidence = 0.95,
    pseudocount: o.Pseudocount = 1e-9,
    fdr_method: o.FdrMethod = "benjamini-hochberg",
    fdr_scope: o.FdrScope = "all",
    min_cells: o.MinCells = 1,
    min_fraction: o.MinFraction = None,
    min_cpm: o.MinCpm = None,
    backend: o.Backend = "auto",
    engine: o.Engine = "auto",
    client: o.Client = None,
    threads: o.Threads = None,
    workers: o.Workers = None,
    gene_chunk_size: o.GeneChunkSize = None,
    memory: o.Memory = None,
    scratch: o.Scratch = None,
    device: o.Device = None,
    device_memory: o.DeviceMemory = None,
    force: o.Force = False,
    restart: Restart = False,
    spreadsheet_safe: SpreadsheetSafe = False,
    quiet: o.Quiet = False,
    verbose: o.Verbose = False,
    json: o.Json = False,
    debug: o.Debug = False,
) -> None:
    """A file in, a file out."""
    started = time.perf_counter()
    if guides is None:
        need_groupby(groupby, otherwise=" (or --guides NAME, a matrix in obsm)")
    shown = on_terminal(sys.stderr) and not quiet

    from ... import differential_expression

    with progress_bar(metric, shown=shown) as progress:
        result = differential_expression(
            file,
            **groups_of_cells(groupby, reference, groups),
            comparison=comparison or ("pairs" if pairs else "reference"),
            pairs=parsers.pairs(pairs),
            guides=guides,
            on_target=on_target,
            strata=strata,
            columns=parsers.split(columns),
            confidence=confidence,
            pseudocount=pseudocount,
            fdr_method=fdr_method,
            fdr_scope=fdr_scope,
            min_cells=min_cells,
            min_fraction=min_fraction,
            min_cpm=min_cpm,
            metric=metric,
            layer=layer,
            allow=allow or (),
            out=output,
            force=force,
            restart=restart,
            spreadsheet_safe=spreadsheet_safe,
            backend=backend,
            engine=engine,
            client=client,
            memory=memory,
            scratch=scratch,
            device=device,
            device_memory=device_memory,
            n_workers=workers,
            n_threads=threads,
            gene_chunk_size=gene_chunk_size,
            is_log1p=is_log1p(is_log1p_),
            exp_post_agg=not no_exp_post_agg,
            clip_value=clip_value,
            progress=progress,
            **test_options(
                alternative=alternative,
                method=method,
                no_continuity=no_continuity,
                no_tie_correction=no_tie_correction,
                variance=variance,
                welch=welch,
                variant=variant,
                p_values=p_values,
                nan_policy=nan_policy,
            ),
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

        sys.stderr.write("".join(f"{line}\n" for line in end_of_run(result, seconds, backend)))
