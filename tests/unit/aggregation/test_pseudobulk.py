"""Cells into samples: against pandas on dense data, from files, by ranges, and what is refused."""

from __future__ import annotations

import functools
import logging
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pdex_truth import METHODS, TRUTH
from pdex_truth import screen as pdex_screen
from scipy import sparse
from screens import DTYPES, gene_kinds, make_gene

import pdex_gpu
import pdex_gpu.aggregation.aggregate
import pdex_gpu.request.screen
from pdex_gpu import pseudobulk
from pdex_gpu.errors import (
    ColumnError,
    DataError,
    FileFormatError,
    LabelError,
    LayerError,
    MemoryBudgetError,
    MissingLabelWarning,
    OptionError,
    UnsupportedDataError,
)
from pdex_gpu.sources.options import DataOptions

LAYOUTS: dict[str, Callable[[np.ndarray], Any]] = {
    "C": np.ascontiguousarray,
    "F": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=1)[::-1, ::2][::-1],
    "csr": sparse.csr_array,
    "csc": sparse.csc_array,
    "csr_matrix": sparse.csr_matrix,
}
STORED = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
LEVELS = ["b", "a", "c10", "c9"]


def make_screen(
    x: np.ndarray, seed: int = 0, layout: Callable[[np.ndarray], Any] = np.asarray
) -> ad.AnnData:
    """`x` with three columns: text, a categorical in an order of its own, and numbers."""
    rng = np.random.default_rng(seed)
    n = len(x)
    obs = pd.DataFrame(
        {
            "target": np.array(LEVELS, dtype=object)[rng.integers(0, 4, n)],
            "donor": pd.Categorical.from_codes(rng.integers(0, 2, n), ["z", "y", "unused"]),
            "batch": rng.integers(0, 12, n),
        },
        index=[f"cell{i}" for i in range(n)],
    )
    var = pd.DataFrame(
        {"length": np.arange(x.shape[1])}, index=[f"g{j}" for j in range(x.shape[1])]
    )
    return ad.AnnData(layout(x), obs=obs, var=var)


def counts(n_cells: int, n_genes: int, seed: int = 0, density: float = 0.4) -> np.ndarray:
    """Values with fractions, so that the order of additions shows in the bits."""
    rng = np.random.default_rng(seed)
    x = rng.lognormal(0.0, 2.0, (n_cells, n_genes)).astype(np.float32)
    x[rng.random(x.shape) >= density] = 0
    return x


def by_pandas(adata: ad.AnnData, x: np.ndarray, columns: list[str], method: str) -> pd.DataFrame:
    """The table that pandas makes of dense float64 values."""
    keys = [adata.obs[c].astype(object).to_numpy() for c in sorted(columns)]
    return pd.DataFrame(x.astype(np.float64)).groupby(keys, sort=True).agg(method)


def cut(monkeypatch: pytest.MonkeyPatch, genes: int) -> None:
    """Have ranges of at most so many genes."""
    schedule = functools.partial(pdex_gpu.aggregation.aggregate.Schedule, gene_chunk_size=genes)
    monkeypatch.setattr(pdex_gpu.aggregation.aggregate, "Schedule", schedule)


def same_bits(a: np.ndarray, b: np.ndarray) -> None:
    np.testing.assert_array_equal(a.view(np.int64), b.view(np.int64))


# --- values ---------------------------------------------------------------------------------


@st.composite
def matrices(draw: st.DrawFn) -> np.ndarray:
    dtype = draw(st.sampled_from(DTYPES))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    kinds = draw(st.lists(st.sampled_from(gene_kinds(dtype)), min_size=1, max_size=5))
    n = draw(st.integers(1, 60))
    return np.stack([make_gene(kind, rng, n, dtype) for kind in kinds], axis=1)


