"""Guides that a cell may or may not carry, as a value is missing: the same everywhere."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse, stats
from stored_screens import assert_same_bits

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError, LabelError, MissingLabelWarning
from pdex_gpu.request import guides

N_CELLS, N_GENES = 90, 3
NAMES = ["a", "b", "nt"]


def values() -> np.ndarray:
    return np.random.default_rng(0).poisson(1.0, (N_CELLS, N_GENES)).astype(np.float32)


def carried() -> np.ndarray:
    found = np.random.default_rng(1).random((N_CELLS, len(NAMES))) < 0.4
    found[0] = True  # among them cells of which it is not told
    return found


def unknown() -> np.ndarray:
    found = np.zeros((N_CELLS, len(NAMES)), bool)
    found[:20, 0] = found[10:35, 2] = True
    return found


def frame(convert: Callable[[pd.Series], pd.Series]) -> pd.DataFrame:
    """Columns of a type, those without missing values too."""
    index = pd.Index([f"c{i}" for i in range(N_CELLS)])
    columns = {
        name: convert(pd.Series(carried()[:, j], index=index, dtype=object).mask(unknown()[:, j]))
        for j, name in enumerate(NAMES)
    }
    return pd.DataFrame(columns, index=index)


def categorical(names: dict[Any, Any]) -> Callable[[pd.Series], pd.Series]:
    return lambda column: column.map(names).astype(pd.CategoricalDtype([*names.values()]))


KINDS: dict[str, Callable[[], Any]] = {
    "boolean": lambda: frame(lambda c: c.astype("boolean")),
    "Int64": lambda: frame(lambda c: c.astype("boolean").astype("Int64")),
    "float": lambda: frame(lambda c: c.astype(float)),
    "categories of bools": lambda: frame(categorical({False: False, True: True})),
    "categories of numbers": lambda: frame(categorical({True: 1, False: 0})),
    "categories of text": lambda: frame(categorical({False: "False", True: "True"})),
    "categories of an R script": lambda: frame(categorical({False: "FALSE", True: "TRUE"})),
    "an array of floats": lambda: np.where(unknown(), np.nan, carried()),
    "a sparse matrix": lambda: sparse.csr_matrix(np.where(unknown(), np.nan, carried())),
    "columns of a sparse matrix": lambda: sparse.csc_matrix(np.where(unknown(), np.nan, carried())),
}
IN_MEMORY: dict[str, Callable[[], Any]] = {
    "objects": lambda: frame(lambda c: c),
    "objects, None": lambda: frame(lambda c: c.where(c.notna(), None)),
    "objects, NA": lambda: frame(lambda c: c.astype("boolean").astype(object)),
    "text": lambda: frame(lambda c: c.map({True: "true", False: "0"})),
    "nullable text": lambda: frame(lambda c: c.map({True: "1", False: "0"}).astype("string")),
    "Float64": lambda: frame(lambda c: c.astype("boolean").astype("Float64")),
    "arrow": lambda: frame(lambda c: c.astype("bool[pyarrow]")),
    "an array of objects": lambda: np.where(unknown(), None, carried()),
}


def screen(matrix: Any, make: Callable[[np.ndarray], Any] = sparse.csr_matrix) -> ad.AnnData:
    index = [f"c{i}" for i in range(N_CELLS)]
    return ad.AnnData(make(values()), obs=pd.DataFrame(index=index), obsm={"g": matrix})


def run(data: Any, comparison: str = "rest", **options: Any) -> Any:
    with pytest.warns(MissingLabelWarning, match=r"35 of 90 cells, in '\w+ \(20\)', '\w+ \(25\)'"):
        return differential_expression(
            data, guides="g", reference="nt", comparison=comparison, progress=False,
            columns=["target_n_cells", "reference_n_cells"], **options,
        )  # fmt: skip


def assert_right(result: Any, comparison: str) -> None:
    """Against scipy: cells that are missing are on neither side."""
    known = carried() & ~unknown()
    x = values().astype(np.float64)
    for t, name in enumerate(result.targets.tolist()):
        j = NAMES.index(name)
        others = known[:, :2].any(axis=1) if comparison == "perturbed" else np.ones(N_CELLS, bool)
        reference = known[:, 2] if comparison == "reference" else others & ~known[:, j]
        if comparison != "reference":
            reference &= ~unknown()[:, j]
        assert (result["target_n_cells"][t] == known[:, j].sum()).all()
        assert (result["reference_n_cells"][t] == reference.sum()).all()
        for gene in range(N_GENES):
            truth = stats.mannwhitneyu(x[known[:, j], gene], x[reference, gene])
            assert result["statistic"][t, gene] == truth.statistic
            np.testing.assert_allclose(result["p_value"][t, gene], truth.pvalue, rtol=1e-12)


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("comparison", ["reference", "rest", "perturbed"])
def test_against_scipy(comparison, backend):
    adata = screen(KINDS["boolean"]())
    result = run(adata, comparison, backend=backend, p_values="asymptotic")
    assert result.targets.tolist() == (NAMES if comparison == "rest" else NAMES[:2])
    assert_right(result, comparison)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("kind", [*KINDS, *IN_MEMORY])
def test_every_type_in_memory(kind):
    make = {**KINDS, **IN_MEMORY}[kind]
    assert_same_bits(run(screen(make())), run(screen(KINDS["boolean"]())))


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_in_files(kind, tmp_path):
    adata = screen(KINDS[kind]())
    want = run(adata)
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    assert_same_bits(run(path), want)
    backed = ad.read_h5ad(path, backed="r")
    assert_same_bits(run(backed), want)
    backed.file.close()
    pytest.importorskip("zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on zarr formats
        adata.write_zarr(tmp_path / "screen.zarr")
    assert_same_bits(run(tmp_path / "screen.zarr"), want)


def test_views_and_dask_arrays():
    da = pytest.importorskip("dask.array")
    adata = screen(KINDS["Int64"]())
    want = run(adata)
    assert_same_bits(run(adata[:, [0, 1, 2]]), want)
    lazy = screen(KINDS["Int64"](), lambda x: da.from_array(x, chunks=(30, -1)))
    assert_same_bits(run(lazy), want)
    lazy.obsm["g"] = da.from_array(KINDS["an array of floats"](), chunks=(30, -1))
    names = ["0", "1", "2"]
    with pytest.warns(MissingLabelWarning):
        found = differential_expression(lazy, guides="g", comparison="rest", progress=False)
    assert found.targets.tolist() == names
    np.testing.assert_array_equal(found["p_value"], want["p_value"])


def test_what_lies_under_a_mask_is_nothing(tmp_path):
    """It is the writer's choice: missing cells are no carriers whatever is there."""
    path = tmp_path / "screen.h5ad"
    screen(KINDS["boolean"]()).write_h5ad(path)
    want = run(path)
    with h5py.File(path, "r+") as file:
        for name in ("a", "nt"):
            there = file[f"obsm/g/{name}/values"][:]
            file[f"obsm/g/{name}/values"][...] = there | file[f"obsm/g/{name}/mask"][:]
    assert_same_bits(run(path), want)


