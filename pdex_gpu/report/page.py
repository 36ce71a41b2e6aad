"""The page as one text: template, style, script and data, without external resources."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from .encode import Packed, json_text

#: The scripts of the page, concatenated in this order.
SCRIPTS = (
    "decode.js",
    "rows.js",
    "hits.js",
    "format.js",
    "dom.js",
    "canvas.js",
    "charts.js",
    "picture_files.js",
    "table.js",
    "search.js",
    "cutoffs.js",
    "send.js",
    "views.js",
    "lists.js",
    "pair.js",
    "heatmap.js",
    "overview.js",
    "main.js",
)

#: Where the page can send a form, by a click; ``send.js`` has the address.
FORMS = "https://maayanlab.cloud/Enrichr/"


def page(meta: Mapping[str, Any], arrays: Mapping[str, Packed]) -> str:
    """Return the HTML of a report.

    Parameters
    ----------
    meta : mapping
        Text and labels; ``meta["title"]`` is the page's title.
    arrays : mapping of str to Packed

    Returns
    -------
    str
        Its security policy allows only its own style and script, and lets it fetch nothing. Labels
        are only in the JSON; the script puts them on the page as text.
    """
    style = _read("report.css")
    script = "\n".join(['(() => {\n"use strict";', *map(_read, SCRIPTS), "})();"])
    parts = {
        "title": html.escape(str(meta["title"])),
        "policy": _policy(style, script),
        "style": style,
        "meta": json_text(meta),
        "arrays": "\n".join(_element(name, packed) for name, packed in arrays.items()),
        "script": script,
        **{name: html.escape(noun) for name, noun in _nouns(meta).items()},
    }
    # Replace in one pass, because a title may look like a placeholder.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], _read("report.html"))


def _nouns(meta: Mapping[str, Any]) -> dict[str, str]:
    one = str(meta["noun"]["one"])
    return {"one": one, "One": one.capitalize(), "many": str(meta["noun"]["many"])}


def _policy(style: str, script: str) -> str:
    """Return a content security policy: this style and script, downloads, and nothing else.

    A form, which is sent only by a click, may go to `FORMS`.
    """
    return (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; "
        f"base-uri 'none'; form-action {FORMS}"
    )


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _element(name: str, packed: Packed) -> str:
    return (
        f'<script type="application/octet-stream" id="data-{name}" data-kind="{packed.kind}" '
        f'data-n="{packed.n}">{packed.text}</script>'
    )


def _read(name: str) -> str:
    return (resources.files(__package__) / "page" / name).read_text(encoding="utf-8")
