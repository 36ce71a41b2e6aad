"""Matrices of every awkward kind, and the ways in which they are stored."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse
from screens import DTYPES, gene_kinds, make_gene

#: Genes that only floating-point matrices can have, beside those of `screens`.
_FLOAT_GENES = {
    "negative zeros": lambda rng, n: np.where(rng.random(n) < 0.5, -0.0, rng.integers(0, 3, n)),
    "per million": lambda rng, n: rng.poisson(1.0, n) * 1e6 / rng.integers(900, 1100, n),
    "log1p": lambda rng, n: np.log1p(rng.poisson(1.5, n) * rng.uniform(0.5, 2.0, n)),
    "residuals": lambda rng, n: rng.normal(0.0, 2.0, n) - 0.5,
    "far apart": lambda rng, n: np.where(rng.random(n) < 0.5, 1e-20, 1e20),
}
_NOT_FINITE = {
    "some NaN": lambda rng, n: np.where(rng.random(n) < 0.2, np.nan, rng.poisson(1.0, n)),
    "all NaN": lambda rng, n: np.full(n, np.nan),
    "an infinity": lambda rng, n: np.where(np.arange(n) == rng.integers(n), np.inf, 1.0),
}
#: Of float64 alone: squares of these under- or overflow.
_EXTREME = {
    "1e-200": lambda rng, n: rng.integers(-3, 4, n) * 1e-200,
    "1e200": lambda rng, n: rng.integers(-3, 4, n) * 1e200,
    "1e307": lambda rng, n: rng.integers(-3, 4, n) * 2.5e307,
    "denormal": lambda rng, n: rng.integers(0, 4, n) * 5e-324,
    "1e154": lambda rng, n: rng.normal(0.0, 1.0, n) * 10.0 ** rng.integers(150, 158),
    "largest": lambda rng, n: rng.choice([1.7976931348623157e308, 1e308, 0.0, -1.7e308], n),
    "any magnitude": lambda rng, n: rng.choice([-1.0, 1.0], n) * 10.0 ** rng.uniform(-323, 308, n),
    "one outlier": lambda rng, n: np.where(
        np.arange(n) == rng.integers(n), 10.0 ** rng.integers(5, 300), rng.integers(0, 5, n)
    ),
    "nearly constant": lambda rng, n: 2.0 ** rng.integers(20, 48) + rng.integers(0, 9, n) / 32,
}
#: Sums of these overflow, or lose all digits of what is small.
SUMS_OVERFLOW = {"1e307", "largest", "any magnitude", "one outlier"}
#: Of 64-bit integers alone: float64 does not tell them apart.
_LARGE_INTEGERS = {
    "2**60": lambda rng, n: 2**60 + rng.integers(0, 1000, n),
    "2**53": lambda rng, n: 2**53 + rng.integers(0, 5, n),
    "near the largest": lambda rng, n: np.iinfo(np.int64).max - rng.integers(0, 9, n),
}

MEMORY = [
    "C", "F", "strided", "csr", "csc", "csr, int64 indices", "csr, out of order",
    "csc, out of order", "csr, explicit zeros", "csr, repeated", "layer", "view", "dask, dense",
    "dask, csr",
]  # fmt: skip
FILES = [
    "h5ad csr", "h5ad csr gzip", "h5ad csc", "h5ad dense", "h5ad dense gzip", "h5ad layer",
    "h5ad csr, out of order", "h5ad csc, out of order", "h5ad, fixed strings",
    "h5ad csr, float64 indices", "backed csr", "backed dense", "view of backed csr", "zarr csr",
    "zarr dense", "zarr csc",
]  # fmt: skip


def draw_matrix(rng: np.random.Generator, n_cells: int) -> tuple[np.ndarray, list[str]]:
    """A dense matrix of one dtype, and the kind of each of its genes."""
    dtype = str(rng.choice([*DTYPES, "float32", "float64", "float32", "float64"]))
    kinds = gene_kinds(dtype)
    if np.dtype(dtype).kind == "f":
        kinds = [*kinds, *_FLOAT_GENES]
    same = rng.random() < 0.35  # a matrix is more often of one kind
    n_genes = int(rng.integers(1, 7))
    chosen = [str(kind) for kind in rng.choice(kinds, 1 if same else n_genes)]
    chosen = chosen * n_genes if same else chosen
    if np.dtype(dtype).kind == "f" and rng.random() < 0.15:
        chosen[int(rng.integers(n_genes))] = str(rng.choice(list(_NOT_FINITE)))
    extreme = {"float64": _EXTREME, "int64": _LARGE_INTEGERS, "uint64": _LARGE_INTEGERS}
    if dtype in extreme and rng.random() < 0.25:
        chosen[int(rng.integers(n_genes))] = str(rng.choice(list(extreme[dtype])))
    more = _FLOAT_GENES | _NOT_FINITE | _EXTREME | _LARGE_INTEGERS
    genes = [
        np.asarray(more[kind](rng, n_cells)).astype(dtype)
        if kind in more
        else make_gene(kind, rng, n_cells, dtype)
        for kind in chosen
    ]
    return np.stack(genes, axis=1), chosen


def _out_of_order(matrix: Any, rng: np.random.Generator) -> Any:
    """The same matrix; the entries of each row (CSR) or column (CSC) are shuffled."""
    found = matrix.copy()
    for start, end in zip(found.indptr[:-1], found.indptr[1:], strict=True):
        order = start + rng.permutation(end - start)
        found.indices[start:end] = found.indices[order]
        found.data[start:end] = found.data[order]
    found.has_sorted_indices = False
    return found


def _explicit_zeros(dense: np.ndarray) -> Any:
    found = sparse.csr_matrix(np.ones(dense.shape, np.int8)).astype(dense.dtype)
    found.data = dense.ravel().copy()
    return found


def _repeated(dense: np.ndarray) -> Any:
    """Every value in two entries, the second of them 0, so that their sum is exact."""
    n_cells, n_genes = dense.shape
    indices = np.repeat(np.tile(np.arange(n_genes, dtype=np.int32), n_cells), 2)
    data = np.zeros(2 * dense.size, dense.dtype)
    data[::2] = dense.ravel()
    indptr = np.arange(0, 2 * dense.size + 1, 2 * n_genes, dtype=np.int32)
    return sparse.csr_matrix((data, indices, indptr), dense.shape)


def _matrix(how: str, dense: np.ndarray, rng: np.random.Generator) -> Any:
    if how == "C" or how in ("layer", "view"):
        return np.ascontiguousarray(dense)
    if how == "F":
        return np.asfortranarray(dense)
    if how == "strided":
        return np.repeat(dense, 2, axis=0)[::2]
    if how.startswith("dask"):
        import dask.array

        rows = max(1, len(dense) // 3)
        blocks = dask.array.from_array(dense, chunks=(rows, dense.shape[1]))
        return blocks.map_blocks(sparse.csr_matrix) if "csr" in how else blocks
    if "explicit zeros" in how:
        return _explicit_zeros(dense)
    if "repeated" in how:
        return _repeated(dense)
    found = (sparse.csc_matrix if "csc" in how else sparse.csr_matrix)(dense)
    if "int64" in how:
        found.indices, found.indptr = found.indices.astype("i8"), found.indptr.astype("i8")
    return _out_of_order(found, rng) if "out of order" in how else found


def guides_matrix(guides: pd.DataFrame, how: str) -> Any:
    """Guides as users store them: a frame of some dtype, an array or a sparse matrix."""
    if how == "array":
        return guides.to_numpy(np.uint8)
    if how == "csr":
        return sparse.csr_matrix(guides.to_numpy())
    return guides.astype(how)


def store(
    how: str,
    dense: np.ndarray,
    obs: pd.DataFrame,
    folder: Path,
    rng: np.random.Generator,
    guides: Any = None,
) -> Any:
    """What a caller hands over: an AnnData, or the path of a file. Guides go to obsm["guides"]."""
    genes = pd.DataFrame(index=[f"gene{j}" for j in range(dense.shape[1])])
    kind = how.removeprefix("h5ad ").removeprefix("view of ").removeprefix("backed ")
    kind = kind.removeprefix("zarr ").removesuffix(" gzip")
    kind = {"dense": "C", "h5ad, fixed strings": "csr"}.get(kind, kind)
    matrix = _matrix(kind, dense, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if kind == "layer":
            layers = {"values": matrix}
            adata = ad.AnnData(np.zeros(dense.shape, np.float32), obs, genes, layers=layers)
        else:
            adata = ad.AnnData(matrix, obs, genes)
        if guides is not None:
            adata.obsm["guides"] = guides
        if how == "view":
            twice = ad.concat([adata, adata[:3].copy()], index_unique="-")
            return twice[: len(obs)]
        if how in MEMORY:
            return adata
        return _written(how, adata, folder, rng)


def _written(how: str, adata: ad.AnnData, folder: Path, rng: np.random.Generator) -> Any:
    if how.startswith("zarr"):
        path = folder / "screen.zarr"
        adata.write_zarr(path)
        return str(path)
    path = folder / "screen.h5ad"
    if how.startswith("view of"):
        backwards = rng.permutation(adata.n_obs)
        adata[backwards].copy().write_h5ad(path)
        return ad.read_h5ad(path, backed="r")[np.argsort(backwards)]
    adata.write_h5ad(path, compression="gzip" if how.endswith("gzip") else None)
    if how == "h5ad, fixed strings":
        _fix_strings(path)
    if "float64 indices" in how:
        _float_indices(path)
    return ad.read_h5ad(path, backed="r") if how.startswith("backed") else str(path)


def _fix_strings(path: Path) -> None:
    """String attributes of a fixed length, as HDF5.jl and MATLAB write them."""
    import h5py

    def fix(_: str, node: Any) -> None:
        for key, value in list(node.attrs.items()):
            if isinstance(value, str) and value:
                del node.attrs[key]
                text = value.encode()
                node.attrs.create(key, text, dtype=h5py.string_dtype("utf-8", len(text)))

    with h5py.File(path, "r+") as file:
        fix("/", file)
        file.visititems(fix)


def _float_indices(path: Path) -> None:
    """Indices as R and MATLAB have them."""
    import h5py

    with h5py.File(path, "r+") as file:
        for name in ("indices", "indptr"):
            found = file["X"][name][:].astype("f8")
            del file["X"][name]
            file["X"][name] = found
