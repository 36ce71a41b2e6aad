"""What scanpy 1.12 answers on a small screen: writes ``scanpy_ranks.npz`` beside this file.

Run with scanpy 1.12.4 installed: ``python tests/data/make_scanpy_ranks.py``. Scores and the like
are taken from scanpy's own class, before they are rounded to float32, and what
``sc.tl.rank_genes_groups`` writes is stored beside.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import scanpy as sc
from scanpy.tools._rank_genes_groups import _RankGenes
from scipy import sparse

TRUTH = Path(__file__).with_name("scanpy_ranks.npz")
METHODS = ("t-test", "t-test_overestim_var", "wilcoxon")
# Options of a call; what scanpy's class is not told makes no difference before sorting.
CALLS = {
    "rest": {},
    "some": {"groups": ["c", "a"], "pts": True},
    "reference": {"reference": "b", "pts": True, "corr_method": "bonferroni"},
    "some reference": {"groups": ["c", "b"], "reference": "d", "tie_correct": True},
    "masked": {"mask_var": "odd", "tie_correct": True, "groups": ["d", "b"]},
    "layer": {"layer": "counts", "use_raw": False, "tie_correct": True},
    "raw": {"use_raw": True, "pts": True},
    "top": {"n_genes": 7},
    "top absolute": {"n_genes": 7, "rankby_abs": True, "reference": "a"},
}
# Those that are also made of logarithms to base 2.
LOG2 = (("rest", "wilcoxon"), ("reference", "t-test"))


def screen() -> ad.AnnData:
    """Counts, their normalised logarithms and a raw matrix with more genes; some labels lack."""
    rng = np.random.RandomState(5)
    n_cells, n_genes = 110, 24
    labels = np.repeat(["a", "b", "c", "d", "e", ""], [34, 28, 22, 12, 6, 8])
    rng.shuffle(labels)
    level = np.exp(rng.normal(0.2, 1.1, n_genes))
    effect = np.exp(0.8 * rng.normal(size=(6, n_genes)) * (rng.random_sample((6, n_genes)) < 0.4))
    codes = np.searchsorted(["", "a", "b", "c", "d", "e"], labels)
    counts = rng.poisson(level * effect[codes]).astype(np.float64)
    counts[:, 5] = 0  # never expressed
    counts[:, 6] = 2  # the same in all cells
    size = counts.sum(axis=1, keepdims=True)
    logged = np.log1p(counts / size * 60.0)
    obs = pd.DataFrame(
        {"group": pd.Categorical(np.where(labels == "", None, labels), ["b", "a", "c", "d", "e"])},
        index=[f"cell{i}" for i in range(n_cells)],
    )
    genes = [f"G{j}" for j in range(n_genes)]
    var = pd.DataFrame({"odd": np.arange(n_genes) % 3 != 0}, index=genes)
    whole = ad.AnnData(sparse.csr_matrix(logged), obs=obs, var=var)
    adata = whole[:, :20].copy()
    adata.layers["counts"] = sparse.csr_matrix(counts[:, :20])
    adata.raw = whole
    return adata


def main() -> None:
    """Ask scanpy, and store the screen and what it says."""
    warnings.simplefilter("ignore")
    adata = screen()
    truth: dict[str, np.ndarray] = {
        "raw": adata.raw.X.toarray(),
        "counts": adata.layers["counts"].toarray().astype(np.int16),
        "group": adata.obs["group"].cat.codes.to_numpy(),
        "calls": np.array(json.dumps(CALLS)),
        "version": np.array(sc.__version__),
    }
    for base in (None, 2):
        for method in METHODS:
            for name, options in CALLS.items():
                if base and (name, method) not in LOG2:
                    continue
                if method == "t-test_overestim_var" and name not in ("rest", "some reference"):
                    continue
                data = adata.copy()
                if base:
                    data.uns["log1p"] = {"base": base}
                given = {"use_raw": False, **options}
                key = f"{name}/{method}/{base}"
                truth |= {f"{key}/{k}": v for k, v in asked(data, method, given).items()}
    np.savez_compressed(TRUTH, **truth)


def asked(data: ad.AnnData, method: str, options: dict) -> dict[str, np.ndarray]:
    """Of one call: statistics of every gene in float64, names in order, fractions."""
    sc.tl.rank_genes_groups(data, "group", method=method, **options)
    written = data.uns["rank_genes_groups"]
    names = written["names"].dtype.names
    mask = options.get("mask_var")
    groups = list(options.get("groups", data.obs["group"].cat.categories))
    reference = options.get("reference", "rest")
    if reference != "rest" and reference not in groups:
        groups.append(reference)
    ranks = _RankGenes(
        data, groups, "group", mask_var=None if mask is None else data.var[mask].to_numpy(),
        reference=reference, use_raw=options["use_raw"], layer=options.get("layer"),
        comp_pts=options.get("pts", False),
    )  # fmt: skip
    ranks.compute_statistics(
        method,
        corr_method=options.get("corr_method", "benjamini-hochberg"),
        tie_correct=options.get("tie_correct", False),
    )
    table = ranks.stats
    found = {"groups": np.array(names), "genes": np.array(ranks.var_names, dtype="U")}
    for column in ("scores", "pvals", "pvals_adj", "logfoldchanges"):
        found[column] = np.stack([table[name, column].to_numpy() for name in names])
    if "n_genes" in options:
        found["first"] = np.array([written["names"][n].tolist() for n in names], dtype="U")
    found["params"] = np.array(json.dumps(written["params"]))
    for frame in ("pts", "pts_rest"):
        if frame in written:
            found[frame] = written[frame].to_numpy()
            found[f"{frame} columns"] = np.array(written[frame].columns, dtype="U")
    return found


if __name__ == "__main__":
    main()
