"""The page on a scripted engine that answers with what it was asked: `python -m tests.browser.echo`."""

from __future__ import annotations

import sys

from backends.adapters.scripted import Script, Scripted
from backends.catalog.cards import Catalog
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from ui.server.serving import serve

if __name__ == "__main__":
    models = LocalModels(
        Catalog.read(),
        "llama_cpp",
        Scripted().capabilities,
        lambda card, fit: Scripted(lambda asked: Script(answer=tuple(asked.messages[-1].text))),
        lambda artefact: True,
        house=House(),
    )
    blocks = serve({"scripted": Engine(models)})
    print(blocks.local_url, flush=True)
    blocks.block_thread()
    sys.exit(0)
