"""Volcano and MA plot: which points are where, and names beside them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from pl_results import result

from pdex_gpu import differential_expression, open_result, pl
from pdex_gpu.errors import LabelError, OptionError
from pdex_gpu.simulate import simulate_screen

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.colors import to_hex  # noqa: E402

TARGET = "GENE00000"
UP, DOWN, OTHER = "#d55e00", "#0072b2", "#adadad"


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def one(**columns: Any) -> dict[str, np.ndarray]:
    """Columns of a single comparison."""
    return {name: np.array([values], np.float64) for name, values in columns.items()}


def points(ax: Any) -> dict[str, np.ndarray]:
    """Coordinates of the points, by colour; of triangles with a `^` behind."""
    found: dict[str, np.ndarray] = {}
    for cloud in ax.collections:
        assert cloud.get_rasterized()
        corners = len(cloud.get_paths()[0].vertices)
        name = to_hex(cloud.get_facecolor()[0]) + ("^" if corners == 4 else "")
        found[name] = np.asarray(cloud.get_offsets())
    return found


def legend(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_volcano_points():
    found = result(
        1,
        6,
        columns=one(
            target_mean=[8, 1, 4, 2, 1, 1],
            reference_mean=[1, 2, 2, 2, 2, 1],
            fold_change=[8, 0.5, 2, 1, 0.5, 1],
            p_value=[1e-8, 1e-4, 1e-2, 1e-5, 0.5, 1],
            fdr=[1e-7, 0.05, 0.051, 1e-4, 0.9, 1],
        ),
    )
    ax = pl.volcano(found, TARGET)
    where = points(ax)
    np.testing.assert_allclose(where[UP], [[3, 8]], rtol=1e-15)
    np.testing.assert_allclose(where[DOWN], [[-1, 4]], rtol=1e-15)  # fdr equal to the limit
    np.testing.assert_allclose(where[OTHER], [[1, 2], [0, 5], [-1, np.log10(2)], [0, 0]])
    line = "FDR ≤ 0.05 up to p = 0.0001"
    assert legend(ax) == ["down, FDR ≤ 0.05: 1", "other: 4", "up, FDR ≤ 0.05: 1", line]
    assert ax.get_xlabel() == "$\\log_2$ fold change"
    assert ax.get_xlim() == (-3.24, 3.24)
    assert ax.get_ylim()[0] < 0.0
    assert ax.get_ylim()[1] > 8.0


def dashed(ax: Any) -> list[float]:
    """Heights of dashed lines."""
    return [line.get_ydata()[0] for line in ax.lines if line.get_linestyle() == "--"]


def test_line_at_the_largest_p_value_that_is_a_hit():
    columns = one(
        target_mean=[2, 2, 2, 2], reference_mean=[1] * 4, fold_change=[2] * 4,
        p_value=[1e-8, 1e-4, 1e-2, 0.5], fdr=[1e-7, 1e-3, 0.06, 0.9],
    )  # fmt: skip
    ax = pl.volcano(result(1, 4, columns=columns), TARGET, n_labels=0)
    assert dashed(ax) == [4.0]
    assert legend(ax)[-1] == "FDR ≤ 0.05 up to p = 0.0001"
    assert dashed(pl.volcano(result(1, 4, columns=columns), TARGET, fdr=1.0)) == [-np.log10(0.5)]
    columns["fdr"][0, 1] = 0.07  # of a family of its own
    columns["fdr"][0, 2] = 0.01
    for fdr in (1e-9, 0.05):  # no hit, others among the hits
        assert not dashed(pl.volcano(result(1, 4, columns=columns), TARGET, fdr=fdr))


FAMILIES = {
    "target_mean": [[2, 2, 2], [2, 2, 2]], "reference_mean": np.ones((2, 3)),
    "fold_change": np.full((2, 3), 2.0),
    "p_value": [[1e-30, 1e-20, 0.5], [1e-3, 2e-3, 0.4]],
    "fdr": [[1e-29, 1e-19, 0.5], [3e-3, 3e-3, 0.5]],
}  # fmt: skip


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    ("scope", "line", "what"),
    [
        ("all", -np.log10(2e-3), "FDR ≤ 0.05 up to p = 0.002 (over all comparisons)"),
        (None, -np.log10(2e-3), "FDR ≤ 0.05 up to p = 0.002 (over all comparisons)"),
        ("target", 20.0, "FDR ≤ 0.05 up to p = 1.0e-20 (this comparison)"),
        ("gene", None, None),
    ],
)
@pytest.mark.parametrize("stored", [False, True])
def test_line_of_what_was_adjusted_together(
    scope: str | None, line: float | None, what: str | None, stored: bool, tmp_path: Any
):
    columns = {name: np.array(values, np.float64) for name, values in FAMILIES.items()}
    provenance = {} if scope is None else {"fdr_scope": scope}
    found: Any = result(2, 3, columns=columns, provenance=provenance)
    if stored:
        found.to_parquet(tmp_path / "r.parquet")
        found = tmp_path / "r.parquet"
    ax = pl.volcano(found, TARGET)
    assert dashed(ax) == ([] if line is None else [pytest.approx(line, rel=1e-15)])
    assert (what in legend(ax)) == (what is not None)


def test_line_above_a_comparison_without_hits():
    """It is where hits would be, within the picture."""
    columns = {name: np.array(values, np.float64) for name, values in FAMILIES.items()}
    columns["p_value"][1], columns["fdr"][1] = 0.5, 0.6
    ax = pl.volcano(result(2, 3, columns=columns, provenance={"fdr_scope": "all"}), "GENE00001")
    assert dashed(ax) == [20.0]
    assert ax.get_ylim()[1] > 20.0


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("method", ["benjamini-hochberg", "bonferroni", "benjamini-yekutieli"])
@pytest.mark.parametrize("scope", ["all", "target"])
def test_line_parts_hits_from_others(method: str, scope: str):
    """Of a real result: every hit is on the line or above, every other gene below."""
    found = differential_expression(
        simulate_screen(900, 80, 4, seed=3).to_anndata(), "target_gene",
        fdr_method=method, fdr_scope=scope, progress=False,
    )  # fmt: skip
    for t, target in enumerate(found.targets):
        (line,) = dashed(pl.volcano(found, target, n_labels=0))
        score, hit = -np.log10(found["p_value"][t]), found["fdr"][t] <= 0.05
        assert hit.any()
        np.testing.assert_array_equal(score >= line, hit)
        assert (line in score) or scope == "all"


def negative(n: int = 2, n_genes: int = 6, **more: Any) -> Any:
    """A result of values below 0: no ratios. By the means, genes 0, 2 and 4 are up, others down."""
    shape = (n, n_genes)
    sign = np.where(np.arange(n_genes) % 2, -1.0, 1.0)
    columns = {
        "target_mean": np.broadcast_to(-1.0 + sign * (1 + np.arange(n_genes)), shape).copy(),
        "reference_mean": np.full(shape, -1.0), "fold_change": np.full(shape, np.nan),
        "percent_change": np.full(shape, np.nan), "fdr": np.full(shape, 1e-3),
        "p_value": np.full(shape, 1e-4),
    }  # fmt: skip
    return result(n, n_genes, columns=columns, **more)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("provenance", [{}, {"negative_values": True}])
@pytest.mark.parametrize("stored", [False, True])
def test_mean_differences_where_values_are_negative(
    provenance: dict[str, Any], stored: bool, tmp_path: Any
):
    found: Any = negative(provenance=provenance)
    if stored:
        found.to_parquet(tmp_path / "r.parquet")
        found = open_result(tmp_path / "r.parquet")
    ax = pl.volcano(found, TARGET)
    assert ax.get_xlabel() == "mean difference"
    np.testing.assert_array_equal(points(ax)[UP][:, 0], [1, 3, 5])
    np.testing.assert_array_equal(points(ax)[DOWN][:, 0], [-2, -4, -6])
    ax = pl.ma(found, TARGET)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("mean of both sides", "mean difference")
    assert ax.get_xscale() == "linear"
    np.testing.assert_array_equal(points(ax)[UP], [[-0.5, 1], [0.5, 3], [1.5, 5]])
    ax = pl.heatmap(found)
    assert {axes.get_ylabel() for axes in ax.figure.axes} >= {"mean difference"}
    assert sorted(ax.images[0].get_array()[0].tolist()) == [-6, -4, -2, 1, 3, 5]
    rows = found.top(TARGET, 6)
    assert rows["mean_difference"].tolist() == [-6, 5, -4, 3, -2, 1]
    assert [name[-1] for name in rows["feature"]] == list("543210")
    ax = pl.on_target(found)
    assert ax.get_xlabel() == "mean difference (median -0.5)"
    assert ax.get_xscale() == "linear"


def test_ratios_where_no_value_is_negative():
    """No row has a ratio, and yet the log2 fold change is what is asked for."""
    ax = pl.volcano(negative(provenance={"negative_values": False}), TARGET)
    assert ax.get_xlabel().startswith("$\\log_2$ fold change")
    assert "mean_difference" not in negative(provenance={"negative_values": False}).top(TARGET)
    some = negative()
    some["fold_change"][1, 5] = 2.0
    assert pl.volcano(some, TARGET).get_xlabel().startswith("$\\log_2$ fold change")
    nothing = result(2, 3, columns=dict.fromkeys(
        ("fold_change", "target_mean", "reference_mean"), np.full((2, 3), np.nan)
    ))  # fmt: skip
    assert pl.volcano(nothing, TARGET).get_xlabel().startswith("$\\log_2$ fold change")


def test_log10_p_goes_beyond_floats():
    columns = one(p_value=[0, 0, 1e-4], log10_p=[-900.5, -400.0, -4.0], fdr=[0, 0, 1e-3])
    change = one(target_mean=[2, 1, 2], reference_mean=[1, 2, 1], fold_change=[2, 0.5, 2])
    ax = pl.volcano(result(1, 3, columns=columns | change), TARGET)
    np.testing.assert_array_equal(points(ax)[UP], [[1, 900.5], [1, 4]])
    np.testing.assert_array_equal(points(ax)[DOWN], [[-1, 400]])
    assert ax.get_ylim()[1] > 900.5


def test_p_values_of_0_without_logarithm():
    """They are at the edge, above the smallest number there is, and marked."""
    columns = one(
        p_value=[0, 0, 5e-324, 1e-4, 0.5], fdr=[0, 0, 0, 1e-3, 0.9],
        target_mean=[2, 1, 2, 2, 1], reference_mean=[1, 2, 1, 1, 1],
        fold_change=[2, 0.5, 2, 2, 1],
    )  # fmt: skip
    ax = pl.volcano(result(1, 5, columns=columns), TARGET)
    where = points(ax)
    top = where[UP + "^"][0, 1]
    assert 323.3 < top < ax.get_ylim()[1]
    np.testing.assert_array_equal(where[UP + "^"], [[1, top]])
    np.testing.assert_array_equal(where[DOWN + "^"], [[-1, top]])
    np.testing.assert_allclose(where[UP], [[1, -np.log10(5e-324)], [1, 4]])
    assert "p = 0 (below 1e-323): 2" in legend(ax)
    assert "up, FDR ≤ 0.05: 3" in legend(ax)


def test_genes_without_fold_change_are_counted():
    columns = one(
        target_mean=[0, 3, 0, 2, 0], reference_mean=[0, 0, 4, 1, 5],
        fold_change=[np.nan, np.nan, 0, 2, 0], p_value=[1, 1e-4, 1e-5, 1e-3, 0.5],
        fdr=[1, 1e-3, 1e-4, 1e-2, 0.9],
    )  # fmt: skip
    for draw in (pl.volcano, pl.ma):
        ax = draw(result(1, 5, columns=columns), TARGET)
        assert sum(map(len, points(ax).values())) == 1
        assert "(4 genes " in ax.get_xlabel()
        assert "not drawn, 2 of them with FDR ≤ 0.05)" in ax.get_xlabel()


def test_clipped_changes_are_said():
    columns = one(
        target_mean=[0, 3, 0, 2], reference_mean=[1, 0, 0, 1], fold_change=[1 / 20, 20, 1, 2]
    )
    for draw in (pl.volcano, pl.ma):
        ax = draw(result(1, 4, columns=columns), TARGET)
        assert "(2 genes with one mean of 0 drawn at ±4.32)" in ax.get_xlabel()


def test_ma_points():
    columns = one(
        target_mean=[8, 1, 4, 0], reference_mean=[2, 2, 4, 0], fold_change=[4, 0.5, 1, 1],
        p_value=[1e-8, 1e-4, 0.5, 1], fdr=[1e-7, 0.01, 0.9, 1],
    )  # fmt: skip
    ax = pl.ma(result(1, 4, columns=columns), TARGET)
    where = points(ax)
    np.testing.assert_array_equal(where[UP], [[5, 2]])
    np.testing.assert_array_equal(where[DOWN], [[1.5, -1]])
    np.testing.assert_array_equal(where[OTHER], [[4, 0]])
    assert ax.get_xscale() == "log"
    assert "(1 gene not expressed, not drawn)" in ax.get_xlabel()
    low, high = ax.get_xlim()
    assert low < 1.5 < 5 < high
    assert ax.get_ylim() == (-2.16, 2.16)


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_filtered_genes_are_not_drawn(draw: Any):
    kept = np.full((3, 60), True)
    kept[0, :50] = False
    ax = draw(result(3, 60, kept=kept), TARGET)
    assert sum(map(len, points(ax).values())) == 10
    assert "not drawn" not in ax.get_xlabel()
    kept[0] = False
    ax = draw(result(3, 60, kept=kept), TARGET)
    assert "the filters removed all of them" in ax.texts[0].get_text()


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_nothing_significant(draw: Any):
    ax = draw(result(1, 60, columns={"fdr": np.ones((1, 60))}), TARGET)
    assert {name: len(where) for name, where in points(ax).items() if len(where)} == {OTHER: 60}
    why = "No hits: no FDR is ≤ 0.05; the smallest of 60 tests is 1."
    assert [text.get_text() for text in ax.texts] == [why]
    ax.figure.canvas.draw()
    box = ax.texts[0].get_window_extent()
    assert not [y for x, y in ax.transData.transform(points(ax)[OTHER]) if y > box.y0]


def test_names_are_those_of_the_smallest_p_values():
    rng = np.random.default_rng(3)
    p = rng.permutation(10.0 ** -np.arange(40, dtype=np.float64))[None]
    ax = pl.volcano(result(1, 40, columns={"p_value": p, "fdr": p}), TARGET, n_labels=7)
    wanted = {f"GENE{g:05d}" for g in np.argsort(p[0])[:7]}
    assert {text.get_text() for text in ax.texts} == wanted
    ax = pl.volcano(result(1, 40, columns={"p_value": p, "fdr": p}), TARGET, fdr=1e-37)
    assert {text.get_text() for text in ax.texts} == {
        f"GENE{g:05d}" for g in np.argsort(p[0])[:3]
    }  # fewer than may be named: hits alone are
    assert not pl.volcano(result(1, 40), TARGET, n_labels=0).texts


def test_equal_p_values_are_told_apart_by_the_change():
    columns = one(fold_change=[2, 8, 4], p_value=[0] * 3, fdr=[0] * 3)
    ax = pl.volcano(result(1, 3, columns=columns), TARGET, n_labels=2)
    assert {text.get_text() for text in ax.texts} == {"GENE00001", "GENE00002"}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize(("n_labels", "least"), [(10, 7), (40, 22)])  # as seen in 8 seeds
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_names_cover_nothing(draw: Any, seed: int, n_labels: int, least: int):
    """None lies on another, on a point, or beyond the figure; most find room."""
    ax = draw(result(1, 2_000, seed=seed), TARGET, n_labels=n_labels)
    ax.figure.canvas.draw()
    boxes = [text.get_window_extent() for text in ax.texts]
    assert least <= len(boxes) <= n_labels
    frame = ax.figure.bbox
    for k, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[:k])
        assert frame.x0 <= box.x0 < box.x1 <= frame.x1
        assert frame.y0 <= box.y0 < box.y1 <= frame.y1
    for x, y in ax.transData.transform(np.concatenate(list(points(ax).values()))):
        assert not any(box.x0 < x < box.x1 and box.y0 < y < box.y1 for box in boxes)


def test_names_do_not_move_between_calls():
    places = []
    for _ in range(2):
        ax = pl.volcano(result(1, 2_000), TARGET, n_labels=20)
        places.append([(text.get_text(), *text.get_position()) for text in ax.texts])
    assert places[0] == places[1]


def test_no_room_for_names(capfd):
    """On tiny axes there is none, and nothing is printed about it."""
    _, ax = plt.subplots(figsize=(1.0, 1.0))
    pl.volcano(result(1, 60, features=["N" * 90] * 60), TARGET, n_labels=30, ax=ax)
    ax.figure.canvas.draw()
    assert not [text for text in ax.texts if "NNN" in text.get_text()]
    assert capfd.readouterr() == ("", "")


def test_legend_lies_between_axes_and_title():
    for width in (2.5, 6.4):
        _, ax = plt.subplots(figsize=(width, 4.8), layout="constrained")
        pl.volcano(result(), TARGET, ax=ax)
        ax.figure.canvas.draw()
        frame, legend_box, title = (
            part.get_window_extent() for part in (ax, ax.get_legend(), ax.title)
        )
        assert frame.y1 <= legend_box.y0 + 2
        assert legend_box.y1 <= title.y0 + 2
        assert title.y1 <= ax.figure.bbox.y1


# --- chosen genes, cut-offs and colours


CHOICE = one(
    target_mean=[8, 1, 4, 2, 0], reference_mean=[1, 2, 2, 1.9, 0],
    fold_change=[8, 0.5, 2, 2 / 1.9, np.nan], p_value=[1e-8, 1e-4, 1e-3, 1e-5, np.nan],
    fdr=[1e-7, 1e-3, 1e-2, 1e-4, np.nan],
)  # fmt: skip


def written(ax: Any) -> list[str]:
    return [text.get_text() for text in ax.texts]


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_chosen_genes_are_ringed_and_named(draw: Any):
    """Hits or not; and no others, unless these are asked for."""
    names = list("ABCDE")
    found = result(1, 5, columns=CHOICE, features=names)
    ax = draw(found, TARGET, genes=["C", "B", "C"], fdr=1e-5)
    assert written(ax) == ["C", "B"]
    (rings,) = (cloud for cloud in ax.collections if cloud.get_gid() == "chosen")
    places = {"volcano": [[1, 3], [-1, 4]], "ma": [[3, 1], [1.5, -1]]}[draw.__name__]
    np.testing.assert_allclose(rings.get_offsets(), places)
    assert written(draw(found, TARGET, genes="D", n_labels=2)) == ["D", "A"]
    assert set(written(draw(found, TARGET, genes=[], n_labels=2))) == {"A", "D"}


def test_chosen_genes_without_a_point_are_said():
    ax = pl.volcano(result(1, 5, columns=CHOICE, features=list("ABCDE")), TARGET, genes=["E", "A"])
    assert written(ax) == ["A"]
    assert ax.get_xlabel().endswith("\n(chosen, not drawn: E)")
    found = result(1, 5, columns=CHOICE, features=[*"ABCD", "$x_"])
    ax = pl.volcano(found, TARGET, genes=["$x_", "A"])
    assert ax.get_xlabel().endswith("\n(chosen, not drawn: \\$x_)")
    ax.figure.canvas.draw()  # not as a formula


def test_chosen_genes_are_named_without_room():
    """All of 60 in a small figure, where hits would lose their names."""
    found = result(1, 60, features=[f"a long name of gene {g}" for g in range(60)])
    few, all_of_them = ({}, {"genes": found.features})
    for how, n in ((few | {"n_labels": 60, "fdr": 1.0}, 60), (all_of_them, 60)):
        _, ax = plt.subplots(figsize=(3.0, 3.0), layout="constrained")
        pl.volcano(found, TARGET, ax=ax, **how)
        assert (len(written(ax)) == n) == (how == all_of_them)


def test_symbols_of_chosen_genes():
    symbols = np.array(["IRF1", "GBP2", "TBCE", "TBCE", "MYC"], object)
    found = result(1, 5, columns=CHOICE, features=[f"ENSG{g}" for g in range(5)], symbols=symbols)
    ax = pl.volcano(found, TARGET, genes=["GBP2", "ENSG0", "TBCE (ENSG3)"])
    assert set(written(ax)) == {"GBP2", "IRF1", "TBCE (ENSG3)"}
    with pytest.raises(LabelError, match="2 genes have the symbol 'TBCE'"):
        pl.volcano(found, TARGET, genes=["GBP2", "TBCE"])


@pytest.mark.parametrize("draw", [pl.volcano, pl.ma])
def test_hits_need_both_cut_offs(draw: Any):
    found = result(1, 5, columns=CHOICE)
    ax = draw(found, TARGET, min_log2_fold_change=1, n_labels=0)
    assert {name: len(where) for name, where in points(ax).items()} == {UP: 2, DOWN: 1, OTHER: 1}
    cuts = [line for line in ax.lines if line.get_linestyle() == ":"]
    at = [(line.get_xdata() if draw is pl.volcano else line.get_ydata())[0] for line in cuts]
    assert at == [-1.0, 1.0]  # and a size equal to the limit is a hit
    assert legend(ax)[:3] == ["down: 1", "other: 1", "up: 2"]
    assert legend(ax)[-1] == "hits: FDR ≤ 0.05, |$\\log_2$ FC| ≥ 1"
    ax = draw(found, TARGET, min_log2_fold_change=1.1, fdr=1e-2)
    assert {name: len(where) for name, where in points(ax).items()} == {UP: 1, DOWN: 0, OTHER: 3}
    assert written(ax) == ["GENE00000"]  # hits alone are named
    ax = draw(found, TARGET, min_log2_fold_change=5)
    assert written(ax) == ["No hits: 4 genes have FDR ≤ 0.05, but none |$\\log_2$ FC| ≥ 5."]


def test_fold_changes_where_there_are_none():
    with pytest.raises(OptionError, match=r"min_log2_fold_change=1 does not go with this result"):
        pl.volcano(negative(), TARGET, min_log2_fold_change=1)
    assert plt.get_fignums() == []


def test_chosen_colours():
    found = result(1, 5, columns=CHOICE)
    ax = pl.volcano(found, TARGET, colors={"up": "green", "other": "#112233"}, fdr=1e-3)
    assert set(points(ax)) == {"#008000", DOWN, "#112233"}
