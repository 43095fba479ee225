"""The engines that must pass the contract. A new adapter is one fixture and one line in `adapter`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from backends.adapters.scripted import Script, Scripted, small_talk, tokens
from backends.catalog.cards import Card, Catalog
from backends.core.cancel import Cancel
from backends.core.types import Backend, Begun, Done, GenerationRequest, Loading, Message, Sampling, Thinking
from tests.backends.adapters.transformers_serve import free_port, served

if TYPE_CHECKING:
    from backends.adapters.hf_transformers.adapter import HfTransformers
    from backends.adapters.llama_cpp.adapter import LlamaCpp
    from backends.weights.store import WeightStore

REPEAT = "Repeat this line:\n"
COUNT = "Write all the numbers from 1 to 1000, with a space after each:"
SYSTEM = "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."

ELSEWHERE = "CONTRACT_URL"
"""The environment variable with the address of any server that serves the 0.5B; its key in CONTRACT_KEY."""


@dataclass(frozen=True)
class Work:
    """`busy`: requests under way; `passes`: how often the model was run since it was loaded, for a piece of a prompt or
    for the next token."""

    busy: int
    passes: int


@dataclass(frozen=True)
class Adapter:
    """An engine under the contract: `backend` is loaded and shared by all tests, `fresh()` makes one that is not.

    `stops_reading`: a prompt that is being read can be stopped; a server elsewhere may not know how to. `work`: what
    the engine is doing, where that can be seen from here. `system`: what every request begins with, if anything.
    """

    card: Card
    fresh: Callable[[], Backend]
    backend: Backend
    loading: tuple[Loading, ...]
    stops_reading: bool = True
    work: Callable[[], Work] | None = None
    system: str = SYSTEM

    def ask(self, text: str, *, think: bool = False, begun: Begun | None = None, **sampling: Any) -> GenerationRequest:
        """A request for a short answer, always the likeliest one, unless `sampling` says otherwise."""
        chosen = Sampling(**{"temperature": 0.0, "max_new_tokens": 128, **sampling})
        system = (Message.of("system", self.system),) if self.system else ()
        messages = (*system, Message.of("user", text))
        return GenerationRequest(self.card, messages, chosen, Thinking(think), begun=begun)

    def repeat(self, text: str, **options: Any) -> GenerationRequest:
        return self.ask(REPEAT + text, **options)

    def count(self) -> GenerationRequest:
        """Begins at once and would go on for a thousand passes; a server elsewhere may not stop when it is left."""
        return self.ask(COUNT, max_new_tokens=1500 if self.work else 150)


@contextmanager
def _under_contract(
    card: Card,
    fresh: Callable[[], Backend],
    stops_reading: bool = True,
    watched: Callable[[Any], Callable[[], Work]] | None = None,
) -> Iterator[Adapter]:
    backend = fresh()
    try:
        loading = tuple(backend.load(card))
        yield Adapter(card, fresh, backend, loading, stops_reading, watched(backend) if watched else None)
    finally:
        backend.close()


@pytest.fixture(
    scope="session",
    params=[
        "scripted",
        pytest.param("llama_cpp", marks=pytest.mark.model),
        pytest.param("llama_cpp_tokens", marks=pytest.mark.model),
        pytest.param("transformers", marks=pytest.mark.model),
        pytest.param("transformers_serve", marks=pytest.mark.model),
        *([pytest.param("elsewhere", marks=pytest.mark.model)] if ELSEWHERE in os.environ else []),
    ],
)
def adapter(request: pytest.FixtureRequest) -> Adapter:
    """Each engine in turn; only the one that is asked for is ever loaded."""
    chosen: Adapter = request.getfixturevalue(f"{request.param}_adapter")
    return chosen


@pytest.fixture(scope="session")
def scripted_adapter(card: Card) -> Iterator[Adapter]:
    class Watched(Scripted):
        passes = 0

        def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Any]:
            for event in super().stream(request, cancel):
                self.passes += not isinstance(event, Done)
                yield event

    def fresh() -> Backend:
        return Watched(_obedient, load_steps=((0.0, 0.0), (0.5, 0.01), (1.0, 0.01)), parallel=2, context=2048)

    def watched(backend: Watched) -> Callable[[], Work]:
        return lambda: Work(backend.capabilities.parallel - backend._slots._value, backend.passes)

    with _under_contract(card, fresh, watched=watched) as adapter:
        yield adapter


@pytest.fixture(scope="session")
def llama_cpp_adapter(weight_store: WeightStore, starter_weights: Callable[[str], Path]) -> Iterator[Adapter]:
    from backends.adapters.llama_cpp.adapter import LlamaCpp

    card = Catalog.read().get("qwen2.5-coder-0.5b-instruct")
    starter_weights(card.id)  # here, so that no network shows as one clear error and not as a failure of the engine

    def fresh() -> Backend:
        return LlamaCpp(weight_store, context=2048, slots=2, threads=2)

    def watched(backend: LlamaCpp) -> Callable[[], Work]:
        return lambda: Work(backend.busy_slots(), decodes(backend))

    with _under_contract(card, fresh, watched=watched) as adapter:
        yield adapter


@pytest.fixture(scope="session")
def llama_cpp_tokens_adapter(llama_cpp_adapter: Adapter) -> Adapter:
    """The same engine, asked without a system prompt: its template has one of its own, so prompts go as tokens."""
    return replace(llama_cpp_adapter, system="")


@pytest.fixture(scope="session")
def transformers_adapter(weight_store: WeightStore, starter_weights: Callable[[str], Path]) -> Iterator[Adapter]:
    from backends.adapters.hf_transformers.adapter import HfTransformers
    from backends.weights.store import WeightStore

    card = Catalog.read().get("qwen2.5-coder-0.5b-instruct")
    starter_weights(card.id)
    store = WeightStore(weight_store.root, offline=True)  # the other engine's weights, wherever the test runs

    def fresh() -> Backend:
        return HfTransformers(store, context=2048, slots=2, threads=2)

    def watched(backend: HfTransformers) -> Callable[[], Work]:
        decoder = backend._decoder
        assert decoder is not None
        passes = [0]

        def counted(forward: Callable[..., Any]) -> Callable[..., Any]:
            def run(*args: Any) -> Any:
                passes[0] += 1
                return forward(*args)

            return run

        decoder._forward_piece, decoder._forward_rows = map(counted, (decoder._forward_piece, decoder._forward_rows))
        return lambda: Work(len(decoder._rows) + len(decoder._waiting) + bool(decoder._reading), passes[0])

    with _under_contract(card, fresh, watched=watched) as adapter:
        yield adapter


@pytest.fixture(scope="session")
def transformers_serve_adapter(
    starter_weights: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Adapter]:
    from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable
    from backends.adapters.openai.remote import Remote, Server
    from backends.adapters.openai.remote_engines import RemoteEngine

    make_torchvision_importable()
    from backends.adapters.hf_transformers import loading

    card = Catalog.read().get("qwen2.5-coder-0.5b-instruct").model_copy(update={"context": 2048})
    folder = loading.unpack(starter_weights(card.id), card.weight_bytes("transformers"))
    with (
        served(folder, tmp_path_factory.mktemp("hub"), free_port()) as address,
        closing(Server(RemoteEngine(name="serve", url=f"{address}/v1"))) as server,
    ):
        offer = server.look()

        def fresh() -> Backend:
            return Remote(server, offer.dialect, offer.models[0])

        with _under_contract(card, fresh, stops_reading=False) as adapter:
            for _ in adapter.backend.stream(adapter.ask("Hello", max_new_tokens=1), Cancel()):
                """The server loads the weights with the first request."""
            yield adapter


@pytest.fixture(scope="session")
def elsewhere_adapter() -> Iterator[Adapter]:
    from backends.adapters import registry
    from backends.adapters.openai.remote_engines import RemoteEngine

    entry = RemoteEngine(name="elsewhere", url=os.environ[ELSEWHERE], key_env="CONTRACT_KEY", parallel=2)
    with closing(registry.remote(entry, Catalog.read())) as models:
        card = models.choose("chat")
        offer, served = models._offer, models._served[card.id]
        assert offer is not None
        with _under_contract(card, lambda: models._open(offer, served), stops_reading=False) as adapter:
            yield adapter


def decodes(engine: LlamaCpp) -> int:
    """How often llama.cpp has run the model: once for each batch of prompts and tokens."""
    assert engine._client is not None
    told = engine._client.get("/metrics").text
    return int(next(line for line in told.splitlines() if line.startswith("llamacpp:n_decode_total ")).split()[1])


def _obedient(request: GenerationRequest) -> Script:
    """Does what it is asked to, at the pace of a small model: reads a thousand words a second, writes two hundred."""
    asked = request.messages[-1].text
    script = replace(
        small_talk(request), interval_s=0.005, prompt_delay_s=len(asked.split()) / 1000, reads=(0.25, 0.5, 0.75, 1.0)
    )
    if asked.startswith(REPEAT):
        return replace(script, answer=tokens(asked.removeprefix(REPEAT)))
    if asked == COUNT:  # half a minute, as llama.cpp takes
        return replace(script, answer=tuple(f"{n} " for n in range(1, 1001)), interval_s=0.03)
    return script
