"""The site: built strictly, every page in two clicks, no dead link, nothing fetched or stale."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
import tomllib
import zlib
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import unquote, urldefrag, urlparse

import pytest
from accessibility import axe_script, barriers
from browser import needs_chromium
from repository import ROOT

import pdex_gpu
from pdex_gpu import errors
from pdex_gpu.results import schema

DOCS = ROOT / "docs"

pytestmark = pytest.mark.skipif(
    not all((ROOT / name).exists() for name in ("docs/conf.py", "benchmarks/results", "docker")),
    reason="not run from a checkout",
)

#: No page of text, and none has to be found by clicking.
_ASIDE = {"genindex.html", "search.html"}


def _extension(name: str) -> ModuleType:
    """A module of ``docs/_ext``."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


@pytest.fixture(scope="session")
def tables() -> ModuleType:
    """The module that makes the tables of the site."""
    return _extension("tables")


@pytest.fixture(scope="session")
def links() -> ModuleType:
    """The module that knows where the text of pages is."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    return _extension("links")


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as ``make docs`` builds it: any warning is an error. Takes 12 s alone."""
    for module in ("sphinx", "myst_nb", "numpydoc", "latex2mathml", "sphinx_copybutton"):
        pytest.importorskip(module, reason="needs the extra docs")
    pytest.importorskip("sphinx_book_theme", reason="needs the extra docs")
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # one of several processes builds it for all
        base = base.parent
    folder, done = base / "site", base / "site-built"
    try:
        folder.mkdir()
    except FileExistsError:
        deadline = time.monotonic() + 1800
        while not done.exists():
            assert time.monotonic() < deadline, "the site is not built by another process"
            time.sleep(0.2)
    else:
        _write_whole(done, _build(folder / "html"))
    assert done.read_text("utf-8") == ""
    return folder / "html"


def _build(html: Path) -> str:
    """Build the site; what went wrong, or nothing."""
    command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html"]
    built = subprocess.run(
        [*command, str(DOCS), str(html)], capture_output=True, text=True, check=False
    )
    return built.stderr or "sphinx failed" if built.returncode else ""


def _write_whole(path: Path, text: str) -> None:
    unfinished = path.with_suffix(".part")
    unfinished.write_text(text, "utf-8")
    unfinished.rename(path)


