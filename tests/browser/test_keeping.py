"""What is written stays, in a real browser: reloads in mid-answer, two windows, storage that is full or forbidden."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from tests.browser.conftest import PATIENCE_MS
from tests.browser.steps import COUNT_ANSWERS, answered, asking, open_tab, send, served

pytestmark = pytest.mark.browser

FORBIDDEN = """const get = () => { throw new DOMException("denied", "SecurityError"); };
for (const name of ["localStorage", "sessionStorage"]) Object.defineProperty(window, name, { get, configurable: true });
Object.defineProperty(Document.prototype, "cookie", { get: () => "", set: () => {} });"""
FILL = """() => {
    for (let size = 1 << 22; size; size >>= 1) {
        for (let n = 0; ; n++) try { shelf.setItem(`foreign-${size}-${n}`, "x".repeat(size)); } catch { break; }
    }
}"""
Opened = Callable[..., Page]


@pytest.fixture(scope="module")
def playground() -> Iterator[str]:
    with served("-m", "tests.browser.two_engines", env={}) as address:
        yield address


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    context.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    context.add_init_script(COUNT_ANSWERS)
    errors: list[str] = []
    context.on("weberror", lambda error: errors.append(str(error.error)))
    yield context
    context.close()
    assert errors == []


@pytest.fixture
def opened(context: BrowserContext, playground: str) -> Opened:
    def window(*scripts: str) -> Page:
        page = context.new_page()
        for script in scripts:
            page.add_init_script(script)
        page.goto(playground)
        return ready(page)

    return window


def ready(page: Page) -> Page:
    page.locator("#composer-chat textarea").wait_for()
    page.locator("#tab-chat").get_by_text("Licence:").wait_for()
    return page


def reloaded(page: Page) -> Page:
    page.reload()
    return ready(page)


def asked(page: Page, question: str, tab: str = "chat") -> None:
    with asking(page, tab):
        send(page, tab, question)
    answered(page, tab)
    expect(page.locator(f"#composer-{tab} textarea")).to_have_value("")


def questions(page: Page) -> list[str]:
    return [text.strip() for text in page.locator("#transcript-chat .user-row").all_inner_texts()]


def told(page: Page) -> list[str]:
    return page.locator(".notice-kept").all_inner_texts()


# --- in the middle of an answer ------------------------------------------------------------------


@pytest.mark.parametrize("tab", ["chat", "multilingual"])
def test_a_reload_in_mid_answer_shows_what_stood_there(opened: Opened, tab: str) -> None:
    page = opened()
    open_tab(page, tab)
    asked(page, "Who are you?", tab)
    send(page, tab, "Go on and on.")
    # Kept once a second: what stands there after the third second was in the browser's hands at the second.
    page.wait_for_function(f"document.querySelector('#transcript-{tab}').innerText.split('word').length > 120")
    page.reload()
    open_tab(page, tab)
    last = page.locator(f"#transcript-{tab} .bot-row").last
    expect(last).to_contain_text("Stopped here.")
    expect(last).to_contain_text("word word word")
    asked(page, "And who are you now?", tab)
    expect(page.locator(f"#transcript-{tab} .bot-row").last).to_contain_text("read")
    page.reload()
    open_tab(page, tab)
    expect(page.locator(f"#transcript-{tab} .user-row")).to_have_count(3)
    expect(page.locator(f"#transcript-{tab}")).to_contain_text("word word word")


# --- two windows ---------------------------------------------------------------------------------


def test_two_windows_have_a_conversation_each_through_every_reload(opened: Opened) -> None:
    first = opened()
    asked(first, "Who is first?")
    second = opened()
    expect(second.locator(".notice-kept")).to_contain_text("already open in another window")
    assert questions(second) == []
    asked(second, "Who is second?")
    asked(first, "Still first?")
    for _ in range(2):
        assert questions(reloaded(second)) == ["Who is second?"]
        assert questions(reloaded(first)) == ["Who is first?", "Still first?"]
    assert told(first) == []
    assert told(second) == [], "it is said once"


def test_both_come_back_when_both_are_loaded_anew_at_once(opened: Opened) -> None:
    first = opened()
    asked(first, "Who is first?")
    second = opened()
    asked(second, "Who is second?")
    for page in (first, second):
        page.evaluate("window.left = true; setTimeout(() => location.reload(), 100)")
    for page, question in ((first, "Who is first?"), (second, "Who is second?")):
        page.wait_for_function("window.left === undefined")
        assert questions(ready(page)) == [question]


def test_a_window_that_was_copied_goes_its_own_way(context: BrowserContext, opened: Opened, playground: str) -> None:
    first = opened()
    asked(first, "Who is first?")
    ids = first.evaluate("({ ...sessionStorage })")
    copy = context.new_page()  # sessionStorage is copied along with a tab
    copy.add_init_script(f"if (!sessionStorage.length) Object.assign(sessionStorage, {ids})")
    copy.goto(playground)
    ready(copy)
    expect(copy.locator(".notice-kept")).to_contain_text("already open in another window")
    assert questions(copy) == ["Who is first?"]
    asked(copy, "And the copy?")
    asked(first, "And the original?")
    assert questions(reloaded(copy)) == ["Who is first?", "And the copy?"]
    assert questions(reloaded(first)) == ["Who is first?", "And the original?"]


@pytest.mark.parametrize("leaves", ["closed", "crashed"])
def test_a_later_window_takes_the_conversation_over(opened: Opened, context: BrowserContext, leaves: str) -> None:
    first = opened()
    asked(first, "Who is first?")
    if leaves == "crashed":
        first.evaluate("addEventListener('pagehide', (event) => event.stopImmediatePropagation(), true)")
    first.close()
    later = opened()
    expect(later.locator("#transcript-chat .user-row")).to_have_text("Who is first?")
    assert told(later) == []
    asked(later, "And then?")
    assert questions(reloaded(later)) == ["Who is first?", "And then?"]


def test_forget_me_reaches_every_window(opened: Opened) -> None:
    first = opened()
    asked(first, "Who is first?")
    second = opened()
    asked(second, "Who is second?")
    first.on("dialog", lambda dialog: dialog.accept())
    second.evaluate("window.left = true")
    first.locator("#forget-me").click()
    second.wait_for_function("window.left === undefined")
    for page in (first, second):
        expect(page.locator("#transcript-chat .user-row")).to_have_count(0)
        ready(page)
        assert questions(page) == []


# --- forbidden -----------------------------------------------------------------------------------


def test_a_page_that_may_keep_nothing_works(opened: Opened) -> None:
    page = opened(FORBIDDEN)
    expect(page.locator(".notice-kept")).to_contain_text("This browser keeps nothing for this page")
    page.locator(".notice-kept button").click()
    assert told(page) == []
    asked(page, "Who are you?")
    page.locator("#composer-chat textarea").fill("And what I was typing")
    page.locator("#language-picker").select_option("de")
    expect(page.locator("#tab-coding-button:visible")).to_have_text("Programmieren")
    expect(page.locator("#transcript-chat .user-row")).to_have_text("Who are you?")
    expect(page.locator("#composer-chat textarea")).to_have_value("And what I was typing")
    expect(page.locator("#tab-chat")).to_contain_text("Lizenz:")  # the server's own words
    assert told(page) == [], "it is said once"
    page.on("dialog", lambda dialog: dialog.accept())
    page.locator("#forget-me").click()
    expect(page.locator("#tab-coding-button:visible")).to_have_text("Coding")
    expect(page.locator("#transcript-chat .user-row")).to_have_count(0)
    asked(ready(page), "Who are you now?")


def test_chinese_is_found_too(opened: Opened) -> None:
    """Gradio knows 'zh-CN' and 'zh-TW' alone."""
    page = opened()
    page.locator("#language-picker").select_option("zh")
    expect(page.locator("#tab-math-button:visible")).to_have_text("数学")
    expect(page.locator("#composer-chat textarea")).to_have_attribute("placeholder", re.compile("^输入消息。"))


# --- full ----------------------------------------------------------------------------------------


def test_full_storage_is_said_once_and_this_window_goes_on(opened: Opened) -> None:
    page = opened("window.shelf = localStorage;")
    asked(page, "Who are you?")
    page.evaluate(FILL)
    asked(page, "Is there room?")
    expect(page.locator(".notice-kept")).to_contain_text("storage for this page is full")
    asked(page, "And now?")
    assert len(told(page)) == 1
    assert questions(reloaded(page)) == ["Who are you?", "Is there room?", "And now?"]
    page.evaluate("Object.keys(shelf).forEach((key) => key.startsWith('foreign-') && shelf.removeItem(key))")
    asked(page, "There is room again?")
    assert page.evaluate("Object.keys(sessionStorage).filter((key) => key.startsWith('qwen-'))") == []
    assert len(questions(reloaded(page))) == 4
