"""What anndata makes of other writers' files, in memory: the same answers as from plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from stored_screens import GROUPBY, REFERENCE, screen

from pdex_gpu import differential_expression
from pdex_gpu.errors import DataError, TextEncodingWarning

KINDS: dict[str, Callable[[Any], Any]] = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix}


def plain_screen(kind: str = "csr") -> ad.AnnData:
    adata = screen()
    adata.X = KINDS[kind](adata.X)
    return adata


def answer(data: ad.AnnData, **asked: Any) -> pd.DataFrame:
    asked = {"groupby": GROUPBY, "reference": REFERENCE, "progress": False} | asked
    return differential_expression(data, **asked).to_pandas()


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("indptr", ["i8", ">i4", "f8", "u8"])
@pytest.mark.parametrize("indices", ["u1", "i8", ">i4", "u8", "f2", "f4", ">f8"])
def test_indices_of_any_type(indices, indptr, kind):
    """Compiled code reads native integers alone, and scipy cuts by pairs of int32 or int64."""
    plain = plain_screen(kind)
    odd = plain.copy()
    odd.X.indices, odd.X.indptr = odd.X.indices.astype(indices), odd.X.indptr.astype(indptr)
    pd.testing.assert_frame_equal(answer(odd), answer(plain))
    assert odd.X.indices.dtype == indices  # the caller's
    pd.testing.assert_frame_equal(answer(odd[::-2, [3, 1]]), answer(plain[::-2, [3, 1]]))


def with_floats(matrix: Any) -> Any:
    matrix.indices, matrix.indptr = matrix.indices.astype("f8"), matrix.indptr.astype(">f4")
    return matrix


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_and_guides_with_indices_of_floats(kind):
    dask = pytest.importorskip("dask")
    da = pytest.importorskip("dask.array")
    plain = plain_screen(kind)
    block = dask.delayed(lambda: with_floats(plain.X.copy()))()
    lazy = ad.AnnData(obs=plain.obs, var=plain.var)
    lazy.X = da.from_delayed(block, plain.shape, plain.X.dtype, sparse.csr_matrix((0, 0)))
    pd.testing.assert_frame_equal(answer(lazy), answer(plain))

    guides = np.arange(2 * plain.n_obs).reshape(-1, 2) % 3 == 0
    plain.obsm["plain"] = KINDS[kind](guides.astype(np.int64))
    plain.obsm["odd"] = with_floats(plain.obsm["plain"].copy())
    asked = {"groupby": None, "reference": None, "comparison": "rest"}
    found, want = (answer(plain, guides=name, **asked) for name in ("odd", "plain"))
    pd.testing.assert_frame_equal(found, want)


@pytest.mark.parametrize(
    ("part", "value", "says"),
    [
        ("indices", 0.5, "X/indices is malformed: it holds 0.5 instead of whole numbers"),
        ("indptr", np.nan, "X/indptr is malformed: it holds nan instead of whole numbers"),
        ("indices", None, "X/indices is malformed: it holds object instead of whole numbers"),
    ],
)
def test_what_are_no_indices(part, value, says):
    adata = plain_screen()
    values = getattr(adata.X, part).astype(object if value is None else float)
    values[3] = value
    setattr(adata.X, part, values)
    with pytest.raises(DataError, match=says):
        answer(adata)


def test_labels_of_bytes_are_text():
    """As anndata reads columns that are not said to be UTF-8, and files are read here."""
    adata = screen()
    labels = [str(label) for label in adata.obs[GROUPBY]]
    want = answer(adata)
    adata.obs[GROUPBY] = [label.encode() for label in labels]
    pd.testing.assert_frame_equal(answer(adata), want)
    pd.testing.assert_frame_equal(answer(adata, reference=REFERENCE.encode()), want)
    adata.obs[GROUPBY] = [v.encode() if i % 2 else v for i, v in enumerate(labels)]
    pd.testing.assert_frame_equal(answer(adata), want)
    adata.obs[GROUPBY] = pd.Categorical([v.encode() for v in labels])
    pd.testing.assert_frame_equal(answer(adata), want)
    adata.obs[GROUPBY] = [v.encode() if v == REFERENCE else b"\xb5" for v in labels]
    with pytest.warns(TextEncodingWarning, match=f"Column '{GROUPBY}' of obs holds text that"):
        assert set(answer(adata)["target"]) == {"µ"}


def test_labels_of_long_doubles():
    adata = screen()
    adata.obs["number"] = np.arange(adata.n_obs) % 2
    want = answer(adata, groupby="number", reference=0)
    adata.obs["number"] = adata.obs["number"].astype(np.longdouble)
    found = answer(adata, groupby="number", reference=0)
    pd.testing.assert_frame_equal(found.iloc[:, 3:], want.iloc[:, 3:])
    assert set(found["target"]) == {1.0}
