"""Numbers as text."""

from __future__ import annotations

import math

PROGRAM = "pdex-gpu"


def number_text(value: float, form: str) -> str:
    """Format a number for a table with a format such as ``".3f"``; NaN becomes a dash."""
    return "-" if math.isnan(value) else format(value, form)


def dotted(version: tuple[int, int]) -> str:
    """Return a version of two numbers as text: ``"13.0"``."""
    return f"{version[0]}.{version[1]}"
