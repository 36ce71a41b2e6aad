"""Compiled CUDA sources: their compiler options, and the folder that keeps them.

CuPy's own cache is not used because CuPy compiles everything with ``-ftz=true``: the device would
treat float32 subnormals as zeros, and no other kernel set does. Our folder lies inside CuPy's, so
``CUPY_CACHE_DIR`` moves both.
"""

from __future__ import annotations

import atexit
import hashlib
import logging
import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from pathlib import Path

from ...utils.compile_events import compiling
from ...utils.leftovers import temporary_file, temporary_folder
from . import sources

logger = logging.getLogger("pdex_gpu")

# Each product and sum is rounded, as on the CPU; a kernel that wants fma() can call it.
OPTIONS = ("--std=c++17", "--fmad=false")

_OWNER_ALONE = 0o700  # anyone who can write to the folder decides what runs on the device


def folder() -> Path:
    """Return the folder where compiled sources are kept."""
    cupy_cache = os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache"
    return Path(cupy_cache).expanduser() / "pdex_gpu"


def find_or_make(
    name: str,
    architecture: str,
    version: tuple[int, int],
    compiler: Callable[[str, str, tuple[str, ...]], bytes],
) -> tuple[Path, bool]:
    """Find a compiled source in the folder, or compile it now.

    The name of a file identifies its source and its contents. A file that has since been damaged
    or truncated is compiled again.

    Parameters
    ----------
    name : str
        Stem of the source.
    architecture : str
        ``"sm_90"`` for machine code; ``"compute_90"`` for PTX, which drivers can translate for
        later architectures.
    version : tuple of int
        Version of the compiler; binaries from another version are not used.
    compiler : callable
        Takes the text, a file name for messages, and options; returns the binary.

    Returns
    -------
    path : Path
    made : bool
        Whether it was compiled now.
    """
    text = sources.text(name)
    options = (*OPTIONS, f"--gpu-architecture={architecture}")
    key = hashlib.sha256(repr((text, options, version)).encode()).hexdigest()[:32]
    stem = f"{name}-{architecture}-{key}"
    suffix = "ptx" if architecture.startswith("compute_") else "cubin"
    kept = _find(stem, suffix)
    if kept is not None:
        return kept, False
    started = time.perf_counter()
    with compiling():
        binary = compiler(text, f"{name}.cu", options)
    path = folder() / _file_name(stem, binary, suffix)
    try:
        _store(path, binary)
    except OSError as error:
        logger.debug("compiled CUDA kernels are not kept: %s", error)
        path = _temporary() / path.name
        _store(path, binary)
    seconds = time.perf_counter() - started
    logger.info("compiled CUDA source %s for %s in %.2f s: %s", name, architecture, seconds, path)
    return path, True


def _file_name(stem: str, binary: bytes, suffix: str) -> str:
    return f"{stem}-{hashlib.sha256(binary).hexdigest()[:32]}.{suffix}"


def _find(stem: str, suffix: str) -> Path | None:
    """Return a file in the folder whose contents match its name; None if there is none."""
    for path in sorted(folder().glob(f"{stem}-*.{suffix}")):
        try:
            binary = path.read_bytes()
        except OSError as error:
            logger.debug("a compiled CUDA source cannot be read: %s", error)
            continue
        if path.name == _file_name(stem, binary, suffix):
            return path
        logger.warning("%s is damaged: the CUDA source is compiled again", path)
    return None


def _store(path: Path, binary: bytes) -> None:
    """Write a file so that other processes see it whole or not at all."""
    path.parent.mkdir(_OWNER_ALONE, parents=True, exist_ok=True)
    with temporary_file(path.parent) as part:
        part.write_bytes(binary)
        part.replace(path)


@cache
def _temporary() -> Path:
    """Return a folder for this process, for use when the folder above cannot be written."""
    left_open = ExitStack()
    atexit.register(left_open.close)
    return left_open.enter_context(temporary_folder(None, "pdex_gpu-cuda-"))
