"""Two engines in a real browser: switching keeps the conversation, and everything else follows."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect

from tests.browser.steps import ROOT, answered, open_section, open_tab, send, served

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def playground() -> Iterator[str]:
    with served("-m", "tests.browser.two_engines", env={}) as address:
        yield address


def test_a_conversation_goes_on_with_another_engine(page: Page) -> None:
    screen = page.locator("#tab-chat")
    send(page, "chat", "Who are you?")
    expect(answered(page, "chat")).to_contain_text("first engine read 2")
    page.locator("#composer-chat textarea").fill("And now?")
    open_section(screen, "Sampling")
    temperature = screen.get_by_label("number input for Temperature")
    expect(temperature).to_be_enabled()

    screen.get_by_label("Engine", exact=True).click()
    page.get_by_role("option", name="second engine").click()
    expect(screen).to_contain_text("second engine does not support it")
    expect(temperature).to_be_disabled()
    expect(page.locator("#transcript-chat .bot-row")).to_contain_text("first engine read 2")
    expect(page.locator("#composer-chat textarea")).to_have_value("And now?")

    page.locator("#composer-chat textarea").press("Enter")
    expect(page.locator("#transcript-chat .bot-row")).to_have_count(2)
    expect(answered(page, "chat")).to_contain_text("second engine read 4")

    page.reload()
    expect(page.locator("#transcript-chat .bot-row")).to_have_count(2)
    expect(screen.get_by_label("Engine", exact=True)).to_have_value("second engine")
    open_section(screen, "Sampling")
    expect(temperature).to_be_disabled()


def test_stop_keeps_what_was_written_about_a_picture(page: Page) -> None:
    screen = open_tab(page, "image")
    screen.locator("input[type=file]").set_input_files(ROOT / "examples" / "pictures" / "shapes.png")
    screen.get_by_text("goes with the next message").wait_for()
    send(page, "image", "Go on and on.")
    expect(page.locator("#transcript-image .bot-row").last).to_contain_text("word word")
    page.locator("#composer-image .stop-button").click()
    last = answered(page, "image")
    expect(last).to_contain_text("Stopped here.")
    expect(last).to_contain_text("word word")
    expect(screen.locator(".stage figure")).to_have_count(1)


@pytest.mark.parametrize("tab", ["coding", "math", "multilingual", "image"])
def test_every_tab_comes_back_after_a_reload(page: Page, tab: str) -> None:
    open_tab(page, tab)
    send(page, tab, "Who are you?")
    answered(page, tab)
    page.reload()
    open_tab(page, tab)
    expect(page.locator(f"#transcript-{tab} .user-row")).to_have_text("Who are you?")
    expect(page.locator(f"#transcript-{tab} .bot-row").last).to_contain_text("first engine read")
