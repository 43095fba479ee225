"""transformers in this process: every Qwen that the library can load, for text and for pictures.

The default with a graphics card; without one the reference, and the only home of Qwen-VL. torch and transformers are
imported when a model is loaded, not before.
"""

from __future__ import annotations

import errno
import importlib.util
import logging
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from backends.adapters.openai.joiner import Unjoiner
from backends.catalog.cards import Artefact, Card, Repository
from backends.core.cancel import Cancel
from backends.core.errors import (
    EngineDied,
    EngineError,
    EngineMissing,
    NotEnoughDisk,
    OutOfMemory,
    PlaygroundError,
    PromptTooLong,
    UnsupportedModality,
)
from backends.core.types import (
    Answer,
    Capabilities,
    Done,
    GenerationRequest,
    Loading,
    Sampling,
    Thought,
    TokenLogprob,
    Usage,
)
from backends.engine.thinking import Splitter

if TYPE_CHECKING:
    from backends.adapters.hf_transformers.decoding import Decoder
    from backends.adapters.hf_transformers.jobs import Job, Token
    from backends.adapters.hf_transformers.loading import Loaded
    from backends.adapters.hf_transformers.prompts import Prompt

log = logging.getLogger(__name__)

CAPABILITIES = Capabilities(
    engine="transformers",
    sampling={name: name for name in Sampling.model_fields},
    modalities=frozenset({"text", "image"}),
    logprobs=True,
)


class Files(Protocol):
    """What this adapter needs of `weights.WeightStore`."""

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Generator[Loading, None, Path]: ...

    def fetch_repository(self, repository: Repository, cancel: Cancel) -> Generator[Loading, None, Path]: ...

    def check_again(self, wanted: Artefact | Repository, cancel: Cancel) -> Iterator[Loading]: ...

    def obtainable(self, artefact: Artefact) -> bool: ...


class HfTransformers:
    """One model in this process. `context`: tokens of one conversation; `slots`: answers written at the same time.

    `zero_gpu`: a graphics card is lent for one answer at a time (see `zero_gpu.py`).
    """

    engine = "transformers"

    def __init__(self, files: Files, *, context: int, slots: int, threads: int, zero_gpu: bool = False) -> None:
        self.capabilities = CAPABILITIES
        self._files = files
        self._context = context
        self._slots = slots
        self._threads = threads
        self._zero_gpu = zero_gpu
        self._closed = Cancel()
        self._loaded: Loaded | None = None
        self._decoder: Decoder | None = None

    def load(self, card: Card) -> Iterator[Loading]:
        if importlib.util.find_spec("torch") is None:
            raise EngineMissing("The transformers engine is not installed.", "Run 'make setup-transformers'.")
        found, wanted = yield from self._fetched(card)
        packed = isinstance(wanted, Artefact)
        yield Loading("loading", 0.0)
        from backends.adapters.hf_transformers.torchvision_shim import make_torchvision_importable

        make_torchvision_importable()
        import torch

        from backends.adapters.hf_transformers import loading
        from backends.adapters.hf_transformers.decoding import Decoder
        from backends.adapters.hf_transformers.faults import is_out_of_memory

        decoder: Any = Decoder
        if self._zero_gpu:
            from backends.adapters.hf_transformers.zero_gpu import ZeroGpuDecoder as decoder

        torch.set_num_threads(self._threads)

        def work() -> None:
            unpacked = loading.unpack(found, card.weight_bytes(self.engine)) if packed else found
            self._loaded = loading.load(card, unpacked, self._zero_gpu)

        try:
            yield from loading.watched(work, card.weight_bytes(self.engine))
        except Exception as exc:
            log.info("loading %s failed: %s", card.id, type(exc).__name__)
            error = _translated(exc, card, is_out_of_memory(exc))
            try:
                if type(error) is EngineError:  # nothing else that could explain it
                    if packed:
                        loading.forget_unpacked(found)
                    yield from self._files.check_again(wanted, self._closed)
            finally:
                self.close()
            raise error from exc
        assert self._loaded is not None
        self._decoder = decoder(self._loaded.model, self._loaded.ends, self._slots, self._context * self._slots)
        self.capabilities = replace(CAPABILITIES, parallel=self._decoder.slots)
        if self._closed.is_set():
            self.close()

    def _fetched(self, card: Card) -> Generator[Loading, None, tuple[Path, Artefact | Repository]]:
        """Where the weights lie, and what was fetched: a repository, or a GGUF file that is still to be unpacked."""
        repository = card.repository(self.engine)
        if repository is None:
            raise EngineError(f"{card.name} has no files for the transformers engine.", "Choose another model.")
        packed = next((a for a in card.artefacts if a.file == repository.gguf), None)
        if packed is None or self._files.obtainable(repository.config):
            return (yield from self._files.fetch_repository(repository, self._closed)), repository
        return (yield from self._files.fetch(packed, self._closed)), packed

    def stream(self, request: GenerationRequest, cancel: Cancel) -> Iterator[Loading | Thought | Answer | Done]:
        if "image" not in request.card.modalities and any(message.images for message in request.messages):
            raise UnsupportedModality(f"{request.card.name} reads text only.")
        loaded, decoder = self._ready()
        from backends.adapters.hf_transformers.jobs import End, Job

        prompt = loaded.chat.encode(request)
        room = self._context - len(prompt.ids)
        if room < 1:
            raise PromptTooLong(
                f"The text has {len(prompt.ids):,} tokens, but this model can read at most {self._context - 1:,} here."
            )
        limit = min(request.sampling.max_new_tokens, room)
        job = Job(prompt, request.sampling, limit, request.logprobs)
        answer = _AnswerReader(loaded.chat.tokenizer, prompt, request.thinking.enabled)
        joiner = Unjoiner(prompt.joined)
        undo = cancel.on_cancel(job.cancelled.set)
        decoder.submit(job)
        end: End | Exception | None = None
        try:
            for told in job.events():
                if isinstance(told, End | Exception):
                    end = told
                elif not cancel.is_set():
                    yield from [told] if isinstance(told, Loading) else joiner.clean(answer.read(told))
        finally:
            undo()
            if end is None:
                _wait_out(job)
        if not isinstance(end, End):
            raise end or EngineDied("The engine broke off in the middle of the answer.")
        if end.reason != "cancelled":
            yield from joiner.clean(answer.rest())
        usage = Usage(len(prompt.ids), end.cached, answer.thinking, answer.answer)
        yield from joiner.clean([Done(end.reason, usage, ignored=self.capabilities.ignored)])

    def count_tokens(self, request: GenerationRequest) -> int:
        loaded, _ = self._ready()
        return len(loaded.chat.encode(request).ids)

    @property
    def context(self) -> int:
        return self._context if self._decoder is not None else 0

    @property
    def alive(self) -> bool:
        return self._decoder is not None

    def close(self) -> None:
        self._closed()
        decoder, self._decoder = self._decoder, None
        if decoder is not None:
            decoder.close()
        if self._loaded is not None:
            self._loaded = None
            del decoder
            from backends.adapters.hf_transformers.loading import give_back_memory

            give_back_memory()

    def _ready(self) -> tuple[Loaded, Decoder]:
        if self._loaded is None or self._decoder is None:
            raise EngineDied("The engine is not running.")
        return self._loaded, self._decoder


