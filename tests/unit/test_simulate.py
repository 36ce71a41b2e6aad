"""The simulated screen has the moments it promises."""

from __future__ import annotations

import gzip
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from scipy.io import mmread

from pdex_gpu.simulate import GROUPBY, REFERENCE, simulate_screen


def test_shape_and_labels():
    screen = simulate_screen(500, 80, 7, control_fraction=0.2, seed=1)
    assert screen.counts.shape == (500, 80)
    assert screen.counts.dtype == np.float32
    assert len(screen.perturbations) == 7
    assert set(screen.perturbations) <= set(screen.genes)
    names, n_cells = np.unique(screen.labels, return_counts=True)
    assert set(names) == {REFERENCE, *screen.perturbations}
    cells = dict(zip(names.tolist(), n_cells.tolist(), strict=True))
    assert cells.pop(REFERENCE) == 100
    assert max(cells.values()) - min(cells.values()) <= 1


def test_counts_are_whole_and_canonical():
    counts = simulate_screen(300, 60, 5, seed=2).counts
    assert (counts.data > 0).all()
    assert (counts.data == np.round(counts.data)).all()
    assert counts.has_canonical_format


def test_variance_is_negative_binomial():
    """Without effects and with equal libraries, var = mu + dispersion * mu**2."""
    dispersion = 0.3
    counts = simulate_screen(
        20_000, 60, 2, mean_umi=1_200, gene_sigma=0.5, library_sigma=0.0, dispersion=dispersion,
        knockdown=1.0, affected_fraction=0.0, seed=4,
    ).counts.toarray().astype(np.float64)  # fmt: skip
    mean, variance = counts.mean(axis=0), counts.var(axis=0, ddof=1)
    assert mean.sum() == pytest.approx(1_200, rel=0.01)
    estimate = (variance - mean) / mean**2
    # The standard error of one gene's estimate is about 1.5 %; the worst of 60 genes is 5 %.
    np.testing.assert_allclose(estimate, dispersion, rtol=0.10)


@pytest.mark.thorough
def test_library_sizes_and_gene_means_are_log_normal():
    screen = simulate_screen(
        3_000, 3_000, 2, mean_umi=20_000, gene_sigma=0.8, library_sigma=0.35, dispersion=0.05,
        knockdown=1.0, affected_fraction=0.0, seed=5,
    )  # fmt: skip
    library = np.asarray(screen.counts.sum(axis=1), dtype=np.float64).ravel()
    assert library.mean() == pytest.approx(20_000, rel=0.02)
    log_library = np.log(library)
    assert log_library.std() == pytest.approx(0.35, rel=0.05)
    assert abs(_skewness(log_library)) < 0.15
    gene_mean = np.asarray(screen.counts.mean(axis=0), dtype=np.float64).ravel()
    log_mean = np.log(gene_mean[gene_mean > 0])
    assert log_mean.std() == pytest.approx(0.8, rel=0.05)
    assert abs(_skewness(log_mean)) < 0.15


def _skewness(x: np.ndarray) -> float:
    return float(np.mean(((x - x.mean()) / x.std()) ** 3))


def test_effects_are_in_the_counts():
    screen = simulate_screen(
        12_000, 50, 5, control_fraction=0.5, mean_umi=2_500, gene_sigma=0.3, dispersion=0.1,
        knockdown=0.2, affected_fraction=0.2, seed=6,
    )  # fmt: skip
    column = {gene: i for i, gene in enumerate(screen.genes)}
    assert (screen.effect[0] == 1).all()
    control = _mean_of(screen, REFERENCE)
    for row, name in enumerate(screen.perturbations, start=1):
        assert screen.effect[row, column[name]] == pytest.approx(0.2)
        ratio = _mean_of(screen, name) / control
        np.testing.assert_allclose(ratio, screen.effect[row], rtol=0.2)
    assert 0.1 < np.mean(screen.effect[1:] != 1) < 0.35


def _mean_of(screen, name: str) -> np.ndarray:
    rows = np.flatnonzero(screen.labels == name)
    return np.asarray(screen.counts[rows].mean(axis=0), dtype=np.float64).ravel()


def test_same_seed_same_bits():
    one, two = simulate_screen(400, 70, 6, seed=9), simulate_screen(400, 70, 6, seed=9)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one.counts, name), getattr(two.counts, name))
    np.testing.assert_array_equal(one.labels, two.labels)
    np.testing.assert_array_equal(one.effect, two.effect)
    other = simulate_screen(400, 70, 6, seed=10)
    assert (one.counts != other.counts).nnz > 0


