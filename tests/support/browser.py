"""Browsers for tests of pages: found where they are, and watched while a page is open."""

from __future__ import annotations

import functools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

#: Commands by which each browser is known. Each is tried with the same tests.
_COMMANDS = {
    "chromium": ("chromium", "chromium-browser", "google-chrome"),
    "firefox": ("firefox-esr", "firefox"),
}

#: How playwright starts each. Firefox is driven by WebDriver BiDi, because it is the one of the
#: system, not a build made for playwright; scripts may read its clipboard, as a granted permission
#: allows in Chromium.
_OPTIONS: dict[str, dict[str, Any]] = {
    "chromium": {"args": ["--no-sandbox"]},
    "firefox": {
        "channel": "moz-firefox",
        "firefox_user_prefs": {"dom.events.testing.asyncClipboard": True},
    },
}


@pytest.fixture(
    scope="session", params=["chromium", pytest.param("firefox", marks=pytest.mark.thorough)]
)
def browser(request: pytest.FixtureRequest) -> Iterator[Any]:
    """A headless browser (playwright's Browser); skips the test where there is none."""
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    commands = _COMMANDS[request.param]
    path = next(filter(None, map(shutil.which, commands)), None)
    if path is None:
        pytest.skip(f"no {request.param}: none of {', '.join(commands)} is on the path")
    with api.sync_playwright() as playwright:
        start = getattr(playwright, request.param).launch
        found = start(executable_path=path, downloads_path=_saves().name, **_OPTIONS[request.param])
        yield found
        found.close()


def is_firefox(browser: Any) -> bool:
    """Whether it is Firefox."""
    return bool(browser.browser_type.name == "firefox")


def needs_chromium(browser: Any, what: str) -> None:
    """Skip the rest of a test in Firefox, whose protocol lacks what it needs."""
    if is_firefox(browser):
        pytest.skip(f"playwright cannot {what} in a Firefox that it did not build")


@functools.cache
def _saves() -> tempfile.TemporaryDirectory[str]:
    """The folder that this process's browsers save files in."""
    return tempfile.TemporaryDirectory(prefix="saves-")


def saved_file(page: Any, button: Any) -> tuple[str, bytes]:
    """Name and content of the file that a click saves."""
    if not is_firefox(page.context.browser):
        with page.expect_download() as waiting:
            button.click()
        return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()
    # Playwright is not told of files that Firefox saves, but they are there. While one is written,
    # it is empty, with another that ends in ".part".
    folder = Path(_saves().name)
    for old in folder.iterdir():
        old.unlink()
    button.click()
    for _ in range(15_000):
        found = list(folder.iterdir())
        if len(found) == 1 and found[0].suffix != ".part" and found[0].stat().st_size:
            return found[0].name, found[0].read_bytes()
        page.wait_for_timeout(20)
    raise AssertionError(f"no file is saved by {button}")


def enter(page: Any, field: str, text: str) -> None:
    """Enter text into a field for numbers, in place of what it contains."""
    if is_firefox(page.context.browser) and text:  # to which playwright would add it there
        page.locator(field).evaluate("(field) => { field.value = ''; }")
    page.fill(field, text)


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
    page.bring_to_front()  # Firefox draws nothing behind another page
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
