"""What a kernel set provides. A kernel set does arithmetic on one block of genes, no more.

Notation: K groups (the reference is group 0), T = K - 1 targets, C genes in a block or a range.
Zeros are implicit: group g has ``n_cells[g] - n_expressed[g, gene]`` of them, and they rank
between negatives and positives. Explicit zeros, -0.0 included, count as zeros.

How far kernel sets may differ from the reference:

====================  =================================  ==============================
kernel                output                             agreement
====================  =================================  ==============================
`moments`             ``n_expressed (K, C) int32``       exact
                      ``mean (K, C) float64``            rtol 1e-12
                      ``m2``, ``mean_expm1`` likewise    rtol 1e-12 (see tests)
`rank_sums`           ``u2 (T, C) int64``                exact
                      ``ties (T, C) float64``            exact up to 2**53, then rtol 1e-12
`anderson_darling`    ``a2 (T, C) float64``              rtol 1e-10
`benjamini_hochberg`  ``fdr``, shape of the input        exact
====================  =================================  ==============================

Within one kernel set the bits never depend on the chunk, on threads, or on how the matrix was
stored: a group's entries of a gene are always taken in ascending cell order, zeros left out.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..design import Design
from ..errors import DataError
from ..pools import Map
from ..sources.base import Chunk, Source

#: A fractional part above this makes a matrix "log-transformed" when ``is_log1p=None`` (pdex).
LOG1P_EPSILON = 1e-3


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
    mean_expm1 : numpy.ndarray or None, shape (K, C), float64
        Mean of ``expm1(x)``.
    """

    n_expressed: np.ndarray
    mean: np.ndarray
    m2: np.ndarray | None
    mean_expm1: np.ndarray | None

    def of(self, genes: slice) -> Moments:
        """Those of some of the genes, as views."""
        m2, expm1 = self.m2, self.mean_expm1
        return Moments(
            self.n_expressed[:, genes],
            self.mean[:, genes],
            None if m2 is None else m2[:, genes],
            None if expm1 is None else expm1[:, genes],
        )


@dataclass(frozen=True)
class RankSums:
    """Mann-Whitney sums of every (target, gene) against the reference.

    Attributes
    ----------
    u2 : numpy.ndarray, shape (T, C), int64
        Twice the U statistic of the target sample.
    ties : numpy.ndarray, shape (T, C), float64
        Sum of ``t**3 - t`` over the distinct values of the pooled pair of samples.
    """

    u2: np.ndarray
    ties: np.ndarray


class Block(Protocol):
    """Packed genes ``[gene_start, gene_start + n_genes)``, opaque to all but its kernel set.

    Attributes
    ----------
    gene_start, n_genes : int
    fractional : bool
        True if some value has a fractional part above :data:`LOG1P_EPSILON`.
    """

    gene_start: int
    n_genes: int
    fractional: bool


class KernelSet(Protocol):
    """Arithmetic on blocks; stateless and safe to call from several threads."""

    name: str

    def packed_bytes(self, n_cells: int, n_entries: float, dtype: np.dtype) -> float:
        """Bytes of a packed gene of `n_cells` cells and `n_entries` entries of `dtype`, at most."""
        ...

    def pack(self, chunk: Chunk, design: Design, run: Map, *, finite: bool = True) -> Block:
        """Check and rearrange a chunk, `run` spreading the work.

        Raises
        ------
        NonFiniteError
            If a cell of some group holds NaN or infinity and `finite` is true.
        NotCanonicalError
            If sparse indices are unsorted, repeated or out of range.
        """
        ...

    def moments(
        self, block: Any, genes: slice, design: Design, *, centred: bool, expm1: bool
    ) -> Moments:
        """Moments of the genes `genes` of the block; `m2` if `centred`, `mean_expm1` if `expm1`."""
        ...

    def rank_sums(self, block: Any, genes: slice, design: Design) -> RankSums:
        """Mann-Whitney sums of the genes `genes` of the block."""
        ...

    def anderson_darling(self, block: Any, genes: slice, design: Design) -> np.ndarray:
        """Two-sample midrank A2 (Scholz and Stephens 1987, eq. 7), shape (T, C), float64.

        NaN where the pooled pair of samples has one distinct value.
        """
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


class StreamedKernelSet(KernelSet, Protocol):
    """A kernel set whose blocks lie on a device, computed in slices of genes.

    Its calls raise `DeviceMemoryError` where the device has too little memory; what they had taken
    is free again by then.
    """

    def most_genes(self, source: Source, n_ranges: int) -> int:
        """Most genes of a range of `source`, so that `n_ranges` of them fit on the device."""
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
