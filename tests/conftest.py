"""What every test may need: a card made by hand, and the real weights of the smallest model."""

from __future__ import annotations

import functools
import gc
import os
import ssl
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import platformdirs
import pytest
from hypothesis import settings

from backends.catalog.cards import Card, Catalog
from backends.core.cancel import Cancel

settings.register_profile("steady", deadline=None)  # a slow moment of the machine is no fault
settings.register_profile("quick", deadline=None, max_examples=25)  # of `make check`
settings.load_profile("steady")

if TYPE_CHECKING:
    from backends.weights.store import WeightStore

Result = TypeVar("Result")


def pytest_collection_finish() -> None:
    """What is there now stays to the end. The garbage collector, which many a test calls, need not look at it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def certificates_are_read_once() -> Iterator[None]:
    """httpx reads the certificates of the whole world for every client that it makes, which takes 30 ms each time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ssl, "create_default_context", functools.cache(ssl.create_default_context))
        yield


@pytest.fixture(scope="session")
def card() -> Card:
    """A text model that thinks when it is told to. No catalog row, so that no change of data can break a test."""
    rows: list[dict[str, Any]] = [{"values": {}, "thinking": mode, "source": "tests"} for mode in (True, False)]
    return Card.model_validate(
        {
            "id": "test-model",
            "name": "Test model",
            "family": "Test",
            "parameters": 0.5,
            "context": 4096,
            "licence": "Apache-2.0",
            "thinking": {"kind": "switch"},
            "kv_bytes_per_token": 1,
            "sampling": rows,
            "artefacts": [{"engine": "scripted", "file": "script", "bytes": 1, "hub": "tests/none"}],
        }
    )


@pytest.fixture(scope="session")
def weight_store() -> WeightStore:
    """The store of the playground itself, so that weights fetched once serve every later run, tests or not."""
    from backends.weights.store import WeightStore

    root = os.environ.get("PLAYGROUND_CACHE_DIR") or platformdirs.user_cache_path("qwen-playground")
    return WeightStore(Path(root))


@pytest.fixture(scope="session")
def starter_weights(weight_store: WeightStore) -> Callable[[str], Path]:
    """`starter_weights(card_id)`: where the llama.cpp file of that card lies, fetched if it has to be."""

    def fetch(card_id: str) -> Path:
        artefact = Catalog.read().get(card_id).artefact("llama_cpp")
        assert artefact is not None, f"{card_id} has no file for llama.cpp"
        return _drained(weight_store.fetch(artefact, Cancel()))

    return fetch


def _drained(steps: Generator[Any, None, Result]) -> Result:
    """Runs a generator to its end and hands back what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            result: Result = end.value
            return result