@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.ScaleWarning")
@given(
    x=matrices(),
    layout=st.sampled_from(list(LAYOUTS)),
    method=st.sampled_from(METHODS),
    columns=st.lists(
        st.sampled_from(["target", "donor", "batch"]), min_size=1, max_size=3, unique=True
    ),
    width=st.integers(1, 6),
    piece=st.integers(1, 40),
)
def test_as_pandas(
    x: np.ndarray, layout: str, method: str, columns: list[str], width: int, piece: int
):
    adata = make_screen(x, layout=LAYOUTS[layout])
    with pytest.MonkeyPatch.context() as patch:
        cut(patch, width)
        patch.setattr("pdex_gpu.aggregation.sample_values._PIECE", piece)
        bulk = pseudobulk(adata, columns, method=method)
    expected = by_pandas(adata, x, columns, method)
    assert bulk.X.dtype == np.float64
    # pandas adds with compensation: worst seen 3.6e-16 of the sum of absolute values.
    size = by_pandas(adata, np.abs(x.astype(np.float64)), columns, "sum").to_numpy()
    if method == "mean":
        size = size / bulk.obs["n_cells"].to_numpy()[:, None]
    if method == "median":
        np.testing.assert_array_equal(bulk.X, expected.to_numpy())
    else:
        assert (np.abs(bulk.X - expected.to_numpy()) <= 1e-14 * size).all()

    keys = pd.DataFrame(expected.index.to_list(), columns=sorted(columns))
    assert list(bulk.obs.columns) == [*sorted(columns), "n_cells"]
    for column in columns:
        assert list(bulk.obs[column]) == list(keys[column])
        categories = list(bulk.obs[column].cat.categories)
        assert categories == sorted(set(keys[column]))
    assert list(bulk.obs_names) == [
        "-".join(f"{c}.{row[c]}" for c in sorted(columns)) for _, row in keys.iterrows()
    ]
    sizes = adata.obs.groupby(sorted(columns), observed=True).size()
    assert bulk.obs["n_cells"].sum() == len(x)
    assert sorted(bulk.obs["n_cells"]) == sorted(sizes)
    pd.testing.assert_frame_equal(bulk.var, adata.var)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("method", METHODS)
def test_bits_depend_on_neither_ranges_nor_layout(
    layout: str, method: str, monkeypatch: pytest.MonkeyPatch
):
    x = counts(300, 23, density=0.55)
    expected = pseudobulk(make_screen(x), ["target", "donor"], method=method)
    cut(monkeypatch, 4)
    monkeypatch.setattr("pdex_gpu.aggregation.sample_values._PIECE", 37)
    found = pseudobulk(make_screen(x, layout=LAYOUTS[layout]), ["target", "donor"], method=method)
    same_bits(found.X, expected.X)
    if method == "median":
        assert (found.X != 0).any()
        assert (found.X == 0).any()


@pytest.mark.parametrize("layout", ["C", "csr", "csc"])
def test_sums_of_counts_are_exact(layout: str):
    """In float32 the sum of 2**24 and ones stays 2**24."""
    x = np.ones((40, 3), np.float32)
    x[0] = [2**24, 2**24, 0]
    x[1, 1] = 2**24 - 1
    bulk = pseudobulk(
        ad.AnnData(
            LAYOUTS[layout](x), obs=pd.DataFrame({"a": ["x"] * 40}, index=map(str, range(40)))
        ),
        "a",
    )
    assert bulk.X.tolist() == [[2**24 + 39, 2**25 - 1 + 38, 39]]
    assert bulk.obs_names.tolist() == ["a.x"]


