"""What pdex, scanpy 1.12.4 and illico 0.6.0 answer where they differ from this package.

Writes ``moving_NAME.npz`` beside this file, for the tests of the pages about moving. Run with the
package installed: ``python tests/data/make_moving.py NAME``, NAME one of pdex-0.1
(0.1.28 is meant), pdex-0.3 (0.3.0), scanpy and illico.
The stream of `RandomState` is frozen, so every version of numpy gives the same screens.
"""

from __future__ import annotations

import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
from scipy import sparse

HERE = Path(__file__).parent
CONTROL, TARGETS = "ctl", ["b", "a", "few"]  # in order of appearance; "few" has 6 cells


def counts() -> tuple[np.ndarray, np.ndarray]:
    """Counts, float64, of 146 cells x 9 genes, and the label of each cell."""
    rng = np.random.RandomState(17)
    labels = np.array([CONTROL] * 60 + ["b"] * 45 + ["a"] * 35 + ["few"] * 6)
    labels[1:] = labels[1:][rng.permutation(len(labels) - 1)]
    level = np.exp(rng.normal(0.7, 0.8, 9))
    effect = np.where(rng.random_sample((4, 9)) < 0.4, 2.0, 1.0)
    code = np.searchsorted(["a", "b", "ctl", "few"], labels)
    values = rng.poisson(level * effect[code]).astype(np.float64)
    values[:, 4] = 0  # never expressed
    values[:, 5] = 3  # the same everywhere
    values[labels == CONTROL, 6] = 0  # in targets alone
    return values, labels


def distinct() -> np.ndarray:
    """Values without ties for the same cells, gene by gene."""
    rng = np.random.RandomState(18)
    return np.stack([rng.permutation(146) for _ in range(9)], axis=1) + 0.5


def shifted() -> tuple[np.ndarray, np.ndarray]:
    """Values far apart in two groups, so that p-values are small beyond float32."""
    rng = np.random.RandomState(19)
    labels = np.array([CONTROL] * 100 + ["a"] * 100)
    values = rng.normal(5.0, 0.4, (200, 3)) + 4.0 * (labels == "a")[:, None] * [1.0, 0.5, 0.1]
    return values.astype(np.float32).astype(np.float64), labels


def screen(values: Any, labels: np.ndarray, dtype: str = "float64") -> ad.AnnData:
    """Groups in ``obs["group"]``, genes g0 and on."""
    obs = pd.DataFrame({"group": labels}, index=[f"cell{i}" for i in range(len(labels))])
    var = pd.DataFrame(index=[f"g{j}" for j in range(values.shape[1])])
    return ad.AnnData(values.astype(dtype), obs=obs, var=var)


def _refusal(call: Callable[[], Any]) -> str:
    try:
        call()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def pdex_1() -> dict[str, Any]:
    """pdex 0.1.28."""
    from pdex import parallel_differential_expression

    def ask(adata: ad.AnnData, metric: str = "wilcoxon", **options: Any) -> pd.DataFrame:
        return parallel_differential_expression(
            adata, reference=CONTROL, groupby_key="group", num_workers=1, metric=metric,
            is_log1p=False, show_progress=False, **options,
        )  # fmt: skip

    values, labels = counts()
    far, sides = shifted()
    few = screen(distinct(), labels)
    hole = screen(values, labels)
    hole.X[3, 0] = np.nan
    tables = {
        "standard": ask(screen(values, labels)),
        "low memory": ask(screen(values, labels), low_memory=True),
        "no correction": ask(screen(values, labels), tie_correct=False),
        "anderson": ask(screen(values, labels), "anderson"),
        "t-test": ask(screen(values, labels), "t-test"),
        "t-test float32": ask(screen(far, sides, "float32"), "t-test"),
        "t-test float64": ask(screen(far, sides), "t-test"),
        "few": ask(few),
        "few low memory": ask(few, low_memory=True),
        "nan": ask(hole),
    }
    return {f"{name}/{c}": t[c].to_numpy() for name, t in tables.items() for c in t}


