"""Names that servers give to models, and the cards that are meant."""

from __future__ import annotations

import pytest

from backends.catalog.cards import Catalog
from backends.catalog.model_names import card_for


@pytest.mark.parametrize(
    ("name", "card"),
    [
        ("Qwen/Qwen3-8B", "qwen3-8b"),
        ("Qwen/Qwen3-8B-AWQ", "qwen3-8b"),
        ("Qwen3-8B-FP8", "qwen3-8b"),
        ("Qwen/Qwen3-30B-A3B-Instruct-2507-FP8", "qwen3-30b-a3b-instruct-2507"),
        ("qwen3:8b", "qwen3-8b"),
        ("qwen3:8b-q4_K_M", "qwen3-8b"),
        ("qwen2.5-coder:7b", "qwen2.5-coder-7b-instruct"),
        ("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf", "qwen2.5-coder-0.5b-instruct"),
        ("unsloth/Qwen3-4B-Instruct-2507-GGUF", "qwen3-4b-instruct-2507"),
        ("Qwen/Qwen3-4B-Instruct-2507-GGUF:qwen3-4b-instruct-2507-q4_k_m.gguf", "qwen3-4b-instruct-2507"),
        ("Qwen/Qwen3-14B-GPTQ-Int4", "qwen3-14b"),
        ("/models/Qwen3-VL-2B-Instruct", "qwen3-vl-2b-instruct"),
        (r"C:\models\Qwen3-0.6B-Q8_0.gguf", "qwen3-0.6b"),
    ],
)
def test_the_card_is_found(name: str, card: str) -> None:
    found = card_for(name, Catalog.read())
    assert found is not None
    assert found.id == card


@pytest.mark.parametrize(
    "name", ["", "gpt-4", "qwen", "qwen3", "llama3:8b", "qwen3-8b-base", "tiny-demo", "qwen3-8b/x"]
)
def test_a_name_that_does_not_tell_is_no_card(name: str) -> None:
    assert card_for(name, Catalog.read()) is None


def test_every_card_is_found_by_its_own_name() -> None:
    catalog = Catalog.read()
    for card in catalog:
        if not card.demo:
            assert card_for(card.id, catalog) == card
