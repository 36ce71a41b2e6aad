"""The samples of comparisons, scaled and relative to the reference for genes with exact sums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..backends.outputs import Moments
from ..design.contrasts import Contrast, Design
from .exact_moments import UNIT, Sums, quotient
from .samples import Sample, SamplePair, sample_pair

#: Differences of means are at most ``2**_REACH`` in the unit of a row, so that they can be squared.
_REACH = 500

_SMALLEST = 5e-324

_Pair = tuple[Sums, Sums]


@dataclass(frozen=True)
class Scaled:
    """The sides of a contrast.

    Attributes
    ----------
    sides : SamplePair
        Where `exponent` is given, means and squared deviations are those of the values minus the
        reference mean, divided by ``2**exponent``; there are no third and fourth moments then.
    shown : SamplePair
        The sides for the original values, without squared deviations.
    means : tuple of numpy.ndarray
        Means of target and reference divided by ``2**exponent``, rounded once.
    exponent : numpy.ndarray or None, shape (n_targets, 1), int64
        Equal for all contrasts of a row; None means 0.
    difference : numpy.ndarray or None, shape (n_targets, 1), float64
        Target mean minus reference mean, rounded once.
    pairs : sequence of (Sums, Sums)
        Sums of target and reference, where these are exact; None where one of them has NaN.
    """

    sides: SamplePair
    shown: SamplePair
    means: tuple[np.ndarray, np.ndarray]
    exponent: np.ndarray | None = None
    difference: np.ndarray | None = None
    pairs: Sequence[_Pair | None] = ()


def scaled_sides(moments: Moments, design: Design) -> list[Scaled]:
    """Return the sides of each contrast of a design; with exact sums, for a single gene."""
    if moments.exact is None:
        plain = [sample_pair(moments, contrast) for contrast in design.contrasts]
        return [Scaled(both, both, (both.target.mean, both.reference.mean)) for both in plain]
    sums = moments.exact[:, 0].tolist()
    of_contrasts = [_pairs([sums[g] for g in c.groups], c) for c in design.contrasts]
    exponents: list[int | None] = [None] * design.n_rows
    for contrast, pairs in zip(design.contrasts, of_contrasts, strict=True):
        for row, pair in zip(contrast.rows.tolist(), pairs, strict=True):
            its = _exponent(pair)
            if row >= 0 and its is not None:
                known = exponents[row]
                exponents[row] = its if known is None else max(known, its)
    return [
        _scaled(moments, contrast, pairs, [(exponents[r] or 0) if r >= 0 else 0 for r in rows])
        for contrast, pairs in zip(design.contrasts, of_contrasts, strict=True)
        for rows in [contrast.rows.tolist()]
    ]


def pooled_means(
    scaled: Sequence[Scaled], rows: Sequence[np.ndarray], exponents: Sequence[int]
) -> np.ndarray:
    """Return target and reference means over the strata that have both, shape (2, n_rows, 1).

    The means of each row are divided by 2 to the power of its exponent.
    """
    n_rows = len(exponents)
    total = [[Sums(0, 0, 0), Sums(0, 0, 0)] for _ in range(n_rows)]
    known = np.ones(n_rows, bool)
    for both, its in zip(scaled, rows, strict=True):
        for row, pair in zip(its.tolist(), both.pairs, strict=True):
            if row < 0:
                continue
            if pair is None:
                known[row] = False
            elif pair[0].n and pair[1].n:
                total[row] = [a + b for a, b in zip(total[row], pair, strict=True)]
    means = np.array([
        [_mean(sums, exponent) for sums in pair]
        for pair, exponent in zip(total, exponents, strict=True)
    ])  # fmt: skip
    means[~known] = np.nan
    return means.T[:, :, None]


def _pairs(groups: list[Sums | None], contrast: Contrast) -> list[_Pair | None]:
    """Return the sums of each target of a contrast, and of what it is compared with."""
    first, *targets = groups
    if contrast.one_vs_rest:
        known = [sums for sums in groups if sums is not None]
        if len(known) < len(groups):
            return [None] * len(groups)
        whole = sum(known, Sums(0, 0, 0))
        return [(sums, whole - sums) for sums in known]
    if first is None:
        return [None] * len(targets)
    return [
        None if sums is None else (sums, first - sums if contrast.pooled else first)
        for sums in targets
    ]


def _mean(sums: Sums, exponent: int) -> float:
    return quotient(sums.total, sums.n, UNIT + exponent) if sums.n else np.nan


def _difference(pair: _Pair) -> tuple[int, int]:
    """Return the difference of means in the unit of sums, as a fraction."""
    x, y = pair
    return x.total * y.n - y.total * x.n, x.n * y.n


def _exponent(pair: _Pair | None) -> int | None:
    """Return the exponent that keeps squares of deviations and differences within float64."""
    if pair is None or not (pair[0].n and pair[1].n):
        return None
    x, y = pair
    found = []
    spread = x.deviations * y.n + y.deviations * x.n
    if spread:
        found.append((spread.bit_length() - (x.n * y.n).bit_length()) // 2 - UNIT)
    difference, n = _difference(pair)
    if difference:
        found.append(difference.bit_length() - n.bit_length() - UNIT - _REACH)
    return max(found, default=None)


def _scaled(
    moments: Moments, contrast: Contrast, pairs: list[_Pair | None], exponents: list[int]
) -> Scaled:
    plain = replace(moments, m2=None, m3=None, m4=None, exponent=None, exact=None)
    with np.errstate(all="ignore"):
        shown = sample_pair(plain, contrast)
    shape = len(pairs), 1
    # First axis: target and reference. For differences: unscaled and scaled.
    means, m2 = np.full((2, *shape), np.nan), np.full((2, *shape), np.nan)
    scaled_means = np.full((2, *shape), np.nan)
    differences = np.full((2, *shape), np.nan)
    for t, (pair, exponent) in enumerate(zip(pairs, exponents, strict=True)):
        if pair is None:
            continue
        for which, sums in enumerate(pair):
            means[which, t] = sums.mean
            scaled_means[which, t] = _mean(sums, exponent)
            if sums.n:
                squares = quotient(sums.deviations, sums.n, 2 * (UNIT + exponent))
                # Deviations may underflow next to a huge difference; a test needs some, though.
                m2[which, t] = max(squares, _SMALLEST) if sums.deviations else 0.0
        if pair[0].n and pair[1].n:
            differences[:, t, 0] = [
                quotient(*_difference(pair), UNIT + shift) for shift in (0, exponent)
            ]
    target = replace(shown.target, mean=means[0])
    reference = replace(shown.reference, mean=means[1][: len(shown.reference.mean)])

    def side(sample: Sample, mean: np.ndarray, squares: np.ndarray) -> Sample:
        return replace(sample, mean=mean, m2=None if moments.m2 is None else squares)

    return Scaled(
        SamplePair(
            side(target, differences[1], m2[0]),
            side(reference, np.zeros(shape), m2[1]),
            shown.negative,
        ),
        SamplePair(target, reference),
        (scaled_means[0], scaled_means[1]),
        np.array(exponents, np.int64)[:, None],
        differences[0],
        pairs,
    )
