"""Starts the playground: settings, engine, page. Wiring only; imports no model library."""

from __future__ import annotations

import logging
import os
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from backends import registry
from backends.catalog import Catalog
from backends.engine import Engine
from backends.machine import Machine
from backends.models import Models
from backends.settings import BadSettings, Settings, read_settings
from backends.weights import WeightStore


def make_engine(settings: Settings) -> Engine:
    """The engine that the settings ask for, with nothing loaded."""
    name = "llama_cpp" if settings.engine == "auto" else settings.engine
    shelf = "llama_cpp" if name == "scripted" else name  # the script plays whatever model llama.cpp would run
    store = WeightStore(settings.cache_dir, modelscope=settings.modelscope, offline=settings.offline)
    models = Models(
        Catalog.read(),
        shelf,
        registry.capabilities(name),
        registry.opener(name, store, Machine.detect()),
        store.obtainable,
        choice=settings.model,
        hub_reachable=store.hub_reachable,
    )
    return Engine(models)


def main(arguments: list[str] | None = None) -> int:
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    except BadSettings as exc:
        print("The settings need a change:", *exc.problems, sep="\n- ", file=sys.stderr)
        return 2
    if settings.check_config:
        print("The settings are fine.")
        return 0
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    engine = make_engine(settings)

    from ui.page import build, launch_options

    blocks = build(engine)
    try:
        blocks.launch(**launch_options(settings.host, settings.port), prevent_thread_lock=True)
        # Asked in the background and after the start, which it would slow.
        threading.Thread(target=engine.models.hub_reachable, name="hub probe", daemon=True).start()
        print(f"The playground is at {blocks.local_url}", flush=True)
        blocks.block_thread()
    finally:
        engine.models.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
