"""What a reader does with a report in a real browser: cut-offs, lists, pairs, pictures as files."""

from __future__ import annotations

import csv
import io
import struct
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.etree import ElementTree

import numpy as np
import pytest
from browser import enter, is_firefox, opened, saved_file, until
from made_results import PROVENANCE, made

from pdex_gpu.report import write_report
from pdex_gpu.results.memory import DEResult

# Of probabilities, whose logarithms are carried in single precision; the worst seen is 3.5e-5.
DIGITS = 7e-5

EXTRA = ("log10_p", "target_n_cells", "reference_n_cells")

# Text of the hits in the first table, when the next frame is there.
HITS_SAY = "(text) => document.querySelector('#cutoffs-state').textContent === text"


@pytest.fixture(scope="module")
def result() -> DEResult:
    """45 cell types of 120 genes, which have symbols; two share one."""
    symbols = [*(f"GENE{g}" for g in range(117)), "MYH7", "TBCE", "TBCE"]
    plain = made(45, features=[f"ENSG{g:05d}" for g in range(120)], hits=0.1, extra=EXTRA)
    return DEResult(
        plain.targets, plain.references, plain.features,
        {name: plain[name] for name in plain.columns},
        PROVENANCE | {"groupby": "cell_type"}, symbols=np.array(symbols, object),
    )  # fmt: skip


