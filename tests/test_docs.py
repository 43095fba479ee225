"""The documents say what the code does: parameters, bounds, settings, links; and their examples run."""

from __future__ import annotations

import inspect
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast, get_args

import annotated_types
import gradio as gr
import pytest

from backends.catalog.cards import Catalog
from backends.core.types import Sampling
from backends.host.settings import Settings
from backends.weights.files import human
from tools import settings
from tools.space import body
from ui.conversation.choices import MAX_BUDGET, MAX_MESSAGE, bounds
from ui.conversation.tabs import PROGRAMMING_LANGUAGES, TABS, TabSpec, languages
from ui.conversation.transcript import MAX_TURNS, State
from ui.screen import api

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md")), *sorted(ROOT.glob("examples/**/*.md"))]
README = body((ROOT / "README.md").read_text("utf-8"))
API = (ROOT / "docs" / "api.md").read_text("utf-8")
ADDRESS = "http://127.0.0.1:7860"  # where the examples look for the playground
CODE_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """What stands under a heading, up to the next one of any level."""
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)
    assert found, f"no heading {heading!r}"
    return found[1]


def rows(text: str) -> dict[str, list[str]]:
    """The table in `text`: its rows' cells by the code in the first one."""
    lines = [line.strip().strip("|") for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.split("|")] for line in lines]
    return {row[0].strip("`"): row for row in cells if row[0].startswith("`")}


def signature(spec: TabSpec) -> inspect.Signature:
    """What a caller gives: all but the request itself, which gradio adds."""
    whole = inspect.signature(api._endpoint(cast(Any, None), spec))
    request, *given = whole.parameters.values()
    assert request.annotation is gr.Request
    return whole.replace(parameters=given)


def as_code(value: object) -> str:
    return "`" + repr(list(value) if isinstance(value, tuple) else value).replace("'", '"') + "`"


COMMON_ROWS = rows(section(API, "Parameters of every endpoint"))
every_tab = pytest.mark.parametrize("spec", TABS, ids=lambda spec: spec.id)
every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)


# The endpoints


@every_tab
def test_every_parameter_is_documented_in_its_order(spec: TabSpec) -> None:
    own = list(rows(section(API, f"/{spec.id}")))
    message, *common = COMMON_ROWS
    assert [message, *own, *common] == list(signature(spec).parameters)


@every_tab
def test_every_option_is_documented_as_it_is(spec: TabSpec) -> None:
    documented = rows(section(API, f"/{spec.id}"))
    for option in spec.options:
        _, _, default, allowed, _ = documented[option.name]
        assert default == as_code(option.default)
        assert re.findall(r"`([^`]+)`", allowed) == list(option.choices) or option.kind == "languages"


@pytest.mark.parametrize("name", Sampling.model_fields)
def test_the_bounds_of_a_sampling_value_are_documented(name: str) -> None:
    kind, low, high = bounds(name)
    above = any(isinstance(rule, annotated_types.Gt) for rule in Sampling.model_fields[name].metadata)
    numbers = f"{low:,} to {high:,}" if kind is int else f"{low:g} to {high:g}"
    _, type_name, default, allowed, _ = COMMON_ROWS[name]
    assert allowed == ("above " if above else "") + numbers
    assert type_name == ("whole number or null" if kind is int else "number or null")
    assert default == "`null`"


def test_the_other_bounds_are_documented() -> None:
    assert f"{MAX_MESSAGE:,} characters" in COMMON_ROWS["message"][3]
    assert f"{2 * MAX_TURNS:,} messages" in COMMON_ROWS["history"][3]
    assert COMMON_ROWS["thinking_budget"][3] == f"0 to {MAX_BUDGET:,}"


def test_every_state_and_every_figure_is_documented() -> None:
    text = section(API, "What comes back")
    assert [name for name in (*get_args(State), *api.STATS) if f"`{name}`" not in text] == []


# README


def test_readme_begins_with_both_commands() -> None:
    beginning = "\n".join(README.splitlines()[:40])
    assert "make run" in beginning
    assert "make test" in beginning


def test_readme_is_short() -> None:
    assert len(README.split()) < 1000


@pytest.mark.parametrize("space", ["", "someone/playground"], ids=["here", "on a Space"])
def test_the_settings_stand_in_their_document_as_they_are(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if space:
        monkeypatch.setenv("SPACE_ID", space)
    assert settings.FILE.read_text("utf-8") == settings.document()
    told = rows(settings.document())
    assert list(told) == [f"PLAYGROUND_{name.upper()}" for name in Settings.model_fields]
    assert all(all(row) for row in told.values())


def test_a_changed_setting_is_written_into_its_document(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old = tmp_path / "settings.md"
    old.write_text("another", "utf-8")
    assert settings.main(["--check"], old) == 1
    assert "make settings" in capsys.readouterr().err
    assert (settings.main([], old), settings.main(["--check"], old)) == (0, 0)
    assert old.read_text("utf-8") == settings.document()


def test_the_figures_in_readme_are_those_of_the_data() -> None:
    catalog = Catalog.read()
    first, smallest = (card.artefact("llama_cpp") for card in catalog.cards[:2])
    assert first is not None
    assert smallest is not None
    assert f"a file of {human(first.bytes)}" in README
    assert f"a file of {human(smallest.bytes)}" in README
    assert f"{len(catalog.cards)} cards" in README
    assert f"{len(PROGRAMMING_LANGUAGES)} programming languages" in README
    assert f"of {len(languages())} languages" in README


def test_readme_names_the_python_versions_of_the_project() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "Python 3.11 to 3.13" in README


# Links


def anchors(text: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", CODE_BLOCK.sub("", text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@every_document
def test_relative_links_and_pictures_lead_somewhere(document: Path) -> None:
    text = CODE_BLOCK.sub("", document.read_text("utf-8"))
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'(?:src|href)="([^"]+)"', text)
    lost = []
    for target in targets:
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = document.parent / name if name else document
        if not file.exists() or (anchor and anchor not in anchors(file.read_text("utf-8"))):
            lost.append(target)
    assert lost == []


# Examples


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running playground that answers from a script."""
    process = subprocess.Popen(
        [sys.executable, "app.py", "--engine", "scripted", "--port", "0"],
        cwd=ROOT,
        env=os.environ | {"PLAYGROUND_CACHE_DIR": str(tmp_path_factory.mktemp("cache")), "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process.stdout:
        try:
            for line in process.stdout:
                if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield found[0]
                    break
        finally:
            process.kill()
            process.wait()


def examples(language: str) -> list[Any]:
    return [
        pytest.param(code, id=f"{name}-{number}")
        for name, text in (("readme", README), ("api", API))
        for number, (tongue, code) in enumerate(CODE_BLOCK.findall(text))
        if tongue == language
    ]


def ran(command: list[str], folder: Path) -> str:
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.mark.parametrize("code", examples("python"))
def test_a_python_example_runs_and_prints(code: str, address: str) -> None:
    assert ADDRESS in code
    printed = ran([sys.executable, "-c", code.replace(ADDRESS, address)], ROOT)  # where its pictures are
    assert printed.strip()
    assert "failed" not in printed


@pytest.mark.skipif(not (shutil.which("bash") and shutil.which("curl")), reason="needs bash and curl")
@pytest.mark.parametrize("code", examples("bash"))
def test_a_shell_example_runs_and_answers(code: str, address: str, tmp_path: Path) -> None:
    assert ADDRESS in code
    printed = ran(["bash", "-euo", "pipefail", "-c", code.replace(ADDRESS, address)], tmp_path)
    assert '"status":"ok"' in printed or ("event: complete" in printed and '"state": "done"' in printed)