@pytest.mark.parametrize("size", [(300, 90, 70), (300, 2_600, 6)])
def test_annotation_changes_no_count(size: tuple[int, int, int]):
    plain, named = simulate_screen(*size, seed=3), simulate_screen(*size, seed=3, annotated=True)
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(plain.counts, name), getattr(named.counts, name))
    np.testing.assert_array_equal(plain.effect, named.effect)
    assert len(set(named.genes)) == size[1]
    assert named.perturbations.tolist() == sorted(named.perturbations)
    assert {"STAT1", "IRF1"} <= set(named.perturbations)
    place = {gene: i for i, gene in enumerate(named.genes)}
    own = [plain.genes.tolist().index(name) for name in plain.perturbations]
    assert [place[name] for name in named.perturbations] == own
    assert plain.obs == {}
    assert plain.guides is None


def test_what_is_known_of_cells():
    screen = simulate_screen(2_000, 60, 4, seed=3, annotated=True)
    adata = screen.to_anndata()
    guides = adata.obsm["guides"]
    assert list(guides) == [REFERENCE, *screen.perturbations]
    own = guides.to_numpy()[np.arange(2_000), guides.columns.get_indexer(screen.labels)]
    assert own.all()
    n_carried = guides.sum(axis=1)
    assert set(n_carried) == {1, 2}
    assert guides[REFERENCE][n_carried == 2].all()  # what has no effect
    assert adata.obs["guide"].str.rsplit("_", n=1).str[0].tolist() == screen.labels.tolist()
    n_guides = adata.obs.groupby("target_gene", observed=True)["guide"].nunique()
    assert n_guides.to_dict() == {REFERENCE: 10} | dict.fromkeys(screen.perturbations, 2)
    for column in ("batch", "donor", "cell_type"):
        table = adata.obs.groupby(["target_gene", column], observed=True).size()
        assert len(table) == 5 * adata.obs[column].nunique()


def test_log_normalised():
    screen = simulate_screen(200, 50, 4, seed=11)
    logged = screen.log_normalised(target_sum=1e4)
    assert logged.dtype == np.float32
    np.testing.assert_allclose(np.expm1(logged.toarray().astype(float)).sum(axis=1), 1e4, rtol=1e-5)


def test_file_holds_the_screen(tmp_path: Path):
    import anndata

    screen = simulate_screen(150, 30, 3, seed=12)
    screen.write_h5ad(tmp_path / "screen.h5ad")
    adata = anndata.read_h5ad(tmp_path / "screen.h5ad")
    assert adata.obs[GROUPBY].astype(str).tolist() == screen.labels.tolist()
    assert adata.var_names.tolist() == screen.genes.tolist()
    assert (screen.counts != adata.X).nnz == 0


@pytest.mark.parametrize(
    ("size", "says"),
    [
        ((100, 5, 6), "6 perturbations need at least that many"),
        ((5, 50, 20), "5 cells are too few"),
    ],
)
def test_impossible_sizes(size: tuple[int, int, int], says: str):
    with pytest.raises(ValueError, match=says):
        simulate_screen(*size)


def test_cell_ranger_files_hold_the_screen(tmp_path):
    screen = simulate_screen(120, 30, 3, seed=7, annotated=True)
    screen.write_cell_ranger(tmp_path / "outs")
    with h5py.File(tmp_path / "outs" / "filtered_feature_bc_matrix.h5") as file:
        group = file["matrix"]
        shape = tuple(group["shape"][:][::-1].tolist())
        arrays = (group["data"][:], group["indices"][:], group["indptr"][:])
        names = group["features/name"][:].astype(str)
        types = group["features/feature_type"][:].astype(str)
        barcodes = group["barcodes"][:].astype(str)
    genes = types == "Gene Expression"
    matrix = sparse.csr_matrix(arrays, shape=shape).toarray()
    np.testing.assert_array_equal(matrix[:, genes], screen.counts.toarray())
    assert names[genes].tolist() == screen.genes.tolist()
    assert len(set(barcodes)) == 120
    assert all(len(name) == 18 and name.endswith("-1") for name in barcodes)
    folder = tmp_path / "outs" / "filtered_feature_bc_matrix"
    np.testing.assert_array_equal(mmread(folder / "matrix.mtx.gz").toarray().T, matrix)
    assert gzip.decompress((folder / "barcodes.tsv.gz").read_bytes()).split() == [
        name.encode() for name in barcodes
    ]
    assert screen.guides is not None
    calls = pd.read_csv(tmp_path / "outs/crispr_analysis/protospacer_calls_per_cell.csv")
    assert calls["cell_barcode"].tolist() == barcodes.tolist()
    targets = pd.read_csv(tmp_path / "outs/feature_reference.csv").set_index("id")
    for row, called in enumerate(calls["feature_call"]):
        found = {targets.loc[guide, "target_gene_name"] for guide in called.split("|")}
        carried = screen.guides[row]
        controls = {"Non-Targeting"} if carried[0] else set()
        assert found == controls | set(screen.perturbations[carried[1:]].tolist())
        assert screen.obs["guide"][row] in called.split("|")
    with pytest.raises(ValueError, match="annotated=True"):
        simulate_screen(120, 30, 3).write_cell_ranger(tmp_path)
