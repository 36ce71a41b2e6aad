"""Many cases, in processes of their own: one that hangs or dies ends its process alone."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection
from queue import SimpleQueue
from typing import Any

from .child import LIMIT, Done, driver_of, said, serve
from .verdict import HANG_IN_HDF5, Verdict

#: Seconds that a process may take until it is ready, kernels compiled.
_START = 1200.0
#: Seconds that it is given to end.
_END = 5.0


def campaign(driver: str, seeds: Iterable[int], jobs: int = 1) -> Iterator[Done]:
    """Run cases on `jobs` processes; gives them as they are done."""
    left = iter(seeds)
    done: SimpleQueue[Done | BaseException | None] = SimpleQueue()
    lock, stop = threading.Lock(), threading.Event()

    def take() -> int | None:
        with lock:
            return None if stop.is_set() else next(left, None)

    def work() -> None:
        try:
            with _Process(driver) as process:
                while (seed := take()) is not None:
                    done.put(process.run(seed))
        except BaseException as error:  # told by the caller's thread
            done.put(error)
        finally:
            done.put(None)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(jobs)]
    for thread in threads:
        thread.start()
    try:
        running = jobs
        while running:
            found = done.get()
            if isinstance(found, BaseException):
                raise found
            if found is None:
                running -= 1
            else:
                yield found
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def hangs_in_hdf5(printed: str) -> bool:
    """Whether the main thread of a process that hangs is in HDF5, as a traceback tells.

    HDF5 loops for ever on some damaged metadata. Nothing in its process can stop that; commands
    have a watchdog, calls are documented to have none.
    """
    main = printed.rpartition("(most recent call first):")[2].strip().partition("\n")[0]
    return "/h5py/" in main


class _Process:
    """A process that runs cases; another takes its place where it dies or hangs."""

    def __init__(self, driver: str) -> None:
        self._driver = driver
        self._limit = float(getattr(driver_of(driver), "LIMIT", LIMIT))
        self._process: Any = None

    def __enter__(self) -> _Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._end(asked=True)

    def run(self, seed: int) -> Done:
        if self._process is None:
            self._start()
        start = time.perf_counter()
        self._connection.send(seed)
        try:
            if self._connection.poll(self._limit):
                return self._connection.recv()
        except EOFError:
            seconds = time.perf_counter() - start
            self._process.join(5)
            line = f"death: exit code {self._process.exitcode}: {said(self._folder)}"
            self._end()
            return Done(seed, Verdict(problems=(line,)), seconds, 0)
        text = said(self._folder)
        self._end()
        if hangs_in_hdf5(text):
            return Done(seed, Verdict(HANG_IN_HDF5), self._limit, 0)
        line = f"hang: no answer after {self._limit:g} seconds: {text}"
        return Done(seed, Verdict(problems=(line,)), self._limit, 0)

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._folder = tempfile.mkdtemp(prefix="hostile-")
        self._connection: Connection
        self._connection, theirs = context.Pipe()
        # No daemon: cases start processes of their own.
        self._process = context.Process(target=serve, args=(self._driver, theirs, self._folder))
        self._process.start()
        theirs.close()
        if not self._connection.poll(_START):
            self._end()
            raise RuntimeError(f"the process of {self._driver!r} does not start")
        self._connection.recv()

    def _end(self, *, asked: bool = False) -> None:
        """End the process; kill it unless it is `asked`, and what it has started in any case."""
        if self._process is None:
            return
        if asked:
            with suppress(OSError):
                self._connection.send(None)
            self._process.join(_END)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)  # and what it has started
        self._process.join()
        self._connection.close()
        self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)
