"""The table of dots: which pairs, colours, sizes and rings."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pl_results import result

from pdex_gpu import pl

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def table(ax: Any) -> tuple[np.ndarray, np.ndarray]:
    """Positions of comparisons and genes, in the order of rows and columns."""
    found = []
    for labels in (ax.get_yticklabels(), ax.get_xticklabels()):
        found.append(np.array([int(label.get_text().removeprefix("GENE")) for label in labels]))
    return found[0], found[1]


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def with_fractions(n: int = 6, n_genes: int = 20, largest: float = 1.0) -> Any:
    fraction = np.random.default_rng(4).random((n, n_genes)) * largest
    return result(n, n_genes, columns={"target_fraction": fraction})


def test_dots_are_fraction_and_effect():
    found = with_fractions()
    ax = pl.dotplot(found)
    t, g = table(ax)
    assert sorted(t) == list(range(6))
    (dots,) = ax.collections
    n = len(g)
    np.testing.assert_array_equal(
        dots.get_offsets(), [[k % n, k // n] for k in range(6 * n)]
    )  # row by row
    some = np.ix_(t, g)
    np.testing.assert_array_equal(dots.get_array(), np.log2(found["fold_change"])[some].ravel())
    fraction = found["target_fraction"][some].ravel()
    np.testing.assert_allclose(dots.get_sizes() / dots.get_sizes().max(), fraction / fraction.max())
    ringed = np.array(dots.get_linewidths()) > 0.5
    np.testing.assert_array_equal(ringed, (found["fdr"][some] <= 0.05).ravel())
    assert ringed.any()
    low, high = dots.get_clim()
    assert low == -high
    assert legend(ax) == ["20 %", "60 %", "100 %"]
    heading = ax.get_legend().get_title().get_text()
    assert heading == "fraction of cells that express the gene; ringed: FDR ≤ 0.05"


def test_small_fractions_have_a_scale_of_their_own():
    ax = pl.dotplot(with_fractions(largest=0.09))
    assert legend(ax) == ["2 %", "6 %", "10 %"]


def test_without_fractions_sizes_are_significance():
    fdr = np.ones((3, 4))
    fdr[0] = [1e-5, 1e-10, 1e-300, 0.0]
    ax = pl.dotplot(result(3, 4, columns={"fdr": fdr, "p_value": fdr}), n_features=4)
    t, g = table(ax)
    sizes = ax.collections[0].get_sizes().reshape(3, 4)[np.ix_(np.argsort(t), np.argsort(g))]
    np.testing.assert_allclose(sizes[0] / sizes.max(), [0.5, 1.0, 1.0, 1.0])
    assert not sizes[1:].any()
    assert legend(ax) == ["$10^{-2}$", "$10^{-6}$", "$10^{-10}$ or less"]


def test_dots_do_not_touch():
    """Nor do they in a table that is too large for its figure."""
    for found, options in (
        (with_fractions(30, 60), {}),
        (with_fractions(200, 60), {"n_targets": 200}),
    ):
        ax = pl.dotplot(found, **options)
        ax.figure.canvas.draw()
        sides = ax.transData.transform([[0, 0], [1, 1]])
        points = np.abs(sides[1] - sides[0]).min() * 72.0 / ax.figure.dpi
        assert np.sqrt(ax.collections[0].get_sizes().max()) < points


def test_comparisons_with_the_most_hits():
    fdr = np.ones((4, 5))
    fdr[2, :3], fdr[1, :2], fdr[3, :1] = 0.01, 0.01, 0.01
    found = result(4, 5, columns={"fdr": fdr})
    ax = pl.dotplot(found, n_targets=2)
    assert set(table(ax)[0]) == {1, 2}
    assert ax.get_title() == ("the 3 genes that most often have FDR ≤ 0.05; 2 perturbations of 4")
    assert set(table(pl.dotplot(found, targets=["GENE00000", "GENE00003"]))[0]) == {0, 3}
    assert set(table(pl.dotplot(found, features=["GENE00004", "GENE00002"]))[1]) == {2, 4}
    assert set(table(pl.dotplot(found, best_per=5))[1]) == {0, 1, 2}


def test_2000_perturbations():
    ax = pl.dotplot(result(2_000, 60))
    assert len(table(ax)[0]) == len(table(ax)[1]) == 30
    assert ax.get_title().endswith("; 30 perturbations of 2,000")


def test_pairs_without_a_value_are_grey():
    found = with_fractions(3, 4)
    found["target_mean"][1, 2] = found["reference_mean"][1, 2] = 0.0
    found["fdr"][1, 2] = 1.0
    ax = pl.dotplot(found, features=found.features)
    t, g = table(ax)
    dots = ax.collections[0]
    ax.figure.canvas.draw()
    at = int(np.flatnonzero(t == 1)[0]) * 4 + int(np.flatnonzero(g == 2)[0])
    np.testing.assert_allclose(dots.get_facecolor()[at], [0.75, 0.75, 0.75, 1.0])


def test_small_changes_are_close_to_the_background():
    for style, name, middle in (("default", "RdBu_r", 0.95), ("dark_background", "on_dark", 0.2)):
        with plt.style.context(style):
            colours = pl.dotplot(with_fractions()).collections[0].cmap
        assert colours.name == name
        np.testing.assert_allclose(colours(0.5)[:3], middle, atol=0.03)
