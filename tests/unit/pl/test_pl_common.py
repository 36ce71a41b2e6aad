"""What all pictures have in common: what they take, return, refuse, and leave as it was."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pl_results import ODD_NAMES, constant, objects, result

from pdex_gpu import DEResult, pl
from pdex_gpu.errors import FileFormatError, LabelError, MissingDependencyError, OptionError
from pdex_gpu.pl.axes import palette, shown

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402
from matplotlib.axes import Axes  # noqa: E402


def small(**options: Any) -> DEResult:
    return result(6, 20, **options)


#: Every picture of a result, of its first target where it needs one.
PICTURES: dict[str, Callable[..., Any]] = {
    "volcano": lambda r, **kw: pl.volcano(r, "GENE00000", **kw),
    "ma": lambda r, **kw: pl.ma(r, "GENE00000", **kw),
    "p_values": pl.p_values,
    "p_values_of_target": lambda r, **kw: pl.p_values(r, "GENE00000", **kw),
    "hits": pl.hits,
    "heatmap": pl.heatmap,
    "dotplot": pl.dotplot,
    "overlap": pl.overlap,
    "on_target": pl.on_target,
}
#: Letters that the usual font has.
DRAWN = set(
    matplotlib.font_manager.get_font(matplotlib.font_manager.findfont("DejaVu Sans")).get_charmap()
)
WITH_FDR = sorted(set(PICTURES) - {"p_values", "p_values_of_target"})


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    plt.close("all")


def texts(ax: Any) -> list[str]:
    """Everything that is written on the axes."""
    found = [t.get_text() for t in ax.findobj(matplotlib.text.Text) if t.get_visible()]
    return [text for text in found if text]


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", PICTURES)
def test_draws_on_new_or_given_axes(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plt, "show", lambda: pytest.fail("a window was shown"))
    before = dict(matplotlib.rcParams)
    ax = PICTURES[name](small())
    assert isinstance(ax, Axes)
    assert plt.get_fignums() == [1]
    assert ax.figure.get_layout_engine() is not None
    ax.figure.canvas.draw()
    _, mine = plt.subplots()
    assert PICTURES[name](small(), ax=mine) is mine
    mine.figure.canvas.draw()
    assert plt.get_fignums() == [1, 2]
    assert dict(matplotlib.rcParams) == before


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", PICTURES)
def test_file_as_memory(name: str, tmp_path: Path):
    kept = np.random.default_rng(1).random((6, 20)) < 0.7
    found = small(kept=kept)
    path = tmp_path / "r.parquet"
    found.to_parquet(path)
    images = []
    for given_as in (found, path):
        ax = PICTURES[name](given_as)
        ax.figure.canvas.draw()
        images.append(np.asarray(ax.figure.canvas.buffer_rgba()).copy())
    np.testing.assert_array_equal(images[0], images[1])  # names are in the same places, too


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", ["volcano", "hits", "heatmap", "dotplot", "overlap"])
def test_works_in_subfigures(name: str):
    figure = plt.figure(figsize=(20, 6), layout="constrained")
    left, right = figure.subfigures(1, 2)
    ax = PICTURES[name](small(), ax=left.subplots())
    assert PICTURES[name](small(), ax=right.subplots()).figure is right
    figure.canvas.draw()
    box, half = ax.get_tightbbox(), left.bbox
    assert half.x0 <= box.x0 < box.x1 <= half.x1


# Bytes seen: 55,689 and 173,182; with a path a point 160,736 and 1,033,024.
@pytest.mark.parametrize(("kind", "largest"), [("pdf", 100_000), ("svg", 400_000)])
def test_vector_formats(kind: str, largest: int, tmp_path: Path):
    """8,000 points are one bitmap there."""
    ax = pl.volcano(result(1, 8_000), "GENE00000")
    ax.figure.savefig(tmp_path / f"v.{kind}")
    assert (tmp_path / f"v.{kind}").stat().st_size < largest


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_no_result_is_refused(name: str, tmp_path: Path):
    import pandas as pd

    for wrong in (pd.DataFrame({"target": ["a"]}), None, 3):
        with pytest.raises(
            OptionError, match=r"Pass the return value of differential_expression\(\)"
        ):
            PICTURES[name](wrong)
    with pytest.raises(OptionError, match=r"pandas.*DataFrame"):
        PICTURES[name](pd.DataFrame())
    with pytest.raises(FileNotFoundError):  # as text, too
        PICTURES[name](str(tmp_path / "none.parquet"))
    with pytest.raises(FileNotFoundError):
        PICTURES[name](tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    with pytest.raises(FileFormatError):
        PICTURES[name](tmp_path / "text.parquet")
    assert plt.get_fignums() == []


@pytest.mark.parametrize("name", PICTURES)
def test_what_is_no_axes_is_refused(name: str):
    for wrong in ("here", plt.figure(), [plt.figure().subplots()]):
        with pytest.raises(OptionError, match="must be matplotlib axes"):
            PICTURES[name](small(), ax=wrong)


@pytest.mark.parametrize("fdr", [0.0, -0.1, 1.5, float("nan"), "0.05", True, None])
@pytest.mark.parametrize("name", WITH_FDR)
def test_bad_fdr(name: str, fdr: Any):
    with pytest.raises(OptionError, match="must be a number above 0 and at most 1"):
        PICTURES[name](small(), fdr=fdr)


@pytest.mark.parametrize(
    ("draw", "says"),
    [
        (lambda r: pl.volcano(r, "GENE00000", n_labels=-1), "n_labels=-1"),
        (lambda r: pl.ma(r, "GENE00000", n_labels=2.0), "n_labels=2.0"),
        (lambda r: pl.p_values(r, n_bins=0), "n_bins=0"),
        (lambda r: pl.hits(r, n=0), "n=0"),
        (lambda r: pl.hits(r, n=True), "n=True"),
        (lambda r: pl.heatmap(r, n_features=0), "n_features=0"),
        (lambda r: pl.heatmap(r, best_per=0), "best_per=0"),
        (lambda r: pl.heatmap(r, best_per=1, n_features=2), "n_features= and best_per= choose"),
        (lambda r: pl.dotplot(r, features="GENE00000", best_per=2), "features= and best_per="),
        (lambda r: pl.dotplot(r, targets=["GENE00000"], n_targets=2), "targets= and n_targets="),
        (lambda r: pl.dotplot(r, n_targets=0), "n_targets=0"),
        (lambda r: pl.overlap(r, n_targets=0), "n_targets=0"),
        (lambda r: pl.overlap(r, n_combinations=0), "n_combinations=0"),
        (lambda r: pl.volcano(r, "GENE00000", min_log2_fold_change=-1), "must be at least 0"),
        (lambda r: pl.ma(r, "GENE00000", min_log2_fold_change="1"), "='1' must be a number"),
        (lambda r: pl.volcano(r, "GENE00000", genes=3), "3 must be a list of names"),
        (lambda r: pl.volcano(r, "GENE00000", colors="red"), "must be a dict"),
        (lambda r: pl.volcano(r, "GENE00000", colors={"upp": "red"}), "Did you mean 'up'"),
        (
            lambda r: pl.volcano(r, "GENE00000", colors={"up": "rde"}),
            "'rde' of 'up' is not a color",
        ),
        (lambda r: pl.heatmap(r, value="log2_fold_chang"), "'log2_fold_change'"),
        (lambda r: pl.heatmap(r, value=3), "Unknown column '3'"),
        (lambda r: pl.heatmap(r, targets=3), "3 must be a list of names"),
        (
            lambda r: pl.calibration(r),
            "takes a Calibration, not a pdex_gpu.results.memory.DEResult",
        ),
    ],
)
def test_bad_options(draw: Callable[[Any], Any], says: str):
    with pytest.raises(OptionError, match=says):
        draw(small())
    assert plt.get_fignums() == []


@pytest.mark.parametrize(
    "draw",
    [
        lambda r: pl.volcano(r, "GENE0000"),
        lambda r: pl.ma(r, "gene00002"),
        lambda r: pl.p_values(r, "GENE0000"),
        lambda r: pl.heatmap(r, targets=["GENE00001", "GENE0000"]),
        lambda r: pl.heatmap(r, features=["GENE00001", "GENE0000"]),
        lambda r: pl.heatmap(r, features=["GENE0000"]),
        lambda r: pl.dotplot(r, targets=["GENE0000"]),
        lambda r: pl.dotplot(r, features=["GENE00001", "GENE0000"]),
        lambda r: pl.overlap(r, targets=["GENE0000"]),
        lambda r: pl.volcano(r, "GENE00000", genes=["GENE0000"]),
    ],
)
def test_unknown_names_have_close_matches(draw: Callable[[Any], Any]):
    with pytest.raises(LabelError, match=r"[Dd]id you mean 'GENE000\d\d'"):
        draw(small())
    assert plt.get_fignums() == []


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.parametrize(("n_targets", "n_genes"), [(0, 20), (6, 0), (0, 0)])
def test_empty_results(name: str, n_targets: int, n_genes: int):
    """Nothing to draw is said in words; only a target that is not there is an error."""
    empty = result(n_targets, n_genes)
    if not n_targets and name in ("volcano", "ma", "p_values_of_target"):
        with pytest.raises(LabelError, match=r"Unknown target 'GENE00000'.*\(0\): none"):
            PICTURES[name](empty)
        return
    ax = PICTURES[name](empty)
    ax.figure.canvas.draw()
    assert [*ax.get_xticks(), *ax.get_yticks()] == []
    written = " ".join(texts(ax))
    if name == "hits" and n_targets:
        assert "0 of 6 perturbations with hits" in written
    else:
        assert any(
            word in written for word in ("has no", "There are no", "No perturbation", "No hits")
        )


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", PICTURES)
def test_nan_everywhere(name: str):
    ax = PICTURES[name](small(columns=constant(np.nan, 6, 20)))
    ax.figure.canvas.draw()
    says = {
        "volcano": "There are no values to draw for 20 genes.",
        "ma": "There are no values to draw for 20 genes.",
        "hits": "0 of 6 perturbations with hits",
        "heatmap": "The result has no genes with a p-value to draw.",
        "dotplot": "The result has no genes with a p-value to draw.",
        "overlap": "No hits: no gene has an adjusted p-value.",
        "on_target": "No perturbation has an own gene to draw.",
    }.get(name, "There are no p-values to draw.")
    assert says in texts(ax)
    assert not ax.collections
    assert not ax.images


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("name", PICTURES)
def test_one_value_everywhere(name: str, value: float):
    ax = PICTURES[name](small(columns=constant(value, 6, 20)))
    ax.figure.canvas.draw()
    for low, high in (ax.get_xlim(), ax.get_ylim()):
        assert np.isfinite([low, high]).all()
        assert low != high


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("name", PICTURES)
def test_odd_names(name: str):
    """None is read as markup, none warns (warnings are errors here), none breaks a line."""
    n = len(ODD_NAMES)
    columns = {"fdr": np.full((n, n), 0.01)}
    odd = result(
        n, n, targets=ODD_NAMES, features=ODD_NAMES, columns=columns,
        references=objects(["$ref_1$ \N{MICROBE}"] * n),
    )  # fmt: skip
    draw = {
        "volcano": lambda r: pl.volcano(r, ODD_NAMES[5], n_labels=n),
        "ma": lambda r: pl.ma(r, ODD_NAMES[5], n_labels=n),
        "p_values_of_target": lambda r: pl.p_values(r, ODD_NAMES[5]),
        "overlap": lambda r: pl.overlap(r, n_targets=n),
    }.get(name, PICTURES[name])
    ax = draw(odd)
    ax.figure.canvas.draw()
    written = [re.sub(r"  \d+$", "", text) for text in texts(ax)]  # hits of rows of an overlap
    if name == "p_values":
        return
    if name in ("volcano", "ma", "p_values_of_target"):
        assert ax.get_title() == "_under^\\frac{a}{b}\\ vs $ref_1$ [U+1F9A0]"
    if name != "p_values_of_target":
        seen = {"a,b;c", "$x_1^2$", "[U+1F9EC] gene", "two lines and a tab", "%d {0}", "$$"}
        # Two clouds have no room for one of the names.
        assert len(seen - set(written)) <= (1 if name in ("volcano", "ma") else 0)
    for text in ax.findobj(matplotlib.text.Text):
        if any(mark in text.get_text() for mark in ("$x_1", "_under", "$ref", "$$")):
            assert not text.get_parse_math()
            assert not text.get_usetex()


@pytest.mark.thorough
@given(st.text(max_size=300), st.integers(5, 60))
def test_shown_names(name: str, limit: int):
    text = shown(name, limit)
    assert 0 < len(text) <= limit
    assert text.isprintable()
    assert {ord(letter) for letter in text} <= DRAWN
    if name and name.isascii() and name.isprintable() and len(name) <= limit:
        assert text == name


def test_long_names_keep_both_ends():
    assert shown("abcdefghijklmnopqrstuvwxyz", 10) == "abcdef…xyz"
    assert shown("", 10) == "''"
    assert shown(7) == "7"


def test_letters_of_further_fonts(monkeypatch: pytest.MonkeyPatch):
    """Letters count as known only if a font of the figure has them."""
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["cmb10", "no such font"])
    assert shown("é") == "[U+00E9]"
    monkeypatch.setitem(matplotlib.rcParams, "font.family", ["cmb10", "DejaVu Sans"])
    assert shown("é") == "é"


@pytest.mark.parametrize("name", PICTURES)
def test_needs_matplotlib(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(MissingDependencyError, match=r"Run: pip install matplotlib textalloc"):
        PICTURES[name](small())


def test_names_need_textalloc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "textalloc", None)
    with pytest.raises(MissingDependencyError, match="or pass n_labels=0"):
        pl.volcano(small(), "GENE00000")
    assert not pl.volcano(small(), "GENE00000", n_labels=0).texts


def test_import_is_light():
    script = "import sys, pdex_gpu.pl\nsys.stdout.write(' '.join(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"matplotlib", "textalloc", "pandas", "anndata", "numba", "pyarrow", "scipy.cluster"}
    assert heavy.isdisjoint(done.stdout.split())


def test_public_names():
    assert set(pl.__all__) == {
        "calibration", "calibration_histogram", "calibration_qq", "dotplot", "heatmap", "hits",
        "ma", "on_target", "overlap", "p_values", "volcano",
    }  # fmt: skip
    assert all(callable(getattr(pl, name)) for name in pl.__all__)


def test_unknown_genes_are_counted():
    """In one error: how many, which, what they could be, and what there is."""
    with pytest.raises(LabelError) as error:
        pl.volcano(small(), "GENE00000", genes=["GENE00001", "GENE0003", "gene00004", "ACTB"])
    assert str(error.value) == (
        "3 of 4 names in the list of genes are not in the result: 'GENE0003', 'gene00004', 'ACTB'. "
        "Instead of 'GENE0003', did you mean 'GENE00013' or 'GENE00003' or 'GENE00019'? Instead of "
        "'gene00004', did you mean 'GENE00004'? The result has 20 genes: 'GENE00000', 'GENE00001', "
        "'GENE00002' ... and 17 more."
    )


def test_completion_offers_plots_alone():
    assert dir(pl) == sorted(pl.__all__)


def test_colours_stand_out_from_the_background():
    """Of the axes, or of the figure where those are transparent."""
    blues = set()
    for face, behind in (("white", "black"), ("black", "white"), ("none", "#222222")):
        ax = plt.subplots(facecolor=behind)[1]
        ax.set_facecolor(face)
        blues.add((face, palette(ax).down))
        pl.hits(small(), ax=ax)
        assert matplotlib.colors.to_hex(ax.patches[0].get_facecolor()) == palette(ax).down.lower()
    assert blues == {("white", "#0072B2"), ("black", "#56B4E9"), ("none", "#56B4E9")}


def test_several_comparisons_of_a_target():
    several = result(
        4,
        targets=["A", "A", "B", "B"],
        references=objects(["c1", "c2", "c1", "c2"]),
        within=("batch", objects(["x", "y", "x", "y"])),
    )
    assert pl.volcano(several, "A", reference="c2").get_title() == "A in y vs c2"
    assert pl.ma(several, "B", within="x").get_title() == "B in x vs c1"
    assert pl.p_values(several, "B", within="x").get_title() == "B in x vs c1"
    with pytest.raises(LabelError, match="compared 2 times"):
        pl.volcano(several, "A")
    names = {t.get_text() for t in pl.hits(several).get_yticklabels()}
    assert names == {"A in x vs c1", "A in y vs c2", "B in x vs c1", "B in y vs c2"}
    ax = pl.heatmap(several, targets="A")
    assert {t.get_text() for t in ax.get_yticklabels()} == {"A in x vs c1", "A in y vs c2"}
