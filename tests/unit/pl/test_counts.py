"""Pictures that count: hits, p-values, and what is left of each perturbation's own gene."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pl_results import objects, result

from pdex_gpu import pl

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.container import BarContainer  # noqa: E402
from matplotlib.offsetbox import AnchoredOffsetbox, TextArea  # noqa: E402


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def counted(up: list[int], down: list[int], n_genes: int = 60) -> Any:
    """A result with so many hits up and down in each comparison."""
    shape = (len(up), n_genes)
    change, fdr = np.ones(shape), np.ones(shape)
    for t, (more, less) in enumerate(zip(up, down, strict=True)):
        change[t, :more], change[t, more : more + less] = 2.0, 0.5
        fdr[t, : more + less] = 0.05
    columns = {"target_mean": change, "reference_mean": np.ones(shape), "fdr": fdr}
    return result(*shape, columns=columns)


def names(ax: Any) -> list[str]:
    return [label.get_text() for label in ax.get_yticklabels()]


def apart(labels: list[Any]) -> bool:
    """Whether no label of an axis lies on its neighbour."""
    boxes = [label.get_window_extent() for label in labels if label.get_text()]
    return not any(a.overlaps(b) for a, b in pairwise(boxes))


# --- hits ------------------------------------------------------------------------------------


def test_hits_are_bars_of_few():
    ax = pl.hits(counted([1, 5, 0, 2], [2, 4, 0, 7]))
    down, up = (c for c in ax.containers if isinstance(c, BarContainer))
    assert names(ax) == ["GENE00001", "GENE00003", "GENE00000"]  # 9, 9, 3; the other has none
    assert [bar.get_width() for bar in up] == [5, 2, 1]
    assert [bar.get_width() for bar in down] == [-4, -7, -2]
    first, *_, last = (bar.get_y() for bar in up)
    assert first < last
    assert ax.yaxis_inverted()  # the first is on top
    assert [text.get_text() for text in ax.texts] == ["4", "7", "2", "5", "2", "1"]
    assert ax.get_title() == "3 of 4 perturbations with hits"


@pytest.mark.parametrize("n_targets", [1, 25, 35])
def test_names_of_hits_can_be_read(n_targets: int):
    ax = pl.hits(result(n_targets))
    ax.figure.canvas.draw()
    labels = ax.get_yticklabels()
    assert len(labels) == n_targets
    assert apart(labels)
    assert min(label.get_fontsize() for label in labels) >= 5.5
    assert min(label.get_window_extent().x0 for label in labels) >= 0.0


def test_hits_of_many_are_a_curve():
    rng = np.random.default_rng(5)
    up, down = rng.integers(0, 20, 2_000), rng.integers(0, 20, 2_000)
    ax = pl.hits(counted(up.tolist(), down.tolist()))
    order = np.lexsort((np.arange(2_000), -(up + down)))
    order = order[(up + down)[order] > 0]
    assert len(order) < 2_000
    assert ax.get_xlim() == (0.5, len(order) + 0.5)
    above, below, both = (patch.get_data().values for patch in ax.patches[:3])
    np.testing.assert_array_equal(above, up[order])
    np.testing.assert_array_equal(below, -down[order])
    np.testing.assert_array_equal(both, (up + down)[order])
    assert not ax.texts
    (box,) = (found for found in ax.artists if isinstance(found, AnchoredOffsetbox))
    columns = [area.get_text().split("\n") for area in box.findobj(TextArea)]
    strongest = order[: len(columns[0]) - 1]
    assert len(strongest) >= 5
    assert columns[0] == ["strongest", *(f"GENE{t:05d}" for t in strongest)]
    assert columns[1] == ["up", *map(str, up[strongest])]
    assert columns[2] == ["down", *map(str, down[strongest])]
    ax.figure.canvas.draw()
    frame = box.get_window_extent()
    curve = np.column_stack([np.arange(1, len(order) + 1), (up + down)[order]])
    for x, y in ax.transData.transform(curve):
        assert x < frame.x0 or y < frame.y0


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("level", [1, 5, 30])
def test_list_of_the_strongest_covers_no_curve(level: int):
    """Also where all perturbations have as many hits."""
    ax = pl.hits(counted([level] * 1_999 + [0], [level] * 1_999 + [30]))
    ax.figure.canvas.draw()
    (box,) = (found for found in ax.artists if isinstance(found, AnchoredOffsetbox))
    top = ax.transData.transform((0.0, 2.0 * level))[1]
    assert box.get_window_extent().y0 > top


def test_n_strongest():
    ax = pl.hits(counted([1, 5, 0, 2], [0] * 4), n=2)
    assert names(ax) == ["GENE00001", "GENE00003"]
    assert ax.get_title() == "3 of 4 perturbations with hits; top 2 shown"
    many = result(2_000, 30)
    assert len(pl.hits(many, n=20).get_yticks()) == 20
    assert len(pl.hits(many, n=500).patches[0].get_data().values) == 500


def test_hits_without_direction_are_said():
    found = counted([2, 0], [1, 0])
    found["target_mean"][0, 0] = 1.0
    ax = pl.hits(found)
    assert "(1 hit with equal means, not drawn)" in ax.get_xlabel()
    assert ax.get_title() == "1 of 2 perturbations with hits"
    down, up = ax.containers[:2]
    assert [bar.get_width() for bar in up] == [1]
    assert [bar.get_width() for bar in down] == [-1]


def test_hits_follow_fdr_and_filters():
    kept = np.full((2, 60), True)
    kept[0, :3] = False
    plain = counted([5, 1], [0, 0])
    found = result(2, 60, kept=kept, columns={n: plain[n] for n in plain.columns})
    _, up = pl.hits(found).containers[:2]
    assert [bar.get_width() for bar in up] == [2, 1]
    assert pl.hits(plain, fdr=0.049).get_title() == "0 of 2 perturbations with hits"


def test_bars_fill_a_figure_of_their_height():
    for n, height in ((1, 2.4), (5, 2.4), (25, 6.4), (60, 13.4)):
        ax = pl.hits(counted([3] * n, [2] * n))
        assert ax.figure.get_size_inches()[1] == pytest.approx(height)
        assert len(names(ax)) == n
    ax = pl.hits(counted([3] * 61, [2] * 61))
    assert ax.figure.get_size_inches()[1] == pytest.approx(plt.rcParams["figure.figsize"][1])


def test_few_hits_among_many():
    """The curve of the usual long tail takes up the picture: half of the ranks are above a third
    of its height."""
    rng = np.random.default_rng(6)
    up = np.minimum(rng.lognormal(0.5, 1.2, 2_000).astype(int), 60)
    ax = pl.hits(counted(up.tolist(), [0] * 2_000))
    total = np.sort(up[up > 0])[::-1]
    middle, top, zero = ax.transData.transform([[0, total[len(total) // 2]], [0, total[0]], [0, 0]])
    assert (middle - zero)[1] > 0.2 * (top - zero)[1]
    assert [tick for tick in ax.get_yticks() if tick >= 0] == [0, 1, 2, 5, 10, 20, 50]
    ax.figure.canvas.draw()
    assert apart([label for label in ax.get_yticklabels() if label.get_window_extent().y0 > 0])


def test_no_hits_say_why():
    def says(found: Any, **options: Any) -> str:
        ax = pl.hits(found, **options)
        (text,) = ax.texts
        return text.get_text()

    plain = counted([2, 0], [1, 0])
    why = "No hits: no FDR is ≤ 0.01; the smallest of 120 tests is 0.05."
    assert says(plain, fdr=0.01) == why
    plain["target_mean"][:] = 1.0
    assert says(plain) == "3 hits with equal means: neither up nor down."
    nothing = result(2, 60, kept=np.full((2, 60), False))
    assert says(nothing) == "No hits: no gene has an adjusted p-value."


# --- p-values --------------------------------------------------------------------------------


@pytest.mark.thorough
@given(st.integers(0, 2**32), st.integers(1, 40))
def test_histogram_of_p_values(seed: int, n_bins: int):
    p = np.random.default_rng(seed).random((3, 50)) ** 2
    found = result(3, 50, columns={"p_value": p})
    ax = pl.p_values(found, n_bins=n_bins)
    bars = ax.patches[0].get_data()
    np.testing.assert_array_equal(bars.values, np.histogram(p, n_bins, (0, 1))[0])
    np.testing.assert_array_equal(bars.edges, np.linspace(0, 1, n_bins + 1))
    uniform, null = (line.get_ydata()[0] for line in ax.lines)
    assert uniform == 150 / n_bins
    pi0 = min(1.0, np.count_nonzero(p > 0.5) / 75)
    assert null == pi0 * 150 / n_bins
    assert ax.get_ylim()[1] > max(bars.values.max(), uniform)
    assert f"$\\pi_0$ = {pi0:.3f}" in ax.get_legend().get_texts()[2].get_text()
    plt.close(ax.figure)


def test_p_values_of_one_comparison():
    p = np.stack([np.full(60, 0.9), np.full(60, 0.1)])
    found = result(2, columns={"p_value": p})
    ax = pl.p_values(found, "GENE00001", n_bins=10)
    assert ax.patches[0].get_data().values.tolist() == [0, 60, 0, 0, 0, 0, 0, 0, 0, 0]
    assert ax.get_title() == "GENE00001 vs control"
    assert ax.lines[1].get_ydata()[0] == 0.0  # no p-value above 0.5
    (null,) = {line.get_ydata()[0] for line in pl.p_values(found, "GENE00000").lines}
    assert null == 3.0  # none below: as many as can be, not twice as many
    assert pl.p_values(found).get_title() == "all 2 comparisons"


def test_tests_that_say_nothing_are_left_out():
    kept = np.full((1, 60), True)
    kept[0, 50:] = False
    found = result(1, kept=kept)
    for name in ("target_mean", "reference_mean"):
        found[name][0, :5] = 0.0
    found["target_mean"][0, 5] = 0.0  # on one side alone: a test
    found["statistic"][0, 6:9] = np.nan
    found["p_value"][0] = [*[1.0] * 5, 0.1, *[1.0] * 3, *[0.9] * 10, *[0.1] * 31, *[np.nan] * 10]
    ax = pl.p_values(found)
    assert ax.patches[0].get_data().values.sum() == 42
    assert ax.lines[1].get_ydata()[0] == pytest.approx(10 / 21 * 42 / 20)
    assert "(8 tests left out: gene not expressed, or test undefined)" in ax.get_xlabel()


# --- own genes -------------------------------------------------------------------------------


def own(percent: list[float], fdr: list[float], reference: float = 2.0) -> dict[str, np.ndarray]:
    """Columns in which each of the first genes is at so many per cent in its own perturbation."""
    n = len(percent)
    shape = (n, 60)
    columns = {"target_mean": np.full(shape, reference), "fdr": np.full(shape, 1e-9)}
    columns["reference_mean"] = np.full(shape, reference)
    columns["target_mean"][range(n), range(n)] = reference * np.array(percent) / 100.0
    columns["fdr"][range(n), range(n)] = fdr
    return columns


def drawn(ax: Any) -> dict[str, np.ndarray]:
    """Coordinates by the beginning of their label; of triangles with the label of none."""
    return {
        cloud.get_label().split(",")[0].split(":")[0]: np.asarray(cloud.get_offsets())
        for cloud in ax.collections
        if hasattr(cloud, "get_sizes") and len(cloud.get_offsets()) and cloud.get_sizes().size
    }


def test_own_genes_of_few():
    ax = pl.on_target(result(4, columns=own([50, 10, 200, 25], [1e-3, 0.05, 0.01, 0.06])))
    assert names(ax) == ["GENE00001", "GENE00003", "GENE00000", "GENE00002"]
    where = drawn(ax)
    np.testing.assert_allclose(where["less"], [[10, 0], [50, 2]])
    np.testing.assert_allclose(where["other"], [[25, 1]])
    np.testing.assert_allclose(where["more"], [[200, 3]])
    assert ax.get_title() == "own gene of 4 perturbations"
    assert "median 37.5 %" in ax.get_xlabel()
    assert ax.get_xscale() == "log"
    ax.figure.canvas.draw()
    assert "100 %" in [label.get_text() for label in ax.get_xticklabels()]


def test_own_genes_of_25_can_be_read():
    ax = pl.on_target(result(25, columns=own(list(range(10, 35)), [0.01] * 25)))
    ax.figure.canvas.draw()
    assert len(names(ax)) == 25
    assert apart(ax.get_yticklabels())
    low, high = ax.get_xlim()
    assert low < 10 < 100 < high


def test_nothing_left():
    """0 % has no logarithm: it is a triangle beside a tick of its own."""
    ax = pl.on_target(result(3, columns=own([0, 50, 0], [0.9, 0.01, 0.01])))
    ax.figure.canvas.draw()
    zeros = [c for c in ax.collections if len(c.get_paths()[0].vertices) == 4 and c.get_label()]
    edge = ax.get_xticks()[0]
    places = {tuple(place) for c in zeros for place in np.asarray(c.get_offsets())}
    assert places >= {(edge, 0.0), (edge, 1.0)}
    assert ax.get_xlim()[0] < edge < 50.0
    assert ax.get_xticklabels()[0].get_text() == "0 %"
    assert "0 %" not in [label.get_text() for label in ax.get_xticklabels()[1:]]


def test_own_genes_of_many():
    n = 2_000
    rng = np.random.default_rng(7)
    percent, mean = rng.lognormal(3.0, 1.0, n), rng.lognormal(0.0, 1.0, n)
    fdr = rng.random(n) * 0.1
    shape = (n, n + 5)
    columns = {"target_mean": np.ones(shape), "reference_mean": np.ones(shape)}
    columns["fdr"] = np.ones(shape)
    diagonal = (range(n), range(n))
    columns["reference_mean"][diagonal] = mean
    columns["target_mean"][diagonal] = mean * percent / 100.0
    columns["fdr"][diagonal] = fdr
    ax = pl.on_target(result(*shape, columns=columns))
    where = drawn(ax)
    less = (percent < 100) & (fdr <= 0.05)
    order = np.argsort(percent[less])
    wanted = np.column_stack([mean, percent])
    np.testing.assert_allclose(where["less"], wanted[less][order], rtol=1e-12)
    assert len(where["more"]) == np.count_nonzero((percent > 100) & (fdr <= 0.05))
    assert sum(map(len, where.values())) == n
    assert ax.get_xscale() == ax.get_yscale() == "log"
    ax.figure.canvas.draw()
    assert apart(ax.get_yticklabels())


def test_perturbations_without_a_point_are_counted():
    kept = np.full((5, 60), True)
    kept[4, 4] = False
    columns = own([50] * 5, [0.01] * 5)
    columns["reference_mean"][3, 3] = columns["target_mean"][3, 3] = 0.0
    targets = ["GENE00000", "two genes", "no gene", "GENE00003", "GENE00004"]
    ax = pl.on_target(result(5, targets=targets, columns=columns, kept=kept))
    says = "own gene of 1 perturbation (3 without it in the result; 1 not expressed)"
    assert ax.get_title() == says
    assert names(ax) == ["GENE00000"]


def test_own_genes_of_an_on_target_result():
    """The gene that was tested counts, whatever the target is called."""
    kept = np.full((3, 60), False)
    kept[range(3), range(3)] = True
    found = result(
        3,
        targets=["guide 1", "guide 2", "GENE00050"],
        columns=own([50, 20, 80], [0.01] * 3),
        kept=kept,
        provenance={"on_target": "gene"},
    )
    ax = pl.on_target(found)
    np.testing.assert_allclose(drawn(ax)["less"], [[20, 0], [50, 1], [80, 2]])
    assert names(ax) == ["guide 2", "guide 1", "GENE00050"]


def test_first_of_repeated_genes():
    columns = own([50], [0.01])
    features = ["GENE00000"] * 2 + [f"g{k}" for k in range(58)]
    ax = pl.on_target(result(1, columns=columns, features=features))
    np.testing.assert_allclose(drawn(ax)["less"], [[50, 0]])


def test_labels_that_are_no_text():
    found = result(3, targets=objects([1, 2, 3]), features=[str(g) for g in range(60)])
    assert pl.on_target(found).get_title() == "own gene of 3 perturbations"
    assert pl.volcano(found, 2).get_title() == "2 vs control"
