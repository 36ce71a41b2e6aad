"""The CUDA kernels, below the package's call: borders of tiles, warps and buffers, huge numbers.

They run on an emulated device. What every kernel set must do is in test_kernel_sets.py.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from emulated.build import needs_compiler
from emulated.device import EmulatedDevice, from_device
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import false_discovery_control
from screens import (
    SMALL,
    Case,
    as_chunk,
    design_of,
    exact_rank_sums,
    gene_kinds,
    make_case,
    make_gene,
)

from pdex_gpu.backends.cuda import sources
from pdex_gpu.backends.cuda.comparands import comparands_of
from pdex_gpu.backends.cuda.kernel_set import CudaKernels
from pdex_gpu.backends.cuda.launch_config import Shapes
from pdex_gpu.backends.cuda.memory_model import _SLICE_BYTES_PER_CELL, _bytes_per_gene
from pdex_gpu.backends.cuda.packed import CudaPackedChunk, Slice
from pdex_gpu.backends.numpy import kernel_set
from pdex_gpu.design.against import Against
from pdex_gpu.design.contrasts import Contrast, Design
from pdex_gpu.errors import DeviceMemoryError
from pdex_gpu.sources.base import CscChunk

pytestmark = needs_compiler

SHAPES = {
    "default": Shapes(),
    "small": SMALL,
    "one warp": Shapes(n_threads=32, shared_bytes=8 << 10),
    "256 threads": Shapes(n_threads=256, shared_bytes=8 << 10),
    "192 threads": Shapes(n_threads=192, shared_bytes=16 << 10),
}
KEYS = ["int32", "uint32", "float32", "int64", "uint64", "float64"]


def make_kernels(shapes: str | Shapes = "small", **device: Any) -> CudaKernels:
    given = SHAPES[shapes] if isinstance(shapes, str) else shapes
    return CudaKernels(EmulatedDevice(memory=2 << 30, **device), given)


def columns(genes: list[np.ndarray], n_cells: int) -> CscChunk:
    """A chunk of genes given by their entries, in the first cells of all.

    One more gene, whose values keep the others from travelling as a shorter type.
    """
    dtype = genes[0].dtype
    wide = np.array([0.5] if dtype.kind == "f" else [np.iinfo(dtype).max, np.iinfo(dtype).max - 1])
    genes = [*genes, wide.astype(dtype)]
    sizes = [len(gene) for gene in genes]
    indptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    cells = np.concatenate([np.arange(n) for n in sizes]).astype(np.int32)
    return CscChunk(np.concatenate(genes), cells, indptr, n_cells, 0)


def values_of(part: Slice, dtype: str) -> np.ndarray:
    """The sorted keys of a slice, as the values they were made from."""
    part.slot.stream.synchronize()
    keys = from_device(part.keys)
    top = keys.dtype.type(1 << (8 * keys.itemsize - 1))
    kind = np.dtype(dtype).kind
    if kind == "u":
        return keys.astype(dtype)
    if kind == "i":
        return (keys ^ top).view(f"i{keys.itemsize}").astype(dtype)
    return np.where(keys & top, keys ^ top, ~keys).view(dtype)


# --- sorting ---------------------------------------------------------------------------------


def lengths(tile: int) -> list[int]:
    short = [0, 1, 2, *(n + d for n in (32, 64, 128, 256, 512) for d in (-1, 0, 1))]
    long = [tile - 1, tile, tile + 1, 2 * tile, 2 * tile + 1, 3 * tile, 5 * tile + 3]
    return sorted({*short, *long})


def make_keys(kind: str, n: int, dtype: str, rng: np.random.Generator) -> np.ndarray:
    """`n` values other than zero."""
    d = np.dtype(dtype)
    if d.kind == "f":
        low, high = np.finfo(d).min, np.finfo(d).max
        random = rng.normal(size=n).astype(d)
    else:
        low, high = np.iinfo(d).min, np.iinfo(d).max
        random = rng.integers(low, high, n, d, endpoint=True)
        random[random == 0] = 1
    return {
        "random": random,
        "equal": np.full(n, 7, d),
        "reversed": np.arange(n, 0, -1).astype(d),
        "sorted": np.arange(1, n + 1).astype(d),
        "all max": np.full(n, high, d),  # as large as what short segments are filled up with
        "ends": rng.choice(np.array([low or 1, high, 1], d), n),
        "few": rng.integers(1, 4, n).astype(d),
    }[kind]


KINDS = ["random", "equal", "reversed", "sorted", "all max", "ends", "few"]


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("shapes", SHAPES)
@pytest.mark.parametrize("most", ["a warp", "a tile", "all"])
@pytest.mark.parametrize("dtype", ["int32", "uint64"])
def test_segments_of_every_length(shapes: str, dtype: str, most: str) -> None:
    """All lengths as genes of one slice, so that sizes are mixed, for every kind of keys.

    How segments are sorted is decided by the cells of their group: no more than those in question.
    """
    kernels, rng = make_kernels(shapes), np.random.default_rng(1)
    bits = 8 * np.dtype(dtype).itemsize
    tile = kernels.shapes.tile(bits // 8)
    n_cells = {"a warp": 512, "a tile": tile, "all": 5 * tile + 3}[most]
    sizes = [n for n in lengths(tile) if n <= n_cells]
    assert sizes[-1] == n_cells
    kinds = KINDS if shapes == "small" else ["random", "all max", "reversed"]
    design = design_of(np.repeat([0, 1], [n_cells, 1]), 2)
    for kind in kinds:
        genes = [make_keys(kind, n, dtype, rng) for n in sizes]
        block = kernels.pack(columns(genes, n_cells + 1), design, map)
        assert block.matrix.values.dtype == dtype
        with kernels.part(block, slice(0, len(genes)), design) as part:
            found = values_of(part, dtype)
        expected = np.concatenate([np.sort(gene) for gene in genes])
        np.testing.assert_array_equal(found, expected, kind)
    launched = {name for name in kernels.device.launches if name.startswith(("sort", "merge"))}
    needed = ["sort_warps", *(["sort_tiles"] if n_cells > 512 else [])]
    needed += ["merge_runs"] if most == "all" else []
    assert launched == {f"{name}_{bits}" for name in needed}


@pytest.mark.parametrize("dtype", KEYS)
def test_keys_of_every_type(dtype: str) -> None:
    kernels, rng = make_kernels(), np.random.default_rng(2)
    n = 2 * kernels.shapes.tile(np.dtype(dtype).itemsize) + 77
    genes = [make_keys(kind, size, dtype, rng) for kind in KINDS for size in (n, 300, 40)]
    design = design_of(np.repeat([0, 1], [n, 3]), 2)
    block = kernels.pack(columns(genes, n + 3), design, map)
    assert block.matrix.values.dtype == dtype
    with kernels.part(block, slice(0, len(genes)), design) as part:
        found = values_of(part, dtype)
    np.testing.assert_array_equal(found, np.concatenate([np.sort(gene) for gene in genes]))


@pytest.mark.parametrize("bits", [32, 64])
def test_groups_of_every_length(bits: int) -> None:
    """All lengths as groups of one gene: sorted by warps, in a tile and beyond, at once."""
    kernels, rng = make_kernels(), np.random.default_rng(3)
    sizes = [n for n in lengths(kernels.shapes.tile(bits // 8)) if n]
    rng.shuffle(sizes)
    codes = np.repeat(np.arange(len(sizes)), sizes)
    dtype = f"f{bits // 8}"
    values = rng.normal(size=(len(codes), 3)).astype(dtype)
    values[:, 1:][rng.random((len(codes), 2)) < 0.2] = 0
    design = design_of(codes, len(sizes))
    block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
    for genes in (slice(0, 3), slice(1, 2)):
        with kernels.part(block, genes, design) as part:
            found = values_of(part, dtype)
        expected = [
            np.sort(segment[segment != 0])
            for j in range(genes.start, genes.stop)
            for segment in np.split(values[:, j], np.cumsum(sizes)[:-1])
        ]
        np.testing.assert_array_equal(found, np.concatenate(expected))


# --- rank sums and ties ----------------------------------------------------------------------


def outputs(kernels: Any, chunk: Any, design: Design, n_genes: int) -> dict[str, np.ndarray]:
    genes = slice(0, n_genes)
    block = kernels.pack(chunk, design, map)
    with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
        moments = kernels.moments(
            block, genes, design, centred=True, expm1=True, log1p=True, higher=True
        )
    sums = kernels.rank_sums(block, genes, design.contrasts[0])
    return {
        "n_expressed": moments.n_expressed,
        "mean": moments.mean,
        "m2": moments.m2,
        "mean_expm1": moments.mean_expm1,
        "mean_log1p": moments.mean_log1p,
        "m3": moments.m3,
        "m4": moments.m4,
        "u2": sums.u2,
        "ties": sums.ties,
        "a2": kernels.anderson_darling(block, genes, design.contrasts[0]),
    }


def assert_agree(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name in ("n_expressed", "u2", "ties"):
        np.testing.assert_array_equal(found[name], expected[name], name)
    # Worst seen: mean 5.2e-15, and 1.8e-15 off where values cancel; m2 5.2e-16, mean_expm1
    # 2.5e-14, a2 6.7e-16.
    tolerances = {
        "mean": 1e-12, "m2": 1e-12, "m4": 1e-12, "mean_expm1": 1e-12, "mean_log1p": 1e-12,
        "a2": 1e-10,
    }  # fmt: skip
    for name, rtol in tolerances.items():
        np.testing.assert_allclose(found[name], expected[name], rtol=rtol, atol=1e-15, err_msg=name)
    with np.errstate(over="ignore", invalid="ignore"):
        scale = expected["m2"] ** 1.5
        off = np.abs(found["m3"] - expected["m3"])
    assert (off <= 1e-12 * scale).all() or not np.isfinite(scale).all()


# Most keys of a reference in shared memory: 2,048 of 32 bits and 1,024 of 64 bits with SMALL.
@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("n_reference", [1, 31, 1023, 1024, 1025, 2047, 2048, 2049, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_references_beyond_shared_memory(n_reference: int, dtype: str) -> None:
    rng = np.random.default_rng(n_reference)
    sizes = [n_reference, 40, 1, 300]
    codes = np.repeat(np.arange(4), sizes)
    distinct = rng.normal(size=len(codes))
    values = np.stack(
        [
            distinct,
            np.round(distinct),  # ties across samples of the reference
            np.where(codes == 0, distinct - 9, distinct + 9),
            np.where(codes == 0, distinct + 9, distinct - 9),
            np.where(codes == 0, 5.0, distinct),  # one key in the whole reference
            np.arange(len(codes))[::-1] % 7 - 3,
        ],
        axis=1,
    ).astype(dtype)
    design = design_of(codes, 4)
    kernels = make_kernels()
    found = outputs(kernels, as_chunk(values, "F"), design, 6)
    assert_agree(found, outputs(kernel_set, as_chunk(values, "C"), design, 6))


def test_empty_references_and_targets() -> None:
    """Groups have cells; of entries they may have none, on either side."""
    codes = np.repeat([0, 1, 2, 3], [50, 40, 1, 60])
    rng = np.random.default_rng(5)
    values = rng.integers(-2, 3, (len(codes), 6)).astype(np.float32)
    values[codes == 0, 0] = 0
    values[codes == 1, 1] = 0
    values[codes > 0, 2] = 0
    values[:, 3] = 0
    values[codes != 3, 4] = 0
    values[1:, 5] = 0
    design = design_of(codes, 4)
    for shapes in ("small", "default"):
        found = outputs(make_kernels(shapes), as_chunk(values, "csr-int32"), design, 6)
        assert_agree(found, outputs(kernel_set, as_chunk(values, "C"), design, 6))
        assert np.isnan(found["a2"][:, 3]).all()


@pytest.mark.parametrize("shapes", ["default", "one warp"])
def test_more_targets_than_a_block_takes(shapes: str) -> None:
    """Targets of a gene are shared out among blocks from 1,024 on."""
    rng = np.random.default_rng(6)
    n_targets = 1500
    codes = np.concatenate([np.zeros(70, np.int64), np.repeat(np.arange(1, n_targets + 1), 3)])
    values = rng.integers(-3, 4, (len(codes), 2)) * rng.choice([1.0, 0.5], (len(codes), 2))
    values = values.astype(np.float32)
    design = design_of(codes, n_targets + 1)
    found = outputs(make_kernels(shapes), as_chunk(values, "csc-int32"), design, 2)
    assert_agree(found, outputs(kernel_set, as_chunk(values, "C"), design, 2))


@pytest.mark.thorough
def test_tie_terms_beyond_64_bits() -> None:
    """Of entries, of zeros, and of both samples; exact until the last rounding to float64."""
    n_ref, n_target, n_zeros = 1_400_000, 1_300_000, 100_000
    codes = np.repeat([0, 1], [n_ref, n_target])
    values = np.full((len(codes), 1), 3, np.uint8)
    values[::27] = 0
    values[5] = 1
    n_zeros = int((values == 0).sum())
    design = design_of(codes, 2)
    kernels = make_kernels("192 threads")
    block = kernels.pack(as_chunk(values, "C"), design, map)
    found = kernels.rank_sums(block, slice(0, 1), design.contrasts[0])
    equal = len(codes) - n_zeros - 1
    ties = equal**3 - equal + n_zeros**3 - n_zeros
    assert ties > 2**63
    assert found.ties[0, 0] == float(ties)
    at_zero = int((values[n_ref:] == 0).sum()), n_zeros - int((values[n_ref:] == 0).sum())
    target, control = n_target - at_zero[0], n_ref - at_zero[1] - 1
    u2 = at_zero[0] * at_zero[1] + target * (2 * (at_zero[1] + 1) + control)
    assert found.u2[0, 0] == u2


def test_places_beyond_32_bits() -> None:
    """Counts whose sum passes 2**32 become 64-bit places: offsets.cu on its own."""
    kernels = make_kernels("256 threads")
    stream = kernels.device.stream()
    n_groups, n_genes = 37, 40  # a warp takes four or five groups
    counts = np.random.default_rng(7).integers(2**30, 2**32, (n_groups, n_genes), np.uint32)
    on_device = stream.empty(counts.size, np.uint32)
    flat = counts.ravel()
    stream.upload(flat, on_device)
    bases = stream.empty(n_genes, np.uint64)
    starts = stream.empty((n_groups + 1) * n_genes, np.int64)
    size, n_threads = (np.int64(n_groups), np.int64(n_genes)), 256
    stream.launch("offsets", "gene_totals", 2, n_threads, on_device, *size, bases,
                  shared=8 * n_threads)  # fmt: skip
    stream.launch("offsets", "gene_bases", 1, n_threads, bases, size[1], shared=8 * n_threads)
    stream.launch("offsets", "group_starts", 2, n_threads, on_device, bases, *size, starts,
                  shared=8 * n_threads)  # fmt: skip
    stream.synchronize()
    ends = np.cumsum(counts.T.ravel().astype(np.int64))
    expected = np.empty((n_groups + 1, n_genes), np.int64)
    expected[1:] = ends.reshape(n_genes, n_groups).T
    expected[0] = [0, *expected[-1, :-1]]
    assert expected[-1, -1] > 2**36
    np.testing.assert_array_equal(from_device(starts).reshape(expected.shape), expected)


# --- contrasts of every kind -----------------------------------------------------------------


def contrast_of(design: Design, groups: list[int], against: str) -> Contrast:
    """The first of `groups` against the others, or each against the rest."""
    chosen = np.array(groups, np.int64)
    n_targets = len(groups) - (against != "rest")
    return Contrast(chosen, design.n_cells[chosen], Against(against), np.arange(n_targets))


def case_with_pool(sizes: list[int], kinds: list[str], dtype: str, seed: int) -> Case:
    """Group 0 holds `sizes[0]` cells, the others so many of them again; they may overlap."""
    rng = np.random.default_rng(seed)
    cells = np.stack([make_gene(kind, rng, sizes[0], dtype) for kind in kinds], axis=1)
    rows = [rng.choice(sizes[0], n, replace=False) for n in sizes]
    codes = np.repeat(np.arange(len(sizes)), sizes)
    shuffled = rng.permutation(len(codes))
    return Case(cells[np.concatenate(rows)][shuffled], design_of(codes[shuffled], len(sizes)))


def of_pairs(kernels: Any, block: Any, genes: slice, contrast: Contrast) -> dict[str, np.ndarray]:
    sums = kernels.rank_sums(block, genes, contrast)
    distances = kernels.kolmogorov_smirnov(block, genes, contrast)
    placements = kernels.placements(block, genes, contrast)
    found = {
        "u2": sums.u2,
        "ties": sums.ties,
        "above": distances.above,
        "below": distances.below,
        "placements of the target": placements.target,
        "placements of the reference": placements.reference,
    }
    for variant in ("midrank", "right", "continuous"):
        found[variant] = kernels.anderson_darling(block, genes, contrast, variant=variant)
    for name, array in found.items():
        assert array.shape == (contrast.n_targets, genes.stop - genes.start), name
        whole = name in ("u2", "above", "below")
        assert array.dtype == (np.int64 if whole else np.float64), name
    return found


def assert_pairs_agree(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    for name, array in expected.items():
        if name in ("midrank", "right", "continuous"):
            # Worst seen: 8.4e-16.
            np.testing.assert_allclose(found[name], array, rtol=1e-10, err_msg=name)
        else:  # whole numbers, rounded once
            np.testing.assert_array_equal(found[name], array, name)


def compare(case: Case, contrasts: list[Contrast], shapes: str | Shapes = "small") -> CudaKernels:
    """Hold every kernel on pairs to the reference, all contrasts on one part."""
    kernels = make_kernels(shapes)
    block = kernels.pack(as_chunk(case.values, "csr-int32"), case.design, map)
    plain = kernel_set.pack(as_chunk(case.values, "C"), case.design, map)
    with kernels.part(block, case.genes, case.design) as part:
        for contrast in contrasts:
            found = of_pairs(kernels, part, case.genes, contrast)
            assert_pairs_agree(found, of_pairs(kernel_set, plain, case.genes, contrast))
    return kernels


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("shapes", ["small", "default"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint32", "float64"])
def test_contrasts(dtype: str, shapes: str) -> None:
    """Groups in a row and scattered, one cell in one of them, values of every kind."""
    case = make_case([30, 5, 1, 12, 70], gene_kinds(dtype), dtype, seed=15)
    groups = [[0, 1, 2, 3, 4], [1, 2, 3], [4, 0, 1, 2], [3, 1, 4], [2, 3]]
    contrasts = [contrast_of(case.design, chosen, "reference") for chosen in groups]
    rests = [[0, 1, 2, 3, 4], [2, 3], [0, 2, 3], [1, 4], [0, 1]]
    compare(case, contrasts + [contrast_of(case.design, g, "rest") for g in rests], shapes)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("shapes", ["small", "default"])
@pytest.mark.parametrize("dtype", ["float32", "int64", "uint32", "float64"])
def test_targets_that_overlap(dtype: str, shapes: str) -> None:
    case = case_with_pool([90, 30, 1, 89, 45], gene_kinds(dtype), dtype, seed=16)
    groups = [[0, 1, 2, 3, 4], [0, 2, 4], [0, 3]]
    compare(case, [contrast_of(case.design, g, "complement") for g in groups], shapes)


@given(
    sizes=st.lists(st.integers(1, 9), min_size=2, max_size=6),
    dtype=st.sampled_from(["float32", "int64"]),
    seed=st.integers(0, 2**32 - 1),
    data=st.data(),
)
def test_any_contrast(sizes: list[int], dtype: str, seed: int, data: st.DataObject) -> None:
    against = data.draw(st.sampled_from(["reference", "rest", "complement"]))
    kinds = ["few values", "binary", "normal"] if dtype == "float32" else ["few values", "binary"]
    if against == "complement":
        case = case_with_pool([1 + max(sizes), *sizes], kinds, dtype, seed)
        chosen = data.draw(st.sets(st.integers(1, len(sizes)), min_size=1))
        groups = [0, *sorted(chosen)]
    else:
        case = make_case(sizes, kinds, dtype, seed)
        chosen = data.draw(st.sets(st.integers(0, len(sizes) - 1), min_size=2))
        groups = sorted(chosen)
        if against == "reference":
            first = data.draw(st.sampled_from(groups))
            groups = [first, *(g for g in groups if g != first)]
    compare(case, [contrast_of(case.design, groups, against)])


# Tiles of 1,024 keys of 32 bits and 512 of 64 bits: one tile, several, merged once to three times.
@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("n_cells", [511, 1000, 1025, 2048, 2100, 5000])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_pools_of_several_tiles(dtype: str, n_cells: int) -> None:
    rng = np.random.default_rng(n_cells)
    sizes = [n_cells // 2, n_cells // 3, 7, n_cells - n_cells // 2 - n_cells // 3 - 7]
    codes = np.repeat(np.arange(4), sizes)
    distinct = rng.normal(size=n_cells)
    values = np.stack(
        [
            distinct,
            np.round(distinct, 1),
            np.where(rng.random(n_cells) < 0.7, 0.0, distinct),
            np.where(codes == 1, 3.0, 0.0),
            distinct + 9 * codes,
        ],
        axis=1,
    ).astype(dtype)
    case = Case(values, design_of(codes, 4))
    groups = [[0, 1, 2, 3], [0, 2, 3], [1, 2]]
    kernels = compare(case, [contrast_of(case.design, g, "rest") for g in groups])
    tile = kernels.shapes.tile(np.dtype(dtype).itemsize)
    of_pools = [sum(sizes[g] for g in chosen) for chosen in groups]
    longest = [max(sizes), *of_pools]
    n_passes = sum((-(-n // tile) - 1).bit_length() for n in longest)
    assert kernels.device.launches[f"merge_runs_{8 * np.dtype(dtype).itemsize}"] == n_passes


# Prefix sums keep one of 8; 32 of these are a warp's share, and 96 a block's with SMALL.
@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("n_distinct", [1, 2, 7, 8, 9, 255, 256, 257, 767, 768, 769, 1600])
def test_distinct_values_of_a_pool(n_distinct: int) -> None:
    rng = np.random.default_rng(n_distinct)
    n_cells = max(60, n_distinct + 20)
    tied = np.concatenate([np.arange(n_distinct), rng.integers(0, n_distinct, n_cells)])[:n_cells]
    tied -= n_distinct // 3
    values = np.stack([tied, np.abs(tied) + 1, -np.abs(tied) - 1], axis=1).astype(np.float32)
    codes = rng.integers(0, 3, n_cells)
    case = Case(values, design_of(codes, 3))
    compare(case, [contrast_of(case.design, [0, 1, 2], "rest")])


@pytest.mark.thorough
@pytest.mark.parametrize("against", ["reference", "rest"])
@pytest.mark.parametrize("values", ["one tie of nearly all", "no ties", "halves"])
def test_anderson_darling_of_100_000_cells(values: str, against: str) -> None:
    """Expanded squares cancel: 17 digits would leave about 1e-10."""
    rng = np.random.default_rng(17)
    sizes = [60_000, 30, 9_970, 30_000]
    codes = np.repeat(np.arange(4), sizes)
    x = {
        "one tie of nearly all": np.where(rng.random(len(codes)) < 1e-3, 2.0, 1.0),
        "no ties": rng.permutation(len(codes)) - 50_000.5,
        "halves": np.where(rng.random(len(codes)) < 0.5, 0.0, rng.permutation(len(codes)) + 1.0),
    }[values]
    case = Case(x[:, None], design_of(codes, 4))
    compare(case, [contrast_of(case.design, [0, 1, 2, 3], against)], "192 threads")


def test_equal_distributions_have_no_distance() -> None:
    """Sums that cancel to nothing are 0, and no rounding error."""
    n, n_groups = 20_000, 3  # with fewer cells twofold sums are exact
    values = np.tile(np.arange(1, n + 1, dtype=np.float32), n_groups)[:, None]
    design = design_of(np.repeat(np.arange(n_groups), n), n_groups)
    kernels = make_kernels("192 threads")
    block = kernels.pack(as_chunk(values, "csc-int32"), design, map)
    found = of_pairs(kernels, block, slice(0, 1), contrast_of(design, [0, 1, 2], "rest"))
    for name in ("midrank", "right", "above", "below"):
        np.testing.assert_array_equal(found[name], 0, name)


def test_placements_beyond_64_bits() -> None:
    n_ref, n_target = 2_900_000, 2_800_000
    codes = np.repeat([0, 1], [n_ref, n_target])
    values = np.zeros((len(codes), 1), np.int8)
    values[0], values[n_ref : n_ref + 2] = 5, -1
    design = design_of(codes, 2)
    kernels = make_kernels("192 threads")
    block = kernels.pack(as_chunk(values, "csc-int32"), design, map)
    contrast = design.contrasts[0]
    found = kernels.placements(block, slice(0, 1), contrast)
    of_target = (n_target - 2) * (n_ref - 1) ** 2
    of_reference = (n_ref - 1) * (n_target - 2) ** 2
    assert min(of_target, of_reference) > 2**64
    assert found.target[0, 0] == float(of_target)
    assert found.reference[0, 0] == float(of_reference)
    distances = kernels.kolmogorov_smirnov(block, slice(0, 1), contrast)
    assert distances.above[0, 0] == max(2 * n_ref, n_ref * n_target - n_target * (n_ref - 1))
    assert distances.below[0, 0] == 0


@pytest.mark.parametrize("dtype", ["float32", "uint16", "int64"])
@pytest.mark.parametrize("against", ["reference", "rest", "complement"])
def test_distinct_values_are_those_of_the_reference_kernels(against: str, dtype: str) -> None:
    case = case_with_pool([60, 9, 1, 33], gene_kinds(dtype), dtype, 5)
    # The reference need not be the first group of the design.
    groups = [2, 0, 3] if against == "reference" else [0, 1, 3]
    contrast = contrast_of(case.design, groups, against)
    found = []
    for kernels in (make_kernels(), kernel_set):
        block = kernels.pack(as_chunk(case.values, "csr-int32"), case.design, map)
        genes = slice(1, case.values.shape[1])
        found.append(kernels.kolmogorov_smirnov(block, genes, contrast, values=True))
    assert found[0].values.shape == found[1].values.shape == (1, genes.stop - 1)
    for its, expected in zip(found[0].values[0], found[1].values[0], strict=True):
        assert its.pooled == expected.pooled == (against != "reference")
        for name in ("cells", "target", "place", "count"):
            array = getattr(expected, name)
            assert array.dtype == np.int32
            np.testing.assert_array_equal(getattr(its, name), array, name, strict=True)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("shapes", SHAPES)
def test_shapes_change_no_bit_of_a_pool(shapes: str, seed: int) -> None:
    kinds = ["normal", "counts", "tied halves"]
    case = case_with_pool([1700, 90, 1, 840], kinds, "float32", seed=19)
    groups = [0, 1, 2, 3]
    contrasts = [contrast_of(case.design, groups, kind) for kind in ("rest", "complement")]
    found = []
    for kernels in (make_kernels("default", seed=0), make_kernels(shapes, seed=seed)):
        block = kernels.pack(as_chunk(case.values, "csr-int32"), case.design, map)
        found.append([of_pairs(kernels, block, case.genes, contrast) for contrast in contrasts])
    for expected, given_ in zip(*found, strict=True):
        for name, array in expected.items():
            assert given_[name].tobytes() == array.tobytes(), name


def test_a_pool_is_made_once() -> None:
    case = make_case([40, 30, 20], ["normal"] * 4, "float32", seed=20)
    design = case.design
    kernels = make_kernels()
    block = kernels.pack(as_chunk(case.values, "C"), design, map)
    of_all, of_some = (contrast_of(design, groups, "rest") for groups in ([0, 1, 2], [0, 2]))
    with kernels.part(block, case.genes, design) as part:
        for contrast in (of_all, of_some, of_all):
            of_pairs(kernels, part, case.genes, contrast)
    launches = kernels.device.launches
    assert (launches["pool_of_span"], launches["gather_pool_32"]) == (2, 1)
    assert launches["sort_tiles_32"] == 3


def test_one_pool_is_held_at_a_time() -> None:
    case = make_case([300, 200], ["normal"] * 4, "float32", seed=25)
    kernels = make_kernels()
    block = kernels.pack(as_chunk(case.values, "C"), case.design, map)
    device = kernels.device
    with kernels.part(block, case.genes, case.design) as part:
        of_part = device.bytes_in_use
        in_use = []
        for _ in range(3):
            device.heap.peak = device.bytes_in_use
            comparands_of(part, contrast_of(case.design, [0, 1], "rest"))
            part.slot.stream.synchronize()  # what is queued holds arrays here
            in_use.append(device.peak_bytes - of_part)
        assert part.keys.nbytes < min(in_use)
        assert max(in_use) < 1.5 * part.keys.nbytes


def test_targets_of_a_large_contrast_are_shared_out() -> None:
    """Targets of a gene go to several blocks from 1,024 on, of the rank sums and of the others."""
    rng = np.random.default_rng(21)
    n_groups = 1300
    codes = np.repeat(np.arange(n_groups), 3)
    values = rng.integers(-3, 4, (len(codes), 1)).astype(np.float32)
    case = Case(values, design_of(codes, n_groups))
    groups = [7, *(g for g in range(n_groups) if g != 7)]
    scattered = contrast_of(case.design, groups, "reference")
    compare(case, [scattered], "one warp")
    design = case.design
    kernels = make_kernels("one warp")
    block = kernels.pack(as_chunk(values, "C"), design, map)
    rest = contrast_of(design, list(range(n_groups)), "rest")
    found = of_pairs(kernels, block, case.genes, rest)
    for g in (0, 1, 649, 650, 1298, 1299):  # the reference takes its time: one against all others
        own = values[codes == g, 0]
        others = values[codes != g, 0]
        pair = Case(np.concatenate([others, own])[:, None],
                    design_of(np.repeat([0, 1], [len(others), 3]), 2))  # fmt: skip
        plain = kernel_set.pack(as_chunk(pair.values, "C"), pair.design, map)
        expected = of_pairs(kernel_set, plain, slice(0, 1), pair.design.contrasts[0])
        assert_pairs_agree({name: a[g : g + 1] for name, a in found.items()}, expected)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("against", ["reference", "rest", "complement"])
@pytest.mark.parametrize("n_cells", [300, 3000])
def test_memory_of_a_slice_is_foreseen(n_cells: int, against: str) -> None:
    """While slices are cut nothing is known of the kernels that run: it is that of all of them."""
    kernels, rng = make_kernels(), np.random.default_rng(22)
    codes = np.repeat(np.arange(4), n_cells // 4)
    values = rng.normal(size=(n_cells, 40)).astype(np.float32)
    design = design_of(codes, 4)
    contrast = contrast_of(design, [0, 1, 2, 3], against)
    design = replace(design, contrasts=(contrast,))
    if against == "complement":
        values[n_cells // 4 :] = np.tile(values[: n_cells // 4], (3, 1))
        values[n_cells // 4 :: 5] = values[0]  # fewer cells than the pool has are compared
    block = kernels.pack(as_chunk(values, "csr-int32"), design, map)
    device = kernels.device
    before = device.bytes_in_use
    device.heap.peak = before
    with kernels.part(block, slice(0, 40), design) as part:
        for variant in ("midrank", "right", "continuous"):
            kernels.anderson_darling(part, slice(0, 40), contrast, variant=variant)
    foreseen = _bytes_per_gene(block.entries, 4, design, kernels.shapes).sum()
    foreseen += _SLICE_BYTES_PER_CELL * n_cells
    # Allocations are rounded up.
    assert 0.5 * foreseen < device.peak_bytes - before < foreseen + 20_000


def test_memory_that_runs_out_while_a_pool_is_made() -> None:
    case = make_case([700, 600, 20], ["normal"] * 3, "float32", seed=23)
    kernels = make_kernels()
    device = kernels.device
    block = kernels.pack(as_chunk(case.values, "csr-int32"), case.design, map)
    of_the_block = device.bytes_in_use
    contrasts = [contrast_of(case.design, g, "rest") for g in ([0, 1, 2], [0, 2])]
    for contrast in contrasts:
        for variant in ("midrank", "continuous"):
            n_failed = 0
            while True:
                device.fail_allocation(after=n_failed)
                try:
                    kernels.anderson_darling(block, case.genes, contrast, variant=variant)
                except DeviceMemoryError:
                    n_failed += 1
                else:
                    break
                assert device.bytes_in_use == of_the_block, n_failed
            device.fail_allocation(after=0, times=0)
            assert n_failed >= 15


# --- Anderson-Darling ------------------------------------------------------------------------


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("n_targets", [1, 31, 33])
@pytest.mark.parametrize("n_distinct", [1, 2, 31, 32, 33, 64, 65, 700])
def test_anderson_darling_around_a_warp(n_distinct: int, n_targets: int) -> None:
    """Distinct values of the reference are taken 32 at a time, a block of threads collects them."""
    rng = np.random.default_rng(n_distinct)
    sizes = [900, *rng.integers(1, 80, n_targets)]
    codes = np.repeat(np.arange(len(sizes)), sizes)
    tied = rng.integers(0, n_distinct, len(codes)) - n_distinct // 3
    values = np.stack(
        [
            tied,
            np.where(codes == 0, tied, tied + 0.5),  # the target has none of them
            np.where(codes == 0, 2.0 * tied, rng.permutation(len(codes)) / 7 - 100),
        ],
        axis=1,
    ).astype(np.float32)
    design = design_of(codes, len(sizes))
    found = outputs(make_kernels(), as_chunk(values, "csr-int32"), design, 3)
    assert_agree(found, outputs(kernel_set, as_chunk(values, "C"), design, 3))


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("values", ["one tie of nearly all", "no ties", "halves"])
def test_anderson_darling_with_huge_ties_and_none(values: str) -> None:
    rng = np.random.default_rng(8)
    n_ref, n_target = 30_000, 20_000
    codes = np.repeat([0, 1], [n_ref, n_target])
    x = {
        "one tie of nearly all": np.where(rng.random(len(codes)) < 1e-3, 2.0, 1.0),
        "no ties": rng.permutation(len(codes)) - 25_000.5,
        "halves": np.where(rng.random(len(codes)) < 0.5, 0.0, rng.permutation(len(codes)) + 1.0),
    }[values]
    case = Case(x[:, None], design_of(codes, 2))
    kernels = make_kernels("192 threads")
    block = kernels.pack(as_chunk(case.values, "C"), case.design, map)
    control, target = case.samples(0)
    # Worst seen: 4e-16.
    np.testing.assert_allclose(
        kernels.anderson_darling(block, case.genes, case.design.contrasts[0])[0, 0],
        kernel_set._a2_midrank((target, control), np.sort(np.concatenate([target, control]))),
        rtol=1e-10,
    )


# --- moments ---------------------------------------------------------------------------------


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("n", [33, 1023, 1024, 1025, 3000])
def test_moments_do_not_depend_on_the_order_of_the_cells(n: int) -> None:
    """Sums whose last bits depend on the order of additions: keys are sorted first."""
    rng = np.random.default_rng(n)
    values = (rng.normal(size=(n, 3)) * 10.0 ** rng.integers(-3, 4, (n, 3))).astype(np.float64)
    codes = rng.integers(0, 3, n)
    shuffled = rng.permutation(n)
    one_by_one = (np.cumsum(values[order], axis=0)[-1] for order in (slice(None), shuffled))
    assert not np.array_equal(*one_by_one)
    found = []
    for order in (np.arange(n), shuffled):
        design = design_of(codes[order], 3)
        chunk = as_chunk(values[order], "C")
        found.append(outputs(make_kernels(), chunk, design, 3))
    for name, array in found[0].items():
        assert array.tobytes() == found[1][name].tobytes(), name
    expected = outputs(kernel_set, as_chunk(values, "C"), design_of(codes, 3), 3)
    size = np.abs(values).mean()
    # Worst seen: relative 3.5e-14, of a mean near zero.
    np.testing.assert_allclose(found[0]["mean"], expected["mean"], rtol=1e-12, atol=1e-15 * size)
    np.testing.assert_allclose(found[0]["m2"], expected["m2"], rtol=1e-12)


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32"])
def test_logarithms(dtype: str) -> None:
    rng = np.random.default_rng(24)
    counts = rng.poisson(rng.lognormal(1.0, 2.0, (2000, 4))) * 1.25
    counts[:, 1] -= 1.0  # log(0) among them
    counts[7, 2] = -2.0  # has none
    values = counts.astype(dtype)
    codes = np.repeat([0, 1, 2], [5, 1200, 795])
    found = outputs(make_kernels(), as_chunk(values, "csr-int32"), design_of(codes, 3), 4)
    expected = outputs(kernel_set, as_chunk(values, "C"), design_of(codes, 3), 4)
    assert np.isnan(expected["mean_log1p"]).sum() == 1
    assert np.isneginf(expected["mean_log1p"][:, 1]).all()
    # Worst seen: 1.8e-15.
    np.testing.assert_allclose(found["mean_log1p"], expected["mean_log1p"], rtol=1e-12)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shapes", SHAPES)
def test_neither_threads_nor_shapes_change_a_bit(shapes: str, seed: int) -> None:
    case = make_case([700, 90, 1, 40], ["normal", "counts", "tied halves"], "float32", seed=9)
    chunk = as_chunk(case.values, "csr-int32")
    expected = outputs(make_kernels("default", seed=0), chunk, case.design, 3)
    found = outputs(make_kernels(shapes, seed=seed), chunk, case.design, 3)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


# --- Benjamini-Hochberg ----------------------------------------------------------------------


# Tiles of 512 p-values; passes of merging: 0, 1, 2, 3.
@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("n", [1, 2, 31, 33, 511, 512, 513, 1023, 1024, 1025, 1537, 2049, 2600])
@pytest.mark.parametrize("shapes", ["small", "one warp", "192 threads"])
def test_fdr_around_tiles(shapes: str, n: int) -> None:
    kernels, rng = make_kernels(shapes), np.random.default_rng(n)
    uniform = rng.random(n)
    for p_value in (
        uniform,
        np.sort(uniform),
        np.sort(uniform)[::-1],
        np.round(uniform, 1),  # ties, 0 and 1 among them
        np.full(n, 0.3),
        np.zeros(n),
        np.ones(n),
        np.where(uniform < 0.5, 0.0, 1.0),
        uniform**90,  # subnormal numbers and 0
    ):
        found = kernels.benjamini_hochberg(p_value, map)
        assert found.tobytes() == false_discovery_control(p_value).tobytes()


def test_fdr_of_nothing() -> None:
    found = make_kernels().benjamini_hochberg(np.empty((0, 5)), map)
    assert found.shape == (0, 5)
    assert found.dtype == np.float64


# --- from a matrix to keys -------------------------------------------------------------------


@pytest.mark.thorough
def test_many_groups_and_few_genes() -> None:
    """65,537 groups, one more than 16 bits count, share out among the warps of a block."""
    n_groups = 65_537
    rng = np.random.default_rng(10)
    codes = np.concatenate([np.zeros(30, np.int64), np.arange(1, n_groups)])
    rng.shuffle(codes)
    values = rng.integers(0, 3, (len(codes), 3)).astype(np.float32)
    values[codes == n_groups - 1] = [9, 0, 9]
    design = design_of(codes, n_groups)
    for shapes in ("small", "192 threads"):
        kernels = make_kernels(shapes)
        block = kernels.pack(as_chunk(values, "csc-int32"), design, map)
        moments = kernels.moments(block, slice(0, 3), design, centred=False, expm1=False)
        by_group = values[design.order[30:]]
        np.testing.assert_array_equal(moments.mean[1:], by_group)
        np.testing.assert_array_equal(moments.n_expressed[1:], by_group != 0)
        sums = kernels.rank_sums(block, slice(0, 3), design.contrasts[0])
        control = values[codes == 0]
        for j, target in itertools.product(range(3), (0, 1, 65_534, 65_535)):
            u2, ties = exact_rank_sums(by_group[target : target + 1, j], control[:, j])
            assert (sums.u2[target, j], sums.ties[target, j]) == (u2, ties)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(
    ("n_minor", "dtype"), [(65_535, "u2"), (65_536, "u2"), (65_537, "i4"), (70_001, "i4")]
)
@pytest.mark.parametrize("form", ["csr", "csc"])
def test_indices_on_both_sides_of_16_bits(form: str, n_minor: int, dtype: str) -> None:
    rng = np.random.default_rng(11)
    values = np.zeros((8, n_minor), np.float32)
    values[:, [0, 5, 65_534, n_minor - 2, n_minor - 1]] = rng.integers(1, 9, (8, 5))
    matrix = sparse.csr_array(values)
    if form == "csc":
        matrix = matrix.T
        values = values.T
    n_cells, n_genes = values.shape
    assert matrix.format == form
    codes = np.arange(n_cells) % 3
    design = design_of(codes, 3)
    kernels = make_kernels("default")
    from pdex_gpu.sources.memory.open import from_array

    with from_array(matrix, what="X").open([0, n_genes], 1 << 30) as reader:
        block: CudaPackedChunk = kernels.pack(reader.read(0), design, map)
    assert block.matrix.indices is not None
    assert block.matrix.indices.dtype == np.dtype(dtype)
    last = slice(max(0, n_genes - 3), n_genes)
    found = kernels.rank_sums(block, last, design.contrasts[0])
    for j, gene in enumerate(range(last.start, last.stop)):
        for t in (1, 2):
            sums = exact_rank_sums(*(values[codes == g, gene][:200] for g in (t, 0)))
            if form == "csr":
                assert (found.u2[t - 1, j], found.ties[t - 1, j]) == sums
    moments = kernels.moments(block, last, design, centred=False, expm1=False)
    expected = np.stack([(values[codes == g][:, last] != 0).sum(axis=0) for g in range(3)])
    np.testing.assert_array_equal(moments.n_expressed, expected)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("form", ["rows", "columns", "dense"])
@pytest.mark.parametrize("buffer_bytes", [40, 56, 1000])
def test_buffers_that_divide_nothing(form: str, buffer_bytes: int) -> None:
    shapes = Shapes(n_threads=64, shared_bytes=8 << 10, n_buffers=2, buffer_bytes=buffer_bytes)
    case = make_case([61, 30], ["counts around 65535", "normal", "counts"], "float64", seed=12)
    layout = {"rows": "csr-int32", "columns": "csc-int32", "dense": "F"}[form]
    chunk = as_chunk(case.values, layout, gene_start=3, extra=2)
    kernels = make_kernels(shapes)
    found = outputs(kernels, chunk, case.design, 3)
    expected = outputs(make_kernels("default"), chunk, case.design, 3)
    for name, array in expected.items():
        assert found[name].tobytes() == array.tobytes(), name


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("n_entries", [8191, 8192, 8193, 40_000])
def test_a_gene_in_several_pieces(n_entries: int) -> None:
    """Columns are cut into pieces of 8,192 entries; a gene of 10 million has 1,221 of them."""
    rng = np.random.default_rng(13)
    codes = rng.integers(-1, 3, 41_000)
    codes[codes < 0] = 3  # of no group
    values = np.zeros((len(codes), 3), np.float32)
    for j, n in enumerate((n_entries, 100, 0)):
        values[rng.choice(len(codes), n, replace=False), j] = rng.integers(1, 9, n)
    design = design_of(codes, 3)
    kernels = make_kernels("192 threads")
    found = outputs(kernels, as_chunk(values, "csc-int32"), design, 3)
    assert_agree(found, outputs(kernel_set, as_chunk(values, "C"), design, 3))


@pytest.mark.parametrize(
    ("n_ref", "n_target", "n_passes"),
    [
        (170_000, 130_000, 8),
        pytest.param(6_000_000, 4_000_000, 13, marks=pytest.mark.slow),
    ],
)
def test_a_gene_of_millions_of_entries(n_ref: int, n_target: int, n_passes: int) -> None:
    """Ten million: sorted in 5,860 tiles by 13 passes of merging; few, on the same path."""
    rng = np.random.default_rng(14)
    values = rng.integers(1, 2**31 - 1, n_ref + n_target, np.int32)[:, None]
    values[:: n_ref // 1000] = 2**31 - 1
    codes = np.repeat([0, 1], [n_ref, n_target])
    design = design_of(codes, 2)
    kernels = make_kernels(Shapes(n_threads=256, shared_bytes=8 << 10))
    block = kernels.pack(as_chunk(values, "csc-int32"), design, map)
    assert block.entries.tolist() == [n_ref + n_target]
    found = kernels.rank_sums(block, slice(0, 1), design.contrasts[0])
    control, target = np.sort(values[:n_ref, 0]), values[n_ref:, 0]
    u2 = sum(int(np.searchsorted(control, target, side).sum()) for side in ("left", "right"))
    assert found.u2[0, 0] == u2
    counts = np.unique(values, return_counts=True)[1].astype(object)
    assert found.ties[0, 0] == float((counts**3 - counts).sum())
    assert kernels.device.launches["merge_runs_32"] == n_passes


# --- wide sums -------------------------------------------------------------------------------

WIDE = """
#include "common.cuh"

