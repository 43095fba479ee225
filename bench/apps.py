"""The servers under test, each in a process of its own: `python -m bench.apps NAME [ARGUMENTS]`.

Prints one line of JSON once it serves, then lives until its stdin is closed, so that none outlives the measurement.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

from bench.processes import keep_to
from bench.script import Question

PARALLEL = 64
CONTEXT = 65_536
USERS = 32
STARTER = "qwen2.5-coder-0.5b-instruct"


def playground() -> dict[str, Any]:
    """The real page on the scripted engine: `app.make_engines` with another opener."""
    from backends.adapters import registry
    from backends.adapters.scripted import Script, Scripted
    from backends.catalog.cards import Catalog
    from backends.core.types import GenerationRequest
    from backends.engine.engine import Engine
    from backends.engine.pool import LocalModels

    def script(request: GenerationRequest) -> Script:
        question = Question.read(request.messages[-1].text)
        return Script(answer=question.answer(), prompt_delay_s=question.delay_s, interval_s=question.interval_s)

    models = LocalModels(
        Catalog.read(),
        "llama_cpp",
        registry.capabilities("scripted"),
        lambda card, fit: Scripted(script, parallel=PARALLEL, context=CONTEXT),
        lambda artefact: True,
        choice=STARTER,
    )
    return _serve_page(Engine(models))


def real() -> dict[str, Any]:
    """The real page on the real 0.5B, already loaded; tells where its llama.cpp server listens."""
    engine, backend = loaded_engine()
    client = backend._client
    return _serve_page(engine) | {"server": str(client.base_url), "key": client.headers["Authorization"]}


def engine_elsewhere() -> dict[str, Any]:
    """A llama-server with the real 0.5B and a slot for each of `USERS`, on its own half of the processor."""
    from backends.adapters.llama_cpp.adapter import LlamaCpp
    from backends.catalog.cards import Catalog
    from backends.host.settings import read_settings
    from backends.weights.store import WeightStore

    store = WeightStore(read_settings([]).cache_dir)
    backend = LlamaCpp(store, context=1024, slots=USERS, threads=keep_to(0))
    for _ in backend.load(Catalog.read().get(STARTER)):
        pass
    client = backend._client
    assert client is not None
    return {"url": str(client.base_url).rstrip("/"), "key": client.headers["Authorization"]}


def remote(url: str, key: str) -> dict[str, Any]:
    """The real page on an engine elsewhere, with which it shares no core."""
    from backends.adapters import registry
    from backends.adapters.openai.remote_engines import RemoteEngine
    from backends.catalog.cards import Catalog
    from backends.engine.engine import Engine

    keep_to(1)
    os.environ["ELSEWHERE_KEY"] = key.removeprefix("Bearer ")
    entry = RemoteEngine(name="elsewhere", url=f"{url}/v1", key_env="ELSEWHERE_KEY", parallel=USERS)
    return _serve_page(Engine(registry.remote(entry, Catalog.read())))


def chat_interface() -> dict[str, Any]:
    """What ten lines of Gradio give: the same words at the same moments."""
    import gradio as gr

    from ui.server.serving import THREADS

    def answer(message: str, history: list[Any]) -> Iterator[str]:
        started, question, text = time.monotonic(), Question.read(message), ""
        for k, token in enumerate(question.answer()):
            due = started + question.delay_s + k * question.interval_s
            time.sleep(max(0.0, due - time.monotonic()))
            text += token
            yield text

    chat = gr.ChatInterface(answer, concurrency_limit=None)
    chat.launch(max_threads=THREADS, quiet=True, prevent_thread_lock=True)
    return {"url": chat.local_url}


def loaded_engine() -> tuple[Any, Any]:
    """An engine with the smallest real model in memory, and its llama.cpp backend."""
    from app import make_engines
    from backends.core.cancel import Controls
    from backends.core.types import Failure, GenerationRequest, Message, Sampling
    from backends.host.settings import read_settings
    from backends.machine.machine import Machine

    settings = read_settings(["--engine", "llama_cpp", "--model", STARTER])
    engine = make_engines(settings, Machine.detect())["llama_cpp"]
    card = engine.models.catalog.get(STARTER)
    hello = GenerationRequest(card, (Message.of("user", "Say yes."),), Sampling(max_new_tokens=4, seed=1))
    last = list(engine.run(hello, Controls()))[-1]
    if isinstance(last, Failure):
        raise SystemExit(f"the model cannot be loaded: {last.message}")
    return engine, engine.models.loaded()[0].backend


def _serve_page(engine: Any) -> dict[str, Any]:
    from ui.server.serving import serve

    blocks = serve({engine.name: engine})
    return {"url": blocks.local_url}


APPS: dict[str, Callable[..., dict[str, Any]]] = {
    app.__name__: app for app in (playground, real, engine_elsewhere, remote, chat_interface)
}

if __name__ == "__main__":
    print(json.dumps(APPS[sys.argv[1]](*sys.argv[2:])), flush=True)
    sys.stdin.read()
    os._exit(0)
