"""Splitting work into parts, and the running sums that say where each part writes."""

from __future__ import annotations

import itertools

import numpy as np

_MAX_PARTS = 64


def split_evenly(n_items: int, items_per_part: int) -> list[tuple[int, int]]:
    """Split ``[0, n_items)`` into at most 64 ranges of about `items_per_part` items or more."""
    n = max(1, min(_MAX_PARTS, n_items // items_per_part))
    bounds = [n_items * i // n for i in range(n + 1)]
    return list(itertools.pairwise(bounds))


def exclusive_sum(counts: np.ndarray) -> np.ndarray:
    """Return the sums of all entries before each along the first axis, then the total."""
    zero = np.zeros((1, *counts.shape[1:]), np.int64)
    return np.concatenate([zero, np.cumsum(counts, axis=0)])
