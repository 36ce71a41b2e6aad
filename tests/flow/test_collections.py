"""AnnCollection as data, and columns of var by which genes of several files are chosen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from anndata.experimental import AnnCollection
from scipy import sparse
from stored_screens import GROUPBY, REFERENCE, assert_same_bits, counts, screen

from pdex_gpu import DEResult, calibrate, differential_expression, estimate, pseudobulk
from pdex_gpu.errors import (
    ColumnError,
    DataError,
    LayerError,
    OptionError,
    UnsupportedDataError,
)

KINDS = {"csr": sparse.csr_matrix, "csc": sparse.csc_matrix, "dense": np.asarray}
CUT = 20
CALLS: list[dict[str, Any]] = [
    {},
    {"normalize": 1e4},
    {"cells": "kept", "normalize": "median", "metric": "t-test"},
    {"cells": "kept", "genes": ["gene3", "gene1"]},
    {"normalize": 1e4, "genes": "chosen", "cells": "kept"},
    {"gene_chunk_size": 2, "memory": 1},
    {"layer": "twice", "strata": "batch"},
    {"groupby": None, "guides": "guides", "comparison": "rest", "reference": None},
]


def whole(kind: str = "csr") -> ad.AnnData:
    values = KINDS[kind](counts())
    adata = screen(values, layers={"twice": values * 2})
    rng = np.random.default_rng(4)
    adata.obs["kept"] = rng.random(adata.n_obs) < 0.8
    adata.obs["batch"] = rng.choice(["x", "y"], adata.n_obs)
    adata.var["chosen"] = np.arange(adata.n_vars) % 3 == 1
    carried = rng.random((adata.n_obs, 3)) < 0.4
    adata.obsm["guides"] = carried
    return adata


def run(data: Any, **options: Any) -> DEResult:
    given = {"groupby": GROUPBY, "reference": REFERENCE, "progress": False, "columns": "all"}
    return differential_expression(data, **given | options)


def collection(parts: list[Any], **options: Any) -> Any:
    return AnnCollection(parts, **{"join_vars": "inner", "label": "plate"} | options)


@pytest.fixture(params=["memory", "backed", "mixed", "views", "backed views"])
def parts(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Any]:
    """From a whole screen to its parts, the second with its genes in another order."""
    opened: list[ad.AnnData] = []

    def backed(adata: ad.AnnData) -> ad.AnnData:
        path = tmp_path / f"{len(opened)}.h5ad"
        adata.write_h5ad(path)
        opened.append(ad.read_h5ad(path, backed="r"))
        return opened[-1]

    def cut(adata: ad.AnnData) -> list[ad.AnnData]:
        first, second = adata[:CUT], adata[CUT:, ::-1].copy()
        how = request.param
        if how == "backed views":
            return [backed(adata)[:CUT], backed(second)]
        first = first if how == "views" else first.copy()
        return [
            backed(first) if how == "backed" else first,
            second if how in ("memory", "views") else backed(second),
        ]

    yield cut
    for adata in opened:
        adata.file.close()


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("join_obs", ["inner", None])
def test_the_same_bits_as_of_one_object(parts: Any, kind: str, join_obs: Any) -> None:
    adata = whole(kind)
    data = collection(parts(adata), join_obs=join_obs, join_obsm="inner" if join_obs else None)
    for call in CALLS:
        assert_same_bits(run(data, **call), run(adata, **call))
    adata.obs["plate"] = np.where(np.arange(adata.n_obs) < CUT, "0", "1")
    found = run(data, strata="plate")
    assert_same_bits(found, run(adata, strata="plate"))
    assert found.provenance["data"] == "AnnCollection of 2 AnnData objects, X"


def test_other_calls() -> None:
    adata = whole()
    data = collection([adata[:CUT].copy(), adata[CUT:].copy()])
    bulk, expected = (pseudobulk(d, [GROUPBY, "batch"], cells="kept") for d in (data, adata))
    np.testing.assert_array_equal(bulk.X, expected.X)
    assert bulk.obs_names.tolist() == expected.obs_names.tolist()
    costs = estimate(data, GROUPBY, reference=REFERENCE, normalize=1e4)
    assert (costs.n_cells, costs.n_genes) == adata.shape
    options: dict[str, Any] = {"reference": REFERENCE, "progress": False, "seed": 3}
    found = [calibrate(d, GROUPBY, **options).of().n_false_positives for d in (data, adata)]
    np.testing.assert_array_equal(*found)


def test_a_frame_of_guides() -> None:
    adata = whole()
    names = list("xyz")
    adata.obsm["guides"] = pd.DataFrame(adata.obsm["guides"], adata.obs_names, names)
    data = collection([adata[:CUT].copy(), adata[CUT:].copy()], join_obsm="inner")
    found = run(data, **CALLS[-1])
    assert found.targets.tolist() == names
    assert_same_bits(found, run(adata, **CALLS[-1]))


def test_labels_that_were_added_to_the_collection() -> None:
    adata = whole()
    data = collection([adata[:CUT].copy(), adata[CUT:].copy()])
    data.obs["new"] = adata.obs[GROUPBY].to_numpy()[::-1]
    adata.obs["new"] = adata.obs[GROUPBY].to_numpy()[::-1]
    assert_same_bits(run(data, groupby="new"), run(adata, groupby="new"))


def test_genes_that_all_have() -> None:
    adata = whole()
    data = collection([adata[:CUT, 2:].copy(), adata[CUT:, :7].copy()])
    assert_same_bits(run(data), run(adata[:, 2:7].copy()))
    kept = np.full(adata.shape, True)
    kept[:CUT, :2], kept[CUT:, 7:] = False, False
    adata.X = sparse.csr_matrix(counts() * kept)  # totals are over the genes that each has
    found, expected = run(data, normalize=1e4), run(adata, normalize=1e4)
    np.testing.assert_array_equal(found["p_value"], expected["p_value"][:, 2:7])


def test_what_a_collection_cannot_be(tmp_path: Path) -> None:
    adata = whole()
    data = collection([adata[:CUT].copy(), adata[CUT:].copy()])
    with pytest.raises(UnsupportedDataError, match=r"a selection of an AnnCollection.*cells="):
        run(data[:30])
    with pytest.raises(OptionError, match=r"join='outer' is for files"):
        run(data, join="outer")
    with pytest.raises(OptionError, match=r"batch='plate' holds the names of files"):
        run(data, batch="plate")
    with pytest.raises(LayerError, match=r"adatas\[0\] of the AnnCollection: Unknown layer 'twic'"):
        run(data, layer="twic")
    with pytest.raises(ColumnError, match=r"Unknown column of obs 'kpt'.*'kept'"):
        run(data, groupby="kpt")
    data.convert = {"X": lambda x: x * 2}
    with pytest.raises(UnsupportedDataError, match=r"converters \(convert=\), which are not"):
        run(data)
    mixed = adata[CUT:].copy()
    mixed.X = mixed.X * 0.3
    with pytest.raises(DataError, match=r"whole numbers in adatas\[0\] of the AnnCollection"):
        run(collection([adata[:CUT].copy(), mixed]))
    adata.write_h5ad(tmp_path / "screen.h5ad")
    backed = ad.read_h5ad(tmp_path / "screen.h5ad", backed="r")
    with pytest.raises(UnsupportedDataError, match=r"adatas\[1\] .* in another order than in the"):
        run(collection([adata[:CUT].copy(), backed[[30, 25]]]))
    backed.file.close()


def test_the_error_names_the_cell() -> None:
    values = counts()
    values[CUT + 5, 3] = np.nan
    adata = whole()
    adata.X = sparse.csr_matrix(values)
    data = collection([adata[:CUT].copy(), adata[CUT:].copy()])
    with pytest.raises(DataError, match=rf"cell 'cell{CUT + 5}' \(row {CUT + 5}\), gene 'gene3'"):
        run(data)


# --- several files --------------------------------------------------------------------------------


def test_genes_of_several_files_by_a_column_of_var(tmp_path: Path) -> None:
    adata = whole()
    paths = [tmp_path / "1.h5ad", tmp_path / "2.h5ad"]
    adata[:CUT].copy().write_h5ad(paths[0])
    adata[CUT:, ::-1].copy().write_h5ad(paths[1])
    for options in CALLS[2:5]:
        assert_same_bits(run(paths, **options), run(adata, **options))
    other = adata[CUT:, 1:].copy()
    other.write_h5ad(paths[1])
    truth = adata.copy()
    absent = (np.arange(adata.n_obs) >= CUT)[:, None] & (np.arange(adata.n_vars) == 0)
    truth.X = sparse.csr_matrix(np.where(absent, 0, counts()))
    for join, expected in (("inner", adata[:, 1:].copy()), ("outer", truth)):
        found = run(paths, genes="chosen", join=join)
        assert_same_bits(found, run(expected, genes="chosen"))
    other.var["chosen"] = ~other.var["chosen"]
    other.write_h5ad(paths[1])
    with pytest.raises(DataError, match=r"'chosen' of var is not the same in all files: 8 of 8 ge"):
        run(paths, genes="chosen")
    del other.var["chosen"]
    other.write_h5ad(paths[1])
    with pytest.raises(ColumnError, match=r"neither a column of var nor a file.*2\.h5ad"):
        run(paths, genes="chosen")
