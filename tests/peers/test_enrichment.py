"""Ranked lists and wide frames in gseapy and decoupler."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest


@pytest.fixture(scope="module")
def strong(result: Any) -> tuple[str, list[str]]:
    """A target, and the genes that it takes down most."""
    counts = (result["fdr"] < 0.05).sum(axis=1)
    target = str(result.targets[int(np.argmax(counts))])
    return target, result.ranking(target).index[-8:].tolist()


def test_gseapy_takes_a_ranking(result: Any, strong: Any):
    gseapy = pytest.importorskip("gseapy", reason="needs gseapy: make test-peers")
    target, down = strong
    others = result.ranking(target).index[20:40].tolist()
    found = gseapy.prerank(
        rnk=result.ranking(target), gene_sets={"down": down, "middle": others},
        min_size=5, permutation_num=100, seed=0, threads=1, outdir=None,
    ).res2d.set_index("Term")  # fmt: skip
    assert float(found.loc["down", "NES"]) < -1
    assert float(found.loc["down", "NOM p-val"]) < 0.05


# (gsea's permutations are compiled anew at every start, which takes longer than all else here)
@pytest.mark.parametrize("method", ["ulm", "zscore"])
def test_decoupler_takes_a_wide_frame(result: Any, strong: Any, method: str):
    decoupler = pytest.importorskip("decoupler", reason="needs decoupler: make test-peers")
    target, down = strong
    net = pd.DataFrame({"source": "down", "target": down, "weight": 1.0})
    score, p = getattr(decoupler.mt, method)(result.to_wide(), net, tmin=5)
    assert list(score.index) == list(map(str, result.targets))
    assert score.loc[target, "down"] == score["down"].min() < 0
    assert p.loc[target, "down"] < 0.05


def test_decoupler_takes_the_anndata(result: Any, strong: Any):
    decoupler = pytest.importorskip("decoupler", reason="needs decoupler: make test-peers")
    target, down = strong
    adata = result.to_anndata()
    net = pd.DataFrame({"source": "down", "target": down, "weight": 1.0})
    decoupler.mt.ulm(adata, net, tmin=5, layer="z")
    assert adata.obsm["score_ulm"].loc[target, "down"] < 0
