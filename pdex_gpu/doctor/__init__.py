"""Checks of a machine: what was found, what is missing, and the command that fixes it.

Each module checks one topic; :mod:`.results` checks a file of results. May import every subpackage
except ``cli`` and ``report``. To add a topic, write a module with ``TOPIC`` and ``checks``, which
yields a :class:`.base.Check` per finding, and add it to ``_SECTIONS``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from . import backends, caches, cuda, machine, packages, variables
from .base import PROBLEM, Check

__all__ = ["Check", "diagnose", "healthy"]

_Section = tuple[str, Callable[[], Iterable[Check]]]

_SECTIONS: tuple[_Section, ...] = (
    (packages.TOPIC, packages.checks),
    (machine.TOPIC, machine.checks),
    (cuda.TOPIC, cuda.checks),
    (backends.TOPIC, backends.checks),
    (caches.TOPIC, caches.checks),
    (variables.TOPIC, variables.checks),
)


def diagnose() -> list[Check]:
    """Examine Python, packages, the machine, CUDA, caches and environment variables.

    Nothing is changed, apart from small files that are written to test folders and then removed.
    Packages are imported, and a kernel runs on a CUDA device if there is one; this takes a few
    seconds.

    Returns
    -------
    list of Check
        Ordered by topic.
    """
    found: list[Check] = []
    for topic, section in _SECTIONS:
        found += _safely(topic, section)
    return found


def healthy(checks: Sequence[Check]) -> bool:
    """Return whether everything works that a run needs on any machine."""
    return not any(check.required and check.status == PROBLEM for check in checks)


def _safely(topic: str, section: Callable[[], Iterable[Check]]) -> list[Check]:
    """Run the checks of a section; a check that fails to run is reported as a problem."""
    found: list[Check] = []
    try:
        found.extend(section())
    except Exception as error:  # a broken package may raise anything
        text = " ".join(f"{type(error).__name__}: {error}".split())
        found.append(Check(topic, topic.lower(), PROBLEM, f"the check failed ({text})"))
    return found
