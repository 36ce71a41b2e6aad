"""What a kernel set provides. A kernel set does arithmetic on one block of genes, no more.

Notation: K groups of a design, T targets of a contrast, C genes in a block or a range.
Zeros are implicit: group g has ``n_cells[g] - n_expressed[g, gene]`` of them, and they rank
between negatives and positives. Explicit zeros, -0.0 included, count as zeros.

How far kernel sets may differ from the reference:

====================  =================================  ==============================
kernel                output                             agreement
====================  =================================  ==============================
`moments`             ``n_expressed (K, C) int32``       exact
                      ``mean (K, C) float64``            rtol 1e-12
                      ``m2``, ``mean_expm1``,            rtol 1e-12 (see tests)
                      ``mean_log1p`` likewise
`rank_sums`           ``u2 (T, C) int64``                exact
                      ``ties (T, C) float64``            exact
`anderson_darling`    ``a2 (T, C) float64``              rtol 1e-10
`kolmogorov_smirnov`  ``above, below (T, C) int64``      exact
`placements`          ``target, reference (T, C)         exact
                      float64``
`benjamini_hochberg`  ``fdr``, shape of the input        exact
====================  =================================  ==============================

Within a compiled kernel set the bits never depend on the chunk, on threads, on how the matrix was
stored or on the order of cells, and those of the CPU and of CUDA are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol

import numpy as np

from ..design import Contrast, Design
from ..errors import DataError
from ..pools import Map
from ..sources.base import Chunk, Source
from ..value_summary import ValueSummary

#: A fractional part above this makes a matrix "log-transformed" when ``is_log1p=None`` (pdex).
LOG1P_EPSILON = 1e-3


#: Values up to 2 to this, and down to 2 to minus this, are squared and added as they are.
SAFE_EXPONENT = 160


def scale_exponent(exponent: int) -> int:
    """What values are divided by before they are squared: 2 to this.

    A multiple of twice :data:`SAFE_EXPONENT`, 0 for all that float32 holds. Every kernel set
    scales the values of a (group, gene) by that of the largest.

    Parameters
    ----------
    exponent : int
        Of the largest magnitude, at least -1023.
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
        Cells with a value other than zero.
    mean : numpy.ndarray, shape (K, C), float64
        Arithmetic mean over all cells; exactly the value where all cells share one.
    m2 : numpy.ndarray or None, shape (K, C), float64
        Sum of squared deviations from the mean, by the corrected two-pass algorithm (Chan,
        Golub and LeVeque 1983); exactly 0 where all cells share one value.
    mean_expm1, mean_log1p : numpy.ndarray or None, shape (K, C), float64
        Mean of ``expm1(x)`` and of ``log1p(x)``; NaN where a value below -1 has no logarithm.
    n_measured : numpy.ndarray or None, shape (K, C), int32
        Cells whose value is not NaN, of which all the rest is; None where that is all cells. The
        means of no cells are NaN. Of a block that was packed with ``finite=False``.
    exponent : numpy.ndarray or None, shape (K, C), int32
        Where values are so large or small that their squares overflow or underflow, kernels
        compute with the values over ``2**exponent``; `mean` is right then, and `m2` infinite or 0.
        None where all are 0; see :func:`scale_exponent`.
    exact : numpy.ndarray or None, shape (K, C), object
        Sums without rounding (:class:`pdex_gpu.stats.exact.Sums`) of genes where float64 loses too
        many digits, None elsewhere. No kernel gives it: :mod:`pdex_gpu.stats.exact` adds it.
    """

    n_expressed: np.ndarray
    mean: np.ndarray
    m2: np.ndarray | None
    mean_expm1: np.ndarray | None
    mean_log1p: np.ndarray | None = None
    n_measured: np.ndarray | None = None
    exponent: np.ndarray | None = None
    exact: np.ndarray | None = None

    @classmethod
    def unscaled(
        cls,
        n_expressed: np.ndarray,
        mean: np.ndarray,
        m2: np.ndarray | None,
        exponent: np.ndarray | None,
        mean_expm1: np.ndarray | None = None,
        mean_log1p: np.ndarray | None = None,
        n_measured: np.ndarray | None = None,
    ) -> Moments:
        """From `mean` and `m2` of values over ``2**exponent``, None for 0."""
        if exponent is None or not exponent.any():
            return cls(n_expressed, mean, m2, mean_expm1, mean_log1p, n_measured)
        with np.errstate(over="ignore", under="ignore"):
            true_mean = np.ldexp(mean, exponent)
            true_m2 = None if m2 is None else np.ldexp(m2, 2 * exponent)
        return cls(
            n_expressed, true_mean, true_m2, mean_expm1, mean_log1p, n_measured, exponent,
        )  # fmt: skip

    @property
    def with_exact_sums(self) -> np.ndarray:
        """Genes that have `exact`, shape (C,), bool."""
        if self.exact is None:
            return np.zeros(self.mean.shape[1], bool)
        return np.asarray((self.exact != None).any(axis=0))  # noqa: E711 (of each element)

    def of(self, genes: slice | np.ndarray) -> Moments:
        """Those of some of the genes; views if `genes` is a slice."""
        return self._each(lambda array: array[:, genes])

    def of_groups(self, groups: slice | np.ndarray) -> Moments:
        """Those of some of the groups; views if `groups` is a slice."""
        return self._each(lambda array: array[groups])

    def without(self, where: np.ndarray) -> Moments:
        """Those whose means are NaN where it says, shape (K, C)."""
        told = ("mean", "m2", "mean_expm1", "mean_log1p")
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
        Sum of ``t**3 - t`` over the distinct values of the pooled pair of samples, a whole number
        that is rounded once. May be a read-only view where that is the same for all targets.
    """

    u2: np.ndarray
    ties: np.ndarray


