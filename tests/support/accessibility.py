"""What axe-core finds wrong with a page for people who use a keyboard or a screen reader."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from typing import Any

import pytest

#: Findings that keep somebody from using a page, in the words of axe-core.
GRAVE = ("serious", "critical")


@cache
def axe_script() -> str:
    """The source of axe-core, to run before a page loads; skips the test without it."""
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-playwright-python, which contains axe-core, is not installed")
    return Path(found.origin).with_name("axe.min.js").read_text("utf-8")


def barriers(page: Any) -> list[str]:
    """Findings of axe-core that are grave, each with an element that it is about."""
    found = page.evaluate("async () => (await axe.run()).violations")
    return [
        f"{rule['id']}: {rule['help']}: {rule['nodes'][0]['html']}"
        for rule in found
        if rule["impact"] in GRAVE
    ]