def test_medians_of_negative_and_positive_values():
    """Zeros lie between them; of four cells the two in the middle are averaged."""
    x = np.array([[-2, 3, 5, -1, 0], [-1, 0, 1, 4, 0], [0, 0, 2, 0, 7], [4, 1, 0, -3, 0]], float)
    one = pd.DataFrame({"a": ["s"] * 4}, index=list("1234"))
    bulk = pseudobulk(ad.AnnData(sparse.csr_array(x), obs=one), "a", method="median")
    assert bulk.X.tolist() == [[-0.5, 0.5, 1.5, -0.5, 0.0]]
    odd = pseudobulk(ad.AnnData(sparse.csr_array(x[:3]), obs=one[:3]), "a", method="median")
    assert odd.X.tolist() == [[-1.0, 0.0, 2.0, 0.0, 0.0]]
    huge = pseudobulk(ad.AnnData(np.full((1, 1), 1.7e308), obs=one[:1]), "a", method="median")
    assert huge.X.item() == 1.7e308


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_sums_that_overflow():
    """Means and medians have an answer, and so have sums that overflow on the way alone."""
    large = np.finfo(np.float64).max
    x = np.array(
        [[large, large, 1.0], [large, large, 2.0], [0.0, -large, 3.0], [large, large, 4.0]]
    )
    obs = pd.DataFrame({"a": ["s", "s", "s", "t"]}, index=[*"wxyz"])
    for matrix in (x, sparse.csr_array(x), sparse.csc_array(x)):
        adata = ad.AnnData(matrix, obs=obs, var=pd.DataFrame(index=["A", "B", "C"]))
        mean = pseudobulk(adata, "a", method="mean").X
        np.testing.assert_array_equal(mean, [[large / 3 * 2, large / 3, 2.0], [large, large, 4.0]])
        median = pseudobulk(adata[[0, 1, 3]].copy(), "a", method="median").X
        np.testing.assert_array_equal(median, [[large, large, 1.5], [large, large, 4.0]])
        with pytest.warns(pdex_gpu.errors.ScaleWarning):
            total = pseudobulk(adata[:, 1:].copy(), "a").X
        np.testing.assert_array_equal(total, [[large, 6.0], [large, 4.0]])
        with pytest.raises(
            DataError, match=r"sum of sample 'a\.s' in gene 'A' .*exceeds the largest float64"
        ):
            pseudobulk(adata, "a")


def test_explicit_zeros_count_once():
    x = sparse.csr_array(np.array([[1.0], [5.0], [7.0]]))
    x.data[0] = 0
    obs = pd.DataFrame({"a": ["s"] * 3}, index=list("123"))
    for method, expected in (("sum", 12.0), ("mean", 4.0), ("median", 5.0)):
        assert pseudobulk(ad.AnnData(x, obs=obs), "a", method=method).X.item() == expected


@pytest.mark.parametrize("genes", [9, 2])
@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", ["csr", "csc"])
def test_unsorted_and_repeated_indices(
    kind: str, method: str, reverse: bool, genes: int, monkeypatch: pytest.MonkeyPatch
):
    """Entries of one cell and gene are one value, in whatever order they are."""
    x = np.random.default_rng(0).integers(2, 9, (60, 9)).astype(np.float64)
    whole = STORED[kind](x)
    # Each value in two entries: a median of the entries would be another.
    data = np.stack([np.ones(x.size), whole.data - 1], axis=1).ravel()
    indices, indptr = np.repeat(whole.indices, 2), 2 * whole.indptr
    if reverse:
        data, indices = data[::-1].copy(), indices[::-1].copy()
        x = x[::-1] if kind == "csr" else x[:, ::-1]
    adata = make_screen(x)
    adata.X = type(whole)((data, indices, indptr), shape=whole.shape)
    cut(monkeypatch, genes)
    found = pseudobulk(adata, ["donor"], method=method)
    same_bits(found.X, pseudobulk(make_screen(x), ["donor"], method=method).X)
    assert not adata.X.has_canonical_format


@pytest.mark.parametrize("index", [-1, 9])
def test_indices_out_of_range(index: int):
    whole = sparse.csr_matrix(counts(60, 9))
    whole.indices[-1 if index > 0 else 0] = index
    adata = make_screen(np.zeros((60, 9)))
    adata.X = whole
    with pytest.raises(DataError, match=rf"row \d+ .* {index}\b"):
        pseudobulk(adata, "donor")


def test_as_adpbulk():
    """Order, names and numbers of ADPBulk 0.1.4; its means are float32: worst seen 5.7e-8."""
    truth = np.load(TRUTH)
    adata = pdex_screen()
    for method in METHODS:
        bulk = pseudobulk(adata, ["target_gene", "donor", "guide"], method=method)
        assert bulk.obs_names.tolist() == truth["bulk names"].tolist()
        for column in ("donor", "guide", "target_gene"):
            assert [str(v) for v in bulk.obs[column]] == truth[f"bulk {column}"].tolist()
        rtol = 1e-6 if method == "mean" else 0
        np.testing.assert_allclose(bulk.X, truth[f"bulk {method}"], rtol=rtol)