@pytest.fixture(scope="module")
def report(result: DEResult, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report(result, tmp_path_factory.mktemp("tools") / "r.html")


def text(page: Any, selector: str) -> str:
    return str(page.locator(selector).inner_text())


def table(page: Any, within: str, button: str) -> list[dict[str, str]]:
    _, data = saved_file(page, page.locator(within).get_by_role("button", name=button))
    return list(csv.DictReader(io.StringIO(data.decode("utf-8"), newline="")))


def is_hit(result: DEResult, fdr: float, size: float = 0.0) -> np.ndarray:
    return (result["fdr"] <= fdr) & (np.abs(np.log2(result["fold_change"])) >= size)


def chosen(page: Any, result: DEResult, fdr: float, size: float) -> np.ndarray:
    """Wait until the page has the hits of these cut-offs, and return them."""
    hits = is_hit(result, fdr, size)
    n, groups = np.count_nonzero(hits), np.count_nonzero(hits.any(axis=1))
    until(page, HITS_SAY, f"{n:,} hits in {groups} cell types")
    return hits


def test_cutoffs_move_hits_everywhere(browser: Any, report: Path, result: DEResult):
    with opened(browser, report, "#target=P003") as page:
        chosen(page, result, 0.05, 0)
        assert page.get_by_role("button", name="Reset").is_disabled()
        enter(page, "#cutoff-fdr", "1e-8")
        enter(page, "#cutoff-size", "1.5")
        hits = chosen(page, result, 1e-8, 1.5)
        change = np.log2(result["fold_change"])
        up, down = hits & (change > 0), hits & (change < 0)
        assert 0 < np.count_nonzero(hits) < np.count_nonzero(is_hit(result, 1e-8))
        tiles = text(page, "#tiles").split("\n")
        assert f"{np.count_nonzero(up):,} / {np.count_nonzero(down):,}" in tiles
        assert "hits, FDR ≤ 1e-8, |log₂ fold change| ≥ 1.5" in tiles
        legend = text(page, "#view .legend")
        assert f"▲ {np.count_nonzero(up[3])} up" in legend
        assert f"▼ {np.count_nonzero(down[3])} down" in legend
        rows = table(page, "#hits", "Save table as CSV")
        order = np.lexsort((np.arange(45), -hits.sum(axis=1)))
        assert [row["target"] for row in rows] == result.targets[order].tolist()
        assert [int(row["up"]) for row in rows] == up.sum(axis=1)[order].tolist()
        assert [int(row["hits"]) for row in rows] == hits.sum(axis=1)[order].tolist()
        for row, t in zip(rows, order, strict=True):
            among = np.flatnonzero(hits[t])
            best = among[np.argmin(result["log10_p"][t, among])] if len(among) else None
            assert row["strongest_hit"] == ("" if best is None else result.gene_names[best])
        # The table of the view keeps its choice of rows.
        page.select_option("#shown", "hits")
        rows = table(page, "#view", "Save table as CSV")
        assert sorted(r["feature"] for r in rows) == sorted(result.features[hits[3]])
        enter(page, "#cutoff-size", "0")
        hits = chosen(page, result, 1e-8, 0)
        rows = table(page, "#view", "Save table as CSV")
        assert sorted(r["feature"] for r in rows) == sorted(result.features[hits[3]])
        page.get_by_role("button", name="Reset").click()
        chosen(page, result, 0.05, 0)
        assert page.input_value("#cutoff-fdr") == "0.05"


def test_cutoffs_refuse_what_the_page_cannot_answer(
    browser: Any, report: Path, result: DEResult
):  # fmt: skip
    with opened(browser, report) as page:
        enter(page, "#cutoff-fdr", "1e-8")
        chosen(page, result, 1e-8, 0)
        for wrong in ("0.2", "0", "-1", ""):
            enter(page, "#cutoff-fdr", wrong)
            assert page.get_attribute("#cutoff-fdr", "aria-invalid") == "true"
        chosen(page, result, 1e-8, 0)
        assert "up to an FDR of 0.05" in text(page, "#cutoffs-help")
        enter(page, "#cutoff-fdr", "0.05")
        assert page.get_attribute("#cutoff-fdr", "aria-invalid") == "false"
        chosen(page, result, 0.05, 0)
        sliders = page.locator("#cutoffs input[type=range]")
        sliders.nth(1).focus()
        for _ in range(4):
            page.keyboard.press("ArrowRight")
        assert page.input_value("#cutoff-size") == "0.2"
        chosen(page, result, 0.05, 0.2)
        sliders.nth(0).focus()
        page.keyboard.press("Home")
        assert float(page.input_value("#cutoff-fdr")) == 1e-20
        chosen(page, result, 1e-20, 0.2)


def test_hits_beyond_the_page_are_said_not_to_count(
    browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    from pdex_gpu.report import write

    monkeypatch.setattr(write, "MOST_ROWS", 50)
    path = write_report(made(2, 100, hits=1.0, extra=EXTRA), tmp_path / "r.html")
    with opened(browser, path) as page:
        assert text(page, "#cutoffs-state") == "200 hits in 2 perturbations"
        assert "150 hits are not on it" in text(page, "#cutoffs-help")
        enter(page, "#cutoff-fdr", "0.04")
        until(page, HITS_SAY, "50 hits on this page in 2 perturbations")


def options(page: Any) -> list[str]:
    return [o.split("\n")[0] for o in page.locator("#options [role=option]").all_inner_texts()]


def test_search_forgives_typing_and_knows_identifiers(browser: Any, report: Path):
    with opened(browser, report) as page:
        for typed in ("MHY7", "mhy7", "MYH8", "MYHH7", "ENSG00117", "ensg0117"):
            page.fill("#search", typed)
            assert options(page)[0] == "MYH7", typed
        page.fill("#search", "ENSG00117")
        assert "gene ENSG00117" in text(page, "#options")
        page.press("#search", "Enter")
        until(page, "() => document.querySelector('#view h3').textContent === 'MYH7'")
        assert "ENSG00117" in text(page, "#view .facts")
        page.fill("#search", "tbce")
        assert options(page) == ["TBCE (ENSG00118)", "TBCE (ENSG00119)"]
        page.fill("#search", "P003")
        assert "cell type" in text(page, "#options")
        page.evaluate("() => { location.hash = '#gene=ENSG00003'; }")
        until(page, "() => document.querySelector('#view h3').textContent === 'GENE3'")


def test_rows_have_cells_and_both_names(browser: Any, report: Path, result: DEResult):
    with opened(browser, report, "#target=P003") as page:
        heads = page.locator("#view thead th").all_inner_texts()
        assert [head.strip("↑↓ \n") for head in heads] == [
            "Gene", "Hit", "log₂ fold", "p-value", "FDR", "Mean", "Reference", "Cells",
            "Ref. cells", "Statistic",
        ]  # fmt: skip
        rows = table(page, "#view", "Save table as CSV")
        for row in rows:
            g = result.features.tolist().index(row["feature"])
            assert row["symbol"] == result.symbols[g]  # type: ignore[index]
            assert row["target_n_cells"] == str(result["target_n_cells"][3, g])
            assert row["reference_n_cells"] == "500"
            assert float(row["log2_fold_change"]) == pytest.approx(
                np.log2(result["fold_change"][3, g]), abs=1e-6
            )
            assert float(row["fdr"]) == pytest.approx(result["fdr"][3, g], rel=DIGITS)


def test_all_rows_of_the_page_are_saved(browser: Any, report: Path, result: DEResult):
    with opened(browser, report) as page:
        button = next(
            words
            for words in page.locator("#hits button").all_inner_texts()
            if words.endswith("of this page as CSV")
        )
        assert page.get_by_role("button", name=button).get_attribute("title") == (
            "The results file has all 5,400."
        )
        rows = table(page, "#hits", button)
        assert button == f"Save the {len(rows):,} rows of this page as CSV"
        hits = is_hit(result, 0.05)
        wanted = {(result.targets[t], result.features[g]) for t, g in np.argwhere(hits)}
        assert {(r["target"], r["feature"]) for r in rows if r["hit"] == "true"} == wanted
        genes = {name: g for g, name in enumerate(result.features)}
        groups = {name: t for t, name in enumerate(result.targets)}
        at = [groups[r["target"]] for r in rows], [genes[r["feature"]] for r in rows]
        for column in ("p_value", "fdr"):
            found = np.array([float(row[column]) for row in rows])
            np.testing.assert_allclose(found, result[column][at], rtol=DIGITS, err_msg=column)


def test_cells_that_differ_by_gene(browser: Any, tmp_path: Path):
    cells = np.arange(24).reshape(2, 12) * 7 + 3
    result = made(2, 12, target_n_cells=cells, extra=EXTRA)
    with opened(browser, write_report(result, tmp_path / "r.html"), "#target=P001") as page:
        rows = table(page, "#view", "Save table as CSV")
        found = {row["feature"]: int(row["target_n_cells"]) for row in rows}
        assert found == {f"G{g:03d}": cells[1, g] for g in range(12)}


def test_words_are_of_cell_types(browser: Any, report: Path):
    with opened(browser, report) as page:
        assert text(page, "#find-title") == "Find a cell type or a gene"
        assert text(page, "#hits-title") == "Hits per cell type"
        assert text(page, "#pair-title") == "Two cell types side by side"
        assert text(page, "#view .kind") == "Cell type"
        page.evaluate("() => { location.hash = '#gene=GENE3'; }")
        until(page, "() => document.querySelector('#view .kind').textContent === 'Gene'")
        assert (
            "perturbation"
            not in text(page, "#content")
            .replace("Perturbations with an own gene", "")
            .split("Definitions")[0]
        )


def test_hits_are_copied(browser: Any, report: Path, result: DEResult):
    # Firefox is set up so that every page may read the clipboard.
    allowed = None if is_firefox(browser) else ["clipboard-read", "clipboard-write"]
    with opened(browser, report, "#target=P003", permissions=allowed) as page:
        hits = np.flatnonzero(is_hit(result, 0.05)[3])
        ranked = hits[np.argsort(result["log10_p"][3, hits])]
        page.get_by_role("button", name=f"Copy {len(hits)} hits").click()
        until(page, "() => document.querySelector('#view .send [role=status]').textContent")
        copied = page.evaluate("() => navigator.clipboard.readText()")
        assert copied.split("\n") == result.symbols[ranked].tolist()
        said = text(page, "#view .send [role=status]")
        assert said == f"{len(hits)} genes copied, one per line."
        page.select_option("#shown", "up")
        up = ranked[result["fold_change"][3, ranked] > 1]
        page.locator("#view .send button").first.click()
        until(page, "() => document.querySelector('#view .send [role=status]').textContent")
        copied = page.evaluate("() => navigator.clipboard.readText()")
        assert copied.split("\n") == result.symbols[up].tolist()


# Windows that would open: address, method and fields. Instead of them, because the first request of
# a new window cannot be answered by a test.
WINDOWS = """
window.windows = [];
HTMLFormElement.prototype.submit = function () {
  const fields = Object.fromEntries(new FormData(this));
  window.windows.push([this.action, this.method, this.enctype, this.target, this.rel, fields]);
};
const click = HTMLAnchorElement.prototype.click;
HTMLAnchorElement.prototype.click = function () {
  if (this.target) window.windows.push([this.href, "get", "", this.target, this.rel, {}]);
  else click.call(this);
};
"""


def test_hits_are_sent_by_a_click_alone(browser: Any, report: Path, result: DEResult):
    with opened(browser, report, "#target=P003", before=WINDOWS) as page:
        windows = "() => window.windows"
        hits = np.flatnonzero(is_hit(result, 0.05)[3])
        names = result.symbols[hits[np.argsort(result["log10_p"][3, hits])]].tolist()
        enter(page, "#cutoff-fdr", "0.04")
        chosen(page, result, 0.04, 0)
        assert page.evaluate(windows) == []
        page.locator("#view").get_by_role("button", name="Enrichr").click()
        page.locator("#view").get_by_role("button", name="STRING").click()
        by_form, by_address = page.evaluate(windows)
        assert by_form == [
            "https://maayanlab.cloud/Enrichr/enrich", "post", "multipart/form-data", "_blank",
            "noopener noreferrer",
            {"list": "\n".join(names), "description": "Differential expression: P003"},
        ]  # fmt: skip
        assert by_address == [
            "https://string-db.org/cgi/network?identifiers="
            + "%0d".join(map(quote, names)),
            "get", "", "_blank", "noopener noreferrer", {},
        ]  # fmt: skip
        said = text(page, "#view .send [role=status]")
        assert said == f"{len(names)} genes sent to STRING in a new window."
        assert page.locator("form").count() == 0
        enter(page, "#cutoff-fdr", "1e-300")
        chosen(page, result, 1e-300, 0)
        for button in page.locator("#view .send button").all():
            assert button.is_disabled()


def test_a_pasted_list_shows_its_genes(browser: Any, report: Path, result: DEResult):
    with opened(browser, report, "#target=P003") as page:
        page.fill("#genes-input", "MYH7, gene3\nMHY7;ENSG00005\tTBCE\nGENE8 GENE9\nGENE8")
        page.get_by_role("button", name="Show these genes").click()
        state = text(page, "#genes-state")
        assert "6 of 7 names found (7 genes)." in state
        assert "MHY7 was not found. Similar: MYH7" in state
        asked = [117, 3, 5, 118, 119, 8, 9]
        rows = table(page, "#genes", "Save table as CSV")
        assert {row["feature"] for row in rows} <= set(result.features[asked])
        hits = is_hit(result, 0.05)[:, asked]
        listed = {(row["target"], row["feature"]) for row in rows if row["hit"] == "true"}
        assert listed == {
            (result.targets[t], result.features[asked[k]]) for t, k in np.argwhere(hits)
        }
        assert f"of {7 * 45} rows" in text(page, "#genes")
        # The view has the same genes.
        assert page.input_value("#shown") == "list"
        shown = table(page, "#view", "Save table as CSV")
        assert {row["feature"] for row in shown} == {
            row["feature"] for row in rows if row["target"] == "P003"
        }
        enter(page, "#cutoff-fdr", "1e-8")
        chosen(page, result, 1e-8, 0)
        rows = table(page, "#genes", "Save table as CSV")
        hits = is_hit(result, 1e-8)[:, asked]
        assert sum(row["hit"] == "true" for row in rows) == np.count_nonzero(hits)
        page.fill("#genes-input", '"gene3" \'gene5\'\n"MYH7"')
        page.get_by_role("button", name="Show these genes").click()
        assert text(page, "#genes-state") == "3 of 3 names found."
        page.fill("#genes-input", "nothing at all like this")
        page.get_by_role("button", name="Show these genes").click()
        assert "0 of 5 names found." in text(page, "#genes-state")
        assert page.input_value("#shown") == "all"
        page.get_by_role("button", name="Clear").click()
        assert text(page, "#genes-state") == ""
        assert page.evaluate("() => document.activeElement.id") == "genes-input"


def test_pairs_share_hits(browser: Any, report: Path, result: DEResult):
    with opened(browser, report) as page:
        page.select_option("#pair-a", label="P003")
        page.select_option("#pair-b", label="P007")
        for fdr in (0.05, 1e-8):
            enter(page, "#cutoff-fdr", str(fdr))
            hits = chosen(page, result, fdr, 0)
            a, b = hits[3], hits[7]
            up = result["fold_change"] > 1
            same = a & b & (up[3] == up[7])
            facts = [int(n) for n in page.locator("#pair .facts b").all_inner_texts()]
            assert facts == [np.count_nonzero(x) for x in (a & b, same, a & ~b, b & ~a)]
            for choice, wanted in (("shared", a & b), ("a", a & ~b), ("b", b & ~a)):
                page.select_option("#pair-shown", choice)
                rows = table(page, "#pair", "Save table as CSV")
                assert sorted(r["feature"] for r in rows) == sorted(result.features[wanted])
                for row in rows:
                    g = result.features.tolist().index(row["feature"])
                    assert (row["target_1"], row["target_2"]) == ("P003", "P007")
                    for k, t in ((1, 3), (2, 7)):
                        if hits[t, g]:
                            assert float(row[f"fdr_{k}"]) == pytest.approx(
                                result["fdr"][t, g], rel=DIGITS
                            )
        page.get_by_role("button", name="Swap").click()
        assert page.locator("#pair-a option:checked").inner_text() == "P007"
        label = page.locator("#pair canvas").get_attribute("aria-label")
        assert label.startswith("Effects of P007 (across) and P003 (up) on each gene: ")


def test_a_single_comparison_has_no_pair(browser: Any, tmp_path: Path):
    with opened(browser, write_report(made(1, 12, extra=EXTRA), tmp_path / "r.html")) as page:
        assert page.locator("#pair").is_hidden()


def test_the_heat_map_says_what_it_shows(browser: Any, report: Path, result: DEResult):
    with opened(browser, report) as page:
        canvas = page.locator("#map canvas")
        for fdr in (0.05, 1e-8):
            enter(page, "#cutoff-fdr", str(fdr))
            hits = chosen(page, result, fdr, 0)
            genes = np.argsort(-is_hit(result, 0.05).sum(axis=0), kind="stable")[:40]
            groups = np.lexsort((np.arange(45), -hits.sum(axis=1)))[:40]
            n = np.count_nonzero(hits[np.ix_(groups, genes)])
            label = canvas.get_attribute("aria-label")
            assert label.startswith("Heat map of the log₂ fold change of 40 genes in 40 cell types")
            assert f"{n:,} of 1,600 are hits" in label
            assert ", ".join(result.gene_names[genes[:5]]) in label


@pytest.mark.parametrize(
    ("within", "name"),
    [
        ("#view", "cell_type-P003-volcano"),
        ("#hits", "hits"),
        ("#map", "heatmap"),
        ("#pair", "A-P012-B-P007-effects"),
    ],
)
def test_pictures_are_saved(browser: Any, report: Path, within: str, name: str):
    with opened(browser, report, "#target=P003", color_scheme="dark") as page:
        page.select_option("#pair-a", label="P012")
        page.select_option("#pair-b", label="P007")
        saved = {}
        for suffix in ("SVG", "PNG"):
            button = page.locator(within).get_by_role("button", name=suffix)
            called, saved[suffix] = saved_file(page, button)
            assert called == f"{name}.{suffix.lower()}"
        svg = ElementTree.fromstring(saved["SVG"].decode("utf-8"))
        assert svg.tag == "{http://www.w3.org/2000/svg}svg"
        shapes = [element.tag.split("}")[1] for element in svg]
        assert svg[0].get("fill") == "#ffffff"  # light, whatever the page is
        assert shapes.count("text") > 5
        assert shapes.count("path") + shapes.count("rect") > 10
        assert not any("NaN" in str(v) for e in svg for v in e.attrib.values())
        assert saved["PNG"][:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", saved["PNG"][16:24])
        assert (width, height) == (3 * int(svg.get("width")), 3 * int(svg.get("height")))
        assert page.evaluate("() => document.documentElement.className") == ""
