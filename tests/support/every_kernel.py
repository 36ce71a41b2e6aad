"""Small calls that launch every kernel of the CUDA backend, and need every barrier.

Blocks of two warps and tiles of a thousand keys keep segments short that are sorted by a warp, in a
tile, and in several; references and pools are longer than a block has threads.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from emulated.device import EmulatedDevice
from screens import as_chunk, design_of

from pdex_gpu.backends.cuda.kernel_set import CudaKernels
from pdex_gpu.backends.cuda.launch_config import Shapes
from pdex_gpu.backends.cuda.packed import Slice
from pdex_gpu.design.against import Against
from pdex_gpu.design.contrasts import Contrast

SHAPES = Shapes(n_threads=64, shared_bytes=8 << 10, n_slots=1, n_buffers=2, buffer_bytes=4000)

#: Of groups, the reference first. The last one takes two tiles of 32-bit keys.
SIZES = (700, 5, 1, 300, 60, 1300)

Outputs = dict[str, np.ndarray]


def values(dtype: str) -> np.ndarray:
    """Genes without ties, with ties across samples of the reference, with zeros, and constant."""
    rng, n = np.random.default_rng(1), sum(SIZES)
    plain = rng.normal(size=n)
    genes = [plain, np.round(plain), np.where(rng.random(n) < 0.6, 0, plain), np.full(n, 3.0)]
    return np.stack(genes, axis=1).astype(dtype)


DESIGN = design_of(np.repeat(np.arange(len(SIZES)), SIZES), len(SIZES))
GENES = slice(0, 4)


def contrast(against: str, *groups: int) -> Contrast:
    """Some groups, the first the reference or the pool, or each against the rest."""
    chosen = np.array(groups)
    n_targets = len(groups) - (against != "rest")
    return Contrast(chosen, DESIGN.n_cells[chosen], Against(against), np.arange(n_targets))


REFERENCE = contrast("reference", 0, 1, 2, 3, 4, 5)
REST = contrast("rest", 0, 1, 2, 3, 4, 5)
SCATTERED = contrast("rest", 1, 3, 4)  # whose pool is gathered
COMPLEMENT = contrast("complement", 5, 1, 4)


def of_layouts(kernels: CudaKernels, dtype: str) -> Outputs:
    """The values of all genes, from matrices stored in every way."""
    found = {}
    for form in ("csr-int32", "csc-uint16", "C"):
        block = kernels.pack(as_chunk(values(dtype), form), DESIGN, map)
        with kernels.part(block, GENES, DESIGN) as part:
            for gene in range(GENES.stop):
                found[f"{form}, gene {gene}"] = kernels.entries(part, gene).values
    return found


def of_moments(kernels: CudaKernels, part: Slice) -> Outputs:
    return vars(
        kernels.moments(part, GENES, DESIGN, centred=True, expm1=True, log1p=True, higher=True)
    )


def of_rank_sums(kernels: CudaKernels, part: Slice) -> Outputs:
    found = {}
    for name, pairs in (("reference", REFERENCE), ("rest", REST)):
        sums = kernels.rank_sums(part, GENES, pairs, lowest=True)
        found |= {f"{field}, {name}": array for field, array in vars(sums).items()}
    return found


def of_gathered_pools(kernels: CudaKernels, part: Slice) -> Outputs:
    return {"u2": kernels.rank_sums(part, GENES, SCATTERED).u2}


def of_other_ranks(kernels: CudaKernels, part: Slice) -> Outputs:
    found = {}
    for name, pairs in (("reference", REFERENCE), ("rest", REST), ("complement", COMPLEMENT)):
        distances = kernels.kolmogorov_smirnov(part, GENES, pairs)
        placements = kernels.placements(part, GENES, pairs)
        found |= {f"above, {name}": distances.above, f"below, {name}": distances.below}
        found |= {f"of targets, {name}": placements.target}
        found |= {f"of the reference, {name}": placements.reference}
    return found


def of_anderson_darling(kernels: CudaKernels, part: Slice) -> Outputs:
    return {
        variant: kernels.anderson_darling(part, GENES, REFERENCE, variant=variant)
        for variant in ("midrank", "right", "continuous")
    }


def of_anderson_darling_in_pools(kernels: CudaKernels, part: Slice) -> Outputs:
    return {
        f"{variant}, {name}": kernels.anderson_darling(part, GENES, pairs, variant=variant)
        for variant in ("midrank", "right", "continuous")
        for name, pairs in (("rest", REST), ("complement", COMPLEMENT))
    }


def of_fdr(kernels: CudaKernels) -> Outputs:
    p_values = np.random.default_rng(2).random((70, 30)).round(3)
    return {"adjusted": kernels.benjamini_hochberg(p_values, map)}


def of_probe(kernels: CudaKernels) -> Outputs:
    stream, found = kernels.device.stream(), np.zeros(1000, np.uint32)
    out = stream.empty(found.size, np.uint32)
    stream.launch("probe", "probe", 8, 128, out, np.uint32(found.size))
    stream.download(out, found)
    stream.synchronize()
    return {"probe": found}


OF_A_SLICE: tuple[Callable[[CudaKernels, Slice], Outputs], ...] = (
    of_moments,
    of_rank_sums,
    of_gathered_pools,
    of_other_ranks,
    of_anderson_darling,
    of_anderson_darling_in_pools,
)


def outputs(device: EmulatedDevice, dtype: str, *calls: Callable[..., Outputs]) -> Outputs:
    """What some of the calls return, by default all of them, on keys of 32 or of 64 bits."""
    kernels = CudaKernels(device, SHAPES)
    found: dict[str, np.ndarray] = {}
    wanted = calls or (of_layouts, *OF_A_SLICE, of_fdr, of_probe)
    for call in set(wanted) - set(OF_A_SLICE):
        found |= call(kernels, dtype) if call is of_layouts else call(kernels)
    block = kernels.pack(as_chunk(values(dtype), "csr-int32"), DESIGN, map)
    with kernels.part(block, GENES, DESIGN) as part:
        for call in OF_A_SLICE:
            if call in wanted:
                made = call(kernels, part)
                found |= {f"{call.__name__}, {name}": array for name, array in made.items()}
    return {name: array for name, array in found.items() if array is not None}
