"""Every screen, read by axe-core: light and dark, on a desk and on a phone, and in Arabic. No violation of any rule.

All rules of axe-core are on that are neither experimental nor of level AAA, the best practices among them, and the one
about the size of targets, which is off by default. None is switched off.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.every_screen import NAME, PASSWORD
from tests.browser.steps import COUNT_ANSWERS, ROOT, answered, asking, open_section, open_tab, send, served
from ui.conversation.tabs import TABS

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
            self.light_and_dark(f"{screen}, {size['width']} px", "" if size is DESK else OF_A_LOOK)
        self.page.set_viewport_size(DESK)
        if tab:
            show_sidebar(tab, True)

    def light_and_dark(self, screen: str, rules: str = OF_A_LOOK) -> None:
        """`rules`: those of the light look."""
        for look in ("light", "dark"):
            self.page.emulate_media(color_scheme=look)
            self.page.evaluate("(dark) => document.body.classList.toggle('dark', dark)", look == "dark")
            self.read(f"{screen}, {look}", rules if look == "light" else OF_A_LOOK)


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
    """An answer with everything in it, under its thoughts; on the image tab one with boxes too."""
    screen.locator(".settings input[type=checkbox]").first.check()
    questions = ["Show everything."]
    if tab == "image":
        screen.locator("input[type=file]").set_input_files(SHAPES)
        screen.locator("[data-remove]").wait_for()
        questions.append("Where is the triangle?")
    for question in questions:
        with asking(page, tab):
            send(page, tab, question)
        answered(page, tab)


def test_the_page_that_signs_in(reader: Reader) -> None:
    page = reader.page
    page.locator("[name=password]").first.fill("wrong code")
    page.locator("button").first.click()
    page.get_by_role("alert").wait_for()
    page.locator("summary").click()
    reader.every_look("sign-in")
    assert page.locator("html").get_attribute("lang") == "en"
    assert "\n".join(reader.found) == ""


@pytest.mark.parametrize("tab", [spec.id for spec in TABS])
def test_a_tab_from_empty_to_waiting(reader: Reader, tab: str) -> None:
    page = reader.page
    sign_in(page)
    screen = open_tab(page, tab)
    reader.every_look(f"{tab}, empty", screen)
    ask_for_everything(page, tab, screen)
    with asking(page, tab):
        send(page, tab, "Break down.")
    page.locator(f"#transcript-{tab} .failure").first.wait_for()
    page.locator(f"#composer-{tab} .submit-button").wait_for()
    reader.light_and_dark(f"{tab}, with a failure")
    with asking(page, tab):
        send(page, tab, "Wait.")
    page.locator(f"#transcript-{tab} .waiting").first.wait_for()
    reader.every_look(f"{tab}, with an answer, one waiting", screen)
    page.locator(f"#composer-{tab} .stop-button").click()
    assert "\n".join(reader.found) == ""


def test_the_sidebar_the_status_tab_and_what_opens_over_them(reader: Reader) -> None:
    page = reader.page
    sign_in(page)
    screen = page.locator("#tab-chat[role=tabpanel]")
    for section in ("Model", "Thinking", "Sampling", "Conversation"):
        open_section(screen, section)
    send(page, "chat", "Show everything.")
    answered(page, "chat")
    page.locator("#transcript-chat").get_by_role("button", name="Edit").first.click()
    page.locator("#transcript-chat textarea").wait_for()
    screen.get_by_label("Engine", exact=True).click()
    page.locator("ul[role=listbox] li").first.wait_for()
    reader.light_and_dark("sidebar, a list open, a question edited", "")
    page.keyboard.press("Escape")
    page.set_viewport_size(PHONE)
    reader.light_and_dark("sidebar on a phone")
    page.set_viewport_size(DESK)
    page.locator("#composer-chat textarea").fill(" ")
    page.locator("#composer-chat textarea").press("Enter")
    page.locator(".toast-body").wait_for()
    reader.light_and_dark("a notice", "")
    page.locator("#tab-status-button:visible").click()
    page.locator(".status table").first.wait_for()
    reader.every_look("status")
    assert "\n".join(reader.found) == ""


@pytest.mark.parametrize("reader", ["ar"], indirect=True)
def test_the_page_in_arabic(reader: Reader) -> None:
    page = reader.page
    assert page.locator("html").get_attribute("lang") == "ar"
    sign_in(page)
    assert page.locator("html").get_attribute("lang") == "ar"
    screen = open_tab(page, "chat")
    ask_for_everything(page, "chat", screen)
    reader.every_look("chat in Arabic", screen)
    for text in (
        "#composer-chat textarea",
        "#transcript-chat .figures",
        "#transcript-chat .title",
        "#tab-chat .context",
    ):
        expect(page.locator(text).first).to_have_css("direction", "rtl")
    expect(page.locator("#transcript-chat pre").first).to_have_css("direction", "ltr")
    assert "\n".join(reader.found) == ""


def test_what_is_wide_scrolls_in_itself_and_the_keyboard_reaches_it(reader: Reader) -> None:
    page = reader.page
    sign_in(page)
    ask_for_everything(page, "chat", open_tab(page, "chat"))
    page.set_viewport_size(NARROW)
    show_sidebar(page.locator("#tab-chat[role=tabpanel]"), False)
    talk = page.locator("#transcript-chat .bubble-wrap")
    for part in ("pre", "table", ".katex-display", "p:has(.mfrac)"):
        expect(talk.locator(f":is({part}, .scrolls:has({part}))[tabindex='0']").first).to_be_attached()
    # Whatever reaches beyond the talk lies in something that scrolls and does not.
    outside = """(talk) => {
        const edge = talk.getBoundingClientRect().right + 1;
        const beyond = (e) => e.getBoundingClientRect().right > edge;
        const holds = (e) => /auto|scroll/.test(getComputedStyle(e).overflowX) && !beyond(e);
        const held = (e) => e !== talk && (holds(e) || held(e.parentElement));
        return [...talk.querySelectorAll(".prose *")].filter((e) => beyond(e) && !held(e)).map((e) => e.outerHTML);
    }"""
    assert talk.evaluate(outside) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    code = talk.locator(".code_wrap pre").first
    code.focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_function("(code) => code.scrollLeft > 0", arg=code.element_handle())


def test_headings_follow_on_each_other_and_there_is_one_main_part(reader: Reader) -> None:
    page = reader.page
    sign_in(page)
    ask_for_everything(page, "chat", page.locator("#tab-chat[role=tabpanel]"))
    levels = "(all) => all.map((heading) => Number(heading.ariaLevel || heading.tagName[1]))"
    assert page.locator(":is(h1, h2, h3, h4, h5, h6):visible").evaluate_all(levels) == [1, 2, 3]
    expect(page.get_by_role("main")).to_have_count(1)


def test_the_keyboard_sees_where_it_is(reader: Reader) -> None:
    """Whatever Tab stops at is on the screen and has a ring, its own or that of the composer around it."""
    page = reader.page
    sign_in(page)
    show_sidebar(page.locator("#tab-chat[role=tabpanel]"), False)
    where = """() => {
        const e = document.activeElement, box = e.getBoundingClientRect(), rings = (at) => {
            const style = getComputedStyle(at);
            return (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2) || style.boxShadow !== "none";
        };
        const onScreen = box.width > 0 && box.right > 0 && box.left < innerWidth;
        const seen = onScreen && rings(e.matches("textarea") ? e.closest(".form") : e);
        return e === document.body ? "" : `${seen ? "" : "unseen "}${e.outerHTML.slice(0, 120)}`;
    }"""
    page.locator("#language-picker").focus()
    stops: list[str] = []
    while len(stops) < 60:
        page.keyboard.press("Tab")
        if not (stop := page.evaluate(where)):
            break
        stops.append(stop)
    assert len(stops) > 10
    assert [stop for stop in stops if stop.startswith("unseen ")] == []