def pdex_3() -> dict[str, Any]:
    """pdex 0.3.0."""
    from pdex import pdex

    def ask(adata: ad.AnnData, mode: str = "ref", **options: Any) -> pd.DataFrame:
        if mode == "ref":
            options["reference"] = CONTROL
        options = {"is_log1p": False, "geometric_mean": False, **options}
        return pdex(adata, "group", mode, as_pandas=True, **options)

    values, labels = counts()
    rng = np.random.RandomState(20)
    big = (values * 1e4 + rng.randint(0, 9999, values.shape)) / 7.0
    zeros = sparse.csr_matrix(values)
    zeros.data[::5] = 0
    categories = screen(values, labels)
    categories.obs["group"] = pd.Categorical(labels, [*TARGETS, CONTROL, "nobody"])
    tables = {
        "float32": ask(screen(sparse.csr_matrix(big), labels, "float32")),
        "few": ask(screen(distinct(), labels)),
        "all": ask(screen(values, labels), "all"),
    }
    found = {f"{name}/{c}": t[c].to_numpy() for name, t in tables.items() for c in t}
    return found | {
        "big": big,
        "explicit zeros": _refusal(lambda: ask(screen(zeros, labels))),
        "negative": _refusal(lambda: ask(screen(sparse.csr_matrix(values - 1.0), labels))),
        "empty category": _refusal(lambda: ask(categories)),
    }


def scanpy() -> dict[str, Any]:
    """scanpy 1.12.4."""
    import scanpy as sc

    def ask(adata: ad.AnnData, **options: Any) -> dict[str, np.ndarray]:
        options = {"method": "wilcoxon", **options}
        sc.tl.rank_genes_groups(adata, "group", **options)
        return adata.uns["rank_genes_groups"]

    def of(found: dict[str, np.ndarray], group: str, kind: str) -> np.ndarray:
        order = np.argsort(found["names"][group])
        return np.asarray(found[kind][group])[order]

    values, labels = counts()
    values = np.log1p(values)
    zeros = sparse.csr_matrix(values)
    zeros.data[::5] = 0
    with_zeros = screen(zeros, labels)
    before = with_zeros.X.nnz
    ask(with_zeros)
    hole = screen(values, labels)
    hole.X[3, 0] = np.nan
    unlabelled = screen(values, labels)
    unlabelled.obs["group"] = pd.Categorical(np.where(labels == "few", None, labels))
    tables = {
        "rest": ask(screen(values, labels)),
        "ties": ask(screen(values, labels), tie_correct=True),
        "reference": ask(screen(values, labels), reference=CONTROL),
        "t-test": ask(screen(values, labels), method="t-test"),
        "unlabelled": ask(unlabelled),
        "nan": ask(hole),
    }
    kinds = ("scores", "pvals", "pvals_adj", "logfoldchanges")
    found = {f"{name}/{kind}": of(t, "a", kind) for name, t in tables.items() for kind in kinds}
    return found | {"nnz": np.array([before, with_zeros.X.nnz])}


def illico() -> dict[str, Any]:
    """illico 0.6.0."""
    from illico import asymptotic_wilcoxon

    def ask(adata: ad.AnnData, reference: str | None = CONTROL, **options: Any) -> pd.DataFrame:
        options = {"is_log1p": False, **options}
        table = asymptotic_wilcoxon(adata, group_keys="group", reference=reference, **options)
        return table.reset_index()

    values, labels = counts()
    logged = screen(np.log1p(values), labels)
    tables = {
        "reference": ask(screen(values, labels)),
        "rest": ask(screen(values, labels), None),
        "log1p": ask(logged, is_log1p=True),
        "log1p after": ask(logged, is_log1p=True, exp_post_agg=True),
        "few": ask(screen(distinct(), labels)),
        "plain": ask(screen(values, labels), use_continuity=False, tie_correct=False),
        "excluded": ask(screen(values, labels), None, exclude_from_ovr=["few"]),
    }
    return {f"{name}/{c}": t[c].to_numpy() for name, t in tables.items() for c in t}


def main() -> None:
    """Ask one package, and store what it says."""
    warnings.simplefilter("ignore")
    logging.disable(logging.ERROR)
    name = sys.argv[1]
    found = {"pdex-0.1": pdex_1, "pdex-0.3": pdex_3, "scanpy": scanpy, "illico": illico}[name]()
    text = {
        k: np.asarray(v).astype(str) if np.asarray(v).dtype.kind in "OU" else np.asarray(v)
        for k, v in found.items()
    }
    np.savez_compressed(HERE / f"moving_{name}.npz", **text)


if __name__ == "__main__":
    main()