@dataclass(frozen=True)
class Distances:
    """Kolmogorov-Smirnov distances of every (target, gene) of a contrast, as whole numbers.

    With F and G the numbers of target and reference cells not above x, and n and m all of them:

    Attributes
    ----------
    above : numpy.ndarray, shape (T, C), int64
        Largest ``m F(x) - n G(x)`` over x, at least 0: ``n m`` times D+.
    below : numpy.ndarray, shape (T, C), int64
        Largest ``n G(x) - m F(x)``, at least 0: ``n m`` times D-.
    """

    above: np.ndarray
    below: np.ndarray


@dataclass(frozen=True)
class Placements:
    """Sums of squared placements of every (target, gene) of a contrast.

    The placement of a cell is how many cells of the other sample it exceeds, equal ones counting
    half (DeLong, DeLong and Clarke-Pearson 1988, who divide by the size of that sample). These are
    of twice the placements, which are whole numbers; their plain sum is ``u2``. A sum is rounded
    once.

    Attributes
    ----------
    target : numpy.ndarray, shape (T, C), float64
        Over target cells: sum of ``(2 * below + equal)**2``, counted among reference cells.
    reference : numpy.ndarray, shape (T, C), float64
        Over reference cells: sum of ``(2 * above + equal)**2``, counted among target cells.
    sums : RankSums
        The plain sums, the same bits as of `rank_sums`: who sorts for one need not for the other.
    """

    target: np.ndarray
    reference: np.ndarray
    sums: RankSums


class Block(Protocol):
    """Packed genes ``[gene_start, gene_start + n_genes)``, opaque to all but its kernel set.

    Attributes
    ----------
    gene_start, n_genes : int
    summary : ValueSummary
        Of the values of cells that are in some group.
    """

    gene_start: int
    n_genes: int
    summary: ValueSummary


