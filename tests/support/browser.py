"""Chromium for tests of pages: found where it is, and watched while a page is open."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

_NAMES = ("chromium", "chromium-browser", "google-chrome")


def chromium() -> str | None:
    """The path of a Chromium, if there is one."""
    return next(filter(None, map(shutil.which, _NAMES)), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless Chromium (playwright's Browser); skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    path = chromium()
    if path is None:
        pytest.skip(f"no Chromium: none of {', '.join(_NAMES)} is on the path")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield found
        found.close()


def until(page: Any, condition: str, argument: Any = None, seconds: float = 10.0) -> None:
    """Wait until a function of JavaScript, given as text, returns true.

    Playwright's ``wait_for_function`` evaluates text in the page when it tries again, which the
    policy of a page may forbid.
    """
    for _ in range(int(seconds / 0.02)):
        if page.evaluate(condition, argument):
            return
        page.wait_for_timeout(20)
    raise AssertionError(f"not within {seconds:g} s: {condition} ({argument!r})")


@contextmanager
def opened(
    browser: Any,
    path: Path,
    address: str = "",
    *,
    width: int = 1280,
    height: int = 900,
    ready: str = "html[data-ready]",
    before: str | None = None,
    **context: Any,
) -> Iterator[Any]:
    """A page that is open and ready. Fails if it asks for anything, or logs anything.

    Parameters
    ----------
    browser : playwright.sync_api.Browser
    path : pathlib.Path
    address : str
        What follows the path: ``"#target=..."``.
    width, height : int
        Of the window, in pixels.
    ready : str
        Selector of an element that shows that the page is there.
    before : str, optional
        A script that runs first.
    **context
        Options of ``Browser.new_context``.
    """
    inside = browser.new_context(viewport={"width": width, "height": height}, **context)
    inside.set_default_timeout(300_000)  # on a machine that is busy, too
    page = inside.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    if before is not None:
        page.add_init_script(before)
    try:
        page.goto(path.as_uri() + address)
        page.wait_for_selector(ready, state="attached")
        yield page
        # The page itself, again if it is loaded anew; tables that are saved come from memory.
        own = path.as_uri()
        assert [url for url in asked if url.split("#")[0] != own and url[:5] != "blob:"] == []
        assert said == []
    finally:
        inside.close()
