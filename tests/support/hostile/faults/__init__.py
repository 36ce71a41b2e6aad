"""Calls that are disturbed: killed, short of disk, memory or files, robbed of what they work on.

A case is a call and a fault at a moment. The call is made undisturbed, then disturbed: the outcome
must be the same bytes or one error (or the signal's own end), with no process, shared memory or
temporary file left but the checkpoint. The same call made again must give the same bytes, and leave
nothing at all.
"""

from .check import problems, verdict
from .draw import draw

LIMIT = 2400.0

__all__ = ["LIMIT", "draw", "problems", "verdict"]
