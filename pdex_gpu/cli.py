"""The command line: ``pdex-gpu run``, ``pdex-gpu demo`` and ``pdex-gpu backends``.

Calls the package and turns what happens into text and an exit code. This is the only module that
prints. Neither it nor what it imports at the top is heavy, so that ``--help`` and mistakes are
answered at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

from . import errors
from .arguments import build_parser
from .console import PROGRAM, describe_backend, format_table, messages, on_terminal
from .exits import Exit, exit_code


def run_file(args: argparse.Namespace) -> None:
    """``pdex-gpu run``: a file in, a file out."""
    started = time.perf_counter()
    shown = _notices(args)

    from . import differential_expression

    result = differential_expression(
        str(args.file),
        args.groupby,
        reference=args.reference,
        groups=args.groups,
        metric=args.metric,
        layer=args.layer,
        out=args.output,
        force=args.force,
        restart=args.restart,
        backend=args.backend,
        engine=args.engine,
        memory=args.memory,
        scratch=args.scratch,
        device=args.device,
        device_memory=args.device_memory,
        n_workers=args.workers,
        n_threads=args.threads,
        is_log1p={"auto": None, "yes": True, "no": False}[args.is_log1p],
        progress=shown,
        **_test_options(args),
    )
    if shown:
        sys.stderr.write(
            f"{len(result.targets):,} groups x {len(result.features):,} genes in "
            f"{time.perf_counter() - started:.2f} s: {result.path}\n"
            f"{describe_backend(result.provenance)}\n"
        )


def _test_options(args: argparse.Namespace) -> dict[str, Any]:
    """The options of the test that were given, as scipy names them."""
    options: dict[str, Any] = {}
    if args.alternative is not None:
        options["alternative"] = args.alternative
    if args.no_continuity:
        options["use_continuity"] = False
    if args.welch:
        options["equal_var"] = False
    return options


def show_demo(args: argparse.Namespace) -> None:
    """``pdex-gpu demo``."""
    from .demo import run_demo

    if args.perturbations > args.genes:
        raise errors.OptionError(
            f"--perturbations {args.perturbations} needs at least as many --genes; "
            f"got {args.genes}."
        )
    if args.cells < 2 * (args.perturbations + 1):
        raise errors.OptionError(
            f"--cells {args.cells} is too few for {args.perturbations} perturbations and a "
            f"reference; use at least {2 * (args.perturbations + 1)}."
        )
    if args.output.exists() and not args.output.is_dir():
        raise errors.OptionError(f"The output {str(args.output)!r} is a file. Name a folder.")
    run_demo(
        args.output,
        n_cells=args.cells,
        n_genes=args.genes,
        n_perturbations=args.perturbations,
        seed=args.seed,
        backend=args.backend,
        progress=on_terminal(sys.stderr),
        say=lambda text: print(text, flush=True),
    )


def show_backends(args: argparse.Namespace) -> None:
    """``pdex-gpu backends``."""
    from .backends.registry import backends, compile_kernels

    if args.compile:
        started = time.perf_counter()
        try:
            done = compile_kernels(args.device, args.arch)
        except errors.BackendError as error:
            if not args.arch:
                error.add_note("Where there is no device, name what to compile for: --arch sm_90")
            raise
        rows = [[name, arch, "compiled" if made else "was there"] for name, arch, made in done]
        print(format_table(["source", "architecture", ""], rows))
        print(f"{time.perf_counter() - started:.1f} s")
        return
    if args.device is not None or args.arch:
        raise errors.OptionError("--device and --arch belong to --compile.")
    rows = [[b.name, "yes" if b.usable else "no", b.device or "-", b.reason] for b in backends()]
    print(format_table(["backend", "usable", "device", "reason"], rows))


def _terminate(*_: object) -> NoReturn:
    """SIGTERM as an exception, so that temporary files and shared memory are cleaned up."""
    raise SystemExit(Exit.TERMINATED)


def _explain(error: BaseException) -> str:
    """The error as text: its message and notes; its class too if unexpected."""
    text = str(error)
    if not isinstance(error, errors.PdexGpuError):
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return "\n".join([text, *_notes(error)])


def _notes(error: BaseException) -> Sequence[str]:
    return getattr(error, "__notes__", ())


def _notices(args: argparse.Namespace) -> bool:
    """Whether someone is looking who has not asked for quiet."""
    return on_terminal(sys.stderr) and not getattr(args, "quiet", False)


COMMANDS = {"run": run_file, "demo": show_demo, "backends": show_backends}


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; those of the process if None.
    """
    args = build_parser().parse_args(argv)
    try:
        previous = signal.signal(signal.SIGTERM, _terminate)
    except ValueError:  # not the main thread
        previous = None
    try:
        with messages(verbose=args.verbose, notices=_notices(args)):
            COMMANDS[args.command](args)
        sys.stdout.flush()
        return Exit.OK
    except BrokenPipeError:  # the reader of the pipe has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return Exit.OK
    except KeyboardInterrupt as stop:
        sys.stderr.write("\n".join([f"{PROGRAM}: interrupted", *_notes(stop), ""]))
        return Exit.INTERRUPTED
    except Exception as error:
        if args.debug:
            traceback.print_exc()
        sys.stderr.write(f"{PROGRAM}: error: {_explain(error)}\n")
        return exit_code(error)
    finally:
        if previous is not None:
            signal.signal(signal.SIGTERM, previous)
