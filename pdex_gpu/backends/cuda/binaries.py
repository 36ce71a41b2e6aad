"""Compiled CUDA sources: the options they are made with, and the folder they are kept in.

CuPy's own cache is not used because CuPy compiles everything with ``-ftz=true``: the device would
take float32 subnormals for zeros, and no other kernel set does. Its folder is: whoever moved it
with ``CUPY_CACHE_DIR`` moved ours too.
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

from ...compiling import compiling
from ...leftovers import temporary_file, temporary_folder
from . import sources

logger = logging.getLogger("pdex_gpu")

# Products and sums are rounded one by one, as on the CPU; a kernel that wants fma() can call it.
OPTIONS = ("--std=c++17", "--fmad=false")

_OWNER_ALONE = 0o700  # who may write to the folder says what runs on the device


def folder() -> Path:
    """Where compiled sources are kept."""
    cupy_cache = os.environ.get("CUPY_CACHE_DIR") or "~/.cupy/kernel_cache"
    return Path(cupy_cache).expanduser() / "pdex_gpu"


def find_or_make(
    name: str,
    architecture: str,
    version: tuple[int, int],
    compiler: Callable[[str, str, tuple[str, ...]], bytes],
) -> tuple[Path, bool]:
    """A compiled source, from the folder or made now.

    A file is named for what it was made from and for what is in it. One that was damaged or cut
    short since is made again.

    Parameters
    ----------
    name : str
        Stem of the source.
    architecture : str
        ``"sm_90"`` for machine code; ``"compute_90"`` for PTX, which drivers can translate for
        later architectures.
    version : tuple of int
        Of the compiler; a binary of another version is not used.
    compiler : callable
        Takes the text, a file name for messages, and options; gives the binary.

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
    """A file of the folder that holds what its name says; None if there is none."""
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
    """Write a file that other processes see whole or not at all."""
    path.parent.mkdir(_OWNER_ALONE, parents=True, exist_ok=True)
    with temporary_file(path.parent) as part:
        part.write_bytes(binary)
        part.replace(path)


@cache
def _temporary() -> Path:
    """A folder for this process, where the folder above cannot be written."""
    left_open = ExitStack()
    atexit.register(left_open.close)
    return left_open.enter_context(temporary_folder(None, "pdex_gpu-cuda-"))
