"""Every screen, read by axe-core: light and dark, on a desk and on a phone, and once in Arabic. No violation of any rule.

All rules of axe-core are on that are neither experimental nor of level AAA, the best practices among them, and the one
about the size of targets, which is off by default. None is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.every_screen import NAME, PASSWORD
from tests.browser.steps import COUNT_ANSWERS, ROOT, answered, asking, open_section, open_tab, send, served
from ui.tabs import TABS

pytestmark = pytest.mark.browser

AXE = ROOT / "node_modules" / "axe-core" / "axe.min.js"
SHAPES = ROOT / "examples" / "pictures" / "shapes.png"
DESK, PHONE, NARROW = {"width": 1440, "height": 900}, {"width": 390, "height": 844}, {"width": 360, "height": 740}
STILL = "* { transition: none !important; animation: none !important; }"  # a colour is read when it has come to rest
OF_A_LOOK = "['color-contrast', 'link-in-text-block', 'scrollable-region-focusable', 'target-size']"
"""The rules whose result may change with colours and width; all others see the same page again."""


@pytest.fixture(scope="module")
def everything() -> Iterator[str]:
    with served("-m", "tests.browser.every_screen", env={}) as address:
        yield address


@pytest.fixture(scope="module")
def axe() -> str:
    if not AXE.exists():
        pytest.fail("axe-core is missing: run 'make dev', which needs npm.")
    return AXE.read_text("utf-8")


class Reader:
    """A visitor's page, and what axe-core finds on it."""

    def __init__(self, page: Page, axe: str) -> None:
        self.page, self._axe = page, axe
        self.found: list[str] = []

    def read(self, screen: str, rules: str = "") -> None:
        """Notes every violation; `rules`: only these, as an array in JavaScript."""
        if not self.page.evaluate("window.axe !== undefined"):
            self.page.evaluate(self._axe)  # not as a script of the page: its content policy would refuse it
        chosen = f"runOnly: {rules}" if rules else "rules: { 'target-size': { enabled: true } }"
        result: dict[str, Any] = self.page.evaluate(
            f"axe.run(document, {{ resultTypes: ['violations'], preload: false, {chosen} }})"
        )
        self.found += [
            f"{screen}: {rule['id']}: {node['html'][:200]}: {node['failureSummary'][:300]}"
            for rule in result["violations"]
            for node in rule["nodes"]
        ]

    def every_look(self, screen: str, tab: Locator | None = None) -> None:
        """As it is on a desk and on a phone, light and dark. `tab`: the one whose sidebar is open on the desk only."""
        for size in (DESK, PHONE):
            self.page.set_viewport_size(size)
            if tab:
                show_sidebar(tab, size is DESK)
            for dark in (False, True):
                self.page.emulate_media(color_scheme="dark" if dark else "light")
                self.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", dark)
                first = size is DESK and not dark
                self.read(f"{screen}, {size['width']} px, {'dark' if dark else 'light'}", "" if first else OF_A_LOOK)


def show_sidebar(tab: Locator, wanted: bool) -> None:
    sidebar = tab.locator(".settings")
    if ("open" in (sidebar.get_attribute("class") or "").split()) != wanted:
        sidebar.locator(".toggle-button").click()
    expect(tab.locator(".settings.open")).to_have_count(int(wanted))


@pytest.fixture
def reader(browser: Browser, everything: str, axe: str, request: pytest.FixtureRequest) -> Iterator[Reader]:
    context = browser.new_context(viewport=DESK, locale=getattr(request, "param", "en-US"))  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    page.add_init_script(COUNT_ANSWERS)
    page.goto(everything)
    yield Reader(page, axe)
    context.close()


def sign_in(page: Page) -> None:
    page.locator("summary").click()
    page.locator("[name=username]").fill(NAME)
    page.locator("details [name=password]").fill(PASSWORD)
    page.locator("details button").click()
    page.locator("#tab-chat .settings.open").wait_for()
    page.locator("#tab-chat .settings .prose").first.wait_for()
    page.add_style_tag(content=STILL)


def ask_for_everything(page: Page, tab: str, screen: Locator) -> None:
    """An answer with everything in it, under its thoughts."""
    if tab == "image":
        screen.locator("input[type=file]").set_input_files(SHAPES)
        screen.locator("[data-remove]").wait_for()
    screen.locator(".settings input[type=checkbox]").first.check()
    for question in ("Where is the triangle?", "Show everything.") if tab == "image" else ("Show everything.",):
        with asking(page, tab):
            send(page, tab, question)
        answered(page, tab)


def leave_one_waiting(page: Page, tab: str) -> None:
    with asking(page, tab):
        send(page, tab, "Break down.")
    page.locator(f"#transcript-{tab} .failure").first.wait_for()
    page.locator(f"#composer-{tab} .submit-button").wait_for()
    with asking(page, tab):
        send(page, tab, "Wait.")
    page.locator(f"#transcript-{tab} .waiting").first.wait_for()


def test_the_page_that_signs_in(reader: Reader) -> None:
    page = reader.page
    page.locator("[name=password]").first.fill("wrong code")
    page.locator("button").first.click()
    page.get_by_role("alert").wait_for()
    page.locator("summary").click()
    reader.every_look("sign-in")
    assert page.locator("html").get_attribute("lang") == "en"
    assert reader.found == []


@pytest.mark.parametrize("tab", [spec.id for spec in TABS])
def test_a_tab_from_empty_to_waiting(reader: Reader, tab: str) -> None:
    page = reader.page
    sign_in(page)
    screen = open_tab(page, tab)
    for section in screen.locator(".settings button.label-wrap").all_inner_texts():
        open_section(screen, section.removesuffix("▼").strip())
    reader.every_look(f"{tab}, empty", screen)
    page.set_viewport_size(DESK)
    show_sidebar(screen, True)
    ask_for_everything(page, tab, screen)
    reader.every_look(f"{tab}, with an answer", screen)
    leave_one_waiting(page, tab)
    reader.every_look(f"{tab}, with a failure, one waiting", screen)
    page.locator(f"#composer-{tab} .stop-button").click()
    page.locator(f"#composer-{tab} .submit-button").wait_for()
    show_sidebar(screen, True)
    reader.read(f"{tab}, its sidebar open on a phone", OF_A_LOOK)
    assert reader.found == []
