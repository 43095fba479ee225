"""What the tests in a browser do again and again: serve a page, open its parts, ask, wait for the answer."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Locator, Page, expect

ROOT = Path(__file__).resolve().parents[2]
ANSWER_MS = 120_000
# An answer may be over before anyone looks: the page itself counts how often a composer has shown its Stop button.
COUNT_ANSWERS = """
  window.begun = {};
  new MutationObserver(() => document.querySelectorAll("[id^=composer-]").forEach((composer) => {
    const writes = composer.querySelector(".stop-button") !== null;
    if (writes && !composer.begun) window.begun[composer.id] = (window.begun[composer.id] || 0) + 1;
    composer.begun = writes;
  })).observe(document, { childList: true, subtree: true });
"""


@contextmanager
def served(*arguments: str, env: Mapping[str, str]) -> Iterator[str]:
    """The address that a program of ours prints once it serves; it runs until the end of the block."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **env, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    try:
        found = next(filter(None, (re.search(r"http://127\.0\.0\.1:\d+", line) for line in process.stdout)), None)
        assert found, "the playground did not start"
        yield found.group()
    finally:
        process.terminate()
        process.wait(30)
        process.stdout.close()


def open_tab(page: Page, tab: str) -> Locator:
    """Shows a tab and returns it, with its sidebar open."""
    page.locator(f"#tab-{tab}-button:visible").click()
    screen = page.locator(f"#tab-{tab}[role=tabpanel]")
    screen.locator(".settings.open").wait_for()
    return screen


def open_section(screen: Locator, name: str) -> None:
    section = screen.locator(".settings button.label-wrap", has_text=name)
    if "open" not in (section.get_attribute("class") or ""):
        section.click()


def set_number(screen: Locator, label: str, value: object) -> None:
    """Types a value into the number box of a slider."""
    box = screen.get_by_label(f"number input for {label}")
    box.fill(str(value))
    box.press("Tab")


def keep_short(screen: Locator) -> None:
    """Bounds the answers: now and then a small model repeats one word until its context is full, for minutes."""
    open_section(screen, "Sampling")
    expect(screen.get_by_label("number input for Max new tokens")).not_to_have_value("0")
    screen.get_by_text("Back to the official values").hover()  # waits until the section has come to rest
    set_number(screen, "Max new tokens", 32)
    expect(screen).to_contain_text("changed; official is")


def send(page: Page, tab: str, text: str) -> None:
    box = page.locator(f"#composer-{tab} textarea")
    box.fill(text)
    box.press("Enter")


@contextmanager
def asking(page: Page, tab: str) -> Iterator[None]:
    """Waits, after what is done in its block, until the answer that it asks for has begun."""
    count = f"(window.begun['composer-{tab}'] || 0)"
    before = page.evaluate(count)
    yield
    page.wait_for_function(f"{count} > {before}")


def answered(page: Page, tab: str) -> Locator:
    """Waits for the end of the answer and returns the last message of the model."""
    transcript = page.locator(f"#transcript-{tab}")
    transcript.locator(".figures").last.wait_for(timeout=ANSWER_MS)
    page.locator(f"#composer-{tab} .submit-button").wait_for(timeout=ANSWER_MS)
    return transcript.locator(".bot-row").last