class _Page(HTMLParser):
    """Links, anchors and what the browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.sidebar: list[str] = []
        self.anchors: set[str] = set()
        self.loaded: list[str] = []
        self._navigation = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        if "id" in found:
            self.anchors.add(found["id"])
        if tag == "nav":
            self._navigation += 1
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
            if self._navigation:
                self.sidebar.append(found["href"])
        if tag in ("script", "img", "iframe", "source") and "src" in found:
            self.loaded.append(found["src"])
        if tag == "link" and found.get("rel") in ("stylesheet", "preload", "icon"):
            self.loaded.append(found["href"])

    def handle_endtag(self, tag: str) -> None:
        if tag == "nav":
            self._navigation -= 1


@pytest.fixture(scope="session")
def pages(site: Path) -> dict[str, _Page]:
    return {
        path.relative_to(site).as_posix(): _Page(path.read_text("utf-8"))
        for path in sorted(site.rglob("*.html"))
        if "_static" not in path.parts
    }


def _local(page: str, link: str) -> tuple[str, str]:
    """Page and anchor that a link of the site leads to."""
    address, anchor = urldefrag(link)
    if not address:
        return page, anchor
    parts: list[str] = list(Path(page).parent.parts)
    for part in Path(unquote(address)).parts:
        if part == "..":
            parts.pop()
        elif part != ".":
            parts.append(part)
    return "/".join(parts), unquote(anchor)


@pytest.mark.thorough
def test_there_are_the_pages(pages):
    wanted = [
        "index", "quickstart", "gallery", "gallery_calibration", "from_raw_data", "files",
        "command_line", "install", "docker", "backends", "numbers", "formulas",
        "comparisons", "p_values", "check_p_values", "interoperability",
        "moving/pdex-0.1", "moving/pdex-0.3", "moving/scanpy", "moving/illico",
        "moving/seurat", "moving/rapids-singlecell",
        "performance", "scaling", "records",
        "benchmarking", "benchmarking/cpu", "benchmarking/files", "benchmarking/gpu",
        "troubleshooting", "architecture", "kernels", "counts", "reading", "lab_notes",
        "contributing", "contributing/add_a_thing", "contributing/publish",
        "changes", "changes/0.1.0-added", "changes/0.1.0-changed",
        "api/index", "genindex", "search",
    ]  # fmt: skip
    assert {f"{name}.html" for name in wanted} <= set(pages)
    for notebook in (DOCS / "notebooks").glob("*.ipynb"):
        assert f"notebooks/{notebook.stem}.html" in pages


@pytest.mark.thorough
def test_every_page_is_one_click_from_every_other(pages):
    for name, page in pages.items():
        if name in _ASIDE:
            continue
        reached = {_local(name, link)[0] for link in page.sidebar} | {name}
        assert set(pages) <= reached, name


@pytest.mark.thorough
def test_no_link_is_dead(site, pages):
    n_links = 0
    for name, page in pages.items():
        for link in page.links + page.loaded:
            if urlparse(link).scheme or link.startswith("//"):
                continue
            target, anchor = _local(name, link.split("?")[0])
            assert (site / target).is_file(), f"{name}: {link}"
            if anchor and target in pages:
                assert anchor in pages[target].anchors or anchor == "", f"{name}: {link}"
            n_links += 1
    assert n_links > 1000


@pytest.mark.thorough
def test_nothing_is_fetched_to_read_it(site, pages):
    for name, page in pages.items():
        for link in page.loaded:
            assert not urlparse(link).scheme or link.startswith("data:"), f"{name}: {link}"
            assert not link.startswith("//"), f"{name}: {link}"
    text = "".join(path.read_text("utf-8") for path in site.rglob("*.html"))
    assert "cdn." not in text
    assert "MathJax" not in text
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import)\s*['\"]?(https?:)?//", path.read_text("utf-8")), path


@pytest.mark.thorough
def test_formulas_are_drawn(site):
    text = "".join((site / f"{n}.html").read_text("utf-8") for n in ("numbers", "formulas"))
    assert text.count("<math") > 60
    math = "".join(re.findall(r"<math.*?</math>", text, re.DOTALL))
    assert "\\" not in math.replace("\\\\", "")  # a command that the converter does not know
    assert "merror" not in text


@pytest.mark.thorough
def test_every_public_name_is_in_the_reference(site):
    inventory = _inventory(site / "objects.inv")
    wanted = {f"pdex_gpu.{name}" for name in pdex_gpu.__all__} - {"pdex_gpu.__version__"}
    wanted |= {f"pdex_gpu.pl.{name}" for name in pdex_gpu.pl.__all__}
    wanted |= {f"pdex_gpu.errors.{name}" for name in _classes(errors)}
    wanted |= {
        "pdex_gpu.results.schema",
        "pdex_gpu.results.schema.COLUMNS",
        "pdex_gpu.results.schema.EXTRA_COLUMNS",
    }
    wanted |= {"pdex_gpu.Progress"}
    assert wanted <= inventory.keys(), sorted(wanted - inventory.keys())


def _classes(module) -> Iterator[str]:
    for name, value in vars(module).items():
        if isinstance(value, type) and value.__module__ == module.__name__:
            yield name


def _inventory(path: Path) -> dict[str, str]:
    """Names of the reference, and where they are."""
    head, content = path.read_bytes().split(b"zlib.\n", 1)
    assert b"inventory version 2" in head
    lines = zlib.decompress(content).decode().splitlines()
    return {line.split()[0]: line.split()[3] for line in lines}


# --- what tables say ------------------------------------------------------------------------


@pytest.mark.thorough
def test_every_column_has_its_line(tables, site):
    without = {c.name for c in (*schema.COLUMNS, *schema.EXTRA_COLUMNS) if not c.formula}
    assert without == {*schema.LABELS, "p_value", "statistic", "fdr", "n_strata"}
    text = (site / "numbers.html").read_text("utf-8")
    for column in (*schema.COLUMNS, *schema.EXTRA_COLUMNS):
        assert f">{column.name}</span>" in text, column.name


def test_sources_named_beside_formulas_are_listed(tables):
    listed = (DOCS / "formulas.md").read_text("utf-8").split("## Sources")[1]
    years = {
        (surname, year)
        for column in (*schema.COLUMNS, *schema.EXTRA_COLUMNS)
        for surname, year in re.findall(r"([A-Z][a-z]+) (\d{4})", column.source)
    }
    assert len(years) > 6
    for surname, year in years:
        lines = [line for line in listed.splitlines() if f"({year})" in line and surname in line]
        # Coauthors are named in the list, so the last of several names is enough.
        assert len(lines) == 1, (surname, year)


@pytest.mark.thorough
def test_records_are_shown(tables, site):
    text = (site / "records.html").read_text("utf-8")
    found = tables.records()
    assert found
    for path in found:
        assert path.stem in text
        assert tables.record(path).count("|") > 50


def _tables(tables) -> dict[str, str]:
    """Every table that the site's pages ask for, by what they ask."""
    pytest.importorskip("sphinx", reason="needs the extra docs")
    generated = _extension("generated")
    asked = {
        words
        for page in DOCS.rglob("*.md")
        for words in re.findall(r"^```\{generated\} (.+)$", page.read_text("utf-8"), re.M)
    }
    return {words: generated._MADE[words.split()[0]](*words.split()[1:]) for words in asked}


