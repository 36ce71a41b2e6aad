"""Cutting work into parts, and the running sums that say where each part writes."""

from __future__ import annotations

import itertools

import numpy as np

_MAX_PARTS = 64


def split_evenly(n_items: int, items_a_part: int) -> list[tuple[int, int]]:
    """Ranges that cover ``[0, n_items)`` once, of about `items_a_part` items, not too many."""
    n = max(1, min(_MAX_PARTS, n_items // items_a_part))
    bounds = [n_items * i // n for i in range(n + 1)]
    return list(itertools.pairwise(bounds))


def exclusive_sum(counts: np.ndarray) -> np.ndarray:
    """Along the first axis, sums of all before each, one longer: the last is the total."""
    zero = np.zeros((1, *counts.shape[1:]), np.int64)
    return np.concatenate([zero, np.cumsum(counts, axis=0)])
