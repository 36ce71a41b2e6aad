"""Indices out of order and repeated: put in order as a matrix is read, wherever it is stored.

The truth is the same matrix in memory, to the last bit.
"""

from __future__ import annotations

import itertools
import warnings
from pathlib import Path
from typing import Any

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from emulated.build import needs_compiler
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from screens import backend_of
from stored_screens import GROUPBY, LABELS, REFERENCE, assert_same_bits, logged, screen

from pdex_gpu import calibrate, differential_expression, pseudobulk
from pdex_gpu.errors import DataError
from pdex_gpu.sources import order
from pdex_gpu.sources.anndata_files.nodes import from_node
from pdex_gpu.sources.base import NotCanonicalError, Reading
from pdex_gpu.sources.order import close_gaps, in_order, put_in_order
from pdex_gpu.sources.rechunk import store
from pdex_gpu.sources.stored import sparse as stored_sparse

KINDS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def disordered(values: np.ndarray, kind: str, *, repeated: bool = True, seed: int = 0) -> Any:
    """The matrix with the entries of each line shuffled, and some of them cut into three."""
    rng = np.random.default_rng(seed)
    whole = KINDS[kind](values)
    lines = np.repeat(np.arange(len(whole.indptr) - 1), np.diff(whole.indptr))
    data, indices = whole.data, whole.indices
    if repeated:
        cut = rng.random(len(data)) < 0.3
        shares = [data[cut] * np.float32(share) for share in (0.1, 0.7)]
        data = np.concatenate([data, *shares])
        lines = np.concatenate([lines, lines[cut], lines[cut]])
        indices = np.concatenate([indices, indices[cut], indices[cut]])
    shuffled = np.lexsort((rng.random(len(data)), lines))
    indptr = np.searchsorted(lines[shuffled], np.arange(len(whole.indptr)))
    parts = data[shuffled], indices[shuffled], indptr
    found = type(whole)(parts, shape=whole.shape)
    found.has_sorted_indices = found.has_canonical_format = False
    return found


# --- lines put in order -----------------------------------------------------------------------


@given(
    lengths=st.lists(st.integers(0, 12), min_size=1, max_size=8),
    limit=st.sampled_from([1, 3, 40, 1 << 40]),
    dtype=st.sampled_from(["f4", "f8", "i4", "u8", "?"]),
    at_once=st.sampled_from([1, 7, 1 << 16]),
    seed=st.integers(0, 1 << 16),
)
@settings(max_examples=60, deadline=None)
def test_lines_are_sorted_and_summed(lengths, limit, dtype, at_once, seed):
    rng = np.random.default_rng(seed)
    bounds = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    indices = rng.integers(0, limit, bounds[-1])
    data = (rng.integers(0, 9, bounds[-1]) / (7 if dtype[0] == "f" else 1)).astype(dtype)
    truth: list[list[tuple[int, Any]]] = []
    for a, b in itertools.pairwise(bounds):
        entries: dict[int, Any] = {}
        for index, value in zip(indices[a:b].tolist(), data[a:b], strict=True):
            entries[index] = entries[index] + value if index in entries else value
        truth.append(sorted(entries.items()))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order, "SORTED_AT_ONCE", at_once)
        found, places, cuts = in_order(data.copy(), indices.copy(), bounds)
    assert found.dtype == data.dtype
    assert cuts.tolist() == [0, *itertools.accumulate(map(len, truth))]
    assert places.tolist() == [index for line in truth for index, _ in line]
    # Up to eight floats are added one by one, more of them in pairs: worst seen 1 ulp.
    values = np.array([value for line in truth for _, value in line], dtype)
    np.testing.assert_allclose(found, values, rtol=1e-6 if dtype == "f4" else 1e-14)


def test_lines_in_order_are_left_alone():
    data, indices = np.arange(6.0), np.array([5, 0, 1, 2, 0, 4])
    data.flags.writeable = indices.flags.writeable = False
    bounds = np.array([0, 1, 4, 4, 6])
    ends = put_in_order(data, indices, bounds)
    assert ends.tolist() == bounds[1:].tolist()
    assert close_gaps(data, indices, bounds, ends)[0] is data


