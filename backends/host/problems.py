"""What is wrong with settings that are well formed: what this machine, or a server elsewhere, cannot do of them."""

from __future__ import annotations

import importlib.util
import socket
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING

from backends.adapters import registry
from backends.adapters.openai.remote_engines import BadEngines, RemoteEngine
from backends.catalog.cards import Catalog
from backends.core.errors import UnknownModel
from backends.host.accounts import BadAccounts, read_accounts
from backends.machine.machine import Machine

if TYPE_CHECKING:
    from backends.host.settings import Settings

SETUP = {
    "llama_cpp": "llama.cpp is not installed; run 'make setup'",
    "transformers": "transformers is not installed; run 'make setup-transformers'",
}


def problems_here(settings: Settings) -> list[str]:
    """What this machine cannot do of it. Looks at no network beyond its own ports and loads nothing."""
    problems = []
    try:
        catalog = Catalog.read()
        if settings.model:
            catalog.get(settings.model)
    except UnknownModel as exc:
        problems.append(f"model: {exc.message} The ids stand in backends/catalog/catalog.toml.")
    except ValueError as exc:
        problems.append(str(exc))
    try:
        taken = [entry.name for entry in settings.remote if entry.name in ("auto", *registry.ENGINES)]
        problems += [f"engines: {name}: means an engine of the playground's own; choose another name" for name in taken]
    except BadEngines as exc:
        problems += exc.problems
    engine = registry.automatic(Machine.detect()) if settings.engine == "auto" else settings.engine
    if engine in registry.ENGINES and not registry.installed(engine):
        problems.append(f"engine: {SETUP[engine]}")
    if settings.users is not None:
        try:
            read_accounts(settings.users)
        except BadAccounts as exc:
            problems.append(f"users: {exc}")
    if settings.limits_storage.startswith("redis") and importlib.util.find_spec("redis") is None:
        problems.append("limits_storage: Redis needs its library; run '.venv/bin/pip install redis'")
    try:
        settings.cache_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=settings.cache_dir):
            pass
    except OSError:
        problems.append("cache_dir: cannot be written to; set PLAYGROUND_CACHE_DIR to a folder that can")
    if settings.port and not _port_is_free(settings.host, settings.port):
        problems.append(f"port: {settings.port} is taken; stop what uses it, or choose another with --port")
    return problems


def _port_is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def problems_elsewhere(settings: Settings) -> list[str]:
    """What the engines on other machines say when they are asked, all of them at once."""

    def ask(entry: RemoteEngine) -> str:
        with closing(registry.remote(entry, Catalog.read())) as models:
            return models.probe()

    with ThreadPoolExecutor(max(1, len(settings.remote))) as pool:
        told = zip(settings.remote, pool.map(ask, settings.remote), strict=True)
        return [f"engines: {entry.name}: {trouble}" for entry, trouble in told if trouble]
