"""Checks of the backends that other packages add."""

from __future__ import annotations

from collections.abc import Iterator

from ..backends.registry import BACKENDS, backends
from .base import OK, PROBLEM, Check

TOPIC = "Backends"


def checks() -> Iterator[Check]:
    """Check each backend of another package; those of this one have their own checks."""
    for info in backends():
        if info.name in BACKENDS:
            continue
        found = f"{info.device}: {info.reason}" if info.usable else info.reason
        yield Check(TOPIC, info.name, OK if info.usable else PROBLEM, found)
