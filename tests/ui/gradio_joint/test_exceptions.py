"""Whatever breaks in a handler: the visitor is told one sentence with a number, the words stay, the tab is free."""

from __future__ import annotations

import importlib
import json
import re
import secrets
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest

from backends.adapters.scripted import Script
from backends.catalog.cards import Card
from backends.core.errors import EngineDied, Fault
from tests.hostile_values import VALUES
from tests.served import Served, scripted_engine, serving
from ui.conversation.transcript import SavedConversation, Transcript
from ui.screen.desk import Desk

pytestmark = pytest.mark.filterwarnings("ignore::pandas.errors.Pandas4Warning")
WORDS = "What I have typed"
SECRET = "/secret/path of somebody"
NUMBERED = re.compile(r"\(#[0-9a-f]{8}\)$")


@dataclass
class Told:
    """What a page is told in answer to one event of its own. `outputs`: by component, of every step."""

    outputs: list[dict[int, Any]] = field(default_factory=list)
    toasts: list[str] = field(default_factory=list)


class Page:
    """A page without a browser: its events go the way that gradio's own script sends them."""

    def __init__(self, served: Served) -> None:
        self.client = httpx.Client(base_url=served.url, timeout=30)
        self.session = secrets.token_hex(5)
        config = self.client.get("config").raise_for_status().json()
        self.components = {c["id"]: c for c in config["components"]}
        self.events = config["dependencies"]
        self.values = {i: c["props"].get("value") for i, c in self.components.items() if c["type"] != "state"}
        self.composer = next(i for i, c in self.components.items() if c["props"].get("elem_id") == "composer-chat")
        (self.submit,) = (e for e in self.events if [self.composer, "submit"] in e["targets"])

    def send(self, text: str = WORDS) -> Told:
        """Types and sends; with the server's steps that follow, as the browser takes them."""
        self.values[self.composer] = text
        told, event = self.fire(self.submit), self.submit
        while (event := next((e for e in self.events if e["trigger_after"] == event["id"]), None)) is not None:
            if event["backend_fn"]:
                after = self.fire(event)
                told.outputs += after.outputs
                told.toasts += after.toasts
        return told

    def fire(self, event: dict[str, Any]) -> Told:
        body = {
            "data": [self.values.get(i) for i in event["inputs"]],
            "fn_index": event["id"],
            "session_hash": self.session,
        }
        told = Told()
        if not event["queue"]:
            answer = self.client.post("gradio_api/run/predict", content=json.dumps(body), headers=JSON).json()
            if "data" in answer:
                told.outputs.append(dict(zip(event["outputs"], answer["data"], strict=True)))
            else:
                told.toasts.append(answer["error"])
            return told
        self.client.post("gradio_api/queue/join", content=json.dumps(body), headers=JSON).raise_for_status()
        with self.client.stream("GET", "gradio_api/queue/data", params={"session_hash": self.session}) as stream:
            for line in stream.iter_lines():
                said = json.loads(line.removeprefix("data: ")) if line.startswith("data: ") else {}
                if said.get("msg") == "log":
                    told.toasts.append(said["log"])
                if said.get("msg") in ("process_generating", "process_completed"):
                    if said["success"]:
                        told.outputs.append(dict(zip(event["outputs"], said["output"].get("data") or [], strict=False)))
                    else:
                        told.toasts.append(said["output"]["error"])
                if said.get("msg") == "process_completed":
                    return told
        raise AssertionError("the stream broke off")


JSON = {"content-type": "application/json"}


def script(request: Any) -> Script:
    if request.messages[-1].text == "fails":
        return Script(answer=("so ", "far "), fail_after=1, error=EngineDied("It broke."))
    return Script(answer=("yes ", "it ", "is"))


@pytest.fixture(scope="module")
def served(card: Card) -> Iterator[Served]:
    with serving(scripted_engine(card, script)) as served:
        yield served


@pytest.fixture
def page(served: Served) -> Iterator[Page]:
    page = Page(served)
    yield page
    page.client.close()


def last(told: Told, component: int) -> list[Any]:
    return [step[component] for step in told.outputs if component in step]


def breaks(*_: Any, **__: Any) -> Any:
    raise RuntimeError(SECRET)


COLLABORATORS: dict[str, tuple[Any, str]] = {
    "the check of the message": ("ui.screen.asking", "check_message"),
    "the check of the turns": ("ui.screen.asking", "check_turns"),
    "the look for control tokens": ("ui.conversation.choices", "has_control_tokens"),
    "who asks": ("ui.screen.asking", "asker"),
    "the answers": ("ui.screen.asking", "answers"),
    "the language of the page": ("ui.screen.asking", "say_for"),
    "the choices": (Desk, "choices"),
    "what is shown": (Desk, "show"),
    "the answer as it is shown": (Desk, "show_last"),
    "what is kept": (Desk, "save"),
    "the engine": (Desk, "engine"),
    "the tray": (Desk, "tray"),
    "the model's words": (Desk, "model_info"),
    "the pictures": (Desk, "show_pictures"),
    "the question": (Transcript, "ask"),
    "the messages for the model": (Transcript, "messages"),
    "the events": ("ui.conversation.choices", "fold"),
    "the pace": ("ui.conversation.choices", "paced"),
    "the context line": ("ui.screen.asking", "context_line"),
    "the conversation as it is kept": (SavedConversation, "model_dump"),
}


@pytest.mark.parametrize("what", COLLABORATORS)
def test_whatever_breaks_the_visitor_is_told_and_the_tab_is_free(
    page: Page, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    where, name = COLLABORATORS[what]
    with monkeypatch.context() as patch:
        patch.setattr(importlib.import_module(where) if isinstance(where, str) else where, name, breaks)
        told = page.send()
    sentences = [*told.toasts, *re.findall(r"Something went wrong[^\"]*", str(told.outputs))]
    assert sentences, "nobody was told"
    assert any(Fault().message in sentence for sentence in sentences)
    assert all(NUMBERED.search(toast) for toast in told.toasts), told.toasts
    assert SECRET not in str(told)
    freed(page)


def test_what_cannot_be_sent_is_told_too(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "show_last", lambda *_: [{"role": "assistant", "content": "\ud800"}])
        told = page.send()
    assert Fault().message in told.toasts[0]
    freed(page)


def freed(page: Page) -> None:
    told = page.send("Are you there?")
    assert told.toasts == []
    assert "yes it is" in str(told.outputs)
    buttons = [u for u in last(told, page.composer) if isinstance(u, dict) and "submit_btn" in u]
    assert (buttons[-1]["submit_btn"], buttons[-1]["stop_btn"]) == (True, False)


def test_after_a_step_that_broke_the_composer_has_its_button_again_and_its_words(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Desk, "model_info", breaks)  # in the very last step
        told = page.send()
    steps = last(told, page.composer)
    assert steps[0]["stop_btn"] is True
    assert (steps[-1]["submit_btn"], steps[-1]["stop_btn"]) == (True, False)


@pytest.mark.parametrize("value", VALUES.values(), ids=VALUES)
def test_no_value_in_any_field_of_the_page_goes_without_a_sentence_that_names_it(page: Page, value: Any) -> None:
    """Over the wire, where gradio is the first to look."""
    for component in page.submit["inputs"]:
        if page.components[component]["type"] == "state" or component == page.composer:
            continue
        before, page.values[component] = page.values[component], value
        page.values[page.composer] = "Why?"
        told = page.fire(page.submit)
        page.values[component] = before
        assert None not in told.toasts
        assert not any(Fault().message in toast for toast in told.toasts), told.toasts
        assert told.toasts or "yes it is" in str(told.outputs)
    freed(page)
