"""The engines by name: which are there, which one a machine gets, and that nothing heavy is imported to tell."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from backends.adapters import registry
from backends.catalog.choice import FOOTPRINTS
from backends.host.problems import SETUP
from backends.host.settings import Settings
from backends.machine.machine import GIB, Gpu, Machine

LIBRARIES = ("xllamacpp", "torch", "transformers", "bitsandbytes")
CARD = Gpu("a card", 80 * GIB, 80 * GIB)
UNIFIED = Gpu("Apple silicon", 16 * GIB, 16 * GIB, unified=True)


def machine(*gpus: Gpu) -> Machine:
    return Machine(8, 8, 64 * GIB, 64 * GIB, gpus)


@pytest.fixture
def decoys(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Every library can be found, and none can be imported."""
    for library in LIBRARIES:
        (tmp_path / library).mkdir()
        (tmp_path / library / "__init__.py").write_text("raise AssertionError('was imported')")
        monkeypatch.delitem(sys.modules, library, raising=False)
    monkeypatch.syspath_prepend(tmp_path)


def without(monkeypatch: pytest.MonkeyPatch, library: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)


def test_every_engine_can_be_set_has_its_footprint_and_its_setup() -> None:
    for engine in ("auto", *registry.ENGINES):
        assert Settings(engine=engine).engine == engine
    assert set(FOOTPRINTS) == set(SETUP) == set(registry.ENGINES) - {"scripted"}


@pytest.mark.parametrize("engine", registry.ENGINES)
def test_an_engine_is_installed_where_its_libraries_are_found_none_of_which_is_imported(
    engine: str, decoys: None
) -> None:
    assert registry.installed(engine)


@pytest.mark.parametrize(
    ("library", "lost"),
    [("xllamacpp", "llama_cpp"), ("torch", "transformers"), ("transformers", "transformers"), ("bitsandbytes", "")],
)
def test_an_engine_is_lost_with_any_of_its_libraries(
    monkeypatch: pytest.MonkeyPatch, decoys: None, library: str, lost: str
) -> None:
    without(monkeypatch, library)
    assert [engine for engine in registry.ENGINES if not registry.installed(engine)] == [lost] * bool(lost)


@pytest.mark.parametrize("engine", registry.ENGINES)
def test_what_an_engine_can_do_is_known_without_its_libraries(engine: str, decoys: None) -> None:
    assert registry.capabilities(engine).engine


def test_a_graphics_card_makes_transformers_the_default_where_it_is_installed(
    monkeypatch: pytest.MonkeyPatch, decoys: None
) -> None:
    assert registry.automatic(machine(CARD)) == "transformers"
    assert registry.automatic(machine(UNIFIED)) == "llama_cpp"  # which computes there, too, and faster
    assert registry.automatic(machine()) == "llama_cpp"
    without(monkeypatch, "torch")
    assert registry.automatic(machine(CARD)) == "llama_cpp"


def test_fewer_bits_need_bitsandbytes_and_a_card_with_its_own_memory(
    monkeypatch: pytest.MonkeyPatch, decoys: None
) -> None:
    assert registry.quantises("transformers", machine(CARD))
    assert not registry.quantises("transformers", machine(UNIFIED))
    assert not registry.quantises("transformers", machine())
    assert not registry.quantises("llama_cpp", machine(CARD))
    without(monkeypatch, "bitsandbytes")
    assert not registry.quantises("transformers", machine(CARD))
