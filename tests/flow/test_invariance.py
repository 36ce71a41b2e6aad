"""The same bits in every column, whatever the chunks, workers, engine and storage.

On the CPU, and by the CUDA backend on an emulated device: each agrees with itself.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import reduce
from operator import add
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from emulated.build import needs_compiler
from scipy import sparse
from screens import as_anndata, backend_of

from pdex_gpu import DEResult, differential_expression
from pdex_gpu.results.schema import VALUES

METRICS = ["wilcoxon", "t-test", "anderson"]
N_CELLS, N_GENES = 2600, 23  # more cells and genes than one task takes


def make_counts() -> np.ndarray:
    rng = np.random.default_rng(1)
    counts = rng.poisson(rng.lognormal(-0.5, 1.5, N_GENES), (N_CELLS, N_GENES))
    counts[:, 4] = 0
    counts[:, 9] += rng.integers(0, 300, N_CELLS)
    return counts


COUNTS = make_counts()
LOGGED = np.log1p(COUNTS / (1 + COUNTS.sum(axis=1, keepdims=True)) * 50).astype(np.float32)
# Groups of one cell, of few (exact p-values) and of many; group 5 is the reference.
CODES = np.random.default_rng(2).choice(6, N_CELLS, p=[0.2, 0.3, 0.1, 0.005, 0.095, 0.3])
CODES[CODES == 3] = 1
CODES[[17, 1400, 2100, 5, 77]] = 3
CODES = np.append(CODES[:-1], 6)


BACKEND = "cpu"


@pytest.fixture(
    scope="module",
    params=["cpu", pytest.param("emulated-small", id="cuda-emulated", marks=needs_compiler)],
    autouse=True,
)
def backend(request: pytest.FixtureRequest) -> Iterator[str]:
    """The backend that :func:`run` uses."""
    with pytest.MonkeyPatch.context() as patch:
        name = backend_of(request.param, patch)
        patch.setattr(sys.modules[__name__], "BACKEND", name)
        yield name


def run(data: Any, metric: str, **options: Any) -> DEResult:
    given = {"engine": "serial", "backend": BACKEND, "progress": False} | options
    if BACKEND == "cuda":  # its one engine does all of that
        given["engine"] = "auto"
    result = differential_expression(data, "group", reference="ref", metric=metric, **given)
    assert result.provenance["backend"] == BACKEND
    return result


def screen(matrix: Any, codes: np.ndarray = CODES) -> anndata.AnnData:
    return as_anndata(matrix, codes, reference=5)


@pytest.fixture(scope="module")
def expected(backend: str) -> dict[str, DEResult]:
    """From CSR in memory, in one range, in this thread; means of expm1 besides."""
    adata = screen(sparse.csr_matrix(LOGGED))
    return {m: run(adata, m, exp_post_agg=False) for m in METRICS}


def assert_same(found: DEResult, expected: DEResult, columns: tuple[str, ...] = VALUES) -> None:
    assert found.targets.tolist() == expected.targets.tolist()
    for column in columns:
        assert found[column].tobytes() == expected[column].tobytes(), column


def test_the_screen_has_something_to_differ_in(expected: dict[str, DEResult]) -> None:
    result = expected["wilcoxon"]
    assert len(result.targets) == 6
    assert result.provenance["is_log1p"] is True
    assert np.isnan(result["percent_change"][:, 4]).all()
    p = result["p_value"]
    assert len(np.unique(p)) > 0.8 * p.size
    # Means of expm1 whose last bits depend on the order of additions.
    values = np.expm1(LOGGED[CODES == 1].astype(np.float64)).T.tolist()
    # Not `sum`, which compensates for rounding from Python 3.12 on.
    assert any(reduce(add, gene) != reduce(add, gene[::-1]) for gene in values)


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize(
    "options",
    [
        {"gene_chunk_size": 1},
        {"gene_chunk_size": 7},
        {"memory": 100_000},
        {"memory": 1},
        {"engine": "threads", "n_threads": 1},
        {"engine": "threads", "n_threads": 2},
        {"engine": "threads", "n_threads": 3, "n_workers": 2, "gene_chunk_size": 5},
        {"engine": "threads", "n_threads": 1, "n_workers": 3, "gene_chunk_size": 1},
        {"engine": "auto"},
    ],
    ids=str,
)
@pytest.mark.parametrize("metric", METRICS)
def test_the_way_work_is_spread(
    expected: dict[str, DEResult], metric: str, options: dict[str, Any]
) -> None:
    found = run(screen(sparse.csr_matrix(LOGGED)), metric, exp_post_agg=False, **options)
    assert_same(found, expected[metric])


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("backend", ["cpu"], indirect=True, scope="module")
@pytest.mark.parametrize("storage", ["csr", "C"])
def test_worker_processes(expected: dict[str, DEResult], storage: str) -> None:
    matrix = sparse.csr_matrix(LOGGED) if storage == "csr" else LOGGED
    found = run(screen(matrix), "t-test", exp_post_agg=False, engine="shared_memory", n_workers=2)
    assert found.provenance["engine"] == "shared_memory"
    assert_same(found, expected["t-test"])


def with_index_dtype(matrix: Any, dtype: str) -> Any:
    matrix.indices, matrix.indptr = matrix.indices.astype(dtype), matrix.indptr.astype(dtype)
    return matrix


def shuffled_with_duplicates(matrix: Any) -> Any:
    """Indices out of order, and each value as two entries that sum to it exactly."""
    data, indices = matrix.data, matrix.indices
    halves = np.concatenate([data / 2, data / 2])
    twice = np.concatenate([indices, indices])
    lines = np.repeat(np.arange(len(matrix.indptr) - 1), np.diff(matrix.indptr))
    order = np.lexsort((np.random.default_rng(3).random(len(halves)), np.tile(lines, 2)))
    other = type(matrix)((halves[order], twice[order], 2 * matrix.indptr), shape=matrix.shape)
    assert not other.has_canonical_format
    return other


def strided(matrix: np.ndarray) -> np.ndarray:
    wide = np.zeros((2 * N_CELLS, 2 * N_GENES), matrix.dtype)
    wide[::2, ::2] = matrix
    return wide[::2, ::2]


STORAGE = {
    "C": lambda: LOGGED,
    "F": lambda: np.asfortranarray(LOGGED),
    "strided": lambda: strided(LOGGED),
    "CSR array": lambda: sparse.csr_array(LOGGED),
    "CSR int64": lambda: with_index_dtype(sparse.csr_matrix(LOGGED), "int64"),
    "CSC": lambda: sparse.csc_matrix(LOGGED),
    "CSC int64": lambda: with_index_dtype(sparse.csc_matrix(LOGGED), "int64"),
    "CSR not canonical": lambda: shuffled_with_duplicates(sparse.csr_matrix(LOGGED)),
    "CSC not canonical": lambda: shuffled_with_duplicates(sparse.csc_matrix(LOGGED)),
}


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("storage", STORAGE)
def test_storage_in_memory(expected: dict[str, DEResult], storage: str, metric: str) -> None:
    adata = screen(STORAGE[storage]())
    found = run(adata, metric, exp_post_agg=False, gene_chunk_size=9)
    assert_same(found, expected[metric])


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("storage", ["CSR", "CSC", "dense"])
def test_storage_in_a_file(expected: dict[str, DEResult], storage: str, tmp_path: Path) -> None:
    matrix = {"CSR": sparse.csr_matrix, "CSC": sparse.csc_matrix, "dense": np.asarray}[storage](
        LOGGED
    )
    path = tmp_path / "screen.h5ad"
    screen(matrix).write_h5ad(path, compression="gzip")
    for metric in METRICS:
        assert_same(run(path, metric, exp_post_agg=False, gene_chunk_size=9), expected[metric])
    assert_same(
        run(path, "t-test", exp_post_agg=False, engine="threads", n_workers=2, n_threads=2,
            memory=150_000),
        expected["t-test"],
    )  # fmt: skip
    backed = anndata.read_h5ad(path, backed="r")
    assert_same(run(backed, "t-test", exp_post_agg=False), expected["t-test"])
    backed.file.close()


def test_a_view_is_what_a_copy_is() -> None:
    adata = screen(sparse.csr_matrix(LOGGED))
    view = adata[100:2500:2, 3:20]
    assert view.is_view
    assert_same(run(view, "t-test"), run(view.copy(), "t-test"))


@pytest.mark.sampled(every=5)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("values", ["counts", "log1p"])
def test_the_order_of_the_cells(metric: str, values: str) -> None:
    """Sums of floating-point numbers depend on it, ranks do not; nor do sums of counts."""
    x = COUNTS.astype(np.float32) if values == "counts" else LOGGED
    shuffled = np.random.default_rng(4).permutation(N_CELLS)
    one = run(screen(sparse.csr_matrix(x)), metric)
    other = run(screen(sparse.csr_matrix(x[shuffled]), CODES[shuffled]), metric)
    if metric != "t-test":
        assert_same(other, one, ("statistic", "p_value", "fdr"))
    if values == "counts":
        assert_same(other, one, ("target_mean", "reference_mean", "fold_change"))
    for column in VALUES:
        # Worst seen: 2e-15.
        np.testing.assert_allclose(other[column], one[column], rtol=1e-11, err_msg=column)


def test_the_order_of_the_genes() -> None:
    shuffled = np.random.default_rng(5).permutation(N_GENES)
    one = run(screen(sparse.csr_matrix(LOGGED)), "t-test")
    other = run(screen(sparse.csr_matrix(LOGGED[:, shuffled])), "t-test")
    for column in VALUES:
        assert other[column].tobytes() == one[column][:, shuffled].tobytes(), column


@pytest.mark.parametrize("metric", METRICS)
def test_a_group_does_not_know_of_the_others(metric: str) -> None:
    adata = screen(sparse.csr_matrix(LOGGED))
    whole, alone = run(adata, metric), run(adata, metric, groups=["t03", "t01"])
    assert alone.targets.tolist() == ["t03", "t01"]
    for t, target in enumerate(alone.targets):
        row = int(np.flatnonzero(whole.targets == target)[0])
        for column in VALUES:
            if column != "fdr":
                assert alone[column][t].tobytes() == whole[column][row].tobytes(), column


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", ["uint16", "int64", "float64", "int16"])
def test_counts_of_any_dtype(metric: str, dtype: str) -> None:
    expected = run(screen(sparse.csr_matrix(COUNTS.astype(np.float32))), metric)
    assert expected.provenance["is_log1p"] is False
    assert_same(run(screen(sparse.csr_matrix(COUNTS.astype(dtype))), metric), expected)


def test_log_values_of_any_float() -> None:
    expected = run(screen(sparse.csr_matrix(LOGGED)), "t-test")
    assert_same(run(screen(sparse.csr_matrix(LOGGED.astype(np.float64))), "t-test"), expected)


@pytest.mark.parametrize("metric", METRICS)
def test_scaled_counts_beyond_16_bits(metric: str) -> None:
    """Ranks know no scale: from a table of counts to a sort of 64-bit integers."""
    # The next possible sum is 1 away from that of whole numbers, whatever their scale.
    options = {"p_values": "asymptotic"} if metric == "t-test" else {}
    expected = run(screen(sparse.csr_matrix(COUNTS)), metric, **options)
    found = run(screen(sparse.csr_matrix(COUNTS * 2**40)), metric, **options)
    assert_same(found, expected, ("statistic", "p_value", "fdr", "fold_change", "percent_change"))
