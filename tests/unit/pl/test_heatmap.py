"""The heat map: which cells, in which order, in which colours."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from pl_results import result
from scipy.cluster.hierarchy import leaves_list, linkage

from pdex_gpu import DEResult, pl
from pdex_gpu.results.schema import EXTRA_COLUMNS

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def rows(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def genes(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_xticklabels()]


def number(names: list[str]) -> np.ndarray:
    """Position of what :func:`pl_results.result` names."""
    return np.array([int(name.removeprefix("GENE")) for name in names])


def cells(ax: Any) -> np.ndarray:
    return ax.images[0].get_array().filled(np.nan)


def bar(ax: Any) -> Any:
    return ax.images[0].colorbar


def test_cells_follow_their_names():
    found = result()
    ax = pl.heatmap(found, n_features=12)
    t, g = number(rows(ax)), number(genes(ax))
    assert sorted(t) == list(range(25))
    np.testing.assert_array_equal(cells(ax), np.log2(found["fold_change"])[np.ix_(t, g)])
    hits = np.count_nonzero(found["fdr"] <= 0.05, axis=0)
    assert sorted(hits[g])[::-1] == sorted(hits)[::-1][:12]
    assert ax.get_title() == "the 12 genes that most often have FDR ≤ 0.05 (marked)"


def test_similar_rows_and_columns_are_neighbours():
    """Two kinds of perturbations and two of genes, shuffled, come out as four blocks."""
    rng = np.random.default_rng(8)
    kind, sort = rng.permutation(24) % 2, rng.permutation(30) % 2
    change = np.where(kind[:, None] == sort, 4.0, 0.25)
    ax = pl.heatmap(result(24, 30, columns={"fold_change": change, "fdr": change * 0}))
    for labels in (kind[number(rows(ax))], sort[number(genes(ax))]):
        assert np.count_nonzero(np.diff(labels)) == 1
    found = result(seed=2)
    ax = pl.heatmap(found, features=[f"GENE{g:05d}" for g in range(60)], value="percent_change")
    low, high = ax.images[0].get_clim()
    clipped = np.clip(found["percent_change"], low, high)
    wanted = leaves_list(linkage(clipped, "average", optimal_ordering=True))
    np.testing.assert_array_equal(number(rows(ax)), wanted)


def test_marks_point_up_and_down():
    found = result()
    ax = pl.heatmap(found, n_features=12)
    t, g = number(rows(ax)), number(genes(ax))
    hit = found["fdr"][np.ix_(t, g)] <= 0.05
    up = cells(ax) >= 0.0
    for marks, which, way in zip(ax.collections, (hit & up, hit & ~up), (1, -1), strict=True):
        row, column = np.nonzero(which)
        np.testing.assert_array_equal(marks.get_offsets(), np.column_stack([column, row]))
        tip = marks.get_paths()[0].vertices
        assert way * tip[np.abs(tip[:, 0]) < 1e-9, 1][0] > 0.0
        assert len(row) > 5
    ax = pl.heatmap(found, n_features=12, value="target_mean")
    assert len(ax.collections[0].get_paths()[0].vertices) > 4  # discs, which point nowhere
    assert len(ax.collections[0].get_offsets()) == np.count_nonzero(hit)
    targets = [f"GENE{t:05d}" for t in (20, 7, 3)]
    ax = pl.heatmap(found, targets=targets, features=[f"GENE{g:05d}" for g in range(60)])
    some = found["fdr"][np.ix_(number(rows(ax)), number(genes(ax)))] <= 0.05
    places = np.concatenate([marks.get_offsets() for marks in ax.collections])
    assert set(map(tuple, places)) == set(zip(*np.nonzero(some)[::-1], strict=True))
    assert ax.get_title() == "60 genes; marked: FDR ≤ 0.05"


def test_colours_are_symmetric():
    ax = pl.heatmap(result())
    low, high = ax.images[0].get_clim()
    assert low == -high
    sizes = np.abs(cells(ax))
    assert high == np.quantile(sizes, 0.99)
    assert bar(ax).extend == "both"
    assert bar(ax).ax.get_ylabel() == "$\\log_2$ fold change"
    blue, white, red = ax.images[0].cmap([0.1, 0.5, 0.9])[:, :3]
    assert blue[2] > blue[0] + 0.3
    assert red[0] > red[2] + 0.3
    assert white.min() > 0.95


@pytest.mark.parametrize(
    "name", ["n_strata", "target_fraction", "log2_fold_change_seurat", "auroc", "cohens_d", "z"]
)
def test_every_column_can_be_shown(name: str):
    (kind,) = (c.dtype for c in EXTRA_COLUMNS if c.name == name)
    values = np.random.default_rng(9).integers(-9, 9, (5, 60)).astype(kind)
    found = result(5, columns={name: values})
    ax = pl.heatmap(found, value=name, n_features=5)
    t, g = number(rows(ax)), number(genes(ax))
    np.testing.assert_array_equal(cells(ax), values[np.ix_(t, g)])
    low, high = ax.images[0].get_clim()
    middle = {"n_strata": None, "target_fraction": None, "auroc": 0.5}.get(name, 0.0)
    if middle is not None:
        assert low + high == pytest.approx(2.0 * middle)
    assert ax.images[0].cmap.name == ("cividis" if middle is None else "RdBu_r")
    assert bar(ax).ax.get_ylabel() == name


def test_signed_p_values():
    p, less = np.array([[1e-3, 1e-5, 0.0, 1.0]]), np.array([[2.0, 1.0, 3.0, 1.0]])
    columns = {"p_value": p, "target_mean": np.full((1, 4), 2.0), "reference_mean": less}
    found = result(1, 4, columns=columns)
    features = ["GENE00003", "GENE00001"]
    ax = pl.heatmap(found, value="signed_log10_p", features=features)
    assert dict(zip(genes(ax), cells(ax)[0], strict=True)) == {"GENE00003": 0.0, "GENE00001": 5.0}
    ax = pl.heatmap(found, value="signed_log10_p", features=["GENE00002"])
    assert cells(ax)[0, 0] == pytest.approx(-323.3, abs=0.1)
    log10_p = {"log10_p": np.array([[-3.0, -5.0, -300.0, 0.0]])}
    ax = pl.heatmap(
        result(1, 4, columns=columns | log10_p), value="signed_log10_p", features=["GENE00002"]
    )
    assert cells(ax)[0, 0] == -300.0


def test_targets_and_features_asked_for():
    found = result()
    targets = ["GENE00007", "GENE00003", "GENE00007"]
    ax = pl.heatmap(found, targets=targets, features=["GENE00050", "GENE00002", "GENE00050"])
    assert sorted(rows(ax)) == ["GENE00003", "GENE00007"]
    assert sorted(genes(ax)) == ["GENE00002", "GENE00050"]
    assert ax.get_title().startswith("2 genes")
    # Genes are chosen by their hits in what is shown.
    ax = pl.heatmap(found, targets=["GENE00007"])
    assert set(number(genes(ax))) == set(np.flatnonzero(found["fdr"][7] <= 0.05))
    ax = pl.heatmap(found, targets="GENE00007", features="GENE00002")
    assert (rows(ax), genes(ax)) == (["GENE00007"], ["GENE00002"])


def test_best_genes_of_each():
    fdr = np.ones((3, 6))
    fdr[0, [1, 2, 3]], fdr[1, [2, 4]] = [0.03, 0.01, 0.02], [0.04, 0.01]
    found = result(3, 6, columns={"fdr": fdr, "p_value": fdr / 2})
    ax = pl.heatmap(found, best_per=2)
    assert set(number(genes(ax))) == {2, 3, 4}  # 2 is of both, the third has none
    assert ax.get_title() == "the 2 best hits of each perturbation: 3 genes, FDR ≤ 0.05 (marked)"
    assert set(number(genes(pl.heatmap(found, best_per=1)))) == {2, 4}
    assert set(number(genes(pl.heatmap(found, best_per=1, targets=["GENE00001"])))) == {4}
    ax = pl.heatmap(found, best_per=1, fdr=1e-3)
    assert set(number(genes(ax))) == {0, 2, 4}  # without hits: the smallest p-values, the first of
    assert ax.get_title() == "no FDR ≤ 0.001; the 3 genes with the smallest p-values"


def test_without_hits_the_smallest_p_values_decide():
    found = result(columns={"fdr": np.ones((25, 60))})
    ax = pl.heatmap(found, n_features=5)
    strength = -np.log10(found["p_value"]).sum(axis=0)
    assert set(number(genes(ax))) == set(np.argsort(-strength)[:5])
    assert ax.get_title() == "no FDR ≤ 0.05; the 5 genes with the smallest p-values"
    assert not ax.collections


def test_pairs_without_a_value_are_grey():
    kept = np.full((25, 60), True)
    kept[3, 7] = False
    found = result(kept=kept)
    found["fold_change"][4, 8] = np.nan
    # One mean is 0: the ratio is a matter of clipping. Of a hit it is shown.
    found["target_mean"][5:7, 9] = 0.0
    found["fold_change"][5:7, 9] = 1 / 20
    found["fdr"][5:7, 9] = [0.5, 0.01]
    ax = pl.heatmap(found, features=[f"GENE{g:05d}" for g in range(7, 20)])
    t, g = number(rows(ax)), number(genes(ax))
    grey = {(t[i], g[j]) for i, j in zip(*np.nonzero(np.isnan(cells(ax))), strict=True)}
    assert grey == {(3, 7), (4, 8), (5, 9)}
    assert bar(ax).ax.get_ylabel() == "$\\log_2$ fold change (grey: a mean is 0)"
    assert ax.images[0].cmap.get_bad().tolist() == [0.75, 0.75, 0.75, 1.0]


def test_filtered_pairs_have_no_whole_numbers_either():
    kept = np.full((5, 60), True)
    kept[3, 0] = False
    found = result(5, columns={"target_n_cells": np.full((5, 60), 7)})
    columns = {name: found[name] for name in found.columns}
    filtered = DEResult(
        found.targets, found.references, found.features, columns, found.provenance, kept=kept
    )
    ax = pl.heatmap(filtered, value="target_n_cells", features=["GENE00000", "GENE00001"])
    t, g = number(rows(ax)), number(genes(ax))
    assert np.isnan(cells(ax)[t == 3][:, g == 0])
    assert np.nansum(cells(ax)) == 63


def test_infinite_changes_are_as_far_as_any():
    found = result(5, columns={"fold_change": np.full((5, 60), 2.0)})
    found["fold_change"][0, 0] = 0.0
    found["fdr"][:] = 0.01
    ax = pl.heatmap(found, features=["GENE00000", "GENE00001"])
    assert np.unique(cells(ax)).tolist() == [-1.0, 1.0]


@pytest.mark.parametrize("size", [None, (4.0, 4.8)])
def test_names_can_be_read(size: tuple[float, float] | None):
    """Those of 25 perturbations and 50 genes: on axes of the usual size some are left out."""
    ax = None if size is None else plt.subplots(figsize=size, layout="constrained")[1]
    ax = pl.heatmap(result(25, 80, seed=4), fdr=0.9, ax=ax)
    ax.figure.canvas.draw()
    for labels, words in ((ax.get_yticklabels(), ax.get_ylabel()), (ax.get_xticklabels(), "")):
        if not labels:
            continue
        assert words == ""
        assert min(label.get_fontsize() for label in labels) >= 5.5
        boxes = [label.get_window_extent() for label in labels]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
        assert all(box.x0 >= 0.0 and box.y0 >= 0.0 for box in boxes)
    if size is None:
        assert (len(rows(ax)), len(genes(ax))) == (25, 50)
    else:
        assert len(rows(ax)) == 25
        assert genes(ax) == []
        assert ax.get_xlabel() == "50 genes (too many to label)"


def test_long_names_leave_room():
    """Those of perturbations take much of the width: those of genes are apart, or left out."""
    targets = [f"a perturbation's name {t}" for t in range(12)]
    found, left_out = result(12, 60, targets=targets), []
    for n in (10, 24, 36, 60):
        _, ax = plt.subplots(figsize=(6.4, 4.8), layout="constrained")
        pl.heatmap(found, features=found.features[:n], ax=ax)
        ax.figure.canvas.draw()
        left_out.append(not genes(ax))
        boxes = [label.get_window_extent() for label in ax.get_xticklabels()]
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
    assert left_out == [False, False, False, True]


def test_2000_perturbations():
    found = result(2_000, 60)
    ax = pl.heatmap(found)
    ax.figure.canvas.draw()
    assert ax.get_ylabel() == "2,000 perturbations (too many to label)"
    assert rows(ax) == []
    g = number(genes(ax))
    assert len(g) == 50
    wide = cells(ax)
    shown = wide[:, :: wide.shape[1] // 50]
    np.testing.assert_array_equal(np.repeat(shown, wide.shape[1] // 50, axis=1), wide)
    wanted = np.log2(found["fold_change"])[:, g]
    # The same rows, in another order.
    np.testing.assert_array_equal(shown[np.lexsort(shown.T)], wanted[np.lexsort(wanted.T)])
    assert ax.get_xlim() == (-0.5, 49.5)
    assert ax.get_ylim() == (1999.5, -0.5)
    assert not ax.collections  # cells are too small for marks
    assert ax.get_title() == "the 50 genes that most often have FDR ≤ 0.05"
