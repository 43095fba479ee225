"""The page on two scripted engines, each of which says its own name: `python -m tests.browser.two_engines`."""

from __future__ import annotations

import sys
from dataclasses import replace

from backends.adapters.scripted import Script, Scripted
from backends.catalog import Catalog
from backends.engine import Engine
from backends.models import House, Models
from backends.types import Sampling
from ui.page import build, launch_options


def engine(name: str, honoured: tuple[str, ...], house: House) -> Engine:
    """Answers with its name and the number of messages that it was given."""
    capabilities = replace(Scripted().capabilities, engine=name, sampling={field: field for field in honoured})
    models = Models(
        Catalog.read(),
        "llama_cpp",
        capabilities,
        lambda card, fit: Scripted(lambda asked: Script(answer=(f"{name} read ", str(len(asked.messages))))),
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
    blocks = build(engines)
    blocks.launch(**launch_options("127.0.0.1", 0), prevent_thread_lock=True)
    print(blocks.local_url, flush=True)
    blocks.block_thread()
    sys.exit(0)
