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
    "docker": "docker/README.md",
}

ROOT = Path(__file__).resolve().parents[2]

_LINK = re.compile(r"\[([^\]]+)\]\(([^)#:]+)\)")


def text_of(path: str) -> str:
    """A file as a page: of its links to other files of its folder, the names remain."""
    text = (ROOT / path).read_text("utf-8")
    return _LINK.sub(r"`\1`", text)


def with_pages(text: str) -> str:
    """Links to files that are pages of the site become links to those pages."""
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
