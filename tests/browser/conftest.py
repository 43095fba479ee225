"""A playground in a process of its own with the real 0.5B model, and a real Chromium to look at it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.browser.steps import COUNT_ANSWERS, served

PATIENCE_MS = 30_000
MODEL = "qwen2.5-coder-0.5b-instruct"
CHROMIUM_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
]  # fmt: skip


@pytest.fixture(scope="session")
def playground(starter_weights) -> Iterator[str]:
    """The address of a running playground whose model is already on this machine."""
    weights = starter_weights(MODEL)
    cache = next(folder for folder in weights.parents if (folder / "models").is_dir())
    env = {"PLAYGROUND_MODEL": MODEL, "PLAYGROUND_CACHE_DIR": str(cache)}
    with served("app.py", "--port", "0", env=env) as address:
        yield address


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail(
            "No Chromium found: install the package 'chromium', or leave these tests out with -m 'not browser'."
        )
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, playground: str) -> Iterator[Page]:
    """A fresh visitor; whatever goes wrong in the page's own scripts fails the test."""
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.add_init_script(COUNT_ANSWERS)
    errors: list[str] = []
    requested: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    page.on("request", lambda request: requested.append(request.url))
    page.goto(playground)
    page.locator("#composer-chat textarea").wait_for()
    page.locator("#tab-chat .settings.open").wait_for()
    page.get_by_text("Meet Qwen").wait_for()
    # Comes with everything else that the server says of a page that opens: what was typed before would be overwritten.
    page.locator("#tab-chat").get_by_text("Licence:").wait_for()
    yield page
    context.close()
    assert errors == []
    foreign = [url for url in requested if not url.startswith((playground, "data:", "blob:"))]
    assert foreign == [], "the page must not call anyone else"