extern "C" __global__ void values(const u64* high, const u64* low, double* out) {
    const int i = threadIdx.x;
    out[i] = Wide{high[i], low[i]}.value();
}
"""


def test_wide_sums_are_rounded_once(tmp_path: Path) -> None:
    """Also beyond 53 bits in the upper part, and half-way between two float64."""
    (tmp_path / "common.cuh").write_text((sources.folder() / "common.cuh").read_text())
    (tmp_path / "wide.cu").write_text(WIDE)
    rng = np.random.default_rng(0)
    n = 256
    high = rng.integers(0, 1 << 62, n, np.uint64) >> rng.integers(0, 62, n).astype(np.uint64)
    low = rng.integers(0, 1 << 63, n, np.uint64) >> rng.integers(0, 63, n).astype(np.uint64)
    for i in range(64):  # half-way, or a little beside
        high[i] = (1 << 53 | 2 * i | 1) << 8 if i % 2 else (1 << 53 | 2 * i | 1)
        low[i] = i % 3
    device = EmulatedDevice(folder=tmp_path)
    stream = device.stream()
    given = [stream.empty(n, np.uint64) for _ in range(2)]
    out, found = stream.empty(n, np.float64), np.zeros(n)
    for host, array in zip((high, low), given, strict=True):
        stream.upload(host, array)
    stream.launch("wide", "values", 1, n, *given, out)
    stream.download(out, found)
    stream.synchronize()
    exact = [(a << 32) + b for a, b in zip(high.tolist(), low.tolist(), strict=True)]
    assert found.tolist() == [float(number) for number in exact]
