"""pseudobulk_dex against pdex 0.1.28, and against pydeseq2 called by hand."""

from __future__ import annotations

import inspect
import sys
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from pdex_truth import CALLS, GROUPBY, NUMBERS, TRUTH, screen
from scipy import sparse

import pdex_gpu.deseq
from pdex_gpu import pseudobulk_dex
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


@pytest.mark.parametrize("name", CALLS)
def test_as_pdex(name: str):
    """The columns, rows and numbers of pdex 0.1.28, on other versions of numpy and pandas.

    Worst relative error seen with pydeseq2 0.5.2 and 0.5.4: 4.1e-10 (a p-value).
    """
    truth = np.load(TRUTH)
    table = pseudobulk_dex(screen(), **CALLS[name])
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
    assert set(parameters) - set(positional) == {"layer", "memory"}


def test_polars(adata: ad.AnnData):
    pl = pytest.importorskip("polars")
    found = pseudobulk_dex(adata, GROUPBY, groups="MYC", as_polars=True)
    assert isinstance(found, pl.DataFrame)
    expected = pseudobulk_dex(adata, GROUPBY, groups=["MYC"])
    assert found.columns == list(expected.columns)
    np.testing.assert_array_equal(found[NUMBERS].to_numpy(), expected[NUMBERS].to_numpy())
    assert found["target"].to_list() == expected["target"].tolist()


def test_labels_that_are_numbers(adata: ad.AnnData):
    """As text they are found, too."""
    adata.obs["level"] = (adata.obs["target_gene"] != "non-targeting").astype(int)
    found = pseudobulk_dex(adata, ["level", "donor"], ["1"], "level", "0")
    expected = pseudobulk_dex(adata, ["level", "donor"], None, "level", 0)
    pd.testing.assert_frame_equal(found, expected)
    assert found["target"].tolist() == [1] * adata.n_vars
    assert found["reference"].tolist() == [0] * adata.n_vars


def test_groups_unknown_twice_and_the_reference(adata: ad.AnnData):
    expected = pseudobulk_dex(adata, GROUPBY, groups=["TP53"])
    with pytest.warns(UnknownGroupWarning, match="'target_gene', left out: 'TP35'") as caught:
        found = pseudobulk_dex(adata, GROUPBY, groups=["TP53", "TP35", "non-targeting", "TP53"])
    assert caught[0].filename == __file__
    pd.testing.assert_frame_equal(found, expected)


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
        ({"groupby": ["target_gene"]}, OptionError, "one column, 'target_gene': DESeq2 estimates"),
        ({"groupby": ["target_gene"] * 2}, OptionError, "one column, 'target_gene'"),
        ({"groupby": "target_gene"}, OptionError, "one column, 'target_gene'"),
        ({"groupby": ["target_gene", "done"]}, ColumnError, "'done'. Did you mean 'donor'"),
        ({"reference": "nontargeting"}, LabelError, "reference in .*Did you mean 'non-targeting'"),
        ({"reference": None}, LabelError, "Unknown reference in column 'target_gene': 'None'"),
        ({"groups": ["TP35"]}, LabelError, "Unknown group .*'TP35'. Did you mean 'TP53'"),
        ({"groups": "TP35"}, LabelError, "Unknown group .*'TP35'. Did you mean 'TP53'"),
        ({"groups": ["non-targeting"]}, LabelError, "No target group is left to compare with"),
        ({"groups": []}, LabelError, "No target group is left to compare with"),
        ({"groups": 3}, OptionError, "groups=3 must be labels of the column"),
        ({"groups": [["MYC"]]}, OptionError, "must be labels of the column: unhashable"),
        ({"reference": ["MYC"]}, OptionError, "reference=.* must be labels of the column"),
        ({"memory": "lots"}, OptionError, "memory='lots' is not a size"),
        ({"layer": "raw"}, LayerError, "Unknown layer 'raw'"),
        ({"num_workers": 0}, OptionError, "num_workers=0 must be a whole number"),
        ({"num_workers": 1.5}, OptionError, "num_workers=1.5 must be a whole number"),
        ({"aggr_method": "mean"}, DataError, "the mean of sample .* Use aggr_method='sum', on raw"),
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
    with pytest.raises(DataError, match=f"the sum of sample '{sample}' is {said}. Give raw counts"):
        pseudobulk_dex(adata, GROUPBY)


def test_empty_matrix(adata: ad.AnnData):
    with pytest.raises(DataError, match="empty: 0 cells x 30 genes"):
        pseudobulk_dex(adata[:0].copy(), GROUPBY)


def test_nothing_is_read_for_a_wrong_label(adata: ad.AnnData, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pdex_gpu.deseq, "aggregate", lambda *_, **__: pytest.fail("was read"))
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
