"""A room that is not the host's alone: signing in, limits, the status tab, being forgotten, and a restart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from bench.processes import free_port
from tests.browser.conftest import MODEL, PATIENCE_MS
from tests.browser.steps import answered, send, served

pytestmark = pytest.mark.browser
CODE = "otter-2026"


@pytest.fixture
def visitor(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    expect.set_options(timeout=PATIENCE_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    yield page
    context.close()
    assert errors == []


def opened(page: Page) -> None:
    page.locator("#composer-chat textarea").wait_for()
    page.locator("#tab-chat").get_by_text("Licence:").wait_for()


def look_at_the_status(page: Page) -> None:
    page.locator("#tab-status-button:visible").click()
    page.locator(".status .figures").wait_for()


def test_a_class_signs_in_meets_its_limit_and_is_forgotten(visitor: Page, tmp_path: Path) -> None:
    flags = ("--engine", "scripted", "--class-code", CODE, "--answers-per-hour", "2", "--cache-dir", str(tmp_path))
    with served("app.py", "--port", "0", *flags, env={}) as address:
        visitor.goto(address)
        visitor.get_by_label("Class code").fill("badger")
        visitor.get_by_role("button", name="Sign in").click()
        expect(visitor.get_by_role("alert")).to_have_text("That is not right. Check it and try again.")
        visitor.get_by_label("Class code").fill(CODE)
        visitor.get_by_role("button", name="Sign in").click()
        opened(visitor)
        expect(visitor.locator(".masthead .where").first).to_contain_text("· Runs on")  # a nickname stands before it
        for question in ("First?", "Second?"):
            send(visitor, "chat", question)
            answered(visitor, "chat")
            expect(visitor.locator("#composer-chat textarea")).to_have_value("")
        send(visitor, "chat", "Third?")
        expect(visitor.locator("#transcript-chat .failure")).to_contain_text("You had 2 answers in this hour")
        expect(visitor.locator("#composer-chat textarea")).to_have_value("Third?")

        visitor.context.clear_cookies()  # a sign-in that has ended
        send(visitor, "chat", "Fourth?")
        visitor.get_by_label("Class code").fill(CODE)
        visitor.get_by_role("button", name="Sign in").click()
        opened(visitor)
        expect(visitor.locator("#composer-chat textarea")).to_have_value("Fourth?")
        expect(visitor.locator("#transcript-chat")).to_contain_text("First?")

        look_at_the_status(visitor)
        status = visitor.locator(".status")
        expect(status.locator("polyline").first).to_be_attached()
        expect(status).to_contain_text("Answers per person and hour")
        expect(status.get_by_text("Unload")).not_to_be_visible()

        visitor.on("dialog", lambda dialog: dialog.accept())
        visitor.locator("#forget-me").click()
        visitor.get_by_label("Class code").wait_for()
        assert visitor.evaluate("[...Object.keys(localStorage), ...Object.keys(sessionStorage)]") == []


def test_the_host_sees_what_is_loaded_and_unloads_it(visitor: Page, tmp_path: Path) -> None:
    with served("app.py", "--port", "0", "--engine", "scripted", "--cache-dir", str(tmp_path), env={}) as address:
        visitor.goto(address)
        opened(visitor)
        send(visitor, "chat", "Hello?")
        answered(visitor, "chat")
        look_at_the_status(visitor)
        status = visitor.locator(".status")
        expect(status).to_contain_text("Medians of the last 1 answers")
        status.get_by_label("A loaded model").click()
        visitor.locator("ul[role=listbox] li").first.click()
        status.get_by_role("button", name="Unload").click()
        expect(status).to_contain_text("No model is loaded yet")


@pytest.mark.model
def test_a_page_comes_back_after_a_restart_with_its_conversation(
    visitor: Page, starter_weights: Callable[[str], Path]
) -> None:
    weights = starter_weights(MODEL)
    cache = next(folder for folder in weights.parents if (folder / "models").is_dir())
    env = {"PLAYGROUND_MODEL": MODEL, "PLAYGROUND_CACHE_DIR": str(cache), "PLAYGROUND_ENGINE_CHOICE": "false"}
    start = ("app.py", "--port", str(free_port()), "--grace-seconds", "0")
    with served(*start, env=env) as address:
        visitor.goto(address)
        opened(visitor)
        send(visitor, "chat", "What is the capital of Japan?")
        answered(visitor, "chat")
        send(visitor, "chat", "Write a very long story about the sea.")
        expect(visitor.locator("#transcript-chat .bot-row").nth(1)).to_contain_text(" ", timeout=PATIENCE_MS)
    expect(visitor.locator("#transcript-chat .failure")).to_contain_text("The playground is being restarted.")
    visitor.locator("#composer-chat textarea").fill("And what I was typing")
    visitor.evaluate("window.left_behind = true")
    with served(*start, env=env):
        visitor.wait_for_function("window.left_behind === undefined")
        opened(visitor)
        expect(visitor.locator("#transcript-chat")).to_contain_text("What is the capital of Japan?")
        expect(visitor.locator("#composer-chat textarea")).to_have_value("And what I was typing")
