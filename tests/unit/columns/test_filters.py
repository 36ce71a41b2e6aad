"""Which rows are in a result: filters of genes, and each target at its own gene."""

from __future__ import annotations

import json
import logging
import math
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from brute_force import BACKENDS, frame, rows_of, run, screen

from pdex_gpu import open_result
from pdex_gpu.design.own_genes import own_genes_of
from pdex_gpu.errors import (
    ColumnError,
    DuplicateGeneWarning,
    LabelError,
    OptionError,
    SkippedWarning,
)
from pdex_gpu.results.schema import INTEGERS

N_GENES = 30
#: Of "c" there is no gene in the matrix, of "safe" no gene at all.
OWN_GENES = {"a": "gene3", "b": "gene0", "c": "TP53", "d": "gene12"}
DESIGNS: dict[str, dict[str, Any]] = {
    "reference": {},
    "in order": {"groups": ["d", "c", "a"]},
    "each": {"comparison": "each_reference", "reference": ["ctrl", "safe"]},
    "rest": {"comparison": "rest"},
    "pairs": {"comparison": "pairs", "pairs": [("d", "a"), ("a", "d"), ("b", "ctrl")]},
    "within": {"groupby": ["group", "type"]},
    "strata": {"strata": "batch"},
}
FILTERS: dict[str, dict[str, Any]] = {
    "fraction": {"min_fraction": 0.5},
    "every cell": {"min_fraction": 1.0},
    "cpm": {"min_cpm": 15_000.0},
    "on target": {"on_target": "gene"},
    "fraction and cpm": {"min_fraction": 0.5, "min_cpm": 30_000.0},
    "all three": {"min_fraction": 0.2, "min_cpm": 5_000.0, "on_target": "gene"},
}


def values() -> np.ndarray:
    """Counts of rare and of common genes."""
    rng = np.random.default_rng(13)
    mean = np.geomspace(0.05, 8.0, N_GENES) * np.where(frame().group == "a", 1.7, 1.0)[:, None]
    found = rng.permuted(rng.poisson(mean).astype(float), axis=0)
    found[:, [0, 3, 12]] = found[:, [20, 14, 8]]
    found[:, 9] = 0
    return found


def data(matrix: np.ndarray | None = None) -> Any:
    obs = frame().copy()
    obs["gene"] = obs.group.map(OWN_GENES)
    return screen(values() if matrix is None else matrix, obs)


def passes(
    rows: list[Any], *, min_fraction: float | None = None, min_cpm: float | None = None,
    on_target: str | None = None, logs: bool = False,
) -> dict[str, np.ndarray]:  # fmt: skip
    """What each filter lets pass, (rows, genes), in the order in which they count."""
    found: dict[str, np.ndarray] = {}
    counts, shape = values(), (len(rows), N_GENES)
    if on_target is not None:
        names = [f"gene{j}" for j in range(N_GENES)]
        found["on_target"] = np.array(
            [[name == OWN_GENES.get(row.target) for name in names] for row in rows]
        )
    if min_fraction is not None:
        found["min_fraction"] = np.zeros(shape, bool)
    if min_cpm is not None:
        found["min_cpm"] = np.zeros(shape, bool)
    for t, row in enumerate(rows):
        sides = [np.array(s) for s in zip(*(row.pooled(counts[:, g]) for g in range(N_GENES)),
                                          strict=True)]  # fmt: skip
        cells = np.concatenate(sides, axis=1)  # (genes, cells)
        if min_fraction is not None:
            found["min_fraction"][t] = (cells != 0).sum(1) / cells.shape[1] >= min_fraction
        if min_cpm is not None:
            found["min_cpm"][t] = cells.sum(1) / cells.sum() * 1e6 > min_cpm
    return found


