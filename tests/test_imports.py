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


DOORS_OF_ADAPTERS = ("backends.adapters.registry", "backends.adapters.openai.remote_engines")


def test_adapters_are_reached_through_the_registry_alone() -> None:
    outside = [source for source in SOURCES if not name_of(source).startswith("backends.adapters")]
    reached = {name for source in outside for name in imports(source) if name.startswith("backends.adapters.")}
    assert {name for name in reached if not name.startswith(DOORS_OF_ADAPTERS)} == set()


def test_the_registry_imports_adapters_lazily() -> None:
    tree = ast.parse((ROOT / "backends/adapters/registry.py").read_text("utf-8"))
    at_once = [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    adapters = [line for line in at_once if "backends.adapters" in line]
    assert all("openai.remote_engines" in line or "openai.remote_pool" in line for line in adapters)


def test_gradio_stays_in_the_ui() -> None:
    assert {name for name in importers_of("gradio") if not name.startswith("ui.")} == set()
    assert {name for name in importers_of("gradio_client") if not name.startswith("ui.")} == set()


@pytest.mark.parametrize("library", HEAVY)
def test_a_heavy_library_is_imported_by_its_own_adapter_alone(library: str) -> None:
    own = {"xllamacpp": ("backends.adapters.llama_cpp.child",)}
    allowed = own.get(library, ("backends.adapters.hf_transformers", "backends.adapters.onnx_genai"))
    assert [name for name in importers_of(library) if not name.startswith(allowed)] == []


def test_the_transcript_and_what_is_shown_know_no_engine() -> None:
    pure = {f"ui.conversation.{name}" for name in ("render", "transcript", "pace", "markdown", "stage")}
    assert pure.isdisjoint(importers_of("backends.engine"))


@pytest.mark.parametrize(
    "module",
    [
        "app",
        "ui.screen.page",
        *(f"backends.adapters.{name}" for name in ("llama_cpp.adapter", "scripted", "hf_transformers.adapter")),
    ],
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
