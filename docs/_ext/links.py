"""Pages whose text lies elsewhere in the repository, and links to them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

#: Pages, and the files that are their text.
ELSEWHERE = {
    "benchmarking": "benchmarks/README.md",
    "changes": "CHANGELOG.md",
    "contributing": "CONTRIBUTING.md",
    "docker": "docker/README.md",
}

ROOT = Path(__file__).resolve().parents[2]

_LINK = re.compile(r"\[([^\]]+)\]\((?!docs/)([^)#:]+)\)")
_PAGE = re.compile(r"\]\(docs/([\w/.-]+\.md)")


def text_of(path: str) -> str:
    """Return a file as a page: links to pages lead there, other links become names of files."""
    text = (ROOT / path).read_text("utf-8")
    return _PAGE.sub(r"](\1", _LINK.sub(r"`\1`", text))


def with_pages(text: str) -> str:
    """Return text whose links to files that are pages of the site lead to those pages."""
    for page, path in ELSEWHERE.items():
        text = text.replace(f"](../{path})", f"]({page}.md)")
    return text


def _read(app: Sphinx, docname: str, content: list[str]) -> None:
    if docname in ELSEWHERE:
        path = ELSEWHERE[docname]
        app.env.note_dependency(str(ROOT / path))
        content[0] = text_of(path)
    else:
        content[0] = with_pages(content[0])


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