def test_many_columns_of_many_levels():
    """More combinations than 64 bits can number."""
    rng = np.random.default_rng(0)
    obs = pd.DataFrame(
        {f"c{k:02d}": rng.permutation(300).astype(str) for k in range(9)},
        index=[str(i) for i in range(300)],
    )
    bulk = pseudobulk(ad.AnnData(np.arange(300.0)[:, None], obs=obs), list(obs.columns))
    assert bulk.n_obs == 300
    order = obs.sort_values("c00").index.astype(int)
    assert bulk.X.ravel().tolist() == order.tolist()
    assert bulk.obs["c08"].tolist() == obs["c08"].iloc[order].tolist()


# --- where data come from ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def wide() -> np.ndarray:
    return counts(2000, 700, density=0.3)


@pytest.fixture(scope="module")
def files(wide: np.ndarray, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pseudobulk")
    paths = {}
    for kind, layout in STORED.items():
        adata = make_screen(np.zeros_like(wide), layout=layout)
        adata.layers["raw"] = layout(wide)
        adata.X = layout(wide)
        paths[kind] = folder / f"{kind}.h5ad"
        adata.write_h5ad(paths[kind])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of anndata, about the format of zarr
        make_screen(wide, layout=STORED["csr"]).write_zarr(folder / "csr.zarr")
    paths["zarr"] = folder / "csr.zarr"
    return paths


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("kind", [*STORED, "zarr"])
def test_files_by_ranges(
    kind: str,
    method: str,
    wide: np.ndarray,
    files: dict[str, Path],
    caplog: pytest.LogCaptureFixture,
):
    """With little memory a file is read by several ranges, and the bits are those of memory."""
    expected = pseudobulk(make_screen(wide), ["donor", "target"], method=method)
    n_ranges = []
    for memory in ("1GB", "1MB"):
        caplog.clear()
        with caplog.at_level(logging.INFO, "pdex_gpu"):
            found = pseudobulk(str(files[kind]), ["target", "donor"], method=method, memory=memory)
        (*_, last) = (r.args[-1] for r in caplog.records if r.msg.startswith("pseudobulk"))
        n_ranges.append(last)
        same_bits(found.X, expected.X)
        pd.testing.assert_frame_equal(found.obs, expected.obs)
        assert found.var_names.tolist() == expected.var_names.tolist()
    assert n_ranges[0] < n_ranges[1]
    assert n_ranges[1] > 2


@pytest.mark.parametrize("kind", STORED)
def test_backed_views_and_layers(kind: str, wide: np.ndarray, files: dict[str, Path]):
    rows = np.random.default_rng(1).permutation(2000)[:300]
    expected = pseudobulk(make_screen(wide)[rows, 5:60], ["donor", "target"])
    backed = ad.read_h5ad(files[kind], backed="r")
    try:
        view = pseudobulk(backed[rows, 5:60], ["donor", "target"])
        whole = pseudobulk(backed, "donor", layer="raw")
    finally:
        backed.file.close()
    same_bits(view.X, expected.X)
    pd.testing.assert_frame_equal(view.var, expected.var)
    same_bits(whole.X, pseudobulk(make_screen(wide), "donor").X)
    with open(files[kind], "rb") as file:
        same_bits(pseudobulk(file, ["donor"], layer="raw").X, whole.X)
        assert not file.closed


def test_layer_is_not_x():
    adata = make_screen(counts(30, 4))
    adata.layers["double"] = 2 * adata.X
    twice = pseudobulk(adata, "donor", layer="double")
    same_bits(twice.X, 2 * pseudobulk(adata, "donor").X)


def test_the_input_stays_as_it_is():
    adata = make_screen(counts(50, 6), layout=sparse.csr_array)
    before = adata.copy()
    bulk = pseudobulk(adata, ["donor"])
    bulk.var["length"] = -1
    assert (adata.X != before.X).nnz == 0
    pd.testing.assert_frame_equal(adata.obs, before.obs)
    pd.testing.assert_frame_equal(adata.var, before.var)


# --- labels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["memory", "file"])
def test_cells_without_a_label_are_left_out(how: str, tmp_path: Path):
    x = counts(50, 6)
    x[3, 2], x[9, 0] = np.nan, np.inf  # of cells that are left out
    adata = make_screen(x)
    adata.obs.loc["cell3", "target"] = None
    adata.obs.loc[["cell3", "cell9"], "donor"] = np.nan
    kept = np.setdiff1d(np.arange(50), [3, 9])
    expected = pseudobulk(adata[kept].copy(), ["target", "donor"])
    data: Any = adata
    if how == "file":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            adata.write_h5ad(tmp_path / "missing.h5ad")
        data = tmp_path / "missing.h5ad"
    for method in METHODS:
        with pytest.warns(MissingLabelWarning) as caught:
            found = pseudobulk(data, ["target", "donor"], method=method)
        assert str(caught[0].message) == (
            "2 of 50 cells have no label in 'donor', 'target' and are left out."
        )
        assert caught[0].filename == __file__
        if method == "sum":
            same_bits(found.X, expected.X)
            pd.testing.assert_frame_equal(found.obs, expected.obs)


def test_labels_of_several_types():
    obs = pd.DataFrame({"a": [True, False, True], "b": ["x", 1, 1]}, index=list("123"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = ad.AnnData(np.eye(3), obs=obs)
    bulk = pseudobulk(adata, ["b", "a"])
    assert bulk.obs_names.tolist() == ["a.False-b.1", "a.True-b.1", "a.True-b.x"]
    assert bulk.X.tolist() == [[0, 1, 0], [0, 0, 1], [1, 0, 0]]


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"groupby": "targett"}, ColumnError, r"'targett'\. Did you mean 'target'"),
        ({"groupby": ["target", "who"]}, ColumnError, r"column of obs 'who'\. Available \(3\)"),
        ({"groupby": []}, OptionError, r"groupby=\[\] must be the name of a column"),
        ({"groupby": [1]}, OptionError, r"groupby=\[1\] must be the name of a column"),
        ({"groupby": 7}, OptionError, "groupby=7 must be the name of a column"),
        ({"groupby": "n_cells"}, OptionError, "'n_cells', which is also the number of cells"),
        ({"method": "max"}, OptionError, r"method: 'max'\. Available \(3\): 'sum', 'mean'"),
        ({"layer": "raw"}, LayerError, "Unknown layer 'raw'"),
        ({"layer": 1}, OptionError, "layer=1 must be text, not int"),
        ({"memory": "lots"}, OptionError, "memory='lots' is not a size"),
    ],
)
def test_bad_options(options: dict[str, Any], error: type[Exception], message: str):
    with pytest.raises(error, match=message):
        pseudobulk(make_screen(counts(20, 3)), **{"groupby": "target", **options})


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_empty_matrix(shape: tuple[int, int]):
    obs = pd.DataFrame({"a": ["x"] * shape[0]}, index=[str(i) for i in range(shape[0])])
    with pytest.raises(DataError, match=rf"empty: {shape[0]} cells x {shape[1]} genes"):
        pseudobulk(ad.AnnData(np.zeros(shape), obs=obs), "a")


