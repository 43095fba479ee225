"""Who may import whom. The layers by import-linter's contracts, the rest by reading every import statement."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted([ROOT / "app.py", *ROOT.glob("backends/**/*.py"), *ROOT.glob("ui/**/*.py")])
HEAVY = ("torch", "transformers", "xllamacpp", "onnxruntime", "onnxruntime_genai", "vllm")


def name_of(source: Path) -> str:
    return ".".join(source.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports(source: Path) -> tuple[str, ...]:
    """Every module that is named in an import statement of this file, at whatever depth it stands."""
    return tuple(named(source))


def named(source: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(source.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{source}: a relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def importers_of(package: str) -> set[str]:
    return {
        name_of(source)
        for source in SOURCES
        if any(name == package or name.startswith(f"{package}.") for name in imports(source))
    }


def test_the_contracts_of_pyproject_are_kept() -> None:
    linter = Path(sys.executable).with_name("lint-imports")
    assert linter.exists(), "import-linter is not installed: see requirements-dev.txt"
    done = subprocess.run([linter, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 broken" in done.stdout


def test_adapters_are_imported_by_the_registry_and_by_each_other_alone() -> None:
    outside = {name for name in importers_of("backends.adapters") if not name.startswith("backends.adapters")}
    assert outside == {"backends.registry"}


def test_the_registry_imports_adapters_lazily() -> None:
    tree = ast.parse((ROOT / "backends/registry.py").read_text("utf-8"))
    at_once = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert not [node for node in at_once if "adapters" in ast.unparse(node)]


def test_gradio_stays_in_the_ui() -> None:
    assert {name for name in importers_of("gradio") if not name.startswith("ui.")} == set()
    assert {name for name in importers_of("gradio_client") if not name.startswith("ui.")} == set()


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_by_its_own_adapter_alone(library: str) -> None:
    own = {"xllamacpp": ("backends.adapters.llama_cpp_child",)}
    allowed = own.get(library, ("backends.adapters.hf_transformers", "backends.adapters.onnx_genai"))
    assert [name for name in importers_of(library) if not name.startswith(allowed)] == []


def test_the_pure_modules_of_the_ui_know_nothing_of_gradio() -> None:
    pure = {"ui.render", "ui.transcript", "ui.pace", "ui.choices", "ui.tabs", "ui.sessions"}
    assert pure.isdisjoint(importers_of("gradio"))


def test_the_transcript_and_what_is_shown_know_no_engine() -> None:
    assert {"ui.render", "ui.transcript", "ui.pace"}.isdisjoint(importers_of("backends.engine"))


def test_thinking_knows_no_adapter_and_adapters_know_no_engine_room() -> None:
    rooms = importers_of("backends.engine") | importers_of("backends.models") | importers_of("backends.scheduler")
    assert not [name for name in rooms if name.startswith("backends.adapters")]


@pytest.mark.parametrize(
    "module",
    ["app", "ui.page", *(f"backends.adapters.{name}" for name in ("llama_cpp", "scripted", "hf_transformers"))],
)
def test_importing_it_loads_no_model_library(module: str) -> None:
    code = f"import sys, {module}; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_importing_the_app_does_not_even_import_gradio() -> None:
    """It takes a second; a fault in the settings is told without it."""
    code = "import sys, app; print('gradio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "False", done.stderr
