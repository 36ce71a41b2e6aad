"""The location and the text of the CUDA sources."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

from ...errors import BackendError

_PACKAGE = Path(__file__).resolve().parents[2]
_INCLUDE = re.compile(r'^#include "([\w.]+)"\n', re.MULTILINE)


@cache
def folder() -> Path:
    """Return the sources' folder: inside the installed package, or at the root of a checkout."""
    candidates = (_PACKAGE / "kernels", _PACKAGE.parent / "kernels")
    for candidate in candidates:
        if (candidate / "common.cuh").is_file():
            return candidate
    raise BackendError(
        "The CUDA sources of pdex_gpu are missing: looked for common.cuh in "
        f"{' and '.join(str(c) for c in candidates)}. Install the package again."
    )


def names() -> list[str]:
    """Return the stems of all sources that hold kernels, sorted."""
    return sorted(path.stem for path in folder().glob("*.cu"))


@cache
def text(name: str) -> str:
    """Return the source `name` with its headers inserted, so that compiler caches see them."""
    return _expand((folder() / f"{name}.cu").read_text())


def _expand(source: str) -> str:
    return _INCLUDE.sub(lambda m: _expand((folder() / m[1]).read_text()), source)
