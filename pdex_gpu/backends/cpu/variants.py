"""The Anderson-Darling statistics of Scholz and Stephens (1987), by number for kernels."""

from __future__ import annotations

MIDRANK, RIGHT, CONTINUOUS = 0, 1, 2  # eq. 7, 6 and 3

VARIANTS = {"midrank": MIDRANK, "right": RIGHT, "continuous": CONTINUOUS}
