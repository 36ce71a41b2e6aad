"""The report as axe-core judges it, in every view and in both colour schemes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from accessibility import axe_script, barriers
from browser import enter, needs_chromium, opened, until
from made_results import PROVENANCE, made

from pdex_gpu.report import write_report


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report that has every section, with a warning."""
    result = made(
        12, 60, features=["P001", *(f"G{g:03d}" for g in range(1, 60))],
        extra=("log10_p", "target_n_cells", "reference_n_cells"),
        provenance=PROVENANCE | {"backend": "cuda"},
    )  # fmt: skip
    return write_report(result, tmp_path_factory.mktemp("accessible") / "r.html")


@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.thorough)])
def test_no_view_keeps_anybody_out(browser: Any, report: Path, scheme: str):
    if scheme == "dark":
        needs_chromium(browser, "pretend dark colours")
    with opened(browser, report, color_scheme=scheme, before=axe_script()) as page:
        assert barriers(page) == []
        page.fill("#search", "P0")
        assert barriers(page) == []
        page.fill("#search", "no such name at all")
        assert barriers(page) == []
        page.fill("#search", "")
        page.fill("#genes-input", "P001, G003, nothing")
        page.get_by_role("button", name="Show these genes").click()
        page.select_option("#pair-shown", "all")
        page.locator("#hits tbody tr").nth(2).hover()
        assert barriers(page) == []
        page.evaluate("() => { location.hash = '#gene=G003'; }")
        until(page, "() => document.querySelector('#view h3').textContent === 'G003'")
        enter(page, "#cutoff-fdr", "7")
        assert barriers(page) == []
        page.evaluate("() => { location.hash = '#target=P0000'; }")
        until(page, "() => document.querySelector('#view h3').textContent.startsWith('No ')")
        assert barriers(page) == []


def test_a_barrier_is_found(browser: Any, tmp_path: Path):
    """A page with a button that has no name."""
    path = tmp_path / "page.html"
    path.write_text(
        "<!doctype html><html lang=en><title>t</title><main><h1>t</h1><button></button></main>",
        "utf-8",
    )
    with opened(browser, path, ready="button", before=axe_script()) as page:
        assert [found.split(":")[0] for found in barriers(page)] == ["button-name"]
