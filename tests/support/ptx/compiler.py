"""CUDA sources made into PTX by NVRTC, kept between runs."""

from __future__ import annotations

import hashlib
from functools import cache

import cuda_sources
import nvrtc
from emulated.build import cache_folder, one_builder

from pdex_gpu.backends.cuda import compile_cache

from . import text
from .decoder import Kernel, decode

ARCHITECTURE = "compute_90"


def ptx(source: cuda_sources.Source) -> str:
    """The PTX of a source, compiled with the package's own options."""
    parts = (source.text, ARCHITECTURE, *compile_cache.OPTIONS, *map(str, nvrtc.version()))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    path = cache_folder() / f"{source.name}-{key}.ptx"
    if not path.exists():
        with one_builder(path.with_suffix(".lock")):
            if not path.exists():
                made = nvrtc.compile_to_ptx(source.text, ARCHITECTURE, filename=f"{source.name}.cu")
                part = path.with_suffix(".part")
                part.write_text(made)
                part.replace(path)
    return path.read_text()


class Program:
    """The kernels of a source. Each is decoded on first use, as that takes a while."""

    def __init__(self, source: cuda_sources.Source) -> None:
        self.source = source
        self.names = list(entries := text.entries(ptx(source)))
        self._entries = entries
        self._decoded: dict[str, Kernel] = {}

    def kernel(self, name: str) -> Kernel:
        """A kernel by its name.

        Raises
        ------
        PtxError
            If it has an instruction that the device does not know.
        """
        if name not in self._decoded:
            self._decoded[name] = decode(self._entries[name].read())
        return self._decoded[name]


@cache
def program(source: cuda_sources.Source) -> Program:
    """The program of a source; of equal sources the same one."""
    return Program(source)