def test_no_labels_at_all():
    adata = make_screen(counts(6, 2))
    adata.obs["target"] = pd.Series([None, "a"] * 3, index=adata.obs_names, dtype=object)
    adata.obs["donor"] = pd.Series(["b", None] * 3, index=adata.obs_names, dtype=object)
    with (
        pytest.warns(MissingLabelWarning, match="6 of 6"),
        pytest.raises(LabelError, match="No cell has a label in 'donor', 'target'"),
    ):
        pseudobulk(adata, ["target", "donor"])


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("layout", ["C", "csr", "csc"])
@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_values_have_to_be_finite(
    method: str, layout: str, value: float, monkeypatch: pytest.MonkeyPatch
):
    x = counts(30, 8)
    x[17, 5] = value
    cut(monkeypatch, 3)
    adata = make_screen(x, layout=LAYOUTS[layout])
    adata.layers["raw"] = adata.X
    where = r"in cell 'cell17' \(row 17\), gene 'g5' \(column 5\)"
    with pytest.raises(DataError, match=rf"^X is {value} {where}"):
        pseudobulk(adata, "target", method=method)
    with pytest.raises(DataError, match=rf"^layer 'raw' is {value} {where}"):
        pseudobulk(adata, "target", method=method, layer="raw")


def test_result_larger_than_the_budget():
    adata = ad.AnnData(
        sparse.csr_array((3000, 4000), dtype=np.float32),
        obs=pd.DataFrame({"a": np.arange(3000)}, index=[str(i) for i in range(3000)]),
    )
    with pytest.raises(MemoryBudgetError, match=r"in 3,000 samples: .* 96,000,000\. Allow more"):
        pseudobulk(adata, "a", memory="10MB")