class KernelSet(Protocol):
    """Arithmetic on blocks; stateless and safe to call from several threads."""

    name: str

    def packed_bytes(self, n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        """Bytes of a packed gene of `n_cells` cells and `n_entries` entries of `dtype`, at most."""
        ...

    def pack(self, chunk: Chunk, design: Design, run: Map, *, finite: bool = True) -> Block:
        """Check and rearrange a chunk, `run` spreading the work.

        NaN is refused, or with ``finite=False`` left out: cells are of a group at the genes where
        they have a value. The reference kernel set alone has that; others ignore `finite`.

        Raises
        ------
        NonFiniteError
            If a cell of some group holds infinity, or NaN and `finite` is true.
        NotCanonicalError
            If sparse indices are unsorted, repeated or out of range.
        """
        ...

    def moments(
        self,
        block: Any,
        genes: slice,
        design: Design,
        *,
        centred: bool,
        expm1: bool,
        log1p: bool = False,
    ) -> Moments:
        """Moments of the genes `genes` of the block, for every group of the design.

        `m2` if `centred`, `mean_expm1` if `expm1`, `mean_log1p` if `log1p`.
        """
        ...

    def entries(self, block: Any, gene: int) -> list[np.ndarray]:
        """Values of each group of the design in a gene of the block; zeros may be left out.

        In any order, of the dtype that holds them exactly. For few genes: this may be slow.
        """
        ...

    def rank_sums(self, block: Any, genes: slice, contrast: Contrast) -> RankSums:
        """Mann-Whitney sums of the genes `genes` of the block."""
        ...

    def anderson_darling(
        self, block: Any, genes: slice, contrast: Contrast, *, variant: str = "midrank"
    ) -> np.ndarray:
        """Two-sample A2 of Scholz and Stephens (1987), shape (T, C), float64.

        NaN where the pooled pair of samples has one distinct value.

        Parameters
        ----------
        variant : {"midrank", "right", "continuous"}
            Their eq. 7, 6 and 3, as `scipy.stats.anderson_ksamp` computes them: with ties,
            "continuous" counts equal cells each on its own against those not above all of them.
        """
        ...

    def kolmogorov_smirnov(self, block: Any, genes: slice, contrast: Contrast) -> Distances:
        """Largest distances between the empirical distributions of the genes `genes`."""
        ...

    def placements(self, block: Any, genes: slice, contrast: Contrast) -> Placements:
        """Sums of squared placements of the genes `genes`."""
        ...

    def benjamini_hochberg(
        self,
        p_value: np.ndarray,
        run: Map,
        *,
        n_tests: int | None = None,
        n_smaller: int = 0,
        ceiling: float = 1.0,
    ) -> np.ndarray:
        """Adjusted p-values over all entries of an array of any shape, values in [0, 1].

        The running minimum, from the largest p-value down, of ``p * (n / rank)`` (Benjamini and
        Hochberg 1995), at most 1: the bits of ``scipy.stats.false_discovery_control``.

        The p-values may be some of more, next to each other in ascending order: the i-th smallest
        of them then has the rank ``n_smaller + i``. What comes out is what adjusting all of them
        gives, to the bit.

        Parameters
        ----------
        n_tests : int, optional
            How many p-values there are in all; by default those given.
        n_smaller : int
            How many of the others come before these. The rest come after.
        ceiling : float
            The smallest adjusted p-value of those that come after; 1 if there are none.
        """
        ...


class DeviceKernels(Protocol):
    """The kernel sets of the devices of a run; one on a single device is that of itself alone."""

    @property
    def devices(self) -> Sequence[StreamedKernelSet]:
        """The kernel sets, one a device, of those that were not lost."""
        ...

    def give_up(self, kernels: StreamedKernelSet, error: Exception) -> bool:
        """A device was lost, as `error` says: ask nothing more of it.

        Returns
        -------
        bool
            Whether there are others to go on with. The last one stays among `devices`.
        """
        ...

    def most_genes(self, source: Source, n_ranges: int) -> int:
        """Most genes of a range of `source`, so that `n_ranges` of them fit on each device."""
        ...


class StreamedKernelSet(DeviceKernels, KernelSet, Protocol):
    """A kernel set whose blocks lie on a device, computed in slices of genes.

    Its calls raise `DeviceMemoryError` where the device has too little memory; what they had taken
    is free again by then.
    """

    @property
    def description(self) -> str:
        """The device: ``"NVIDIA H200, device 0"``."""
        ...

    def tasks(self, block: Any, design: Design) -> list[slice]:
        """Slices of the genes of a block, small enough for several to be in work at once."""
        ...

    def part(
        self, block: Any, genes: slice, design: Design, *, alone: bool
    ) -> AbstractContextManager[Any]:
        """Genes of a block made ready, to be given to several kernels in place of the block.

        Holds device memory until the context ends; nobody else does if `alone`. Genes count from
        the first of the part.
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
        return NonFiniteError, (self.cell, self.gene, self.value)  # not args, which is the text
