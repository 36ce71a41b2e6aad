"""CUDA's compiler, taken from a wheel: needs no toolkit, no driver and no CuPy.

``python -m nvrtc``, in this folder, prints what every kernel of the package takes on every
architecture.
"""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from pathlib import Path

import pytest

from pdex_gpu.backends.cuda import compile_cache, sources

ARCHITECTURES = ("sm_80", "sm_86", "sm_90")

PROPERTY = "functions"  # of a test's report: rows for `table`

_WHEELS = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu12")
_LIBRARY = re.compile(r"(libnvrtc\.so\.\d+|nvrtc64_\d+_\d+\.dll)")


class CompileError(Exception):
    """A source does not compile; the text is the compiler's log."""


@dataclass(frozen=True)
class Function:
    """A kernel, or a function that was not inlined into one, as ptxas made it."""

    name: str
    registers: int | None  # None: not a kernel
    stack: int
    spill_stores: int
    spill_loads: int

    @property
    def spills(self) -> bool:
        return self.spill_stores > 0 or self.spill_loads > 0


@dataclass(frozen=True)
class Compiled:
    """A binary, what is in it, and the compiler's log."""

    cubin: bytes
    functions: tuple[Function, ...]
    log: str

    @property
    def warnings(self) -> list[str]:
        return [line for line in self.log.splitlines() if re.search(r"\bwarning( #\S+)?\s*:", line)]


def library_path() -> Path | None:
    """NVRTC's library in an installed wheel; None if there is none."""
    for wheel in _WHEELS:
        try:
            files = metadata.files(wheel) or []
        except metadata.PackageNotFoundError:
            continue
        for file in files:
            if _LIBRARY.fullmatch(file.name):
                return Path(str(file.locate()))
    return None


@cache
def _library() -> ctypes.CDLL:
    path = library_path()
    assert path is not None, f"none of {_WHEELS} is installed"
    for builtins in path.parent.glob("*nvrtc-builtins*"):
        if ".alt." not in builtins.name:
            ctypes.CDLL(str(builtins))  # not every version looks for it beside itself
    library = ctypes.CDLL(str(path))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


#: Mark of tests that compile CUDA sources.
needs_nvrtc = pytest.mark.skipif(
    library_path() is None, reason="the wheel nvidia-cuda-nvrtc is not installed"
)


def version() -> tuple[int, int]:
    """NVRTC's version."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_text(
    text: str,
    architecture: str,
    *more: str,
    options: tuple[str, ...] = compile_cache.OPTIONS,
    filename: str = "toy.cu",
    verbose: bool = True,
) -> Compiled:
    """Compile with `options`, the package's own by default, and `more`.

    Functions are listed only if ptxas is `verbose`.

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    options += (f"--gpu-architecture={architecture}", *more)
    if verbose:
        options += ("--ptxas-options=-v",)
    with _compiled(text, filename, options) as (program, log):
        return Compiled(_take(program, "CUBIN"), parse(log), log)


def compile_to_ptx(
    text: str,
    architecture: str,
    options: tuple[str, ...] = compile_cache.OPTIONS,
    filename: str = "toy.cu",
) -> str:
    """Compile to PTX that knows the lines of the source, for an architecture like "compute_90".

    Raises
    ------
    CompileError
        With the compiler's log.
    """
    options += (f"--gpu-architecture={architecture}", "-lineinfo")
    with _compiled(text, filename, options) as (program, _):
        return _take(program, "PTX").rstrip(b"\0").decode()


@cache
def compile_source(name: str, architecture: str) -> Compiled:
    """Compile a source of the package."""
    return compile_text(sources.text(name), architecture, filename=f"{name}.cu")


def parse(log: str) -> tuple[Function, ...]:
    """The functions in the log of a verbose ptxas."""
    kernels = set(re.findall(r"Compiling entry function '(\w+)'", log))
    found = []
    for part in re.split(r"Function properties for ", log)[1:]:
        name = part.split(maxsplit=1)[0]
        numbers = re.search(
            r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads", part
        )
        registers = re.search(r"Used (\d+) registers", part)
        assert numbers, f"no numbers for {name}:\n{log}"
        assert name not in kernels or registers, f"no registers for {name}:\n{log}"
        found.append(
            Function(
                name,
                int(registers[1]) if registers and name in kernels else None,
                *map(int, numbers.groups()),
            )
        )
    missing = kernels - {function.name for function in found}
    assert not missing, f"nothing said of {missing}:\n{log}"
    return tuple(found)


def table(rows: Iterable[tuple[str, str, Function]]) -> list[str]:
    """Lines of text, one a kernel; each row is a source, an architecture and a function of it."""
    found: dict[tuple[str, str], dict[str, Function]] = {}
    for source, architecture, function in rows:
        found.setdefault((source, function.name), {})[architecture] = function
    lines = [f"{'source':18} {'kernel':26}" + "".join(f"{a:>20}" for a in ARCHITECTURES)]
    for (source, name), on in sorted(found.items()):
        cells = [
            f"{f.registers or '-'} regs {f.spill_stores}+{f.spill_loads} spill" if f else ""
            for f in map(on.get, ARCHITECTURES)
        ]
        lines.append(f"{source:18} {name:26}" + "".join(f"{cell:>20}" for cell in cells))
    return lines


@contextmanager
def _compiled(
    text: str, filename: str, options: tuple[str, ...]
) -> Iterator[tuple[ctypes.c_void_p, str]]:
    """A compiled program, while it lasts, and the compiler's log."""
    library, program = _library(), ctypes.c_void_p()
    _check(
        library.nvrtcCreateProgram(
            ctypes.byref(program), text.encode(), filename.encode(), 0, None, None
        )
    )
    try:
        encoded = (ctypes.c_char_p * len(options))(*(option.encode() for option in options))
        status = library.nvrtcCompileProgram(program, len(options), encoded)
        log = _take(program, "ProgramLog").rstrip(b"\0").decode()
        if status != 0:
            raise CompileError(log)
        yield program, log
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))


def _take(program: ctypes.c_void_p, what: str) -> bytes:
    library, size = _library(), ctypes.c_size_t()
    _check(getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size)))
    buffer = ctypes.create_string_buffer(size.value)
    _check(getattr(library, f"nvrtcGet{what}")(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status != 0:
        raise RuntimeError(_library().nvrtcGetErrorString(status).decode())


if __name__ == "__main__":
    rows = [
        (name, architecture, function)
        for name in sources.names()
        for architecture in ARCHITECTURES
        for function in compile_source(name, architecture).functions
    ]
    sys.stdout.write("\n".join(table(rows)) + "\n")
