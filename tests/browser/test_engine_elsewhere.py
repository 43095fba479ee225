"""An engine elsewhere in a real browser: a llama-server with the real 0.5B, known to the page only by its address."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from playwright.sync_api import Browser, Page, expect

from backends.catalog.cards import Catalog
from tests.backends.adapters.conftest import decodes
from tests.browser.conftest import MODEL
from tests.browser.steps import ANSWER_MS, answered, open_section, send, served, set_number
from tests.patience import PATIENCE_S, eventually

if TYPE_CHECKING:
    from backends.adapters.llama_cpp.adapter import LlamaCpp
    from backends.weights.store import WeightStore

pytestmark = [pytest.mark.browser, pytest.mark.model]
MOST_PASSES = 500  # of the thousands that the answer would take, for a stop that comes by way of a browser and a page
ENGINES = """
[[engine]]
name = "lab"
url = "{url}/v1"
key_env = "LAB_KEY"

[[engine]]
name = "gone"
url = "http://127.0.0.1:9/v1"
"""


@pytest.fixture(scope="module")
def elsewhere(weight_store: WeightStore, starter_weights: Callable[[str], Path]) -> Iterator[LlamaCpp]:
    with _llama_server(weight_store, starter_weights) as server:
        yield server


@pytest.fixture(scope="module")
def playground(
    elsewhere: LlamaCpp, weight_store: WeightStore, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    with _page_of(elsewhere, weight_store.root, tmp_path_factory.mktemp("engines")) as address:
        yield address


@contextmanager
def _llama_server(store: WeightStore, starter_weights: Callable[[str], Path]) -> Iterator[LlamaCpp]:
    from backends.adapters.llama_cpp.adapter import LlamaCpp

    starter_weights(MODEL)
    with closing(LlamaCpp(store, context=2048, slots=2, threads=2)) as server:
        for _ in server.load(Catalog.read().get(MODEL)):
            pass
        yield server


@contextmanager
def _page_of(server: LlamaCpp, cache: Path, folder: Path) -> Iterator[str]:
    assert server._client is not None
    engines = folder / "engines.toml"
    engines.write_text(ENGINES.format(url=str(server._client.base_url).rstrip("/")), "utf-8")
    env = {
        "LAB_KEY": server._client.headers["Authorization"].removeprefix("Bearer "),
        "PLAYGROUND_CACHE_DIR": str(cache),
        "PLAYGROUND_MODEL": MODEL,  # for the engine that goes on here: fetching its own choice would take a minute
    }
    with served("app.py", "--port", "0", "--engines", str(engines), "--engine", "lab", env=env) as address:
        yield address


def wait_until_free(server: LlamaCpp, asked_at: int | None = None) -> None:
    """`asked_at`: its passes before a question, of whose answer it must not have written nearly all."""
    eventually(lambda: not server.busy_slots(), 5 * PATIENCE_S)
    assert asked_at is None or decodes(server) - asked_at < MOST_PASSES, "the server still worked for nobody"


def ask_for_much(page: Page, server: LlamaCpp) -> int:
    """How often the server had run its model before."""
    asked_at = decodes(server)
    send(page, "chat", "Write all the numbers from 1 to 1000, with a space after each.")
    expect(page.locator("#transcript-chat .bot-row").last).to_contain_text("3")
    assert server.busy_slots() == 1
    return asked_at


def test_the_page_says_where_text_goes_and_the_engine_answers(page: Page, elsewhere: LlamaCpp) -> None:
    screen = page.locator("#tab-chat")
    expect(screen).to_contain_text("runs on localhost; your text goes there")
    expect(screen.get_by_label("Engine", exact=True)).to_have_value("lab · localhost")
    open_section(screen, "Sampling")
    expect(screen.get_by_label("number input for Temperature")).to_have_value("0.7")
    expect(screen).to_contain_text("official")
    set_number(screen, "Max new tokens", 24)
    send(page, "chat", "What is the capital of France?")
    expect(answered(page, "chat")).to_contain_text("Paris")
    wait_until_free(elsewhere)


def test_stop_frees_the_server(page: Page, elsewhere: LlamaCpp) -> None:
    asked_at = ask_for_much(page, elsewhere)
    page.locator("#composer-chat .stop-button").click()
    wait_until_free(elsewhere, asked_at)
    expect(answered(page, "chat")).to_contain_text("Stopped here.")


def test_a_closed_page_frees_the_server(page: Page, elsewhere: LlamaCpp) -> None:
    asked_at = ask_for_much(page, elsewhere)
    page.goto("about:blank")
    wait_until_free(elsewhere, asked_at)


def test_an_engine_that_was_never_there_is_said_where_the_answer_would_stand(page: Page) -> None:
    screen, transcript = page.locator("#tab-chat"), page.locator("#transcript-chat")
    screen.get_by_label("Engine", exact=True).click()
    page.get_by_role("option", name="gone · localhost").click()
    expect(screen.locator(".settings")).to_contain_text("The engine cannot be reached.")
    expect(screen.locator(".settings")).not_to_contain_text("Licence:")
    send(page, "chat", "Reply with the word apple.")
    expect(transcript).to_contain_text("The engine cannot be reached.")
    expect(page.locator("#composer-chat textarea")).to_have_value("Reply with the word apple.")
    screen.get_by_label("Engine", exact=True).click()
    page.get_by_role("option", name="lab · localhost").click()
    expect(screen.locator(".settings")).to_contain_text("Licence:")
    page.get_by_role("button", name="Retry").click()
    expect(answered(page, "chat")).to_contain_text("pple")
    expect(transcript.locator(".user-row")).to_have_count(1)


def test_an_engine_that_goes_away_is_said_and_another_one_goes_on(
    browser: Browser, weight_store: WeightStore, starter_weights: Callable[[str], Path], tmp_path: Path
) -> None:
    with (
        _llama_server(weight_store, starter_weights) as server,
        _page_of(server, weight_store.root, tmp_path) as address,
        closing(browser.new_context(viewport={"width": 1440, "height": 900}, locale="en-US")) as context,
    ):
        page = context.new_page()
        page.goto(address)
        screen = page.locator("#tab-chat")
        screen.get_by_text("Licence:").wait_for()
        open_section(screen, "Sampling")
        set_number(screen, "Max new tokens", 24)
        send(page, "chat", "What is the capital of France?")
        expect(answered(page, "chat")).to_contain_text("Paris")

        server.close()
        send(page, "chat", "And of Italy?")
        transcript = page.locator("#transcript-chat")
        expect(transcript).to_contain_text("The engine cannot be reached.")
        expect(transcript).to_contain_text("And of Italy?")
        expect(transcript).to_contain_text("Paris")
        expect(page.get_by_role("button", name="Retry")).to_be_visible()

        screen.get_by_label("Engine", exact=True).click()
        page.get_by_role("option", name="llama.cpp").click()
        expect(screen).not_to_contain_text("your text goes there")
        set_number(screen, "Max new tokens", 24)
        page.get_by_role("button", name="Retry").click()
        expect(answered(page, "chat")).to_contain_text("Rome", timeout=ANSWER_MS)
