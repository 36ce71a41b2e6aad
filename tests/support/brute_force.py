"""Who is compared with whom, read off the labels of a screen cell by cell; and such a screen."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import anndata
import numpy as np
import pandas as pd

import pdex_gpu

BACKENDS = ["numpy", "cpu"]
GENES = [f"gene{j}" for j in range(6)]
N_CELLS = 150


@cache
def frame() -> pd.DataFrame:
    """Labels of cells, some missing; not every group is in every batch or of every type."""
    rng = np.random.default_rng(3)
    obs = pd.DataFrame(
        {
            "group": rng.choice(["ctrl", "safe", "c", "a", "b", "d"], N_CELLS),
            "batch": rng.choice(["b2", "b1", "b3"], N_CELLS, p=[0.2, 0.4, 0.4]),
            "type": rng.choice(["T", "B"], N_CELLS),
        },
        index=[f"cell{i}" for i in range(N_CELLS)],
    ).astype(object)
    obs.loc[(obs.group == "ctrl") & (obs.batch == "b2"), "batch"] = "b1"
    obs.loc[(obs.group == "d") & (obs.type == "B"), "type"] = "T"
    obs.loc[(obs.group == "c") & (obs.batch != "b3"), "batch"] = "b1"
    obs.loc[rng.permutation(obs.index)[:8], "group"] = None
    return obs


@cache
def counts() -> np.ndarray:
    """Counts with ties, an all-zero gene and effects of group and batch; float64."""
    rng, obs = np.random.default_rng(4), frame()
    mean = np.where(obs.group == "a", 3.0, 1.2) + np.where(obs.batch == "b3", 2.0, 0.0)
    found = rng.poisson(mean[:, None], (N_CELLS, len(GENES))).astype(float)
    found[:, 1] *= 40
    found[:, 2] = 0
    found[:, 3] = rng.integers(0, 2, N_CELLS)
    return found


def screen(values: np.ndarray | None = None, obs: pd.DataFrame | None = None) -> anndata.AnnData:
    """Values, by default counts, with the labels of `obs`."""
    values = counts() if values is None else values
    names = [f"gene{j}" for j in range(values.shape[1])]
    obs = frame() if obs is None else obs
    return anndata.AnnData(values, obs=obs.copy(), var=pd.DataFrame(index=names))


def run(
    data: Any = None, groupby: Any = "group", **options: Any
) -> tuple[pdex_gpu.DEResult, list[warnings.WarningMessage]]:
    """A result, and what was warned of but cells without a label."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        given = {"reference": "ctrl", "progress": False} | options
        result = pdex_gpu.differential_expression(
            screen() if data is None else data, groupby, **given
        )
    missing = pdex_gpu.errors.MissingLabelWarning
    return result, [w for w in caught if not issubclass(w.category, missing)]


@dataclass(frozen=True)
class Row:
    """A comparison: labels, and the cells of both sides in each stratum that has both."""

    target: Any
    reference: str
    level: Any
    stratified: bool
    strata: tuple[tuple[np.ndarray, np.ndarray], ...]

    @property
    def n_target(self) -> int:
        return sum(int(t.sum()) for t, _ in self.strata)

    @property
    def n_reference(self) -> int:
        return sum(int(r.sum()) for _, r in self.strata)

    def samples(self, gene: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
        """Values of target and reference in each stratum."""
        return [(gene[t], gene[r]) for t, r in self.strata]

    def pooled(self, gene: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Values of target and reference."""
        x, y = zip(*self.samples(gene), strict=True)
        return np.concatenate(x), np.concatenate(y)


def rows_of(
    obs: pd.DataFrame,
    comparison: str = "reference",
    *,
    groupby: str | Sequence[str] = "group",
    reference: Any = "ctrl",
    groups: Sequence[Any] | None = None,
    pairs: Sequence[tuple[Any, Any]] = (),
    strata: str | None = None,
    min_cells: int = 1,
) -> tuple[list[Row], list[Row]]:
    """Rows in their order, and those that are left out."""
    column, *within = [groupby] if isinstance(groupby, str) else groupby
    labels = obs[column].to_numpy(object)
    labelled = ~pd.isna(labels)
    everybody = sorted(set(labels[labelled]))
    references = reference if isinstance(reference, list) else [reference]

    def compared() -> Iterator[tuple[Any, str, np.ndarray, np.ndarray]]:
        if comparison == "pairs":
            for t, r in dict.fromkeys(pairs):
                yield t, r, labels == t, labels == r
            return
        others = everybody
        if comparison != "rest":
            others = [label for label in everybody if label not in references]
        for t in others if groups is None else groups:
            its = labels == t
            if comparison == "rest":
                yield t, "rest", its, labelled & ~its
            elif comparison == "perturbed":
                yield t, "other perturbed", its, labelled & ~its & ~np.isin(labels, references)
            elif comparison == "reference":
                yield t, " + ".join(map(str, references)), its, np.isin(labels, references)
            else:
                for r in references:
                    if r != t:
                        yield t, r, its, labels == r

    def parts(columns: Sequence[str]) -> list[tuple[Any, np.ndarray]]:
        if not columns:
            return [(None, np.ones(len(obs), bool))]
        rows = list(zip(*(obs[column].astype(str) for column in columns), strict=True))
        return [
            (level[0] if len(columns) == 1 else level, np.array([row == level for row in rows]))
            for level in sorted(set(rows))
        ]

    kept, left_out = [], []
    for level, there in parts(within):
        for t, r, its, others in compared():
            both = [
                (there & here & its, there & here & others)
                for _, here in parts([] if strata is None else [strata])
            ]
            row = Row(
                t,
                r,
                level,
                strata is not None,
                tuple((x, y) for x, y in both if x.any() and y.any()),
            )
            enough = row.strata and min(row.n_target, row.n_reference) >= min_cells
            (kept if enough else left_out).append(row)
    return kept, left_out


def assert_rows(result: pdex_gpu.DEResult, rows: Sequence[Row]) -> None:
    """The result has these rows, in this order."""
    assert list(zip(result.targets, result.references, strict=True)) == [
        (row.target, row.reference) for row in rows
    ]
    if rows[0].level is None:
        assert result.within is None
    else:
        assert result.within is not None
        assert result.within[1].tolist() == [row.level for row in rows]
