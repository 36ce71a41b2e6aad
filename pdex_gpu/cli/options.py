"""The options that commands share: names, types, help, completion.

Help texts stay within 50 characters, because terminals wrap longer ones.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from ..design.comparisons.registry import comparison_names
from . import parsers

COMPARE, TEST, ROWS, RUN, OUTPUT, SHOW = (
    "Compare",
    "Test",
    "Columns, correction, filters",
    "Where to run",
    "Output",
    "Messages",
)

#: Values of options, as in the library.
METRICS = ("wilcoxon", "anderson", "t-test", "ks")
ALTERNATIVES = ("two-sided", "less", "greater")
METHODS = ("auto", "asymptotic", "exact")
NAN_POLICIES = ("raise", "omit", "propagate")
VARIANCES = ("pooled", "welch", "overestimated")
VARIANTS = ("midrank", "right", "continuous")
P_VALUES = ("asymptotic", "interpolated")
ALLOWED = ("external", "unwritten")
FDR_METHODS = ("benjamini-hochberg", "benjamini-yekutieli", "bonferroni")
FDR_SCOPES = ("all", "target", "gene")
ENGINES = ("auto", "threads", "shared_memory", "serial", "streams", "dask")
YES_NO = ("auto", "yes", "no")


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


def choice(
    names: str, choices: tuple[str, ...] | Callable[[], tuple[str, ...]], help: str, panel: str
) -> Any:
    """Make an option with one of a few values, which shells complete.

    `choices` may be a function that returns them, for names that can be registered later.
    """
    values = choices if callable(choices) else lambda: choices
    return option(
        names,
        "NAME",
        help,
        panel,
        parser=parsers.one_of(values),
        autocompletion=_completer(values),
    )


def _completer(choices: Callable[[], tuple[str, ...]]) -> Callable[[str], list[str]]:
    def complete(incomplete: str) -> list[str]:
        return [name for name in choices() if name.startswith(incomplete)]

    return complete


def _complete_columns(incomplete: str) -> list[str]:
    from ..results.schema import EXTRA

    done, comma, begun = incomplete.rpartition(",")
    return [done + comma + name for name in ("all", *EXTRA) if name.startswith(begun)]


def backends() -> list[str]:
    """Return the values of ``--backend``; looked up when needed, as other packages add some."""
    from ..backends.registry import AUTO, names

    return [AUTO, *names()]


def _backend(text: str) -> str:
    return parsers.one_of(*backends())(text)


def _complete_backends(incomplete: str) -> list[str]:
    return _completer(tuple(backends()))(incomplete)


Screen = Annotated[
    str,  # a path, or a URL, which Path would corrupt
    typer.Argument(metavar="FILE", help="input screen: .h5ad or zarr; it is never modified"),
]
Results = Annotated[
    Path, typer.Argument(metavar="RESULTS", help="a .parquet results file written by `run`")
]

# What is compared.
Groupby = Annotated[
    list[str] | None,
    option("--groupby", "COL", "obs column of groups; repeat: compare within levels", COMPARE),
]
Reference = Annotated[
    list[str] | None,
    option("--reference", "NAME", "reference [non-targeting]; repeat to pool several", COMPARE),
]
Groups = Annotated[
    list[str] | None, option("--groups", "NAME", "test only this group; repeat for more", COMPARE)
]
Strata = Annotated[
    str | None, option("--strata", "COL", "stratify by this obs column, such as batch", COMPARE)
]
Layer = Annotated[str | None, option("--layer", "NAME", "use this layer instead of X", COMPARE)]
Allow = Annotated[
    list[str] | None,
    choice("--allow", ALLOWED, "accept data not in the file: external, unwritten", COMPARE),
]
Comparison = Annotated[
    str | None,
    choice("--comparison", comparison_names, ", ".join(comparison_names()), COMPARE),
]
Pairs = Annotated[
    list[str] | None,
    option("--pairs", "A:B|FILE", "A vs B; or .csv, .tsv with target and reference", COMPARE),
]
Guides = Annotated[
    str | None, option("--guides", "NAME", "guide matrix in obsm, instead of --groupby", COMPARE)
]
OnTarget = Annotated[
    str | None,
    option("--on-target", "COL", "test each group only at the gene in this column", COMPARE),
]

# The test.
Metric = Annotated[str, choice("--metric", METRICS, "wilcoxon, anderson, t-test or ks", TEST)]
Alternative = Annotated[
    str | None, choice("--alternative", ALTERNATIVES, "two-sided, less or greater", TEST)
]
IsLog1p = Annotated[
    str,
    choice("--is-log1p", YES_NO, "are values log1p? auto: infer from the values", TEST),
]
Method = Annotated[
    str | None, choice("--method", METHODS, "Wilcoxon: auto, asymptotic or exact", TEST)
]
NoContinuity = Annotated[bool, flag("--no-continuity", "Wilcoxon: no continuity correction", TEST)]
NoTieCorrection = Annotated[bool, flag("--no-tie-correction", "Wilcoxon: no tie correction", TEST)]
Variance = Annotated[
    str | None, choice("--variance", VARIANCES, "t-test: pooled, welch or overestimated", TEST)
]
NanPolicy = Annotated[
    str | None, choice("--nan-policy", NAN_POLICIES, "NaN: raise, omit or propagate", TEST)
]
Welch = Annotated[bool, flag("--welch", "short for --variance welch", TEST)]
Variant = Annotated[
    str | None, choice("--variant", VARIANTS, "anderson: midrank, right or continuous", TEST)
]
PValues = Annotated[
    str | None, choice("--p-values", P_VALUES, "anderson: asymptotic or interpolated", TEST)
]
NoExpPostAgg = Annotated[
    bool, flag("--no-exp-post-agg", "log1p data: mean of expm1, not expm1 of mean", TEST)
]
ClipValue = Annotated[
    Any,
    option("--clip-value", "X", "fold change reported if a mean is 0; or none", TEST,
           parser=parsers.number_or_none),
]  # fmt: skip

# Rows and columns of the table.
Columns = Annotated[
    list[str] | None,
    option("--columns", "NAMES", "extra columns, such as auroc,log10_p; or all", ROWS,
           autocompletion=_complete_columns),
]  # fmt: skip
Confidence = Annotated[
    float, option("--confidence", "X", "confidence level of intervals", ROWS, parser=parsers.number)
]
Pseudocount = Annotated[
    float,
    option("--pseudocount", "X", "for log2_fold_change_geometric", ROWS, parser=parsers.number),
]
FdrMethod = Annotated[
    str, choice("--fdr-method", FDR_METHODS, "or benjamini-yekutieli, bonferroni", ROWS)
]
FdrScope = Annotated[
    str, choice("--fdr-scope", FDR_SCOPES, "rows corrected together: all, target or gene", ROWS)
]
MinCells = Annotated[
    int,
    option("--min-cells", "N", "minimum number of cells on each side", ROWS,
           parser=parsers.at_least_one),
]  # fmt: skip
MinFraction = Annotated[
    float | None,
    option("--min-fraction", "X", "keep rows expressed in >= this fraction of cells", ROWS,
           parser=parsers.number),
]  # fmt: skip
MinCpm = Annotated[
    float | None,
    option("--min-cpm", "X", "keep rows with more counts per million than this", ROWS,
           parser=parsers.number),
]  # fmt: skip

# Where to run.
Backend = Annotated[
    str,
    option("--backend", "NAME", f'see "{parsers.PROGRAM} backends"', RUN, parser=_backend,
           autocompletion=_complete_backends),
]  # fmt: skip
Engine = Annotated[
    str, choice("--engine", ENGINES, "threads, shared_memory, serial, streams, dask", RUN)
]
Client = Annotated[
    str | None, option("--client", "ADDRESS", "Dask scheduler, with --engine dask", RUN)
]
Threads = Annotated[
    int | None,
    option("--threads", "N", "threads per range of genes [all available]", RUN,
           parser=parsers.at_least_one),
]  # fmt: skip
Workers = Annotated[
    int | None,
    option("--workers", "N", "ranges of genes (processes) to run in parallel", RUN,
           parser=parsers.at_least_one),
]  # fmt: skip
GeneChunkSize = Annotated[
    int | None,
    option(
        "--gene-chunk-size",
        "N",
        "maximum number of genes per range",
        RUN,
        parser=parsers.at_least_one,
    ),
]
Memory = Annotated[
    int | None,
    option("--memory", "SIZE", "memory to use, such as 4GB [half of free memory]", RUN,
           parser=parsers.memory_size),
]  # fmt: skip
Scratch = Annotated[
    Path | None,
    option("--scratch", "DIR", "for data larger than memory [temporary folder]", RUN),
]
Device = Annotated[
    Any | None,
    option("--device", "N,...|all", "CUDA device numbers [first usable]", RUN,
           parser=parsers.devices),
]  # fmt: skip
DeviceMemory = Annotated[
    int | None,
    option("--device-memory", "SIZE", "memory per device, such as 40GB [90 % of free]", RUN,
           parser=parsers.memory_size),
]  # fmt: skip

Fdr = Annotated[
    float, option("--fdr", "X", "FDR threshold for hits", SHOW, parser=parsers.fraction)
]
Force = Annotated[bool, flag("--force", "replace an existing output", OUTPUT)]

# Output to the terminal; `help.HelpfulCommand` and `main` handle --verbose and --debug.
Quiet = Annotated[bool, flag("--quiet -q", "show only errors", SHOW)]
Verbose = Annotated[bool, flag("--verbose -v", "log each step to stderr", SHOW)]
Json = Annotated[bool, flag("--json", "one JSON document on stdout, also for errors", SHOW)]
Debug = Annotated[bool, flag("--debug", "show the traceback of an error", SHOW)]