def test_nothing_is_said_where_nothing_is_missing(tmp_path):
    for kind in ("boolean", "Int64", "float"):
        found = pd.DataFrame(carried(), columns=NAMES, index=[f"c{i}" for i in range(N_CELLS)])
        adata = screen(found.astype(kind))
        adata.write_h5ad(tmp_path / "screen.h5ad")
        for data in (adata, tmp_path / "screen.h5ad"):
            differential_expression(data, guides="g", comparison="rest", progress=False)


@pytest.mark.parametrize(
    "bad",
    [
        lambda: carried() * 2,
        lambda: carried() + 0.5,
        lambda: np.where(carried(), np.inf, 0),
        lambda: frame(categorical({True: "guide", False: "none"})),
        lambda: frame(lambda c: c.map({True: "2", False: "0"}).astype("string")),
        lambda: np.where(carried(), np.array([[], None], object)[:1], 0),
        lambda: carried().astype(complex),
        lambda: sparse.csr_matrix(carried() * 3.0),
    ],
)
def test_other_values_are_refused(bad):
    with pytest.raises(DataError, match="other than True and False"):
        differential_expression(screen(bad()), guides="g", comparison="rest", progress=False)


def test_all_of_a_guide_is_missing():
    index = [f"c{i}" for i in range(N_CELLS)]
    found = pd.DataFrame(carried(), columns=NAMES, index=index).astype("boolean")
    found["a"] = pd.NA
    with pytest.warns(MissingLabelWarning, match=r"90 of 90 cells, in 'a \(90\)'"):
        result = differential_expression(
            screen(found.astype("boolean")), guides="g", comparison="rest", progress=False
        )
    assert result.targets.tolist() == ["b", "nt"]


