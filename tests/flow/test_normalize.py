"""normalize= gives the bits of the normalised matrix, whatever the counts are stored in."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from dask_clusters import STORAGE, cluster
from emulated.build import needs_compiler
from scipy import sparse, stats
from screens import backend_of
from stopped_runs import interrupted
from stored_screens import GROUPBY, REFERENCE, assert_same_bits, counts, screen

from pdex_gpu import DEResult, differential_expression
from pdex_gpu.backends.cpu.transforms import log1p_of
from pdex_gpu.errors import (
    CheckpointError,
    ColumnError,
    DataError,
    OptionError,
    ScaleWarning,
    UnsupportedDataError,
)

COUNTS = counts().astype(np.float64)
COUNTS[4, :] *= 100_000  # a count that no table holds
TOTALS = COUNTS.sum(axis=1)
METRICS = ["wilcoxon", "t-test", "anderson", "ks"]


def log1p(values: np.ndarray) -> np.ndarray:
    out = np.empty(values.size)
    log1p_of(values.ravel(), out)
    return out.reshape(values.shape)


def normalised(values: np.ndarray = COUNTS, target: float = 1e4) -> np.ndarray:
    """``log1p(target * (count / total))``, each step rounded once; 0 in cells without counts."""
    totals = values.sum(axis=1, keepdims=True)
    return log1p(target * np.divide(values, totals, out=np.zeros(values.shape), where=totals > 0))


def run(data: Any, metric: str = "wilcoxon", **options: Any) -> DEResult:
    given = {"backend": "cpu", "progress": False, "columns": "all"} | options
    return differential_expression(data, GROUPBY, reference=REFERENCE, metric=metric, **given)


def in_float32(values: np.ndarray = COUNTS) -> np.ndarray:
    assert (values.astype(np.float32) == values).all()
    return values.astype(np.float32)


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("storage", STORAGE)
def test_every_form_of_storage(storage: str, tmp_path: Path) -> None:
    data = STORAGE[storage](in_float32(), tmp_path)
    for metric in METRICS:
        expected = run(screen(normalised()), metric, is_log1p=True)
        for options in ({}, {"gene_chunk_size": 2}, {"memory": 1, "engine": "serial"}):
            assert_same_bits(run(data, metric, normalize=1e4, **options), expected)
        found = run(data, metric, normalize="median", gene_chunk_size=4)
        by_median = normalised(target=float(np.median(TOTALS[TOTALS > 0])))
        assert_same_bits(found, run(screen(by_median), metric, is_log1p=True))


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "memory csr", "h5ad dense rows"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64", "uint64", "float64", "bool"])
def test_every_dtype(storage: str, dtype: str, tmp_path: Path) -> None:
    values = counts().astype(dtype)
    data = STORAGE[storage](values, tmp_path)
    expected = run(screen(normalised(values.astype(np.float64))), is_log1p=True)
    assert_same_bits(run(data, normalize=1e4), expected)


@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "memory csr", "memory csc"])
def test_the_whole_matrix_in_one_range(storage: str, tmp_path: Path) -> None:
    data = STORAGE[storage](in_float32(), tmp_path)
    for target in (1e4, "median"):
        found = run(data, normalize=target, n_workers=1, engine="threads")
        sum_of = 1e4 if target == 1e4 else float(np.median(TOTALS[TOTALS > 0]))
        assert_same_bits(found, run(screen(normalised(target=sum_of)), is_log1p=True))


@pytest.mark.thorough
@pytest.mark.parametrize("matrix", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_engines(matrix: Any) -> None:
    expected = run(screen(normalised()), is_log1p=True)
    adata = screen(matrix(in_float32()))
    for options in (
        {"engine": "threads", "n_workers": 3, "n_threads": 2, "gene_chunk_size": 1},
        {"engine": "shared_memory", "n_workers": 2},
    ):
        assert_same_bits(run(adata, normalize=1e4, **options), expected)
    assert_same_bits(run(adata, normalize=1e4, backend="numpy"), run(
        screen(normalised()), is_log1p=True, backend="numpy"))  # fmt: skip


@pytest.mark.sampled(every=3)
@needs_compiler
@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "memory csr", "memory dense"])
def test_an_emulated_device(storage: str, tmp_path: Path, monkeypatch: Any) -> None:
    expected = {m: run(screen(normalised()), m, is_log1p=True) for m in METRICS}
    data = STORAGE[storage](in_float32(), tmp_path)
    name = backend_of("emulated", monkeypatch)
    for metric in METRICS:
        found = run(data, metric, normalize=1e4, backend=name)
        assert found.provenance["backend"] == "cuda"
        assert_same_bits(found, expected[metric])


@pytest.fixture(scope="module", params=(1, 5), ids=lambda n: f"{n} workers")
def client(request: pytest.FixtureRequest) -> Iterator[Any]:
    with cluster(request.param) as found:
        yield found


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize(
    "storage", ["h5ad csr", "h5ad csc", "h5ad dense rows", "zarr csr", "memory csr", "backed csr"]
)
def test_a_cluster(client: Any, storage: str, tmp_path: Path) -> None:
    data = STORAGE[storage](in_float32(), tmp_path)
    for target in (1e4, "median"):
        found = run(data, normalize=target, engine="dask", client=client, gene_chunk_size=2)
        sum_of = 1e4 if target == 1e4 else float(np.median(TOTALS[TOTALS > 0]))
        assert_same_bits(found, run(screen(normalised(target=sum_of)), is_log1p=True))


def test_a_dask_array_cannot_be_sent_to_a_cluster(client: Any, tmp_path: Path) -> None:
    data = STORAGE["dask rows csr"](in_float32(), tmp_path)
    with pytest.raises(UnsupportedDataError, match=r"cannot send its workers a dask array"):
        run(data, normalize=1e4, engine="dask", client=client)


@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "memory csr", "memory dense"])
def test_size_factors_totals_and_no_log1p(storage: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    factors = rng.uniform(0.3, 3.0, len(COUNTS))
    totals = np.maximum(TOTALS, 1.0) * rng.integers(1, 4, len(COUNTS))

    def labelled(data: Any) -> Any:
        if isinstance(data, Path):
            adata = ad.read_h5ad(data)
            adata.obs["factor"], adata.obs["total"] = factors, totals
            adata.write_h5ad(data)
            return data
        data.obs["factor"], data.obs["total"] = factors, totals
        return data

    data = labelled(STORAGE[storage](in_float32(), tmp_path))
    by_factor = COUNTS / factors[:, None]
    expected = run(screen(log1p(by_factor)), is_log1p=True)
    assert_same_bits(run(data, normalize="factor", gene_chunk_size=4), expected)
    expected = run(screen(by_factor), is_log1p=False)
    assert_same_bits(run(data, normalize="factor", log1p=False), expected)
    by_total = 1e6 * (COUNTS / totals[:, None])
    expected = run(screen(log1p(by_total)), is_log1p=True)
    assert_same_bits(run(data, normalize=1e6, totals="total"), expected)


def test_u_is_that_of_exact_ratios() -> None:
    """Equal ratios of different counts tie; different ones do not, however close."""
    rng = np.random.default_rng(8)
    n = 160
    values = np.zeros((n, 4))
    totals = rng.integers(90_000, 100_001, n)
    totals[::7] = totals[0] - totals[0] % 12
    values[:, 0] = rng.integers(1, 4, n)  # 1/t, 2/t and 3/t of close totals
    values[:, 1] = np.where(np.arange(n) % 7 == 0, totals // 12, rng.integers(0, 9, n))
    values[:, 2] = totals // 3
    values[:, 3] = totals - values[:, :3].sum(axis=1)
    labels = [REFERENCE] * (n // 2) + ["A"] * (n - n // 2)
    obs = pd.DataFrame({GROUPBY: labels}, index=[f"c{i}" for i in range(n)])
    adata = ad.AnnData(sparse.csr_matrix(values), obs=obs)
    found = run(adata, normalize=1e4)
    sums = values.sum(axis=1)
    for j in range(4):
        exact = [Fraction(int(x), int(t)) for x, t in zip(values[:, j], sums, strict=True)]
        ranks = {value: rank for rank, value in enumerate(sorted(set(exact)))}
        order = np.array([ranks[value] for value in exact])
        a, b = order[n // 2 :], order[: n // 2]
        u = stats.mannwhitneyu(a, b).statistic
        assert found["statistic"][0, j] == u
    assert len(set(exact)) < n  # some tie


def unordered(matrix: Any) -> Any:
    """The entries of each line in another order, and some of them in two parts."""
    data, indices, indptr = [], [], [0]
    for i in range(len(matrix.indptr) - 1):
        line = slice(matrix.indptr[i], matrix.indptr[i + 1])
        x, j = matrix.data[line][::-1], matrix.indices[line][::-1]
        parts = np.floor(x / 2)
        data += [*(x - parts), *parts]
        indices += [*j, *j]
        indptr.append(len(data))
    return type(matrix)((np.array(data), np.array(indices), indptr), shape=matrix.shape)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix])
@pytest.mark.parametrize("in_file", [False, True])
def test_entries_in_any_order_are_added_before_they_are_scaled(
    kind: Any, in_file: bool, tmp_path: Path
) -> None:
    adata = screen(unordered(kind(in_float32())))
    if in_file:
        adata.write_h5ad(tmp_path / "unordered.h5ad")
    data = tmp_path / "unordered.h5ad" if in_file else adata
    expected = run(screen(normalised()), is_log1p=True)
    assert_same_bits(run(data, normalize=1e4), expected)
    assert_same_bits(run(data, normalize=1e4, gene_chunk_size=2, memory=1), expected)


@pytest.mark.parametrize("kind", [sparse.csr_matrix, sparse.csc_matrix, np.asarray])
def test_views_and_guides(kind: Any, tmp_path: Path) -> None:
    adata = screen(kind(in_float32()))
    carried = np.random.default_rng(3).random((len(COUNTS), 3)) < 0.4
    adata.obsm["guides"] = pd.DataFrame(carried, index=adata.obs_names, columns=list("xyz"))
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    expected = screen(normalised())
    expected.obsm["guides"] = adata.obsm["guides"]
    order = np.random.default_rng(4).permutation(len(COUNTS))[:40]
    view = screen(normalised(COUNTS[:, 1:]))[order]
    of_view = run(view, is_log1p=True)
    backed = ad.read_h5ad(path, backed="r")
    for data in (adata, backed):
        assert_same_bits(run(data[order, 1:], normalize=1e4), of_view)
    for data in (adata, backed, path):
        for options in ({"normalize": 1e4}, {"normalize": "median"}):
            target = 1e4 if options["normalize"] == 1e4 else float(np.median(TOTALS[TOTALS > 0]))
            expected.X = normalised(target=target)
            found = differential_expression(data, guides="guides", comparison="rest", **options)
            assert_same_bits(
                found, differential_expression(expected, guides="guides", comparison="rest")
            )
    backed.file.close()


def test_cells_without_counts_stay_0_and_are_counted() -> None:
    values = COUNTS.copy()
    values[[3, 20]] = 0.0
    expected = run(screen(normalised(values)), is_log1p=True)
    for kind in (sparse.csr_matrix, sparse.csc_matrix, np.asarray):
        adata = screen(kind(in_float32(values)))
        with pytest.warns(ScaleWarning, match=r"^2 of 55 cells have a total of 0"):
            assert_same_bits(run(adata, normalize=1e4), expected)


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("storage", ["h5ad csr", "h5ad csc", "memory csr", "memory csc",
                                     "memory dense", "h5ad dense"])  # fmt: skip
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (-1.0, "which are not negative"),
        (0.5, "which are whole numbers"),
        (np.nan, "needs finite counts"),
        (np.inf, "needs finite counts"),
        (2.0**54, r"takes up to 2\^53"),
    ],
)
@pytest.mark.parametrize("given", [False, True])
def test_values_that_are_no_counts(
    storage: str, value: float, reason: str, given: bool, tmp_path: Path
) -> None:
    values = COUNTS.copy()
    values[11, 6] = value
    data = STORAGE[storage](values, tmp_path)
    options = {"totals": "batch"} if given else {}
    where = r"in cell 'cell11' \(row 11\), gene 'gene6' \(column 6\)[.,] .*normalize="
    with pytest.raises(DataError, match=f"{where}.*{reason}|{where}.*{reason}"):
        run(data, normalize=1e4, **options)


@pytest.mark.sampled(every=4)
@pytest.mark.parametrize("storage", STORAGE)
def test_totals_that_are_not_exact(storage: str, tmp_path: Path) -> None:
    values = COUNTS.copy()
    values[11, 5:7] = 2.0**53
    data = STORAGE[storage](values, tmp_path)
    with pytest.raises(DataError, match=r"in cell 'cell11' \(row 11\) add up to .*than 2\^53"):
        run(data, normalize=1e4)


def test_columns_of_totals_and_size_factors_that_do_not_fit() -> None:
    adata = screen(sparse.csr_matrix(in_float32()))
    adata.obs["text"] = "a"
    adata.obs["hole"] = np.where(np.arange(len(COUNTS)) == 7, np.nan, 1.0)
    adata.obs["zero"] = np.where(np.arange(len(COUNTS)) == 7, 0.0, 1.0)
    adata.obs["less"] = np.where(np.arange(len(COUNTS)) == 7, -2.0, 1.0)
    for column in ("text", "hole", "less"):
        with pytest.raises(DataError, match=rf"totals='{column}'.*no total that is not negative"):
            run(adata, normalize=1e4, totals=column)
    for column in ("text", "hole", "less", "zero"):
        with pytest.raises(DataError, match=rf"normalize='{column}'.*no size factor above 0"):
            run(adata, normalize=column)
    with pytest.raises(DataError, match=r"cell 'cell7' \(row 7\).*its total in column 'zero' of"):
        run(adata, normalize=1e4, totals="zero")
    with pytest.raises(ColumnError, match=r"'hol'.*'hole'"):
        run(adata, normalize=1e4, totals="hol")
    with pytest.raises(ColumnError, match="'medan'"):
        run(adata, normalize="medan")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"normalize": 0}, "normalize=0 must be a sum per cell above 0"),
        ({"normalize": -1e4}, "must be a sum per cell above 0"),
        ({"normalize": float("nan")}, "normalize=nan must be"),
        ({"normalize": ""}, "normalize='' must be"),
        ({"normalize": True}, "normalize=True must be"),
        ({"log1p": True}, "log1p=True says how counts are normalised, but normalize= is not"),
        ({"totals": "n"}, "totals='n' says how"),
        ({"normalize": "size", "totals": "n"}, "is a column of size factors"),
        ({"normalize": 1e4, "log1p": 2}, "log1p=2"),
        ({"normalize": 1e4, "is_log1p": False}, "is_log1p=False contradicts normalize=1"),
        ({"normalize": 1e4, "log1p": False, "is_log1p": True}, "contradicts"),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        run(screen(), **options)


def test_a_run_resumes_only_with_the_same_normalisation(tmp_path: Path) -> None:
    adata = screen(sparse.csr_matrix(in_float32()))
    adata.obs["factor"] = 2.0
    path = tmp_path / "screen.h5ad"
    adata.write_h5ad(path)
    out = tmp_path / "result.parquet"

    options = {"out": out, "gene_chunk_size": 1, "columns": (), "engine": "serial"}
    interrupted(out, 3, path, normalize="factor", backend="cpu")
    with pytest.raises(CheckpointError, match="normalize"):
        run(path, normalize=1e4, **options)
    run(path, normalize="factor", **options)
    expected = run(path, normalize="factor", columns=()).to_pandas()
    pd.testing.assert_frame_equal(pd.read_parquet(out), expected)


def test_without_normalize_a_warning_names_it() -> None:
    values = COUNTS * 1.5
    with pytest.warns(ScaleWarning, match="normalize=1e4"):
        run(screen(values))
    with pytest.warns(ScaleWarning, match="normalize=1e4"):
        run(screen(COUNTS), is_log1p=True)
