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

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ..design.contrasts import Contrast, Design
from ..errors import DataError
from ..sources.base import Chunk, Source
from ..utils.parallel import Map
from ..utils.value_summary import ValueSummary
from .outputs import Distances, GroupValues, Moments, Placements, RankSums

#: With ``is_log1p=None``, a fractional part above this makes a matrix "log-transformed" (as in
#: pdex).
LOG1P_EPSILON = 1e-3


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
