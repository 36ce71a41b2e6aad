"""Symbols of genes next to their identifiers, from var to tables, messages and figures."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pytest
from stopped_runs import interrupted
from stored_screens import GENES, GROUPBY, REFERENCE, counts, screen

import pdex_gpu
from pdex_gpu import errors, pl

SYMBOLS = [None if i == 1 else f"S{i}" for i in range(len(GENES))]
SYMBOLS[3] = "S4"  # twice


def symbolic(symbols: list[Any] = SYMBOLS) -> anndata.AnnData:
    data = screen(counts())
    data.var["symbol"] = symbols
    return data


def run(data: Any = None, **options: Any) -> Any:
    data = symbolic() if data is None else data
    options = {"gene_symbols": "symbol", "progress": False} | options
    return pdex_gpu.differential_expression(data, GROUPBY, reference=REFERENCE, **options)


def test_a_result_has_names_and_symbols() -> None:
    result, names = run(), list(map(str, GENES))
    assert result.features.tolist() == names
    assert result.symbols.tolist() == [s or g for s, g in zip(SYMBOLS, names, strict=True)]
    assert result.gene_names[:5].tolist() == [
        "S0", names[1], "S2", f"S4 ({names[3]})", f"S4 ({names[4]})"
    ]  # fmt: skip
    without = run(gene_symbols=None)
    assert without.symbols is None
    assert without.gene_names is without.features
    for name in result.columns:
        np.testing.assert_array_equal(result[name], without[name])


def test_genes_are_found_by_either() -> None:
    result = run()
    assert [result.find_feature(n) for n in ("S2", GENES[2], f"S4 ({GENES[4]})")] == [2, 2, 4]
    with pytest.raises(errors.LabelError, match=r"2 genes have the symbol 'S4': .*Pass one of"):
        result.find_feature("S4")
    with pytest.raises(errors.LabelError, match=r"Unknown gene 'S22'\. Did you mean 'S2'"):
        result.find_feature("S22")


def test_tables_have_a_column_of_symbols(tmp_path: Path) -> None:
    result = run()
    shown = result.symbols.tolist() * len(result.targets)
    for frame in (
        result.to_pandas(),
        result.to_polars().to_pandas(),
        result.to_arrow().to_pandas(),
    ):
        assert frame["symbol"].astype(str).tolist() == shown
        assert frame.columns.tolist()[2:4] == ["feature", "symbol"]
    top = result.top(result.targets[0], 2)
    assert top.columns.tolist()[2:4] == ["feature", "symbol"]
    assert result.to_anndata().var["symbol"].tolist() == result.symbols.tolist()
    for suffix in ("parquet", "csv", "tsv"):
        path = tmp_path / f"r.{suffix}"
        written = run(out=path)
        assert written.symbols.tolist() == result.symbols.tolist()
        opened = pdex_gpu.open_result(path)
        assert opened.symbols.tolist() == result.symbols.tolist()
        assert opened.features.tolist() == result.features.tolist()
    loaded = pdex_gpu.open_result(tmp_path / "r.parquet").load()
    assert loaded.symbols.tolist() == result.symbols.tolist()
    loaded.to_parquet(tmp_path / "again.parquet")
    assert (tmp_path / "again.parquet").read_bytes() == (tmp_path / "r.parquet").read_bytes()


def test_chosen_genes_by_symbol() -> None:
    assert run(genes=["S2", str(GENES[1]), "S0"]).features.tolist() == GENES[:3]
    assert run(genes=["S2", str(GENES[2])]).features.tolist() == GENES[2:3]
    with pytest.raises(
        errors.GeneError, match=r"1 of 2 names .*'S66'.*did you mean 'S6'"
    ) as caught:
        run(genes=["S66", "S2"])
    assert str(caught.value).endswith(f"has 9 genes: 'S0', {GENES[1]!r}, 'S2' ... and 6 more.")
    with pytest.raises(errors.GeneError) as caught:
        run(genes=["S4"])
    assert "1 of 1 names in genes= belong to several genes of the matrix: 'S4'." in str(
        caught.value
    )
    assert f"names of var ('S4' is {GENES[3]!r}, {GENES[4]!r})" in str(caught.value)


def test_a_symbol_that_is_the_name_of_another_gene() -> None:
    """It stands for the gene of this name, in a call and in its result."""
    symbols = [str(GENES[2]), *SYMBOLS[1:]]
    result = run(symbolic(symbols))
    assert result.find_feature(GENES[2]) == 2
    assert run(symbolic(symbols), genes=[str(GENES[2])]).features.tolist() == GENES[2:3]


def test_targets_are_named_by_symbols() -> None:
    data = symbolic()
    data.obs["gene"] = data.obs[GROUPBY].map({"A": "S2", "B": "S5", "C": str(GENES[6])})
    result = run(data, on_target="gene")
    own = {str(t): result.features[np.flatnonzero(k)[0]]
           for t, k in zip(result.targets, result.kept, strict=True)}  # fmt: skip
    assert own == {"A": GENES[2], "B": GENES[5], "C": GENES[6]}


def test_figures_show_symbols() -> None:
    result = run()
    ax = pl.heatmap(result, features=["S2", GENES[5]])
    assert [label.get_text() for label in ax.get_xticklabels()] == ["S2", "S5"]


@pytest.mark.parametrize("empty", [None, "", "  "])
def test_a_column_without_symbols(empty: str | None) -> None:
    with pytest.raises(errors.ColumnError, match=r"gene_symbols='symbol': no gene has a symbol"):
        run(symbolic([empty] * len(GENES)))


def test_an_unknown_column() -> None:
    with pytest.raises(errors.ColumnError, match=r"'symbols'.* Did you mean 'symbol'"):
        run(gene_symbols="symbols")


def test_few_symbols_are_told() -> None:
    few = [*["S0", "S1"], *[None] * (len(GENES) - 2)]
    with pytest.warns(errors.MissingLabelWarning, match=r"7 of 9 genes have no symbol"):
        assert run(symbolic(few)).symbols.tolist() == ["S0", "S1", *map(str, GENES[2:])]


def test_a_checkpoint_of_other_symbols_is_not_continued(tmp_path: Path) -> None:
    out, options = tmp_path / "a.parquet", {"gene_symbols": "symbol"}
    interrupted(out, 3, symbolic(), **options)
    with pytest.raises(errors.CheckpointError, match="the symbols differ"):
        run(symbolic([f"T{i}" for i in range(len(GENES))]), out=out, gene_chunk_size=1)
    assert run(out=out).symbols[0] == "S0"
