"""Which engines are on offer, and what they share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app
from backends.adapters import registry
from backends.host.settings import Settings
from backends.machine.machine import GIB, Gpu, Machine
from tests.desks import panel_of

ROOT = Path(__file__).resolve().parents[1]
ONLY_TRANSFORMERS = "qwen3-vl-32b-instruct"


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The engines that count as installed; a test may take some away."""
    engines = set(registry.ENGINES)
    monkeypatch.setattr(registry, "installed", lambda engine: engine in engines)
    return engines


def on(monkeypatch: pytest.MonkeyPatch, *gpus: Gpu) -> None:
    here = Machine(8, 8, 64 * GIB, 64 * GIB, gpus)
    monkeypatch.setattr(Machine, "detect", lambda: here)


def engines(tmp_path: Path, **settings: Any) -> dict[str, app.Engine]:
    return app.make_engines(Settings(cache_dir=tmp_path, offline=True, **settings), Machine.detect())


def test_the_default_comes_first_and_the_other_installed_ones_follow(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], tmp_path: Path
) -> None:
    on(monkeypatch)
    assert list(engines(tmp_path)) == ["llama_cpp", "transformers"]
    assert list(engines(tmp_path, engine="transformers")) == ["transformers", "llama_cpp"]
    on(monkeypatch, Gpu("a card", 80 * GIB, 80 * GIB))
    assert list(engines(tmp_path)) == ["transformers", "llama_cpp"]
    installed.remove("transformers")
    assert list(engines(tmp_path)) == ["llama_cpp"]


@pytest.mark.parametrize("engine", registry.ENGINES)
def test_without_the_choice_there_is_one_engine(installed: set[str], tmp_path: Path, engine: str) -> None:
    assert list(engines(tmp_path, engine=engine, engine_choice=False)) == [engine]


def test_the_script_stands_alone(installed: set[str], tmp_path: Path) -> None:
    assert list(engines(tmp_path, engine="scripted")) == ["scripted"]


def test_all_engines_share_the_memory_and_the_files(installed: set[str], tmp_path: Path) -> None:
    offered = [engine.models for engine in engines(tmp_path).values()]
    assert len({id(models._house) for models in offered}) == 1
    assert len({id(models.hub_reachable.__self__) for models in offered}) == 1


def test_only_transformers_offers_fewer_bits_and_only_where_it_can(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], tmp_path: Path
) -> None:
    plain = engines(tmp_path)
    monkeypatch.setattr(registry, "quantises", lambda engine, machine: engine == "transformers")
    offered = engines(tmp_path)
    assert not any(card.quantisation for engine in plain.values() for card in engine.models.catalog)
    assert not any(card.quantisation for card in offered["llama_cpp"].models.catalog)
    assert {card.quantisation for card in offered["transformers"].models.catalog} == {"", "8bit", "4bit"}


def test_a_model_fixed_by_the_host_is_every_engines_choice_that_has_files_for_it(
    installed: set[str], tmp_path: Path
) -> None:
    choices = {name: engine.models._choice for name, engine in engines(tmp_path, model=ONLY_TRANSFORMERS).items()}
    assert choices["transformers"] == ONLY_TRANSFORMERS
    offered = engines(tmp_path, model=ONLY_TRANSFORMERS, engine="transformers")
    assert [engine.models._choice for engine in offered.values()] == [ONLY_TRANSFORMERS, ""]


def test_making_every_engine_loads_no_model_library(tmp_path: Path) -> None:
    code = (
        "import sys, app; from backends.host.settings import Settings; app.registry.installed = lambda name: True; "
        f"made = app.make_engines(Settings(cache_dir={str(tmp_path)!r}, offline=True), app.Machine.detect()); "
        "print(len(made), [name for name in ('torch', 'transformers', 'xllamacpp') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "2 []", done.stderr


LAB = '[[engine]]\nname = "lab"\nurl = "http://127.0.0.1:9/v1"\n'


@pytest.fixture
def lab(tmp_path: Path) -> Path:
    """A list with one engine, whose server is not there."""
    file = tmp_path / "engines.toml"
    file.write_text(LAB, "utf-8")
    return file


def test_engines_elsewhere_follow_those_here_or_come_first_where_that_is_asked(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], tmp_path: Path, lab: Path
) -> None:
    on(monkeypatch)
    assert list(engines(tmp_path, engines=lab)) == ["llama_cpp", "transformers", "lab"]
    assert list(engines(tmp_path, engines=lab, engine="lab")) == ["lab", "llama_cpp", "transformers"]
    assert list(engines(tmp_path, engines=lab, engine_choice=False)) == ["llama_cpp"]


def test_the_page_is_built_while_the_first_engine_cannot_be_reached(
    installed: set[str], tmp_path: Path, lab: Path
) -> None:
    offered = engines(tmp_path, engines=lab, engine="lab")
    panel = panel_of(offered)
    assert [label for label, _ in panel.engine.choices] == ["lab · localhost", "llama.cpp", "transformers"]


def test_checking_the_settings_asks_the_engines_elsewhere(lab: Path) -> None:
    command = [sys.executable, "app.py", "--check-config", "--port", "0", "--engine", "scripted", "--engines", str(lab)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 2
    assert "engines: lab: The engine cannot be reached." in done.stderr
    assert "Traceback" not in done.stderr
