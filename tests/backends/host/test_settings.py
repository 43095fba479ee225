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
from backends.engine.limits import Rules
from backends.host.settings import BadSettings, Settings, read_settings

ROOT = Path(__file__).resolve().parents[3]


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


# --- who may come in -----------------------------------------------------------------------------


@pytest.fixture
def users(tmp_path: Path) -> Path:
    file = tmp_path / "users.txt"
    file.write_text("mia:$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$aGFzaA:host\n", "utf-8")
    return file


@pytest.fixture
def on_a_space(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "somebody/playground")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.0.2.7", "::"])
def test_where_everybody_has_to_sign_in_the_network_needs_no_other_permission(host: str, users: Path) -> None:
    for arguments in (["--class-code", "amber fox"], ["--users", str(users)], ["--open-to-network"]):
        settings = read_settings(["--host", host, *arguments])
        assert not settings.is_loopback
        assert settings.has_sign_in == (arguments != ["--open-to-network"])


@pytest.mark.parametrize("arguments", [[], ["--class-code", ""], ["--class-code", "      "]])
def test_a_network_that_anybody_could_use_is_refused_with_every_way_out(arguments: list[str]) -> None:
    (problem,) = problems("--host", "0.0.0.0", *arguments)
    assert all(way in problem for way in ("--class-code", "--users", "--open-to-network", "0.0.0.0"))


@pytest.mark.parametrize("code", ["a", "amber", "  fox  ", "12345"])
def test_a_class_code_that_is_quickly_guessed_is_refused(code: str) -> None:
    (problem,) = problems("--class-code", code)
    assert problem.startswith("class_code: must have at least 6 characters, or be empty")


def test_a_class_code_is_kept_to_itself_and_without_the_blanks_around_it() -> None:
    settings = read_settings(["--class-code", "  amber fox "])
    assert settings.class_code.get_secret_value() == "amber fox"
    assert settings.has_sign_in
    assert "amber" not in f"{settings!r}{settings}"
    assert not read_settings([]).has_sign_in


def test_hugging_face_signs_nobody_in_but_on_a_space() -> None:
    (problem,) = problems("--huggingface")
    assert "on a Space alone" in problem


@pytest.mark.usefixtures("on_a_space")
def test_on_a_space_hugging_face_may_sign_in_and_its_visitors_have_limits() -> None:
    settings = read_settings(["--huggingface"])
    assert settings.has_sign_in
    assert (settings.host, settings.proxies) == ("0.0.0.0", 1)
    assert settings.frame_hosts == ("https://huggingface.co",)
    assert min(settings.rules.answers_per_hour, settings.rules.tokens_per_hour) > 0


def test_a_users_file_that_can_be_read_is_fine(users: Path) -> None:
    assert read_settings(["--users", str(users)]).has_sign_in


@pytest.mark.parametrize("content", [None, b"\xff\xfe", b"mia\n", b"mia:a password\n"])
def test_a_users_file_that_cannot_be_read_is_told_when_the_settings_are_checked(
    users: Path, capsys: pytest.CaptureFixture[str], content: bytes | None
) -> None:
    users.unlink() if content is None else users.write_bytes(content)
    (problem,) = problems("--users", str(users))
    assert problem.startswith("users: ")
    assert "a password" not in problem
    assert app.main(["--check-config", "--users", str(users)]) == 2
    assert f"- {problem}\n" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["trusted_hosts", "frame_hosts"])
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("", ()),
        (" , ", ()),
        ("a.example", ("a.example",)),
        ("a.example,b.example", ("a.example", "b.example")),
        (" a.example , b.example  c.example,", ("a.example", "b.example", "c.example")),
    ],
)
def test_several_words_are_written_with_commas(
    monkeypatch: pytest.MonkeyPatch, name: str, given: str, words: tuple[str, ...]
) -> None:
    assert getattr(read_settings([f"--{name.replace('_', '-')}", given]), name) == words
    monkeypatch.setenv(f"PLAYGROUND_{name.upper()}", given)
    assert getattr(read_settings([]), name) == words


# --- what people may -----------------------------------------------------------------------------

RULES = tuple(Rules.__slots__)


def test_without_anything_set_nobody_has_a_limit() -> None:
    assert read_settings([]).rules == Rules()


def test_all_six_rules_are_carried_as_they_were_set(monkeypatch: pytest.MonkeyPatch) -> None:
    values = {name: number for number, name in enumerate(RULES, 1)}
    assert len(values) == 6
    flags = [f"--{name.replace('_', '-')}={number}" for name, number in values.items()]
    assert read_settings(flags).rules == Rules(**values)
    for name, number in values.items():
        monkeypatch.setenv(f"PLAYGROUND_{name.upper()}", str(number))
    assert read_settings([]).rules == Rules(**values)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
def test_a_limit_is_a_whole_number(name: str, value: str) -> None:
    (problem,) = problems(f"--{name.replace('_', '-')}={value}")
    assert problem.startswith(f"{name}: ")


def test_redis_without_its_library_is_told_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    for storage in ("redis://localhost:6379", "rediss://localhost:6379"):
        (problem,) = problems("--limits-storage", storage)
        assert problem.startswith("limits_storage: ")
        assert "pip install redis" in problem
    assert read_settings(["--limits-storage", "memory://"]).limits_storage == "memory://"


@pytest.mark.parametrize("storage", ["", "postgres://localhost", "redis", "/tmp/limits"])
def test_a_storage_that_nobody_knows_is_refused(storage: str) -> None:
    (problem,) = problems("--limits-storage", storage)
    assert problem.startswith("limits_storage: ")


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
    monkeypatch.setitem(sys.modules, "ui.screen.page", None)
    assert app.main(["--check-config"]) == 0
