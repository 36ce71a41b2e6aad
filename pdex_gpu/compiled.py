"""How every numba kernel is compiled: without the GIL, its machine code kept on disk.

A cache that cannot be written or read, or is damaged, costs a compilation and nothing else.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .compiling import watch_numba

logger = logging.getLogger("pdex_gpu")


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel on first use, with its machine code cached where that is possible."""
    import numba

    watch_numba()
    try:
        kernel = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError as error:  # neither the package folder nor a home folder is writable
        logger.debug("%s: set NUMBA_CACHE_DIR to a writable folder to compile only once", error)
        return numba.njit(nogil=True, error_model="numpy")(function)
    if hasattr(kernel, "_cache"):  # not where NUMBA_DISABLE_JIT is set
        kernel._cache = _Cache(kernel._cache)
    return kernel


class _Cache:
    """The cache of a kernel, whose troubles are not the caller's: a full disk, a torn file."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, *args: Any) -> Any:
        """The machine code of a signature; None to have it compiled."""
        try:
            return self._cache.load_overload(*args)
        except Exception as error:  # whatever a damaged pickle raises
            logger.debug("%s cannot be read, compiling: %s", self._cache.cache_path, error)
            return None

    def save_overload(self, *args: Any) -> None:
        """Keep the machine code of a signature, if that can be."""
        try:
            self._cache.save_overload(*args)
        except Exception as error:  # the disk's, or of what was there
            logger.debug("%s cannot be written: %s", self._cache.cache_path, error)

    def __getattr__(self, name: str) -> Any:
        if name == "_cache":  # while being unpickled
            raise AttributeError(name)
        return getattr(self._cache, name)