@pytest.mark.sampled(every=11)
@pytest.mark.parametrize("scale", ["counts", "logs"])
@pytest.mark.parametrize("filtered", FILTERS)
@pytest.mark.parametrize("design", DESIGNS)
def test_what_is_kept(design, filtered, scale, caplog):
    options, backend = DESIGNS[design], "cpu" if scale == "counts" else "numpy"
    rows, _ = rows_of(frame(), **options)
    matrix = values() if scale == "counts" else np.log1p(values())
    with caplog.at_level(logging.INFO, "pdex_gpu"):
        result, warned = run(
            data(matrix),
            backend=backend,
            is_log1p=scale == "logs",
            columns=["target_n_cells", "auroc"],
            **options,
            **FILTERS[filtered],
        )
    expected = np.ones((len(rows), N_GENES), bool)
    removed = {}
    for name, passing in passes(rows, **FILTERS[filtered]).items():
        removed[name] = int(np.count_nonzero(expected & ~passing))
        expected &= passing
        text = f"{name} removed {removed[name]} of {expected.size} (target, gene) pairs"
        assert text in caplog.messages
    assert 0 < np.count_nonzero(expected) < expected.size
    np.testing.assert_array_equal(result.kept, expected)
    assert result.provenance["removed"] == removed
    assert result.n_rows == np.count_nonzero(expected)
    missing = [w for w in warned if "their gene in 'gene'" in str(w.message)]
    asked = {row.target for row in rows} & {"c", "safe"}
    assert bool(missing) == ("on_target" in FILTERS[filtered] and bool(asked))

    every, _ = run(data(matrix), backend=backend, is_log1p=scale == "logs",
                   columns=["target_n_cells", "auroc"], **options)  # fmt: skip
    assert every.kept is None
    assert every.provenance["removed"] == {}
    for name in every.columns:
        if name == "fdr":
            continue
        np.testing.assert_array_equal(result[name][expected], every[name][expected], name)
        if name not in INTEGERS:
            assert np.isnan(result[name][~expected]).all()

    table, whole = result.to_pandas(), every.to_pandas()
    here = whole.loc[expected.ravel()].reset_index(drop=True)
    assert len(table) == result.n_rows
    for name in table.columns:
        if name != "fdr":
            np.testing.assert_array_equal(table[name], here[name], err_msg=name)
    assert table["fdr"].notna().all()


@pytest.mark.sampled(every=7)
@pytest.mark.parametrize("filtered", [*FILTERS, "none"])
@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.filterwarnings("ignore::pdex_gpu.errors.SkippedWarning")
def test_files_have_the_same_rows(design, filtered, tmp_path):
    options = DESIGNS[design] | FILTERS.get(filtered, {})
    options |= {"columns": ["target_n_cells", "auroc", "log10_p", "reference_fraction"]}
    expected, _ = run(data(), **options)
    file, _ = run(data(), **options, out=tmp_path / "de.parquet", gene_chunk_size=4)
    assert file.n_rows == expected.n_rows
    assert file.columns == expected.columns
    assert file.provenance["removed"] == expected.provenance["removed"]
    loaded = file.load()
    assert loaded.targets.tolist() == expected.targets.tolist()
    assert loaded.references.tolist() == expected.references.tolist()
    assert (loaded.within is None) == (expected.within is None)
    if expected.kept is None:
        assert loaded.kept is None
    else:
        np.testing.assert_array_equal(loaded.kept, expected.kept)
        assert len(loaded.top("a", reference=expected.references[expected.targets == "a"][0],
                              within=None if expected.within is None else "T"))  # fmt: skip
    for name in expected.columns:
        if name in INTEGERS and expected.kept is not None:
            found = loaded[name][expected.kept], expected[name][expected.kept]
        else:
            found = loaded[name], expected[name]
        bits = [np.ascontiguousarray(values).view(np.int64) for values in found]
        np.testing.assert_array_equal(*bits, err_msg=name)
    table = pd.read_parquet(file.path)
    pd.testing.assert_frame_equal(
        table, expected.to_pandas(), check_categorical=False, check_exact=True
    )
    metadata = json.loads(pq.read_schema(file.path).metadata[b"pdex_gpu"])
    assert metadata["removed"] == expected.provenance["removed"]
    run(data(), **options, out=tmp_path / "de.csv", gene_chunk_size=9)
    expected.to_csv(tmp_path / "memory.csv")
    assert (tmp_path / "de.csv").read_bytes() == (tmp_path / "memory.csv").read_bytes()


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_target_at_its_own_gene(backend):
    result, warned = run(
        data(), backend=backend, on_target="gene", groups=["d", "a", "safe", "c", "b"]
    )
    table = result.to_pandas()
    assert table["target"].tolist() == ["d", "a", "b"]
    assert table["feature"].tolist() == ["gene12", "gene3", "gene0"]
    assert [w.category for w in warned] == [SkippedWarning]
    message = str(warned[0].message)
    assert message == (
        "2 groups are left out because their gene in 'gene' is not in the matrix: 'safe (no "
        "gene)', 'c (TP53)'."
    )
    assert warned[0].filename.endswith("brute_force.py")
    assert table["fdr"].tolist() == pytest.approx(
        _benjamini_hochberg(table["p_value"].tolist()), rel=1e-15
    )
    # The same, whatever else is asked for at these genes.
    every, _ = run(data(), backend=backend)
    for target, gene in (("d", 12), ("a", 3), ("b", 0)):
        t = every.targets.tolist().index(target)
        row = table.set_index("target").loc[target]
        assert row["p_value"] == every["p_value"][t, gene]
        assert row["target_mean"] == every["target_mean"][t, gene]


