"""What the kernels of a kernel set return; :mod:`.contract` tells which kernel returns what.

Notation: K groups of a design, T targets of a contrast, C genes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

import numpy as np

#: How many of the lowest values above zero `rank_sums` counts the cells of.
N_LOWEST = 4


@dataclass(frozen=True)
class Moments:
    """Moments of every (group, gene).

    Attributes
    ----------
    n_expressed : numpy.ndarray, shape (K, C), int32
        Number of cells with a nonzero value.
    mean : numpy.ndarray, shape (K, C), float64
        Arithmetic mean over all cells. Where all cells share one value, exactly that value.
    m2 : numpy.ndarray or None, shape (K, C), float64
        Sum of squared deviations from the mean, by the corrected two-pass algorithm (Chan,
        Golub and LeVeque 1983). Exactly 0 where all cells share one value.
    mean_expm1, mean_log1p : numpy.ndarray or None, shape (K, C), float64
        Means of ``expm1(x)`` and of ``log1p(x)``. NaN where a value below -1 has no logarithm.
    m3, m4 : numpy.ndarray or None, shape (K, C), float64
        Sums of third and fourth powers of deviations from the mean. Exactly 0 where all cells share
        one value.
    n_measured : numpy.ndarray or None, shape (K, C), int32
        Number of cells whose value is not NaN; the other attributes refer to these cells only, and
        means over no cells are NaN. None if all cells have a value. Used for chunks packed with
        ``finite=False``.
    exponent : numpy.ndarray or None, shape (K, C), int32
        Where values are so large or small that their squares overflow or underflow, kernels
        divide the values by ``2**exponent``. `mean` is still right there; `m2`, `m3` and `m4`
        may be infinite or 0. None if all exponents are 0. See :func:`scale_exponent`.
    exact : numpy.ndarray or None, shape (K, C), object
        Sums without rounding (:class:`pdex_gpu.stats.exact_moments.Sums`) for genes where float64
        loses too many digits, None elsewhere. :mod:`pdex_gpu.stats.exact_moments` adds it, not the
        kernels.
    negative : numpy.ndarray or None, shape (K, C), bool
        Whether some value is negative; None if none is. The kernels do not fill it in.
    """

    n_expressed: np.ndarray
    mean: np.ndarray
    m2: np.ndarray | None
    mean_expm1: np.ndarray | None
    mean_log1p: np.ndarray | None = None
    m3: np.ndarray | None = None
    m4: np.ndarray | None = None
    n_measured: np.ndarray | None = None
    exponent: np.ndarray | None = None
    exact: np.ndarray | None = None
    negative: np.ndarray | None = None

    @classmethod
    def unscaled(
        cls,
        n_expressed: np.ndarray,
        mean: np.ndarray,
        m2: np.ndarray | None,
        exponent: np.ndarray | None,
        mean_expm1: np.ndarray | None = None,
        mean_log1p: np.ndarray | None = None,
        m3: np.ndarray | None = None,
        m4: np.ndarray | None = None,
        n_measured: np.ndarray | None = None,
    ) -> Moments:
        """Make moments from those of values over ``2**exponent``; None means 0."""
        if exponent is None or not exponent.any():
            return cls(n_expressed, mean, m2, mean_expm1, mean_log1p, m3, m4, n_measured)
        with np.errstate(over="ignore", under="ignore"):
            true_mean = np.ldexp(mean, exponent)
            m2, m3, m4 = (
                None if sums is None else np.ldexp(sums, power * exponent)
                for power, sums in ((2, m2), (3, m3), (4, m4))
            )
        return cls(
            n_expressed, true_mean, m2, mean_expm1, mean_log1p, m3, m4, n_measured, exponent,
        )  # fmt: skip

    @property
    def with_exact_sums(self) -> np.ndarray:
        """Return which genes have `exact`, shape (C,), bool."""
        if self.exact is None:
            return np.zeros(self.mean.shape[1], bool)
        return np.asarray((self.exact != None).any(axis=0))  # noqa: E711 (of each element)

    def of(self, genes: slice | np.ndarray) -> Moments:
        """Return the moments of some genes; views if `genes` is a slice."""
        return self._each(lambda array: array[:, genes])

    def of_groups(self, groups: slice | np.ndarray) -> Moments:
        """Return the moments of some groups; views if `groups` is a slice."""
        return self._each(lambda array: array[groups])

    def without(self, where: np.ndarray) -> Moments:
        """Return the moments with NaN for the means where `where`, shape (K, C), is true."""
        told = ("mean", "m2", "mean_expm1", "mean_log1p", "m3", "m4")
        arrays = {name: getattr(self, name) for name in told}
        exact = None if self.exact is None else self.exact.copy()
        if exact is not None:
            exact[where] = None
        return replace(
            self,
            **{n: np.where(where, np.nan, a) for n, a in arrays.items() if a is not None},
            exact=exact,
        )

    def _each(self, function: Callable[[np.ndarray], np.ndarray]) -> Moments:
        arrays = (getattr(self, field.name) for field in fields(self))
        return Moments(*(None if a is None else function(a) for a in arrays))  # type: ignore[arg-type]


@dataclass(frozen=True)
class RankSums:
    """Mann-Whitney sums of every (target, gene) of a contrast.

    Attributes
    ----------
    u2 : numpy.ndarray, shape (T, C), int64
        Twice the U statistic of the target sample.
    ties : numpy.ndarray, shape (T, C), float64
        Sum of ``t**3 - t`` over the distinct values of the pooled pair of samples: a whole number,
        rounded once. May be a read-only view if it is the same for all targets.
    lowest : numpy.ndarray or None, shape (T, C, N_LOWEST), int32
        Cells of the pooled pair at each of its lowest distinct values above zero, in ascending
        order; 0 where there are no more values. None unless asked for. May be a read-only view.
    """

    u2: np.ndarray
    ties: np.ndarray
    lowest: np.ndarray | None = None


@dataclass(frozen=True)
class Distances:
    """Kolmogorov-Smirnov distances of every (target, gene) of a contrast, as whole numbers.

    F(x) and G(x) are the numbers of target and reference cells not above x. n and m are the total
    numbers of target and reference cells.

    Attributes
    ----------
    above : numpy.ndarray, shape (T, C), int64
        Largest ``m F(x) - n G(x)`` over x, at least 0: ``n m`` times D+.
    below : numpy.ndarray, shape (T, C), int64
        Largest ``n G(x) - m F(x)``, at least 0: ``n m`` times D-.
    values : numpy.ndarray or None, shape (1, C), object
        `GeneValues` of every gene, if asked for.
    """

    above: np.ndarray
    below: np.ndarray
    values: np.ndarray | None = None


@dataclass(frozen=True)
class GeneValues:
    """How many cells have the same value, in one gene of a contrast. Arrays are int32.

    Attributes
    ----------
    cells : numpy.ndarray, shape (K,)
        Cells of the reference, or of the pool that the targets belong to, at each of its distinct
        values, in ascending order; zero is one of them.
    target, place, count : numpy.ndarray, shape (n,)
        The distinct values of the targets, in ascending order, those of several targets in the
        order of these: the number of the target, where its value lies among those of the reference
        (``2 r + 1`` at value r, ``2 r`` between values r - 1 and r), and how many of its cells
        have it. Empty if the targets belong to the pool.
    pooled : bool
        Whether the targets belong to the pool.
    """

    #: Most bytes of all arrays for each nonzero value of a cell, and for the zeros of a group.
    BYTES_PER_ENTRY: ClassVar[int] = 4 * 4

    cells: np.ndarray
    target: np.ndarray
    place: np.ndarray
    count: np.ndarray
    pooled: bool


@dataclass(frozen=True)
class Placements:
    """Sums of squared placements of every (target, gene) of a contrast.

    The placement of a cell is the number of cells of the other sample that it exceeds; equal ones
    count half (DeLong, DeLong and Clarke-Pearson 1988, who divide by the size of that sample). The
    sums are of twice the placements, which are whole numbers; without the squares they are ``u2``.
    Each sum is rounded once.

    Attributes
    ----------
    target : numpy.ndarray, shape (T, C), float64
        Over target cells: sum of ``(2 * below + equal)**2``, counted among reference cells.
    reference : numpy.ndarray, shape (T, C), float64
        Over reference cells: sum of ``(2 * above + equal)**2``, counted among target cells.
    sums : RankSums
        The plain sums, the same bits as `rank_sums` gives: one sort serves both.
    """

    target: np.ndarray
    reference: np.ndarray
    sums: RankSums


@dataclass(frozen=True)
class GroupValues(Sequence[np.ndarray]):
    """The values of each group of a design in a gene: a sequence of views of one array.

    Attributes
    ----------
    values : numpy.ndarray
        The values of group 0, then those of group 1, ...
    bounds : numpy.ndarray, shape (K + 1,), int64
        Those of group g are ``values[bounds[g]:bounds[g + 1]]``.
    """

    values: np.ndarray
    bounds: np.ndarray

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def __getitem__(self, group: Any) -> Any:
        """Return the values of a group."""
        start, stop = self.bounds[: len(self)][group], self.bounds[1:][group]
        return self.values[start:stop]
