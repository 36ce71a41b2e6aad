"""A case: a call, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from .values import FILES, MEMORY, draw_matrix

ENTRIES = [
    *["native"] * 12,
    *["file"] * 3,
    "command",
    "pdex",
    "pdex 0.1",
    "scanpy",
    "pseudobulk",
    "calibrate",
]

_NAMES = [
    ["A", "B", "C", "ctrl", "E"],
    ["non-targeting", "STAT1", "IRF1", "MYC", "TP53"],
    ["a+b", "a", "b", "b+c", "c"],
    ["", " ", "nan", "None", "NA"],
    ["rest", "target", "reference", "other perturbed", "feature"],
    ["x,y", 'quo"te', "new\nline", "tab\t", "=1+1"],
    ["Ä", "β-catenin", "遺伝子", "e\u0301", "\u00e9"],
    ["1", "01", "1.0", "1e0", " 1"],
]
_COLUMNS = ["group", "guide_identity", "donor id", "batch (10x)", "1", "C", "x+y", "µ"]
#: Names of columns of results.
TAKEN = ["target", "reference", "feature", "p_value", "fdr", "n_cells", "statistic"]


@dataclass
class Case:
    """A call and all that its answer depends on.

    Attributes
    ----------
    seed : int
    entry : str
    storage : str
    values : numpy.ndarray, shape (n_cells, n_genes)
        The matrix, whatever it is stored as.
    kinds : list of str
        Of each gene.
    obs : pandas.DataFrame
        Labels of groups, levels and strata.
    groupby : list of str
        The group column, then those of levels.
    options : dict
        Of the native call; other entries are given those that they have.
    guides : pandas.DataFrame or None, bool
        Cells x guides, in place of the group column.
    guides_as : str
        What is stored of it.
    """

    seed: int
    entry: str
    storage: str
    values: np.ndarray
    kinds: list[str]
    obs: pd.DataFrame
    groupby: list[str]
    options: dict[str, Any] = field(default_factory=dict)
    guides: pd.DataFrame | None = None
    guides_as: str = ""

    def __str__(self) -> str:
        labels = self.obs[self.groupby[0]]
        if self.guides is not None:
            labels = self.guides.sum(axis=1)
        options = " ".join(f"{k}={v!r}" for k, v in self.options.items())
        return (
            f"case {self.seed}: {self.entry}, {self.storage}, {self.values.dtype} "
            f"{self.values.shape}, genes {self.kinds}, groupby {self.groupby} ({labels.dtype}: "
            f"{labels.value_counts(dropna=False).to_dict()}), {self.guides_as} {options}"
        )


def draw(seed: int) -> Case:
    """The case of a seed."""
    rng = np.random.default_rng([81, seed])
    n_cells = int(rng.choice([7, 20, 60, 60, 150]))
    entry = str(rng.choice(ENTRIES))
    values, kinds = draw_matrix(rng, n_cells)
    obs, groupby = _labels(rng, n_cells)
    storage = _storage(rng, entry, obs, values)
    options = _options(rng, obs, groupby)
    case = Case(seed, entry, storage, values, kinds, obs, groupby, options)
    if entry in ("native", "file") and rng.random() < 0.12:
        _give_guides(rng, case)
    return case


def _give_guides(rng: np.random.Generator, case: Case) -> None:
    """Cells carry several guides, or none."""
    names = ["A", "B+A", "non-targeting", "3"]
    n_guides = int(rng.integers(2, len(names) + 1))
    kinds = ["bool", "boolean", "Int64", "float64", "category", "array", "csr"]
    case.guides_as = str(rng.choice(kinds))
    if case.guides_as in ("array", "csr"):
        names = ["0", "1", "2", "3"]
    carried = rng.random((len(case.obs), n_guides)) < rng.uniform(0.1, 0.7)
    case.guides = pd.DataFrame(carried, index=case.obs.index, columns=names[:n_guides])
    case.groupby = case.groupby[:1]
    for name in ("groups", "pairs", "reference", "strata"):
        case.options.pop(name, None)
    case.options["comparison"] = "reference" if rng.random() < 0.4 else "rest"
    if case.options["comparison"] == "reference":
        case.options["reference"] = names[0]


def _storage(rng: np.random.Generator, entry: str, obs: pd.DataFrame, values: np.ndarray) -> str:
    mixed = any(
        len({type(x) for x in column.dropna()}) > 1
        for column in (obs[name] for name in obs)
        if column.dtype == object
    )
    if entry == "command":
        return "h5ad csr" if not mixed else "unwritable"
    if entry == "scanpy":
        return str(rng.choice(["C", "csr", "csc", "view"]))
    return str(rng.choice(MEMORY if mixed or rng.random() < 0.5 else FILES))


def _labels(rng: np.random.Generator, n: int) -> tuple[pd.DataFrame, list[str]]:
    n_groups = int(rng.integers(2, 6))
    share = rng.dirichlet(np.full(n_groups, 2.0))
    codes = rng.choice(n_groups, n, p=share)
    names: list[Any] = [*_NAMES[int(rng.choice(len(_NAMES)))]]
    rng.shuffle(names)
    kind = str(rng.choice(["object"] * 4 + ["category"] * 4 + _OTHER))
    column = _column(kind, codes, names[:n_groups], rng)
    if rng.random() < 0.25 and kind not in ("int", "bool", "bytes"):
        column = column.copy()
        column[rng.random(n) < 0.15] = None
    index = [f"cell{i}" for i in range(n)]
    columns = [*_COLUMNS, *TAKEN] if rng.random() < 0.1 else _COLUMNS
    used = [str(name) for name in rng.choice(columns, 3, replace=False)]
    obs = pd.DataFrame({used[0]: column.to_numpy() if kind == "object" else column.array},
                       index=index)  # fmt: skip
    obs[used[1]] = rng.choice(["x", "y+z", "y"][: int(rng.integers(1, 4))], n)
    obs[used[2]] = pd.Categorical(rng.choice(["b1", "b2", "z+x"], n))
    groupby = used[: int(rng.choice([1, 1, 1, 1, 2, 3]))]
    return obs, groupby


_OTHER = ["int", "float", "bool", "Int64", "string", "mixed", "int category"]


def _column(kind: str, codes: np.ndarray, names: list[Any], rng: np.random.Generator) -> pd.Series:
    if kind == "int":
        return pd.Series(codes * 7 - 3)
    if kind == "float":
        return pd.Series(codes / 2)
    if kind == "bool":
        return pd.Series(codes % 2 == 0)
    if kind == "Int64":
        return pd.Series(codes * 5, dtype="Int64")
    if kind == "mixed":
        both = [1, "1", 2.5, "x", "2.5"]
        return pd.Series([both[c] for c in codes], dtype=object)
    if kind == "int category":
        return pd.Series(pd.Categorical(codes * 3, categories=[12, 9, 6, 3, 0]))
    labels = pd.Series([names[c] for c in codes], dtype=object)
    if kind == "string":
        return labels.astype("string")
    if kind == "category":
        categories = [*names, "never seen"]
        rng.shuffle(categories)
        return pd.Series(pd.Categorical(labels, categories=categories))
    return labels


def _options(rng: np.random.Generator, obs: pd.DataFrame, groupby: list[str]) -> dict[str, Any]:
    present = [x.item() if hasattr(x, "item") else x for x in obs[groupby[0]].dropna().unique()]
    found: dict[str, Any] = {}

    def maybe(chance: float, name: str, *values: Any) -> None:
        if rng.random() < chance:
            found[name] = values[int(rng.integers(len(values)))]

    def some(n: int) -> list[Any]:
        return [present[int(i)] for i in rng.permutation(len(present))[:n]]

    metric = found["metric"] = str(rng.choice(["wilcoxon", "wilcoxon", "t-test", "anderson", "ks"]))
    comparison = found["comparison"] = str(
        rng.choice(["reference"] * 4 + ["rest", "rest", "perturbed", "each_reference", "pairs"])
    )
    if comparison == "pairs":
        found["pairs"] = [tuple(some(2)) for _ in range(3)] if len(present) > 1 else [("?", "!")]
    elif comparison != "rest":
        one = present and comparison != "each_reference" and rng.random() < 0.7
        found["reference"] = some(1)[0] if one else some(2)
        if rng.random() < 0.03:
            found["reference"] = "nowhere"
    if comparison != "pairs":
        maybe(0.15, "groups", some(2))
    remaining = [name for name in obs if name not in groupby]
    if remaining and metric != "ks":
        maybe(0.2, "strata", *remaining)
    maybe(0.1, "min_cells", 2, 5)
    maybe(0.15, "min_fraction", 0.0, 0.2, 0.9)
    maybe(0.05, "min_cpm", 0.0, 10.0)
    maybe(0.2, "fdr_scope", "target", "gene")
    maybe(0.2, "fdr_method", "bonferroni", "benjamini-yekutieli")
    maybe(0.5, "columns", "all", ["auroc", "target_n_cells", "log10_p"], ["auroc_low", "cohens_d"])
    maybe(0.6, "is_log1p", True, False, False)
    maybe(0.1, "exp_post_agg", False)
    maybe(0.1, "clip_value", None, 3.0)
    maybe(0.2, "gene_chunk_size", 1, 2)
    maybe(0.2, "engine", "threads", "serial")
    if metric == "wilcoxon":
        maybe(0.2, "continuity", False)
        maybe(0.2, "tie_correction", False)
        maybe(0.3, "method", "asymptotic", "exact")
    if metric == "t-test":
        maybe(0.5, "variance", "welch", "overestimated")
    if metric == "anderson":
        maybe(0.3, "variant", "right", "continuous")
        maybe(0.3, "p_values", "interpolated")
    else:
        maybe(0.3, "alternative", "less", "greater")
    if metric in ("wilcoxon", "t-test"):
        maybe(0.15, "nan_policy", "omit", "raise")
    if metric != "anderson":
        maybe(0.7, "p_values", "asymptotic")
    return found
