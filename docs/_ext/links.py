"""Pages whose text lies elsewhere in the repository, and links to them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from sphinx.application import Sphinx


@dataclass(frozen=True)
class Text:
    """Where the text of a page is.

    Attributes
    ----------
    path : str
        The file.
    section : str
        Headings below the title of the file: ``"0.1.0 - unreleased/Added"``. Empty for what no
        other page has.
    title : str
        In place of the heading of the section.
    """

    path: str
    section: str = ""
    title: str = ""


_BENCHMARKS, _CHANGES, _CONTRIBUTING = "benchmarks/README.md", "CHANGELOG.md", "CONTRIBUTING.md"

#: Pages, and their text. Long files are several pages.
ELSEWHERE = {
    "benchmarking": Text(_BENCHMARKS),
    "benchmarking/cpu": Text(_BENCHMARKS, "On the CPU", "Benchmarks on the CPU"),
    "benchmarking/files": Text(_BENCHMARKS, "From files", "Benchmarks from files"),
    "benchmarking/gpu": Text(_BENCHMARKS, "On a GPU", "Benchmarks on a GPU"),
    "changes": Text(_CHANGES),
    "changes/0.1.0-added": Text(_CHANGES, "0.1.0 - unreleased/Added", "Added in 0.1.0"),
    "changes/0.1.0-changed": Text(_CHANGES, "0.1.0 - unreleased/Changed", "Changed in 0.1.0"),
    "contributing": Text(_CONTRIBUTING),
    "contributing/add_a_thing": Text(_CONTRIBUTING, "Add a thing"),
    "contributing/publish": Text(_CONTRIBUTING, "Publish"),
    "docker": Text("docker/README.md"),
}

ROOT = Path(__file__).resolve().parents[2]

_HEADING = re.compile(r"(#+) (.+)")
_LINK = re.compile(r"\[([^\]]+)\]\((?!docs/)([^)#:]+)\)")
_PAGE = re.compile(r"\]\(docs/([\w/.-]+)\.md")
_ANCHOR = re.compile(r"\]\(#([\w-]+)\)")


def text_of(page: str) -> str:
    """Return the text of a page: links to pages lead there, other links become names of files."""
    path = ELSEWHERE[page].path
    pages = {text.section: name for name, text in ELSEWHERE.items() if text.path == path}
    lines: list[str] = []
    anchors: dict[str, str] = {}
    for line, section, heading in _lines(path, set(pages)):
        owner = pages[section]
        title = ELSEWHERE[owner].title or heading
        begins = bool(heading) and section.split("/")[-1] == heading
        if heading and owner != page:
            anchors[_slug(heading)] = _to(page, owner) + f"#{_slug(heading)}" * (not begins)
        if owner == page:
            above = section.count("/") + 1 if section else 0
            lines.append(f"# {title}" if begins else line[above:] if heading else line)
        elif begins and page == pages[""]:
            lines += [line, "", f"See [{title}](docs/{owner}.md).", ""]
    text = _LINK.sub(r"`\1`", "\n".join(lines) + "\n")
    text = _PAGE.sub(lambda link: f"]({_to(page, link[1])}", text)
    return _ANCHOR.sub(lambda link: f"]({anchors.get(link[1], '#' + link[1])})", text)


def _lines(path: str, sections: set[str]) -> Iterator[tuple[str, str, str]]:
    """Lines of a file, the section of each that is a page, and its text where it is a heading."""
    trail: list[str] = []
    section, code = "", False
    for line in (ROOT / path).read_text("utf-8").splitlines():
        code ^= line.startswith("```")
        found = None if code else _HEADING.fullmatch(line)
        if found:
            trail = [*trail[: len(found[1]) - 1], found[2]]
            starts = ("/".join(trail[1:end]) for end in range(len(trail), 1, -1))
            section = next((start for start in starts if start in sections), "")
        yield line, section, found[2] if found else ""


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def _to(page: str, other: str) -> str:
    """The link from one page to another."""
    return "../" * (len(PurePosixPath(page).parts) - 1) + f"{other}.md"


def with_pages(text: str) -> str:
    """Return text whose links to files that are pages of the site lead to those pages."""
    for page, where in ELSEWHERE.items():
        if not where.section:
            text = text.replace(f"](../{where.path})", f"]({page}.md)")
    return text


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname in ELSEWHERE:
        app.env.note_dependency(str(ROOT / ELSEWHERE[docname].path))
        content[0] = text_of(docname)
    else:
        content[0] = with_pages(content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