class _AnswerReader:
    """Turns tokens into text as soon as whole characters are there, and thoughts apart from the answer."""

    def __init__(self, tokenizer: Any, prompt: Prompt, thinks: bool) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer.backend_tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._splitter = Splitter(inside=prompt.inside) if thinks or prompt.inside else None
        self._waiting: list[Token] = []  # tokens whose text has not come out yet
        self._speaking = "thought" if prompt.inside else "answer"
        self._spent = {"thought": 0, "answer": 0}

    @property
    def thinking(self) -> int:
        return self._spent["thought"] + (len(self._waiting) if self._speaking == "thought" else 0)

    @property
    def answer(self) -> int:
        return self._spent["answer"] + (len(self._waiting) if self._speaking == "answer" else 0)

    def read(self, token: Token) -> Iterator[Thought | Answer]:
        self._waiting.append(token)
        text = self._stream.step(self._tokenizer, token.id)
        if text:
            yield from self._said(self._splitter.feed(text) if self._splitter else iter([("answer", text)]))

    def rest(self) -> Iterator[Thought | Answer]:
        """What was held back as the possible start of a marker."""
        if self._splitter:
            yield from self._said(self._splitter.flush())

    def _said(self, pieces: Iterator[tuple[str, str]]) -> Iterator[Thought | Answer]:
        for kind, text in pieces:
            tokens, self._waiting = self._waiting, []
            self._speaking = kind
            self._spent[kind] += len(tokens)
            if kind == "thought":
                yield Thought(text, len(tokens))
            else:
                yield Answer(text, len(tokens), tuple(self._named(token) for token in tokens if token.top))

    def _named(self, token: Token) -> TokenLogprob:
        def name(token_id: int) -> str:
            return str(self._tokenizer.decode([token_id], skip_special_tokens=False))

        return TokenLogprob(name(token.id), token.logprob, tuple((name(i), value) for i, value in token.top))


def _wait_out(job: Job) -> None:
    """Ends a request that nobody reads any more, and waits until the loop has let go of it."""
    job.cancelled.set()
    for _ in job.events():
        pass


def _translated(exc: Exception, card: Card, out_of_memory: bool) -> PlaygroundError:
    if isinstance(exc, PlaygroundError):
        return exc
    if out_of_memory:
        return OutOfMemory(f"There is not enough memory to load {card.name}.")
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        return NotEnoughDisk(f"The disk filled up while {card.name} was being unpacked.")
    return EngineError(f"{card.name} could not be loaded.", "Try again, or choose another model.")
