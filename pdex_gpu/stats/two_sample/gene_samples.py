"""The values that conditional p-values need beyond what kernels compute."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..conditional.gene_samples import GeneSamples

if TYPE_CHECKING:
    from ...backends.contract import KernelSet
    from ...design.contrasts import Contrast


def gene_samples(
    kernels: KernelSet, block: Any, genes: slice, contrast: Contrast, *, refuses_nan: bool
) -> np.ndarray:
    """Return the samples of each gene of a packed chunk, shape (1, C), `GeneSamples`."""
    found = np.empty((1, genes.stop - genes.start), object)
    first, last = contrast.groups, contrast.groups + 1
    pooled, rest = contrast.pooled, contrast.one_vs_rest
    for c in range(found.shape[1]):
        its = kernels.entries(block, genes.start + c)
        starts, stops = its.bounds[first], its.bounds[last]
        # Where NaN is left out, the values are those of all cells that have one.
        n_cells = contrast.n_cells if refuses_nan else stops - starts
        found[0, c] = GeneSamples(its.values, starts, stops, n_cells, pooled, rest)
    return found
