"""The screen of `data.py`, log-normalised, in every form in which anndata writes it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
from data import ScreenFiles
from files_record import COMPRESSIONS, MATRICES

GROUPBY = "target_gene"
FORMS = [(matrix, compression) for matrix in MATRICES for compression in COMPRESSIONS]


def ensure(files: ScreenFiles, matrix: str, compression: str) -> Path:
    """Return the file of one form, written once next to the screen's arrays."""
    path = files.folder / f"{matrix}-{compression}.h5ad"
    if path.exists():
        return path
    import anndata
    import pandas as pd
    from scipy import sparse

    print(f"writing {path.name} (once)", file=sys.stderr)
    arrays = (np.load(files.folder / f"{name}.npy") for name in ("log1p", "indices", "indptr"))
    x = sparse.csr_matrix(tuple(arrays), shape=(files.parameters.n_cells, files.parameters.n_genes))
    if matrix != "csr":
        x = x.toarray() if matrix == "dense" else x.tocsc()
    labels = files.labels
    obs = pd.DataFrame(
        {GROUPBY: pd.Categorical(labels.tolist())}, index=[f"cell_{i}" for i in range(len(labels))]
    )
    adata = anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=files.genes.tolist()))
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    adata.write_h5ad(scratch, compression=None if compression == "plain" else compression)
    scratch.rename(path)
    return path


def warm(path: Path) -> None:
    """Read a file through, so that it lies in the page cache."""
    with path.open("rb", buffering=0) as file:
        while file.read(1 << 24):
            pass
