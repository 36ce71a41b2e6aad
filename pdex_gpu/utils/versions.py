"""Versions of the packages that results may depend on."""

from __future__ import annotations

import sys
from functools import cache
from importlib import metadata

_COMPILERS = {"cpu": "numba", "cuda": "cupy"}


@cache
def version(package: str) -> str:
    """Return the version of an installed package."""
    return metadata.version(package)  # reads and parses a file


def compiler(backend: str) -> dict[str, str]:
    """Return name and version of the package that compiles a backend's kernels, if imported."""
    module = sys.modules.get(_COMPILERS.get(backend, ""))
    return {module.__name__: module.__version__} if module else {}
