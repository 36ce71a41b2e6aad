"""Small files as Cell Ranger and programs like it write them; parts can be replaced."""

from __future__ import annotations

import gzip
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy import sparse

GENES, GUIDES = "Gene Expression", "CRISPR Guide Capture"
N_CELLS, N_GENES, N_GUIDES = 60, 7, 4
BARCODES = np.array([f"ACGT{i:04d}-1" for i in range(N_CELLS)])
IDS = np.array([f"ENSG{i}" for i in range(N_GENES)] + [f"g{i}" for i in range(N_GUIDES)])
#: One gene name occurs twice, as in real annotations.
NAMES = np.array(["A", "B", "A", "C", "D", "E", "F", "g0", "g1", "g2", "g3"])
TYPES = np.array([GENES] * N_GENES + [GUIDES] * N_GUIDES)


def counts(seed: int = 0) -> sparse.csr_matrix:
    """Counts of cells x features: genes, then guides, of which cell i has number i modulo 4."""
    rng = np.random.default_rng(seed)
    genes = rng.poisson(1.0, (N_CELLS, N_GENES))
    guides = np.zeros((N_CELLS, N_GUIDES), int)
    guides[np.arange(N_CELLS), np.arange(N_CELLS) % N_GUIDES] = 5 + np.arange(N_CELLS) % 3
    return sparse.csr_matrix(np.hstack([genes, guides]).astype(np.int32))


def parts(matrix: sparse.csr_matrix | None = None) -> dict[str, Any]:
    """What a group ``matrix`` of version 3 holds, by path."""
    found = counts() if matrix is None else matrix
    return {
        "barcodes": BARCODES[: found.shape[0]].astype("S"),
        "data": found.data,
        "indices": found.indices.astype(np.int64),
        "indptr": found.indptr.astype(np.int64),
        "shape": np.array(found.shape[::-1], np.int32),
        "features/id": IDS.astype("S"),
        "features/name": NAMES.astype("S"),
        "features/feature_type": TYPES.astype("S"),
        "features/genome": np.array([b"GRCh38"] * len(IDS)),
    }


def write_hdf5(path: Path, group: str = "matrix", **changed: Any) -> Path:
    """Write a file of version 3; ``features__id=None`` leaves a part out."""
    found = parts() | {name.replace("__", "/"): value for name, value in changed.items()}
    with h5py.File(path, "w") as file:
        for name, value in found.items():
            if value is not None:
                file[f"{group}/{name}"] = value
    return path


def write_version_2(path: Path, genomes: Sequence[str] = ("GRCh38",), **changed: Any) -> Path:
    """Write a file of version 2: a group for each genome, genes alone."""
    with h5py.File(path, "w") as file:
        for genome in genomes:
            found = parts(counts()[:, :N_GENES])
            kept = {name: value for name, value in found.items() if "/" not in name}
            kept |= {"genes": IDS[:N_GENES].astype("S"), "gene_names": NAMES[:N_GENES].astype("S")}
            for name, value in (kept | changed).items():
                if value is not None:
                    file[f"{genome}/{name}"] = value
    return path


def matrix_text(matrix: sparse.csr_matrix | None = None, field: str = "integer") -> str:
    """A matrix as Matrix Market text, features x cells, cell by cell."""
    found = (counts() if matrix is None else matrix).tocoo()
    lines = [f"%%MatrixMarket matrix coordinate {field} general", "%metadata_json: {}"]
    lines.append(f"{found.shape[1]} {found.shape[0]} {found.nnz}")
    entries = zip(found.col.tolist(), found.row.tolist(), found.data.tolist(), strict=True)
    lines += [f"{feature + 1} {cell + 1} {value}" for feature, cell, value in entries]
    return "\n".join(lines) + "\n"


def features_text() -> str:
    """The lines of features.tsv."""
    rows = zip(IDS, NAMES, TYPES, strict=True)
    return "".join("\t".join(row) + "\n" for row in rows)


def barcodes_text() -> str:
    """The lines of barcodes.tsv."""
    return "".join(f"{name}\n" for name in BARCODES)


def write_folder(folder: Path, **files: str | bytes | None) -> Path:
    """Write a matrix folder; ``features_tsv=text`` replaces a file, None leaves it out.

    A file is compressed unless its name is given with its end: ``features_tsv`` is
    ``features.tsv.gz``, ``features_tsv_plain`` is ``features.tsv``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    usual = {
        "matrix_mtx": matrix_text(),
        "features_tsv": features_text(),
        "barcodes_tsv": barcodes_text(),
    }
    for name, content in (usual | files).items():
        if content is None:
            continue
        plain = name.endswith("_plain")
        stem, _, end = name.removesuffix("_plain").rpartition("_")
        data = content.encode() if isinstance(content, str) else content
        if isinstance(content, str) and not plain:
            data = gzip.compress(data, mtime=0)
        (folder / f"{stem}.{end}{'' if plain else '.gz'}").write_bytes(data)
    return folder