def test_data_of_another_kind():
    with pytest.raises(UnsupportedDataError, match="Cannot read a set"):
        pseudobulk(set(), "a")  # type: ignore[arg-type]
    with pytest.raises(FileNotFoundError, match="no_such"):
        pseudobulk("no_such.h5ad", "a")


def test_a_matrix_on_a_device(monkeypatch: pytest.MonkeyPatch):
    opened = pdex_gpu.request.screen.open_dataset

    def on_device(*arguments: Any) -> Any:
        dataset = opened(*arguments)
        dataset.source.on_device = True  # type: ignore[misc]
        return dataset

    monkeypatch.setattr(pdex_gpu.request.screen, "open_dataset", on_device)
    with pytest.raises(UnsupportedDataError, match=r"^X is on a CUDA device .* adata\.X\.get\(\)"):
        pseudobulk(make_screen(counts(9, 2)), "donor")


def test_a_file_that_changes_between_obs_and_matrix():
    samples = pdex_gpu.aggregation.aggregate.find_samples(
        make_screen(counts(9, 2)), ["donor"], DataOptions(), None
    )
    with pytest.raises(FileFormatError, match="has 8 cells, but had 9 when obs was read"):
        pdex_gpu.aggregation.aggregate.aggregate(
            make_screen(counts(8, 2)), samples, DataOptions(), method="sum", memory=None
        )


def test_ranges_that_were_planned_too_large(
    wide: np.ndarray, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
):
    """The source says so once it has counted; the plan is made anew."""
    real, plans = pdex_gpu.aggregation.aggregate.make_plan, []

    def plan(*arguments: Any, **options: Any) -> Any:
        made = real(*arguments, **options)
        plans.append(made)
        return replace(made, most_entries=10) if len(plans) == 1 else made

    cut(monkeypatch, 100)
    monkeypatch.setattr(pdex_gpu.aggregation.aggregate, "make_plan", plan)
    found = pseudobulk(files["csr"], ["donor", "target"])
    assert len(plans) == 2
    same_bits(found.X, pseudobulk(make_screen(wide), ["donor", "target"]).X)


@pytest.mark.parametrize("call", [pdex_gpu.pseudobulk, pdex_gpu.pseudobulk_dex])
def test_symbols_are_for_what_follows(call):
    adata = make_screen(np.arange(60.0).reshape(20, 3))
    adata.var["symbol"] = ["A", "B", "C"]
    said = rf"{call.__name__}\(\) does not take gene_symbols=: .*adata\.var\[column\]"
    with pytest.raises(OptionError, match=said):
        call(adata, ["target", "batch"], gene_symbols="symbol")
    samples = pseudobulk(adata, ["target", "batch"])
    assert samples.var["symbol"].tolist() == ["A", "B", "C"]
    result = pdex_gpu.differential_expression(
        samples, "target", reference="a", gene_symbols="symbol", backend="numpy", progress=False,
        is_log1p=False,
    )  # fmt: skip
    assert result.to_pandas()["symbol"].unique().tolist() == ["A", "B", "C"]
