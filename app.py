"""Starts the playground: settings, engine, page. Wiring only; imports no model library."""

from __future__ import annotations

import logging
import os
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from backends import registry
from backends.cancel import Cancel
from backends.catalog import Catalog
from backends.engine import Engine
from backends.machine import Machine
from backends.models import House, Models
from backends.settings import BadSettings, Settings, problems_elsewhere, read_settings
from backends.weights import WeightStore


def make_engines(settings: Settings, machine: Machine) -> dict[str, Engine]:
    """The engines on offer by name, with nothing loaded; the one that the settings ask for comes first."""
    store = WeightStore(settings.cache_dir, modelscope=settings.modelscope, offline=settings.offline)
    catalog, house = Catalog.read(), House()
    default = registry.automatic(machine) if settings.engine == "auto" else settings.engine

    def make(name: str) -> Engine:
        shelf = "llama_cpp" if name == "scripted" else name  # the script plays whatever model llama.cpp would run
        fixed = settings.model
        if name != default and fixed and not catalog.get(fixed).sources(shelf):
            fixed = ""  # the host's model has no files for this engine
        models = Models(
            catalog.with_quantised(name) if registry.quantises(name, machine) else catalog,
            shelf,
            registry.capabilities(name),
            registry.opener(name, store, machine),
            store.obtainable,
            choice=fixed,
            hub_reachable=store.hub_reachable,
            house=house,
        )
        return Engine(models)

    remote = {entry.name: entry for entry in settings.remote}
    offered = (default, *_others(default, settings))
    return {name: Engine(registry.remote(remote[name], catalog)) if name in remote else make(name) for name in offered}


def _others(default: str, settings: Settings) -> list[str]:
    """The real engines beside a real one, those here before those elsewhere, where visitors may choose."""
    if default == "scripted" or not settings.engine_choice:
        return []
    here = [name for name in registry.ENGINES if name != "scripted" and registry.installed(name)]
    return [name for name in (*here, *(entry.name for entry in settings.remote)) if name != default]


def _load_now(engine: Engine) -> None:
    """For ZeroGPU, where each answer is given by a copy of this process: what is not in memory by now is loaded anew
    for every one of them."""
    model = engine.models.get(engine.models.choose("chat"))
    for _ in engine.models.ready(model, Cancel()):
        pass


def main(arguments: list[str] | None = None) -> int:
    try:
        settings = read_settings(sys.argv[1:] if arguments is None else arguments)
    except BadSettings as exc:
        print("The settings need a change:", *exc.problems, sep="\n- ", file=sys.stderr)
        return 2
    if settings.check_config:
        if problems := problems_elsewhere(settings):
            print("The settings need a change:", *problems, sep="\n- ", file=sys.stderr)
            return 2
        print("The settings are fine.")
        return 0
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    logging.getLogger("httpx").setLevel(logging.WARNING)
    machine = Machine.detect()
    engines = make_engines(settings, machine)
    if machine.zero_gpu:
        _load_now(next(iter(engines.values())))

    from ui.page import build, launch_options

    blocks = build(engines)
    try:
        blocks.launch(**launch_options(settings.host, settings.port, settings.proxies), prevent_thread_lock=True)
        # Asked in the background and after the start, which it would slow.
        probe = next(iter(engines.values())).models.hub_reachable
        threading.Thread(target=probe, name="hub probe", daemon=True).start()
        print(f"The playground is at {blocks.local_url}", flush=True)
        blocks.block_thread()
    finally:
        for engine in engines.values():
            engine.models.close()
    return 0


if __name__ == "__main__":
    sys.exit(main())
