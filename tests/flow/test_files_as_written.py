"""Files as people write them: the bits of the matrix in memory, in whatever form it is stored."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from dask_clusters import cluster
from odd_files import Form, draw, write
from stored_screens import GENES, GROUPBY, REFERENCE, assert_same_bits, counts, screen

from pdex_gpu import DEResult, differential_expression, estimate, pseudobulk

VALUES = counts()
CALLS: list[dict[str, Any]] = [
    {"metric": metric, **options}
    for metric in ("wilcoxon", "t-test")
    for options in ({}, {"normalize": 1e4})
]

UNORDERED = Form(order="shuffled", repeats=True, zeros=True)
FORMS = {
    "rows in any order": Form(order="shuffled"),
    "rows in any order, repeats": UNORDERED,
    "one row out of order": Form(order="one line", storage=("gzip", "gzip", "chunks")),
    "columns in any order": Form(layout="csc", order="shuffled"),
    "columns in any order, repeats": replace(UNORDERED, layout="csc"),
    "text of fixed length": Form(strings="fixed"),
    "text of fixed length, in ASCII": Form(strings="fixed ASCII", layout="csc"),
    "text filled with spaces": Form(strings="spaces"),
    "numbers of float64": Form(indices="<f8", indptr="<f8", shape="<f8"),
    "64-bit indices, 32-bit pointers": Form(indices="<i8", indptr="<i4"),
    "32-bit indices, 64-bit pointers": Form(layout="csc", indices="<i4", indptr="<i8"),
    "unsigned, in the other byte order": Form(indices="<u4", indptr=">i8", values=">f4"),
    "anndata 0.7": Form(frames="0.7"),
    "anndata 0.6": Form(frames="0.6", encoding="h5sparse"),
    "all at once": replace(UNORDERED, strings="fixed", frames="0.7", indices="<f8", indptr="<u8"),
}


def plain(values: np.ndarray = VALUES) -> ad.AnnData:
    return screen(values)


def odd(path: Path, form: Form) -> Path:
    adata = plain()
    return write(path, VALUES, pd.DataFrame(adata.obs[[GROUPBY]]), GENES, form)


def run(data: Any, **options: Any) -> DEResult:
    given = {"backend": "cpu", "progress": False, "columns": "all", "reference": REFERENCE}
    return differential_expression(data, GROUPBY, **given | options)


@pytest.fixture(scope="module")
def expected() -> list[DEResult]:
    return [run(plain(), **call) for call in CALLS]


def check(path: Path, expected: list[DEResult], form: Form, **more: Any) -> None:
    for call, truth in zip(CALLS, expected, strict=True):
        found = run(path, **call, **more)
        assert found.targets.tolist() == truth.targets.tolist(), form
        assert found.features.tolist() == truth.features.tolist(), form
        assert_same_bits(found, truth)


@pytest.mark.sampled(every=2)
@pytest.mark.parametrize("name", FORMS)
def test_the_same_bits(name: str, expected: list[DEResult], tmp_path: Path) -> None:
    path = odd(tmp_path / "odd.h5ad", FORMS[name])
    check(path, expected, FORMS[name])
    check(path, expected, FORMS[name], gene_chunk_size=2, memory=1)


@pytest.mark.filterwarnings("ignore")  # anndata's own, on old formats
@pytest.mark.parametrize("name", ["rows in any order, repeats", "columns in any order, repeats"])
def test_anndata_agrees_that_it_is_the_same(name: str, tmp_path: Path) -> None:
    """The generator writes what it says: lines out of order, with repeats."""
    adata = ad.read_h5ad(odd(tmp_path / "odd.h5ad", FORMS[name]))
    assert not adata.X.has_canonical_format
    assert not adata.X.has_sorted_indices
    np.testing.assert_array_equal(adata.X.toarray(), VALUES)
    assert adata.obs[GROUPBY].tolist() == plain().obs[GROUPBY].tolist()


@pytest.mark.filterwarnings("ignore::anndata.OldFormatWarning")
@pytest.mark.parametrize("name", ["rows in any order, repeats", "columns in any order, repeats"])
def test_other_calls(name: str, expected: list[DEResult], tmp_path: Path) -> None:
    path = odd(tmp_path / "odd.h5ad", FORMS[name])
    np.testing.assert_array_equal(pseudobulk(path, GROUPBY).X, pseudobulk(plain(), GROUPBY).X)
    costs = estimate(path, GROUPBY, reference=REFERENCE, normalize=1e4)
    assert (costs.n_cells, costs.n_genes) == VALUES.shape
    backed = ad.read_h5ad(path, backed="r")
    check(backed, expected, FORMS[name])
    backed.file.close()
    for call, truth in zip(CALLS, expected, strict=True):
        chosen = run(path, genes=["gene1", "gene5"], **call)
        for column in ("p_value", "statistic", "target_mean"):
            np.testing.assert_array_equal(chosen[column], truth[column][:, [1, 5]])


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with cluster(2) as found:
        yield found


@pytest.mark.parametrize("name", ["all at once", "columns in any order, repeats"])
def test_a_cluster(client: Any, name: str, expected: list[DEResult], tmp_path: Path) -> None:
    path = odd(tmp_path / "odd.h5ad", FORMS[name])
    check(path, expected, FORMS[name], engine="dask", client=client, gene_chunk_size=4)


@pytest.mark.sampled(every=51)
@pytest.mark.parametrize("seed", range(300))
def test_forms_from_a_generator(seed: int, expected: list[DEResult], tmp_path: Path) -> None:
    form = draw(seed)
    path = odd(tmp_path / "odd.h5ad", form)
    check(path, expected, form, **({} if seed % 2 else {"gene_chunk_size": 4, "memory": 1}))
