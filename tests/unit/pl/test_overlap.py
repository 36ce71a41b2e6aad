"""Overlap of hits: which combinations, of how many genes, in which order."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
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


def of_signs(signs: list[str]) -> Any:
    """A result of one row a text: a letter a gene, "+" for a hit up, "-" down, "." for none."""
    letters = np.array([list(row) for row in signs])
    mean = np.where(letters == "+", 2.0, np.where(letters == "-", 0.5, 1.0))
    columns = {
        "target_mean": mean, "reference_mean": np.ones(mean.shape), "fold_change": mean,
        "fdr": np.where(letters == ".", 0.9, 0.01),
    }  # fmt: skip
    return result(*mean.shape, columns=columns)


def columns(ax: Any) -> list[tuple[set[str], tuple[int, int, int]]]:
    """Members of each combination, and its genes up in all, mixed, and down in all."""
    rows = [label.get_text().split("  ")[0] for label in ax.get_yticklabels()]
    _, full, _ = ax.collections
    members: dict[int, set[str]] = {}
    for x, y in full.get_offsets():
        members.setdefault(int(x), set()).add(rows[int(y)])
    heights = np.array([[-bar.get_height() for bar in bars] for bars in ax.containers])
    top = max(int(text.get_text().replace(",", "")) for text in ax.texts)
    unit = heights.sum(axis=0).max() / top
    genes = np.round(heights / unit, 6)
    return [(members[k], tuple(map(int, genes[:, k]))) for k in range(len(members))]


def test_each_gene_is_in_one_combination():
    ax = pl.overlap(of_signs(["+++--..+", "+++-....", "...+.-..", "........"]))
    a, b, c = (f"GENE0000{k}" for k in range(3))
    # Of a size: few perturbations first, then the first rows. Gene 3 is down, down and up.
    assert columns(ax) == [
        ({a, b}, (3, 0, 0)), ({a}, (1, 0, 1)), ({c}, (0, 0, 1)), ({a, b, c}, (0, 1, 0)),
    ]  # fmt: skip
    assert [text.get_text() for text in ax.texts] == ["3", "2", "1", "1"]
    labels = [label.get_text() for label in ax.get_yticklabels()]
    assert labels == [f"{a}  6", f"{b}  4", f"{c}  2"]  # the last has no hits
    assert ax.yaxis_inverted()
    assert ax.get_xlabel() == ""
    assert ax.get_title() == "genes with FDR ≤ 0.05, by the perturbations that share them"
    legend = [text.get_text() for text in ax.get_legend().get_texts()]
    assert legend == ["up in all", "mixed", "down in all"]


def test_chosen_perturbations():
    found = of_signs(["+++--..+", "+++-....", "...+.-..", "........"])
    ax = pl.overlap(found, targets=["GENE00002", "GENE00000"])
    a, c = "GENE00000", "GENE00002"
    assert columns(ax) == [({a}, (4, 0, 1)), ({c}, (0, 0, 1)), ({a, c}, (0, 1, 0))]
    ax = pl.overlap(found, n_targets=1)
    assert columns(ax) == [({a}, (4, 0, 2))]
    ax = pl.overlap(found, n_combinations=1)
    assert columns(ax) == [({a, "GENE00001"}, (3, 0, 0))]
    assert ax.get_xlabel() == "(3 further combinations of 4 genes not drawn)"


def test_counts_are_those_of_sets():
    found = result(300, 60, seed=3)
    ax = pl.overlap(found, n_targets=6, n_combinations=1_000)
    hits = found["fdr"] <= 0.05
    names = {label.get_text().split("  ")[0] for label in ax.get_yticklabels()}
    rows = [t for t in range(300) if str(found.targets[t]) in names]
    n = np.count_nonzero(hits, axis=1)
    assert len(rows) == 6
    assert sorted(n[rows])[0] >= np.sort(n)[-6]
    sets: dict[frozenset[str], int] = {}
    for g in range(60):
        members = frozenset(str(found.targets[t]) for t in rows if hits[t, g])
        if members:
            sets[members] = sets.get(members, 0) + 1
    drawn = columns(ax)
    assert {frozenset(members): sum(genes) for members, genes in drawn} == sets
    sizes = [sum(genes) for _, genes in drawn]
    assert sizes == sorted(sizes, reverse=True)


@pytest.mark.parametrize("n", [3, 25])
def test_numbers_and_names_are_apart(n: int):
    found = result(25, 400, seed=5)
    ax = pl.overlap(found, n_targets=n, fdr=0.9)
    ax.figure.canvas.draw()
    for texts in (ax.texts, ax.get_yticklabels()):
        boxes = [text.get_window_extent() for text in texts]
        assert len(boxes) >= min(n, 5)
        assert not any(a.overlaps(b) for a, b in pairwise(boxes))
        assert all(box.x0 >= 0.0 for box in boxes)
    top = max(text.get_window_extent().y1 for text in ax.texts)
    assert top <= ax.get_legend().get_window_extent().y0 + 1.0


def test_no_hits_say_why():
    ax = pl.overlap(of_signs(["...", "..."]))
    why = "No hits: no FDR is ≤ 0.05; the smallest of 6 tests is 0.9."
    assert [text.get_text() for text in ax.texts] == [why]
    found = of_signs(["...", "..+"])
    ax = pl.overlap(found, targets="GENE00000")
    why = "No hits: no FDR is ≤ 0.05; the smallest of 3 tests is 0.9."
    assert [text.get_text() for text in ax.texts] == [why]
