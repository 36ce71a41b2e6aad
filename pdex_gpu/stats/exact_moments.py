"""Sums without rounding, for genes whose moments lose digits or overflow in float64."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..backends.outputs import Moments
from ..design.contrasts import Contrast, Design

#: Sums are integer multiples of ``2**-UNIT``, sums of squares of ``2**(-2 * UNIT)``.
UNIT = 1126

_LOWER = 27  # of the 53 bits of a float64
_MASK = (1 << _LOWER) - 1
_LARGE = 2.0**53  # beyond this, not every integer is a float64
_NEARLY_CONSTANT = 2.0**-40  # squared deviations over squared mean
_CANCELLED = 2.0**-24  # a difference below this share of its terms has lost too many digits


@dataclass(frozen=True)
class Sums:
    """The number of cells, the sum of their values and the sum of the squares."""

    n: int
    total: int
    squares: int

    @classmethod
    def of(cls, values: np.ndarray, n: int) -> Sums:
        """Compute the sums of `n` cells; `values` may leave zeros out."""
        if values.dtype.kind != "f":
            distinct, counts = np.unique(values, return_counts=True)
            pairs = list(zip(distinct.tolist(), counts.tolist(), strict=True))
            total, squares = sum(v * c for v, c in pairs), sum(v * v * c for v, c in pairs)
            return cls(n, total << UNIT, squares << 2 * UNIT)
        fraction, exponent = np.frexp(values.astype(np.float64))
        whole = np.ldexp(fraction, 53).astype(np.int64)
        order = np.argsort(exponent, kind="stable")
        whole, exponent = whole[order], exponent[order]
        starts = np.flatnonzero(np.diff(exponent, prepend=np.iinfo(np.int32).min))
        total = squares = 0
        for part, shift in zip(
            np.split(whole, starts[1:]), (exponent[starts] + UNIT - 53).tolist(), strict=False
        ):
            high, low = part >> _LOWER, part & _MASK
            total += _sum(part) << shift
            of_squares = (_sum(high * high) << 2 * _LOWER) + (_sum(high * low) << _LOWER + 1)
            squares += of_squares + _sum(low * low) << 2 * shift
        return cls(n, total, squares)

    def __add__(self, other: Sums) -> Sums:
        return Sums(self.n + other.n, self.total + other.total, self.squares + other.squares)

    def __sub__(self, other: Sums) -> Sums:
        return Sums(self.n - other.n, self.total - other.total, self.squares - other.squares)

    @property
    def mean(self) -> float:
        """Return the float64 closest to the mean; NaN if there are no cells."""
        return quotient(self.total, self.n, UNIT) if self.n else np.nan

    @property
    def deviations(self) -> int:
        """Return `n` times the sum of squared deviations from the mean."""
        return self.n * self.squares - self.total * self.total


def _sum(values: np.ndarray) -> int:
    """Sum int64 values without overflow."""
    return (int((values >> _LOWER).sum()) << _LOWER) + int((values & _MASK).sum())


def quotient(a: int, b: int, exponent: int) -> float:
    """Return the float64 closest to ``a / b / 2**exponent``, or infinity on overflow."""
    if exponent >= 0:
        b <<= exponent
    else:
        a <<= -exponent
    try:
        return a / b
    except OverflowError:
        return np.inf if a > 0 else -np.inf


def with_exact_sums(
    moments: Moments, design: Design, entries: Callable[[int], Sequence[np.ndarray]]
) -> Moments:
    """Return the moments with `exact` set for genes that need it, or unchanged if none does.

    Parameters
    ----------
    moments : Moments
    design : Design
    entries : callable
        Takes a gene's position in `moments` and returns its values in each group; zeros may be
        left out.
    """
    genes = np.flatnonzero(_doubtful(moments, design))
    if not len(genes):
        return moments
    exact = np.full(moments.mean.shape, None, object)
    for j in genes.tolist():
        n_cells = design.n_cells if moments.n_measured is None else moments.n_measured[:, j]
        groups = zip(entries(j), n_cells.tolist(), strict=True)
        exact[:, j] = [Sums.of(values, n) for values, n in groups]
    return replace(moments, exact=exact)


def _doubtful(moments: Moments, design: Design) -> np.ndarray:
    """Return a mask of genes whose values over- or underflow, or differ very little relatively."""
    found = np.zeros(moments.mean.shape[1], bool)
    if moments.exponent is not None:
        found |= moments.exponent.any(axis=0)
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        largest = max(float(np.fmax.reduce(moments.mean, None)),
                      -float(np.fmin.reduce(moments.mean, None)))  # fmt: skip
        if largest >= _LARGE:
            found |= (np.abs(moments.mean) >= _LARGE).any(axis=0)
        if moments.m2 is not None:
            # A cheap first check for any candidates, without temporary float arrays.
            bound = largest * largest * float(design.n_cells.max()) * _NEARLY_CONSTANT
            small = np.count_nonzero(moments.m2 < bound)
            if small > np.count_nonzero(moments.m2 == 0.0):
                square = moments.mean * moments.mean
                square *= (design.n_cells * _NEARLY_CONSTANT)[:, None]
                found |= ((moments.m2 < square) & (moments.m2 > 0.0)).any(axis=0)
        for contrast in design.contrasts:
            if contrast.pooled and not contrast.one_vs_rest:
                found |= _cancelled(moments, contrast, design)
    return found


def _cancelled(moments: Moments, contrast: Contrast, design: Design) -> np.ndarray:
    """Return a mask of genes where subtracting a target's cells from the pool cancels digits."""
    first, targets = contrast.groups[0], contrast.groups[1:]
    n = contrast.n_cells[1:, None].astype(np.float64)
    n_pool = float(contrast.n_cells[0])
    there = moments.n_expressed[first] > moments.n_expressed[targets]
    whole, mean = n_pool * moments.mean[first], moments.mean[targets]
    rest = whole - n * mean
    lost = np.abs(rest) < np.abs(whole) * _CANCELLED
    if moments.m2 is not None:
        n_rest = n_pool - n
        with np.errstate(divide="ignore"):
            apart = np.where(n_rest > 0.0, mean - rest / n_rest, 0.0)
        own, pool = moments.m2[targets], moments.m2[first]
        m2 = pool - own - n * n_rest / n_pool * apart * apart
        lost |= (m2 < pool * _CANCELLED) & (n_rest > 1.0)
    return np.asarray((lost & there).any(axis=0))
