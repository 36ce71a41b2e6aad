"""scanpy's own plots and getters on the uns that rank_genes_groups fills."""

from __future__ import annotations

from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

import pdex_gpu
from pdex_gpu.simulate import GROUPBY, REFERENCE

sc = pytest.importorskip("scanpy", reason="needs scanpy: make test-peers")
mpl.use("Agg")

import matplotlib.pyplot as plt  # noqa: E402


@pytest.fixture
def ranked(screen: Any) -> Any:
    adata = screen.copy()
    adata.uns["log1p"] = {"base": None}
    pdex_gpu.rank_genes_groups(adata, GROUPBY, reference=REFERENCE, method="wilcoxon", pts=True,
                               tie_correct=True)  # fmt: skip
    return adata


@pytest.fixture(autouse=True)
def close() -> Any:
    yield
    plt.close("all")


PLOTS = (
    "rank_genes_groups", "rank_genes_groups_dotplot", "rank_genes_groups_matrixplot",
    "rank_genes_groups_stacked_violin", "rank_genes_groups_heatmap",
    "rank_genes_groups_tracksplot", "rank_genes_groups_violin",
)  # fmt: skip


@pytest.mark.parametrize("name", PLOTS)
@pytest.mark.filterwarnings("ignore")  # those of plotting libraries
def test_scanpys_plots_draw_it(ranked: Any, name: str):
    more = {} if name in ("rank_genes_groups", "rank_genes_groups_violin") else {
        "dendrogram": False
    }  # fmt: skip
    getattr(sc.pl, name)(ranked, n_genes=4, show=False, **more)
    drawn = [ax for number in plt.get_fignums() for ax in plt.figure(number).axes]
    text = " ".join(t.get_text() for ax in drawn for t in ax.findobj(mpl.text.Text))
    best = ranked.uns["rank_genes_groups"]["names"][0]
    assert any(str(gene) in text for gene in best), text


def test_the_getter_gives_our_numbers(ranked: Any):
    group = ranked.uns["rank_genes_groups"]["names"].dtype.names[0]
    frame = sc.get.rank_genes_groups_df(ranked, group=group)
    found = pdex_gpu.differential_expression(
        ranked, GROUPBY, reference=REFERENCE, use_continuity=False, progress=False,
        columns=["z"],
    )  # fmt: skip
    t = found.find(group)
    own = dict(zip(found.features, found["z"][t], strict=True))
    # scanpy stores scores as float32: worst relative difference seen 6e-8.
    np.testing.assert_allclose(frame["scores"], [own[g] for g in frame["names"]], rtol=1e-6)


def test_the_uns_survives_a_file(ranked: Any, tmp_path: Any):
    ranked.write_h5ad(tmp_path / "a.h5ad")
    again = sc.read_h5ad(tmp_path / "a.h5ad")
    group = ranked.uns["rank_genes_groups"]["names"].dtype.names[0]
    assert sc.get.rank_genes_groups_df(again, group=group).equals(
        sc.get.rank_genes_groups_df(ranked, group=group)
    )


def test_scanpy_filters_it(ranked: Any):
    sc.tl.filter_rank_genes_groups(
        ranked, min_fold_change=0.1, min_in_group_fraction=0.1, max_out_group_fraction=1,
        compare_abs=True,
    )  # fmt: skip
    names = ranked.uns["rank_genes_groups_filtered"]["names"]
    assert any(isinstance(gene, str) for gene in names[0])


def test_comparisons_as_an_anndata_in_scanpy(result: Any):
    """Perturbations x genes: what scanpy does with observations, it does with perturbations."""
    adata = result.to_anndata()
    adata.X = adata.layers["z"]
    sc.pp.pca(adata, n_comps=2)
    assert adata.obsm["X_pca"].shape == (5, 2)
