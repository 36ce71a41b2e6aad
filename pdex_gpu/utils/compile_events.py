"""Tracking of kernel compilation in this process.

Runs show that they are compiling, and exclude that time from the speed they report.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

_lock = threading.Lock()
_listeners: list[Callable[[bool], object]] = []
_n_compiling = 0


@contextmanager
def compiling() -> Iterator[None]:
    """Mark a block as compiling a kernel; may be nested, and used by several threads at once."""
    try:
        _count(1)
        yield
    finally:
        _count(-1)


@contextmanager
def listening(listener: Callable[[bool], object]) -> Iterator[None]:
    """Call `listener` when compiling begins (True) and ends (False) while the block runs.

    It is called in the thread that compiles, and its exceptions are raised there.
    """
    with _lock:
        _listeners.append(listener)
        busy = _n_compiling > 0
    try:
        if busy:
            listener(True)
        yield
    finally:
        with _lock:
            _listeners.remove(listener)


def _count(n: int) -> None:
    global _n_compiling
    with _lock:
        before, _n_compiling = _n_compiling, _n_compiling + n
        if bool(before) == bool(_n_compiling):
            return
        listeners = list(_listeners)
    for listener in listeners:
        listener(n > 0)


@cache
def watch_numba() -> None:
    """Count what numba compiles from now on; cached code is not compiled and not counted."""
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]  # numba has no types
        def on_start(self, event: object) -> None:
            _count(1)

        def on_end(self, event: object) -> None:
            _count(-1)

    event.register("numba:compile", Listener())
