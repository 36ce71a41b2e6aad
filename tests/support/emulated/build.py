"""CUDA sources made into libraries of the host, one for each source, kept between runs."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest

HEADER = Path(__file__).with_name("cuda_host.h")

#: Set to 1 to compile with the address and undefined-behaviour sanitizers.
SANITIZE = "PDEX_GPU_EMULATED_SANITIZE"
#: A folder to keep libraries in, instead of one among the system's temporary files.
FOLDER = "PDEX_GPU_EMULATED_CACHE"

_FLAGS = (
    "-std=c++17",
    "-fPIC",
    "-shared",
    "-fvisibility=hidden",  # equal names in two libraries stay apart
    "-ffp-contract=off",
    "-fno-strict-aliasing",  # as nvcc
    "-Wall",
    "-Wextra",
    "-Wno-unknown-pragmas",
    "-Wno-sign-compare",  # threadIdx.x < n
    "-Wno-unused-function",  # of a header shared by all sources
)
_PLAIN = ("-O2",)
_SANITIZED = (
    "-O1",
    "-g",
    "-fno-omit-frame-pointer",
    "-fsanitize=address,undefined",
    "-fsanitize=float-cast-overflow",  # the host's result differs from a device's
    "-fno-sanitize-recover=all",
)
_BOUNDS = r"__launch_bounds__\s*\(((?:[^()]|\((?:[^()]|\([^()]*\))*\))*)\)"
_KERNEL = re.compile(
    rf'extern\s*"C"\s*(?P<before>(?:__\w+__\s+|static\s+|inline\s+|{_BOUNDS}\s*)*)'
    rf"\bvoid\s+(?P<after>(?:__\w+__\s+|{_BOUNDS}\s*)*)(?P<name>\w+)\s*\("
)


class CompileError(Exception):
    """A source that the compiler refuses; the message is what the compiler says."""


@cache
def compiler() -> str | None:
    """The C++ compiler of the host: what CXX names, or the first one found; None without one."""
    for name in (os.environ.get("CXX"), "g++", "c++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    return None


#: Mark of tests that build sources.
needs_compiler = pytest.mark.skipif(compiler() is None, reason="no C++ compiler")


def sanitized() -> bool:
    """Whether libraries are built with sanitizers."""
    return os.environ.get(SANITIZE, "0") not in ("", "0")


@cache
def sanitizer_environment() -> dict[str, str] | None:
    """The variables that a Python process needs to load sanitized libraries; None without them.

    The sanitizer must be loaded before everything else. Python keeps memory until it exits, so
    leaks are not looked for; its own allocator is bypassed, or its arenas would hide overruns.
    """
    if (cxx := compiler()) is None:
        return None
    found = []
    for name in ("libasan.so", "libubsan.so"):
        answer = _run([cxx, f"-print-file-name={name}"]).stdout.strip()
        if not Path(answer).is_absolute():  # the bare name comes back where there is none
            return None
        found.append(str(Path(answer).resolve()))
    # the sanitizer looks for the C++ runtime, to see exceptions, when it starts
    runtime = _run([cxx, "-print-file-name=libstdc++.so.6"]).stdout.strip()
    if Path(runtime).is_absolute():
        found.append(str(Path(runtime).resolve()))
    return {
        SANITIZE: "1",
        "LD_PRELOAD": " ".join(found),
        "ASAN_OPTIONS": ":".join(
            (
                "detect_leaks=0",
                "detect_stack_use_after_return=0",
                "detect_odr_violation=0",
                "allocator_may_return_null=1",
                "abort_on_error=1",
            )
        ),
        "UBSAN_OPTIONS": "print_stacktrace=1:abort_on_error=1",
        "PYTHONMALLOC": "malloc",
        # a report is written to the file descriptor of stderr just before the process ends, and
        # would be lost where pytest has put its own file there
        "PYTEST_ADDOPTS": f"{os.environ.get('PYTEST_ADDOPTS', '')} --capture=sys".strip(),
    }


def library(name: str, text: str) -> Path:
    """The shared library of the source `text`, built unless an equal one is there.

    Parameters
    ----------
    name : str
        Stem that the compiler's messages show.
    text : str
        The source, its own headers put in place.

    Raises
    ------
    CompileError
        If the source does not compile, or there is no compiler.
    """
    if (cxx := compiler()) is None:
        raise CompileError("there is no C++ compiler")
    flags = (*_FLAGS, *(_SANITIZED if sanitized() else _PLAIN))
    parts = (name, text, HEADER.read_text(), Path(__file__).read_text(), *flags, version(cxx))
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:24]
    place = cache_folder() / f"{name}-{key}"
    built = place / f"{name}.so"
    if not built.exists():
        with one_builder(place.with_suffix(".lock")):
            if not built.exists():
                _build(cxx, flags, name, text, place)
    return built


def warnings(built: Path) -> str:
    """What the compiler said about a source that did compile."""
    return built.with_suffix(".log").read_text()


def kernels(preprocessed: str) -> list[tuple[str, str, list[str]]]:
    """Name, launch bound ("0" without one) and parameter names of all kernels of a source."""
    found = []
    for match in _KERNEL.finditer(preprocessed):
        qualifiers = match["before"] + match["after"]
        if "__global__" in qualifiers:
            bounds = re.search(_BOUNDS, qualifiers)
            bound = _split(bounds[1])[0] if bounds else "0"
            parameters = _split(_enclosed(preprocessed, match.end()))
            found.append((match["name"], bound, [_last_word(p) for p in parameters]))
    return found


def shared_variables(built: Path) -> list[tuple[int, int, int]]:
    """Address, size and unused bytes in front of each static variable of a function.

    Those are the variables that kernels declare ``__shared__``: their symbols are local, and in a
    section that can be written. Addresses are relative to ``emulated_count``. None are found
    without the tool ``nm``.
    """
    if shutil.which("nm") is None:
        return []
    base, end, found = 0, 0, []
    for line in _run(["nm", "-n", "-S", str(built)]).stdout.splitlines():
        words = line.split()
        if len(words) == 4:
            address, size, kind, name = int(words[0], 16), int(words[1], 16), words[2], words[3]
            if name == "emulated_count":
                base = address
            elif kind in "bd" and name.startswith("_ZZ"):
                found.append((address, size, min(address - end, 32) // 8 * 8))
            end = address + size
    return [(address - base, size, gap) for address, size, gap in found]


def load(built: Path) -> ctypes.CDLL:
    """Load a library and declare its functions."""
    loaded = ctypes.CDLL(str(built))
    loaded.emulated_name.restype = ctypes.c_char_p
    loaded.emulated_parameters.restype = ctypes.c_char_p
    loaded.emulated_bound.restype = ctypes.c_uint
    loaded.emulated_switches.restype = ctypes.c_uint64
    loaded.emulated_signature.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_size_t]
    loaded.emulated_static_shared.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t]
    loaded.emulated_static_shared.restype = None
    loaded.emulated_launch.argtypes = [
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.c_uint,
        ctypes.c_size_t,
        ctypes.c_uint64,
        ctypes.c_void_p,
        ctypes.c_char_p,
        ctypes.c_size_t,
    ]
    base = ctypes.cast(loaded.emulated_count, ctypes.c_void_p).value
    assert base is not None
    for offset, size, gap in shared_variables(built):
        loaded.emulated_static_shared(base + offset, size, gap)
    return loaded


def _build(cxx: str, flags: tuple[str, ...], name: str, text: str, place: Path) -> None:
    """Build in a folder of its own, which then takes its place at once."""
    work = Path(tempfile.mkdtemp(prefix=f"{place.name}.", dir=place.parent))
    try:
        source = work / f"{name}.cu"
        source.write_text(text)
        # without the header, so that __global__ is still there to be seen
        plain = _compile(
            [cxx, "-E", "-P", "-std=c++17", "-DPDEX_GPU_EMULATED=1", "-DDYNAMIC_SHARED(name)=",
             "-x", "c++", source.name],
            work,
        )  # fmt: skip
        table = ", ".join(
            f'EMULATED_KERNEL({kernel}, ({bound}), "{",".join(parameters)}")'
            for kernel, bound, parameters in kernels(plain.stdout)
        )
        if not table:
            raise CompileError(f'{name}.cu holds no `extern "C" __global__` function')
        # Only variables of internal linkage are guarded by the address sanitizer, so the static
        # arrays of templates have to be.
        (work / "table.cpp").write_text(
            f'namespace {{\n#include "{name}.cu"\n}}\nEMULATED_TABLE({table})\n'
        )
        done = _compile(
            [
                cxx,
                *flags,
                f"-fdebug-prefix-map={work}={place}",  # where the source will be found
                "-include",
                str(HEADER),
                "table.cpp",
                "-o",
                f"{name}.so",
            ],
            work,
        )
        (work / f"{name}.log").write_text(done.stderr)
        shutil.rmtree(place, ignore_errors=True)
        work.rename(place)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise


def _compile(command: list[str], work: Path) -> subprocess.CompletedProcess[str]:
    done = _run(command, cwd=work, check=False)
    if done.returncode:
        raise CompileError(f"{' '.join(command)} failed:\n{done.stderr}")
    return done


def _run(
    command: list[str], *, cwd: Path | None = None, check: bool = True
) -> subprocess.CompletedProcess[str]:
    # a sanitizer that was loaded into this process is not for the tools it starts
    env = {k: v for k, v in os.environ.items() if k != "LD_PRELOAD"}
    return subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=check)


@cache
def version(cxx: str) -> str:
    """A compiler and its version, for keys of what it builds."""
    return cxx + _run([cxx, "--version"]).stdout


def cache_folder() -> Path:
    """The folder that keeps what was built."""
    if named := os.environ.get(FOLDER):
        folder = Path(named)
    else:
        folder = Path(tempfile.gettempdir()) / f"pdex-gpu-emulated-{os.getuid()}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise CompileError(f"{folder} belongs to somebody else; {FOLDER} names another folder")
    return folder


@contextmanager
def one_builder(lock: Path) -> Iterator[None]:
    """Let one thread of one process go on at a time."""
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _enclosed(text: str, start: int) -> str:
    """What stands between a parenthesis, opened just before `start`, and the one that closes it."""
    depth = 1
    for i in range(start, len(text)):
        depth += {"(": 1, ")": -1}.get(text[i], 0)
        if not depth:
            return text[start:i]
    raise CompileError("a kernel's list of parameters never ends")


def _split(text: str) -> list[str]:
    """Parts between commas that stand in no parentheses or angle brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"(": 1, "<": 1, ")": -1, ">": -1}.get(character, 0)
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


def _last_word(declaration: str) -> str:
    words = re.findall(r"\w+", declaration)
    return words[-1] if words else "?"