def _benjamini_hochberg(p: list[float]) -> list[float]:
    n = len(p)
    ranks = [sum(q <= value for q in p) for value in p]
    return [min(min(q * n / r for q, r in zip(p, ranks, strict=True) if q >= value), 1.0)
            for value in p]  # fmt: skip


@pytest.mark.parametrize("groups", [["d", "a", "safe", "c", "b"], ["b"]])
def test_results_name_own_genes(groups: list[str], tmp_path):
    """In memory, written, written as it is made, and read again: reports and plots know them."""
    options: dict[str, Any] = {"on_target": "gene", "groups": groups}
    result, _ = run(data(), **options)
    named = {"d": "gene12", "a": "gene3", "b": "gene0"}
    assert result.provenance["own_genes"] == {
        name: gene for name, gene in named.items() if name in groups
    }
    result.to_parquet(tmp_path / "written.parquet")
    stored, _ = run(data(), **options, out=tmp_path / "out.parquet")
    of_file = open_result(tmp_path / "out.parquet")
    wanted = [int(named.get(str(target), "gene-1")[4:]) for target in result.targets]
    for found in (result, open_result(tmp_path / "written.parquet"), stored, of_file,
                  of_file.load()):  # fmt: skip
        assert found.provenance["own_genes"] == result.provenance["own_genes"]
        assert own_genes_of(found).tolist() == wanted
    filtered, _ = run(data(), **options, min_cpm=1e6)
    assert filtered.provenance["own_genes"] == result.provenance["own_genes"]
    assert set(own_genes_of(filtered).tolist()) == {-1}  # no row is left of them
    assert "own_genes" not in run(data())[0].provenance


def test_names_that_repeat_mean_their_first_gene():
    adata = data()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own
        adata.var_names = [f"gene{j % 15}" for j in range(N_GENES)]
    result, warned = run(adata, on_target="gene", groups=["a", "d"])
    assert [w.category for w in warned] == [DuplicateGeneWarning]
    assert np.argwhere(result.kept).tolist() == [[0, 3], [1, 12]]


def test_cells_without_a_gene_do_not_matter():
    adata = data()
    adata.obs["gene"] = adata.obs["gene"].where(np.arange(adata.n_obs) % 3 > 0)
    one, _ = run(adata, on_target="gene", groups=["a", "d"])
    other, _ = run(data(), on_target="gene", groups=["a", "d"])
    np.testing.assert_array_equal(one.kept, other.kept)
    np.testing.assert_array_equal(one["p_value"], other["p_value"])


