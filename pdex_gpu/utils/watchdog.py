"""The command line's watchdog over HDF5, which loops forever on some damaged files.

HDF5 loops in C and holds Python's lock, so no thread or signal handler of this process runs, not
even Ctrl-C. So a separate process watches (:mod:`.watchdog_process`). It is told when HDF5 starts
and ends; if no end comes, it writes a message and ends this process. Only computing time counts,
because waiting for slow storage is not a sign of damage.
"""

from __future__ import annotations

import logging
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ..errors import OptionError
from .exit_codes import Exit

logger = logging.getLogger("pdex_gpu")

#: Environment variable: seconds of computing after which HDF5 counts as looping; 0: no watchdog.
STUCK_SECONDS = "PDEX_GPU_STUCK_SECONDS"
_DEFAULT = 300.0
_SIG_ERR = (1 << 8 * struct.calcsize("P")) - 1  # C's SIG_ERR, as an address


def stuck_seconds(environment: Mapping[str, str] | None = None) -> float:
    """Return the limit that the environment sets, or the default; OptionError if it is invalid."""
    text = (os.environ if environment is None else environment).get(STUCK_SECONDS, "").strip()
    if not text:
        return _DEFAULT
    with suppress(ValueError):
        if 0.0 <= (seconds := float(text)) < float("inf"):
            return seconds
    raise OptionError(
        f"{STUCK_SECONDS}={text!r} is not a number of seconds. Set it to one, or to 0 for no "
        "watchdog."
    )


class Watchdog:
    """A context manager that ends this process if HDF5 never finishes.

    Nothing is started before HDF5 is first called.

    Parameters
    ----------
    render : callable
        Returns what to write for a message: bytes, and whether to stderr instead of stdout.
    """

    def __init__(self, render: Callable[[str], tuple[bytes, bool]]) -> None:
        self._render = render
        self._process: subprocess.Popen[bytes] | None = None
        self._limit: float | None = None
        self._calls: list[str] = []  # calls in progress, the innermost last
        self._handler: _QuitHandler | None = None

    def __enter__(self) -> Self:
        global _active
        self._outer, _active = _active, self
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        global _active
        _active = self._outer
        if self._process is not None:
            self._give_up()

    @contextmanager
    def over(self, what: str) -> Iterator[None]:
        """Watch the block, in which HDF5 reads `what`."""
        self._begin()
        self._calls.append(what)
        self._tell()
        try:
            yield
        finally:
            self._calls.pop()
            self._tell()

    def _begin(self) -> None:
        if self._limit is None:
            self._limit = stuck_seconds()
            if self._limit:
                self._start(self._limit)

    def _tell(self) -> None:
        """Report what is read from now on; everything before it has ended."""
        if self._process is None or self._process.stdin is None or self._handler is None:
            return
        line = b"\n"
        if self._calls:
            self._handler.set()
            text, to_stderr = self._render(_message(self._calls[-1], self._limit))
            stream = 2 if to_stderr else 1
            line = f"{time.process_time():.3f} {stream} {text.hex()}\n".encode()
        else:
            self._handler.restore()
        try:
            os.write(self._process.stdin.fileno(), line)
        except BlockingIOError:  # it was stopped, and its pipe is full
            return
        except OSError:  # someone ended it
            self._give_up()

    def _start(self, limit: float) -> None:
        script = Path(__file__).with_name("watchdog_process.py")
        command = [sys.executable, "-I", "-S", str(script), str(os.getpid()), str(limit)]
        try:
            self._handler = _QuitHandler()
            self._process = subprocess.Popen(
                [*command, str(int(Exit.INPUT))],
                stdin=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,  # Ctrl-C must not reach it: it ends with this process
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )
        except OSError as error:
            logger.info("no watchdog for HDF5: %s", error)
            return
        if os.name == "posix":
            os.set_blocking(self._process.stdin.fileno(), False)  # type: ignore[union-attr]

    def _give_up(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        if self._handler is not None:
            self._handler.restore()
        with suppress(OSError):
            process.stdin.close()  # type: ignore[union-attr]
        process.wait()


class _QuitHandler:
    """A handler by which SIGQUIT ends this process, with the signal's number as the exit code.

    A Python handler would never run. So the C library's ``_exit`` is the handler. It is called
    with the number of the signal, which happens to be the documented exit code. Windows needs no
    handler: there, the call that ends a process sets the exit code.
    """

    def __init__(self) -> None:
        self._libc: Any = None
        self._before: int | None = None
        if os.name == "posix":
            import ctypes

            self._libc = ctypes.CDLL(None)
            self._libc.signal.restype = ctypes.c_void_p
            self._libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
            self._exit = ctypes.cast(self._libc._exit, ctypes.c_void_p)

    def set(self) -> None:
        if self._libc is not None and self._before is None:
            found = self._libc.signal(int(Exit.INPUT), self._exit)
            self._before = None if found == _SIG_ERR else found or 0

    def restore(self) -> None:
        if self._libc is not None and self._before is not None:
            self._libc.signal(int(Exit.INPUT), self._before)
            self._before = None


_active: Watchdog | None = None


@contextmanager
def watched(what: str) -> Iterator[None]:
    """Have the active watchdog, if any, watch the block, in which HDF5 reads `what`.

    Only in the main thread, which opens files; other threads compute and read the matrix.
    """
    if _active is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    with _active.over(what):
        yield


def _message(what: str, limit: float | None) -> str:
    return (
        f"{what} cannot be read: HDF5 has computed for {limit:g} seconds without finishing, as "
        "happens with some damaged files. Copy or download the file again. If it is intact but "
        f"very large, set {STUCK_SECONDS} to more seconds, or to 0 for no limit."
    )
