"""Starts the playground: settings, engine, page. Wiring only; imports no model library."""

from __future__ import annotations

import os
import signal
import sys
import threading

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from backends.adapters import registry
from backends.catalog.cards import Catalog
from backends.core import logs
from backends.core.cancel import Cancel
from backends.engine.engine import Engine
from backends.engine.limits import Limits
from backends.engine.pool import House, LocalModels
from backends.engine.room import Room
from backends.host.accounts import Accounts
from backends.host.problems import problems_elsewhere
from backends.host.settings import BadSettings, Settings, read_settings
from backends.host.signing_key import signing_key
from backends.machine.machine import Machine
from backends.weights.store import WeightStore


def make_engines(settings: Settings, machine: Machine) -> dict[str, Engine]:
    """The engines on offer by name, with nothing loaded; the one that the settings ask for comes first."""
    store = WeightStore(settings.cache_dir, modelscope=settings.modelscope, offline=settings.offline)
    catalog, house = Catalog.read().capped(settings.longest_answer), House()
    limits = Limits(settings.rules, settings.limits_storage)
    room = Room(limits, raw_control_tokens=settings.raw_control_tokens)
    default = registry.automatic(machine) if settings.engine == "auto" else settings.engine

    def make(name: str) -> Engine:
        shelf = "llama_cpp" if name == "scripted" else name  # the script plays whatever model llama.cpp would run
        fixed = settings.model
        if name != default and fixed and not catalog.get(fixed).sources(shelf):
            fixed = ""  # the host's model has no files for this engine
        models = LocalModels(
            catalog.with_quantised(name) if registry.quantises(name, machine) else catalog,
            shelf,
            registry.capabilities(name),
            registry.opener(name, store, machine),
            store.obtainable,
            choice=fixed,
            hub_reachable=store.hub_reachable,
            house=house,
        )
        return Engine(models, room)

    remote = {entry.name: entry for entry in settings.remote}
    offered = (default, *_others(default, settings))
    return {
        name: Engine(registry.remote(remote[name], catalog), room) if name in remote else make(name) for name in offered
    }


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
        if settings.check_config and (problems := problems_elsewhere(settings)):
            raise BadSettings(problems)
    except BadSettings as exc:
        print("The settings need a change:", *exc.problems, sep="\n- ", file=sys.stderr)
        return 2
    if settings.check_config:
        print("The settings are fine.")
        return 0
    key = signing_key(settings.cache_dir)
    logs.configure(settings.log_level, key)
    machine = Machine.detect()
    engines = make_engines(settings, machine)
    if machine.zero_gpu:
        _load_now(next(iter(engines.values())))

    from ui.server.serving import serve, stop
    from ui.visitors.forgotten import Forgotten
    from ui.visitors.people import People, SignIn

    sign_in = SignIn(
        Accounts(settings.users) if settings.users else None,
        settings.class_code.get_secret_value(),
        settings.huggingface,
        os.environ.get("SPACE_AUTHOR_NAME", ""),
    )
    alone = settings.is_loopback and not settings.proxies
    stopped = _stopped_by_signal()
    try:
        blocks = serve(
            engines,
            host=settings.host,
            port=settings.port,
            people=People(key, settings.proxies, sign_in, alone, Forgotten(settings.cache_dir)),
            trusted_hosts=settings.trusted_hosts or (("localhost",) if alone else ()),
            frame_hosts=settings.frame_hosts,
        )
        logs.adopt()
        first = next(iter(engines.values()))
        # Asked in the background and after the start, which it would slow.
        threading.Thread(target=first.models.hub_reachable, name="hub probe", daemon=True).start()
        print(f"The playground is at {blocks.local_url}", flush=True)
        if not settings.is_loopback and not settings.has_sign_in:
            print("Nobody has to sign in: whoever can reach this machine can use it.", flush=True)
        stopped.wait()
        print("Stopping: running answers may end first. Interrupt again to stop at once.", flush=True)
        stop(blocks, first.room.gate, settings.grace_seconds)
    except KeyboardInterrupt:
        pass  # asked for twice: what is loaded is unloaded, and that is all
    finally:
        for engine in engines.values():
            engine.models.close()
    return 0


def _stopped_by_signal() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; a second SIGINT interrupts what then still goes on."""
    stopped = threading.Event()

    def told(number: int, frame: object) -> None:
        stopped.set()
        signal.signal(signal.SIGINT, signal.default_int_handler)

    for name in (signal.SIGINT, signal.SIGTERM):
        signal.signal(name, told)
    return stopped


if __name__ == "__main__":
    sys.exit(main())
