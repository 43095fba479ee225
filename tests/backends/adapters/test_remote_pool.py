"""What a remote engine offers, as cards, and what the page says of it."""

from __future__ import annotations

import html
import time

import pytest

from backends.adapters.openai import remote_pool as remote_models
from backends.adapters.openai.dialects import OLLAMA, VLLM
from backends.adapters.openai.remote_engines import RemoteEngine
from backends.adapters.openai.remote_pool import Offer, RemoteModels, Served
from backends.catalog.cards import Catalog
from backends.core.cancel import Cancel
from backends.core.errors import EngineDied, EngineError
from ui.conversation.texts import speaker
from ui.screen.model_picker import describe

ENTRY = RemoteEngine(name="lab", url="http://gpu-box:8000/v1")
KNOWN = Catalog.read()


class House:
    """A server that offers what it is told to, and counts how often it is asked."""

    def __init__(self, *names: str, dialect: remote_models.Dialect = VLLM, entry: RemoteEngine = ENTRY) -> None:
        self.names, self.dialect, self.asked = names, dialect, 0
        self.down = False
        self.models = RemoteModels(KNOWN, entry, self.look, self.open, lambda: None)

    def look(self) -> Offer:
        self.asked += 1
        if self.down:
            raise EngineDied("The engine cannot be reached.", "Try again.")
        return Offer(self.dialect, tuple(map(Served, self.names)))

    def open(self, offer: Offer, served: Served) -> remote_models.Backend:
        raise AssertionError("nothing is to be opened")


def test_the_models_are_those_of_the_server_with_their_cards() -> None:
    house = House("Qwen/Qwen3-8B", "Qwen/Qwen3-VL-8B-Instruct")
    assert [card.id for card, _, _ in house.models.ranked("chat")] == ["qwen3-8b", "qwen3-vl-8b-instruct"]
    assert house.models.choose("image").id == "qwen3-vl-8b-instruct"
    assert {reason for card, _, reason in house.models.ranked("image") if card.id == "qwen3-8b"} == {"reads only text"}


def test_two_names_for_one_card_are_two_models() -> None:
    house = House("Qwen/Qwen3-8B", "Qwen/Qwen3-8B-AWQ")
    first, second = (card for card, _, _ in house.models.ranked("chat"))
    assert first.id == "qwen3-8b"
    assert second.name == "Qwen/Qwen3-8B-AWQ"
    assert first.id != second.id


def test_a_server_is_not_asked_for_every_tab() -> None:
    house = House("Qwen/Qwen3-8B")
    for task in ("chat", "coding", "math"):
        house.models.ranked(task)
        house.models.choose(task)
    assert house.asked == 1


def test_a_server_that_goes_down_and_comes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(remote_models.time, "monotonic", lambda: now[0])
    house = House("Qwen/Qwen3-8B")
    card = house.models.choose("chat")
    house.down = True
    now[0] += 60
    with pytest.raises(EngineDied):
        house.models.choose("chat")
    assert [reason for _, _, reason in house.models.ranked("chat")] == ["is on an engine that cannot be used now"]
    with pytest.raises(EngineDied):
        list(house.models.ready(house.models.get(card), Cancel()))
    house.down = False
    now[0] += 60
    assert house.models.choose("chat") == card


def test_a_model_that_is_gone_is_told() -> None:
    house = House("Qwen/Qwen3-8B")
    stranger = KNOWN.get("qwen3-14b")
    with pytest.raises(EngineError, match="does not have this model any more"):
        list(house.models.ready(house.models.get(stranger), Cancel()))


def test_the_page_says_where_it_runs_and_what_it_cannot_do() -> None:
    house = House("<b>own</b>", dialect=OLLAMA)
    say = speaker("en")
    text = describe(house.models, "chat", house.models.choose("chat"), say)
    assert "runs on gpu-box" in html.unescape(text)
    assert "<b>" not in text
    assert "neutral" in text
    assert "thinking budget" in text
    house = House()
    house.down = True
    house.models.ranked("chat")
    text = describe(house.models, "chat", house.models.catalog.cards[0], say)
    assert "cannot be reached" in text