def test_no_table_shows_a_hole(tables):
    """Neither an empty cell, nor what Python calls nothing."""
    made = _tables(tables)
    assert len(made) > 15
    for asked, text in made.items():
        for line in text.splitlines():
            if not line.startswith("|"):
                continue
            cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
            assert all(cells), (asked, line)
            if asked == "records":
                assert not {"None", "nan", "inf"} & set(re.findall(r"\w+", line)), (asked, line)
    assert not re.search(r"\b(None|nan)\b", made["records"])


def test_a_record_without_versions_names_none(tables, tmp_path):
    content = tables.json.loads(tables.records()[0].read_text("utf-8"))
    for known, said in (
        ({"numpy": "2.4.6", "python": None}, "numpy 2.4.6."),
        ({"python": "3.11.7", "scipy": "1.17"}, "Python 3.11.7, scipy 1.17."),
        ({}, None),
    ):
        content["versions"] = {"pdex_gpu": known}
        path = tmp_path / "cpu.json"
        path.write_text(tables.json.dumps(content), "utf-8")
        text = tables.record(path)
        assert "None" not in text
        assert (said in text.splitlines()) if said else ("Python" not in text.split("###")[0])


def test_a_record_says_what_is_in_it(tables):
    cpu = next(path for path in tables.records() if path.stem.startswith("cpu"))
    made = tables.record(cpu)
    content = tables.json.loads(cpu.read_text("utf-8"))
    times = content["tasks"]["wilcoxon-log1p"]["seconds"]
    ratio = times["illico"]["median"] / times["pdex_gpu"]["median"]
    assert f"| `wilcoxon-log1p` | illico | {times['illico']['median']:.3g} |" in made
    assert f"| {ratio:.3g} |" in made
    for name in content["figures"]:
        assert f"`{name}`" in made


# --- messages -------------------------------------------------------------------------------


def test_every_class_has_a_message_and_advice(tables):
    kinds = set(_classes(errors)) - {"PdexGpuError"}
    assert set(tables.load("troubles")) == kinds
    assert sorted(sum(tables.TOPICS.values(), ())) == sorted(kinds)


def test_quoted_messages_stand_in_the_code(tables):
    known = tables.messages()
    n_quoted = 0
    for kind, entries in tables.load("troubles").items():
        texts = [" ".join(m.text.split()) for m in known if m.kind == kind]
        for entry in entries:
            assert set(entry) == {"message", "cause", "do"}
            parts = [part.strip() for part in entry["message"].split("…")]
            pattern = ".*".join(map(re.escape, parts))
            assert any(re.search(pattern, text) for text in texts), entry["message"]
            assert max(map(len, parts)) > 10 or entry["message"] in texts, entry["message"]
            n_quoted += 1
    assert n_quoted > 40


