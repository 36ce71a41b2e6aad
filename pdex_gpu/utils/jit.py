"""The compilation of numba kernels, which run without the GIL; machine code is cached on disk.

If the cache cannot be read or written, or is damaged, the kernel is compiled again; nothing fails.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from .compile_events import watch_numba

logger = logging.getLogger("pdex_gpu")


def jit(function: Callable[..., Any]) -> Any:
    """Compile a kernel on first use and cache its machine code if possible."""
    import numba

    watch_numba()
    try:
        kernel = numba.njit(nogil=True, cache=True, error_model="numpy")(function)
    except RuntimeError as error:  # neither package folder nor home folder is writable
        logger.debug("%s: set NUMBA_CACHE_DIR to a writable folder to compile only once", error)
        return numba.njit(nogil=True, error_model="numpy")(function)
    if hasattr(kernel, "_cache"):  # missing if NUMBA_DISABLE_JIT is set
        kernel._cache = _Cache(kernel._cache)
    return kernel


class _Cache:
    """A kernel's cache. Its failures (a full disk, a truncated file) never reach the caller."""

    def __init__(self, cache: Any) -> None:
        self._cache = cache

    def load_overload(self, *args: Any) -> Any:
        """Return the machine code of a signature, or None to have it compiled."""
        try:
            return self._cache.load_overload(*args)
        except Exception as error:  # a damaged pickle can raise anything
            logger.debug("%s cannot be read, compiling: %s", self._cache.cache_path, error)
            return None

    def save_overload(self, *args: Any) -> None:
        """Store the machine code of a signature, if possible."""
        try:
            self._cache.save_overload(*args)
        except Exception as error:  # from the disk or the existing files
            logger.debug("%s cannot be written: %s", self._cache.cache_path, error)

    def __getattr__(self, name: str) -> Any:
        if name == "_cache":  # while being unpickled
            raise AttributeError(name)
        return getattr(self._cache, name)
