"""Small screens for tests: values of every awkward kind, and the ways to store them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from typing import Any

import numpy as np
import pytest
from emulated.backend import EmulatedCuda
from emulated.build import needs_compiler
from emulated.device import EmulatedDevice
from hypothesis import strategies as st
from nvrtc import needs_nvrtc
from ptx.device import PtxDevice
from scipy import sparse

from pdex_gpu.backends.cuda.kernel_set import CudaKernels
from pdex_gpu.backends.cuda.launch_config import Shapes
from pdex_gpu.backends.cuda.probe import probe
from pdex_gpu.backends.outputs import N_LOWEST
from pdex_gpu.backends.registry import load_kernels
from pdex_gpu.design.against import Against
from pdex_gpu.design.build import make_design
from pdex_gpu.design.contrasts import Contrast, Design, group_cells
from pdex_gpu.design.labels import Levels
from pdex_gpu.sources.base import Chunk, CscChunk, CsrChunk
from pdex_gpu.sources.memory.open import from_array

#: Every kernel set. All conformance tests run over this list, through :func:`kernel_set`.
KERNEL_SETS = [
    pytest.param("numpy", id="numpy"),
    pytest.param("cpu", id="cpu"),
    pytest.param("emulated", id="cuda-emulated", marks=needs_compiler),
    pytest.param(
        "emulated-small", id="cuda-emulated-small", marks=[needs_compiler, pytest.mark.thorough]
    ),
    pytest.param("cuda", id="cuda", marks=pytest.mark.gpu),
]

#: Compiled kernels on the device that runs PTX, where two threads that race are an error.
PTX = pytest.param("ptx", id="cuda-ptx", marks=[needs_compiler, needs_nvrtc, pytest.mark.thorough])

#: Blocks, tiles and buffers that divide nothing, and hold little.
SMALL = Shapes(n_threads=96, shared_bytes=8 << 10, n_slots=2, n_buffers=2, buffer_bytes=1000)


def kernel_set(name: str) -> Any:
    """A kernel set of the list; skips the test if there is no CUDA device for it."""
    if name.startswith("emulated"):
        shapes = SMALL if name == "emulated-small" else Shapes()
        return CudaKernels(EmulatedDevice(memory=2 << 30), shapes)
    if name == "ptx":
        return CudaKernels(PtxDevice(memory=2 << 30, races=True, seed=1), SMALL)
    if name == "cuda" and not probe().usable:
        pytest.skip("no CUDA device; `pdex-gpu backends` says why")
    return load_kernels(name)


DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float32", "float64",
]  # fmt: skip

LAYOUTS = ["C", "F", "strided", "csr-int32", "csr-int64", "csr-uint16", "csc-int32", "csc-uint16"]


def backend_of(name: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend that uses a kernel set of the list, emulated devices installed if need be."""
    if name.startswith("emulated"):
        EmulatedCuda(shapes=SMALL if name == "emulated-small" else Shapes()).install(monkeypatch)
        return "cuda"
    kernel_set(name)  # skips the test where there is no device
    return name


# --- genes ---------------------------------------------------------------------------------


def _sparse(rng: np.random.Generator, x: np.ndarray) -> np.ndarray:
    return np.where(rng.random(len(x)) < 0.6, 0, x)


_ANY = {
    "zeros": lambda rng, n: np.zeros(n),
    "ones": lambda rng, n: np.ones(n),
    "binary": lambda rng, n: rng.integers(0, 2, n),
    "counts": lambda rng, n: rng.poisson(2.0, n),
}
_WIDE = {  # beyond uint8
    "counts of hundreds": lambda rng, n: rng.integers(0, 400, n) * 75,
}
_SIGNED = {
    "few values": lambda rng, n: rng.integers(-2, 3, n),
    "constant -3": lambda rng, n: np.full(n, -3),
    "one cell only": lambda rng, n: np.where(np.arange(n) == rng.integers(n), -7, 0),
}
_BEYOND_UINT16 = {"counts around 65535": lambda rng, n: _sparse(rng, rng.integers(65530, 65541, n))}
_FLOAT = {
    "normal": lambda rng, n: rng.normal(0.3, 1.0, n),
    "sparse lognormal": lambda rng, n: _sparse(rng, rng.lognormal(0.0, 1.0, n)),
    "tied halves": lambda rng, n: rng.integers(-3, 4, n) / 2,
    "constant 0.1": lambda rng, n: np.full(n, 0.1),
    "huge": lambda rng, n: rng.normal(0.0, 1e30, n),
    "tiny": lambda rng, n: _sparse(rng, rng.integers(-9, 10, n) * 1e-40),
    "offset": lambda rng, n: 4096.0 + rng.integers(0, 9, n) / 1024,
}


