"""Classes of ties from what is known of them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import rankdata

from pdex_gpu.stats.conditional.score_classes import MOST_CLASSES, list_classes


def classes(sizes: list[int], lowest: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Scores and cells of classes of given sizes, zeros first, of which only some are known."""
    total = float(sum(sizes))
    ties = float(sum(t**3 - t for t in sizes))
    scores, cells = np.zeros((2, MOST_CLASSES))
    known = np.array(lowest, float)
    n = list_classes(total, total - sizes[0], ties, known, scores, cells)
    return scores[:n], cells[:n]


@pytest.mark.parametrize(
    ("sizes", "n_known"),
    [([5, 4, 3, 2, 1], 4), ([5, 4, 3, 6], 2), ([0, 7, 2], 2), ([9, 3, *[1] * 20], 1), ([4, 6], 0)],
)
def test_known_patterns_are_exact(sizes: list[int], n_known: int) -> None:
    scores, cells = classes(sizes, [*sizes[1 : n_known + 1], *[0] * (4 - n_known)][:4])
    values = np.repeat(np.arange(len(sizes)), sizes)
    expected = np.unique(2.0 * rankdata(values) / (sum(sizes) + 1), return_counts=True)
    np.testing.assert_allclose(scores, expected[0], rtol=1e-14)
    np.testing.assert_array_equal(cells, expected[1])


def test_unknown_ties_have_their_sum_nearly() -> None:
    sizes = [30, 9, 8, 7, 6, *[4] * 5, *[5] * 4]
    _, cells = classes(sizes, sizes[1:5])
    assert cells.sum() == sum(sizes)
    found, ties = ((np.array(its) ** 3 - its).sum() for its in (cells[5:], sizes[5:]))
    assert found == pytest.approx(ties, rel=0.05)


def test_many_cells_are_merged() -> None:
    scores, cells = classes([100_000, *[1] * 1_000_000], [1, 1, 1, 1])
    assert len(cells) < 320
    assert cells.sum() == 1_100_000
    assert (np.diff(scores) > 0.0).all()
    assert (scores @ cells) / cells.sum() == pytest.approx(1.0, rel=1e-12)
    below = np.cumsum(cells[1:]) - cells[1:]
    above = 1_000_000 - below - cells[1:]
    assert (cells[1:] <= np.maximum(np.minimum(below, above + cells[1:]) / 12.0, 1.0)).all()
