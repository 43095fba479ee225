"""The list of engines elsewhere: what may stand in it, and that every fault of it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from backends.adapters.openai.dialects import DIALECTS
from backends.adapters.openai.remote_engines import BadEngines, RemoteEngine, read_engines

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "engines.toml"


def listed(tmp_path: Path, text: str) -> tuple[RemoteEngine, ...]:
    file = tmp_path / "engines.toml"
    file.write_text(text, "utf-8")
    return read_engines(file)


def faults(tmp_path: Path, text: str) -> list[str]:
    with pytest.raises(BadEngines) as caught:
        listed(tmp_path, text)
    return caught.value.problems


def test_an_engine_needs_a_name_and_an_address(tmp_path: Path) -> None:
    (engine,) = listed(tmp_path, '[[engine]]\nname = "lab"\nurl = "http://gpu-box:8000/v1/"\n')
    assert (engine.name, engine.root, engine.host, engine.dialect) == ("lab", "http://gpu-box:8000", "gpu-box", "auto")
    problems = faults(tmp_path, "[[engine]]\nparallel = 0\n")
    assert len(problems) == 3
    assert all(problem.startswith("engines: number 1: ") for problem in problems)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]"])
def test_a_server_on_this_machine_is_no_other_place(tmp_path: Path, host: str) -> None:
    (engine,) = listed(tmp_path, f'[[engine]]\nname = "own"\nurl = "http://{host}:8000/v1"\n')
    assert engine.host == ""


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('url = "gpu-box:8000"', "must be an address"),
        ('url = "file:///etc/passwd"', "must be an address"),
        ('url = "http://user:secret@gpu-box/v1"', "must not hold a password"),
        ('url = "http://a/v1"\ndialect = "klingon"', "must be 'auto' or one of"),
        ('url = "http://a/v1"\ntimeout = 5', "Extra inputs"),
        ('url = "http://a/v1"\nkey_env = "two words"', "pattern"),
        ('url = "http://a/v1"\nkey_env = "NO_SUCH_KEY_HERE"', "NO_SUCH_KEY_HERE is not set"),
    ],
)
def test_a_fault_names_the_engine_and_what_to_do(tmp_path: Path, line: str, said: str) -> None:
    (problem,) = faults(tmp_path, f'[[engine]]\nname = "lab"\n{line}\n')
    assert problem.startswith("engines: lab: ")
    assert said in problem
    assert "secret" not in problem


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    text = 'colour = "red"\n[[engine]]\nname = "a"\nurl = "x"\n[[engine]]\nname = "b"\nurl = "http://b/v1"\n' * 1
    assert len(faults(tmp_path, text + '[[engine]]\nname = "b"\nurl = "http://c/v1"\n')) == 3


@pytest.mark.parametrize("text", ["[[engine]\n", "\0", "engine = 3\n"])
def test_a_file_that_is_no_list_is_a_sentence(tmp_path: Path, text: str) -> None:
    assert all(problem.startswith("engines: ") for problem in faults(tmp_path, text))


def test_a_missing_file_is_a_sentence_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(BadEngines) as caught:
        read_engines(tmp_path / "none.toml")
    assert str(tmp_path) not in str(caught.value)


def test_the_key_comes_from_the_environment_and_shows_nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_KEY", "hush")
    (engine,) = listed(tmp_path, '[[engine]]\nname = "lab"\nurl = "http://a/v1"\nkey_env = "LAB_KEY"\n')
    assert engine.key == "hush"
    assert "hush" not in repr(engine)


def test_hosted_services_are_known_by_their_address(tmp_path: Path) -> None:
    for url, dialect in {
        "https://dashscope-intl.aliyuncs.com/compatible-mode/v1": "model-studio",
        "https://api-inference.modelscope.cn/v1": "modelscope",
        "https://router.huggingface.co/v1": "hf-router",
        "https://notaliyuncs.com/v1": "",
    }.items():
        (engine,) = listed(tmp_path, f'[[engine]]\nname = "a"\nurl = "{url}"\n')
        assert engine.hosted == dialect


def test_the_example_is_valid_once_its_comments_are_taken_off(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert read_engines(EXAMPLE) == ()
    lines = EXAMPLE.read_text("utf-8").splitlines()
    monkeypatch.setenv("MODEL_STUDIO_KEY", "k")
    taken_off = [line.removeprefix("#") for line in lines if line.startswith("#") and not line.startswith("# ")]
    engines = listed(tmp_path, "\n".join(taken_off))
    assert len(engines) >= 4
    assert {engine.dialect for engine in engines} <= {"auto", *DIALECTS}