def gene_kinds(dtype: str) -> list[str]:
    """Names of the genes that :func:`make_gene` knows for a dtype."""
    d = np.dtype(dtype)
    kinds = list(_ANY)
    if d.kind in "if":
        kinds += _SIGNED
    if d.itemsize > 1:
        kinds += _WIDE
    if d.itemsize > 2:
        kinds += _BEYOND_UINT16
    if d.kind == "f":
        kinds += [*_FLOAT, "neighbours"]
    if d.kind in "iu":
        kinds += ["extremes", "last bit"]
    return kinds


def make_gene(kind: str, rng: np.random.Generator, n: int, dtype: str) -> np.ndarray:
    """A gene of `n` cells."""
    d = np.dtype(dtype)
    if kind == "extremes":
        info = np.iinfo(d)
        return rng.choice(np.array([info.min, info.max, info.max - 1, 0, 1], d), n)
    if kind == "last bit":  # told apart in 64 bits, equal as float64
        top = np.array(np.iinfo(d).max, d)
        return top - rng.integers(0, 4, n).astype(d)
    if kind == "neighbours":  # one unit in the last place apart
        one = np.ones(n, d).view(f"i{d.itemsize}") + rng.integers(-3, 4, n)
        return one.astype(f"i{d.itemsize}").view(d) * rng.choice([-1, 1], n).astype(d)
    known = _ANY | _WIDE | _SIGNED | _BEYOND_UINT16 | _FLOAT
    return np.asarray(known[kind](rng, n)).astype(d)


