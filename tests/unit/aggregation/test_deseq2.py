"""pseudobulk_dex against pdex 0.1.28, and against pydeseq2 called by hand."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from pdex_truth import CALLS, GROUPBY, NUMBERS, TRUTH, screen
from scipy import sparse

import pdex_gpu.aggregation.deseq2
from pdex_gpu import pseudobulk_dex
from pdex_gpu.aggregation.aggregate import find_samples
from pdex_gpu.aggregation.deseq2_model import Model, make_model
from pdex_gpu.errors import (
    ColumnError,
    DataError,
    LabelError,
    LayerError,
    MissingDependencyError,
    MissingLabelWarning,
    OptionError,
    UnknownGroupWarning,
)
from pdex_gpu.sources.options import DataOptions

# pydeseq2 says so where genes are few or samples differ by chance alone.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The dispersion trend curve fitting did not converge"
)


@pytest.fixture(scope="module", autouse=True)
def pydeseq2() -> Any:
    return pytest.importorskip("pydeseq2")


@pytest.fixture
def adata() -> ad.AnnData:
    """The screen, with few genes: fitting takes long."""
    return screen()[:, :30].copy()


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("name", CALLS)
def test_as_pdex(name: str):
    """The columns, rows and numbers of pdex 0.1.28, on other versions of numpy and pandas.

    Worst relative error seen with pydeseq2 0.5.2 and 0.5.4: 4.1e-10 (a p-value).
    """
    truth = np.load(TRUTH)
    # pdex fits a slope to columns of numbers, which are categories here.
    slope = {"design": "~I(batch) + arm"} if name == "number" else {}
    table = pseudobulk_dex(screen(), **CALLS[name], **slope)
    assert list(table.columns) == truth[f"{name} columns"].tolist()
    assert table.index.tolist() == truth[f"{name} index"].tolist()
    for column in table.columns:
        expected = truth[f"{name} {column}"]
        if column in NUMBERS:
            assert table[column].dtype == np.float64
            np.testing.assert_allclose(table[column], expected, rtol=1e-7, err_msg=column)
        else:
            assert table[column].tolist() == expected.tolist()
    assert (table["padj"] < 0.05).any()
    assert table["pvalue"].isna().any()  # of the gene that is never expressed
    assert not table["pvalue"].isna().all()


def test_targets_of_the_truth_are_in_no_other_order():
    """Order of first appearance is told from that of labels and of categories."""
    found = list(dict.fromkeys(np.load(TRUTH)["default target"].tolist()))
    column = screen().obs["target_gene"]
    assert found == [x for x in dict.fromkeys(column) if x != "non-targeting"]
    assert found != sorted(found)
    assert found != [x for x in column.cat.categories if x in found]


def by_hand(adata: ad.AnnData, x: np.ndarray, groups: list[str]) -> pd.DataFrame:
    """pydeseq2 on the table that pandas makes, samples in order of donor and target."""
    from pydeseq2.dds import DeseqDataSet
    from pydeseq2.default_inference import DefaultInference
    from pydeseq2.ds import DeseqStats

    keys = [adata.obs[c].astype(str).to_numpy() for c in ("donor", "target_gene")]
    counts = pd.DataFrame(x.astype(np.int64), columns=adata.var_names).groupby(keys).sum()
    meta = pd.DataFrame(counts.index.to_list(), columns=["donor", "target_gene"])
    meta.index = pd.Index(meta["donor"] + " " + meta["target_gene"])
    # Floats, as from pdex: pydeseq2 keeps whole numbers in another order in memory, and adds so.
    counts = pd.DataFrame(
        np.ascontiguousarray(counts, dtype=float), index=meta.index, columns=adata.var_names
    )
    dds = DeseqDataSet(
        counts=counts,
        metadata=meta,
        design="~target_gene+donor",
        inference=DefaultInference(n_cpus=1),
        quiet=True,
    )
    dds.deseq2()
    tables = []
    for group in groups:
        stats = DeseqStats(dds, contrast=["target_gene", group, "non-targeting"], quiet=True)
        stats.summary()
        tables.append(stats.results_df)
    return pd.concat(tables)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("how", ["memory", "csr file", "csc file", "zarr", "backed", "layer"])
def test_where_data_come_from(adata: ad.AnnData, how: str, tmp_path: Path):
    """Exactly pydeseq2's numbers, wherever the counts are."""
    x = adata.X
    data: Any = adata
    options: dict[str, Any] = {}
    if how == "layer":
        adata.layers["counts"] = sparse.csc_matrix(x)
        adata.X = np.log1p(x)
        options["layer"] = "counts"
    elif how == "zarr":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of anndata, about the format of zarr
            adata.write_zarr(tmp_path / "screen.zarr")
        data = str(tmp_path / "screen.zarr")
    elif how != "memory":
        adata.X = (sparse.csc_matrix if how == "csc file" else sparse.csr_matrix)(x)
        adata.write_h5ad(tmp_path / "screen.h5ad")
        data = tmp_path / "screen.h5ad"
        options["memory"] = "100kB"
    if how == "backed":
        data = ad.read_h5ad(data, backed="r")
    found = pseudobulk_dex(data, GROUPBY, groups=["MYC", "GATA1"], **options)
    expected = by_hand(adata, x, ["MYC", "GATA1"])
    assert found["target"].tolist() == ["MYC"] * 30 + ["GATA1"] * 30
    assert found["gene"].tolist() == expected.index.tolist()
    np.testing.assert_array_equal(found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy())


