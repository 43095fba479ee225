"""Which card a server's name of a model means: 'Qwen/Qwen3-8B-AWQ', 'qwen3:8b', 'Qwen3-8B-Q4_K_M.gguf' and
'Qwen/Qwen3-8B-GGUF:Qwen3-8B-Q4_K_M.gguf' are one."""

from __future__ import annotations

import re

from backends.catalog.cards import Card, Catalog

_ENDINGS = re.compile(
    r"[-_.](gguf|awq|gptq|int[48]|fp8|fp16|bf16|mlx|bnb|\d+bit|unsloth|ud|i?q\d(_[a-z0-9]+)*|latest|generic|cuda|cpu|gpu)$"
)


def card_for(name: str, catalog: Catalog) -> Card | None:
    """The card, or None where the name tells none for certain."""
    plain = re.split(r"[/\\]", name.strip().lower())[-1]
    plain = plain.split(":")[-1] if plain.endswith(".gguf") else plain.replace(":", "-")
    while (shorter := _ENDINGS.sub("", plain)) != plain:
        plain = shorter
    known = {card.id: card for card in catalog if not card.quantisation and not card.demo}
    return known.get(plain) or known.get(f"{plain}-instruct")
