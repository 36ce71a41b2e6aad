"""The two sides of every comparison of a contrast: cell numbers, means and other moments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from ..backends.outputs import Moments
from ..design.contrasts import Contrast

_CANCELLED = 2.0**-20  # a difference below this share of its terms has lost too many digits


@dataclass(frozen=True)
class Sample:
    """One side of the comparisons.

    Arrays broadcast to (n_targets, n_genes); values shared by all targets have a first axis of 1.

    Attributes
    ----------
    n : numpy.ndarray, shape (n_targets or 1, 1), float64
        Number of cells; 0 where NaN is left out and no cell remains.
    n_expressed : numpy.ndarray, int
        Number of cells with a nonzero value.
    mean : numpy.ndarray, float64
    m2 : numpy.ndarray or None, float64
        Sum of squared deviations from the mean.
    mean_expm1, mean_log1p : numpy.ndarray or None, float64
    m3, m4 : numpy.ndarray or None, float64
        Sums of third and fourth powers of deviations from the mean.
    """

    n: np.ndarray
    n_expressed: np.ndarray
    mean: np.ndarray
    m2: np.ndarray | None
    mean_expm1: np.ndarray | None
    mean_log1p: np.ndarray | None
    m3: np.ndarray | None = None
    m4: np.ndarray | None = None


@dataclass(frozen=True)
class SamplePair:
    """The targets, and what each is compared with.

    Attributes
    ----------
    target, reference : Sample
    negative : numpy.ndarray or None, shape (n_genes,), bool
        Genes with negative values in some group of the design; None if there are none.
    """

    target: Sample
    reference: Sample
    negative: np.ndarray | None = None


def sample_pair(moments: Moments, contrast: Contrast) -> SamplePair:
    """Return the sides of a contrast, from the moments of all groups of the design.

    Where NaN was left out (`n_measured`), the moments are of a single gene, because group sizes
    then differ between genes.
    """
    span = contrast.span
    chosen = moments.of_groups(contrast.groups if span is None else span)
    negative = None if moments.negative is None else np.asarray(moments.negative.any(axis=0))
    sizes = contrast.n_cells[:, None] if chosen.n_measured is None else chosen.n_measured
    n_cells = sizes.astype(np.float64)
    if not contrast.pooled:
        return SamplePair(
            _sample(chosen.of_groups(slice(1, None)), n_cells[1:]),
            _sample(chosen.of_groups(slice(0, 1)), n_cells[:1]),
            negative,
        )
    if contrast.one_vs_rest:
        return SamplePair(_sample(chosen, n_cells), _others(chosen, n_cells), negative)
    targets = _sample(chosen.of_groups(slice(1, None)), n_cells[1:])
    pool = _sample(chosen.of_groups(slice(0, 1)), n_cells[:1])
    return SamplePair(targets, _without(pool, targets), negative)


def _sample(moments: Moments, n: np.ndarray) -> Sample:
    return Sample(
        n,
        moments.n_expressed,
        moments.mean,
        moments.m2,
        moments.mean_expm1,
        moments.mean_log1p,
        moments.m3,
        moments.m4,
    )


def _others(groups: Moments, n: np.ndarray) -> Sample:
    """Pool, for each group, all other groups, without subtracting sums from each other.

    The sums before and after a group are added. Squared deviations are taken from a common centre,
    then shifted to the mean of the others (Chan, Golub and LeVeque 1983).
    """
    total = n.sum(axis=0, keepdims=True)
    n_others = total - n

    def mean_of(mean: np.ndarray | None) -> np.ndarray | None:
        with np.errstate(invalid="ignore"):  # there may be no cells
            return None if mean is None else _all_but_one(n * _known(mean, n)) / n_others

    mean = mean_of(groups.mean)
    assert mean is not None
    m2 = m3 = m4 = None
    if groups.m2 is not None:
        means, inside = _known(groups.mean, n), _known(groups.m2, n)
        with np.errstate(invalid="ignore"):
            # In order: a sum along the only column of an array would be pairwise.
            centre = np.add.accumulate(n * means, axis=0)[-1:] / total
        deviation = means - centre
        of_others = mean - centre
        moved = n_others * of_others**2
        m2 = _all_but_one(inside + n * deviation * deviation) - moved
        cancelled = m2 < moved * _CANCELLED
        np.maximum(m2, 0.0, out=m2)
        low, high = _all_but_one(groups.mean, np.fmin), _all_but_one(groups.mean, np.fmax)
        constant = (low == high) & (_all_but_one(inside) == 0.0)  # all cells share one value
        m2[constant] = 0.0
        if cancelled.any():
            for t, j in np.argwhere(cancelled & ~constant).tolist():
                its = n[:, 0] * (means[:, j] - mean[t, j]) ** 2 + inside[:, j]
                m2[t, j] = its[:t].sum() + its[t + 1 :].sum()
        if groups.m3 is not None and groups.m4 is not None:
            third, fourth = _known(groups.m3, n), _known(groups.m4, n)
            powers = _about(deviation, n, inside, third, fourth)
            m3, m4 = _to_mean(of_others, n_others, *map(_all_but_one, powers))
            m3[constant], m4[constant] = 0.0, 0.0
        mean = np.where(constant, low, mean)
    expressed = groups.n_expressed.sum(axis=0, keepdims=True, dtype=np.int64)
    return Sample(
        n_others,
        expressed - groups.n_expressed,
        mean,
        m2,
        mean_of(groups.mean_expm1),
        mean_of(groups.mean_log1p),
        m3,
        m4,
    )


def _about(
    moved: np.ndarray, n: np.ndarray, m2: np.ndarray, m3: np.ndarray, m4: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sums of second to fourth powers of deviations from ``mean - moved``."""
    square = moved * moved
    second = m2 + n * square
    third = m3 + moved * (3.0 * m2 + n * square)
    fourth = m4 + moved * (4.0 * m3) + square * (6.0 * m2 + n * square)
    return second, third, fourth


