"""Versions of the packages that results may depend on."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def version(package: str) -> str:
    """Return the version of an installed package."""
    return metadata.version(package)  # reads and parses a file
