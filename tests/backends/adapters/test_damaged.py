"""A file that was damaged after its check, with the time of the sound one: found, set aside and named by whichever
engine cannot read it; a sound one that cannot be read stays where it is."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from backends.adapters.hf_transformers.adapter import HfTransformers
from backends.adapters.llama_cpp.adapter import LlamaCpp
from backends.catalog.cards import Artefact, Card, Repository
from backends.core.cancel import Cancel
from backends.core.errors import DamagedFile, EngineDied, EngineError, PlaygroundError
from backends.core.types import GenerationRequest, Message, Sampling
from backends.weights.store import WeightStore
from tests.backends.adapters import random_models
from tests.backends.weights.test_repositories import WANTED as REPOSITORY
from tests.backends.weights.test_repositories import Toy
from tests.weight_servers import Origin, damage, drain, honest, sha256
from tests.weight_servers import hub as hub
from tests.weight_servers import nobody_elses_settings as nobody_elses_settings
from tests.weight_servers import origins as origins
from tests.weight_servers import store as store

UNREADABLE = b"GGUF" + bytes(range(256)) * 40


def of_gguf(**files: bytes) -> Card:
    """`model` and perhaps `projector`: what the hub serves as them."""
    artefacts = tuple(
        Artefact(engine="llama_cpp", role=role, file=f"{role}.gguf", bytes=len(data), sha256=sha256(data), hub="a/b")
        for role, data in files.items()
    )
    card = random_models.card("image") if "projector" in files else random_models.card()
    return card.model_copy(update={"artefacts": artefacts})


def served(hub: Origin, **files: bytes) -> Card:
    hub.always = lambda handler: honest(handler, files[handler.path.rpartition("/")[2].removesuffix(".gguf")])
    return of_gguf(**files)


@pytest.fixture
def llama(store: WeightStore) -> Callable[[], LlamaCpp]:
    return lambda: LlamaCpp(store, context=512, slots=1, threads=1, cache_mib=16)


def failed(engine: Any, card: Card) -> PlaygroundError:
    with closing(engine), pytest.raises(PlaygroundError) as caught:
        list(engine.load(card))
    assert not engine.alive
    return caught.value


def test_what_llama_cpp_cannot_read_is_hashed_again_and_set_aside(
    hub: Origin, store: WeightStore, llama: Callable[[], LlamaCpp]
) -> None:
    card = served(hub, model=UNREADABLE)
    (artefact,) = card.artefacts
    _, path = drain(store.fetch(artefact, Cancel()))
    damage(path, 9)
    error = failed(llama(), card)
    assert isinstance(error, DamagedFile)
    assert "model.gguf" in error.message
    assert "Send again" in error.hint
    assert str(path.parent) not in error.sentence
    assert not path.exists()
    assert [file.read_bytes()[:4] for file in path.parent.glob("model.gguf.damaged-*")] == [b"GGUF"]


def test_a_sound_file_that_llama_cpp_cannot_read_stays_and_is_told_as_before(
    hub: Origin, store: WeightStore, llama: Callable[[], LlamaCpp]
) -> None:
    card = served(hub, model=UNREADABLE)
    error = failed(llama(), card)
    assert isinstance(error, EngineDied)
    assert "could not load" in error.message
    assert store.have(card.artefacts[0])


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random_models.need_torch()
    return random_models.seeing_model(tmp_path_factory.mktemp("seeing"))


@pytest.mark.model
@pytest.mark.parametrize("role", ["model", "projector"])
def test_a_real_model_is_fetched_anew_and_answers_again(
    hub: Origin, store: WeightStore, llama: Callable[[], LlamaCpp], seeing: Path, role: str
) -> None:
    files = {name: (seeing / file).read_bytes() for name, file in random_models.GGUF.items()}
    card = served(hub, **files)
    request = GenerationRequest(card, (Message.of("user", "Hi"),), Sampling(max_new_tokens=2, temperature=0.0))

    def answers() -> None:
        with closing(llama()) as engine:
            list(engine.load(card))
            assert list(engine.stream(request, Cancel()))[-1].reason in ("stop", "length")

    answers()
    artefact = card.artefact("llama_cpp", role)
    assert artefact is not None
    damage(store.path(artefact), 9)
    error = failed(llama(), card)
    assert isinstance(error, DamagedFile)
    assert f"{role}.gguf" in error.message
    hub.requests.clear()
    answers()
    assert [path.rpartition("/")[2] for path, _ in hub.requests] == [f"{role}.gguf"]


# --- transformers ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    random_models.need_torch()
    return random_models.text_model(tmp_path_factory.mktemp("words"))


@pytest.fixture
def toy(hub: Origin, words: Path) -> Toy:
    toy = Toy(hub)
    toy.files = {file.name: file.read_bytes() for file in words.iterdir()}
    return toy


@pytest.fixture
def card() -> Card:
    repository = REPOSITORY.model_copy(update={"engine": "transformers"})
    return random_models.card().model_copy(update={"repositories": (repository,)})


def transformers(store: Any) -> HfTransformers:
    return HfTransformers(store, context=512, slots=1, threads=1)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_what_transformers_cannot_read_is_hashed_again_set_aside_and_fetched_anew(
    toy: Toy, store: WeightStore, card: Card, name: str
) -> None:
    with closing(transformers(store)) as engine:
        list(engine.load(card))
    folder = store.path(card.repositories[0].config).parent
    damage(folder / name, 0)
    error = failed(transformers(store), card)
    assert isinstance(error, DamagedFile)
    assert name in error.message
    toy.origin.requests.clear()
    with closing(transformers(store)) as engine:
        list(engine.load(card))
        assert engine.alive
    assert toy.given == [name]


def test_a_sound_repository_that_transformers_cannot_read_stays_and_is_told_as_before(
    toy: Toy, store: WeightStore, card: Card
) -> None:
    toy.files["config.json"] = b"{broken"
    error = failed(transformers(store), card)
    assert type(error) is EngineError
    assert "could not be loaded" in error.message
    assert store.have_repository(card.repositories[0])


class Packed:
    """A `Files` with one GGUF file and no hub. `checked`: what was to be checked again."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.checked: list[Artefact | Repository] = []

    def fetch(self, artefact: Artefact, cancel: Cancel) -> Iterator[Any]:
        yield from ()
        return self.file

    def fetch_repository(self, repository: Repository, cancel: Cancel) -> Iterator[Any]:
        raise AssertionError("there is no hub")

    def check_again(self, wanted: Artefact | Repository, cancel: Cancel) -> Iterator[Any]:
        assert not cancel.is_set()
        self.checked.append(wanted)
        yield from ()

    def obtainable(self, artefact: Artefact) -> bool:
        return False


def test_what_was_unpacked_and_cannot_be_read_is_unpacked_anew(tmp_path: Path) -> None:
    """Nothing tells whether it is whole: it is the playground's own work, and has no checksum."""
    random_models.need_torch()
    card = of_gguf(model=UNREADABLE).model_copy(
        update={"repositories": (Repository(engine="transformers", hub="a/b", gguf="model.gguf"),)}
    )
    files = Packed(tmp_path / "model.gguf")
    files.file.write_bytes(UNREADABLE)
    unpacked = tmp_path / "model.gguf.unpacked"
    unpacked.mkdir()
    (unpacked / "config.json").write_bytes(b"{broken")
    facts = files.file.stat()
    import transformers as library

    source = {"bytes": facts.st_size, "mtime_ns": facts.st_mtime_ns, "transformers": library.__version__}
    (unpacked / "source.json").write_text(json.dumps(source), "utf-8")
    assert type(failed(transformers(files), card)) is EngineError
    assert files.checked == list(card.artefacts)
    assert not unpacked.exists()
