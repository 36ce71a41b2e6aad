"""Checks of the folders where compiled kernels are cached."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from ..backends.cuda import compile_cache
from .base import NOTE, OK, Check
from .cuda import found_cupy

TOPIC = "Caches"

_KERNELS = Path(__file__).resolve().parents[1] / "backends" / "cpu"


def checks() -> Iterator[Check]:
    """Check the cache of CPU kernels, and that of CUDA kernels where CuPy is installed."""
    yield cpu_cache(os.environ)
    if found_cupy():
        yield cuda_cache(compile_cache.folder())


def cpu_cache(
    environment: Mapping[str, str], package: Path = _KERNELS, home: Path | None = None
) -> Check:
    """Find numba's cache: like numba, take the first folder that is writable."""
    named = environment.get("NUMBA_CACHE_DIR")
    if named:
        places = [Path(named)]
    else:
        user = environment.get("XDG_CACHE_HOME")
        base = Path(user) if user else (home or Path.home()) / ".cache"
        places = [package / "__pycache__", base / "numba"]
    for place in places:
        if writable(place):
            return Check(TOPIC, "CPU kernels", OK, f"kept in {place}")
    found = f"cannot write to {' or '.join(map(str, places))}, so every process compiles again"
    fix = "export NUMBA_CACHE_DIR=/path/to/a/writable/folder"
    return Check(TOPIC, "CPU kernels", NOTE, found, fix)


def cuda_cache(folder: Path) -> Check:
    """Check the folder that caches compiled CUDA kernels."""
    if not writable(folder):
        found = f"cannot write to {folder}, so every process compiles again"
        fix = "export CUPY_CACHE_DIR=/path/to/a/writable/folder"
        return Check(TOPIC, "CUDA kernels", NOTE, found, fix)
    n = sum(path.is_file() for path in folder.glob("*"))
    return Check(TOPIC, "CUDA kernels", OK, f"{n} kept in {folder}")


def writable(folder: Path) -> bool:
    """Return whether files can be created in a folder, or in its nearest existing parent."""
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False