def test_filters_at_their_borders(caplog):
    """At least the fraction; more than the counts per million."""
    matrix = np.array([[1.0, 1, 2], [0, 1, 0], [0, 0, 2], [0, 2, 0]])
    obs = pd.DataFrame({"group": ["t", "t", "ctrl", "ctrl"]}, index=list("abcd"))
    result, _ = run(screen(matrix, obs), min_fraction=0.25)  # 1, 3 and 2 of 4 cells
    assert result.kept.tolist() == [[True, True, True]]
    result, _ = run(screen(matrix, obs), min_fraction=0.5)
    assert result.kept.tolist() == [[False, True, True]]
    result, _ = run(screen(matrix, obs), min_fraction=0.51)
    assert result.kept.tolist() == [[False, True, False]]
    result, _ = run(screen(matrix, obs), min_fraction=0.0)
    assert result.kept.all()
    # 1, 4 and 4 of 9 counts
    assert "no row is left" not in caplog.text
    result, _ = run(screen(matrix, obs), min_cpm=5e5)
    assert result.kept.tolist() == [[False, False, False]]
    assert "no row is left: min_cpm removed all (target, gene) pairs" in caplog.text
    assert result.n_rows == 0
    assert len(result.to_pandas()) == 0
    result, _ = run(screen(matrix, obs), min_cpm=444_444.0)
    assert result.kept.tolist() == [[False, True, True]]
    result, _ = run(screen(matrix, obs), min_cpm=0.0)
    assert result.kept.all()


BAD: list[tuple[dict[str, Any], type[Exception], str]] = [
    (
        {"min_fraction": 25},
        OptionError,
        "min_fraction=25 must be a number between 0 and 1. For 25%, pass 0.25.",
    ),
    ({"min_fraction": -0.1}, OptionError, "min_fraction=-0.1 must be a number between 0 and 1."),
    ({"min_fraction": "0.1"}, OptionError, "min_fraction='0.1' must be a number between 0 and 1."),
    ({"min_fraction": math.nan}, OptionError, "min_fraction=nan must be a number between 0 and 1"),
    ({"min_cpm": "a"}, OptionError, "min_cpm='a' must be a number."),
    ({"min_cpm": math.nan}, OptionError, "min_cpm=nan must be a number."),
    ({"min_cpm": True}, OptionError, "min_cpm=True must be a number."),
    ({"on_target": 3}, OptionError, "on_target=3 must be text, not int."),
    ({"on_target": "gen"}, ColumnError, "Unknown column of obs 'gen'. Did you mean 'gene'?"),
    (
        {"on_target": "several"},
        LabelError,
        "Group 'a' of column 'group' has several genes in 'several': 'gene1', 'gene0'. On-target "
        "tests need exactly one.",
    ),
    (
        {"on_target": "gene", "groups": ["c", "safe"]},
        LabelError,
        "The matrix has none of the groups' genes: 'c (TP53)', 'safe (no gene)'. Check that 'gene' "
        "holds gene names as in var, such as 'gene0', 'gene1', 'gene2' ... and 27 more.",
    ),
]


@pytest.mark.parametrize(("options", "kind", "message"), BAD, ids=lambda v: str(v)[:50])
def test_what_makes_no_sense_is_refused(options, kind, message):
    adata = data()
    adata.obs["several"] = np.where(np.arange(adata.n_obs) % 2, "gene0", "gene1")
    with pytest.raises(kind) as caught:
        run(adata, **options)
    assert message in str(caught.value)


def test_groups_that_are_not_compared_may_have_several_genes():
    adata = data()
    odd = (np.arange(adata.n_obs) % 2 == 1) & (adata.obs["group"] == "ctrl").to_numpy()
    adata.obs.loc[odd, "gene"] = "gene1"
    adata.obs.loc[(adata.obs["group"] == "ctrl").to_numpy() & ~odd, "gene"] = "gene2"
    result, _ = run(adata, on_target="gene", groups=["a"])
    assert np.argwhere(result.kept).tolist() == [[0, 3]]
