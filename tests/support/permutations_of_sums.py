"""The exact permutation distribution of a sum, with whole numbers: the truth about the t-test."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np


def allocations(values: np.ndarray, n: int) -> dict[int, int]:
    """How many ways there are to choose `n` of the cells so that their values, whole, add up to."""
    ways = {(0, 0): 1}
    for value, count in Counter(values.tolist()).items():
        found: Counter[tuple[int, int]] = Counter()
        for (taken, total), w in ways.items():
            for k in range(min(count, n - taken) + 1):
                found[taken + k, total + k * value] += w * comb(count, k)
        ways = dict(found)
    return {total: w for (taken, total), w in ways.items() if taken == n}


def combined(first: dict[Fraction, int], second: dict[Fraction, int]) -> dict[Fraction, int]:
    """The distribution of the sum of two independent numbers."""
    found: Counter[Fraction] = Counter()
    for a, v in first.items():
        for b, w in second.items():
            found[a + b] += v * w
    return dict(found)


def deviations(values: np.ndarray, n: int) -> dict[Fraction, int]:
    """The distribution of the sum of `n` cells minus its mean."""
    mean = Fraction(n * int(values.sum()), len(values))
    return {s - mean: w for s, w in allocations(values, n).items()}


def p_values(of: dict[Fraction, int]) -> dict[Fraction, float]:
    """The two-sided p-value of every deviation."""
    total = sum(of.values())
    at = sorted(of, key=abs, reverse=True)
    found, seen, i = {}, 0, 0
    while i < len(at):
        same = [d for d in at[i : i + 2] if abs(d) == abs(at[i])]
        seen += sum(of[d] for d in same)
        found |= dict.fromkeys(same, seen / total)
        i += len(same)
    return found


def side(values: np.ndarray) -> list[np.ndarray]:
    """What conditional p-values need of a sample, of one gene: rounded once."""
    x = [Fraction(float(v)) for v in values]
    mean = sum(x, Fraction()) / len(x)
    sums = [sum(((v - mean) ** k for v in x), Fraction()) for k in (2, 3, 4)]
    numbers = [len(x), np.count_nonzero(values), mean, *sums]
    return [np.array([[float(number)]]) for number in numbers]


def biased_orders(values: np.ndarray, n_orders: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Return orders of cells in which large values come first, more and more."""
    bias = np.linspace(0.0, 4.0, n_orders) / max(float(values.std()), 1e-9)
    return [np.argsort(-(b * values + rng.gumbel(size=len(values)))) for b in bias]
