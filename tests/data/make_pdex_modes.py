"""What pdex 0.3.0 answers on a small screen and on real cells: writes ``pdex_modes.npz``.

Run with pdex 0.3.0 installed: ``python tests/data/make_pdex_modes.py DATA``, DATA a folder with
``papalexi_thp1_counts.h5ad``. Numbers are of dense float64 matrices; that CSR ones give the same is
checked here, as far as pdex is stable.
"""

from __future__ import annotations

import json
import logging
import sys
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
from pdex import pdex
from scipy import sparse

TRUTH = Path(__file__).with_name("pdex_modes.npz")
LABELS = ["d", "b", "a", "ctl", "c", ""]  # categories in this order; the last is no group
REAL = ["IFNGR1", "CMTM6", "non-targeting", "STAT1"]
# Made of differences in mode all: noise where the rest does not express a gene.
UNSTABLE = ("ref_mean", "log2_fold_change", "percent_change")
# Matrix, what is given to pdex (`gene_col` in mode on_target is added below).
CALLS = {
    f"{matrix} {mode} {'geometric' if geometric else 'arithmetic'} {name}": (
        matrix,
        {"mode": mode, "geometric_mean": geometric, "is_log1p": matrix == "log1p", **options},
    )
    for matrix in ("counts", "log1p", "real")
    for mode in ("ref", "all", "on_target")
    for geometric in (True, False)
    for name, options in {
        "": {},
        "epsilon 0": {"epsilon": 0.0},
        "cpm": {"cpm_filter": 20_000.0, "epsilon": 0.5},
    }.items()
    if (geometric or name != "epsilon 0") and (matrix != "real" or name == "cpm")
}


def simulated() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Counts and logarithms of 12 genes, and the label of each cell, -1 for none."""
    rng = np.random.RandomState(11)
    n_cells, n_genes = 100, 12
    codes = rng.choice(7, n_cells, p=[0.15, 0.2, 0.08, 0.3, 0.17, 0.05, 0.05])
    level = np.exp(rng.normal(0.0, 1.2, n_genes))
    effect = np.where(rng.random_sample((7, n_genes)) < 0.3, 2.5, 1.0)
    counts = rng.poisson(level * effect[codes]).astype(np.float64)
    counts[:, 3] = 0  # never expressed
    counts[:, 4] = 1  # the same everywhere
    counts[codes != 1, 5] = 0  # in one target alone
    counts[codes == 3, 6] = 0  # not in the reference
    counts[codes == 2, 7] = 0  # not in a target
    counts[0] = 0  # an empty cell
    factor = rng.uniform(0.5, 2.0, (n_cells, 1))
    return counts, np.log1p(counts * factor), np.where(codes == 6, -1, codes)


def real(folder: str) -> tuple[np.ndarray, np.ndarray]:
    """Some cells and genes of a screen, and the labels."""
    adata = ad.read_h5ad(f"{folder}/papalexi_thp1_counts.h5ad")
    labels = adata.obs["perturbation"].to_numpy().astype(str)
    rng = np.random.RandomState(3)
    rows = np.sort(np.concatenate([rng.choice(np.flatnonzero(labels == x), 40, False)
                                   for x in REAL]))  # fmt: skip
    return adata.X[rows][:, ::16].toarray().astype(np.float64), labels[rows]


def screen(matrix: np.ndarray, labels: pd.Categorical, genes: list[str], own: dict) -> ad.AnnData:
    """An AnnData with groups and the gene that each targets."""
    obs = pd.DataFrame({"group": labels}, index=[f"cell{i}" for i in range(len(labels))])
    # Text, not categories: pdex fails on these where a category is no gene.
    obs["gene"] = pd.Series(labels).astype(object).map(own).to_numpy()
    return ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=genes))


def main() -> None:
    """Ask pdex, and store the screens and what it says."""
    warnings.simplefilter("ignore")
    logging.getLogger("pdex").setLevel(logging.ERROR)
    counts, logged, codes = simulated()
    cells, names = real(sys.argv[1])
    own = {"a": "g1", "b": "g5", "c": "no such gene", "ctl": "g2"}  # d has none
    genes = [f"g{j}" for j in range(counts.shape[1])]
    labels = pd.Categorical.from_codes(codes, LABELS)
    real_own = {"IFNGR1": "g0", "STAT1": "g1", "CMTM6": "g2"}
    real_genes = [f"g{j}" for j in range(cells.shape[1])]
    screens = {
        "counts": screen(counts, labels, genes, own),
        "log1p": screen(logged, labels, genes, own),
        "real": screen(cells, pd.Categorical(names, REAL), real_genes, real_own),
    }
    truth: dict[str, np.ndarray] = {
        "counts": counts.astype(np.int16),
        "log1p": logged,
        "codes": codes.astype(np.int8),
        "real": cells.astype(np.int16),
        "real codes": pd.Categorical(names, REAL).codes,
        "labels": np.array(LABELS),
        "real labels": np.array(REAL),
        "own": np.array(json.dumps(own)),
        "real own": np.array(json.dumps(real_own)),
        "calls": np.array(json.dumps(CALLS)),
    }
    for name, (matrix, options) in CALLS.items():
        adata = screens[matrix]
        if options["mode"] != "all":
            options = {"reference": "non-targeting" if matrix == "real" else "ctl", **options}
        if options["mode"] == "on_target":
            options["gene_col"] = "gene"
        table = pdex(adata, "group", **options)
        stored = adata.copy()
        stored.X = sparse.csr_matrix(adata.X)
        other = pdex(stored, "group", **options)
        for column in table.columns:
            one, two = table[column].to_numpy(), other[column].to_numpy()
            if one.dtype == object:
                assert (one == two).all()
                one = one.astype("U")
            elif options["mode"] != "all" or column not in UNSTABLE:
                np.testing.assert_allclose(one, two, rtol=1e-11, atol=1e-13)
            truth[f"{name}/{column}"] = one
    np.savez_compressed(TRUTH, **truth)


if __name__ == "__main__":
    main()
