"""Two-sample Anderson-Darling statistics of a contrast; for the method see anderson_darling*.cu."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...design.contrasts import Contrast
from .comparands import Comparands, comparands_of, launch_pairs
from .device_api import DeviceArray
from .device_matrix import send_small
from .packed import Slice

_TARGETS_PER_BLOCK = 64  # they share no loaded keys, so blocks can be small
CHUNK = 8  # as in prefix_sums.cuh
SUMS = 3  # per chunk of a pool's distinct values
SUM_WORDS = 3  # 64-bit words per sum, at most


def anderson_darling(part: Slice, contrast: Contrast, variant: str = "midrank") -> np.ndarray:
    """See :meth:`pdex_gpu.backends.contract.KernelSet.anderson_darling`."""
    a2 = queue(part, contrast, variant)
    return part.slot.fetch([a2], (contrast.n_targets, part.n_genes))[0]


def queue(part: Slice, contrast: Contrast, variant: str = "midrank") -> DeviceArray:
    """Queue the kernels; return the array that will hold A2."""
    comparands, stream = comparands_of(part, contrast), part.slot.stream
    a2 = stream.empty(comparands.n_targets * part.n_genes, np.float64)
    distinct = _distinct(part, comparands)
    # `given`: kernel arguments other than the distinct values. `before`: a kernel that only a pool
    # needs. `last`: the kernel that computes A2.
    given: tuple[Any, ...]
    if variant == "continuous":
        given = _harmonic(part, contrast.n_pooled)
        source, before, last = "anderson_darling_continuous", "pool_ties", "continuous"
    else:
        given = (np.int32(variant == "midrank"),) if comparands.pooled else ()
        source, before, last = "anderson_darling", "pool_weights", "anderson_darling"
        source += "_pool" if comparands.pooled else ""
    if comparands.pooled:
        n_chunks = int(comparands.bounds.sum()) // CHUNK + part.n_genes
        sums: tuple[DeviceArray, ...] = (stream.empty(SUM_WORDS * SUMS * n_chunks, np.uint64),)
        if variant != "continuous":  # and the power of two that scales the weights
            sums += (stream.empty(part.n_genes, np.int32),)
        part.run(
            source, before, part.n_genes, *comparands.arguments, np.int32(part.kind),
            *distinct, *given, *sums,
        )  # fmt: skip
        given += sums
        last += "_in_pool"
    elif variant != "continuous":
        last += f"_{variant}"
    launch_pairs(
        part, source, last, comparands, a2, targets_per_block=_TARGETS_PER_BLOCK,
        samples=False, before=(*distinct, *given),
    )  # fmt: skip
    return a2


def _distinct(part: Slice, comparands: Comparands) -> tuple[DeviceArray, ...]:
    """Find the distinct values of the reference or pool: places, values, first entries, counts."""
    stream, n_genes = part.slot.stream, part.n_genes
    places = send_small(
        np.concatenate([[0], np.cumsum(comparands.bounds)]).astype(np.int64), stream
    )
    distinct = stream.empty(int(comparands.bounds.sum()), part.keys.dtype)
    first = stream.empty(distinct.size + n_genes, np.int32)
    n_distinct = stream.empty(n_genes, np.int32)
    part.run(
        "anderson_darling", "distinct_values", n_genes, comparands.keys, comparands.starts,
        comparands.ends, places, distinct, first, n_distinct, shared=32 * 4,
    )  # fmt: skip
    return places, distinct, first, n_distinct


def _harmonic(part: Slice, n: int) -> tuple[DeviceArray, np.int32]:
    """Return harmonic numbers up to H(n), one per chunk, and the power of two that scales them."""
    stream = part.slot.stream
    sums = stream.empty(2 * (n // CHUNK + 1), np.uint64)
    # Harmonic numbers have up to 6 integer bits, and S has three factors of up to n.
    scale = np.int32(min(118, 188 - 3 * int(n).bit_length()))
    n_threads = part.slot.shapes.n_threads
    stream.launch(
        "anderson_darling_continuous", "harmonic_numbers", 1, n_threads, np.int64(n), scale, sums
    )
    return sums, scale
