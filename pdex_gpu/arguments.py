"""The arguments of the command line: their names, types, defaults and help."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from . import __version__
from .console import PROGRAM
from .errors import OptionError
from .exits import EXIT_CODES
from .machine import memory_budget

DESCRIPTION = "Differential expression for single-cell perturbation screens."

MAIN_EXAMPLES = f"""\
examples:
  {PROGRAM} run screen.h5ad --groupby target_gene --reference non-targeting -o results.parquet
  {PROGRAM} demo
  {PROGRAM} backends

"{PROGRAM} COMMAND --help" explains each command.
"""

RUN_EXAMPLES = f"""\
examples:
  Every perturbation against the controls, as Parquet:
    {PROGRAM} run screen.h5ad --groupby target_gene --reference non-targeting -o results.parquet
  Two perturbations, t-test without the assumption of equal variances, as a table of text:
    {PROGRAM} run screen.h5ad --groupby gene --reference NT --groups STAT1 IRF1 \\
        --metric t-test --welch -o results.tsv
  A layer, on two threads and with at most 4 GB for the blocks in work:
    {PROGRAM} run screen.h5ad --groupby gene --reference NT --layer log1p \\
        --threads 2 --memory 4GB -o results.csv
  A screen larger than memory, with room for what is sorted aside on another disk:
    {PROGRAM} run screen.h5ad --groupby gene --reference NT \\
        --memory 8GB --scratch /local/scratch -o results.parquet

Results are written as they are made. What is computed is kept beside the output, in the folder
.NAME.checkpoint, until the output is complete: after a crash, a kill or a full disk the same
command carries on. The output has its name once it is complete, and not before.
"""

DEMO_EXAMPLES = f"""\
examples:
  {PROGRAM} demo
  {PROGRAM} demo --cells 50000 --genes 5000 --perturbations 200 --seed 1 -o big-demo
"""

BACKENDS_EXAMPLES = f"""\
examples:
  {PROGRAM} backends
  PDEX_GPU_BACKEND=reference {PROGRAM} run ...   (overrides "auto" for one run)
  {PROGRAM} backends --compile                   (for the device of this machine)
  {PROGRAM} backends --compile --arch sm_80 sm_90

CUDA kernels are compiled when they are first used and kept in the folder that CUPY_CACHE_DIR names
(~/.cupy/kernel_cache by default). --compile does it ahead of time. Without --arch it needs a device
that can be used. With --arch it needs CuPy alone, neither device nor driver: so it also runs while
an image is built. Set CUPY_CACHE_DIR to a folder of the image, when building and when running.
"""


def memory_size(text: str) -> int:
    """Bytes from ``4GB``, ``512MiB`` or a plain number."""
    try:
        return memory_budget(text)
    except OptionError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a size; write bytes, or a number with a unit as in 4GB or 512MiB"
        ) from None


def at_least_one(text: str) -> int:
    """A whole number above zero."""
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return number


def device_number(text: str) -> int:
    """The number of a device."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(
            f"{text!r} is not the number of a device; nvidia-smi lists them, the first is 0"
        )
    return int(text)


def architecture(text: str) -> str:
    """``sm_90`` from ``sm_90``, ``90`` or ``9.0``."""
    found = re.fullmatch(r"(?:sm_)?(\d{1,2})\.?(\d)", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text!r} is not an architecture; write it as sm_90")
    return f"sm_{found[1]}{found[2]}"


def _command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    summary: str,
    examples: str,
) -> argparse.ArgumentParser:
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"{examples}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("-v", "--verbose", action="store_true", help="log each step to stderr")
    return parser