@pytest.mark.thorough
def test_sums_beyond_float32(adata: ad.AnnData):
    """float32 counts whose sums float32 cannot hold."""
    adata.X = adata.X.copy()
    adata.X[np.flatnonzero(adata.obs["donor"] == "d1"), 0] += 2**20 + 1
    found = pseudobulk_dex(adata, GROUPBY, groups=["MYC"])
    expected = by_hand(adata, adata.X, ["MYC"])
    np.testing.assert_array_equal(found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy())


def test_signature_is_that_of_pdex():
    parameters = inspect.signature(pseudobulk_dex).parameters
    positional = {n: p.default for n, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    assert list(positional.items()) == [
        ("adata", inspect.Parameter.empty),
        ("groupby", inspect.Parameter.empty),
        ("groups", None),
        ("test_col", "target_gene"),
        ("reference", "non-targeting"),
        ("design", None),
        ("num_workers", 1),
        ("aggr_method", "sum"),
        ("as_polars", False),
    ]
    assert set(parameters) - set(positional) == {"layer", "raw", "modality", "allow", "memory"}


def test_polars(adata: ad.AnnData):
    pl = pytest.importorskip("polars")
    found = pseudobulk_dex(adata, GROUPBY, groups="MYC", as_polars=True)
    assert isinstance(found, pl.DataFrame)
    expected = pseudobulk_dex(adata, GROUPBY, groups=["MYC"])
    assert found.columns == list(expected.columns)
    np.testing.assert_array_equal(found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy())
    assert found["target"].to_list() == expected["target"].tolist()


@pytest.mark.thorough
def test_labels_that_are_numbers(adata: ad.AnnData):
    """As text they are found, too."""
    adata.obs["level"] = (adata.obs["target_gene"] != "non-targeting").astype(int)
    found = pseudobulk_dex(adata, ["level", "donor"], ["1"], "level", "0")
    expected = pseudobulk_dex(adata, ["level", "donor"], None, "level", 0)
    pd.testing.assert_frame_equal(found, expected)
    assert found["target"].tolist() == [1] * adata.n_vars
    assert found["reference"].tolist() == [0] * adata.n_vars


@pytest.mark.thorough
def test_groups_unknown_twice_and_the_reference(adata: ad.AnnData):
    expected = pseudobulk_dex(adata, GROUPBY, groups=["TP53"])
    with pytest.warns(UnknownGroupWarning, match="'target_gene' and left out: 'TP35'") as caught:
        found = pseudobulk_dex(adata, GROUPBY, groups=["TP53", "TP35", "non-targeting", "TP53"])
    assert caught[0].filename == __file__
    pd.testing.assert_frame_equal(found, expected)


@pytest.mark.thorough
def test_cells_without_a_label(adata: ad.AnnData):
    """A target that loses all of its cells is no target any more."""
    adata.obs["donor"] = adata.obs["donor"].astype(object)
    adata.obs.loc[adata.obs["target_gene"] == "TP53", "donor"] = None
    n = int(adata.obs["donor"].isna().sum())
    with pytest.warns(MissingLabelWarning, match=f"{n} of 900 cells .* 'donor'") as caught:
        found = pseudobulk_dex(adata, GROUPBY)
    assert caught[0].filename == __file__
    expected = pseudobulk_dex(adata[adata.obs["target_gene"] != "TP53"].copy(), GROUPBY)
    pd.testing.assert_frame_equal(found, expected)
    assert set(found["target"]) == {"MYC", "GATA1"}


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"aggr_method": "max"}, OptionError, r"Unknown aggr_method: 'max'\. .*'sum', 'mean'"),
        ({"test_col": "guide"}, OptionError, "test_col='guide' is not among .*'donor', 'target_g"),
        (
            {"groupby": ["target_gene"]},
            OptionError,
            "only the column 'target_gene', but DESeq2",
        ),
        ({"groupby": ["target_gene"] * 2}, OptionError, "only the column 'target_gene'"),
        ({"groupby": "target_gene"}, OptionError, "only the column 'target_gene'"),
        ({"groupby": ["target_gene", "done"]}, ColumnError, "'done'. Did you mean 'donor'"),
        ({"reference": "nontargeting"}, LabelError, "reference in .*Did you mean 'non-targeting'"),
        ({"reference": None}, LabelError, "Unknown reference in column 'target_gene': 'None'"),
        ({"groups": ["TP35"]}, LabelError, "Unknown group .*'TP35'. Did you mean 'TP53'"),
        ({"groups": "TP35"}, LabelError, "Unknown group .*'TP35'. Did you mean 'TP53'"),
        ({"groups": ["non-targeting"]}, LabelError, "No target group is left to compare with"),
        ({"groups": []}, LabelError, "No target group is left to compare with"),
        ({"groups": 3}, OptionError, "groups=3 must be labels of the column"),
        ({"groups": [["MYC"]]}, OptionError, "must be labels of the column"),
        ({"reference": ["MYC"]}, OptionError, "reference=.* must be labels of the column"),
        ({"memory": "lots"}, OptionError, "memory='lots' is not a size"),
        ({"layer": "raw"}, LayerError, "Unknown layer 'raw'"),
        ({"num_workers": 0}, OptionError, "num_workers=0 must be a whole number"),
        ({"num_workers": 1.5}, OptionError, "num_workers=1.5 must be a whole number"),
        (
            {"aggr_method": "mean"},
            DataError,
            "mean of sample .* Use aggr_method='sum' with raw",
        ),
    ],
)
def test_bad_options(
    adata: ad.AnnData, options: dict[str, Any], error: type[Exception], message: str
):
    with pytest.raises(error, match=message):
        pseudobulk_dex(adata, **{"groupby": GROUPBY, **options})


