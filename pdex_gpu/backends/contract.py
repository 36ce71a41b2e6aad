"""The contract of a kernel set, which does arithmetic on one packed chunk and nothing more.

Notation: K groups of a design, T targets of a contrast, C genes in a chunk or a range.
Zeros are implicit: group g has ``n_cells[g] - n_expressed[g, gene]`` of them, and they rank
between negatives and positives. Explicit zeros, including -0.0, count as zeros.

How closely kernel sets must agree with the numpy kernel set:

====================  =================================  ==============================
kernel                output                             agreement
====================  =================================  ==============================
`moments`             ``n_expressed (K, C) int32``       exact
                      ``mean (K, C) float64``            rtol 1e-12
                      ``m2``, ``mean_expm1``,            rtol 1e-12 (see tests)
                      ``mean_log1p (K, C) float64``
                      ``m3``, ``m4 (K, C) float64``      see tests
`rank_sums`           ``u2 (T, C) int64``                exact
                      ``ties (T, C) float64``,           exact
                      ``lowest (T, C, 4) int32``
`anderson_darling`    ``a2 (T, C) float64``              rtol 1e-10
`kolmogorov_smirnov`  ``above, below (T, C) int64``,     exact
                      ``values (1, C) object``           exact
`placements`          ``target, reference (T, C)         exact
                      float64``
`benjamini_hochberg`  ``fdr``, shape of the input        exact
====================  =================================  ==============================

The results of a compiled kernel set do not depend, to the bit, on chunks, threads, how the matrix
is stored or the order of cells. CPU and CUDA kernels give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from ..design.contrasts import Contrast, Design
from ..errors import DataError
from ..sources.base import Chunk, Source
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary

#: With ``is_log1p=None``, a fractional part above this makes a matrix "log-transformed" (as in
#: pdex).
LOG1P_EPSILON = 1e-3


#: How many of the lowest values above zero `rank_sums` counts the cells of.
N_LOWEST = 4

#: Magnitudes between ``2**-SAFE_EXPONENT`` and ``2**SAFE_EXPONENT`` are squared and added unscaled.
SAFE_EXPONENT = 160


def scale_exponent(exponent: int) -> int:
    """Return the exponent of the power of two that values are divided by before they are squared.

    It is a multiple of twice :data:`SAFE_EXPONENT`, and 0 for all values that float32 holds. Every
    kernel set scales the values of a (group, gene) by the exponent for the largest of them.

    Parameters
    ----------
    exponent : int
        Exponent of the largest magnitude, at least -1023.
    """
    step = 2 * SAFE_EXPONENT
    n_steps = (abs(exponent) + SAFE_EXPONENT - 1) // step
    return n_steps * step if exponent > 0 else -n_steps * step


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
    """How many cells have the same value, in one gene of a contrast. Arrays are int64.

    Attributes
    ----------
    cells : numpy.ndarray, shape (K,)
        Cells of the reference, or of the pool that the targets belong to, at each of its distinct
        values, in ascending order; zero is one of them.
    place, count : numpy.ndarray, shape (n,)
        The distinct values of each target, in ascending order: where they lie among those of the
        reference, ``2 r + 1`` at value r and ``2 r`` between values r - 1 and r, and how many of
        its cells have the value. Empty if the targets belong to the pool.
    bounds : numpy.ndarray, shape (T + 1,)
        Those of target t are ``bounds[t]`` to ``bounds[t + 1]``.
    pooled : bool
        Whether the targets belong to the pool.
    """

    cells: np.ndarray
    place: np.ndarray
    count: np.ndarray
    bounds: np.ndarray
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


class PackedChunk(Protocol):
    """Packed genes ``[gene_start, gene_start + n_genes)``, opaque except to their kernel set.

    Attributes
    ----------
    gene_start, n_genes : int
    summary : ValueSummary
        Summary of the values of cells that belong to a group.
    """

    gene_start: int
    n_genes: int
    summary: ValueSummary


class KernelSet(Protocol):
    """Arithmetic on packed chunks; stateless and safe to call from several threads.

    Attributes
    ----------
    name : str
    scales_rows : bool
        Whether `pack` takes CSR chunks with a :class:`.sources.base.RowScale`.
    """

    name: str
    scales_rows: bool

    def packed_bytes(self, n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        """Return an upper bound on the bytes of a packed gene.

        The gene has `n_cells` cells and `n_entries` entries of `dtype`.
        """
        ...

    def pack(
        self, chunk: Chunk, design: Design, parallel_map: Map, *, finite: bool = True
    ) -> PackedChunk:
        """Check and rearrange a chunk; `parallel_map` spreads the work.

        NaN is an error. With ``finite=False`` it is left out instead: at each gene, a group
        consists of its cells that have a value. Only the numpy kernel set supports this; the
        others ignore `finite`.

        Raises
        ------
        NonFiniteError
            If a cell of some group holds infinity, or if it holds NaN and `finite` is true.
        NotCanonicalError
            If sparse indices are unsorted, repeated or out of range.
        """
        ...

    def moments(
        self,
        packed: Any,
        genes: slice,
        design: Design,
        *,
        centred: bool,
        expm1: bool,
        log1p: bool = False,
        higher: bool = False,
    ) -> Moments:
        """Return the moments of the genes `genes` of the chunk, for every group of the design.

        They include `m2` if `centred`, `mean_expm1` if `expm1`, `mean_log1p` if `log1p`, and `m3`
        and `m4` if `higher`.
        """
        ...

    def entries(self, packed: Any, gene: int) -> GroupValues:
        """Return the values of each group of the design in a gene of the packed chunk.

        Zeros may be left out, except by a kernel set that leaves out NaN (see `pack`). The values
        of a group come in any order, in a dtype that holds them exactly. On a device this waits for
        a copy.
        """
        ...

    def rank_sums(
        self, packed: Any, genes: slice, contrast: Contrast, *, lowest: bool = False
    ) -> RankSums:
        """Return the Mann-Whitney sums of the genes `genes` of the packed chunk.

        If `lowest`, also how many cells of each pair have its lowest values above zero.
        """
        ...

    def anderson_darling(
        self, packed: Any, genes: slice, contrast: Contrast, *, variant: str = "midrank"
    ) -> np.ndarray:
        """Return the two-sample A2 of Scholz and Stephens (1987), shape (T, C), float64.

        It is NaN where the pooled pair of samples has one distinct value.

        Parameters
        ----------
        variant : {"midrank", "right", "continuous"}
            Their eq. 7, 6 and 3, as `scipy.stats.anderson_ksamp` computes them. With ties,
            "continuous" has a term for each of the equal cells, all with the count of cells up to
            and including that value.
        """
        ...

    def kolmogorov_smirnov(
        self, packed: Any, genes: slice, contrast: Contrast, *, values: bool = False
    ) -> Distances:
        """Return the largest distances between the empirical distributions of the genes `genes`.

        If `values`, also how many cells of each sample have the same value.
        """
        ...

    def placements(self, packed: Any, genes: slice, contrast: Contrast) -> Placements:
        """Return the sums of squared placements of the genes `genes`."""
        ...

    def benjamini_hochberg(
        self,
        p_value: np.ndarray,
        parallel_map: Map,
        *,
        n_tests: int | None = None,
        n_smaller: int = 0,
        ceiling: float = 1.0,
    ) -> np.ndarray:
        """Adjust p-values in [0, 1] over all entries of an array of any shape.

        An adjusted p-value is the running minimum, from the largest p-value down, of
        ``p * (n / rank)`` (Benjamini and Hochberg 1995), at most 1. The bits are those of
        ``scipy.stats.false_discovery_control``.

        The p-values may be a consecutive part of a larger set in ascending order. The i-th smallest
        of them then has the rank ``n_smaller + i``. The bits are those of adjusting the whole set.

        Parameters
        ----------
        n_tests : int, optional
            Size of the whole set; by default the number of p-values given.
        n_smaller : int
            Number of the others that come before these. The rest come after.
        ceiling : float
            Smallest adjusted p-value of those that come after; 1 if there are none.
        """
        ...


class DeviceKernels(Protocol):
    """The kernel sets of the devices of a run; a kernel set on a single device has only itself."""

    @property
    def devices(self) -> Sequence[StreamedKernelSet]:
        """Return the kernel sets of the devices that were not lost, one per device."""
        ...

    def give_up(self, kernels: StreamedKernelSet, error: Exception) -> bool:
        """Stop using a device, which was lost as `error` says.

        Returns
        -------
        bool
            Whether there are other devices to go on with. The last one stays in `devices`.
        """
        ...

    def most_genes(self, source: Source, n_ranges: int) -> int:
        """Return the most genes per range of `source` such that `n_ranges` fit on each device."""
        ...


class StreamedKernelSet(DeviceKernels, KernelSet, Protocol):
    """A kernel set whose packed chunks lie on a device and are computed in slices of genes.

    Its calls raise `DeviceMemoryError` if the device has too little memory, after freeing what they
    had taken.
    """

    @property
    def description(self) -> str:
        """Return the description of the device, such as ``"NVIDIA H200, device 0"``."""
        ...

    def tasks(self, packed: Any, design: Design) -> list[slice]:
        """Return slices of the genes of a packed chunk, small enough to compute several at once."""
        ...

    def part(
        self, packed: Any, genes: slice, design: Design, *, alone: bool
    ) -> AbstractContextManager[Any]:
        """Prepare genes of a packed chunk, to pass to several kernels instead of the chunk.

        The part holds device memory until the context ends. If `alone`, no other part does at the
        same time. Genes are numbered from the first of the part.
        """
        ...


class NonFiniteError(DataError):
    """A cell of some group holds NaN or infinity.

    Attributes
    ----------
    cell, gene : int
        Row and column in the whole matrix.
    value : float
    """

    def __init__(self, cell: int, gene: int, value: float) -> None:
        super().__init__(f"X[{cell}, {gene}] is {value}")
        self.cell, self.gene, self.value = cell, gene, value

    def __reduce__(self) -> tuple[Any, ...]:
        return NonFiniteError, (self.cell, self.gene, self.value)  # args holds the message
