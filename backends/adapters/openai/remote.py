"""A model on a server elsewhere. What the server is and what it offers is asked of it; the wire does the rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import httpx

from backends.adapters.openai.client import GRACE_SECONDS, Patience, Wire
from backends.adapters.openai.dialects import DIALECTS, OPENAI, OWNERS, Dialect
from backends.adapters.openai.links import Links
from backends.adapters.openai.remote_engines import RemoteEngine
from backends.adapters.openai.remote_pool import Offer, Served
from backends.catalog.cards import Card
from backends.core.cancel import Cancel
from backends.core.errors import EngineBusy, EngineDied, EngineError, PromptTooLong, UnsupportedModality
from backends.core.types import Answer, Done, GenerationRequest, Loading, Thought

LOOK_SECONDS = 3.0
"""For one question about health or models: whoever opens the page waits for it."""
LOADING_SECONDS = 600
MOST_MODELS = 200
KEY_HINT = "Whoever runs the playground has to check the engine's key."
ELSEWHERE = "Try again, or choose another engine."


class Server:
    """The way to one server; connections are kept and shared by all its models."""

    def __init__(self, entry: RemoteEngine) -> None:
        self.entry = entry
        silence = max(entry.first_token_seconds, entry.between_tokens_seconds) + GRACE_SECONDS
        connect = partial(
            httpx.Client,
            base_url=entry.root,
            headers={"Authorization": f"Bearer {entry.key}"} if entry.key else {},
            timeout=httpx.Timeout(silence, connect=entry.connect_seconds),
            verify=httpx.create_ssl_context(),
            trust_env=bool(entry.host),  # a proxy is for what lies elsewhere
        )
        self._links = Links(connect)

    def look(self) -> Offer:
        """What it is and what it serves. Raises `EngineError` with what is wrong."""
        listed = self._get("/v1/models")
        if listed.status_code != 200:
            raise _trouble(listed.status_code)
        try:
            rows = [row for row in listed.json()["data"] if isinstance(row, dict) and isinstance(row.get("id"), str)]
        except (ValueError, KeyError, TypeError) as exc:
            raise EngineError("The engine did not say which models it has.", "Check its address.") from exc
        models = tuple(Served(row["id"], str(row.get("root") or ""), _context(row)) for row in rows[:MOST_MODELS])
        return Offer(self._dialect(rows), models)

    def wire(self, dialect: Dialect, model: str) -> Wire:
        patience = Patience(self.entry.first_token_seconds, self.entry.between_tokens_seconds)
        return Wire(self._links, dialect, model, patience)

    def healthy(self, dialect: Dialect) -> bool:
        """False while it is loading. Raises `EngineError` where it cannot be asked, or refuses the key."""
        status = self._get(dialect.health).status_code
        if status in (401, 403):
            raise _trouble(status)
        return status not in (429, 503)

    def context(self, dialect: Dialect) -> int:
        """Of one request in tokens, where the server tells it elsewhere than among its models; 0 where not."""
        if dialect.counting != "llama":
            return 0
        try:
            return int(self._get("/props").json()["default_generation_settings"]["n_ctx"])
        except (EngineError, ValueError, KeyError, TypeError):
            return 0

    def close(self) -> None:
        self._links.close()

    def _dialect(self, rows: list[dict[str, Any]]) -> Dialect:
        if self.entry.dialect != "auto":
            return DIALECTS[self.entry.dialect]
        if self.entry.hosted:
            return DIALECTS[self.entry.hosted]
        for row in rows:
            if (name := OWNERS.get(str(row.get("owned_by", "")))) is not None:
                return DIALECTS[name]
        try:
            routes = self._get("/openapi.json").json()["paths"]
        except (EngineError, ValueError, KeyError, TypeError):
            return OPENAI
        return DIALECTS["transformers-serve"] if "/load_model" in routes else OPENAI

    def _get(self, path: str) -> httpx.Response:
        try:
            with self._links.borrow() as link:
                return link.client.get(path, timeout=httpx.Timeout(LOOK_SECONDS), extensions=link.extensions)
        except httpx.TimeoutException as exc:
            raise EngineDied("The engine does not answer.", ELSEWHERE) from exc
        except httpx.HTTPError as exc:
            raise EngineDied("The engine cannot be reached.", ELSEWHERE) from exc


class Remote:
    """`Backend` for one model of a server. `served` says how the server names it."""

    def __init__(self, server: Server, dialect: Dialect, served: Served) -> None:
        self.capabilities = dialect.capabilities(server.entry.parallel)
        self._server, self._dialect, self._served = server, dialect, served
        self._wire = server.wire(dialect, served.name)
        self._context = 0
        self._closed = Cancel()

    def load(self, card: Card) -> Iterator[Loading]:
        """Waits while the server itself is loading."""
        until = time.monotonic() + LOADING_SECONDS
        while not self._server.healthy(self._dialect):
            if self._closed.is_set() or time.monotonic() > until:
                raise EngineBusy("The engine is still loading.")
            yield Loading("loading")
            self._closed.wait(1.0)
        self._context = self._served.context or self._server.context(self._dialect) or card.context

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        seen = request.card.modalities & self._dialect.modalities
        if any(message.images for message in request.messages) and "image" not in seen:
            raise UnsupportedModality(f"{request.card.name} reads text only on this engine.")
        yield from self._wire.stream(self._within_context(request), cancel)

    def _within_context(self, request: GenerationRequest) -> GenerationRequest:
        """No more new tokens asked for than there is room for: vLLM refuses what llama-server would cut."""
        counted = self.capabilities.counts  # asks the server; an estimate costs nothing
        if self._dialect.counting == "llama" or (counted and request.sampling.max_new_tokens <= self._context // 8):
            return request
        prompt = self.count_tokens(request)
        if prompt >= self._context and not counted:  # nor may the server refuse it: Ollama cuts it
            raise PromptTooLong(f"The text has more tokens than this model can read here: at most {self._context:,}.")
        most = min(max(1, self._context - prompt), request.sampling.max_new_tokens)
        return replace(request, sampling=request.sampling.model_copy(update={"max_new_tokens": most}))

    def count_tokens(self, request: GenerationRequest) -> int:
        return self._wire.count_tokens(request)

    @property
    def context(self) -> int:
        return self._context if self.alive else 0

    @property
    def alive(self) -> bool:
        return self._context > 0 and not self._closed.is_set()

    def close(self) -> None:
        self._closed()


def _context(row: dict[str, Any]) -> int:
    """vLLM and SGLang say `max_model_len`."""
    length = row.get("max_model_len")
    return length if isinstance(length, int) and length > 0 else 0


def _trouble(status: int) -> EngineError:
    if status in (401, 403):
        return EngineError("The engine refused the playground's key.", KEY_HINT)
    if status in (429, 503):
        return EngineBusy("The engine is still loading, or busy.")
    return EngineError(f"The engine answered with status {status}.", ELSEWHERE)