@pytest.mark.parametrize(
    ("value", "said"),
    [(-3.0, "negative in gene 'G7': -3"), (0.25, "fractional in gene 'G7': 0.25")],
)
def test_values_that_are_no_counts(adata: ad.AnnData, value: float, said: str):
    """G7 is 0 in all other cells, so the sum is the value."""
    adata.X[4, 7] = value
    sample = f"donor.{adata.obs['donor'].iloc[4]}-target_gene.{adata.obs['target_gene'].iloc[4]}"
    with pytest.raises(DataError, match=f"the sum of sample '{sample}' is {said}. Pass raw counts"):
        pseudobulk_dex(adata, GROUPBY)


def test_empty_matrix(adata: ad.AnnData):
    with pytest.raises(DataError, match="empty: 0 cells x 30 genes"):
        pseudobulk_dex(adata[:0].copy(), GROUPBY)


def test_nothing_is_read_for_a_wrong_label(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        pdex_gpu.aggregation.deseq2, "aggregate", lambda *_, **__: pytest.fail("was read")
    )
    with pytest.raises(LabelError):
        pseudobulk_dex(adata, GROUPBY, reference="none")


@pytest.mark.parametrize(
    ("module", "options", "said"),
    [
        ("pydeseq2.dds", {}, r"pydeseq2 is not installed\. Run: pip install pydeseq2$"),
        ("polars", {"as_polars": True}, r"polars is not installed\. Run: pip install polars$"),
    ],
)
def test_missing_packages(
    adata: ad.AnnData,
    module: str,
    options: dict[str, Any],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingDependencyError, match=said):
        pseudobulk_dex(adata, GROUPBY, **options)


# --- labels and names of any kind ----------------------------------------------------------------


def relabelled(adata: ad.AnnData, column: str, labels: Any, dtype: Any = None) -> ad.AnnData:
    """The screen with other labels in a column, in the order of the old ones."""
    other = adata.copy()
    old = adata.obs[column].astype(str)
    places = pd.Index(sorted(set(old))).get_indexer(old)
    other.obs[column] = pd.Series(labels, dtype=dtype).take(places).set_axis(adata.obs_names)
    return other