def test_too_many_pools_are_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(guides, "_MOST_POOLED", 200)
    with (
        pytest.warns(MissingLabelWarning),
        pytest.raises(DataError, match="have missing values in different cells"),
    ):
        differential_expression(
            screen(KINDS["boolean"]()), guides="g", comparison="rest", progress=False
        )


# --- labels -----------------------------------------------------------------------------------

COLUMNS: dict[str, Callable[[], Any]] = {
    "categorical": lambda: pd.Categorical.from_codes([0, 1, -1] * 30, ["ctrl", "b"]),
    "categories of numbers": lambda: pd.Categorical.from_codes([0, 1, -1] * 30, [7, 3]),
    "Int64": lambda: pd.array([7, 3, None] * 30, "Int64"),
    "UInt8": lambda: pd.array([7, 3, None] * 30, "UInt8"),
    "boolean": lambda: pd.array([True, False, None] * 30, "boolean"),
    "float": lambda: np.array([7.0, 3.0, np.nan] * 30),
    "text": lambda: pd.array(["ctrl", "b", None] * 30, "string"),
}


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("column", COLUMNS)
def test_missing_labels_are_left_out_wherever_they_are_stored(column, tmp_path):
    from pdex_gpu import pseudobulk

    adata = screen(carried())
    adata.obs["label"] = COLUMNS[column]()
    adata.obs["batch"] = ["x", "y"] * 45
    path, store = tmp_path / "screen.h5ad", tmp_path / "screen.zarr"
    with ad.settings.override(allow_write_nullable_strings=True), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path, convert_strings_to_categoricals=False)
        adata.write_zarr(store, convert_strings_to_categoricals=False)
        if column == "text":  # what is under the mask is no label
            with h5py.File(path, "r+") as file:
                there = file["obs/label/values"].asstr()[:]
                there[2::3] = "b"
                file["obs/label/values"][...] = there

    def compare(data: Any) -> Any:
        with pytest.warns(MissingLabelWarning, match="30 of 90 cells have no label"):
            return differential_expression(data, "label", comparison="rest", progress=False)

    def sums(data: Any) -> Any:
        with pytest.warns(MissingLabelWarning, match="30 of 90 cells have no label"):
            return pseudobulk(data, ["label", "batch"])

    want, bulk = compare(adata), sums(adata)
    assert len(want.targets) == 2
    for data in (path, store, ad.read_h5ad(path, backed="r")):
        found = compare(data)
        assert found.targets.tolist() == want.targets.tolist()
        assert_same_bits(found, want)
        assert sums(data).obs_names.tolist() == bulk.obs_names.tolist()
        np.testing.assert_array_equal(sums(data).X, bulk.X)


@pytest.mark.parametrize("comparison", ["rest", "perturbed"])
def test_messages_name_guides_alone(comparison):
    # Pools of cells have labels, too, which nobody gave.
    data = screen(KINDS["boolean"]())
    with (
        pytest.warns(MissingLabelWarning),
        pytest.raises(LabelError, match=r"Unknown group in column 'g': 'x'.* \(3\): ") as caught,
    ):
        differential_expression(
            data, None, reference="nt", guides="g", comparison=comparison, groups=["x"],
            progress=False,
        )  # fmt: skip
    assert "pool" not in str(caught.value)


def test_warning_points_to_the_call():
    with pytest.warns(MissingLabelWarning) as caught:
        differential_expression(
            screen(KINDS["boolean"]()), None, guides="g", comparison="rest", progress=False
        )
    assert [w.filename for w in caught if w.category is MissingLabelWarning] == [__file__]