def test_whole_numbers_that_do_not_fit_are_told():
    """scipy lets them wrap around: 100 and 100 are -56."""
    matrix = sparse.csr_matrix(
        (np.array([100, 100, 1], np.int8), np.array([1, 1, 0]), np.array([0, 3])), shape=(1, 2)
    )
    with pytest.raises(DataError, match="add up to more than int8 can hold"):
        in_order(matrix.data, matrix.indices, matrix.indptr.astype(np.int64))
    for dtype in ("i8", "u8"):
        big = np.full(2, np.iinfo(dtype).max // 2 + 1, dtype)
        with pytest.raises(DataError, match="add up to more"):
            in_order(big, np.zeros(2, np.int64), np.array([0, 2]))


# --- files ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lines are sorted, and blocks split, a few at a time."""
    monkeypatch.setattr(store, "_SMALLEST_BLOCK", 60)
    monkeypatch.setattr(stored_sparse, "_PIECE", 50)
    monkeypatch.setattr(order, "SORTED_AT_ONCE", 20)


def write(adata: ad.AnnData, folder: Path, how: str) -> str:
    path = folder / f"screen.{how}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on zarr formats
        adata.write_zarr(path) if how == "zarr" else adata.write_h5ad(path, compression="gzip")
    return str(path)


def run(data: Any, **options: Any) -> Any:
    return differential_expression(data, GROUPBY, reference=REFERENCE, progress=False, **options)


@pytest.mark.sampled(every=3)
@pytest.mark.parametrize("options", [{}, {"gene_chunk_size": 2}], ids=["whole", "ranges"])
@pytest.mark.parametrize("repeated", [False, True], ids=["shuffled", "repeated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("how", ["h5ad", "zarr"])
def test_paths(how, kind, repeated, options, tmp_path):
    if how == "zarr":
        pytest.importorskip("zarr")
    adata = screen(disordered(logged(), kind, repeated=repeated))
    path = write(adata, tmp_path, how)
    want = run(adata)
    assert_same_bits(run(path, **options), want)
    assert not adata.X.has_canonical_format  # the caller's matrix stays as it is


@pytest.mark.parametrize("kind", KINDS)
def test_a_matrix_in_order_has_the_same_bits(kind, tmp_path):
    want = run(screen(KINDS[kind](logged())))
    path = write(screen(disordered(logged(), kind, repeated=False)), tmp_path, "h5ad")
    assert_same_bits(run(path), want)


@pytest.mark.parametrize("kind", KINDS)
def test_backed_and_views_of_it(kind, tmp_path):
    adata = screen(disordered(logged(), kind))
    backed = ad.read_h5ad(write(adata, tmp_path, "h5ad"), backed="r")
    assert_same_bits(run(backed), run(adata))
    cells = np.random.default_rng(1).permutation(len(LABELS))[:50]
    for genes in (slice(None), [7, 2, 2, 0, 5], slice(1, 6)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # gene names that repeat
            assert_same_bits(run(backed[cells, genes]), run(adata[cells, genes].copy()))
    backed.file.close()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_dask_arrays(kind, tmp_path):
    da = pytest.importorskip("dask.array")
    matrix = disordered(logged(), kind)
    want = run(screen(matrix))
    path = write(screen(np.zeros_like(logged()), layers={"log": matrix}), tmp_path, "h5ad")
    assert_same_bits(run(path, layer="log"), want)
    chunks = (20, -1) if kind == "csr" else (-1, 4)
    lazy = da.from_array(matrix, chunks=matrix.shape).rechunk(chunks)
    assert_same_bits(run(screen(lazy)), want)


@pytest.mark.parametrize("comparison", ["reference", "rest"])
@pytest.mark.parametrize("kind", KINDS)
def test_guides(kind, comparison, tmp_path):
    adata = screen(disordered(logged(), kind))
    carried = np.random.default_rng(2).random((len(LABELS), 3)) < 0.4
    adata.obsm["g"] = pd.DataFrame(carried, columns=["a", "b", "nt"], index=adata.obs_names)
    options = {"guides": "g", "reference": "nt", "comparison": comparison, "progress": False}
    path = write(adata, tmp_path, "h5ad")
    want = differential_expression(adata, **options)
    assert_same_bits(differential_expression(path, **options), want)


@pytest.mark.parametrize("method", ["sum", "mean", "median"])
@pytest.mark.parametrize("kind", KINDS)
def test_pseudobulk(kind, method, tmp_path):
    adata = screen(disordered(logged(), kind))
    want = pseudobulk(adata, GROUPBY, method=method)
    found = pseudobulk(write(adata, tmp_path, "h5ad"), GROUPBY, method=method)
    np.testing.assert_array_equal(found.X, want.X)


def test_calibrate(tmp_path):
    adata = screen(disordered(logged(), "csc"))
    options: dict[str, Any] = {"reference": REFERENCE, "progress": False, "seed": 1}
    found = calibrate(write(adata, tmp_path, "h5ad"), GROUPBY, **options)
    want = calibrate(adata, GROUPBY, **options)
    np.testing.assert_array_equal(found.of().n_false_positives, want.of().n_false_positives)
    np.testing.assert_array_equal(found.of().quantiles.observed, want.of().quantiles.observed)


@pytest.mark.parametrize("kind", KINDS)
def test_with_an_output(kind, tmp_path):
    adata = screen(disordered(logged(), kind))
    found = run(write(adata, tmp_path, "h5ad"), out=tmp_path / "de.parquet")
    want = run(adata)
    assert_same_bits(found.load(), want)


@pytest.mark.parametrize("budget", [1, 1 << 30])
@pytest.mark.parametrize("kind", KINDS)
def test_reading(kind, budget, tmp_path):
    """Every range of every cut; entries are lazy only where nothing has to be sorted."""
    matrix = disordered(logged(), kind)
    truth = matrix.copy()
    truth.sum_duplicates()
    with h5py.File(tmp_path / "m.h5", "w") as file:
        group = file.create_group("X")
        group.attrs.update({"encoding-type": f"{kind}_matrix", "shape": matrix.shape})
        for name in ("data", "indices", "indptr"):
            group[name] = getattr(matrix, name)
        file.flush()
        source = from_node(group, what="X").canonical()
        assert source.canonical() is source
        for edges in ([0, 9], [0, 4, 9], [2, 3, 7]):
            with source.open(edges, budget, Reading(lazy=True)) as reader:
                for k, (a, b) in enumerate(itertools.pairwise(edges)):
                    chunk = reader.read(k)
                    if kind == "csr":
                        parts = [
                            slice(*ends) for ends in zip(chunk.starts, chunk.stops, strict=True)
                        ]
                        found = np.zeros((len(LABELS), b - a), np.float32)
                        for cell, part in enumerate(parts):
                            assert (np.diff(chunk.indices[part].astype(int)) > 0).all()
                            found[cell, chunk.indices[part].astype(int) - a] = chunk.data[part]
                    else:
                        shape = len(LABELS), b - a
                        parts = chunk.data, chunk.indices.astype(np.int32), chunk.indptr
                        found = sparse.csc_matrix(parts, shape=shape)
                        assert found.has_canonical_format
                        found = found.toarray()
                    np.testing.assert_allclose(found, truth[:, a:b].toarray(), rtol=1e-6)


def test_long_columns_are_paid_for(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Sorting takes memory of its own where a line is longer than what is sorted at a time."""
    with h5py.File(write(screen(disordered(logged(), "csc")), tmp_path, "h5ad")) as file:
        plain = from_node(file["X"], what="X")
        assert plain.canonical().bytes_per_entry == plain.bytes_per_entry
        monkeypatch.setattr(stored_sparse, "SORTED_AT_ONCE", 10)
        assert plain.canonical().bytes_per_entry == plain.bytes_per_entry + order.SORTING_BYTES


def test_files_in_order_are_read_once(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """Nothing is sorted, and no run starts over, where packing finds lines in order."""

    def fail(*_: Any) -> None:
        raise AssertionError("sorted")

    for module in (stored_sparse, order):
        monkeypatch.setattr(module, "put_in_order", fail)
    for kind in KINDS:
        path = write(screen(KINDS[kind](logged())), tmp_path, "h5ad")
        run(path)
        run(path, gene_chunk_size=2)


def test_an_index_out_of_range_is_told_all_the_same(tmp_path):
    path = write(screen(disordered(logged(), "csc")), tmp_path, "h5ad")
    with h5py.File(path, "r+") as file:
        file["X/indices"][7] = 999
    with pytest.raises(OSError, match=r"column 0 has an entry in row 999") as caught:
        run(path)
    assert not isinstance(caught.value, NotCanonicalError)


@needs_compiler
@pytest.mark.parametrize("kind", KINDS)
def test_on_an_emulated_device(kind, tmp_path, monkeypatch: pytest.MonkeyPatch):
    adata = screen(disordered(logged(), kind))
    want = run(adata, backend="cpu")
    path = write(adata, tmp_path, "h5ad")
    backend = backend_of("emulated", monkeypatch)
    for options in ({}, {"gene_chunk_size": 4}):
        assert_same_bits(run(path, backend=backend, **options), want)


@pytest.mark.parametrize("lost", [slice(None), slice(40, 80)], ids=["all", "a chunk"])
@pytest.mark.parametrize("kind", KINDS)
def test_indices_that_were_never_written_are_told(kind, lost, tmp_path):
    """Zeros where a chunk was lost are no repeated index, to be summed."""
    path = write(screen(KINDS[kind](logged())), tmp_path, "h5ad")
    with h5py.File(path, "r+") as file:
        indices = file["X/indices"][:]
        indices[lost] = 0
        del file["X/indices"]
        file["X"].create_dataset("indices", data=indices, chunks=(40,), compression="gzip")
    says = "all are 0, so this part was never written"
    for options in ({}, {"gene_chunk_size": 2}):
        with pytest.raises(OSError, match=says):
            run(path, **options)
