"""The command line: runs a command, and turns its outcome into text and an exit code.

:mod:`.app` assembles the program from the modules in ``commands``; :mod:`.options` makes options
from the groups of a call, :mod:`.help` shows them. May import every other subpackage. Imports at
the top of its modules are light, so that ``--help`` and usage errors are answered at once.

To add a command, write a module in ``commands`` and add a line to ``COMMANDS`` in :mod:`.app`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeGuard

from .. import errors
from ..utils.exit_codes import Exit, exit_code
from ..utils.formats import PROGRAM
from ..utils.watchdog import Watchdog

#: The environment variable by which a shell asks for completions.
_COMPLETE = "_PDEX_GPU_COMPLETE"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code.

    Parameters
    ----------
    argv : sequence of str, optional
        The arguments; by default those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    _open_streams()
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) == "strict":  # names that the terminal cannot encode
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    as_json = _asked(arguments, "--json")
    with _signals_as_exceptions(), Watchdog(lambda text: _of_watchdog(text, as_json)):
        try:
            code = _call(arguments)
            sys.stdout.flush()
            return code
        except BrokenPipeError:  # the reader of the pipe has all it needs
            _give_up_output()
            return Exit.OK
        except (Exception, KeyboardInterrupt) as caught:
            error: BaseException = caught
            if _is_of_output(caught):
                _give_up_output()
                error = errors.OutputError(
                    f"Cannot write to standard output: {caught.strerror}. Free space on that "
                    "disk, or redirect the output elsewhere."
                )
            if _asked(arguments, "--debug") and isinstance(error, Exception):
                traceback.print_exc()
            return _report(error, as_json=as_json)


def _open_streams() -> None:
    """Discard output to a closed stream (``>&-``), for which Python has None."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 (kept)


def _is_of_output(error: BaseException) -> TypeGuard[OSError]:
    """Return whether the disk of standard output is full; for files, we raise our own error."""
    own = sys.stdout is sys.__stdout__  # not replaced by the caller of `main`
    return own and type(error) is OSError and error.errno in _DISK_FULL


def _give_up_output() -> None:
    """Discard the remaining output, so that Python does not try to write it again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _call(arguments: list[str]) -> int:
    import typer

    from .app import make_app

    if os.environ.get(_COMPLETE):
        make_app().main(arguments, prog_name=PROGRAM)  # exits
    app = make_app(only=next((word for word in arguments if not word.startswith("-")), ""))
    try:
        with app.make_context(PROGRAM, list(arguments) or ["--help"]) as context:
            app.invoke(context)
    except typer.Exit as stop:
        return Exit.USAGE if not arguments else stop.exit_code
    return Exit.OK


def _report(error: BaseException, *, as_json: bool) -> int:
    """Print what went wrong and return the exit code."""
    code, name, text = _explained(error)
    if as_json:
        from .json_output import error_document, write_json

        write_json(error_document(code, name, text))
    elif isinstance(error, KeyboardInterrupt):
        sys.stderr.write(f"{PROGRAM}: {text}\n")
    else:
        sys.stderr.write(f"{PROGRAM}: error: {text}\n")
    return code


def _of_watchdog(text: str, as_json: bool) -> tuple[bytes, bool]:
    """Return what the watchdog writes instead of `_report`, and whether to standard error."""
    if as_json:
        from .json_output import error_document, json_line

        document = error_document(Exit.INPUT, errors.FileFormatError.__name__, text)
        return json_line(document).encode(), False
    return f"{PROGRAM}: error: {text}\n".encode("utf-8", "backslashreplace"), True


def _explained(error: BaseException) -> tuple[Exit, str, str]:
    """Return exit code, class and text of an error: message and notes, plus class if unexpected."""
    name = type(error).__name__
    if isinstance(error, KeyboardInterrupt):
        return Exit.INTERRUPTED, name, "\n".join(["interrupted", *_notes(error)])
    if _is_usage_error(error):
        return Exit.USAGE, "UsageError", _usage_text(error)
    text = str(error)
    if not isinstance(error, errors.PdexGpuError):
        text = f"{name}: {text}" if text else name
    return exit_code(error), name, "\n".join([text, *_notes(error)])


def _is_usage_error(error: BaseException) -> bool:
    import typer

    # Typer bundles Click, and exports its UsageError under no other public name.
    return isinstance(error, typer.BadParameter.__mro__[1])


def _usage_text(error: Any) -> str:
    context = error.ctx
    path = PROGRAM if context is None else context.command_path
    text = " ".join(error.format_message().split()).removesuffix(".")
    option = getattr(error, "option_name", None)
    if option and context is not None and hasattr(error, "possibilities"):  # it does not exist
        text = f"{error.message}.{_meant(option, context)}{_others_with(option)}"
        text = text.removesuffix(".")
    return f"{text}{'' if text.endswith('?') else '.'} See: {path} --help"


def _meant(option: str, context: Any) -> str:
    """Return a text that names the options that begin like this one, or are spelt like it."""
    names = {
        name.lstrip("-"): name
        for param in context.command.get_params(context)
        for name in (*param.opts, *param.secondary_opts)
        if name.startswith("--") and not param.hidden
    }
    asked = option.lstrip("-")
    if len(asked) < 2:
        return ""
    begun = [name for name in names if name.startswith(asked)]
    found = [names[name] for name in (begun or errors.close_matches(asked, list(names)))[:3]]
    return f" Did you mean {' or '.join(found)}?" if found else ""


def _others_with(option: str) -> str:
    """Return a text that names the commands that have an option which this command lacks."""
    from .app import make_app

    have = [
        name
        for name, command in make_app().commands.items()
        if any(option in param.opts for param in command.params)
    ]
    return (
        f" {' and '.join(map(repr, have))} {'has' if len(have) == 1 else 'have'} it" if have else ""
    )


def _notes(error: BaseException) -> Sequence[str]:
    return getattr(error, "__notes__", ())


def _asked(arguments: Sequence[str], flag: str) -> bool:
    """Return whether a flag was given, even if the arguments cannot be parsed."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    return flag in arguments[:end]


# Signals that end a process: from a scheduler or `kill`, and from a terminal that was closed.
_ENDING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def _terminate(*_: object) -> NoReturn:
    """Exit by an exception, so that worker processes and temporary files are cleaned up."""
    for number in _ENDING:  # `timeout` and others send it twice; this must not stop the cleanup
        signal.signal(number, signal.SIG_IGN)
    raise SystemExit(Exit.TERMINATED)


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    previous = {number: signal.getsignal(number) for number in _ENDING}
    try:
        for number, handler in previous.items():
            # SIG_IGN comes from `nohup`; None is a handler of C code, which cannot be restored.
            if handler not in (signal.SIG_IGN, None):
                signal.signal(number, _terminate)
    except ValueError:  # not the main thread
        yield
        return
    try:
        yield
    finally:
        for number, handler in previous.items():
            if handler is not None:
                signal.signal(number, handler)
