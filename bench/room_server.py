"""A playground in a process of its own, for a crowd: `python -m bench.room_server scripted|quick|real`.

It prints its address.
The scripted engine answers with what it was asked, by whom it was told to be, and its seed, the quick one at once; the
real one is the 0.5B. For each line that comes in it forgets who has left, and prints how much it still keeps.
"""

from __future__ import annotations

import datetime
import gc
import json
import sys
from collections.abc import Callable

import gradio as gr
import psutil

import app
from backends.adapters.scripted import Script, Scripted, tokens
from backends.catalog.cards import Catalog
from backends.core.types import GenerationRequest
from backends.engine.engine import Engine
from backends.engine.pool import House, LocalModels
from backends.host.settings import Settings
from backends.machine.machine import GIB, Machine
from ui.server.serving import serve
from ui.visitors import owners


def echo(request: GenerationRequest) -> Script:
    said = f"{request.messages[0].text} | {request.messages[-1].text} | {request.sampling.seed} " + "word " * 20
    return Script(answer=tokens(said), prompt_delay_s=0.4, interval_s=0.05)


def quick(request: GenerationRequest) -> Script:
    return Script(answer=tokens("yes it is " * 10))


def scripted(script: Callable[[GenerationRequest], Script]) -> Engine:
    models = LocalModels(
        Catalog.read(),
        "llama_cpp",  # whose models the script plays
        Scripted().capabilities,
        lambda card, fit: Scripted(script, parallel=fit.slots, context=fit.context),
        lambda artefact: True,
        house=House(lambda: Machine(4, 4, 16 * GIB, 16 * GIB)),
    )
    return Engine(models)


def kept(blocks: gr.Blocks, engine: Engine) -> dict[str, int]:
    """How many of everything that may pile up, once all who have left are forgotten."""
    owners.sweep(blocks.app.state_holder, datetime.datetime.now() + datetime.timedelta(hours=2))
    gc.collect()
    process, queue = psutil.Process(), blocks._queue
    return {
        "sessions": len(blocks.app.state_holder.session_data),
        "iterators": len(blocks.app.iterators),
        "events": len(queue.event_ids_to_events) + len(queue.event_analytics),
        "streams": len(queue.pending_messages_per_session) + len(queue.pending_event_ids_session),
        "waiting": sum(model.line.waiting + model.line.running for model in engine.models.loaded()),
        "threads": process.num_threads(),
        "files": process.num_fds(),
        "bytes": process.memory_info().rss,
    }


def real() -> Engine:
    smallest = "qwen2.5-coder-0.5b-instruct"
    settings = Settings(engine="llama_cpp", engine_choice=False, model=smallest, _cli_parse_args=[])
    return app.make_engines(settings, Machine.detect())["llama_cpp"]


if __name__ == "__main__":
    scripts = {"scripted": echo, "quick": quick}
    kind = sys.argv[1]
    engine = real() if kind == "real" else scripted(scripts[kind])
    try:
        blocks = serve({engine.name: engine})
        print(blocks.local_url, flush=True)
        for _ in sys.stdin:  # until the test closes it
            print(json.dumps(kept(blocks, engine)), flush=True)
    finally:
        engine.models.close()
