"""The page on two scripted engines that see, each of which says its own name: `python -m tests.browser.two_engines`."""

from __future__ import annotations

import sys
from dataclasses import replace

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Catalog
from backends.core.types import GenerationRequest, Sampling
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from ui.server.serving import serve


def engine(name: str, honoured: tuple[str, ...], house: House) -> Engine:
    """Answers with its name and the numbers of messages and pictures that it was given; to 'Go on and on.' for a
    minute, to 'Break down.' with a failure, and where something is, with Qwen3-VL's JSON."""
    modalities = frozenset({"text", "image"})
    sampling = {field: field for field in honoured}
    capabilities = replace(Scripted().capabilities, engine=name, sampling=sampling, modalities=modalities)

    def script(asked: GenerationRequest) -> Script:
        question = asked.messages[-1].text
        if question == "Break down.":
            return Script(answer=("so ",), prompt_delay_s=2.0, fail_after=0)
        if question == "Go on and on.":
            return Script(answer=("word ",) * 3000, interval_s=0.02)
        if question.startswith("Where is"):
            return Script(
                answer=('```json\n[{"bbox_2d": [234, ', '613, 562, 896], "label": "green ', 'triangle"}]\n```')
            )
        pictures = sum(len(message.images) for message in asked.messages)
        return Script(answer=(f"{name} read {len(asked.messages)}, ", f"saw {pictures}"))

    models = LocalModels(
        Catalog.read(),
        "llama_cpp",
        capabilities,
        lambda card, fit: Scripted(script, modalities=modalities),
        lambda artefact: True,
        house=house,
    )
    return Engine(models)


if __name__ == "__main__":
    house = House()
    engines = {
        "first": engine("first engine", tuple(Sampling.model_fields), house),
        "second": engine("second engine", ("max_new_tokens",), house),
    }
    blocks = serve(engines)
    print(blocks.local_url, flush=True)
    blocks.block_thread()
    sys.exit(0)