NAMES = [
    "donor id", "batch (10x)", "1", "C", "Q", "I", "a`b", "it's", 'say "x"', "a\\b", "a:b", "~",
    "+", "x**2", "[0]", "np", "size_factors", "replaceable", "column1", "", "é", "lambda",
]  # fmt: skip
KINDS: dict[str, tuple[Any, Any]] = {
    "int": ([3, 5, 8, 13, 21], "int64"),
    "float": ([-0.5, 0.0, 1.5, 2.0, 1e9], "float64"),
    "nullable": ([3, 5, 8, 13, 21], "Int64"),
    "dates": (list(pd.date_range("2024-01-01", periods=5)), "datetime64[ns]"),
    "sizes": ([9, 10, 11, 100, 1000], "int64"),  # whose text has another order
    "categories": ([3, 5, 8, 13, 21], "category"),
}


def model(data: ad.AnnData, groupby: Sequence[str] = GROUPBY, design: str | None = None) -> Model:
    """The model alone: fitting takes long."""
    return make_model(
        find_samples(data, sorted(groupby), DataOptions(), None), groupby, design, groupby[0]
    )


def assert_alike(found: Model, expected: Model, labels: dict[str, Any] | None = None) -> None:
    """The same numbers, and the same contrasts of groups, which may have other labels."""
    np.testing.assert_array_equal(found.matrix.to_numpy(), expected.matrix.to_numpy())
    for target in ("MYC", "TP53", "GATA1"):
        asked = [target, "non-targeting"]
        np.testing.assert_array_equal(
            found.contrast(*(labels[x] if labels else x for x in asked)), expected.contrast(*asked)
        )


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("design", [None, "~target_gene + donor", "~C(target_gene) + C(donor)"])
@pytest.mark.parametrize("column", GROUPBY)
def test_labels_are_categories(adata: ad.AnnData, column: str, design: str | None, kind: str):
    """Whatever their type: the same model as with text of the same order, and no slope."""
    old = sorted(set(adata.obs[column].astype(str)))
    new, dtype = KINDS[kind]
    data = relabelled(adata, column, new[: len(old)], dtype)
    labels = dict(zip(old, new, strict=False)) if column == "target_gene" else None
    assert_alike(model(data, design=design), model(adata), labels)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", GROUPBY)
def test_names_of_columns(adata: ad.AnnData, column: str, name: str):
    """The same model, though samples may be in another order."""
    expected = model(adata)
    adata.obs = adata.obs.rename(columns={column: name})
    found = model(adata, [name if asked == column else asked for asked in GROUPBY])
    rows = (np.unique(m.matrix.to_numpy(), axis=0) for m in (found, expected))
    np.testing.assert_array_equal(*rows)
    contrasts = (m.contrast("MYC", "non-targeting") for m in (found, expected))
    np.testing.assert_array_equal(*contrasts)


@pytest.mark.parametrize(
    "design",
    ["target_gene + donor", "~C(target_gene) + donor", "~ `target_gene` + C(donor) + 1"],
)
def test_ways_to_write_a_design(adata: ad.AnnData, design: str):
    assert_alike(model(adata, design=design), model(adata))


def test_a_design_with_names_in_backticks(adata: ad.AnnData):
    expected = model(adata, ["target_gene", "donor"])
    adata.obs = adata.obs.rename(columns={"donor": "donor id"})
    assert_alike(model(adata, ["target_gene", "donor id"], "~target_gene + `donor id`"), expected)


def test_a_label_in_a_design_is_the_users(adata: ad.AnnData):
    data = relabelled(adata, "target_gene", [3, 5, 8, 13], "int64")
    found = model(data, design="~C(target_gene, contr.treatment(base=13)) + donor")
    assert found.contrast(3, 13).tolist() == [0, 1, 0, 0, 0, 0, 0, 0]
    assert found.contrast(13, 3).tolist() == [0, -1, 0, 0, 0, 0, 0, 0]


def test_a_covariate(adata: ad.AnnData):
    """A number in an expression is one."""
    data = relabelled(adata, "donor", [3, 5, 8, 13, 21], "int64")
    found = model(data, design="~target_gene + donor + I(donor ** 2)").matrix
    donors = find_samples(data, sorted(GROUPBY), DataOptions(), None).levels["donor"].astype(float)
    assert found.shape == (20, 6)
    np.testing.assert_array_equal(found.iloc[:, -2:], np.stack([donors, donors**2], axis=1))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", ["int", "nullable", "dates", "categories"])
