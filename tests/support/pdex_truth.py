"""A small screen with replicates, and what pdex 0.1.28 answers on it.

Run with pdex 0.1.28 installed (and pydeseq2 0.5.4, adpbulk 0.1.4) to write the truth anew:
``python tests/support/pdex_truth.py``. The stream of `RandomState` is frozen, so every version of
numpy gives the same screen.
"""

from __future__ import annotations

from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from repository import DATA

TRUTH = DATA / "pdex_pseudobulk.npz"
GROUPBY = ["target_gene", "donor"]
#: The calls whose tables are stored.
CALLS: dict[str, dict[str, Any]] = {
    "default": {"groupby": GROUPBY},
    "chosen": {
        "groupby": ["donor", "guide", "target_gene"],
        "groups": ["MYC", "TP53"],
        "reference": "GATA1",
        "design": "~donor+target_gene",
    },
    "refitted": {  # ten replicates: enough for pydeseq2 to replace the outlier and fit again
        "groupby": ["donor", "guide", "target_gene"],
        "groups": ["GATA1"],
        "design": "~target_gene",
    },
    "number": {
        "groupby": ["batch", "arm"],
        "groups": ["treated"],
        "test_col": "arm",
        "reference": "control",
    },
}
METHODS = ("sum", "mean", "median")
NUMBERS = ["baseMean", "log2FoldChange", "lfcSE", "stat", "pvalue", "padj"]


def screen(n_cells: int = 900, n_genes: int = 120) -> ad.AnnData:
    """Counts (float32, dense): overdispersed between samples, with silent genes and an outlier."""
    rng = np.random.RandomState(20240229)
    targets = np.array(["non-targeting", "TP53", "MYC", "GATA1"])
    target = rng.randint(0, len(targets), n_cells)
    donor = rng.randint(0, 5, n_cells)
    level = np.exp(rng.normal(0.0, 1.5, n_genes))
    spread = 0.02 + 0.3 / (1 + level)  # dispersion falls with the mean, as the trend has it
    between = rng.gamma(1 / spread, spread, (len(targets), 5, n_genes))
    effect = np.where(rng.random_sample((len(targets), n_genes)) < 0.15, 2.5, 1.0)
    effect[0] = 1.0
    counts = rng.poisson(level * between[target, donor] * effect[target])
    counts[:, 7] = 0  # never expressed
    counts[:, 11] = np.arange(n_cells) % 97 == 0  # hardly ever
    counts[5, 3] = 40_000  # an outlier that Cook's distance finds
    obs = pd.DataFrame(
        {
            "target_gene": pd.Categorical(targets[target], categories=[*targets[::-1], "unused"]),
            "donor": np.array(["d3", "d1", "d10", "d2", "d4"])[donor],
            "guide": rng.randint(0, 2, n_cells) == 1,
            "batch": donor + 1,
            "arm": np.where(target == 0, "control", "treated"),
        },
        index=[f"cell{i}" for i in range(n_cells)],
    )
    var = pd.DataFrame({"length": np.arange(n_genes)}, index=[f"G{j}" for j in range(n_genes)])
    return ad.AnnData(counts.astype(np.float32), obs=obs, var=var)


def main() -> None:
    """Ask pdex and ADPBulk, and store what they say."""
    from adpbulk import ADPBulk
    from pdex import pseudobulk_dex

    adata = screen()
    truth: dict[str, np.ndarray] = {}
    for name, call in CALLS.items():
        table = pseudobulk_dex(adata, **call)
        truth[f"{name} columns"] = np.array(list(table.columns), dtype="U")
        truth[f"{name} index"] = table.index.to_numpy()
        for column in table.columns:
            values = table[column].to_numpy()
            truth[f"{name} {column}"] = values if column in NUMBERS else values.astype("U")
    for method in METHODS:
        bulk = ADPBulk(adata, groupby=["target_gene", "donor", "guide"], method=method)
        matrix = bulk.fit_transform()
        truth[f"bulk {method}"] = matrix.to_numpy()
        truth["bulk names"] = matrix.index.to_numpy().astype("U")
        for column in ("donor", "guide", "target_gene"):
            truth[f"bulk {column}"] = bulk.get_meta()[column].to_numpy().astype("U")
    TRUTH.parent.mkdir(exist_ok=True)
    np.savez_compressed(TRUTH, **truth)


if __name__ == "__main__":
    main()
