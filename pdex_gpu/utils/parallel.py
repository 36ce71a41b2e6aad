"""Maps that spread work over threads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

#: ``map`` or the ``map`` of a pool: calls a function on each item and yields results in order.
Map = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]


def pool_map(pool: ThreadPoolExecutor) -> Map:
    """Return the ``map`` of a pool that starts no further call once one has failed."""

    def run_map(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        futures: list[Future[Any]] = [pool.submit(function, item) for item in items]
        try:
            for i in range(len(futures)):
                yield futures[i].result()
        finally:  # keep none: an error's traceback refers to this frame
            while futures:
                futures.pop().cancel()

    return run_map
