"""How notebooks show results."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path

import numpy as np

import pdex_gpu
from pdex_gpu.results.schema import VALUES


class Cells(HTMLParser):
    """The text of each cell, row by row."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._in_cell = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def made(n_targets: int = 30, n_genes: int = 40, **more: object) -> pdex_gpu.DEResult:
    """Every value says where it is; the last target's last genes are the strongest."""
    shape = (n_targets, n_genes)
    place = np.arange(n_targets * n_genes, dtype=float).reshape(shape)
    columns = {name: np.full(shape, 0.5) for name in VALUES}
    columns["p_value"] = 10.0 ** -(place / 10)
    columns["fdr"] = np.where(place >= place.size - 100, 0.01, 0.9)
    columns["fold_change"] = np.where(place % 2 == 0, 4.0, 0.25)
    labels = np.array([f"T{t}" for t in range(n_targets)], object)
    return pdex_gpu.DEResult(
        labels,
        np.full(n_targets, "ctl", object),
        np.array([f"g{j}" for j in range(n_genes)], object),
        columns,
        {"metric": "wilcoxon", "p_values": "conditional"},
        **more,
    )


def test_what_it_is_and_its_strongest_hits() -> None:
    rows = Cells(made()._repr_html_()).rows
    assert rows[:4] == [
        ["test", "wilcoxon, conditional p-values"],
        ["compared", "30 targets against ctl"],
        ["genes", "40 (1,200 rows)"],
        ["hits, FDR ≤ 0.05", "100, of 3 targets"],
    ]
    assert rows[4] == ["target", "feature", "log2_fold_change", "p_value", "fdr"]
    assert rows[5] == ["T29", "g39", "-2.00", "1.26e-120", "1.00e-02"]
    assert [row[:2] for row in rows[5:]] == [["T29", f"g{j}"] for j in range(39, 31, -1)]


def test_the_order_does_not_depend_on_blocks(monkeypatch) -> None:
    whole = made()._repr_html_()
    monkeypatch.setattr("pdex_gpu.results.base._BLOCK_VALUES", 150)
    assert len(list(made().blocks(["p_value"]))) > 3
    assert made()._repr_html_() == whole


def test_no_hits() -> None:
    result = made()
    result["fdr"][:] = np.nan
    assert "No hits." in result._repr_html_()


def test_levels_and_several_references_are_columns() -> None:
    result = made(2, within=("cell", np.array(["T", "B"], object)))
    result.references[1] = "other"
    result = pdex_gpu.DEResult(
        result.targets, result.references, result.features,
        {name: result[name] for name in VALUES}, result.provenance, within=result.within,
    )  # fmt: skip
    rows = Cells(result._repr_html_()).rows
    assert rows[1] == ["compared", "2 targets against several references"]
    assert rows[4][:4] == ["target", "cell", "reference", "feature"]
    assert rows[5][:4] == ["T1", "B", "other", "g39"]


def test_targets_are_counted_once() -> None:
    result = made(3, within=("cell", np.array(["T", "B", "T"], object)))
    result.targets[:] = ["T0", "T0", "T1"]
    rows = Cells(result._repr_html_()).rows
    assert rows[1] == ["compared", "3 comparisons of 2 targets against ctl"]
    assert rows[3] == ["hits, FDR ≤ 0.05", "100, of 2 targets"]
    assert Cells(made(1)._repr_html_()).rows[1] == ["compared", "1 target against ctl"]


def test_what_cannot_be_read_is_shown_as_text(tmp_path: Path) -> None:
    path = tmp_path / "r.parquet"
    made().to_parquet(path)
    opened = pdex_gpu.open_result(path)
    assert opened._repr_html_() is not None
    path.unlink()
    assert opened._repr_html_() is None
    assert repr(opened).startswith("ResultFile")


def test_names_are_text(tmp_path: Path) -> None:
    result = made(1)
    result.features[39] = "<script>alert(1)</script>"
    html = result._repr_html_()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    result.to_parquet(tmp_path / "r.parquet")
    opened = pdex_gpu.open_result(tmp_path / "r.parquet")
    assert opened._repr_html_() == html.replace("DEResult", "ResultFile")


def test_genes_are_shown_by_their_symbols() -> None:
    symbols = np.array([f"S{j}" for j in range(40)], object)
    symbols[38] = "S39"
    rows = Cells(made(symbols=symbols)._repr_html_()).rows
    assert [row[1] for row in rows[5:8]] == ["S39 (g39)", "S39 (g38)", "S37"]