@pytest.mark.thorough
def test_all_messages_are_listed(tables, site):
    text = (site / "troubleshooting.html").read_text("utf-8")
    plain = re.sub(r"<[^>]+>", "", text).replace("&#39;", "'").replace("&quot;", '"')
    plain = " ".join(plain.replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&").split())
    known = tables.messages()
    assert len(known) > 250
    for message in known:
        assert " ".join(message.text.split()) in plain, message


def test_messages_are_read_from_the_code_as_they_are_raised(tables):
    """Two that are put together in different ways, as raised."""
    found = {m.text for m in tables.messages() if m.kind == "OptionError"}
    with pytest.raises(errors.OptionError) as caught:
        pdex_gpu.open_result(DOCS)
    pattern = next(t for t in found if t.endswith("Pass the file of a result in it."))
    assert re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), str(caught.value))
    assert "Unknown metric '…'. Did you mean '…'? Available (…): …." in found


def test_the_galleries_show_every_figure():
    """Each section draws the figure that it is named after, first as short as can be."""
    shown = []
    for page in ("gallery", "gallery_calibration"):
        text = (DOCS / f"{page}.md").read_text("utf-8")
        for section in re.split(r"^## ", text, flags=re.MULTILINE)[1:]:
            name = section.split("\n")[0]
            drawn = re.findall(
                r"^```python\n([^`]+)^```\n\n!\[.+\]\(images/gallery/(\w+)\.png\)$",
                section, re.MULTILINE,
            )  # fmt: skip
            assert len(drawn) == section.count("```python") == section.count("![")
            assert all(code.startswith(f"pl.{name}(") for code, _ in drawn)
            assert drawn[0][1] == name
            assert all(figure.startswith(name) for _, figure in drawn)
            shown += [figure for _, figure in drawn]
    assert len(set(shown)) == len(shown)
    assert set(shown) >= set(pdex_gpu.pl.__all__)
    assert {path.stem for path in (DOCS / "images" / "gallery").iterdir()} == set(shown)


def test_sections_of_a_file_are_pages_of_their_own(links):
    """Each line is on one page; links between sections lead from page to page."""
    for path in {text.path for text in links.ELSEWHERE.values()}:
        pages = [page for page, text in links.ELSEWHERE.items() if text.path == path]
        shown = Counter(line for page in pages for line in links.text_of(page).splitlines())
        for line, n_times in Counter((ROOT / path).read_text("utf-8").splitlines()).items():
            if line and "](" not in line and not line.startswith("#"):
                assert shown[line] == n_times, (path, line)
    part = links.text_of("contributing/add_a_thing")
    assert part.startswith("# Add a thing\n")
    assert "\n## A test statistic\n" in part
    assert "[a kernel](../contributing.md#add-a-kernel)" in part
    assert "\nSee [Add a thing](contributing/add_a_thing.md).\n" in links.text_of("contributing")
    assert links.text_of("changes/0.1.0-added").startswith("# Added in 0.1.0\n")


# --- pages as they are seen -------------------------------------------------------------------

#: For reference: as long as what they list.
_LISTS = ("api/", "records.html", *_ASIDE)

_SEEN = """() => {
  const drawn = [...document.querySelectorAll(".bd-article img, .bd-article table")];
  const boxes = drawn.map((node) => node.getBoundingClientRect()).filter((box) => box.height);
  const first = Math.min(...boxes.map((box) => box.top + Math.min(box.height, 100)));
  return [document.documentElement.scrollHeight, first];
}"""


@pytest.mark.thorough
@pytest.mark.parametrize("browser", ["chromium"], indirect=True)
def test_pages_are_short_and_begin_with_a_picture_or_a_table(browser, site, pages):
    """At most 6,000 px in a window 1,400 wide; 100 px of a picture or table in the first 900."""
    window = browser.new_page(viewport={"width": 1400, "height": 900})
    window.set_default_timeout(300_000)
    wrong = []
    for name in pages:
        if name.startswith(_LISTS):
            continue
        window.goto((site / name).as_uri())
        height, first = window.evaluate(_SEEN)
        assert height >= 900, name
        if height > 6000 or first is None or first > 900:
            wrong.append((name, height, first))
    window.close()
    assert wrong == []


