"""Builds the executor, a library of the host, and calls it."""

from __future__ import annotations

import ctypes
import hashlib
import subprocess
from functools import cache
from pathlib import Path

from emulated.build import cache_folder, compiler, one_builder, version

from .text import PtxError

FOLDER = Path(__file__).with_name("executor")
_FLAGS = (
    "-std=c++17",
    "-O2",
    "-ftree-vectorize",
    "-march=native",  # loops over lanes
    "-ffp-contract=off",
    "-fno-strict-aliasing",
    "-fwrapv",
    "-fPIC",
    "-shared",
)


class Launch(ctypes.Structure):
    """As in ``executor/launch.h``."""

    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("code", "constants", "ranges", "counts", "totals")),
        ("message", ctypes.c_char_p),
        *(
            (name, ctypes.c_int64)
            for name in (
                "n_constants", "n_ranges", "message_bytes", "n_predicates", "register_bytes",
                "shared_bytes", "local_bytes", "l1_bytes", "blocks", "threads", "thread_at",
                "lane_at", "block_at",
            )
        ),
        ("seed", ctypes.c_uint64),
        ("most_instructions", ctypes.c_int64),
        ("watch_races", ctypes.c_int64),
    ]  # fmt: skip


def form(name: str) -> int:
    """The number of a form of instruction, such as "add.s32"; -1 for one that there is not."""
    return _library().ptx_form(name.encode())


def run(launch: Launch) -> bool:
    """Run a launch; returns whether it succeeded. If not, its message says why."""
    return not _library().ptx_launch(launch)


@cache
def _library() -> ctypes.CDLL:
    loaded = ctypes.CDLL(str(_built()))
    loaded.ptx_form.argtypes = [ctypes.c_char_p]
    loaded.ptx_launch.argtypes = [ctypes.POINTER(Launch)]
    return loaded


def _built() -> Path:
    if (cxx := compiler()) is None:
        raise PtxError("there is no C++ compiler")
    texts = [path.read_text() for path in sorted(FOLDER.iterdir())]
    key = hashlib.sha256("\0".join((*texts, *_FLAGS, version(cxx))).encode()).hexdigest()[:24]
    path = cache_folder() / f"ptx-executor-{key}.so"
    if not path.exists():
        with one_builder(path.with_suffix(".lock")):
            if not path.exists():
                _build(cxx, path)
    return path


def _build(cxx: str, path: Path) -> None:
    part = path.with_suffix(".part")
    command = [cxx, *_FLAGS, str(FOLDER / "executor.cpp"), "-o", str(part)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise PtxError(f"{' '.join(command)} failed:\n{done.stderr}")
    part.replace(path)
