"""Cells with several guides: every cell counts for each guide that it carries."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_intervals import mean_interval
from scipy import sparse, stats

import pdex_gpu
from pdex_gpu import errors

anndata = pytest.importorskip("anndata")
pd = pytest.importorskip("pandas")

N_CELLS, N_GENES = 150, 5
NAMES = ["a", "b", "c", "d", "nt"]


def values() -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.log1p(rng.poisson(1.0, (N_CELLS, N_GENES))).astype(np.float32)


def carried() -> np.ndarray:
    carried = np.random.default_rng(2).random((N_CELLS, len(NAMES))) < 0.3
    carried[:4] = False  # no guide at all
    carried[:2, 0] = True
    return carried


def screen(make: Callable[[np.ndarray], Any] = np.asarray) -> Any:
    index = [f"c{i}" for i in range(N_CELLS)]
    batch = np.random.default_rng(3).choice(["u", "v"], N_CELLS)
    return anndata.AnnData(
        make(values()),
        obs=pd.DataFrame({"batch": batch}, index=index),
        obsm={
            "guides": pd.DataFrame(carried(), columns=NAMES, index=index),
            "array": carried(),
            "sparse": sparse.csr_matrix(carried()),
        },
    )


def run(data: Any, **options: Any) -> Any:
    given = {"guides": "guides", "reference": "nt", "backend": "numpy", "progress": False}
    return pdex_gpu.differential_expression(data, **{**given, **options})


def sides(comparison: str, target: str) -> tuple[np.ndarray, np.ndarray]:
    """Cells of the target and of what it is compared with."""
    by_name = dict(zip(NAMES, carried().T, strict=True))
    own = by_name[target]
    if comparison == "reference":
        return own, by_name["nt"]
    if comparison == "perturbed":
        return own, carried()[:, :4].any(axis=1) & ~own
    return own, ~own


def assert_right(result: Any, comparison: str, cells: np.ndarray | None = None) -> None:
    x = values().astype(np.float64)
    cells = np.ones(N_CELLS, bool) if cells is None else cells
    expected = [n for n in NAMES if comparison == "rest" or n != "nt"]
    assert result.targets.tolist() == expected
    for t, name in enumerate(expected):
        target, reference = (side & cells for side in sides(comparison, name))
        assert (result["target_n_cells"][t] == target.sum()).all()
        assert (result["reference_n_cells"][t] == reference.sum()).all()
        for j in range(N_GENES):
            a, b = x[target, j], x[reference, j]
            truth = stats.mannwhitneyu(a, b)
            assert result["statistic"][t, j] == truth.statistic
            np.testing.assert_allclose(result["p_value"][t, j], truth.pvalue, rtol=1e-12)
            assert result["reference_n_expressed"][t, j] == np.count_nonzero(b)
            np.testing.assert_allclose(  # worst seen: 3e-15 relative
                [result["mean_difference_low"][t, j], result["mean_difference_high"][t, j]],
                mean_interval(a, b, 0.95), rtol=1e-12, atol=1e-13,
            )  # fmt: skip


COLUMNS = ["target_n_cells", "reference_n_cells", "reference_n_expressed", "mean_difference_low",
           "mean_difference_high"]  # fmt: skip


@pytest.mark.parametrize("backend", ["numpy", "cpu"])
@pytest.mark.parametrize("comparison", ["reference", "rest", "perturbed"])
def test_against_scipy(comparison: str, backend: str) -> None:
    options = {"columns": COLUMNS, "p_values": "asymptotic"}
    assert_right(run(screen(), comparison=comparison, backend=backend, **options), comparison)


@pytest.mark.parametrize("stored", ["memory", "file"])
@pytest.mark.parametrize(
    "make", [np.asarray, np.asfortranarray, sparse.csr_matrix, sparse.csc_matrix]
)
def test_every_storage_gives_the_same_bits(make: Any, stored: str, tmp_path: Path) -> None:
    plain = run(screen(), comparison="rest", backend="cpu", columns=["log10_p", "auroc"])
    data: Any = screen(make)
    if stored == "file":
        if make is np.asfortranarray:
            pytest.skip("files have no such order")
        data.write_h5ad(tmp_path / "screen.h5ad")
        data = tmp_path / "screen.h5ad"
    for chunk in (None, 2):
        found = run(
            data, comparison="rest", backend="cpu", columns=["log10_p", "auroc"],
            gene_chunk_size=chunk,
        )  # fmt: skip
        for name in found.columns:
            assert found[name].tobytes() == plain[name].tobytes(), name


@pytest.mark.parametrize("matrix", ["array", "sparse"])
def test_columns_without_names_are_numbered(matrix: str, tmp_path: Path) -> None:
    data = screen()
    data.write_h5ad(tmp_path / "screen.h5ad")
    named = run(data, comparison="rest")
    for where in (data, tmp_path / "screen.h5ad"):
        found = run(where, comparison="rest", guides=matrix)
        assert found.targets.tolist() == ["0", "1", "2", "3", "4"]
        assert found["p_value"].tobytes() == named["p_value"].tobytes()


def test_pairs_and_groups() -> None:
    found = run(screen(), comparison="pairs", pairs=[("b", "a"), ("a", "c")])
    x = values().astype(np.float64)
    by_name = dict(zip(NAMES, carried().T, strict=True))
    for row, (target, reference) in enumerate([("b", "a"), ("a", "c")]):
        truth = stats.mannwhitneyu(x[by_name[target], 2], x[by_name[reference], 2])
        assert found["statistic"][row, 2] == truth.statistic
    everything = run(screen(), comparison="rest")
    some = run(screen(), comparison="rest", groups=["c", "a"])
    assert some.targets.tolist() == ["c", "a"]
    assert some["p_value"].tobytes() == everything["p_value"][[2, 0]].tobytes()


def test_strata_are_of_the_cells() -> None:
    data = screen()
    found = run(data, comparison="rest", strata="batch", columns=["target_n_cells", "n_strata"])
    assert (found["n_strata"] == 2).all()
    np.testing.assert_array_equal(found["target_n_cells"][:, 0], carried().sum(axis=0))
    one = data[data.obs["batch"] == "u"].copy()
    alone = run(one, comparison="rest", strata="batch", continuity=False)
    plain = run(one, comparison="rest", continuity=False, method="asymptotic")
    np.testing.assert_allclose(alone["p_value"], plain["p_value"], rtol=1e-12)


def test_a_result_in_a_file_is_the_same(tmp_path: Path) -> None:
    plain = run(screen(), comparison="rest")
    stored = run(screen(), comparison="rest", out=tmp_path / "de.parquet").load()
    assert stored["p_value"].tobytes() == plain["p_value"].tobytes()


def refused(kind: type[Exception], *fragments: str, data: Any = None, **options: Any) -> None:
    with pytest.raises(kind) as caught:
        run(screen() if data is None else data, **options)
    for fragment in fragments:
        assert fragment in str(caught.value), str(caught.value)


def test_what_is_refused(tmp_path: Path) -> None:
    refused(errors.ColumnError, "Unknown matrix of obsm 'guide'", "'guides'", guides="guide")
    refused(errors.OptionError, "Pass groupby=None", groupby="batch")
    refused(errors.OptionError, "on_target=", "guides=", on_target="batch")
    refused(errors.LabelError, "reference", "'none'", reference="none", comparison="perturbed")
    refused(errors.LabelError, "reference", "'none'", reference="none")
    data = screen()
    data.obsm["numbers"] = np.full((N_CELLS, 2), 3)
    data.obsm["nobody"] = np.zeros((N_CELLS, 2), bool)
    refused(errors.DataError, "'numbers'", "other than True and False", data=data,
            guides="numbers")  # fmt: skip
    refused(errors.LabelError, "No cell carries a guide", data=data, guides="nobody",
            comparison="reference")  # fmt: skip


@pytest.mark.parametrize("shape", [(N_CELLS - 1, 2), (N_CELLS,)])
def test_a_matrix_of_the_wrong_shape(shape: tuple[int, ...], tmp_path: Path) -> None:
    """anndata refuses it in memory; a file may have it all the same."""
    h5py = pytest.importorskip("h5py")
    screen().write_h5ad(tmp_path / "screen.h5ad")
    with h5py.File(tmp_path / "screen.h5ad", "r+") as file:
        del file["obsm/array"]
        file["obsm/array"] = np.ones(shape, bool)
        file["obsm/array"].attrs["encoding-type"] = "array"
    refused(
        errors.DataError, "Matrix 'array' of obsm", str(shape), f"{N_CELLS} cells x perturbations",
        data=tmp_path / "screen.h5ad", guides="array",
    )  # fmt: skip
