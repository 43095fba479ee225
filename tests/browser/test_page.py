"""The playground as a visitor meets it: a real browser, the real 0.5B model, every tab."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from tests.browser.steps import ANSWER_MS, answered, asking, keep_short, open_section, open_tab, send, set_number

pytestmark = [pytest.mark.browser, pytest.mark.model]

STORY = "Write a very long story about the sea, in ten chapters."  # takes most of a minute
SEA = re.compile("sea|ocean", re.IGNORECASE)


def test_chat_answers_and_survives_a_reload(page: Page) -> None:
    send(page, "chat", "What is the capital of France? One word.")
    expect(answered(page, "chat")).to_contain_text("Paris")
    expect(page.locator("#composer-chat textarea")).to_have_value("")
    expect(page.locator("#tab-chat .block.context")).to_contain_text("tokens of context used")
    page.reload()
    expect(page.locator("#transcript-chat .bot-row")).to_contain_text("Paris")
    expect(page.locator("#transcript-chat .user-row")).to_contain_text("capital of France")


def test_every_other_tab_answers(page: Page) -> None:
    open_tab(page, "coding")
    send(page, "coding", "Print hello.")
    code = answered(page, "coding").locator(".code_wrap").first
    expect(code.locator("code")).to_contain_text("print")
    expect(code.locator(".copy-code")).to_be_attached()
    with page.expect_download() as download:
        code.locator(".download-code").click()
    # A small model now and then leaves the language of a block away; the page then knows none either.
    assert download.value.suggested_filename in ("code.py", "code.txt")

    open_tab(page, "math")
    send(page, "math", "What is 2 + 3?")
    expect(answered(page, "math")).to_contain_text("5")
    expect(page.locator("#transcript-math .katex").first).to_be_visible()

    open_tab(page, "multilingual")
    send(page, "multilingual", "Say good morning.")
    answer = answered(page, "multilingual")
    expect(answer.locator(".column-name")).to_have_text(["English", "中文", "العربية"])
    expect(answer.locator(".figures")).to_have_count(3, timeout=ANSWER_MS)
    arabic = answer.locator(".column-name").nth(2)
    assert arabic.evaluate("e => getComputedStyle(e.closest('p')).unicodeBidi") == "plaintext"


def test_a_reload_in_the_middle_of_an_answer_keeps_the_question_and_goes_on(page: Page) -> None:
    send(page, "chat", STORY)
    expect(page.locator("#transcript-chat .bot-row").last).to_contain_text(SEA, timeout=ANSWER_MS)
    page.reload()
    page.locator("#tab-chat").get_by_text("Licence:").wait_for()
    expect(page.locator("#transcript-chat .user-row")).to_contain_text(STORY)
    expect(page.locator("#transcript-chat .bot-row")).to_contain_text("Stopped here.")
    keep_short(open_tab(page, "chat"))
    with asking(page, "chat"):
        send(page, "chat", "What is the capital of France? One word.")
    answered(page, "chat")
    expect(page.locator("#transcript-chat .bot-row")).to_have_count(2)


def test_stop_keeps_what_was_written_and_frees_the_composer(page: Page) -> None:
    send(page, "chat", STORY)
    expect(page.locator("#transcript-chat .bot-row").last).to_contain_text(SEA, timeout=ANSWER_MS)
    page.locator("#composer-chat .stop-button").click()
    last = answered(page, "chat")
    expect(last).to_contain_text("Stopped here.")
    expect(last).to_contain_text(SEA)


def test_the_tiny_demo_says_what_it_is_and_answers_about_a_picture(page: Page) -> None:
    """The host has chosen a model that reads text only; the tab for pictures takes one that sees all the same."""
    screen = open_tab(page, "image")
    expect(screen.locator(".prose.notice")).to_contain_text("trained by this project from scratch on drawn pictures")
    page.locator("#transcript-image .example").first.click()
    screen.get_by_text("goes with the next message").wait_for()
    page.locator("#composer-image textarea").press("Enter")
    last = answered(page, "image")
    expect(last).to_contain_text("Tiny demo model")
    expect(last).not_to_contain_text("bbox_2d", use_inner_text=True)  # its source lies unseen beside it


def test_retry_edit_undo_and_clear(page: Page) -> None:
    keep_short(page.locator("#tab-chat"))
    send(page, "chat", "Reply with the word apple only.")
    answered(page, "chat")
    with asking(page, "chat"):
        page.get_by_role("button", name="Retry").click()
    answered(page, "chat")
    expect(page.locator("#transcript-chat .user-row")).to_have_count(1)

    page.locator("#transcript-chat").get_by_role("button", name="Edit").first.click()
    editor = page.locator("#transcript-chat .user-row textarea")
    editor.fill("Reply with the word <b>banana</b> only.")
    with asking(page, "chat"):
        page.locator("#transcript-chat").get_by_role("button", name="Submit").click()
    answered(page, "chat")
    expect(page.locator("#transcript-chat .user-row")).to_contain_text("<b>banana</b>")

    page.get_by_role("button", name="Undo").click()
    expect(page.locator("#composer-chat textarea")).to_have_value("Reply with the word <b>banana</b> only.")
    expect(page.locator("#transcript-chat .user-row")).to_have_count(0)

    with asking(page, "chat"):
        page.locator("#composer-chat textarea").press("Enter")
    answered(page, "chat")
    page.locator("#transcript-chat").get_by_role("button", name="Clear").click()
    expect(page.locator("#transcript-chat .user-row")).to_have_count(0)


def test_examples_fill_the_box_and_send_nothing(page: Page) -> None:
    screen = open_tab(page, "coding")
    page.locator("#transcript-coding .example", has_text="Explain what this code does").click()
    expect(page.locator("#composer-coding textarea")).to_have_value(re.compile("^Explain what this code does"))
    expect(screen.get_by_label("Explain", exact=True)).to_be_checked()
    expect(page.locator("#transcript-coding .user-row")).to_have_count(0)


def test_sliders_say_official_or_changed_and_go_back(page: Page) -> None:
    screen = page.locator("#tab-chat")
    open_section(screen, "Sampling")
    temperature = screen.locator(".block", has=page.get_by_label("number input for Temperature")).last
    expect(temperature).to_contain_text("official")
    set_number(screen, "Temperature", 1.5)
    expect(temperature).to_contain_text("changed; official is 0.7")
    page.reload()
    open_section(screen, "Sampling")
    expect(screen.get_by_label("number input for Temperature")).to_have_value("1.5")
    screen.get_by_role("button", name="Back to the official values").click()
    expect(screen.get_by_label("number input for Temperature")).to_have_value("0.7")
    expect(temperature).not_to_contain_text("changed")


def test_thinking_is_shown_folded_and_can_be_ended(page: Page) -> None:
    screen = page.locator("#tab-chat")
    expect(screen).to_contain_text("never trained to think")
    screen.get_by_label("Think before answering").check()
    send(page, "chat", "A farmer has 17 sheep. All but 9 run away. How many are left? Explain at length.")
    screen.get_by_role("button", name="Answer now").click(timeout=ANSWER_MS)
    last = answered(page, "chat")
    expect(last).to_contain_text("Thoughts (prompted, not trained)")
    expect(last.locator(".figures")).to_contain_text("thinking")


def test_export_and_import_bring_the_conversation_back(page: Page, tmp_path: Path) -> None:
    screen = page.locator("#tab-chat")
    send(page, "chat", "Say hello.")
    answered(page, "chat")
    open_section(screen, "Conversation")
    with page.expect_download() as download:
        screen.get_by_role("button", name="Export as JSON").click()
    exported = tmp_path / "chat.json"
    download.value.save_as(exported)
    assert json.loads(exported.read_text("utf-8"))["turns"][0]["user"] == "Say hello."
    with page.expect_download() as download:
        screen.get_by_role("button", name="Export as Markdown").click()
    assert download.value.suggested_filename == "qwen-chat.md"

    screen.get_by_role("button", name="Clear").last.click()
    expect(page.locator("#transcript-chat .user-row")).to_have_count(0)

    foreign = tmp_path / "foreign.json"
    foreign.write_text('{"some": "thing"', "utf-8")
    with page.expect_file_chooser() as chooser:
        screen.get_by_role("button", name="Import").click()
    chooser.value.set_files(foreign)
    expect(page.get_by_text("not a conversation exported from this playground")).to_be_visible()

    with page.expect_file_chooser() as chooser:
        screen.get_by_role("button", name="Import").click()
    chooser.value.set_files(exported)
    expect(page.locator("#transcript-chat .user-row")).to_contain_text("Say hello.")


def test_hostile_text_is_shown_and_not_obeyed(page: Page) -> None:
    text = (
        "<script>window.hacked = 1</script><img src=http://127.0.0.1:9/x onerror='window.hacked=1'> <think>hm</think>"
    )
    send(page, "chat", text)
    answered(page, "chat")
    row = page.locator("#transcript-chat .user-row").first
    expect(row).to_contain_text("window.hacked = 1")
    expect(row).to_contain_text("think>hm")
    assert page.evaluate("window.hacked") is None
    assert row.locator("img, script").count() == 0


def test_an_empty_message_is_refused_in_one_sentence(page: Page) -> None:
    send(page, "chat", "   ")
    expect(page.get_by_text("The message is empty: write something first.")).to_be_visible()
    expect(page.locator("#transcript-chat .user-row")).to_have_count(0)


def test_what_is_typed_outlives_whatever_loads_the_page_anew(page: Page) -> None:
    open_tab(page, "math")
    page.locator("#composer-math textarea").fill("What is 3")
    open_tab(page, "chat")
    page.locator("#composer-chat textarea").fill("Bonjour, je")
    page.reload()
    expect(page.locator("#composer-chat textarea")).to_have_value("Bonjour, je")
    page.reload()  # the math tab was not opened in between
    open_tab(page, "math")
    expect(page.locator("#composer-math textarea")).to_have_value("What is 3")
    page.locator("#composer-math textarea").press_sequentially(" + 4?")
    page.locator("#language-picker").select_option("de")
    expect(page.locator("#tab-math-button:visible")).to_have_text("Mathematik")
    open_tab(page, "math")
    expect(page.locator("#composer-math textarea")).to_have_value("What is 3 + 4?")
    page.locator("#composer-math textarea").press("Enter")
    expect(page.locator("#transcript-math .user-row")).to_contain_text("3 + 4?")
    answered(page, "math")
    page.reload()
    open_tab(page, "math")
    expect(page.locator("#transcript-math .user-row")).to_contain_text("3 + 4?")
    expect(page.locator("#composer-math textarea")).to_have_value("")
    page.locator("#composer-math textarea").fill("And in words?")
    page.reload()
    open_tab(page, "math")
    expect(page.locator("#composer-math textarea")).to_have_value("And in words?")


def test_language_and_theme_are_remembered(page: Page) -> None:
    page.locator("#language-picker").select_option("de")
    expect(page.locator("#tab-coding-button:visible")).to_have_text("Programmieren")
    dark = page.evaluate("document.body.classList.contains('dark')")
    page.locator("#theme-toggle").click()
    assert page.evaluate("document.body.classList.contains('dark')") is not dark
    page.reload()
    expect(page.locator("#tab-coding-button:visible")).to_have_text("Programmieren")
    assert page.evaluate("document.body.classList.contains('dark')") is not dark


def test_a_phone_shows_the_talk_first_and_nothing_runs_over(page: Page) -> None:
    page.set_viewport_size({"width": 390, "height": 844})
    page.reload()
    page.get_by_text("Meet Qwen").wait_for()
    expect(page.locator("#tab-chat .settings.open")).to_have_count(0)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    composer = page.locator("#composer-chat").bounding_box()
    assert composer is not None
    assert composer["x"] >= 0
    assert composer["x"] + composer["width"] <= 390
    assert composer["y"] + composer["height"] <= 844


@pytest.mark.parametrize("width", [320, 360, 390])
def test_nothing_lies_over_the_buttons_at_a_phones_head(page: Page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 740})
    page.reload()
    page.locator("#theme-toggle").wait_for()
    page.wait_for_function("document.querySelector('#tab-chat .sidebar')?.dataset.settled")
    for button in ("#language-picker", "#forget-me", "#theme-toggle", "#tab-chat .toggle-button"):
        page.locator(button).click(trial=True)
    theme, sidebar = (page.locator(at).bounding_box() for at in ("#theme-toggle", "#tab-chat .toggle-button"))
    assert theme is not None
    assert sidebar is not None
    assert theme["x"] + theme["width"] <= sidebar["x"]
