"""Worker processes: each has its own pipe, and all end with the process that started them.

A worker that dies is noticed at once, even in the middle of an answer, because no other process
holds its end of the pipe. Nothing here has a name that could outlive the processes.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from multiprocessing.spawn import get_executable
from typing import Any

from ..errors import PdexGpuError, WorkerError

_LOOK = 1.0  # seconds between checks of a worker's parent
_PATIENCE = 10.0  # seconds to wait until an ended process is reaped


def why_no_processes() -> str | None:
    """Return why this process cannot start others, in words; None if it can."""
    here = multiprocessing.current_process()
    if here.daemon:
        return (
            "this process is itself a daemonic worker (of Celery, multiprocessing.Pool or a Dask "
            "nanny), which cannot start child processes"
        )
    if getattr(here, "_inheriting", False):
        return (
            "this process is a worker that is still importing the program. Guard the program with "
            "`if __name__ == '__main__':`"
        )
    if not get_executable():
        return "Python does not know the path of its interpreter (sys.executable is empty)"
    return None


class _Worker:
    """A worker process, our end of its pipe, and the number of answers it owes."""

    def __init__(self, function: Callable[[Any, int], Any], argument: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        # Daemonic: not waited for if an exception in another thread ends this process.
        self.process: BaseProcess = context.Process(
            target=_serve, args=(theirs, function, argument), daemon=True
        )
        self.owes = 0
        try:
            self.process.start()
        finally:
            theirs.close()  # so that the pipe ends with the worker

    def give(self, item: int) -> None:
        try:
            self.connection.send(item)
        except OSError as error:
            raise self.died() from error
        self.owes += 1

    def take(self) -> tuple[int, Any, str]:
        try:
            answer: tuple[int, Any, str] = self.connection.recv()
        except (EOFError, OSError) as error:
            raise self.died() from error
        self.owes -= 1
        return answer

    def died(self) -> WorkerError:
        self.process.join(_PATIENCE)
        return _died(self.process.exitcode)

    def end(self, *, at_once: bool) -> None:
        self.connection.close()  # this ends an idle worker
        if at_once:
            self.process.kill()
        self.process.join()
        self.process.close()


def results(
    n_workers: int, function: Callable[[Any, int], Any], argument: Any, items: Sequence[int]
) -> Generator[tuple[int, Any]]:
    """Yield each item with the result of `function` in a worker, in order of completion.

    Workers end with the iterator: they exit after the last result, and are killed if the iterator
    is closed or an error passes through it.

    Parameters
    ----------
    n_workers : int
    function : callable
        Called in workers with `argument` and an item.
    argument : object
        Sent to each worker once.
    items : sequence of int

    Raises
    ------
    WorkerError
        If a worker died or could not be started.
    Exception
        The exception that `function` raised, with the traceback in the worker as its cause.
    """
    left = deque(items)
    workers: list[_Worker] = []
    complete = False
    try:
        with _program_left_alone(), _undisturbed():
            for _ in range(min(n_workers, len(left))):
                workers.append(_start(function, argument))
        for worker in workers:
            _fill(worker, left, n_workers)
        while any(worker.owes for worker in workers):
            ready = set(wait([x for w in workers for x in (w.connection, w.process.sentinel)]))
            for worker in workers:
                if worker.connection in ready:
                    item, answer, trace = worker.take()
                    if trace:
                        raise answer from _TracebackThere(trace)
                    _fill(worker, left, n_workers)
                    yield item, answer
                elif worker.process.sentinel in ready:
                    raise worker.died()
        complete = True
    finally:
        for worker in workers:
            worker.end(at_once=not complete)


def _start(function: Callable[[Any, int], Any], argument: Any) -> _Worker:
    try:
        return _Worker(function, argument)
    except BrokenPipeError as error:  # it ended before it had read its task
        raise _died(None) from error
    except OSError as error:
        if isinstance(error, PdexGpuError):
            raise
        raise WorkerError(
            f"engine='shared_memory' could not start worker processes: {error}. Use "
            "engine='threads', or fewer workers."
        ) from error


def _fill(worker: _Worker, left: deque[int], n_workers: int) -> None:
    """Give a worker an item to do now, and one to do next while there are enough for all."""
    while left and worker.owes < (2 if len(left) > n_workers else 1):
        worker.give(left.popleft())


def _died(code: int | None) -> WorkerError:
    if code is None:
        end = "it could not start"
    elif code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        end = f"it was ended by {name}"
        if name == "SIGKILL":
            end += ", which the system sends when memory runs out"
    else:
        end = f"it ended with exit code {code}"
    return WorkerError(
        f"A worker process of engine='shared_memory' died before its results were complete: {end}. "
        "In a script, guard the call with `if __name__ == '__main__':`, because worker processes "
        "import the script again. Otherwise, use fewer workers or engine='threads'."
    )


class _TracebackThere(Exception):
    """The traceback of an error in a worker."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


@contextmanager
def _program_left_alone() -> Iterator[None]:
    """Keep workers started within the block from importing a program that is in no file.

    A program from standard input gives ``<stdin>`` as its file, which no worker could open. Workers
    need nothing from it.
    """
    main = sys.modules["__main__"]
    file = getattr(main, "__file__", None)
    if file is None or main.__spec__ is not None or os.path.isfile(file):
        yield
        return
    with _starting:
        del main.__file__
        try:
            yield
        finally:
            main.__file__ = file


# Only one thread at a time may hide what `multiprocessing.spawn` looks for in `__main__`.
_starting = threading.Lock()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Make processes started within the block ignore Ctrl-C, which this process handles."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# --- in a worker ---------------------------------------------------------------------------


def _serve(connection: Connection, function: Callable[[Any, int], Any], argument: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    with suppress(EOFError, OSError):  # the other end was closed: there is no more work
        while True:
            item = connection.recv()
            connection.send_bytes(_answer(item, function, argument))


def _answer(item: int, function: Callable[[Any, int], Any], argument: Any) -> Any:
    try:
        return ForkingPickler.dumps((item, function(argument, item), ""))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error))
        try:
            answer = ForkingPickler.dumps((item, error, trace))
            ForkingPickler.loads(answer)
        except Exception:  # its class cannot be sent
            told = WorkerError(f"{type(error).__name__} in a worker process: {error}")
            answer = ForkingPickler.dumps((item, told, trace))
        return answer


def _end_with_parent() -> None:
    """End this process when its parent has ended, even in the middle of work."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(
        target=_watch, args=(parent.sentinel, parent.pid), name="parent", daemon=True
    ).start()


def _watch(sentinel: int, parent: int) -> None:
    # A fork of the parent keeps the sentinel from signalling, so compare the parent's id as well.
    # The parent may have ended before this process got here.
    while not wait([sentinel], _LOOK) and os.getppid() == parent:
        pass
    os._exit(1)