@dataclass(frozen=True)
class Case:
    """A dense matrix and who is compared with whom; some cells are of no group."""

    values: np.ndarray
    design: Design

    @property
    def genes(self) -> slice:
        return slice(0, self.values.shape[1])

    def samples(self, gene: int) -> list[np.ndarray]:
        """Values of each group, by cell."""
        return np.split(self.values[self.design.order, gene], self.design.offsets[1:-1])

    def pairs(self, gene: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Values of target and reference of every comparison, contrast by contrast."""
        samples = self.samples(gene)
        for contrast in self.design.contrasts:
            for target in contrast.targets:
                if contrast.one_vs_rest:
                    others = [samples[g] for g in contrast.groups if g != target]
                    yield samples[target], np.concatenate(others)
                    continue
                reference = samples[contrast.groups[0]]
                if contrast.pooled:
                    left = reference.tolist()
                    for value in samples[target].tolist():
                        left.remove(value)
                    reference = np.array(left, reference.dtype)
                yield samples[target], reference


def make_case(
    sizes: Sequence[int],
    kinds: Sequence[str],
    dtype: str,
    seed: int,
    left_out: int = 3,
    comparison: str = "reference",
) -> Case:
    """A case of groups of these sizes (the reference first), with its cells shuffled."""
    rng = np.random.default_rng(seed)
    codes = np.repeat(np.arange(len(sizes) + 1), [*sizes, left_out])
    rng.shuffle(codes)
    genes = [make_gene(kind, rng, len(codes), dtype) for kind in kinds]
    values = np.stack(genes, axis=1)
    if comparison in ("complement", "everything"):
        return _overlapping(values, codes, len(sizes), rng, comparison)
    return Case(values, compared(codes, len(sizes), comparison, rng))


def design_of(codes: np.ndarray, n_groups: int) -> Design:
    """The design of groups 0 (the reference) to ``n_groups - 1``; other codes are left out."""
    names = [f"g{k}" for k in range(max(n_groups, int(codes.max()) + 1))]
    return make_design(codes, names, reference="g0", groups=names[1:n_groups])


#: Who may be compared with whom: see :func:`compared` and :func:`_overlapping`.
COMPARISONS = [
    "reference", "rest", "background", "each reference", "pairs", "levels", "strata", "complement",
    "everything",
]  # fmt: skip


def compared(codes: np.ndarray, n_groups: int, kind: str, rng: np.random.Generator) -> Design:
    """The design of comparisons of a kind between groups 0 to ``n_groups - 1``."""
    if kind == "reference":
        return design_of(codes, n_groups)
    names = np.array([f"g{k}" for k in range(n_groups)])
    codes = np.where(codes < n_groups, codes, -1)
    group, asked = names.tolist(), partial(make_design, codes, names.tolist())
    with warnings.catch_warnings():  # of cells and rows that are left out
        warnings.simplefilter("ignore")
        if kind == "rest":
            return asked(reference=None, comparison="rest")
        if kind == "background":  # groups that nobody asks for are in everybody's rest
            return asked(reference=None, comparison="rest", groups=group[: (n_groups + 1) // 2])
        if kind == "each reference":  # the later one comes after targets of its own
            return asked(reference=[group[0], group[-1]], comparison="each_reference", groups=group)
        if kind == "pairs":
            ordered = [(a, b) for a in group for b in group if a != b]
            chosen = rng.permutation(len(ordered))[: 1 + rng.integers(len(ordered))]
            return asked(reference=None, comparison="pairs", pairs=[ordered[i] for i in chosen])
        # Every other cell of a group lies in the second level, so groups of one cell do not.
        level = np.zeros(len(codes), np.int64)
        for g in range(n_groups):
            level[codes == g] = np.arange(np.count_nonzero(codes == g)) % 2
        levels = Levels(level, ["a", "b"], "level")
        if kind == "levels":
            return asked(reference="g0", within=levels)
        assert kind == "strata"
        return asked(reference=None, comparison="rest", strata=levels)


def _overlapping(
    values: np.ndarray, codes: np.ndarray, n_groups: int, rng: np.random.Generator, kind: str
) -> Case:
    """A pool of all cells, and targets that are their groups and some cells of others.

    Rows of the matrix are repeated for each group that has the cell, and then shuffled. With kind
    "everything" the groups are compared in all other ways besides.
    """
    pool = np.flatnonzero(codes < n_groups)
    groups = [pool]
    for g in range(n_groups):
        others = pool[codes[pool] != g]
        also = rng.permutation(others)[: rng.integers(len(others))]  # at least one stays
        groups.append(np.concatenate([np.flatnonzero(codes == g), also]))
    left_out = np.flatnonzero(codes >= n_groups)
    rows = np.concatenate([*groups, left_out])
    code = np.repeat(np.arange(-1, n_groups + 1), [len(left_out), *map(len, groups)])
    code = np.roll(code, -len(left_out))
    shuffled = rng.permutation(len(rows))
    rows, code = rows[shuffled], code[shuffled]
    order, offsets = group_cells(code, n_groups + 1)
    sizes = np.diff(offsets)

    def contrast(against: str, *chosen: int) -> Contrast:
        n_targets = len(chosen) - (against != "rest")
        return Contrast(
            np.array(chosen), sizes[list(chosen)], Against(against), np.arange(n_targets)
        )

    contrasts = [contrast("complement", *range(n_groups + 1))]
    if kind == "everything":
        every = range(1, n_groups + 1)
        contrasts += [
            contrast("reference", *every),
            contrast("rest", *every),
            contrast("reference", n_groups, *range(1, n_groups)),
            contrast("reference", 0, n_groups),
            contrast("rest", 0, n_groups),
            contrast("complement", 0, *list(every)[::-2][::-1]),
            contrast("rest", *range(0, n_groups + 1, 2)),
        ]
        contrasts = [c for c in contrasts if len(c.groups) > 1]
    n_rows = sum(c.n_targets for c in contrasts)
    labels = np.array([f"row {k}" for k in range(n_rows)], object)
    design = Design(order, offsets, code, tuple(contrasts), labels, labels)
    return Case(values[rows], design)


@st.composite
def cases(
    draw: st.DrawFn, dtypes: Sequence[str], comparisons: Sequence[str] = ("reference",)
) -> Case:
    """Cases of two to five groups of one to nine cells, and up to five genes."""
    dtype = draw(st.sampled_from(dtypes))
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=5))
    kinds = draw(st.lists(st.sampled_from(gene_kinds(dtype)), min_size=1, max_size=5))
    seed, left_out = draw(st.integers(0, 2**32 - 1)), draw(st.integers(0, 3))
    return make_case(sizes, kinds, dtype, seed, left_out, draw(st.sampled_from(comparisons)))


# --- storage -------------------------------------------------------------------------------


def as_chunk(values: np.ndarray, layout: str, gene_start: int = 0, extra: int = 0) -> Chunk:
    """`values` as genes from `gene_start` on of a matrix stored so, read by a source.

    Around them lie `gene_start` and `extra` genes, NaN if floats can say so: nobody may look.
    """
    n_cells, n_genes = values.shape
    matrix = np.full(
        (n_cells, gene_start + n_genes + extra), np.nan if values.dtype.kind == "f" else 1
    ).astype(values.dtype)
    matrix[:, gene_start : gene_start + n_genes] = values
    kind, _, index_dtype = layout.partition("-")
    stored: Any
    if kind == "F":
        stored = np.asfortranarray(matrix)
    elif kind == "strided":
        wide = np.zeros((2 * n_cells, 3 * matrix.shape[1]), values.dtype)
        stored = wide[::-2, 1::3]
        stored[...] = matrix
    elif kind in ("csr", "csc"):
        stored = {"csr": sparse.csr_array, "csc": sparse.csc_array}[kind](matrix)
        wanted = "int64" if index_dtype == "int64" else "int32"
        stored.indices = stored.indices.astype(wanted)
        stored.indptr = stored.indptr.astype(wanted)
    else:
        stored = matrix
    edges = sorted({0, gene_start, gene_start + n_genes, gene_start + n_genes + extra})
    with from_array(stored, what="X").open(edges, 1 << 30) as reader:
        chunk = reader.read(edges.index(gene_start))
    if index_dtype == "uint16":
        assert isinstance(chunk, CsrChunk | CscChunk)
        chunk = replace(chunk, indices=chunk.indices.astype(np.uint16))
    return chunk


def with_explicit_zeros(values: np.ndarray, layout: str) -> CsrChunk | CscChunk:
    """`values` in sparse storage with every zero stored."""
    n_cells, n_genes = values.shape
    cells, genes = np.divmod(np.arange(values.size), n_genes)
    if layout == "csr":
        starts = np.arange(n_cells, dtype=np.int64) * n_genes
        return CsrChunk(
            values.ravel(), genes.astype(np.int32), starts, starts + n_genes, 0, n_genes
        )
    indptr = np.arange(n_genes + 1, dtype=np.int64) * n_cells
    cells = np.tile(np.arange(n_cells, dtype=np.int32), n_genes)
    return CscChunk(values.ravel("F"), cells, indptr, n_cells, 0)


# --- truths --------------------------------------------------------------------------------


def exact_moments(sample: np.ndarray) -> tuple[float, float]:
    """Mean and sum of squared deviations of float64 values, in rational arithmetic."""
    x = [Fraction(float(v)) for v in sample]
    mean = sum(x, Fraction()) / len(x)
    return float(mean), float(sum(((v - mean) ** 2 for v in x), Fraction()))


def exact_higher_moments(sample: np.ndarray) -> tuple[float, float]:
    """Sums of third and fourth powers of deviations from the mean, in rational arithmetic."""
    x = [Fraction(float(v)) for v in sample]
    mean = sum(x, Fraction()) / len(x)
    third, fourth = (float(sum(((v - mean) ** k for v in x), Fraction())) for k in (3, 4))
    return third, fourth


def exact_rank_sums(target: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """Twice U of the target and the tie term, by looking at every pair of cells."""
    t, r = target.tolist(), reference.tolist()
    u2 = sum(2 * (a > b) + (a == b) for a in t for b in r)
    pooled = t + r
    return u2, sum(n**3 - n for n in (pooled.count(v) for v in set(pooled)))


def exact_lowest(target: np.ndarray, reference: np.ndarray) -> list[int]:
    """Cells of a pair at each of its lowest values above zero."""
    pooled = [v for v in target.tolist() + reference.tolist() if v > 0]
    cells = [pooled.count(v) for v in sorted(set(pooled))[:N_LOWEST]]
    return cells + [0] * (N_LOWEST - len(cells))


def exact_distances(target: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """Largest excess of either empirical distribution over the other, times both sizes."""
    t, r = target.tolist(), reference.tolist()
    ahead = [len(r) * sum(a <= x for a in t) - len(t) * sum(b <= x for b in r) for x in set(t + r)]
    return max(0, *ahead), max(0, *(-a for a in ahead))


def exact_placements(target: np.ndarray, reference: np.ndarray) -> tuple[int, int]:
    """Sums of squares of twice the placements of target and reference cells."""
    t, r = target.tolist(), reference.tolist()
    return (
        sum(sum(2 * (b < a) + (b == a) for b in r) ** 2 for a in t),
        sum(sum(2 * (a > b) + (a == b) for a in t) ** 2 for b in r),
    )


def as_anndata(matrix: Any, codes: np.ndarray, reference: int = 0, **layers: np.ndarray) -> Any:
    """An AnnData with ``obs["group"]``: the reference ``"ref"``, the targets ``"t01"`` and on."""
    import anndata
    import pandas as pd

    n_cells, n_genes = matrix.shape
    names = np.array(["ref" if g == reference else f"t{g:02d}" for g in range(codes.max() + 1)])
    return anndata.AnnData(
        matrix,
        obs=pd.DataFrame(
            {"group": pd.Categorical(names[codes])}, index=[f"cell{i}" for i in range(n_cells)]
        ),
        var=pd.DataFrame(index=[f"gene{j}" for j in range(n_genes)]),
        layers=layers,
    )