def _to_mean(
    moved: np.ndarray, n: np.ndarray, second: np.ndarray, third: np.ndarray, fourth: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return `m3` and `m4`, given the sums of powers of deviations from ``mean - moved``."""
    square = moved * moved
    m3 = third - moved * (3.0 * second - 2.0 * n * square)
    m4 = fourth - moved * (4.0 * third) + square * (6.0 * second - 3.0 * n * square)
    return m3, np.maximum(m4, 0.0)


def _known(values: np.ndarray, n: np.ndarray) -> np.ndarray:
    """Replace the values of groups without cells by 0, so that they add nothing."""
    return values if n.all() else np.where(n > 0.0, values, 0.0)


def _all_but_one(values: np.ndarray, combine: np.ufunc = np.add) -> np.ndarray:
    """Combine, for each row, all other rows: those before it, then those after it."""
    before = combine.accumulate(values[:-1], axis=0)
    after = combine.accumulate(values[:0:-1], axis=0)[::-1]
    found = np.full(values.shape, np.nan)
    found[0], found[-1] = after[0], before[-1]
    combine(before[:-1], after[1:], out=found[1:-1])
    return found


def _without(pool: Sample, target: Sample) -> Sample:
    """Return the cells of a pool that are not the target's, by subtraction."""
    n = pool.n - target.n
    n_expressed = pool.n_expressed - target.n_expressed
    silent = (n_expressed == 0) & (n > 0.0)  # the mean is 0, which rounded sums may miss

    def mean_of(whole: np.ndarray | None, part: np.ndarray | None) -> np.ndarray | None:
        if whole is None or part is None:
            return None
        with np.errstate(invalid="ignore", divide="ignore"):  # there may be no cells
            left = (pool.n * _known(whole, pool.n) - target.n * _known(part, target.n)) / n
        return np.where(silent, 0.0, left)

    mean = mean_of(pool.mean, target.mean)
    assert mean is not None
    m2 = m3 = m4 = None
    if pool.m2 is not None and target.m2 is not None:
        inside = _known(target.m2, target.n)
        with np.errstate(invalid="ignore"):
            apart = np.where(target.n * n > 0.0, target.mean - mean, 0.0)
            m2 = pool.m2 - inside - target.n * n / pool.n * apart**2
        # Anything smaller is rounding error of the subtraction; so is all of it for a single cell.
        m2 = np.where((m2 > 1e-12 * pool.m2) & (n > 1.0) & ~silent, m2, 0.0)
        m3, m4 = _higher_without(pool, target, n, mean)
        if m3 is not None and m4 is not None:
            m3, m4 = np.where(m2 > 0.0, m3, 0.0), np.where(m2 > 0.0, m4, 0.0)
    return Sample(
        n,
        n_expressed,
        mean,
        m2,
        mean_of(pool.mean_expm1, target.mean_expm1),
        mean_of(pool.mean_log1p, target.mean_log1p),
        m3,
        m4,
    )


def _higher_without(
    pool: Sample, target: Sample, n: np.ndarray, mean: np.ndarray
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return `m3` and `m4` of the `n` cells of a pool that are not the target's."""
    wholes, parts = (pool.m2, pool.m3, pool.m4), (target.m2, target.m3, target.m4)
    if any(sums is None for sums in wholes + parts):
        return None, None
    with np.errstate(invalid="ignore"):  # there may be no cells
        moved = np.where(target.n > 0.0, target.mean - pool.mean, 0.0)
        known = [_known(sums, target.n) for sums in parts if sums is not None]
        own = _about(moved, target.n, *known)
        powers = [whole - sums for whole, sums in zip(wholes, own, strict=True)]
        return _to_mean(mean - pool.mean, n, *powers)


def pooled_over_strata(
    parts: Sequence[tuple[Sample, np.ndarray]], n_rows: int, n_genes: int
) -> Sample:
    """Pool one side of result rows that combine several strata: all its cells together.

    Third and fourth moments are left out: no statistic of all strata together uses them.

    Parameters
    ----------
    parts : sequence of (Sample, rows)
        The side in each stratum, and the row of each of its targets, -1 for none.
    n_rows, n_genes : int
    """
    n = np.zeros((n_rows, 1))
    for sample, rows in parts:
        used = rows >= 0
        n[rows[used]] += np.broadcast_to(sample.n, (len(rows), 1))[used]

    def total(values: Callable[[Sample], np.ndarray]) -> np.ndarray:
        found = np.zeros((n_rows, n_genes))
        for sample, rows in parts:
            used = rows >= 0
            found[rows[used]] += np.broadcast_to(values(sample), (len(rows), n_genes))[used]
        return found

    def per_cell(sums: np.ndarray) -> np.ndarray:
        with np.errstate(invalid="ignore"):  # perhaps no stratum has both sides
            found: np.ndarray = sums / n
            return found

    def mean_of(name: str) -> np.ndarray | None:
        if getattr(parts[0][0], name) is None:
            return None
        return per_cell(total(lambda sample: sample.n * getattr(sample, name)))

    mean = mean_of("mean")
    assert mean is not None
    m2 = None
    if parts[0][0].m2 is not None:
        m2 = np.zeros((n_rows, n_genes))
        for sample, rows in parts:
            used = rows >= 0
            assert sample.m2 is not None
            deviation = np.broadcast_to(sample.mean, (len(rows), n_genes))[used] - mean[rows[used]]
            within = np.broadcast_to(sample.m2, (len(rows), n_genes))[used]
            cells = np.broadcast_to(sample.n, (len(rows), 1))[used]
            m2[rows[used]] += within + cells * deviation**2
    return Sample(
        n,
        total(lambda sample: sample.n_expressed).astype(np.int64),
        mean,
        m2,
        mean_of("mean_expm1"),
        mean_of("mean_log1p"),
    )