def test_the_table_has_labels_of_their_type(adata: ad.AnnData, kind: str):
    """The numbers of text, to the bit, and "0" finds 0."""
    new, dtype = KINDS[kind]
    new = [0, *new[1:]] if kind != "dates" else new
    old = ["GATA1", "MYC", "TP53", "non-targeting"]
    data = relabelled(adata, "target_gene", new[:4], dtype)
    data.obs["donor"] = relabelled(adata, "donor", *KINDS["int"]).obs["donor"].to_numpy()
    data.obs = data.obs.rename(columns={"donor": "1"})
    reference = str(new[0])
    found = pseudobulk_dex(data, ["target_gene", "1"], [new[1]], reference=reference)
    assert found["target"].dtype == ("datetime64[ns]" if kind == "dates" else "int64")
    assert set(found["target"]) == {new[1]}
    assert set(found["reference"]) == {new[0]}
    expected = pseudobulk_dex(adata.copy(), ["target_gene", "donor"], [old[1]], reference=old[0])
    np.testing.assert_allclose(
        found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy(), rtol=1e-6, equal_nan=True
    )


def test_groups_of_bool(adata: ad.AnnData):
    adata.obs["hit"] = (adata.obs["target_gene"] == "MYC").to_numpy()
    found = pseudobulk_dex(adata, ["hit", "donor"], None, "hit", reference=False)
    assert found["target"].dtype == bool
    assert found["target"].all()
    assert not found["reference"].any()


@pytest.mark.thorough
def test_genes_and_samples_of_one_name(adata: ad.AnnData):
    expected = pseudobulk_dex(adata, GROUPBY, groups=["MYC"])
    adata.obs["a"] = adata.obs["donor"].map({"d1": "x-b.y", "d2": "x"}).fillna("w")
    adata.obs["b"] = adata.obs["donor"].map({"d1": "z", "d2": "y-b.z"}).fillna(adata.obs["donor"])
    adata.var_names = ["G", "G", *adata.var_names[2:]]
    found = pseudobulk_dex(
        adata, ["target_gene", "a", "b"], groups=["MYC"], design="~target_gene + b"
    )
    assert found["gene"].tolist()[:3] == ["G", "G", "G2"]
    np.testing.assert_allclose(
        found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy(), rtol=1e-4, equal_nan=True
    )


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("as_polars", [False, True])
def test_groups_of_several_types(adata: ad.AnnData, as_polars: bool):
    data = relabelled(adata, "target_gene", ["a", 2, 1.5, "c"], object)
    found = pseudobulk_dex(data, GROUPBY, ["a", 2], reference=1.5, as_polars=as_polars)
    assert list(dict.fromkeys(found["target"])) == (["a", "2"] if as_polars else ["a", 2])
    assert set(found["reference"]) == {1.5}


def one_donor(adata: ad.AnnData) -> ad.AnnData:
    return adata[adata.obs["donor"] == "d1"].copy()


def no_counts(adata: ad.AnnData) -> ad.AnnData:
    adata.X = np.zeros_like(adata.X)
    return adata


@pytest.mark.parametrize(
    ("change", "options", "error", "message"),
    [
        (
            None,
            {"groupby": [*GROUPBY, "arm"]},  # which the groups tell
            DataError,
            "cannot be fitted to these 20 samples: of its 9 coefficients, 1 depend on",
        ),
        (one_donor, {}, DataError, "4 samples are too few for the 4 coefficients"),
        (no_counts, {}, DataError, "pydeseq2 cannot fit 20 samples x 30 genes"),
        (None, {"design": 3}, OptionError, "design=3 must be text, not int"),
        (None, {"design": "~target_gene +"}, OptionError, "cannot be used: FormulaSyntaxError"),
        (None, {"design": "~target_gene + guide"}, OptionError, "it names 'guide'"),
        (None, {"design": "~donor"}, OptionError, "it does not name 'target_gene'"),
        (None, {"design": "~C(target_gene) + nope(donor)"}, OptionError, "cannot be used"),
        (None, {"design": "~I(target_gene == 'MYC')"}, OptionError, "does not distinguish the two"),
        (None, {"design": "donor ~ target_gene"}, OptionError, "the right-hand side of a single"),
        (None, {"design": "~target_gene | donor"}, OptionError, "the right-hand side of a single"),
        (None, {"design": "~target_gene + I(donor)**0.5"}, OptionError, "cannot be used"),
        (None, {"groupby": 5}, OptionError, "groupby=5 must be the name of a column"),
    ],
)
def test_what_cannot_be_fitted(
    adata: ad.AnnData, change: Any, options: Any, error: type[Exception], message: str
):
    data = adata if change is None else change(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(error, match=message) as caught:
            pseudobulk_dex(data, **{"groupby": GROUPBY, **options})
    if "pydeseq2" in message or "Formula" in message:
        assert caught.value.__cause__ is not None
