"""Numbers as text."""

from __future__ import annotations

import math

PROGRAM = "pdex-gpu"


def number_text(value: float, form: str) -> str:
    """Format a number for a table with a format such as ``".3f"``; NaN becomes a dash."""
    return "-" if math.isnan(value) else format(value, form)