def build_parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    parser = argparse.ArgumentParser(
        prog=PROGRAM,
        description=DESCRIPTION,
        epilog=f"{MAIN_EXAMPLES}\n{EXIT_CODES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    _add_run(commands)
    _add_demo(commands)
    _add_backends(commands)
    return parser


def _add_run(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = _command(
        commands,
        "run",
        "compare each group of cells with the reference, gene by gene",
        RUN_EXAMPLES,
    )
    run.add_argument("file", metavar="FILE", type=Path, help="the .h5ad file; never changed")

    what = run.add_argument_group("what to compare")
    what.add_argument(
        "--groupby",
        required=True,
        metavar="COL",
        help="column of obs that holds the group of each cell",
    )
    what.add_argument(
        "--reference",
        default="non-targeting",
        metavar="NAME",
        help="the group to compare with (default: %(default)s)",
    )
    what.add_argument(
        "--groups",
        nargs="+",
        metavar="NAME",
        help="only these groups (default: all but the reference)",
    )
    what.add_argument("--layer", metavar="NAME", help="a layer instead of X")

    how = run.add_argument_group("test")
    how.add_argument(
        "--metric",
        choices=("wilcoxon", "anderson", "t-test", "ks"),
        default="wilcoxon",
        help="the test (default: %(default)s)",
    )
    how.add_argument(
        "--alternative",
        choices=("two-sided", "less", "greater"),
        help="of the Wilcoxon and the t-test (default: two-sided)",
    )
    how.add_argument(
        "--no-continuity", action="store_true", help="Wilcoxon without the continuity correction"
    )
    how.add_argument(
        "--welch", action="store_true", help="t-test without the assumption of equal variances"
    )
    how.add_argument(
        "--is-log1p",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether values are log1p; decides how means are computed "
        "(default: auto, yes where values have fractions)",
    )

    where = run.add_argument_group("where to run")
    where.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help=f'see "{PROGRAM} backends" (default: %(default)s)',
    )
    where.add_argument(
        "--engine",
        default="auto",
        metavar="NAME",
        help="threads, shared_memory or serial; streams with CUDA (default: %(default)s)",
    )
    where.add_argument(
        "--threads",
        type=at_least_one,
        metavar="N",
        help="threads on each range of genes (default: all that this process may use)",
    )
    where.add_argument(
        "--workers",
        type=at_least_one,
        metavar="N",
        help="ranges of genes worked on at once: processes in the shared_memory engine",
    )
    where.add_argument(
        "--memory",
        type=memory_size,
        metavar="SIZE",
        help="budget for the blocks in work, as 4GB or 512MiB",
    )
    where.add_argument(
        "--scratch",
        type=Path,
        metavar="DIR",
        help="folder for what does not fit in memory while the file is read "
        "(default: the system's temporary one)",
    )
    where.add_argument(
        "--device",
        type=device_number,
        metavar="N",
        help="number of the CUDA device (default: the first that can be used)",
    )
    where.add_argument(
        "--device-memory",
        type=memory_size,
        metavar="SIZE",
        help="memory to use on the CUDA device, as 40GB",
    )

    out = run.add_argument_group("output")
    out.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="FILE",
        help="the results; .parquet, .csv or .tsv chooses the format",
    )
    out.add_argument(
        "--force",
        action="store_true",
        help="replace an existing output; it stays until the new one is complete",
    )
    out.add_argument(
        "--restart",
        action="store_true",
        help="throw away what an earlier, unfinished run left beside the output",
    )
    out.add_argument(
        "-q", "--quiet", action="store_true", help="no progress and no summary, also on a terminal"
    )


def _add_demo(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    demo = _command(
        commands, "demo", "simulate a screen, analyse it and show the strongest hits", DEMO_EXAMPLES
    )
    demo.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("pdex-gpu-demo"),
        metavar="DIR",
        help="folder for the screen and the results (default: %(default)s)",
    )
    for name, default in (("cells", 10_000), ("genes", 2_000), ("perturbations", 50)):
        demo.add_argument(
            f"--{name}",
            type=at_least_one,
            default=default,
            metavar="N",
            help="default: %(default)s",
        )
    demo.add_argument(
        "--seed", type=int, default=0, metavar="N", help="of the simulation (default: %(default)s)"
    )
    demo.add_argument(
        "--backend",
        default="auto",
        metavar="NAME",
        help=f'see "{PROGRAM} backends" (default: %(default)s)',
    )


def _add_backends(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backends = _command(
        commands, "backends", "list the backends and why each can or cannot run", BACKENDS_EXAMPLES
    )
    backends.add_argument(
        "--compile", action="store_true", help="compile the CUDA kernels ahead of time"
    )
    target = backends.add_mutually_exclusive_group()
    target.add_argument(
        "--device",
        type=device_number,
        metavar="N",
        help="with --compile: for this device (default: the first that can be used)",
    )
    target.add_argument(
        "--arch",
        nargs="+",
        default=[],
        type=architecture,
        metavar="ARCH",
        help="with --compile: for these architectures instead, as sm_80 sm_90",
    )