@pytest.mark.thorough
@pytest.mark.parametrize("browser", ["chromium"], indirect=True)
def test_messages_are_found_by_a_part_of_their_text(browser, site):
    window = browser.new_page()
    window.set_default_timeout(300_000)
    window.goto((site / "troubleshooting.html").as_uri())
    topics = window.locator("#by-message > section")
    explained = window.locator("#by-message details.message")
    listed = window.locator("#message-lists li")
    assert not listed.first.is_visible()
    n_topics, n_explained = topics.count(), explained.count()
    window.fill("#message-filter", "metric DID you mean")
    assert window.inner_text("#by-message section:not([hidden]) details:not([hidden]) summary") == (
        "Unknown metric '…'. Did you mean '…'? Available (…): …."
    )
    assert [sum(map(_visible, found.all())) for found in (topics, explained)] == [1, 1]
    n_listed = sum(map(_visible, listed.all()))
    assert n_listed >= 1
    said = f"1 explained here, {n_listed} in the list of all messages"
    assert window.inner_text("#message-count") == said
    window.fill("#message-filter", "no such words")
    assert not any(map(_visible, [*topics.all(), *listed.all()]))
    window.fill("#message-filter", "")
    assert sum(map(_visible, topics.all())) == n_topics
    assert sum(map(_visible, explained.all())) == n_explained
    assert not listed.first.is_visible()
    window.close()


def _visible(found: Any) -> bool:
    return bool(found.is_visible())


# --- prose ----------------------------------------------------------------------------------


_PATH = re.compile(r"`((?:pdex_gpu|tests|docs|benchmarks|kernels|docker)/[\w./*-]+)`")

#: What commands make, or wheels have, and checkouts lack.
_NOT_HERE = ("benchmarks/.", "docs/_build/", "pdex_gpu/kernels")


def _pages() -> list[str]:
    """Return the pages of prose, by their paths in the repository."""
    found = [path for path in DOCS.rglob("*.md") if "_build" not in path.parts]
    found += [*ROOT.glob("*.md"), *ROOT.glob("*/README.md")]
    return sorted(path.relative_to(ROOT).as_posix() for path in found)


@pytest.mark.parametrize("page", _pages())
def test_files_that_pages_name_exist(page):
    for path in _PATH.findall((ROOT / page).read_text("utf-8")):
        found = list(ROOT.glob(path.rstrip("/"))) or list((ROOT / "pdex_gpu").glob(path))
        assert found or path.startswith(_NOT_HERE), f"{page}: {path}"


def test_the_map_shows_the_layers_that_are_enforced():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    (layers,) = (c["layers"] for c in settings["contracts"] if c.get("containers") == ["pdex_gpu"])
    page = (DOCS / "architecture.md").read_text("utf-8")
    table = page.split("| subpackages |")[1].split("\n\n")[0].splitlines()[2:]
    drawn = [" | ".join(re.findall(r"`(\w+)`", row.split("|")[1])) for row in table]
    assert drawn == layers


def test_the_extra_is_what_the_site_needs():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"][
        "optional-dependencies"
    ]
    names = {re.split(r"[<>=\[;]", line)[0] for line in extras["docs"]}
    assert names == {
        "latex2mathml", "myst-nb", "numpydoc", "sphinx", "sphinx-book-theme", "sphinx-copybutton"
    }  # fmt: skip
    assert any("docs" in line for line in extras["test"] if line.startswith("pdex-gpu["))
    assert "docs" in (DOCS / "install.md").read_text("utf-8")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_front_page_keeps_nobody_out(browser: Any, site: Path, scheme: str):
    if scheme == "dark":
        needs_chromium(browser, "pretend dark colours")
    script = axe_script()
    inside = browser.new_context(color_scheme=scheme)
    page = inside.new_page()
    page.add_init_script(script)
    page.goto((site / "index.html").as_uri(), timeout=300_000)
    assert barriers(page) == []
    inside.close()
