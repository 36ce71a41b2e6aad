"""Calls drawn from a seed, run on every kernel set, their answers held to scipy.

A case is a matrix (values, dtype, storage), labels, options and an entry point. A right answer or
one `PdexGpuError` is accepted, nothing else: no other exception, no number that differs between
kernel sets or from the truth, no refusal of input that has an answer.
"""

from .check import problems, verdict
from .draw import draw

LIMIT = 600.0

__all__ = ["LIMIT", "draw", "problems", "verdict"]
