"""A host sets things by environment or flag; what is wrong is told all at once, before anything loads."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import app
from backends.settings import BadSettings, Settings, read_settings

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what a test sets itself; a free port, and a cache of its own."""
    for name in list(os.environ):
        if name.startswith("PLAYGROUND_") or name in ("SPACE_ID", "SYSTEM"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PLAYGROUND_PORT", "0")
    monkeypatch.setenv("PLAYGROUND_CACHE_DIR", str(tmp_path / "cache"))


def problems(*arguments: str) -> list[str]:
    with pytest.raises(BadSettings) as caught:
        read_settings(list(arguments))
    return caught.value.problems


def start(*arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """The real program. Everything here ends by itself: it is only ever started to be refused or checked."""
    return subprocess.run(
        [sys.executable, "app.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env={**os.environ, **env},
    )  # fmt: skip


# --- what is taken -------------------------------------------------------------------------------


def test_without_anything_set_it_listens_to_this_machine_alone() -> None:
    settings = read_settings([])
    assert settings.host == "127.0.0.1"
    assert not settings.open_to_network
    assert settings.is_loopback


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    description = Settings.model_fields[name].description or ""
    assert description.endswith(".")
    assert len(description) > 15


@pytest.mark.parametrize("name", Settings.model_fields)
def test_every_setting_is_a_flag_that_the_help_explains(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        read_settings(["--help"])
    assert end.value.code == 0
    shown = capsys.readouterr().out
    assert f"--{name.replace('_', '-')}" in shown


def test_a_flag_goes_before_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND_LOG_LEVEL", "debug")
    assert read_settings([]).log_level == "debug"
    assert read_settings(["--log-level", "error"]).log_level == "error"


def test_switches_are_flags_and_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read_settings(["--offline"]).offline
    assert not read_settings(["--no-offline"]).offline
    monkeypatch.setenv("PLAYGROUND_OFFLINE", "true")
    assert read_settings([]).offline


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_addresses_of_this_machine_need_no_permission(host: str) -> None:
    assert read_settings(["--host", host]).is_loopback


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_addresses_beyond_this_machine_need_to_be_meant(host: str) -> None:
    (problem,) = problems("--host", host)
    assert "--open-to-network" in problem
    assert host in problem


def test_settings_cannot_be_changed_later() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read_settings([]).port = 1  # type: ignore[misc]


# --- what is refused -----------------------------------------------------------------------------

BAD = {
    "port": ["--port", "abc"],
    "host": ["--host", "example.com"],
    "engine": ["--engine", "warp"],
    "log_level": ["--log-level", "loud"],
}


@pytest.mark.parametrize(("name", "arguments"), BAD.items())
def test_a_bad_value_is_named_with_what_was_given(name: str, arguments: list[str]) -> None:
    (problem,) = problems(*arguments)
    assert problem.startswith(f"{name}: ")
    assert arguments[-1].split("=")[-1] in problem
    assert "\n" not in problem


@pytest.mark.parametrize(
    ("engine", "library", "command"),
    [("llama_cpp", "xllamacpp", "'make setup'"), ("transformers", "torch", "'make setup-transformers'")],
)
def test_an_engine_that_is_not_installed_is_told_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, engine: str, library: str, command: str
) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    (problem,) = problems("--engine", engine)
    assert problem.startswith("engine: ")
    assert command in problem


def test_all_bad_values_are_told_at_once() -> None:
    found = problems(*(word for words in BAD.values() for word in words))
    assert sorted(problem.split(":")[0] for problem in found) == sorted(BAD)


def test_bad_variables_and_bad_flags_are_told_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLAYGROUND_PORT", "abc")
    monkeypatch.setenv("PLAYGROUND_PROT", "7860")
    monkeypatch.setenv("PLAYGROUND_OFFLINE", "perhaps")
    found = " / ".join(problems("--engine", "warp"))
    assert "port: " in found
    assert "engine: " in found
    assert "offline: " in found
    assert "PLAYGROUND_PROT" in found


@pytest.mark.parametrize("port", ["-1", "65536", "1.5", ""])
def test_a_port_has_bounds(port: str) -> None:
    assert problems(f"--port={port}")[0].startswith("port: ")


def test_a_model_that_is_not_in_the_catalog_is_told_before_anything_starts() -> None:
    (problem,) = problems("--model", "../../etc/passwd")
    assert problem.startswith("model: ")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written_to_is_told(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert problems("--cache-dir", str(tmp_path))[0].startswith("cache_dir: ")


def test_a_cache_that_is_a_file_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert problems("--cache-dir", str(file))[0].startswith("cache_dir: ")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_a_port_that_is_taken_is_told_with_what_is_wrong_elsewhere(taken: int) -> None:
    found = problems("--port", str(taken), "--model", "nope")
    assert sorted(problem.split(":")[0] for problem in found) == ["model", "port"]
    assert str(taken) in " ".join(found)


@pytest.mark.parametrize("arguments", [["--nope"], ["--nope", "1"], ["--nope=1"], ["nope"]])
def test_an_unknown_flag_is_refused_by_its_name(arguments: list[str]) -> None:
    found = start(*arguments)
    assert found.returncode == 2
    assert "nope" in found.stderr
    assert "Traceback" not in found.stderr


# --- the program ---------------------------------------------------------------------------------


def test_the_program_reports_everything_without_a_trace_and_ends_with_2() -> None:
    done = start("--port", "abc", "--host", "example.com", "--engine", "warp", PLAYGROUND_LOG_LEVEL="loud")
    assert done.returncode == 2
    assert done.stdout == ""
    assert all(f"{name}: " in done.stderr for name in ("port", "host", "engine", "log_level"))
    assert "Traceback" not in done.stderr
    assert ".py" not in done.stderr
    assert "pydantic" not in done.stderr


def test_a_bad_variable_alone_ends_it_with_2() -> None:
    done = start(PLAYGROUND_PORT="abc")
    assert done.returncode == 2
    assert "port: " in done.stderr
    assert "abc" in done.stderr
    assert "Traceback" not in done.stderr


def test_checking_ends_with_0_and_loads_nothing(tmp_path: Path) -> None:
    done = start("--check-config", "--port", "0", "--engine", "scripted")
    assert (done.returncode, done.stderr) == (0, "")
    assert "fine" in done.stdout


def test_checking_a_bad_setting_ends_with_2() -> None:
    assert start("--check-config", "--port", "abc").returncode == 2


def test_checking_starts_no_engine_and_no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app, "make_engines", lambda settings: pytest.fail("an engine was made"))
    monkeypatch.setitem(sys.modules, "ui.page", None)
    assert app.main(["--check-config"]) == 0
