"""Names and labels that users choose: none is lost, merged with another or taken for it."""

from __future__ import annotations

import itertools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pdex_gpu
from pdex_gpu.cli import main
from pdex_gpu.design.naming import joined, level_text, pool_name
from pdex_gpu.errors import LabelError, OptionError, PdexGpuError
from pdex_gpu.results.schema import EXTRA, LABELS, VALUES

N = 96


def screen(**columns: Any) -> ad.AnnData:
    """Cells of A, B and ctrl with these further columns; labels go round, so that all meet."""
    rng = np.random.default_rng(0)
    obs = {"pert": np.array(["A", "B", "ctrl"])[np.arange(N) % 3], **columns}
    frame = pd.DataFrame(obs, index=[f"c{i}" for i in range(N)])
    genes = pd.DataFrame(index=[f"g{j}" for j in range(3)])
    return ad.AnnData(rng.poisson(1.0, (N, 3)).astype(float), obs=frame, var=genes)


def turns(*labels: object) -> np.ndarray:
    """A label for each cell, in turns of three cells."""
    return np.fromiter((labels[i // 3 % len(labels)] for i in range(N)), object)


def compare(data: Any, groupby: Any = ("pert",), **options: Any) -> Any:
    options = {"reference": "ctrl", "progress": False, **options}
    return pdex_gpu.differential_expression(data, list(groupby), **options)


# --- columns of obs that are named like columns of the result -------------------------------


@pytest.mark.parametrize("name", [*LABELS, *VALUES, *EXTRA])
def test_a_level_named_like_a_column_is_refused(name: str):
    """Also where the result has no such column: it may get one later."""
    with pytest.raises(OptionError, match=f"within the levels of '{name}', but .* Rename the col"):
        compare(screen(**{name: turns("T", "NK")}), ["pert", name])


@pytest.mark.parametrize(
    "call",
    [
        lambda path, tmp: compare(path, ["pert", "target"], out=tmp / "r.parquet"),
        lambda path, tmp: pdex_gpu.calibrate(path, ["pert", "target"], reference="ctrl"),
        lambda path, tmp: pdex_gpu.estimate(path, ["pert", "target"], reference="ctrl"),
    ],
)
def test_it_is_refused_before_the_file_is_opened(call: Callable[..., Any], tmp_path: Path):
    with pytest.raises(OptionError, match="within the levels of 'target'"):
        call(tmp_path / "there is no such file.h5ad", tmp_path)


@pytest.mark.parametrize("command", ["run", "estimate", "calibrate"])
def test_it_is_refused_on_the_command_line(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "screen.h5ad"
    screen(target=turns("T", "NK")).write_h5ad(path)
    argv = [command, str(path), "--groupby", "pert", "--groupby", "target", "--reference", "ctrl"]
    if command == "run":
        argv += ["--output", str(tmp_path / "r.parquet")]
    assert main(argv) == 2
    assert "within the levels of 'target'" in " ".join(capsys.readouterr().err.split())
    assert [p.name for p in tmp_path.iterdir()] == ["screen.h5ad"]


def test_a_group_column_may_be_called_target():
    data = screen()
    data.obs = data.obs.rename(columns={"pert": "target"})
    assert compare(data, ["target"]).to_pandas()["target"].unique().tolist() == ["A", "B"]


def test_names_that_differ_in_case_are_different(tmp_path: Path):
    result = compare(screen(Target=turns("T", "NK")), ["pert", "Target"])
    result.to_parquet(tmp_path / "r.parquet")
    table = pd.read_parquet(tmp_path / "r.parquet")
    assert set(table["target"]) == {"A", "B"}
    assert set(table["Target"]) == {"T", "NK"}


# --- several columns of levels --------------------------------------------------------------

FIRST, SECOND = turns("a+b", "a", "x, y", "x"), turns("c", "b+c", "z", "y, z")


def unlike(result: Any) -> None:
    """The four combinations are told apart, each with its own numbers."""
    levels = [("a", "b+c"), ("a+b", "c"), ("x", "y, z"), ("x, y", "z")]
    assert result.within[0] == ("first", "second")
    assert result.within[1].tolist() == [level for level in levels for _ in "AB"]
    for k, level in enumerate(levels):
        assert result.find("B", within=level) == 2 * k + 1
        assert result.find("B", within=list(level)) == 2 * k + 1
        assert result.find("B", within=level_text(level)) == 2 * k + 1
        row = result.top("B", 1, within=level).iloc[0]
        assert (row["first"], row["second"]) == level
    assert len(set(map(result.name, range(8)))) == 8


def test_one_column_a_level(tmp_path: Path):
    data = screen(first=FIRST, second=SECOND)
    result = compare(data, ["pert", "first", "second"], min_fraction=0.5)
    unlike(result)
    expected = pd.DataFrame(result.within[1].tolist(), columns=["first", "second"])
    expected.insert(0, "target", result.targets)
    assert result.kept is not None
    expected = expected.loc[np.nonzero(result.kept)[0]].reset_index(drop=True)

    def same(table: pd.DataFrame) -> None:
        assert list(table.columns)[:5] == ["target", "reference", "first", "second", "feature"]
        found = table[["target", "first", "second"]].astype(object)
        pd.testing.assert_frame_equal(found, expected, check_dtype=False)
        np.testing.assert_array_equal(table["p_value"], result.flat("p_value"))

    same(result.to_pandas())
    result.to_csv(tmp_path / "r.csv")
    same(pd.read_csv(tmp_path / "r.csv", float_precision="round_trip"))
    result.to_parquet(tmp_path / "r.parquet")
    same(pd.read_parquet(tmp_path / "r.parquet"))
    opened = pdex_gpu.open_result(tmp_path / "r.parquet")
    unlike(opened)
    np.testing.assert_array_equal(opened.kept, result.kept)
    same(opened.load().to_pandas())
    obs = result.to_anndata().obs
    assert list(zip(obs["first"], obs["second"], strict=True)) == result.within[1].tolist()
    assert obs.index.is_unique
    out = compare(data, ["pert", "first", "second"], min_fraction=0.5, out=tmp_path / "o.parquet")
    unlike(out)
    unlike(pdex_gpu.open_result(tmp_path / "o.parquet"))


def test_numbers_among_several_levels():
    result = compare(screen(lane=turns(1, 2), kind=turns("x", "x", "y", "y")),
                     ["pert", "lane", "kind"])  # fmt: skip
    assert result.find("B", within=("2", "y")) == result.find("B", within=(2, "y")) == 7
    assert result.to_pandas()["lane"].cat.categories.tolist() == [1, 2]
    with pytest.raises(LabelError, match=r"Unknown within of target 'B': '3, y'\. .*'1, x'"):
        result.find("B", within=(3, "y"))
    with pytest.raises(LabelError, match=r"Unknown within of target 'B': '2'"):
        result.find("B", within="2")


def test_several_levels_in_top_and_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "r.parquet"
    data = screen(first=FIRST, second=SECOND)
    compare(data, ["pert", "first", "second"], out=path)
    argv = ["top", str(path), "B", "--within", "'x, y', z", "--json"]
    assert main(argv) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["within"] == "'x, y', z"
    assert {(row["first"], row["second"]) for row in document["rows"]} == {("x, y", "z")}
    pdex_gpu.open_result(path).report(tmp_path / "r.html")


def test_a_level_column_whose_name_needs_quotes_in_csv(tmp_path: Path):
    name = 'batch, "10x"\n'
    compare(screen(**{name: turns("T", "NK")}), ["pert", name]).to_csv(tmp_path / "r.csv")
    table = pd.read_csv(tmp_path / "r.csv")
    assert table.columns[2] == name
    assert set(table[name]) == {"T", "NK"}


def test_warnings_name_several_levels():
    first = turns("T", "NK")
    first[np.arange(N) % 3 == 0] = "T"
    with pytest.warns(UserWarning, match="left out.*: 'A in NK, b'"):
        compare(screen(first=first, second=turns("b")), ["pert", "first", "second"])
    second = turns("b")
    second[3] = None
    with pytest.raises(LabelError, match="no value in column 'first, second'"):
        compare(screen(first=turns("T"), second=second), ["pert", "first", "second"])


# --- labels joined into one text ------------------------------------------------------------

words = st.text(st.sampled_from("ab+|, '\"\\\n"), max_size=5)
lists = st.lists(words, min_size=1, max_size=3)


@pytest.mark.parametrize("sep", [" + ", " | ", ", "])
@given(one=lists, other=lists)
def test_no_two_lists_share_a_text(sep: str, one: list[str], other: list[str]):
    assert (joined(one, sep) == joined(other, sep)) == (one == other)


def test_all_short_lists_have_texts_of_their_own():
    texts = ["", "a", "+", " ", "'", "a +", "+ a", "a + a", "'a'"]
    every = [x for n in (1, 2, 3) for x in itertools.product(texts, repeat=n)]
    assert len({joined(x, " + ") for x in every}) == len(every)


@given(pool=st.lists(words, min_size=2, max_size=3, unique=True), others=st.lists(words))
def test_a_pool_is_called_like_no_group(pool: list[str], others: list[str]):
    """Others, too, that are called as pools are."""
    others = [*others, joined(pool, " + ")]
    assert pool_name(pool, others) not in others


def test_a_pool_and_a_group_of_its_name():
    data = screen()
    data.obs["pert"] = turns("a", "b", "a + b", "t")
    pooled = compare(data, reference=["a", "b"])
    group = compare(data, reference="a + b")
    assert set(pooled.references) == {"'a' + 'b'"}
    assert set(group.references) == {"a + b"}
    assert pooled.provenance["reference"] == "'a' + 'b'"
    calibration = pdex_gpu.calibrate(data, "pert", reference=["a", "b"], progress=False)
    assert calibration.reference == "'a' + 'b'"


def test_the_rest_and_a_group_of_its_name():
    data = screen()
    data.obs["pert"] = np.array(["rest", "other perturbed", "ctrl"])[np.arange(N) % 3]
    assert set(compare(data, comparison="rest").references) == {"'rest'"}
    assert set(compare(data, comparison="perturbed").references) == {"'other perturbed'"}


def test_plain_pools_are_called_as_ever():
    assert pool_name(["a", "b"], ["a", "b", "c"]) == "a + b"
    assert pool_name([3], []) == 3


def test_references_in_provenance():
    data = screen()
    data.obs["pert"] = turns("a", "b", "a | b", "t")
    options = {"comparison": "each_reference", "groups": ["t"]}
    one = compare(data, reference=["a", "b"], **options).provenance["reference"]
    other = compare(data, reference=["a | b", "b"], **options).provenance["reference"]
    assert (one, other) == ("a | b", "'a | b' | b")


# --- names of comparisons -------------------------------------------------------------------


def test_comparisons_whose_names_would_be_one():
    data = screen(kind=turns("c", "b in c"))
    data.obs["pert"] = np.array(["a in b", "a", "ctrl"])[np.arange(N) % 3]
    result = compare(data, ["pert", "kind"])
    assert [result.name(t) for t in range(4)] == [
        f"'{t}' in '{level}' vs 'ctrl'"
        for t, level in zip(result.targets, result.within[1], strict=True)
    ]
    assert result.to_wide("p_value").index.is_unique
    assert result.to_anndata().obs_names.is_unique


def test_names_are_plain_where_they_can_be():
    result = compare(screen())
    assert [result.name(0), result.name(1)] == ["A", "B"]


# --- labels that differ only in type -------------------------------------------------------

ALIKE = [(1, "1"), (1, 1.0), (True, "True"), (True, 1), (1.5, "1.5"), (0, False)]


def calls() -> dict[str, Callable[[ad.AnnData], Any]]:
    """Entry points, of a screen whose labels in `pert` or `other` are alike."""
    options = {"reference": "ctrl", "progress": False}
    return {
        "groups": lambda a: compare(a, ["other"]),
        "levels": lambda a: compare(a, ["pert", "other"]),
        "strata": lambda a: compare(a, strata="other"),
        "calibrate": lambda a: pdex_gpu.calibrate(a, "other", **options),
        "units": lambda a: pdex_gpu.calibrate(a, "pert", units="other", **options),
        "estimate": lambda a: pdex_gpu.estimate(a, "other", reference="ctrl"),
        "pseudobulk": lambda a: pdex_gpu.pseudobulk(a, ["pert", "other"]),
        "pdex": lambda a: pdex_gpu.pdex(a, "other", reference="ctrl"),
        "parallel": lambda a: pdex_gpu.parallel_differential_expression(
            a, reference="ctrl", groupby_key="other"
        ),
    }


@pytest.mark.parametrize("alike", ALIKE, ids=str)
@pytest.mark.parametrize("name", calls())
def test_labels_that_differ_in_type_alone_are_refused(name: str, alike: tuple[Any, Any]):
    data = screen(other=turns(*alike, "ctrl", None))
    with pytest.raises(LabelError, match="'other' of obs has labels that differ only in type"):
        calls()[name](data)


@pytest.mark.parametrize("raw", [True, False])
def test_categories_that_differ_in_type_alone(raw: bool):
    data = screen(other=pd.Categorical(turns(1, "1", "ctrl"), categories=[1, "1", "ctrl", 7, "7"]))
    data.raw = data
    with pytest.raises(LabelError, match=r"only in type: 1 \(int\) and '1' \(str\)"):
        pdex_gpu.rank_genes_groups(data, "other", use_raw=raw)
    with pytest.raises(LabelError, match="differ only in type"):
        compare(data, ["other"])


def test_labels_of_several_types_that_are_unlike(tmp_path: Path):
    """Categories without a cell do not count."""
    labels = pd.Categorical(turns(1, 2.5, "x", "ctrl"), categories=[1, 2.5, "1", "x", "ctrl"])
    result = compare(screen(other=labels), ["other"])
    assert sorted(result.targets, key=str) == [1, 2.5, "x"]
    result.to_parquet(tmp_path / "r.parquet")
    assert set(pd.read_parquet(tmp_path / "r.parquet")["target"]) == {"1", "2.5", "x"}


def test_text_of_numpy_is_text():
    found = compare(screen(other=turns("a", np.str_("a"), "ctrl", np.str_("ctrl"))), ["other"])
    assert found.targets.tolist() == ["a"]


@pytest.mark.parametrize("asked", [2, 2.0, "2", "2.0"])
def test_whole_numbers_beside_missing_ones(asked: object):
    """Missing labels make floats of whole numbers."""
    data = screen(other=pd.Series(turns(1, 2, None)).astype(float).to_numpy())
    with pytest.warns(UserWarning, match="have no label in 'other'"):
        result = compare(data, ["other"], reference=asked)
    assert (result.targets.tolist(), result.reference) == ([1.0], 2.0)


def test_a_text_is_no_number():
    """Nor is a truth value."""
    for labels, asked in (("1.0", "2.0"), "2"), ((True, False), "1"):
        with pytest.raises(LabelError, match=f"Unknown reference .* '{asked}'"):
            compare(screen(other=turns(*labels)), ["other"], reference=asked)


# --- pseudobulk -----------------------------------------------------------------------------


def test_samples_whose_names_would_be_one():
    """Names are ADPBulk's unless two samples would share one."""
    data = screen(a=turns("x-b.y", "x"), b=turns("z", "y-b.z"))
    bulk = pdex_gpu.pseudobulk(data, ["a", "b"])
    assert bulk.obs_names.tolist() == ["a.'x'-b.'y-b.z'", "a.'x-b.y'-b.'z'"]
    plain = pdex_gpu.pseudobulk(screen(a=turns("x-y"), b=turns("z", "w")), ["a", "b"])
    assert plain.obs_names.tolist() == ["a.x-y-b.w", "a.x-y-b.z"]


@given(
    st.lists(st.tuples(words, words), min_size=2, max_size=4, unique=True),
    st.tuples(words, words).filter(lambda names: names[0] != names[1]),
)
def test_names_of_samples_are_unique(levels: list[tuple[str, str]], columns: tuple[str, str]):
    from pdex_gpu.aggregation.aggregate import Samples

    arrays = [np.fromiter(column, object) for column in zip(*levels, strict=True)]
    none = np.zeros(0, np.int64)
    samples = Samples(none, dict(zip(sorted(columns), arrays, strict=True)), none, none)
    assert len(set(samples.names)) == len(levels)


@pytest.mark.parametrize(
    ("labels", "dtype"),
    [
        ((2, 10, 1), "int64"),
        ((0.5, 1.5), "float64"),
        ((True, False), "bool"),
        (tuple(pd.to_datetime(["2024-01-02", "2023-05-06"])), "datetime64[ns]"),
    ],
)
def test_levels_of_samples_keep_their_type(labels: tuple[Any, ...], dtype: str):
    data = screen(k=pd.Series(turns(*labels)).infer_objects().to_numpy())
    bulk = pdex_gpu.pseudobulk(data, ["k", "pert"])
    assert bulk.obs["k"].cat.categories.dtype == dtype
    assert bulk.obs["k"].cat.categories.tolist() == sorted(labels)


def test_every_refusal_is_one_of_ours():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for call in calls().values():
            with pytest.raises(PdexGpuError):
                call(screen(other=turns(1, "1")))


@pytest.mark.parametrize("zero", [0, 0.0, False, "0", np.int8(0), np.False_])
def test_labels_of_another_type_give_the_columns_own(zero, tmp_path):
    """0.0 and False equal the label 0, but would have other texts in a table and in a file."""
    data = screen(number=np.arange(N) % 3)
    options = {"reference": zero, "groups": [1.0, True, "2"], "progress": False}
    file = pdex_gpu.differential_expression(data, "number", out=tmp_path / "r.csv", **options)
    written = pd.read_csv(file.path)
    table = pdex_gpu.differential_expression(data, "number", **options).to_pandas()
    for name, expected in (("target", [1, 1, 1, 2, 2, 2]), ("reference", [0] * 6)):
        assert written[name].dtype == table[name].cat.categories.dtype == np.int64
        assert written[name].tolist() == table[name].tolist() == expected


# --- names of the result's columns -----------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, pd.Series, pd.Index, iter])
@pytest.mark.parametrize("metric", ["wilcoxon", "t-test"])
def test_columns_in_whatever_holds_their_names(kind: Callable[[Any], Any], metric: str):
    found = compare(screen(), columns=kind(["auroc", "cohens_d"]), metric=metric)
    assert {"auroc", "cohens_d"} <= set(found.columns)
    listed, alone = (compare(screen(), columns=c, metric=metric) for c in (kind(["all"]), "all"))
    assert listed.columns == alone.columns


def test_a_level_of_parts_that_cannot_be_shown_is_refused():
    class Hidden:
        def __repr__(self) -> str:
            raise RuntimeError("no text")

    result = compare(screen(batch=turns("x", "y")), ["pert", "batch"])
    for level in ([Hidden()], (Hidden(), "x"), ((Hidden(),),)):
        with pytest.raises(OptionError, match="within="):
            result.find("A", within=level)
